//! Commands: what is read from the command line, and what is called.

mod certs;
mod demo;
mod mock_partner;
mod serve;

use std::{future::Future, io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A gRPC gateway that settles payments between wallet networks.
#[derive(Parser)]
#[command(name = "causeway", version, about)]
struct Arguments {
    /// What to log, as tracing filters have it: "info", "causeway=debug". Overrides RUST_LOG.
    #[arg(long, global = true)]
    log: Option<String>,
    /// One JSON object a line in place of text.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a gateway.
    Serve(serve::Arguments),
    /// Run a mock partner network, for tests and demonstrations.
    MockPartner(mock_partner::Arguments),
    /// Show what a gateway does: mock networks, payments, crashes, and books that balance. Nothing to set up.
    Demo(demo::Arguments),
    /// Make a development certificate authority and certificates.
    Certs(certs::Arguments),
}

/// Why a command failed, in words.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Reads the command line and runs the command.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(problem) = log(&arguments) {
        eprintln!("causeway: {problem}");
        return ExitCode::from(2);
    }
    let result = match arguments.command {
        Command::Serve(arguments) => on_runtime(serve::run(arguments)),
        Command::MockPartner(arguments) => on_runtime(mock_partner::run(arguments)),
        Command::Demo(arguments) => on_runtime(demo::run(arguments)),
        Command::Certs(arguments) => certs::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("causeway: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn on_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // What is still running is not waited for: a drain has had its time.
    runtime.shutdown_background();
    result
}

fn log(arguments: &Arguments) -> Result<(), Failure> {
    let filter = match (&arguments.log, std::env::var("RUST_LOG")) {
        (Some(filter), _) => EnvFilter::try_new(filter)?,
        (None, Ok(filter)) => EnvFilter::try_new(filter)?,
        (None, Err(_)) => EnvFilter::new("info"),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if arguments.log_json {
        subscriber.json().init();
    } else {
        subscriber.with_target(false).init();
    }
    Ok(())
}

/// SIGTERM or SIGINT.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
    })
}
