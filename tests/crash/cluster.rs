//! The processes and what lies between them: certificates, the configuration, links, and connections past the links.
//!
//! Owns how a gateway and a partner are started, and where everybody is. When they are started, killed and frozen is
//! [`super::chaos`]'s. Every server listens on a port that the system picks anew at each start; its links know where.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use causeway::{
    authn::{Principal, Role},
    certs::{CertsOptions, files_of, generate},
    pb::{gateway::v1::payment_service_client::PaymentServiceClient, mock::v1::mock_service_client::MockServiceClient},
    tls::{ChannelOptions, channel},
};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{
    cast::{CAST, CORRIDORS, Cast, GATEWAY, OPERATOR, RATES},
    process::Process,
    proxy::{Link, Upstream},
};

const TRUST_DOMAIN: &str = "causeway.dev";
/// What a second process says, and ends.
pub const REFUSED_BY_LOCK: &str = "another process is using this store";

/// Short, so that much happens in little time; the votes have long enough that a partner's outage is survived.
const TIMING: &str = "
voting_ms = 5000
voting_min_ms = 200
command_ms = 1200
inquiry_ms = 800
hold_ms = 1500
answer_margin_ms = 200
answer_ms = 4000
drain_ms = 1000
recovery_interval_ms = 2000
voting_ladder_ms = [50, 100, 200, 400]
delivery_ladder_ms = [50, 100, 200, 400, 800]
";

/// A partner network's place.
pub struct Place {
    pub cast: &'static Cast,
    pub upstream: Upstream,
    /// From the gateway to its participant service.
    pub commands: Link,
    /// From its callers to the gateway.
    pub calls: Link,
    /// From the network itself to the gateway, when it is in doubt.
    pub inquiries: Link,
}

/// Everybody's place.
pub struct Cluster {
    folder: TempDir,
    pub gateway: Upstream,
    pub places: Vec<Place>,
    /// From operators to the gateway.
    pub operations: Link,
}

