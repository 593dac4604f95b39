//! Starting, stopping and killing the parties.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use causeway::{
    authn::{Principal, Role},
    certs::{self, Authority, CertsOptions, LeafSpec},
    config::Config,
    coordinator::{HaltPoint, Halts},
    gateway::{self, GatewayError},
    participant::mock::{self, GatewayLink, InquiryOptions, MockError, MockOptions},
    pb::mock::v1::mock_service_client::MockServiceClient,
    tls::{self, ChannelOptions, TlsFiles},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::oneshot,
    task::{AbortHandle, JoinHandle},
};
use tonic::transport::Channel;

use super::{
    ALIPAY, APPLE, BOUND, Client, Mock, PAYPAL,
    audit::{self, Audit},
    observed::{Log, Metrics},
    ports::free_port,
    wait_for, within,
};

pub const TRUST_DOMAIN: &str = "causeway.dev";
/// A partner that has a certificate and no place in the configuration.
pub const UNCONFIGURED: &str = "unconfigured";

/// One day of rates: of the euro's to USD and CNY as the European Central Bank had them on that day, and of KWD, which it
/// does not quote.
const RATES: &str = "Date,USD,JPY,CNY,KWD\n2014-10-28,1.2748,137.94,7.7935,0.36814\n";

/// The accounts that every network opens with.
const ACCOUNTS: [(&str, &[&str]); 3] = [
    (
        APPLE,
        &[
            "alice:USD:1000000.00",
            "ann:USD:1000000.00",
            "poor:USD:5.00",
            "capped:USD:1000.00:limit=50.00",
            "gone:USD:1000.00:closed",
            "yuki:JPY:100000000",
        ],
    ),
    (
        ALIPAY,
        &[
            "bao:CNY:1000000.00",
            "bo:CNY:1000000.00",
            "gone:CNY:0:closed",
            "omar:KWD:1000000.000",
        ],
    ),
    (PAYPAL, &["carla:EUR:1000000.00", "carla:GBP:1000000.00"]),
];

/// How a network is set up. Times are short, but for those that end a vote: a slow machine must not look like a slow
/// partner.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Calls to participants.
    pub command_ms: u32,
    pub inquiry_ms: u32,
    pub voting_ms: u32,
    pub voting_min_ms: u32,
    pub hold_ms: u32,
    pub answer_margin_ms: u32,
    pub drain_ms: u32,
    /// Where the first payment that gets there stops for ever.
    pub halts: Vec<HaltPoint>,
    /// The `[rates]` table.
    pub rates: String,
    /// The rates' file, `rates.csv`.
    pub rates_csv: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            command_ms: 10_000,
            inquiry_ms: 10_000,
            voting_ms: 20_000,
            voting_min_ms: 200,
            hold_ms: 60_000,
            answer_margin_ms: 400,
            drain_ms: 10_000,
            halts: Vec::new(),
            rates: "source = \"ecb-csv\"\npath = \"rates.csv\"\ndate = \"2014-10-28\"\n".into(),
            rates_csv: RATES.into(),
        }
    }
}

/// Three partner networks and the gateway between them.
pub struct Network {
    dir: tempfile::TempDir,
    settings: Settings,
    gateway_addr: SocketAddr,
    metrics_addr: SocketAddr,
    log: Log,
    gateway: Option<Gateway>,
    partner_addrs: BTreeMap<&'static str, SocketAddr>,
    partners: BTreeMap<&'static str, Partner>,
}

/// A gateway in a runtime of its own, so that killing it ends all of it, whatever it was about to do.
struct Gateway {
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), GatewayError>>,
}

struct Partner {
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), MockError>>,
}

impl Network {
    /// All parties, with [`Settings::default`].
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// All parties, up and serving.
    pub async fn with(settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let names = ACCOUNTS.map(|(name, _)| name);
        certs::generate(&CertsOptions {
            dir: dir.path().join("certs"),
            trust_domain: TRUST_DOMAIN.into(),
            partners: names.iter().chain([&UNCONFIGURED]).map(ToString::to_string).collect(),
            operators: vec!["ops".into()],
            gateways: vec!["gateway".into(), "impostor".into()],
            ..CertsOptions::default()
        })
        .expect("certificates");
        fs::write(dir.path().join("rates.csv"), &settings.rates_csv).expect("a file of rates");

        // Everybody is told where everybody else will be, hence all the ports first.
        let gateway_listener = listen(([127, 0, 0, 1], free_port()).into()).await;
        let gateway_addr = gateway_listener.local_addr().expect("an address");
        let mut network = Self {
            dir,
            settings,
            gateway_addr,
            metrics_addr: ([127, 0, 0, 1], free_port()).into(),
            log: Log::default(),
            gateway: None,
            partner_addrs: BTreeMap::new(),
            partners: BTreeMap::new(),
        };
        for name in names {
            let listener = listen(([127, 0, 0, 1], free_port()).into()).await;
            let addr = listener.local_addr().expect("an address");
            network.partner_addrs.insert(name, addr);
            network.serve_partner(name, listener);
        }
        network.serve_gateway(gateway_listener);
        network.wait_until_up().await;
        network
    }

