//! Two partner networks and a gateway as processes of their own, and a caller in each partner's name.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use causeway::{
    authn::{Principal, Role},
    certs::{CertsOptions, files_of, generate},
    pb::{
        gateway::v1::{
            self as pb, payment_service_client::PaymentServiceClient, quote_service_client::QuoteServiceClient,
        },
        mock::v1::{self as mock, fault::Command as FaultCommand, fault::Kind, mock_service_client::MockServiceClient},
        money::v1::Money,
    },
    tls::{ChannelOptions, channel},
};
use tempfile::TempDir;
use tonic::{Status, transport::Channel};

use crate::{
    ports::free_port,
    process::{BOUND, Process},
};

/// Timings that make a test quick. A test appends its own. Only recovery's timer is slow: what a restarted gateway takes up,
/// it has to take up at once.
pub const QUICK: &str = "
voting_ms = 5000
command_ms = 2000
inquiry_ms = 2000
hold_ms = 60000
voting_ladder_ms = [50, 100, 200]
delivery_ladder_ms = [50, 100, 200, 400]
recovery_interval_ms = 600000
";

/// Who uses the machine. What is measured is measured alone; everything else runs side by side.
static MACHINE: RwLock<()> = RwLock::new(());

/// For tests that start processes and measure nothing.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// For tests that measure.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that a payment needs.
pub struct World {
    folder: TempDir,
    timing: String,
    ports: BTreeMap<&'static str, u16>,
    partners: BTreeMap<&'static str, Process>,
    pub gateway: Option<Process>,
    memory_partners: bool,
}

pub const GATEWAY: &str = "gateway";
pub const APPLE: &str = "apple-pay";
pub const ALIPAY: &str = "alipay";

impl World {
    /// Certificates and partners; no gateway yet.
    pub fn new(timing: &str) -> Self {
        Self::with(timing, false)
    }

    /// The same with partners that keep nothing, so that they are not what is measured.
    pub fn with_memory_partners(timing: &str) -> Self {
        Self::with(timing, true)
    }

