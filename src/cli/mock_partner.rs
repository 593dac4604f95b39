//! `causeway mock-partner`.

use std::{net::SocketAddr, path::PathBuf};

use causeway::{
    authn::{Principal, Role},
    participant::mock::{self, AccountSeed, FaultSpec, GatewayLink, MockOptions},
    tls::TlsFiles,
};
use tokio::net::TcpListener;

use super::{Failure, asked_to_stop};

#[derive(clap::Args)]
pub struct Arguments {
    /// The network's name, as in its certificate.
    #[arg(long)]
    name: String,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The SQLite file; ":memory:" keeps nothing.
    #[arg(long)]
    store: PathBuf,
    /// The folder of `causeway certs`.
    #[arg(long, default_value = "certs")]
    certs: PathBuf,
    /// The realm of all names.
    #[arg(long, default_value = "causeway.dev")]
    trust_domain: String,
    /// An account to open unless it exists: "alice:USD:1000.00[:limit=AMOUNT][:closed]". May be given more than once.
    #[arg(long = "account", value_name = "ACCOUNT", value_parser = AccountSeed::parse)]
    accounts: Vec<AccountSeed>,
    /// A fault from the start: "lose-answer:prepare:3", "latency:any:0:200:50". May be given more than once.
    #[arg(long = "fault", value_name = "FAULT", value_parser = FaultSpec::parse)]
    faults: Vec<FaultSpec>,
    /// Where the gateway's DecisionService is, for holds that outlived their time: "https://127.0.0.1:7000".
    #[arg(long)]
    gateway: Option<String>,
    /// The gateway's name, as in its certificate.
    #[arg(long, default_value = "gateway")]
    gateway_name: String,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let stop = asked_to_stop()?;
    let file = |suffix: &str| arguments.certs.join(format!("partner-{}.{suffix}", arguments.name));
    let tls = TlsFiles {
        ca: arguments.certs.join("ca.pem"),
        cert: file("pem"),
        key: file("key"),
    };
    let mut options = MockOptions::new(arguments.name.clone(), tls, arguments.store);
    if let Some(endpoint) = arguments.gateway {
        let principal = Principal::new(Role::Gateway, &arguments.gateway_name, &arguments.trust_domain)?;
        options.gateway = Some(GatewayLink { endpoint, principal });
    }
    options.trust_domain = arguments.trust_domain;
    options.accounts = arguments.accounts;
    options.faults = arguments.faults;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| format!("--listen: cannot listen on {}: {error}", arguments.listen))?;
    // For whoever started this with port 0.
    println!("{} listening on {}", arguments.name, listener.local_addr()?);
    mock::serve(options, listener, stop).await?;
    println!("{} stopped", arguments.name);
    Ok(())
}
