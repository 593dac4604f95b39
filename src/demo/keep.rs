//! What can be tried when everything goes on running: commands to paste.

use super::{
    DemoError,
    cast::{ALICE, EMMA, GATEWAY, LI_WEI, Network, OPERATOR},
    cluster::{Cluster, Member},
    day::Day,
    deal::{Deal, Fixed},
    sums::units,
    tell::Tell,
};
use crate::{authn::Role, pb::gateway::v1::Payment, tls::TlsFiles};

/// Where everything is, and how to end it.
pub fn show_running(tell: &mut Tell, cluster: &Cluster) -> Result<(), DemoError> {
    let folder = cluster.folder().display();
    tell.heading("Everything goes on running")?;
    tell.say(&format!(
        "Certificates, stores, logs and gateway.toml are in {folder}. To stop it all and to clean up:"
    ))?;
    let pids: Vec<_> = cluster.pids().map(|(_, pid)| pid.to_string()).collect();
    tell.line(&format!("kill {}; rm -r {folder}\n", pids.join(" ")))?;
    for (name, pid) in cluster.pids() {
        tell.say(&format!("{name} is process {pid}"))?;
    }
    Ok(())
}

/// Calls for grpcurl, each complete in itself.
pub fn show_commands(tell: &mut Tell, cluster: &Cluster, day: &Day, earlier: &Payment) -> Result<(), DemoError> {
    let apple_pay = Caller::new(cluster, Role::Partner, Network::ApplePay.name(), Member::Gateway)?;
    let operator = |member| Caller::new(cluster, Role::Operator, OPERATOR, member);
    let deal = Deal::new(day, ALICE, LI_WEI, Fixed::Send(units(10)))?;
    let usd_cny = format!("{}-{}", ALICE.network.currency(), LI_WEI.network.currency());
    let quote = format!(
        r#"{{"quote": {{"corridor": {{"source_partner": "{}", "source_currency": "{}", "target_partner": "{}", "target_currency": "{}"}}, "fixed_side": "FIXED_SIDE_SEND", "amount": {{"currency": "USD", "amount": "10.00"}}}}}}"#,
        ALICE.network.resource(),
        ALICE.network.currency(),
        LI_WEI.network.resource(),
        LI_WEI.network.currency(),
    );
    let pay = format!(
        r#"{{"request_id": "{}", "payment": {{"payer": {{"partner": "{}", "account": "{}"}}, "payee": {{"partner": "{}", "account": "{}"}}, "market": {{"fixed_side": "FIXED_SIDE_SEND", "amount": {{"currency": "USD", "amount": "10.00"}}, "worst_rate": "{}", "source_currency": "{}", "target_currency": "{}"}}}}}}"#,
        uuid::Uuid::new_v4(),
        ALICE.network.resource(),
        ALICE.account,
        LI_WEI.network.resource(),
        LI_WEI.account,
        deal.rate,
        ALICE.network.currency(),
        LI_WEI.network.currency(),
    );
    let service = |name: &str| format!("causeway.{GATEWAY}.v1.{name}");
    tell.heading("To try with grpcurl")?;
    tell.say("What the gateway serves:")?;
    tell.line(&apple_pay.plain("list"))?;
    tell.line(&apple_pay.plain(&format!("describe {}", service("PaymentService"))))?;
    tell.say("The rate of the day, and a quote:")?;
    tell.line(&apple_pay.call(
        &service("RateService/GetRate"),
        &format!(r#"{{"name": "rates/{usd_cny}"}}"#),
    ))?;
    tell.line(&apple_pay.call(&service("QuoteService/CreateQuote"), &quote))?;
    tell.say("Alice pays Li Wei 10.00 USD. Paste it twice: the money moves once.")?;
    tell.line(&apple_pay.call(&service("PaymentService/CreatePayment"), &pay))?;
    tell.say("The first payment of the story:")?;
    let name = format!(r#"{{"name": "{}"}}"#, earlier.name);
    tell.line(&apple_pay.call(&service("PaymentService/GetPayment"), &name))?;
    tell.say("Every change of every payment from the beginning, and then whatever comes (Ctrl-C ends it):")?;
    tell.line(&apple_pay.call(&service("PaymentService/WatchPayments"), r#"{"resume_token": "start"}"#))?;
    tell.say("As an operator: all payments, and the accounts of a network.")?;
    tell.line(&operator(Member::Gateway)?.call(&service("PaymentService/ListPayments"), "{}"))?;
    for wallet in [ALICE, EMMA] {
        let caller = operator(Member::Partner(wallet.network))?;
        tell.line(&caller.call("causeway.mock.v1.MockService/ListAccounts", "{}"))?;
    }
    Ok(())
}

/// Who calls whom.
struct Caller {
    files: TlsFiles,
    address: String,
}

impl Caller {
    fn new(cluster: &Cluster, role: Role, name: &str, callee: Member) -> Result<Caller, DemoError> {
        Ok(Caller {
            files: cluster.files(role, name)?,
            address: cluster.address(callee),
        })
    }

    fn plain(&self, verb: &str) -> String {
        format!("grpcurl {} {} {verb}\n", self.certificates(), self.address)
    }

    fn call(&self, method: &str, body: &str) -> String {
        let (certificates, address) = (self.certificates(), &self.address);
        format!("grpcurl {certificates} \\\n  -d '{body}' \\\n  {address} {method}\n")
    }

    fn certificates(&self) -> String {
        let TlsFiles { ca, cert, key } = &self.files;
        format!(
            "-cacert {} -cert {} -key {}",
            ca.display(),
            cert.display(),
            key.display()
        )
    }
}
