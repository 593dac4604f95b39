//! The gateway as a process, when its disk fails to sync: it says so and ends, and what it had acknowledged is there.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use causeway::{
    authn::{Principal, Role},
    certs::{CertsOptions, files_of, generate},
    payment::QuoteId,
    pb::{
        gateway::v1::{self as pb, quote_service_client::QuoteServiceClient},
        money::v1::Money,
    },
    store::{SqliteOptions, SqliteStore, Store},
    tls::{ChannelOptions, channel as connect},
};
use tonic::transport::Channel;

use super::{
    scratch, shim,
    tally::{self, Tally},
};
use crate::ports::free_port;

const BOUND: Duration = Duration::from_secs(30);

/// A gateway, and what it says.
struct Gateway {
    child: Child,
    said: Receiver<String>,
    all: Vec<String>,
}

impl Gateway {
    fn start(folder: &Path, shim: Option<&Path>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
        command
            .args(["--log", "info", "serve", "--config"])
            .arg(folder.join("gateway.toml"));
        if let Some(shim) = shim {
            command
                .env("LD_PRELOAD", shim)
                .env("FIRE_FOLDER", folder)
                .env("FIRE_FAIL", folder.join("now"));
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, said) = channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = lines.send(line);
                }
            });
        }
        let mut gateway = Self {
            child,
            said,
            all: Vec::new(),
        };
        gateway.wait_for("recovered");
        gateway
    }

    fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + BOUND;
        while !self.all.iter().any(|line| line.contains(text)) {
            let left = until.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => self.all.push(line),
                Err(error) => panic!("never said {text:?} ({error}), but:\n{}", self.all.join("\n")),
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(folder: &Path, port: u16) {
    let mut config = format!(
        "listen = \"127.0.0.1:{port}\"\nstore = \"store.sqlite\"\n\
         [tls]\nca = \"certs/ca.pem\"\ncert = \"certs/gateway.pem\"\nkey = \"certs/gateway.key\"\n\
         [rates]\nsource = \"sample\"\ndate = \"2014-10-28\"\n"
    );
    for (name, currency) in [("apple-pay", "USD"), ("alipay", "CNY")] {
        // Nobody has to answer there: quotes are the gateway's own.
        config += &format!(
            "[[partner]]\nname = \"{name}\"\nidentity = \"spiffe://causeway.dev/partner/{name}\"\n\
             endpoint = \"https://127.0.0.1:1\"\ncurrencies = [\"{currency}\"]\n"
        );
    }
    config += "[[corridor]]\nfrom = \"apple-pay/USD\"\nto = \"alipay/CNY\"\nmargin = \"0.0025\"\nfee = \"0.30\"\n";
    fs::write(folder.join("gateway.toml"), config).unwrap();
}

fn quotes(folder: &Path, port: u16) -> QuoteServiceClient<Channel> {
    let principal = |role, name: &str| Principal::new(role, name, "causeway.dev").unwrap();
    let files = files_of(&folder.join("certs"), &principal(Role::Partner, "apple-pay"));
    let endpoint = format!("https://127.0.0.1:{port}");
    let expected = principal(Role::Gateway, "gateway");
    QuoteServiceClient::new(connect(&endpoint, &files, &expected, ChannelOptions::default()).unwrap())
}

fn request() -> pb::CreateQuoteRequest {
    pb::CreateQuoteRequest {
        quote: Some(pb::Quote {
            corridor: Some(pb::Corridor {
                source_partner: "partners/apple-pay".into(),
                source_currency: "USD".into(),
                target_partner: "partners/alipay".into(),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_disk_fails_to_sync_ends_and_has_lost_nothing() {
    let Some(shim) = shim::library() else {
        return tally::done("gateway", Tally::default());
    };
    let folder = scratch();
    let port = free_port();
    write_config(folder.path(), port);
    let dir = folder.path().join("certs");
    generate(&CertsOptions {
        dir,
        ..Default::default()
    })
    .unwrap();

    let mut gateway = Gateway::start(folder.path(), Some(shim));
    let mut acknowledged = Vec::new();
    for _ in 0..20 {
        let quote = quotes(folder.path(), port)
            .create_quote(request())
            .await
            .unwrap()
            .into_inner();
        acknowledged.push(QuoteId::parse_name(&quote.name).unwrap());
    }
    fs::write(folder.path().join("now"), "").unwrap();
    let failed = quotes(folder.path(), port).create_quote(request()).await.unwrap_err();
    assert!(
        !failed.message().contains("EIO"),
        "callers are not told of disks: {failed}"
    );
    // By itself, with an exit status that says so, and why in words.
    gateway.wait_for("the store has failed");
    let until = Instant::now() + BOUND;
    let status = loop {
        if let Some(status) = gateway.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it goes on without a store");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(!status.success(), "{status}");
    drop(gateway);

    fs::remove_file(folder.path().join("now")).unwrap();
    let gateway = Gateway::start(folder.path(), None);
    let quote = quotes(folder.path(), port)
        .create_quote(request())
        .await
        .unwrap()
        .into_inner();
    acknowledged.push(QuoteId::parse_name(&quote.name).unwrap());
    drop(gateway);
    let store = SqliteStore::open(SqliteOptions::new(folder.path().join("store.sqlite"))).unwrap();
    for id in &acknowledged {
        assert!(store.quote(*id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    assert_eq!(store.check().await.unwrap().problems, [""; 0]);
    let tally = Tally {
        sync_failures: 1,
        ..Tally::default()
    };
    tally::done("gateway", tally);
}