impl Cluster {
    /// Links and files; no process yet.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate(&CertsOptions {
            dir: folder.path().join("certs"),
            trust_domain: TRUST_DOMAIN.into(),
            partners: CAST.iter().map(|cast| cast.name.to_owned()).collect(),
            operators: vec![OPERATOR.into()],
            gateways: vec![GATEWAY.into()],
            ..CertsOptions::default()
        })
        .unwrap();
        fs::write(folder.path().join("rates.csv"), RATES).unwrap();
        let gateway = Upstream::default();
        let mut places = Vec::new();
        for (cast, [commands, calls, inquiries]) in CAST.iter().zip(LINKS) {
            let upstream = Upstream::default();
            places.push(Place {
                cast,
                commands: Link::open(commands, upstream.clone()).await.unwrap(),
                calls: Link::open(calls, gateway.clone()).await.unwrap(),
                inquiries: Link::open(inquiries, gateway.clone()).await.unwrap(),
                upstream,
            });
        }
        let operations = Link::open("ops > gateway", gateway.clone()).await.unwrap();
        let cluster = Self {
            folder,
            gateway,
            places,
            operations,
        };
        fs::write(cluster.path("gateway.toml"), cluster.config()).unwrap();
        cluster
    }

    pub fn place(&self, name: &str) -> &Place {
        self.places
            .iter()
            .find(|place| place.cast.name == name)
            .expect("a known network")
    }

    pub fn links(&self) -> impl Iterator<Item = &Link> {
        let all = self
            .places
            .iter()
            .flat_map(|place| [&place.commands, &place.calls, &place.inquiries]);
        all.chain([&self.operations])
    }

    /// Starts a gateway and does not wait for it.
    pub fn spawn_gateway(&self, arguments: &[&str]) -> Process {
        let mut all = ["--log", "info", "serve", "--config"].map(str::to_owned).to_vec();
        all.push(self.path("gateway.toml").display().to_string());
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Process::start(GATEWAY, &all)
    }

    /// Starts a partner network and does not wait for it.
    pub fn spawn_partner(&self, name: &str, faults: &[String]) -> Process {
        let place = self.place(name);
        let mut all: Vec<String> = vec!["--log".into(), "info".into(), "mock-partner".into()];
        let store = self.path(&format!("{name}.sqlite"));
        for (flag, value) in [
            ("--name", name.to_owned()),
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--store", store.display().to_string()),
            ("--certs", self.path("certs").display().to_string()),
            ("--gateway", format!("https://{}", place.inquiries.address)),
        ] {
            all.extend([flag.into(), value]);
        }
        let accounts = place.cast.accounts.iter().map(|account| (*account).to_owned());
        all.extend(accounts.flat_map(|account| ["--account".to_owned(), account]));
        all.extend(faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]));
        Process::start(name, &all)
    }

    /// The gateway as this network's callers reach it.
    pub fn as_partner(&self, name: &str) -> Channel {
        let address = self.place(name).calls.address.to_string();
        self.connect(&address, (Role::Partner, name), (Role::Gateway, GATEWAY))
    }

    /// The gateway as an operator reaches it.
    pub fn as_operator(&self) -> PaymentServiceClient<Channel> {
        let address = self.operations.address.to_string();
        PaymentServiceClient::new(self.connect(&address, (Role::Operator, OPERATOR), (Role::Gateway, GATEWAY)))
    }

    /// A network's controls, past all links; none while it is dead.
    pub fn control(&self, name: &str) -> Option<MockServiceClient<Channel>> {
        let address = self.place(name).upstream.get()?.to_string();
        let channel = self.connect(&address, (Role::Operator, OPERATOR), (Role::Partner, name));
        Some(MockServiceClient::new(channel))
    }

    fn connect(&self, address: &str, as_: (Role, &str), to: (Role, &str)) -> Channel {
        let principal = |(role, name): (Role, &str)| Principal::new(role, name, TRUST_DOMAIN).unwrap();
        let files = files_of(&self.path("certs"), &principal(as_));
        let options = ChannelOptions {
            connect_timeout: Duration::from_secs(2),
            ..ChannelOptions::default()
        };
        channel(&format!("https://{address}"), &files, &principal(to), options).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
        let mut text = format!(
            "listen = \"127.0.0.1:0\"\nstore = \"gateway.sqlite\"\ntrust_domain = \"{TRUST_DOMAIN}\"\n\
             [tls]\nca = \"certs/ca.pem\"\ncert = \"certs/{GATEWAY}.pem\"\nkey = \"certs/{GATEWAY}.key\"\n\
             [rates]\nsource = \"ecb-csv\"\npath = \"rates.csv\"\ndate = \"2014-10-28\"\n[timing]{TIMING}"
        );
        for Place { cast, commands, .. } in &self.places {
            let Cast { name, currencies, .. } = cast;
            writeln!(
                text,
                "[[partner]]\nname = \"{name}\"\nidentity = \"spiffe://{TRUST_DOMAIN}/partner/{name}\"\n\
                 endpoint = \"https://{}\"\ncurrencies = {currencies:?}",
                commands.address
            )
            .unwrap();
        }
        for corridor in CORRIDORS {
            writeln!(
                text,
                "[[corridor]]\nfrom = \"{}/{}\"\nto = \"{}/{}\"\n{}",
                corridor.from, corridor.source, corridor.to, corridor.target, corridor.terms
            )
            .unwrap();
        }
        text
    }
}

/// The names of each network's links, in the order of the cast.
const LINKS: [[&str; 3]; 3] = [
    [
        "gateway > apple-pay",
        "apple-pay's callers > gateway",
        "apple-pay in doubt > gateway",
    ],
    [
        "gateway > alipay",
        "alipay's callers > gateway",
        "alipay in doubt > gateway",
    ],
    [
        "gateway > paypal",
        "paypal's callers > gateway",
        "paypal in doubt > gateway",
    ],
];
