//! The mock partner: a wallet network with accounts, holds and a store of its own, and with faults on demand.
//!
//! A real participant in every respect that the gateway can see: what it answers is durable, what it prepared it can
//! commit, and it lets go of nothing on its own. It shares no code with the gateway's domain, so that a test that
//! compares the two compares two opinions. Called by the `mock-partner` and `demo` commands and by tests.
//!
//! Reading order: `service` (the commands, and what befalls them) -> `ledger` (what they do) -> `store` (how that
//! becomes durable); `control` and `faults` for testers; `inquiry` for branches in doubt.
//!
//! Invariant: per currency all balances add up to zero, and one commit is one movement.

mod access;
mod amount;
mod control;
mod faults;
mod inquiry;
mod ledger;
mod lifeline;
mod service;
mod status;
mod store;

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{service::interceptor::InterceptedService, transport::Server};

use self::{
    access::Access, control::Control, faults::Faults, inquiry::Inquiry, ledger::AccountSetup, lifeline::Cuttable,
    service::Participant, store::Store,
};
use crate::{
    authn::{IdentityError, Principal},
    pb::{
        self, mock::v1::mock_service_server::MockServiceServer,
        participant::v1::participant_service_server::ParticipantServiceServer,
    },
    tls::{self, ChannelOptions, ListenLimits, TlsError, TlsFiles},
};

pub use self::{
    faults::{FaultCommand, FaultError, FaultKind, FaultSpec},
    inquiry::InquiryOptions,
    store::StoreError,
};

/// What a crash fault calls, once the action is durable.
pub type Crash = Arc<dyn Fn() + Send + Sync>;

/// What is served, for reflection.
const SERVICES: [&str; 2] = [
    "causeway.participant.v1.ParticipantService",
    "causeway.mock.v1.MockService",
];
/// Calls in flight on one connection. A tester's latency keeps ten thousand waiting.
const STREAMS_MAX: u32 = 20_000;
/// HTTP/2 flow control, bytes: commands are a few hundred bytes, thousands of them come on one connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A gateway whose deadline strikes resets all its calls at once; that is no attack.
const RESETS_MAX: usize = 20_000;
const REQUEST_BYTES_MAX: usize = 64 << 10;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A mock partner.
#[derive(Clone)]
pub struct MockOptions {
    /// The network's name, and its store's: "apple-pay".
    pub name: String,
    /// The realm whose principals may call: "causeway.dev".
    pub trust_domain: String,
    /// Our certificate, and whom to trust.
    pub tls: TlsFiles,
    /// The SQLite file; ":memory:" keeps nothing.
    pub store: PathBuf,
    /// Accounts to open, unless they exist.
    pub accounts: Vec<AccountSeed>,
    /// How to misbehave from the start.
    pub faults: Vec<FaultSpec>,
    /// The gateway: who may call, and whom to ask when in doubt. `None`: any gateway of the trust domain may call, and
    /// nobody is asked.
    pub gateway: Option<GatewayLink>,
    /// How to ask.
    pub inquiry: InquiryOptions,
    /// How long running calls may take after the shutdown signal.
    pub drain_timeout: Duration,
    /// Ends the process at once, for the fault "crash-after". Nothing is answered after it returns.
    pub crash: Crash,
}

impl MockOptions {
    /// Without accounts, faults or gateway; a crash aborts the process.
    pub fn new(name: impl Into<String>, tls: TlsFiles, store: impl Into<PathBuf>) -> MockOptions {
        MockOptions {
            name: name.into(),
            trust_domain: "causeway.dev".to_owned(),
            tls,
            store: store.into(),
            accounts: Vec::new(),
            faults: Vec::new(),
            gateway: None,
            inquiry: InquiryOptions::default(),
            drain_timeout: Duration::from_secs(5),
            crash: Arc::new(|| std::process::abort()),
        }
    }
}

impl fmt::Debug for MockOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockOptions")
            .field("name", &self.name)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Where a participant in doubt asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayLink {
    /// "https://HOST:PORT".
    pub endpoint: String,
    /// Who must answer there, and the only one who may call us.
    pub principal: Principal,
}

/// An account to open: "alice:USD:1000.00[:limit=AMOUNT][:closed]".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSeed {
    setup: AccountSetup,
}

/// Why a text is no account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("account {text:?}: {detail} (expected ACCOUNT:CURRENCY:BALANCE[:limit=AMOUNT][:closed])")]
pub struct AccountSeedError {
    text: String,
    detail: String,
}

