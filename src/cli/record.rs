//! What the commands share that record something in the store: the store, the author and the note.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::operator;
use crate::config::Config;
use crate::store::StoreSettings;

/// The store to write to, the author and the note.
#[derive(Debug, Args)]
pub(super) struct Record {
    /// Note or reason.
    #[arg(long, value_name = "TEXT")]
    pub(super) note: Option<String>,
    /// Name for the audit trail [default: the user of the operating system].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Store, instead of the configured one: embedded:DIR, or the URL of a ClickHouse server.
    #[arg(long, value_name = "embedded:DIR|URL")]
    store: Option<String>,
}

/// Who records something, and why. Both are checked texts.
pub(super) struct Signature {
    pub(super) by: String,
    /// Empty without a note.
    pub(super) note: String,
}

impl Record {
    pub(super) fn store(&self) -> Result<StoreSettings, Failure> {
        chosen_store(self.config.as_deref(), self.store.as_deref())
    }

    pub(super) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.config.as_deref())?)
    }

    pub(super) fn signature(&self) -> Result<Signature, Failure> {
        let note = self.note.as_deref().map_or(Ok(String::new()), |note| operator::text(note, "--note"))?;
        Ok(Signature { by: operator::name(self.by.as_deref())?, note })
    }
}

/// The configured store, or the one of the option `--store`.
pub(super) fn chosen_store(config: Option<&Path>, url: Option<&str>) -> Result<StoreSettings, Failure> {
    let mut settings = Config::load(config)?.store;
    if let Some(url) = url {
        url.clone_into(&mut settings.url);
        settings.check_url().map_err(|problem| Failure::Usage(format!("--store {problem}")))?;
    }
    Ok(settings)
}
