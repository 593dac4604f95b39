//! The composition root: opens the store, recovers, serves, drains. [`Core`] is the gateway without its sockets.
//!
//! Owns the order in which things start and stop. Nothing is served before every unfinished payment is being driven
//! again, and nothing new is begun once a stop was asked for. Called by `main` and by tests, which bring the listener and
//! the signal to stop.

use std::{collections::BTreeMap, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    api::{Api, MalformedLayer},
    authn::Principal,
    config::{Config, RateSource},
    coordinator::{Coordinator, Halts, Options},
    fx::{
        RateSource as Source, Rates, RatesConfig, SourceError,
        source::{CsvFile, Embedded, Https, HttpsConfig, Roots, XmlFile},
    },
    participant::{GrpcParticipant, Participant},
    payment::PartnerName,
    pb::{
        gateway::v1::{
            decision_service_server::DecisionServiceServer, payment_service_server::PaymentServiceServer,
            quote_service_server::QuoteServiceServer, rate_service_server::RateServiceServer,
        },
        reflection,
    },
    runtime::{SharedRuntime, TokioRuntime},
    store::{SqliteOptions, SqliteStore, Store, StoreError},
    telemetry::{self, Telemetry},
    tls::{self, ChannelOptions, ListenLimits, TlsError},
};

/// What is served, for reflection and health.
const SERVICES: [&str; 4] = [
    "causeway.gateway.v1.QuoteService",
    "causeway.gateway.v1.PaymentService",
    "causeway.gateway.v1.RateService",
    "causeway.gateway.v1.DecisionService",
];
/// HTTP/2 flow control, bytes: requests are a few hundred bytes, thousands of them come on one connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Streams of one connection that were reset and are not yet forgotten; more of them end it. tonic's own default for those
/// that an error of the peer's caused is no limit at all (see RUSTSEC-2024-0003).
const RESETS_MAX: usize = 1_024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const FORGET_QUOTES_INTERVAL: Duration = Duration::from_secs(60);
/// A lapsed quote stays readable for a day.
const FORGET_QUOTES_AFTER_MS: i64 = 86_400_000;

/// Why a gateway did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The store.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A certificate, a key, or a partner's endpoint.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The rate source's settings.
    #[error("rates: {0}")]
    Rates(#[from] SourceError),
    /// The reflection service, which is built from the protos: a bug.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server.
    #[error("server: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The listener.
    #[error("listener: {0}")]
    Listen(#[from] io::Error),
    /// The listener of the metrics.
    #[error("metrics.listen: cannot listen on {addr}: {error}")]
    Metrics {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// Serves until `shutdown`, then drains for as long as the configuration allows. The listener is the caller's; what the
/// configuration says of it is not looked at.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    halts: Halts,
    shutdown: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let runtime = TokioRuntime::shared();
    let store: Arc<dyn Store> = {
        let path = config.store.clone();
        // Opening may wait for the disk; nothing else runs yet.
        Arc::new(tokio::task::block_in_place(|| {
            SqliteStore::open(SqliteOptions::new(path))
        })?)
    };
    let rates = rates(&config, Arc::clone(&runtime))?;
    let tls_config = tls::server_config(&config.tls)?;
    let telemetry = Telemetry::default();
    let participants = participants(&config, &runtime, &telemetry)?;
    // Before anything is recovered: how partners answer then is worth seeing, and a wrong address is told at once.
    let _metrics = serve_metrics(config.metrics, telemetry).await?;
    let core = Core::start(&config, Arc::clone(&store), rates, participants, halts, runtime).await?;
    let api = core.api();

    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, ServingStatus::Serving).await;
    let reflection = || reflection(&SERVICES);

    let limits = &config.limits;
    let connections = tls::incoming(
        listener,
        tls_config,
        ListenLimits {
            handshake_timeout: limits.handshake,
            connections_max: limits.connections,
        },
    );
    let stopping = core.closing.clone();
    let server = Server::builder()
        .layer(MalformedLayer)
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(QuoteServiceServer::new(api.clone()).max_decoding_message_size(limits.message_bytes))
        .add_service(PaymentServiceServer::new(api.clone()).max_decoding_message_size(limits.message_bytes))
        .add_service(RateServiceServer::new(api.clone()).max_decoding_message_size(limits.message_bytes))
        .add_service(DecisionServiceServer::new(api).max_decoding_message_size(limits.message_bytes))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(connections, async move { stopping.cancelled().await });
    tokio::pin!(server);

    let result = tokio::select! {
        // A failure before a stop: it is the reason that counts.
        biased;
        error = core.failed() => Err(GatewayError::Store(error)),
        result = &mut server => return result.map_err(GatewayError::from),
        () = core.housekeeping() => unreachable!("housekeeping never ends"),
        () = shutdown => Ok(()),
    };

    // Readiness goes first, so that callers who ask go elsewhere; then nothing new begins, streams end, and what is under
    // way may end too.
    set_health(&health, ServingStatus::NotServing).await;
    // Whoever watches the health has seen it; their streams end, and do not hold up the drain.
    let mut watched = health.clone();
    for service in [""].iter().chain(&SERVICES) {
        watched.clear_service_status(service).await;
    }
    core.close();
    let drain = async {
        let (served, ()) = tokio::join!(&mut server, core.drained());
        served
    };
    match tokio::time::timeout(config.timing.drain, drain).await {
        Ok(served) => served?,
        Err(_) => {
            let left = core.live_count();
            tracing::warn!(left, "the drain took too long; what is left goes on at the next start");
        }
    }
    result
}

/// A gateway without its sockets: the store it is given, its payments being driven, its services ready to be called.
///
/// Order: [`Core::start`], then [`Core::api`] is served while [`Core::housekeeping`] and [`Core::failed`] are polled, until
/// [`Core::close`].
pub struct Core {
    coordinator: Coordinator,
    store: Arc<dyn Store>,
    runtime: SharedRuntime,
    closing: CancellationToken,
    api: Api,
}

impl Core {
    /// Takes up every unfinished payment of the store before it answers.
    ///
    /// # Errors
    /// The store's, if its unfinished payments cannot be found.
    pub async fn start(
        config: &Config,
        store: Arc<dyn Store>,
        rates: Rates,
        participants: BTreeMap<PartnerName, Arc<dyn Participant>>,
        halts: Halts,
        runtime: SharedRuntime,
    ) -> Result<Self, StoreError> {
        let options = Options {
            policy: config.policy.clone(),
            redeliveries_per_second: config.redeliveries_per_second,
            calls_per_partner: config.limits.calls_per_partner,
            recovery_interval: config.timing.recovery_interval,
            halts,
        };
        let coordinator = Coordinator::new(Arc::clone(&store), participants, options, Arc::clone(&runtime));
        let recovered = coordinator.recover().await?;
        tracing::info!(recovered, store = %config.store.display(), "recovered");
        let closing = CancellationToken::new();
        let api = Api::new(
            config,
            coordinator.clone(),
            Arc::clone(&store),
            Arc::new(rates),
            Arc::clone(&runtime),
            closing.clone(),
        );
        Ok(Self {
            coordinator,
            store,
            runtime,
            closing,
            api,
        })
    }

    /// The services. Cheap to clone.
    pub fn api(&self) -> Api {
        self.api.clone()
    }

    /// How many payments are being driven.
    pub fn live_count(&self) -> usize {
        self.coordinator.live_count()
    }

    /// Why the store takes no more writes, once that is so: the process has to end, and its successor reads what is there.
    pub async fn failed(&self) -> StoreError {
        match self.store.failure().wait_for(Option::is_some).await {
            Ok(error) => error.clone().expect("waited for it"),
            Err(_) => StoreError::Closed,
        }
    }

    /// Nothing new begins, and streams end.
    pub fn close(&self) {
        self.coordinator.close();
        self.closing.cancel();
    }

    /// Waits until no payment is being driven. Bound it: what a partner does not answer waits for the next start.
    pub async fn drained(&self) {
        self.coordinator.drained().await;
    }

    /// What has to be done again and again, for as long as it is polled: it never ends.
    pub async fn housekeeping(&self) {
        tokio::join!(self.coordinator.recover_on_a_timer(), self.forget_quotes());
    }

    async fn forget_quotes(&self) {
        loop {
            self.runtime.sleep(FORGET_QUOTES_INTERVAL).await;
            // A page at a time, so that no write waits long behind it, until none is left.
            loop {
                match self
                    .store
                    .forget_quotes(self.runtime.now_ms() - FORGET_QUOTES_AFTER_MS)
                    .await
                {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "lapsed quotes stay for now");
                        break;
                    }
                }
            }
        }
    }
}