impl AccountSeed {
    /// Parses "alice:USD:1000.00[:limit=AMOUNT][:closed]".
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<AccountSeed, AccountSeedError> {
        let wrong = |detail: String| AccountSeedError {
            text: text.to_owned(),
            detail,
        };
        let mut parts = text.split(':');
        let mut next = |what: &str| parts.next().ok_or_else(|| wrong(format!("the {what} is missing")));
        let (account, currency, balance) = (next("account")?, next("currency")?, next("balance")?);
        if !service::is_visible(account, 64) {
            return Err(wrong("the account is not 1 to 64 visible ASCII characters".to_owned()));
        }
        if ledger::is_own(account) {
            return Err(wrong("the account is one of the network's own".to_owned()));
        }
        let parse = |amount: &str| amount::parse(currency, amount).map_err(|error| wrong(error.to_string()));
        let mut setup = AccountSetup {
            account: account.to_owned(),
            currency: currency.to_owned(),
            balance: parse(balance)?,
            closed: false,
            payment_limit: None,
        };
        for part in parts {
            match part.strip_prefix("limit=") {
                Some(limit) => setup.payment_limit = Some(parse(limit)?),
                None if part == "closed" => setup.closed = true,
                None => return Err(wrong(format!("{part:?} is neither limit=AMOUNT nor closed"))),
            }
        }
        Ok(AccountSeed { setup })
    }
}

impl FromStr for AccountSeed {
    type Err = AccountSeedError;

    fn from_str(text: &str) -> Result<AccountSeed, AccountSeedError> {
        AccountSeed::parse(text)
    }
}

/// Why a mock partner does not serve, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// The name is no partner's.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// The TLS files or the gateway's endpoint.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An account to open cannot be.
    #[error("account {account} {currency} cannot be opened: its balance is more than the network can count")]
    Seed {
        /// Which.
        account: String,
        /// In which currency.
        currency: String,
    },
    /// Reflection cannot be built; a bug of ours.
    #[error("server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves until `shutdown`: ParticipantService, MockService, health and reflection (v1 and v1alpha), over mutual TLS.
///
/// When the future is done or dropped, the store is closed and all connections are cut.
///
/// # Errors
/// What cannot be opened, or the store's failure while running.
pub async fn serve(
    options: MockOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), MockError> {
    Principal::new(crate::authn::Role::Partner, &options.name, &options.trust_domain)?;
    let config = tls::server_config(&options.tls)?;
    let gateway = options.gateway.as_ref();
    let inquired = gateway
        .map(|link| tls::channel(&link.endpoint, &options.tls, &link.principal, ChannelOptions::default()))
        .transpose()?;
    let (store, mut thread) = Store::open(&options.store, &options.name)?;
    let cut = CancellationToken::new();
    // Declared after the thread, hence dropped before: connections first, then the store under them.
    let _cut_on_drop = cut.clone().drop_guard();
    let draining = CancellationToken::new();
    let work = async {
        seed(&store, options.accounts).await?;
        let faults = Arc::new(Faults::new(options.faults));
        let trust_domain = options.trust_domain;
        let for_gateway = Access::Gateway {
            gateway: gateway.map(|link| link.principal.clone()),
            trust_domain: trust_domain.clone(),
        };
        let for_testers = Access::Control {
            name: options.name,
            trust_domain,
        };
        let participant = Participant {
            store: store.clone(),
            faults: faults.clone(),
            crash: options.crash,
        };
        let participant = ParticipantServiceServer::new(participant).max_decoding_message_size(REQUEST_BYTES_MAX);
        let control = MockServiceServer::new(Control {
            store: store.clone(),
            faults,
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<ParticipantServiceServer<Participant>>().await;
        health.set_serving::<MockServiceServer<Control>>().await;
        // What is served and nothing else: the descriptors hold the gateway's services too.
        let reflection = || pb::reflection(&SERVICES);
        let connections = tls::incoming(listener, config, ListenLimits::default())
            .map(|connection| connection.map(|connection| Cuttable::new(connection, cut.clone())));
        let signal = async {
            shutdown.await;
            draining.cancel();
        };
        let server = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
            .http2_max_local_error_reset_streams(Some(RESETS_MAX))
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(InterceptedService::new(participant, for_gateway))
            .add_service(InterceptedService::new(control, for_testers))
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .serve_with_incoming_shutdown(connections, signal);
        server.await.map_err(MockError::Server)
    };
    let inquiry = async {
        if let Some(gateway) = inquired {
            Inquiry {
                store: store.clone(),
                gateway,
                options: options.inquiry,
            }
            .run()
            .await;
        }
        std::future::pending::<()>().await;
    };
    let drained = async {
        draining.cancelled().await;
        sleep(options.drain_timeout).await;
    };
    tokio::select! {
        // The store's failure first: it explains all others. Then the server's own end; the drain's deadline last.
        biased;
        error = thread.failed() => Err(MockError::Store(error)),
        served = work => served,
        () = inquiry => Ok(()),
        () = drained => {
            tracing::warn!("calls were still running when the time to drain was over");
            Ok(())
        }
    }
}

async fn seed(store: &Store, accounts: Vec<AccountSeed>) -> Result<(), MockError> {
    for AccountSeed { setup } in accounts {
        let failed = MockError::Seed {
            account: setup.account.clone(),
            currency: setup.currency.clone(),
        };
        match store.run(move |ledger| ledger.seed(&setup)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(failed),
            // The store's own error is about to be heard.
            Err(_) => std::future::pending().await,
        }
    }
    Ok(())
}

/// The lock, also after a panic elsewhere: what it guards is whole at every unlock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