    fn with(timing: &str, memory_partners: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate(&CertsOptions {
            dir: folder.path().join("certs"),
            ..CertsOptions::default()
        })
        .unwrap();
        let ports = [GATEWAY, APPLE, ALIPAY].map(|name| (name, free_port())).into();
        let timing = timing.to_owned();
        let mut world = Self {
            folder,
            timing,
            ports,
            partners: BTreeMap::new(),
            gateway: None,
            memory_partners,
        };
        world.start_partner(APPLE, &[]);
        world.start_partner(ALIPAY, &[]);
        world
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("gateway.sqlite")
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[name]))
    }

    pub fn start_partner(&mut self, name: &'static str, faults: &[&str]) {
        let (customer, currency) = if name == APPLE {
            ("alice", "USD")
        } else {
            ("bob", "CNY")
        };
        let store = match self.memory_partners {
            true => ":memory:".into(),
            false => self.path().join(format!("{name}.sqlite")).display().to_string(),
        };
        let mut arguments: Vec<String> = vec!["--log".into(), "warn".into(), "mock-partner".into()];
        let certs = self.path().join("certs").display().to_string();
        for (flag, value) in [
            ("--name", name.to_owned()),
            ("--listen", self.address(name).to_string()),
            ("--store", store),
            ("--certs", certs),
            ("--account", format!("{customer}:{currency}:1000000000.00")),
            ("--account", format!("poor:{currency}:0.00")),
            ("--gateway", format!("https://{}", self.address(GATEWAY))),
        ] {
            arguments.extend([flag.into(), value]);
        }
        for fault in faults {
            arguments.extend(["--fault".into(), (*fault).into()]);
        }
        let mut process = Process::start(name, &arguments);
        process.wait_for("listening on");
        self.partners.insert(name, process);
    }

    pub fn partner(&mut self, name: &'static str) -> &mut Process {
        self.partners.get_mut(name).unwrap()
    }

    pub fn start_gateway(&mut self, arguments: &[&str]) -> Duration {
        let started = Instant::now();
        let config = self.path().join("gateway.toml");
        fs::write(&config, self.config()).unwrap();
        let mut all: Vec<String> = vec!["--log".into(), "info".into(), "serve".into(), "--config".into()];
        all.push(config.display().to_string());
        all.extend(arguments.iter().map(|argument| (*argument).into()));
        let mut process = Process::start(GATEWAY, &all);
        process.wait_for("recovered");
        self.gateway = Some(process);
        started.elapsed()
    }

    pub fn gateway(&mut self) -> &mut Process {
        self.gateway.as_mut().expect("the gateway was started")
    }

    fn config(&self) -> String {
        let mut text = format!(
            "listen = \"{}\"\nstore = \"gateway.sqlite\"\n\
             [tls]\nca = \"certs/ca.pem\"\ncert = \"certs/gateway.pem\"\nkey = \"certs/gateway.key\"\n\
             [rates]\nsource = \"sample\"\ndate = \"2014-10-28\"\n[timing]\n{}\n",
            self.address(GATEWAY),
            self.timing
        );
        for (name, currency) in [(APPLE, "USD"), (ALIPAY, "CNY")] {
            writeln!(
                text,
                "[[partner]]\nname = \"{name}\"\nidentity = \"spiffe://causeway.dev/partner/{name}\"\n\
                 endpoint = \"https://{}\"\ncurrencies = [\"{currency}\"]",
                self.address(name)
            )
            .unwrap();
        }
        text + "[[corridor]]\nfrom = \"apple-pay/USD\"\nto = \"alipay/CNY\"\nmargin = \"0.0025\"\nfee = \"0.30\"\n"
    }

    /// A connection to `server` in somebody's name.
    fn connect(&self, server: &str, as_: (Role, &str)) -> Channel {
        let principal = |role, name: &str| Principal::new(role, name, "causeway.dev").unwrap();
        let expected = principal(
            if server == GATEWAY {
                Role::Gateway
            } else {
                Role::Partner
            },
            server,
        );
        let files = files_of(&self.path().join("certs"), &principal(as_.0, as_.1));
        let endpoint = format!("https://{}", self.address(server));
        channel(&endpoint, &files, &expected, ChannelOptions::default()).unwrap()
    }

    /// Apple Pay's connection to the gateway.
    pub fn payments(&self) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(self.connect(GATEWAY, (Role::Partner, APPLE)))
    }

    pub fn quotes(&self) -> QuoteServiceClient<Channel> {
        QuoteServiceClient::new(self.connect(GATEWAY, (Role::Partner, APPLE)))
    }

    pub fn control(&self, partner: &str) -> MockServiceClient<Channel> {
        MockServiceClient::new(self.connect(partner, (Role::Operator, "ops")))
    }

    pub async fn set_faults(&self, partner: &str, faults: &[mock::Fault]) {
        self.control(partner)
            .set_faults(mock::SetFaultsRequest {
                faults: faults.to_vec(),
            })
            .await
            .unwrap();
    }

    /// How often each wallet of the payment moved: debits at Apple Pay, credits at Alipay.
    pub async fn moved(&self, payment: &str) -> (i64, i64) {
        let request = || mock::ListMovementsRequest {
            account: String::new(),
            payment: payment.into(),
        };
        let debits = self
            .control(APPLE)
            .list_movements(request())
            .await
            .unwrap()
            .into_inner()
            .total_count;
        let credits = self
            .control(ALIPAY)
            .list_movements(request())
            .await
            .unwrap()
            .into_inner()
            .total_count;
        (debits, credits)
    }

    /// How many wallets moved in all, how many holds wait, and whether each network's books add up to nothing.
    pub async fn totals(&self) -> Totals {
        let mut totals = Totals {
            movements: [0, 0],
            waiting: 0,
            balanced: true,
        };
        for (index, partner) in [APPLE, ALIPAY].into_iter().enumerate() {
            let mut control = self.control(partner);
            let all = mock::ListMovementsRequest::default();
            totals.movements[index] = control.list_movements(all).await.unwrap().into_inner().total_count;
            let waiting = mock::ListHoldsRequest {
                state: "prepared".into(),
                payment: String::new(),
            };
            totals.waiting += control.list_holds(waiting).await.unwrap().into_inner().total_count;
            let accounts = control
                .list_accounts(mock::ListAccountsRequest {})
                .await
                .unwrap()
                .into_inner()
                .accounts;
            assert!(accounts.len() >= 3, "{accounts:?}");
            let sum: i128 = accounts
                .iter()
                .map(|account| minor(account.balance.as_ref().unwrap()))
                .sum();
            totals.balanced &= sum == 0;
        }
        totals
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Totals {
    pub movements: [i64; 2],
    pub waiting: i64,
    pub balanced: bool,
}

/// Minor units of a decimal string, without the gateway's own arithmetic.
fn minor(money: &Money) -> i128 {
    money.amount.replace('.', "").parse().unwrap()
}

pub fn fault(kind: Kind, command: FaultCommand, count: i32) -> mock::Fault {
    mock::Fault {
        kind: kind.into(),
        command: command.into(),
        count,
        ..mock::Fault::default()
    }
}

pub fn latency(command: FaultCommand, latency_ms: i32) -> mock::Fault {
    mock::Fault {
        latency_ms,
        ..fault(Kind::Latency, command, 0)
    }
}

/// A payment at the market from an account of Apple Pay to Bob.
pub fn order(request_id: &str, payer: &str) -> pb::CreatePaymentRequest {
    let party = |partner: &str, account: &str| {
        Some(pb::Party {
            partner: format!("partners/{partner}"),
            account: account.into(),
        })
    };
    let market = pb::payment::MarketOrder {
        fixed_side: pb::FixedSide::Send.into(),
        amount: Some(Money {
            currency: "USD".into(),
            amount: "10.00".into(),
        }),
        worst_rate: "6".into(),
        source_currency: "USD".into(),
        target_currency: "CNY".into(),
    };
    pb::CreatePaymentRequest {
        payment: Some(Box::new(pb::Payment {
            payer: party(APPLE, payer),
            payee: party(ALIPAY, "bob"),
            pricing: Some(pb::payment::Pricing::Market(market)),
            ..pb::Payment::default()
        })),
        request_id: request_id.into(),
        ..pb::CreatePaymentRequest::default()
    }
}

/// The same by a quote.
pub fn quoted(request_id: &str, payer: &str, quote: &str) -> pb::CreatePaymentRequest {
    let mut request = order(request_id, payer);
    let payment = request.payment.as_mut().expect("an order has a payment");
    payment.pricing = Some(pb::payment::Pricing::Quote(quote.into()));
    request
}

pub fn quote_request() -> pb::CreateQuoteRequest {
    pb::CreateQuoteRequest {
        quote: Some(pb::Quote {
            corridor: Some(pb::Corridor {
                source_partner: format!("partners/{APPLE}"),
                source_currency: "USD".into(),
                target_partner: format!("partners/{ALIPAY}"),
                target_currency: "CNY".into(),
            }),
            fixed_side: pb::FixedSide::Send.into(),
            amount: Some(Money {
                currency: "USD".into(),
                amount: "10.00".into(),
            }),
            ..pb::Quote::default()
        }),
    }
}

/// Sends the same request until there is an answer, as a caller does whose server comes and goes.
pub async fn insist(
    client: &PaymentServiceClient<Channel>,
    request: &pb::CreatePaymentRequest,
) -> Result<pb::Payment, Status> {
    eventually("an answer", async || {
        match client.clone().create_payment(request.clone()).await {
            Ok(response) => Some(Ok(response.into_inner())),
            Err(status) if is_lost(&status) => None,
            Err(status) => Some(Err(status)),
        }
    })
    .await
}

/// Whether the caller cannot know what became of its call.
pub fn is_lost(status: &Status) -> bool {
    use tonic::Code::{Cancelled, Internal, Unavailable, Unknown};
    matches!(status.code(), Unavailable | Unknown | Cancelled | Internal)
}

/// Asks again and again until there is something, with a bound.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let until = Instant::now() + BOUND;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < until, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
