//! `tokenwarden pause-actions`: stops all revocations by a file in the outbox, without a running service.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::Config;
use crate::deliver::PAUSE_FILE;
use crate::sanitize;

/// Pause all revocations until they are resumed. Alerts are still sent.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Resume revocations. Revocations that were requested meanwhile are sent, within the caps.
    #[arg(long)]
    resume: bool,
    /// Configuration file (TOML) with the outbox.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the outbox, if the configuration cannot be read.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    outbox: Option<PathBuf>,
}

/// Creates or removes the file. Each process has its own outbox, and therefore its own file.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = match &arguments.outbox {
        Some(folder) => folder.clone(),
        None => Config::load(arguments.config.as_deref()).map(|config| config.outbox.dir).map_err(|error| {
            Failure::Configuration(format!(
                "{error}\nTo pause without a configuration, run `tokenwarden pause-actions --outbox DIR`."
            ))
        })?,
    };
    // In a folder that no service reads, the file would have no effect.
    if !folder.is_dir() {
        let problem = format!("no outbox in {}; give the configuration that `run` uses", folder.display());
        return Err(Failure::Configuration(problem));
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
    let state = if arguments.resume { "resumed" } else { "paused" };
    writeln!(std::io::stdout(), "revocations {state}: {}", sanitize::lines(&switch.display().to_string()))
        .map_err(|error| Failure::output("the result", &error))
}
