//! Snapshots of a state: its bytes in bounded records, and the marker that ends them.
//!
//! A state is serialized with [`postcard`], whose format is specified and stable. The bytes are cut into records of at
//! most [`RECORD_BYTES_MAX`] bytes, because a snapshot of a large state does not fit into one message. No buffer is
//! larger than a record. The [`Marker`] is written last: without it, the records are not a snapshot.
//!
//! A record begins with a header of [`HEADER_BYTES`] bytes, all numbers little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | version of the format of the state |
//! | 4 | number of the record, from 0 |
//! | 8 | XXH3 of the 16 bytes before, and of the payload |

mod marker;
mod unreadable;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

pub(crate) use self::marker::state_name;
pub use self::marker::{Extent, Marker, Reached};
pub use self::unreadable::Unreadable;
use self::unreadable::check_format;

/// Maximum size of a record with its header, bytes: half of the default limit of a Kafka message.
pub const RECORD_BYTES_MAX: usize = 512 << 10;
/// Size of the header of a record, bytes.
pub const HEADER_BYTES: usize = 24;
/// The first bytes of each record.
pub const MAGIC: [u8; 8] = *b"TW-state";
/// Size of the header without its checksum.
const CHECKED_BYTES: usize = 16;
/// Maximum length of a text in a state, bytes. A longer one is taken for damage.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Why a state was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The records could not be obtained.
    #[error("{0}")]
    Source(E),
    #[error("{0}")]
    Unreadable(Unreadable),
}

impl<E> From<Unreadable> for ReadError<E> {
    fn from(reason: Unreadable) -> Self {
        Self::Unreadable(reason)
    }
}

/// Writes `state` in records, each of which `take` receives. Equal states have equal records. Stops at the first error
/// of `take`.
pub fn write<T: Serialize, E>(
    state: &T,
    format: u32,
    take: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<Extent, E> {
    let mut writer =
        Writer { format, record: Vec::new(), records: 0, bytes: 0, digest: Xxh3::new(), take, failed: None };
    writer.begin();
    let mut serializer = postcard::Serializer { output: writer };
    // The only other error is a list whose length is not known, which no state contains.
    let written = state.serialize(&mut serializer);
    let mut writer = serializer.output;
    debug_assert!(written.is_ok() || writer.failed.is_some(), "a state can always be serialized");
    if writer.failed.is_none() {
        writer.end();
    }
    match writer.failed {
        Some(error) => Err(error),
        None => Ok(Extent { records: writer.records, bytes: writer.bytes, digest: writer.digest.digest() }),
    }
}

/// Reads a state from the records that `next` returns in order. `None` is the end.
pub fn read<T: DeserializeOwned, E>(
    format: u32,
    extent: Extent,
    next: &mut dyn FnMut() -> Result<Option<Vec<u8>>, E>,
) -> Result<T, ReadError<E>> {
    let mut reader = Reader {
        format,
        extent,
        record: Vec::new(),
        at: HEADER_BYTES,
        records: 0,
        digest: Xxh3::new(),
        text: Vec::new(),
        next,
        failed: None,
    };
    reader.record.resize(HEADER_BYTES, 0);
    let mut deserializer = postcard::Deserializer::from_flavor(reader);
    let state = T::deserialize(&mut deserializer);
    let Ok(mut reader) = deserializer.finalize() else { unreachable!("the reader returns itself") };
    if let Some(reason) = reader.failed.take() {
        return Err(reason);
    }
    // The serializer failed on bytes that are as they were written.
    let state = state.map_err(|_| Unreadable::Content { record: reader.records.saturating_sub(1) })?;
    reader.end()?;
    Ok(state)
}

/// Cuts bytes into records.
struct Writer<'a, E> {
    format: u32,
    /// The record that is being filled, with room for its header.
    record: Vec<u8>,
    records: u32,
    bytes: u64,
    digest: Xxh3,
    take: &'a mut dyn FnMut(Vec<u8>) -> Result<(), E>,
    failed: Option<E>,
}

