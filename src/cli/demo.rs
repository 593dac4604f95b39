//! `causeway demo`.

use causeway::demo::{self, Day, DemoOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, asked_to_stop};

#[derive(clap::Args)]
pub struct Arguments {
    /// The day whose European Central Bank rates are used: 2014-10-28, or "latest".
    #[arg(long, default_value = "2014-10-28")]
    date: Day,
    /// Leave everything running, and print commands to try.
    #[arg(long)]
    keep: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let stop = asked_to_stop()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = async {
        tokio::select! {
            () = stop => {}
            // The terminal is gone; the processes are not its own and would stay.
            _ = hangup.recv() => {}
        }
    };
    let options = DemoOptions {
        program: std::env::current_exe()?,
        day: arguments.date,
        keep: arguments.keep,
    };
    Ok(demo::run(options, stop).await?)
}
