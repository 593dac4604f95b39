//! `causeway serve`.

use std::path::PathBuf;

use causeway::{
    config::Config,
    coordinator::{HaltPoint, Halts},
    gateway,
};
use tokio::net::TcpListener;

use super::{Failure, asked_to_stop};

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Check the configuration file and stop.
    #[arg(long)]
    check: bool,
    /// For tests: the first payment that reaches this point stops there for ever. May be given more than once.
    #[arg(long, value_name = "POINT")]
    halt_at: Vec<HaltPoint>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        println!("{}: good", arguments.config.display());
        return Ok(());
    }
    let stop = asked_to_stop()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("listen: cannot listen on {}: {error}", config.listen))?;
    // For whoever started this with port 0.
    println!("gateway listening on {}", listener.local_addr()?);
    gateway::serve(config, listener, Halts::new(arguments.halt_at), stop).await?;
    println!("gateway stopped");
    Ok(())
}