impl<E> Writer<'_, E> {
    fn begin(&mut self) {
        self.record = Vec::with_capacity(RECORD_BYTES_MAX);
        self.record.extend_from_slice(&[0; HEADER_BYTES]);
    }

    /// Completes the record and hands it over.
    #[cold]
    fn end(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        let (header, payload) = record.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&sealed(self.format, self.records, payload));
        self.digest.update(payload);
        self.records += 1;
        self.bytes += record.len() as u64;
        self.failed = (self.take)(record).err();
    }

    #[cold]
    fn next(&mut self) -> postcard::Result<()> {
        self.end();
        self.begin();
        if self.failed.is_some() { Err(postcard::Error::SerializeBufferFull) } else { Ok(()) }
    }
}

impl<E> postcard::ser_flavors::Flavor for Writer<'_, E> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.record.len() == RECORD_BYTES_MAX {
            self.next()?;
        }
        self.record.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, mut bytes: &[u8]) -> postcard::Result<()> {
        while self.record.len() + bytes.len() > RECORD_BYTES_MAX {
            let (now, later) = bytes.split_at(RECORD_BYTES_MAX - self.record.len());
            self.record.extend_from_slice(now);
            self.next()?;
            bytes = later;
        }
        self.record.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Header of a record.
fn sealed(format: u32, number: u32, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&format.to_le_bytes());
    header[12..CHECKED_BYTES].copy_from_slice(&number.to_le_bytes());
    let mut checksum = Xxh3::new();
    checksum.update(&header[..CHECKED_BYTES]);
    checksum.update(payload);
    header[CHECKED_BYTES..].copy_from_slice(&checksum.digest().to_le_bytes());
    header
}

/// Checks that `record` is the one with `number`, in `format`.
fn check(record: &[u8], format: u32, number: u32) -> Result<(), Unreadable> {
    let Some((header, payload)) = record.split_at_checked(HEADER_BYTES) else {
        return Err(Unreadable::Foreign { record: number });
    };
    if header[..8] != MAGIC {
        return Err(Unreadable::Foreign { record: number });
    }
    let mut found = [0; 4];
    found.copy_from_slice(&header[8..12]);
    let found = u32::from_le_bytes(found);
    if header != sealed(found, number, payload) || record.len() > RECORD_BYTES_MAX {
        return Err(Unreadable::Damaged { record: number });
    }
    check_format(found, format)
}

/// Joins the bytes of records.
struct Reader<'a, E> {
    format: u32,
    extent: Extent,
    record: Vec<u8>,
    /// Index of the next byte in the record.
    at: usize,
    records: u32,
    digest: Xxh3,
    /// A text whose bytes are in two records.
    text: Vec<u8>,
    next: &'a mut dyn FnMut() -> Result<Option<Vec<u8>>, E>,
    failed: Option<ReadError<E>>,
}

impl<E> Reader<'_, E> {
    /// Replaces the record, which is read to its end, by the next one.
    #[cold]
    fn advance(&mut self) -> postcard::Result<()> {
        let done = self.obtain();
        done.map_err(|reason| {
            self.failed = Some(reason);
            postcard::Error::DeserializeUnexpectedEnd
        })
    }

    fn obtain(&mut self) -> Result<(), ReadError<E>> {
        let (records, expected) = (self.records, self.extent.records);
        if records == expected {
            return Err(Unreadable::Length.into());
        }
        let record = (self.next)().map_err(ReadError::Source)?.ok_or(Unreadable::Truncated { records, expected })?;
        check(&record, self.format, records)?;
        self.digest.update(&record[HEADER_BYTES..]);
        self.records += 1;
        self.at = HEADER_BYTES;
        self.record = record;
        Ok(())
    }

    /// Checks that the state ends where the records end.
    fn end(&self) -> Result<(), Unreadable> {
        let is_complete = self.at == self.record.len() && self.records == self.extent.records;
        if !is_complete {
            Err(Unreadable::Length)
        } else if self.digest.digest() != self.extent.digest {
            Err(Unreadable::Damaged { record: self.records.saturating_sub(1) })
        } else {
            Ok(())
        }
    }
}

