//! `tokenwarden pause-actions`: the switch that stops all revocations at once, whatever else is broken.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config::Config;
use crate::deliver::PAUSE_FILE;
use crate::sanitize;

/// Stop all revocations at once, until they are resumed; people are still told.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Resume revocations. Those that came up meanwhile are requested then, as far as the caps allow.
    #[arg(long)]
    resume: bool,
    /// Configuration file (TOML), which names the outbox.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The outbox's folder, where the configuration cannot be read.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    outbox: Option<PathBuf>,
}

/// Sets the switch, or takes it back. Every process has its own outbox, and its own switch.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = match &arguments.outbox {
        Some(folder) => folder.clone(),
        None => Config::load(arguments.config.as_deref()).map(|config| config.outbox.dir).map_err(|error| {
            Failure::Configuration(format!("{error}\nto pause without a configuration: pause-actions --outbox DIR"))
        })?,
    };
    // A switch in a folder that nobody looks into would only look like one.
    if !folder.is_dir() {
        let said = format!("there is no outbox in {}; name the configuration that `run` has", folder.display());
        return Err(Failure::Configuration(said));
    }
    let switch = folder.join(PAUSE_FILE);
    let done = if arguments.resume {
        match std::fs::remove_file(&switch) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    } else {
        std::fs::File::create(&switch).and_then(|file| file.sync_all())
    };
    done.map_err(|error| Failure::Unavailable(format!("cannot change {}: {error}", switch.display())))?;
    let state = if arguments.resume { "go on" } else { "are paused" };
    writeln!(std::io::stdout(), "revocations {state}: {}", sanitize::lines(&switch.display().to_string()))
        .map_err(|error| Failure::output("the answer", &error))
}
