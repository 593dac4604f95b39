//! What can be tried when everything goes on running: commands to paste.

use std::path::Path;

use super::{
    DemoError,
    cast::{ALICE, LI_WEI, Network, OPERATOR},
    cluster::{Cluster, Member},
    day::Day,
    deal::{Deal, Fixed},
    sums::{print, units},
    table::{Align, Table},
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
    let quoted = quoted(&folder.to_string());
    // They write to the folder until they are gone.
    let pids = pids.join(" ");
    tell.line(&format!(
        "kill {pids}; while kill -0 {pids} 2>/dev/null; do sleep 0.1; done; rm -r {quoted}\n"
    ))?;
    let mut table = Table::new([("process", Align::Left), ("process id", Align::Right)]);
    for (name, pid) in cluster.pids() {
        table.row([name.into(), pid.to_string()]);
    }
    tell.show(&table)?;
    Ok(())
}

/// Calls for grpcurl, each complete in itself.
pub fn show_commands(tell: &mut Tell, cluster: &Cluster, day: &Day, earlier: &Payment) -> Result<(), DemoError> {
    let apple_pay = Caller::new(cluster, Role::Partner, Network::ApplePay.name(), Member::Gateway)?;
    let operator = |member| Caller::new(cluster, Role::Operator, OPERATOR, member);
    let deal = Deal::new(day, ALICE, LI_WEI, Fixed::Send(units(10)))?;
    let (from, to) = (ALICE.network, LI_WEI.network);
    let (source_partner, target_partner) = (from.resource(), to.resource());
    let (source, target) = (from.currency(), to.currency());
    let amount = format!(r#"{{"currency": "{source}", "amount": "{}"}}"#, print(deal.send));
    let quote = format!(
        r#"{{
    "quote": {{
      "corridor": {{"source_partner": "{source_partner}", "source_currency": "{source}",
                   "target_partner": "{target_partner}", "target_currency": "{target}"}},
      "fixed_side": "FIXED_SIDE_SEND", "amount": {amount}
    }}
  }}"#
    );
    let (request_id, rate) = (uuid::Uuid::new_v4(), deal.rate);
    let (payer, payee) = (ALICE.account, LI_WEI.account);
    let pay = format!(
        r#"{{
    "request_id": "{request_id}",
    "payment": {{
      "payer": {{"partner": "{source_partner}", "account": "{payer}"}},
      "payee": {{"partner": "{target_partner}", "account": "{payee}"}},
      "market": {{"fixed_side": "FIXED_SIDE_SEND", "amount": {amount}, "worst_rate": "{rate}",
                 "source_currency": "{source}", "target_currency": "{target}"}}
    }}
  }}"#
    );
    let service = |name: &str| format!("causeway.gateway.v1.{name}");
    tell.heading("To try with grpcurl")?;
    tell.say("What the gateway serves:")?;
    tell.line(&apple_pay.plain("list"))?;
    tell.line(&apple_pay.plain(&format!("describe {}", service("PaymentService"))))?;
    tell.say("The rate of the day, and a quote:")?;
    tell.line(&apple_pay.call(
        &service("RateService/GetRate"),
        &format!(r#"{{"name": "rates/{source}-{target}"}}"#),
    ))?;
    tell.line(&apple_pay.call(&service("QuoteService/CreateQuote"), &quote))?;
    tell.say("Alice pays Li Wei 10.00 USD. Paste it twice: the money moves once.")?;
    tell.line(&apple_pay.call(&service("PaymentService/CreatePayment"), &pay))?;
    tell.say("The first payment of the story:")?;
    let name = format!(r#"{{"name": "{}"}}"#, earlier.name);
    tell.line(&apple_pay.call(&service("PaymentService/GetPayment"), &name))?;
    tell.say("Every change of every payment from the beginning, and then whatever comes (Ctrl-C ends it):")?;
    tell.line(&apple_pay.call(&service("PaymentService/WatchPayments"), r#"{"resume_token": "start"}"#))?;
    tell.say("As an operator: all payments, and the accounts of Apple Pay and of Alipay.")?;
    tell.line(&operator(Member::Gateway)?.call(&service("PaymentService/ListPayments"), "{}"))?;
    for wallet in [ALICE, LI_WEI] {
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
        let path = |path: &Path| quoted(&path.display().to_string());
        format!("-cacert {} -cert {} -key {}", path(ca), path(cert), path(key))
    }
}

/// As one word for a shell; bare if it is one already.
fn quoted(text: &str) -> String {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if text.bytes().all(is_word) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn paths_are_one_word_for_a_shell() {
        assert_eq!(quoted("/tmp/causeway-demo-Ab1/certs"), "/tmp/causeway-demo-Ab1/certs");
        assert_eq!(quoted("/tmp/it's $HOME"), r"'/tmp/it'\''s $HOME'");
    }
}
