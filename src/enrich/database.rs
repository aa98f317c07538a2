//! One GeoIP file, read into memory. If it were mapped, truncating the file would end the process.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};

use super::record::{RawNetwork, RawPlace};

/// Maximum size in bytes. The largest known files have 2 GB, and the whole file stays in memory.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// What a file is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    City,
    Asn,
}

/// Identifies the content of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DatabaseError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("has {bytes} bytes; the maximum is {FILE_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error("changed while it was read")]
    Changing,
    #[error("is not a valid MaxMind DB: {0}")]
    Format(#[from] MaxMindDbError),
    #[error("is not a valid MaxMind DB: its search tree has a loop")]
    Loop,
    #[error("contains no {what}; check that it is listed under the right key")]
    WrongRole { what: &'static str },
}

/// A verified file.
pub(super) struct Database {
    reader: Reader<Vec<u8>>,
}

/// A record that is not decoded yet.
pub(super) type Record<'a> = LookupResult<'a, Vec<u8>>;

impl Stamp {
    /// Stamp of the file as it is now.
    pub(crate) fn of(path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self::from(&std::fs::metadata(path)?))
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Database {
    /// Reads the file and verifies each node and record once. Errors: see [`DatabaseError`].
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self, DatabaseError> {
        let database = Self { reader: Reader::from_source(read(path)?)? };
        database.verify(role)?;
        Ok(database)
    }

    /// The record of `address`; `None` also if the file is of the other address family.
    pub(crate) fn find(&self, address: IpAddr) -> Option<Record<'_>> {
        self.reader.lookup(address).ok().filter(LookupResult::has_data)
    }

    /// Type and build date.
    pub(crate) fn version(&self) -> String {
        let metadata = self.reader.metadata();
        let built = i64::try_from(metadata.build_epoch).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
        let built = built.map_or_else(|| "unknown".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
        format!("{}, built {built}", metadata.database_type)
    }

    /// `maxminddb`'s own `verify` refuses files without a description, such as DB-IP's. This one checks what look-ups
    /// need: a tree without loops, and records that can be decoded, at least one of them usable in this role.
    fn verify(&self, role: Role) -> Result<(), DatabaseError> {
        // A tree of n nodes has at most n + 1 leaves.
        let leaves_max = u64::from(self.reader.metadata().node_count) + 1;
        let mut leaves = 0;
        let mut decoded = HashSet::new();
        let mut useful = false;
        for found in self.reader.networks(WithinOptions::default().include_networks_without_data())? {
            let found = found?;
            leaves += 1;
            if leaves > leaves_max {
                return Err(DatabaseError::Loop);
            }
            if found.offset().is_some_and(|offset| decoded.insert(offset)) {
                useful |= match role {
                    Role::City => found.decode::<RawPlace>()?.is_some_and(|raw| raw.place().is_some()),
                    Role::Asn => found.decode::<RawNetwork>()?.is_some_and(|raw| raw.network().is_some()),
                };
            }
        }
        match role {
            _ if useful => Ok(()),
            Role::City => Err(DatabaseError::WrongRole { what: "places" }),
            Role::Asn => Err(DatabaseError::WrongRole { what: "networks" }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DatabaseError> {
    // Checked before opening, because opening a pipe waits for its writer.
    let before = std::fs::metadata(path)?;
    if !before.is_file() {
        return Err(DatabaseError::NotAFile);
    }
    if before.len() > FILE_BYTES_MAX {
        return Err(DatabaseError::TooLarge { bytes: before.len() });
    }
    let mut file = File::open(path)?;
    let mut bytes = Vec::with_capacity(before.len() as usize);
    file.by_ref().take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    if Stamp::from(&file.metadata()?) != Stamp::from(&before) {
        return Err(DatabaseError::Changing);
    }
    Ok(bytes)
}
