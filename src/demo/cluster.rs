//! The machinery of the demonstration: a folder, certificates, ports, and four processes.
//!
//! Owns what runs where and with which settings, and its end. Called by the story, which starts and kills.
//!
//! Invariant: a process that is started again listens where it did before, on the store that it had before.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    DemoError,
    cast::{CORRIDORS, GATEWAY, Network, OPERATOR, TRUST_DOMAIN, WALLETS},
    day::Day,
    processes::{Process, ProcessError, Spec, Watch},
};
use crate::{
    authn::{Principal, Role},
    certs::{self, CertsOptions},
    coordinator::HaltPoint,
    tls::TlsFiles,
};

/// How long both networks have to vote.
pub const VOTING_MS: i64 = 3_000;
/// Where ports are looked for: below what Linux and macOS give to outgoing connections, so that nobody's connection
/// sits on the port of a process that is away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How often ports are chosen anew when somebody was quicker.
const PORT_CHOICES_MAX: usize = 5;

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A mock network.
    Partner(Network),
    /// The gateway.
    Gateway,
}

impl Member {
    /// All of them, in the order in which they are started.
    pub const ALL: [Member; 4] = [
        Member::Partner(Network::ApplePay),
        Member::Partner(Network::Alipay),
        Member::Partner(Network::PayPal),
        Member::Gateway,
    ];

    /// The name in certificates, files and logs.
    pub fn name(self) -> &'static str {
        match self {
            Member::Partner(network) => network.name(),
            Member::Gateway => GATEWAY,
        }
    }

    /// Who it proves to be.
    pub fn principal(self) -> Result<Principal, DemoError> {
        match self {
            Member::Partner(network) => principal(Role::Partner, network.name()),
            Member::Gateway => principal(Role::Gateway, GATEWAY),
        }
    }
}

/// The processes and what they need.
pub struct Cluster {
    folder: TempDir,
    program: PathBuf,
    keep: bool,
    date: String,
    ports: BTreeMap<Member, u16>,
    running: BTreeMap<Member, Process>,
    watch: Watch,
}

impl Cluster {
    /// A folder with certificates; nothing runs.
    pub fn new(program: PathBuf, day: &Day, keep: bool) -> Result<Cluster, DemoError> {
        let io = |source| DemoError::Folder { source };
        let mut folder = tempfile::Builder::new()
            .prefix("causeway-demo-")
            .tempdir()
            .map_err(io)?;
        folder.disable_cleanup(keep);
        certs::generate(&CertsOptions {
            dir: folder.path().join("certs"),
            trust_domain: TRUST_DOMAIN.into(),
            partners: Network::ALL.map(|network| network.name().to_owned()).into(),
            operators: vec![OPERATOR.into()],
            gateways: vec![GATEWAY.into()],
            valid_days: 30,
            ..CertsOptions::default()
        })?;
        Ok(Cluster {
            folder,
            program,
            keep,
            date: day.asked.to_string(),
            ports: BTreeMap::new(),
            running: BTreeMap::new(),
            watch: Watch::new(),
        })
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Who tells of unexpected deaths.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// "127.0.0.1:20001"; known once all were started.
    pub fn address(&self, member: Member) -> String {
        format!("127.0.0.1:{}", self.ports.get(&member).copied().unwrap_or_default())
    }

    /// The certificate of a partner or an operator.
    pub fn files(&self, role: Role, name: &str) -> Result<TlsFiles, DemoError> {
        Ok(certs::files_of(&self.folder().join("certs"), &principal(role, name)?))
    }

    /// Name and number of every process.
    pub fn pids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.running
            .iter()
            .map(|(member, process)| (member.name(), process.pid()))
    }

    /// Everything goes when we do, whatever was said before.
    pub fn do_not_keep(&mut self) {
        self.folder.disable_cleanup(false);
    }

    /// Chooses ports and starts everyone.
    pub async fn start_all(&mut self) -> Result<(), DemoError> {
        for _ in 1..PORT_CHOICES_MAX {
            match self.try_start_all().await {
                Err(DemoError::Process(ProcessError::PortTaken { .. })) => {
                    for member in Member::ALL {
                        self.kill(member).await?;
                    }
                }
                result => return result,
            }
        }
        self.try_start_all().await
    }

    async fn try_start_all(&mut self) -> Result<(), DemoError> {
        self.ports = free_ports().map_err(|source| DemoError::Folder { source })?;
        let config = self.config()?;
        fs::write(self.config_path(), config).map_err(|source| DemoError::Folder { source })?;
        for member in Member::ALL {
            let process = Process::start(&self.spec(member, None), &self.watch, false).await?;
            self.running.insert(member, process);
        }
        Ok(())
    }

    /// Starts one again.
    pub async fn start(&mut self, member: Member) -> Result<(), DemoError> {
        self.start_halting(member, None).await
    }

    /// Starts the gateway so that the first payment that comes to this point stops there.
    pub async fn start_gateway_halting(&mut self, point: HaltPoint) -> Result<(), DemoError> {
        self.start_halting(Member::Gateway, Some(point)).await
    }