    /// Starts the gateway again, on the same store and port, halting nowhere.
    pub async fn start_gateway(&mut self) {
        assert!(self.gateway.is_none(), "the gateway is running");
        self.settings.halts.clear();
        let listener = listen(self.gateway_addr).await;
        self.serve_gateway(listener);
        self.wait_until_up().await;
    }

    /// As SIGTERM does: answers once the gateway has drained and is gone.
    pub async fn stop_gateway(&mut self) {
        self.begin_drain();
        self.end_drain().await.expect("the gateway stops in peace");
    }

    /// Asks the gateway to stop, and does not wait.
    pub fn begin_drain(&mut self) {
        let gateway = self.gateway.as_mut().expect("the gateway is running");
        let stop = gateway.stop.take().expect("asked to stop once");
        stop.send(()).expect("the gateway listens for it");
    }

    /// Waits until the gateway that was asked to stop has stopped; what it left behind is killed.
    pub async fn end_drain(&mut self) -> Result<(), GatewayError> {
        let gateway = self.gateway.take().expect("the gateway is running");
        let result = within("the gateway drains", gateway.server).await.expect("no panic");
        end(gateway.runtime).await;
        result
    }

    /// Whether the gateway that was asked to stop has stopped.
    pub fn has_drained(&self) -> bool {
        self.gateway.as_ref().is_none_or(|gateway| gateway.server.is_finished())
    }

    /// As if the process had died.
    pub async fn kill_gateway(&mut self) {
        let gateway = self.gateway.take().expect("the gateway is running");
        end(gateway.runtime).await;
    }

    /// Starts a partner network again, on the same store and port, without faults.
    pub async fn start_partner(&mut self, name: &'static str) {
        assert!(!self.partners.contains_key(name), "{name} is running");
        let listener = listen(self.partner_addrs[name]).await;
        self.serve_partner(name, listener);
        self.wait_until_up().await;
    }

    /// Starts a server at the partner's address with somebody else's certificate, and a store of its own.
    pub async fn start_impostor(&mut self, name: &'static str, who: &Principal) {
        let listener = listen(self.partner_addrs[name]).await;
        let files = certs::files_of(&self.certs(), who);
        let options = MockOptions::new(who.name(), files, ":memory:");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(mock::serve(options, listener, async { drop(stopped.await) }));
        self.partners.insert(name, Partner { stop, server });
        self.wait_until_up().await;
    }

    /// Starts a server of the test's own at the partner's address; it is given the listener and the partner's files.
    pub async fn start_stand_in<F>(&mut self, name: &'static str, serve: impl FnOnce(TcpListener, TlsFiles) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = listen(self.partner_addrs[name]).await;
        let serving = serve(listener, self.files(Role::Partner, name));
        let server = tokio::spawn(async move {
            serving.await;
            Ok(())
        });
        let (stop, _) = oneshot::channel();
        self.partners.insert(name, Partner { stop, server });
    }

    /// As if the partner's process had died: connections are cut, nothing is answered.
    pub async fn kill_partner(&mut self, name: &str) {
        let partner = self.partners.remove(name).expect("the partner is running");
        partner.server.abort();
        let _ = within("the partner ends", partner.server).await;
    }

