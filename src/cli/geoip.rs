//! `tokenwarden geoip build`: files of networks in MaxMind's format, from data that is published in another.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::{Args, Subcommand};

use super::Failure;
use crate::lab::mmdb_source::{self, SourceError};
use crate::lab::mmdb_writer::Description;

/// Makes GeoIP files.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes one .mmdb file from a table of networks or from a description in JSON
    Build(Build),
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    source: Source,
    /// Where to write the file; one that is there is replaced when the new one is whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Lines of: first address, last address, AS number, name of its holder
    #[arg(long, value_name = "FILE")]
    asn_csv: Option<PathBuf>,
    /// {database_type, description, build_epoch, ip_version, networks: [[PREFIX, RECORD], …]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
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
    // The data are as old as their file; the time of conversion says nothing.
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

/// Writes beside `path`, then takes its place: whoever watches the file sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&new);
    }
    written
}