impl<'de, E: 'de> postcard::de_flavors::Flavor<'de> for Reader<'de, E> {
    type Remainder = Self;
    type Source = ();

    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        loop {
            if let Some(byte) = self.record.get(self.at) {
                self.at += 1;
                return Ok(*byte);
            }
            self.advance()?;
        }
    }

    fn try_take_n(&mut self, _: usize) -> postcard::Result<&'de [u8]> {
        // A state borrows nothing from its records.
        Err(postcard::Error::WontImplement)
    }

    #[inline]
    fn try_take_n_temp<'a>(&'a mut self, count: usize) -> postcard::Result<&'a [u8]>
    where
        'de: 'a,
    {
        let from = self.at;
        if count <= self.record.len() - from {
            self.at += count;
            return Ok(&self.record[from..self.at]);
        }
        if count > TEXT_BYTES_MAX {
            return Err(postcard::Error::DeserializeUnexpectedEnd);
        }
        self.text.clear();
        while self.text.len() < count {
            let byte = self.pop()?;
            self.text.push(byte);
        }
        Ok(&self.text)
    }

    fn finalize(self) -> postcard::Result<Self> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use serde::Deserialize;

    use super::*;

    const FORMAT: u32 = 7;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Sort {
        One,
        Other,
    }

    /// A value of each kind that occurs in a state.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        numbers: (u8, u16, u32, u64, i64),
        floats: [f64; 2],
        half: f32,
        sort: Option<Sort>,
        text: Box<str>,
        map: BTreeMap<u64, u8>,
        list: Vec<u32>,
    }

    fn sample(count: u32) -> Sample {
        Sample {
            numbers: (255, 300, 70_000, u64::MAX, -1),
            floats: [0.1, f64::NEG_INFINITY],
            half: 2.5,
            sort: Some(Sort::Other),
            text: "Z\u{fc}rich".into(),
            map: BTreeMap::from([(3, 9), (1, 0)]),
            list: (0..count).map(|number| number.wrapping_mul(0x9e37_79b9)).collect(),
        }
    }

    fn written<T: Serialize>(value: &T) -> (Vec<Vec<u8>>, Extent) {
        let mut records = Vec::new();
        let Ok(extent) = write(value, FORMAT, &mut |record| -> Result<(), Infallible> {
            records.push(record);
            Ok(())
        });
        (records, extent)
    }

    fn reread<T: DeserializeOwned>(records: &[Vec<u8>], extent: Extent) -> Result<T, Unreadable> {
        let mut records = records.iter().cloned();
        read(FORMAT, extent, &mut || Ok::<_, Infallible>(records.next())).map_err(|error| match error {
            ReadError::Unreadable(reason) => reason,
            ReadError::Source(never) => match never {},
        })
    }

    /// The bytes of stored snapshots must not change with a later version of the codec.
    #[test]
    fn codec_writes_the_bytes_of_its_specification() {
        let (records, extent) = written(&sample(2));
        assert_eq!((extent.records, extent.bytes), (1, records[0].len() as u64));
        let payload: Vec<_> = records[0][HEADER_BYTES..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            payload.concat(),
            "ffac02f0a204ffffffffffffffffff01019a9999999999b93f000000000000f0ff000020400101075ac3bc72696368020100030902\
             00b9f3ddf109"
        );
        assert_eq!(records[0][..8], MAGIC);
        assert_eq!(records[0][8..16], [7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn snapshot_of_several_records_is_read_back() {
        for count in [0, 1, 104_000, 400_000] {
            let value = sample(count);
            let (records, extent) = written(&value);
            assert!(records.iter().all(|record| record.len() <= RECORD_BYTES_MAX));
            assert_eq!(records.len() as u32, extent.records);
            assert_eq!(records.iter().map(|record| record.len() as u64).sum::<u64>(), extent.bytes);
            assert_eq!(reread::<Sample>(&records, extent).as_ref(), Ok(&value));
        }
        assert!(written(&sample(400_000)).0.len() > 3);
    }

    #[test]
    fn text_in_two_records_is_read_back() {
        let text = |bytes: usize| vec!["x".repeat(bytes), "y".repeat(5_000)];
        for bytes in RECORD_BYTES_MAX - HEADER_BYTES - 5_004..RECORD_BYTES_MAX - HEADER_BYTES + 2 {
            if bytes % 97 == 0 {
                let (records, extent) = written(&text(bytes));
                assert_eq!(reread(&records, extent), Ok(text(bytes)));
            }
        }
    }

    #[test]
    fn writer_stops_at_the_first_error() {
        let mut taken = 0;
        let result = write(&sample(400_000), FORMAT, &mut |_| {
            taken += 1;
            if taken == 2 { Err("disk full") } else { Ok(()) }
        });
        assert_eq!((result, taken), (Err("disk full"), 2));
    }

    #[test]
    fn damaged_snapshot_is_refused_with_the_reason() {
        let value = sample(400_000);
        let (records, extent) = written(&value);
        let all = extent.records;
        let refused = |records: &[Vec<u8>], extent| reread::<Sample>(records, extent).expect_err("it is refused");
        let truncated = Unreadable::Truncated { records: all - 1, expected: all };
        assert_eq!(refused(&records[..records.len() - 1], extent), truncated);
        assert_eq!(refused(&[], extent), Unreadable::Truncated { records: 0, expected: all });
        let mut swapped = records.clone();
        swapped.swap(0, 1);
        assert_eq!(refused(&swapped, extent), Unreadable::Damaged { record: 0 });
        let mut short = records.clone();
        short[1].pop();
        assert_eq!(refused(&short, extent), Unreadable::Damaged { record: 1 });
        assert_eq!(refused(&[b"PK".to_vec()], extent), Unreadable::Foreign { record: 0 });
        assert_eq!(refused(&[vec![b'x'; 100]], extent), Unreadable::Foreign { record: 0 });
        assert_eq!(refused(&records, Extent { digest: 1, ..extent }), Unreadable::Damaged { record: all - 1 });
        assert_eq!(refused(&records, Extent { records: all - 1, ..extent }), Unreadable::Length);
        let mut older = Vec::new();
        let Ok(of_older) = write(&value, 6, &mut |record| -> Result<(), Infallible> {
            older.push(record);
            Ok(())
        });
        assert_eq!(refused(&older, of_older), Unreadable::Format { found: 6, expected: FORMAT });
    }

    #[test]
    fn content_after_the_state_is_refused() {
        let (records, extent) = written(&(1_u8, 2_u8));
        assert_eq!(reread::<u8>(&records, extent), Err(Unreadable::Length));
        assert_eq!(reread::<(u8, u8, u8)>(&records, extent), Err(Unreadable::Length));
        let (records, extent) = written(&7_u8);
        assert_eq!(reread::<Sort>(&records, extent), Err(Unreadable::Content { record: 0 }));
    }

    proptest! {
        /// Bytes with a correct checksum that no state has written.
        #[test]
        fn wrong_content_neither_panics_nor_fills_memory(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut record = sealed(FORMAT, 0, &payload).to_vec();
            record.extend_from_slice(&payload);
            let mut digest = Xxh3::new();
            digest.update(&payload);
            let extent = Extent { records: 1, bytes: record.len() as u64, digest: digest.digest() };
            let _ = reread::<Sample>(&[record.clone()], extent);
            let _ = reread::<Vec<Vec<String>>>(&[record], extent);
        }

        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let (mut records, extent) = written(&sample(50));
            let at = at.index(records[0].len());
            prop_assume!(records[0][at] != to);
            records[0][at] = to;
            prop_assert!(reread::<Sample>(&records, extent).is_err());
        }
    }
}