    /// Waits until a partner has crashed by a fault of its own, so that it can be started again.
    pub async fn has_crashed(&mut self, name: &str) {
        let partner = self.partners.remove(name).expect("the partner was started");
        let ended = within("the partner crashes", partner.server).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "{name} ended otherwise");
        drop(partner.stop);
    }

    /// The gateway, called by a partner.
    pub fn partner(&self, name: &str) -> Client {
        Client::new(self.channel(&self.files(Role::Partner, name)))
    }

    /// The gateway, called by an operator.
    pub fn operator(&self) -> Client {
        Client::new(self.channel(&self.files(Role::Operator, "ops")))
    }

    /// A new connection to the gateway with these files.
    pub fn channel(&self, files: &TlsFiles) -> Channel {
        self.channel_with(files, ChannelOptions::default())
    }

    /// The same with other options.
    pub fn channel_with(&self, files: &TlsFiles, options: ChannelOptions) -> Channel {
        let expected = principal(Role::Gateway, "gateway");
        tls::channel(&endpoint(self.gateway_addr), files, &expected, options).expect("the files are good")
    }

    /// A new connection to a partner network with these files.
    pub fn partner_channel(&self, name: &str, files: &TlsFiles) -> Channel {
        let expected = principal(Role::Partner, name);
        let endpoint = endpoint(self.partner_addrs[name]);
        tls::channel(&endpoint, files, &expected, ChannelOptions::default()).expect("the files are good")
    }

    /// A partner network's controls.
    pub fn mock(&self, name: &'static str) -> Mock {
        let channel = self.partner_channel(name, &self.files(Role::Operator, "ops"));
        Mock {
            name,
            client: MockServiceClient::new(channel),
        }
    }

    /// Every partner network's controls.
    pub fn mocks(&self) -> Vec<Mock> {
        ACCOUNTS.iter().map(|(name, _)| self.mock(name)).collect()
    }

    /// The gateway's metrics, as a scraper sees them now.
    pub async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.metrics_addr).await
    }

    /// What all gateways of this network have warned of.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where the gateway listens.
    pub fn gateway_addr(&self) -> SocketAddr {
        self.gateway_addr
    }

    /// The files of a party that has a certificate of the network's authority.
    pub fn files(&self, role: Role, name: &str) -> TlsFiles {
        certs::files_of(&self.certs(), &principal(role, name))
    }

    /// The files of somebody with a certificate of `issuer`, who trusts the network's authority.
    pub fn issue(&self, issuer: &Authority, stem: &str, spec: &LeafSpec) -> TlsFiles {
        let leaf = certs::issue(issuer, spec).expect("a certificate");
        leaf.write(self.dir.path(), stem, &self.authority()).expect("files")
    }

    /// The network's authority.
    pub fn authority(&self) -> Authority {
        Authority::open(&self.certs()).expect("the authority's files")
    }

    /// A file in the gateway's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes stock of everything; see [`audit`]. Panics unless everything has ended and adds up.
    pub async fn audit(&self) -> Audit {
        let mocks = self.mocks();
        let operator = self.operator();
        audit::wait_until_quiet(&operator, &mocks).await;
        Audit::take(&operator, &mocks, &openings()).await
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    /// Until everybody answers: a connection refused at the start would be answered with a back-off.
    async fn wait_until_up(&self) {
        let addrs = self
            .partner_addrs
            .iter()
            .filter(|(name, _)| self.partners.contains_key(*name));
        let gateway = self.gateway.iter().map(|_| self.gateway_addr);
        for addr in addrs.map(|(_, addr)| *addr).chain(gateway) {
            wait_for("a server listens", BOUND, || async move {
                tokio::net::TcpStream::connect(addr).await.map(drop)
            })
            .await;
        }
        if self.gateway.is_some() {
            let operator = self.operator();
            wait_for("the gateway answers", BOUND, || {
                let operator = operator.clone();
                async move { operator.list(Default::default()).await.map(drop) }
            })
            .await;
        }
    }

    fn serve_gateway(&mut self, listener: TcpListener) {
        let text = self.config();
        let config = Config::parse(&text, &self.path("gateway.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let halts = Halts::new(self.settings.halts.iter().copied());
        let log = self.log.subscriber();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gateway")
            // The thread's own for as long as it lives, so that gateways in one process do not log into one.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)))
            .enable_all()
            .build()
            .expect("a runtime");
        let (stop, stopped) = oneshot::channel::<()>();
        // A socket belongs to the runtime that it was made in.
        let listener = listener.into_std().expect("a socket");
        let server = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            let shutdown = async {
                // A network that is dropped does not drain.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            gateway::serve(config, listener, halts, shutdown).await
        });
        self.gateway = Some(Gateway {
            runtime,
            stop: Some(stop),
            server,
        });
    }

    fn serve_partner(&mut self, name: &'static str, listener: TcpListener) {
        let crash = Arc::new(Mutex::new(None::<AbortHandle>));
        let crashed = Arc::clone(&crash);
        let (_, accounts) = ACCOUNTS
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a known partner");
        let options = MockOptions {
            accounts: accounts.iter().map(|text| text.parse().expect("an account")).collect(),
            gateway: Some(GatewayLink {
                endpoint: endpoint(self.gateway_addr),
                principal: principal(Role::Gateway, "gateway"),
            }),
            inquiry: InquiryOptions {
                ladder: vec![Duration::from_millis(200)],
                interval: Duration::from_millis(50),
                ..InquiryOptions::default()
            },
            crash: Arc::new(move || {
                if let Some(server) = crashed.lock().expect("no panic").as_ref() {
                    server.abort();
                }
            }),
            ..MockOptions::new(
                name,
                self.files(Role::Partner, name),
                self.path(&format!("{name}.sqlite")),
            )
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(mock::serve(options, listener, async { drop(stopped.await) }));
        *crash.lock().expect("no panic") = Some(server.abort_handle());
        self.partners.insert(name, Partner { stop, server });
    }

    fn config(&self) -> String {
        let Settings {
            command_ms,
            inquiry_ms,
            voting_ms,
            voting_min_ms,
            hold_ms,
            answer_margin_ms,
            drain_ms,
            rates,
            ..
        } = &self.settings;
        let metrics_addr = self.metrics_addr;
        let mut text = format!(
            r#"listen = "127.0.0.1:0"
store = "gateway.sqlite"
trust_domain = "{TRUST_DOMAIN}"
[tls]
ca = "certs/ca.pem"
cert = "certs/gateway.pem"
key = "certs/gateway.key"
[rates]
{rates}
[timing]
command_ms = {command_ms}
inquiry_ms = {inquiry_ms}
voting_ms = {voting_ms}
voting_min_ms = {voting_min_ms}
hold_ms = {hold_ms}
answer_margin_ms = {answer_margin_ms}
drain_ms = {drain_ms}
recovery_interval_ms = 500
voting_ladder_ms = [20, 40, 80]
delivery_ladder_ms = [20, 40, 80]
[metrics]
listen = "{metrics_addr}"
"#
        );
        for (name, currencies) in [
            (APPLE, "USD\", \"JPY"),
            (ALIPAY, "CNY\", \"KWD"),
            (PAYPAL, "EUR\", \"GBP"),
        ] {
            let addr = self.partner_addrs[name];
            write!(
                text,
                r#"[[partner]]
name = "{name}"
identity = "spiffe://{TRUST_DOMAIN}/partner/{name}"
endpoint = "https://{addr}"
currencies = ["{currencies}"]
"#
            )
            .expect("a string takes text");
        }
        for (from, to, terms) in [
            (
                "apple-pay/USD",
                "alipay/CNY",
                "margin = \"0.0025\"\nfee = \"0.30\"\nsend_min = \"1.00\"\nsend_max = \"10000\"",
            ),
            // PayPal may collect from Alipay for its own customers: it initiates and takes no part.
            (
                "alipay/CNY",
                "apple-pay/USD",
                "margin = \"0.003\"\ninitiators = [\"alipay\", \"paypal\"]",
            ),
            ("paypal/EUR", "apple-pay/USD", "margin = \"0.001\"\nfee = \"0.10\""),
            ("apple-pay/USD", "paypal/EUR", "quote_ttl_ms = 1000"),
            ("alipay/CNY", "paypal/EUR", "fee = \"1.00\""),
            ("paypal/EUR", "alipay/CNY", "margin = \"0.0125\"\nfee = \"0.05\""),
            ("apple-pay/JPY", "alipay/KWD", "margin = \"0.005\"\nfee = \"15\""),
            ("alipay/KWD", "apple-pay/JPY", "margin = \"0.005\"\nfee = \"0.125\""),
            ("paypal/GBP", "alipay/CNY", ""),
        ] {
            write!(text, "[[corridor]]\nfrom = \"{from}\"\nto = \"{to}\"\n{terms}\n").expect("a string takes text");
        }
        text
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for partner in self.partners.values() {
            partner.server.abort();
        }
        if let Some(gateway) = self.gateway.take() {
            // Dropping a runtime waits for it, which a task must not.
            gateway.runtime.shutdown_background();
        }
    }
}

pub fn principal(role: Role, name: &str) -> Principal {
    Principal::new(role, name, TRUST_DOMAIN).expect("a good name")
}

/// What each customer's account opened with: (partner, account, currency) and the balance.
fn openings() -> Vec<audit::Opening> {
    let mut openings = Vec::new();
    for (partner, accounts) in ACCOUNTS {
        for text in accounts {
            let mut parts = text.split(':').map(str::to_owned);
            let mut next = || parts.next().expect("an account's text has three parts");
            openings.push(audit::Opening {
                partner,
                account: next(),
                currency: next(),
                balance: next(),
            });
        }
    }
    openings
}

fn endpoint(addr: SocketAddr) -> String {
    format!("https://{addr}")
}

/// A port that was just let go of may take a moment.
async fn listen(addr: SocketAddr) -> TcpListener {
    wait_for("the port is free", BOUND, || TcpListener::bind(addr)).await
}

async fn end(runtime: Runtime) {
    let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(BOUND));
    within("the gateway's runtime ends", ended).await.expect("no panic");
}

/// The folder of a path, for tests that look into it.
pub fn folder(path: &Path) -> &Path {
    path.parent().expect("a file lies in a folder")
}
