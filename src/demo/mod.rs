//! `causeway demo`: a story that shows what the gateway promises, and checks every balance of it.
//!
//! Starts three mock networks and a gateway as processes of their own, lets payments happen and processes die, and
//! compares what everyone has on the books with sums of its own. A client like any other: it speaks gRPC with the
//! networks' certificates and shares no arithmetic with the gateway. Called by the `demo` command only.
//!
//! Reading order: [`story`] and [`trouble`] (the steps) -> [`audit`] (the end) -> [`books`], [`deal`], [`sums`], [`day`]
//! (what must be, pure) -> [`clients`] (the calls) -> [`cluster`], [`processes`] (what runs) -> [`keep`], [`tell`],
//! [`table`], [`cast`].
//!
//! Invariant: when the demonstration is over nothing of it is left, unless it was told to keep it.

mod audit;
mod books;
mod cast;
mod clients;
mod cluster;
mod day;
mod deal;
mod keep;
mod processes;
mod story;
mod sums;
mod table;
mod tell;
mod trouble;

use std::{future::Future, io, path::PathBuf};

use tonic::Status;

use self::{
    books::Books,
    cast::{Network, Wallet},
    clients::{Clients, PATIENCE},
    cluster::Cluster,
    processes::{Death, ProcessError},
    story::Stage,
    sums::BadNumber,
    tell::Tell,
};
use crate::{authn::IdentityError, certs::CertsError, tls::TlsError};

pub use self::day::{Day, DayError};

/// How to demonstrate.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The executable that the networks and the gateway are run from.
    pub program: PathBuf,
    /// The day whose rates are used.
    pub day: Day,
    /// Leave everything running at the end.
    pub keep: bool,
}

/// Why the demonstration did not come to a good end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The story was told, and not all was as it must be. All of it is told already.
    #[error("the books are not as they must be; differences, told above: {0}")]
    Differs(usize),
    /// Somebody asked to stop.
    #[error("interrupted; everything is stopped and removed")]
    Interrupted,
    /// The temporary folder, or the ports.
    #[error("temporary folder: {source}")]
    Folder {
        /// Why.
        source: io::Error,
    },
    /// The certificates.
    #[error("certificates: {0}")]
    Certs(#[from] CertsError),
    /// A name in them.
    #[error("certificates: {0}")]
    Identity(#[from] IdentityError),
    /// A channel.
    #[error("channel: {0}")]
    Tls(#[from] TlsError),
    /// A process.
    #[error("{0}")]
    Process(#[from] ProcessError),
    /// A process died that was not meant to.
    #[error("{0}")]
    Died(Death),
    /// A process is not there that should be: a bug of the story.
    #[error("{name} is not running")]
    NotRunning {
        /// Which.
        name: &'static str,
    },
    /// A call was refused.
    #[error("{what}: {:?}: {}", status.code(), status.message())]
    Call {
        /// Which.
        what: &'static str,
        /// The answer.
        status: Box<Status>,
    },
    /// It did not happen.
    #[error("waited {} s for {what}, in vain (with --keep the logs stay)", PATIENCE.as_secs())]
    Waited {
        /// What.
        what: &'static str,
    },
    /// A payment that was to stop half-way did not.
    #[error("{name} was to stop before anyone heard of its decision; it is {state}")]
    TooEarly {
        /// Which.
        name: String,
        /// Its state.
        state: &'static str,
    },
    /// An account is not there.
    #[error("there is no account {} at {}", wallet.account, wallet.network)]
    NoAccount {
        /// Whose.
        wallet: Wallet,
    },
    /// A bug of the story.
    #[error("no corridor leads from {payer} to {payee}")]
    NoCorridor {
        /// From where.
        payer: Wallet,
        /// To where.
        payee: Wallet,
    },
    /// A number that is none.
    #[error(transparent)]
    Number(#[from] BadNumber),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Tells the whole story on standard output.
///
/// # Errors
/// [`DemoError::Differs`] if something is not as it must be, any other if the story could not be told to its end.
pub async fn run(options: DemoOptions, stop: impl Future<Output = ()>) -> Result<(), DemoError> {
    let mut cluster = Cluster::new(options.program, &options.day, options.keep)?;
    let watch = cluster.watch();
    let result = tokio::select! {
        // Whoever asks to stop is heard first; then a death, which explains what else goes wrong.
        biased;
        () = stop => Err(DemoError::Interrupted),
        death = watch.death() => Err(DemoError::Died(death)),
        result = tell_all(&mut cluster, options.day, options.keep) => result,
    };
    match (&result, options.keep) {
        (Err(DemoError::Interrupted), true) => cluster.do_not_keep(),
        (Err(error), true) if !matches!(error, DemoError::Differs(_)) => {
            keep::show_running(&mut Tell::new(), &cluster)?;
            return result;
        }
        (_, true) => return result,
        (_, false) => {}
    }
    // The story's own error is the one that counts.
    result.and(cluster.kill_all().await)
}

async fn tell_all(cluster: &mut Cluster, day: Day, keep: bool) -> Result<(), DemoError> {
    cluster.start_all().await?;
    let mut stage = Stage {
        clients: Clients::new(cluster)?,
        cluster,
        books: Books::open()?,
        tell: Tell::new(),
        day,
        differences: Vec::new(),
    };
    stage.introduce()?;
    stage.there().await?;
    stage.back().await?;
    stage.four_times().await?;
    stage.no_funds().await?;
    stage.partner_crashes().await?;
    stage.gateway_is_killed().await?;
    stage.partner_stays_down().await?;
    let balanced = stage.audit().await?;

    let Stage {
        cluster,
        clients,
        mut tell,
        day,
        differences,
        ..
    } = stage;
    if keep {
        keep::show_running(&mut tell, cluster)?;
        if let Some(first) = clients.payment_of(Network::ApplePay, "demo-1").await? {
            keep::show_commands(&mut tell, cluster, &day, &first)?;
        }
    }
    if differences.is_empty() {
        tell.line(&balanced)?;
        return Ok(());
    }
    tell.heading("What is not as it must be")?;
    for difference in &differences {
        tell.line(&format!("- {difference}"))?;
    }
    Err(DemoError::Differs(differences.len()))
}