    async fn start_halting(&mut self, member: Member, point: Option<HaltPoint>) -> Result<(), DemoError> {
        let process = Process::start(&self.spec(member, point), &self.watch, true).await?;
        self.running.insert(member, process);
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(&mut self, member: Member) -> Result<(), DemoError> {
        if let Some(process) = self.running.remove(&member) {
            process.kill().await?;
        }
        Ok(())
    }

    /// SIGKILL for everyone. Nobody is started after it.
    pub async fn kill_all(&mut self) -> Result<(), DemoError> {
        Ok(self.watch.kill_all().await?)
    }

    /// From now on its death is no surprise.
    pub fn is_to_die(&self, member: Member) {
        if let Some(process) = self.running.get(&member) {
            process.is_to_die();
        }
    }

    /// Waits until it has died by itself.
    pub async fn dies(&mut self, member: Member) -> Result<(), DemoError> {
        if let Some(process) = self.running.remove(&member) {
            process.dies().await?;
        }
        Ok(())
    }

    /// Waits for a line in its log.
    pub async fn says(&self, member: Member, text: &str) -> Result<String, DemoError> {
        let process = self
            .running
            .get(&member)
            .ok_or(DemoError::NotRunning { name: member.name() })?;
        Ok(process.says(text).await?)
    }

    fn config_path(&self) -> PathBuf {
        self.folder().join("gateway.toml")
    }

    fn spec(&self, member: Member, halt_at: Option<HaltPoint>) -> Spec {
        let folder = self.folder();
        // Said here and not taken from RUST_LOG: a log is part of what is shown when something dies.
        let mut arguments: Vec<OsString> = vec!["--log".into(), "info".into()];
        match member {
            Member::Partner(network) => {
                arguments.push("mock-partner".into());
                let gateway = format!("https://{}", self.address(Member::Gateway));
                let options: [(&str, OsString); 7] = [
                    ("--name", network.name().into()),
                    ("--listen", self.address(member).into()),
                    ("--store", folder.join(format!("{}.db", network.name())).into()),
                    ("--certs", folder.join("certs").into()),
                    ("--trust-domain", TRUST_DOMAIN.into()),
                    ("--gateway", gateway.into()),
                    ("--gateway-name", GATEWAY.into()),
                ];
                let seeds = WALLETS.iter().filter(|wallet| wallet.network == network).map(|wallet| {
                    let seed = format!("{}:{}:{}", wallet.account, network.currency(), wallet.opening);
                    ("--account", seed.into())
                });
                let options = options.into_iter().chain(seeds);
                arguments.extend(options.flat_map(|(name, value)| [name.into(), value]));
            }
            Member::Gateway => {
                arguments.extend(["serve".into(), "--config".into(), self.config_path().into()]);
                if let Some(point) = halt_at {
                    arguments.extend(["--halt-at".into(), point.name().into()]);
                }
            }
        }
        Spec {
            name: member.name(),
            program: self.program.clone(),
            arguments,
            folder: folder.to_owned(),
            outlives_us: self.keep,
        }
    }

    /// The gateway's configuration. Quick to give up and to try again: a demonstration has no minute to lose.
    fn config(&self) -> Result<String, DemoError> {
        let mut text = format!(
            r#"listen = "{listen}"
store = "gateway.db"
trust_domain = "{TRUST_DOMAIN}"

[tls]
ca = "certs/ca.pem"
cert = "certs/{GATEWAY}.pem"
key = "certs/{GATEWAY}.key"

[rates]
source = "sample"
date = "{date}"

[timing]
command_ms = 1000
inquiry_ms = 500
voting_ms = {VOTING_MS}
hold_ms = 10000
drain_ms = 2000
recovery_interval_ms = 1000
voting_ladder_ms = [100, 200]
delivery_ladder_ms = [200, 400, 1000]
"#,
            listen = self.address(Member::Gateway),
            date = self.date,
        );
        for network in Network::ALL {
            let member = Member::Partner(network);
            let identity = member.principal()?.spiffe_uri();
            let (name, address, currency) = (network.name(), self.address(member), network.currency());
            write!(
                text,
                r#"
[[partner]]
name = "{name}"
identity = "{identity}"
endpoint = "https://{address}"
currencies = ["{currency}"]
"#
            )
            .expect("a string takes everything");
        }
        for corridor in CORRIDORS {
            let end = |network: Network| format!("{}/{}", network.name(), network.currency());
            let (from, to, margin, fee) = (end(corridor.from), end(corridor.to), corridor.margin, corridor.fee);
            write!(
                text,
                r#"
[[corridor]]
from = "{from}"
to = "{to}"
margin = "{margin}"
fee = "{fee}"
"#
            )
            .expect("a string takes everything");
        }
        Ok(text)
    }
}

fn principal(role: Role, name: &str) -> Result<Principal, DemoError> {
    Ok(Principal::new(role, name, TRUST_DOMAIN)?)
}

/// Ports that are free now. They are given back at once, so whoever uses them must be ready to choose again.
fn free_ports() -> std::io::Result<BTreeMap<Member, u16>> {
    let start = uuid::Uuid::new_v4().as_u128() % u128::from(PORTS.end - PORTS.start);
    let start = PORTS.start + u16::try_from(start).expect("less than the range is long");
    // Held until all are found, so that no two are the same.
    let listeners = (start..PORTS.end)
        .chain(PORTS.start..start)
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let found: Vec<_> = Member::ALL.into_iter().zip(listeners).collect();
    if found.len() < Member::ALL.len() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    found
        .into_iter()
        .map(|(member, listener)| Ok((member, listener.local_addr()?.port())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_gateway_takes_the_configuration() {
        let day = "2014-10-28".parse().unwrap();
        let mut cluster = Cluster::new("causeway".into(), &day, false).unwrap();
        cluster.ports = free_ports().unwrap();
        let config = Config::parse(&cluster.config().unwrap(), &cluster.config_path()).unwrap();
        assert_eq!(config.partners.len(), Network::ALL.len());
        assert_eq!(config.corridors.len(), CORRIDORS.len());
        assert_eq!(config.listen.to_string(), cluster.address(Member::Gateway));
    }

    #[test]
    fn ports_differ() {
        let ports = free_ports().unwrap();
        let different: std::collections::BTreeSet<_> = ports.values().collect();
        assert_eq!((ports.len(), different.len()), (Member::ALL.len(), Member::ALL.len()));
    }
}