/// Serves the metrics until the handle is dropped, drain included.
async fn serve_metrics(
    addr: Option<SocketAddr>,
    telemetry: Telemetry,
) -> Result<Option<AbortOnDropHandle<()>>, GatewayError> {
    let Some(addr) = addr else {
        return Ok(None);
    };
    let failed = |error| GatewayError::Metrics { addr, error };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    tracing::info!(addr = %listener.local_addr().map_err(failed)?, "metrics are served");
    let server = tokio::spawn(async move {
        telemetry::serve(listener, telemetry).await;
    });
    Ok(Some(AbortOnDropHandle::new(server)))
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    // The empty name is the whole server (grpc.health.v1).
    for service in [""].iter().chain(&SERVICES) {
        health.set_service_status(*service, status).await;
    }
}

fn participants(
    config: &Config,
    runtime: &SharedRuntime,
    telemetry: &Telemetry,
) -> Result<BTreeMap<PartnerName, Arc<dyn Participant>>, TlsError> {
    config
        .partners
        .iter()
        .map(|(name, partner)| {
            let expected: &Principal = &partner.identity;
            let channel = tls::channel(&partner.endpoint, &config.tls, expected, ChannelOptions::default())?;
            let participant = GrpcParticipant::new(name.clone(), channel, config.timing.timeouts, Arc::clone(runtime))
                .counting(telemetry);
            Ok((name.clone(), Arc::new(participant) as Arc<dyn Participant>))
        })
        .collect()
}

fn rates(config: &Config, runtime: SharedRuntime) -> Result<Rates, SourceError> {
    let rates = &config.rates;
    let source: Box<dyn Source> = match rates.source.clone() {
        RateSource::Sample { date } => Box::new(Embedded { date }),
        RateSource::CsvFile { path, date } => Box::new(CsvFile::new(path, date)),
        RateSource::XmlFile { path } => Box::new(XmlFile::new(path)),
        RateSource::Https { url, ca } => {
            let roots = ca.map_or(Roots::System, Roots::File);
            Box::new(Https::new(HttpsConfig {
                roots,
                ..HttpsConfig::new(url)
            })?)
        }
    };
    let settings = RatesConfig {
        expire_after: rates.expire_after,
        refresh_after: rates.refresh_after,
        stale_after: (!rates.source.is_pinned()).then_some(rates.stale_after),
        deviation_max: rates.deviation_max,
        ..RatesConfig::default()
    };
    Ok(Rates::from_boxed(source, settings, runtime))
}
