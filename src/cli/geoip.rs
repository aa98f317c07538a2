//! `tokenwarden geoip build`: converts network data to the MaxMind DB format.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::lab::mmdb_source::{self, SourceError};
use crate::lab::mmdb_writer::Description;

/// Build GeoIP files.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build one .mmdb file from a CSV table or a JSON description
    Build(Build),
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    source: Source,
    /// File to write. An existing file is replaced atomically
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// CSV table without header: first address, last address, AS number, name of the AS
    #[arg(long, value_name = "FILE")]
    asn_csv: Option<PathBuf>,
    /// JSON: {database_type, description, build_epoch, ip_version, networks: [[PREFIX, RECORD], …]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Build(build) = &arguments.command;
    let file = match (&build.source.asn_csv, &build.source.json) {
        (Some(path), _) => from_asn_csv(path),
        (None, Some(path)) => from_json(path),
        (None, None) => return Err(Failure::Usage("give --asn-csv or --json".to_owned())),
    }?;
    replace(&build.out, &file).map_err(|error| Failure::output(&build.out.display().to_string(), &error))
}

fn from_asn_csv(path: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |error: SourceError| Failure::Input(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| unusable(error.into()))?;
    // The age of the data is that of the source file, not that of the conversion.
    let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(|error| unusable(error.into()))?;
    let build_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let writer = mmdb_source::asn_csv(BufReader::new(file)).map_err(unusable)?;
    let description = Description {
        database_type: "ASN".to_owned(),
        text: "Autonomous systems by address, made by tokenwarden geoip build".to_owned(),
        build_epoch,
    };
    writer.finish(&description).map_err(|error| unusable(error.into()))
}

fn from_json(path: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |error: SourceError| Failure::Input(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.into()))?;
    let (writer, description) = mmdb_source::json(&text).map_err(unusable)?;
    writer.finish(&description).map_err(|error| unusable(error.into()))
}

/// Writes a new file beside `path` and renames it, so that a reader gets the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // The first error is returned.
        let _ = std::fs::remove_file(&new);
    }
    written
}
