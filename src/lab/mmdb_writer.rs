//! Writes files in MaxMind's format, version 2.0 (<https://maxmind.github.io/MaxMind-DB/>), from network data that is
//! published as a table, and for tests.
//!
//! A file is a binary tree over address bits, the records of its leaves, and a map that describes the file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

/// A value in a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
    Text(String),
    Double(f64),
    Uint16(u16),
    Uint32(u32),
    Uint64(u64),
    Bool(bool),
}

/// Metadata of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// `GeoLite2-ASN` and the like. Readers may use it to select a schema.
    pub(crate) database_type: String,
    /// One English sentence.
    pub(crate) text: String,
    /// Build time in seconds since the epoch.
    pub(crate) build_epoch: u64,
}

/// Address family of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    /// IPv6, with IPv4 addresses under `::/96`.
    Ipv6,
}

/// The tree is larger than a record of 32 bits can address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is too large for the format")]
pub struct TooLarge;

/// A file under construction.
#[derive(Debug)]
pub struct Writer {
    family: Family,
    nodes: Vec<[Child; 2]>,
    data: Vec<u8>,
    /// Offset of each record in `data`: equal records are written once.
    offsets: HashMap<Vec<u8>, u32>,
}

/// Target of one bit of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    Nothing,
    Node(u32),
    /// Offset of a record in the data section.
    Data(u32),
}

/// Between the tree and the data section.
const SEPARATOR: [u8; 16] = [0; 16];
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

impl Writer {
    pub(crate) fn new(family: Family) -> Self {
        Self { family, nodes: vec![[Child::Nothing; 2]], data: Vec::new(), offsets: HashMap::new() }
    }

    /// Assigns `record` to the addresses from `first` to `last`, in place of earlier records. Returns false and changes
    /// nothing if the two are out of order, of two families, or not of the file's family.
    pub(crate) fn insert(&mut self, first: IpAddr, last: IpAddr, record: &Value) -> Result<bool, TooLarge> {
        let (Some((first, bits)), Some((last, _))) = (self.position(first), self.position(last)) else {
            return Ok(false);
        };
        if first > last || self.is_v4_in(first) != self.is_v4_in(last) {
            return Ok(false);
        }
        let leaf = Child::Data(self.add_record(record)?);
        for (prefix, length) in prefixes(first, last, bits) {
            self.insert_prefix(prefix, length, bits, leaf)?;
        }
        Ok(true)
    }

    /// The bytes of the whole file.
    pub fn finish(self, description: &Description) -> Result<Vec<u8>, TooLarge> {
        let nodes = u32::try_from(self.nodes.len()).map_err(|_| TooLarge)?;
        let highest = u64::from(nodes) + SEPARATOR.len() as u64 + self.data.len() as u64;
        let record_size: u16 = match highest {
            0..0x100_0000 => 24,
            0x100_0000..0x1000_0000 => 28,
            0x1000_0000..0x1_0000_0000 => 32,
            _ => return Err(TooLarge),
        };
        let number = |child| match child {
            Child::Nothing => nodes,
            Child::Node(node) => node,
            Child::Data(offset) => nodes + SEPARATOR.len() as u32 + offset,
        };
        let mut file = Vec::new();
        for [left, right] in &self.nodes {
            put_node(&mut file, record_size, number(*left), number(*right));
        }
        file.extend(SEPARATOR);
        file.extend(self.data);
        file.extend(METADATA_MARKER);
        encode(&metadata(self.family, nodes, record_size, description), &mut file);
        Ok(file)
    }

    /// The address as a number, and the number of bits that count.
    fn position(&self, address: IpAddr) -> Option<(u128, u32)> {
        match (self.family, address) {
            (Family::Ipv4, IpAddr::V4(v4)) => Some((u128::from(v4.to_bits()), 32)),
            (Family::Ipv6, IpAddr::V4(v4)) => Some((u128::from(v4.to_bits()), 128)),
            (Family::Ipv6, IpAddr::V6(v6)) => Some((v6.to_bits(), 128)),
            (Family::Ipv4, IpAddr::V6(_)) => None,
        }
    }

    /// Whether `position` is an IPv4 address in a tree of IPv6 addresses.
    fn is_v4_in(&self, position: u128) -> bool {
        self.family == Family::Ipv6 && position >> 32 == 0
    }

    fn add_record(&mut self, record: &Value) -> Result<u32, TooLarge> {
        let mut encoded = Vec::new();
        encode(record, &mut encoded);
        match self.offsets.entry(encoded) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let offset = u32::try_from(self.data.len()).map_err(|_| TooLarge)?;
                self.data.extend(new.key());
                Ok(*new.insert(offset))
            }
        }
    }

    fn insert_prefix(&mut self, prefix: u128, length: u32, bits: u32, leaf: Child) -> Result<(), TooLarge> {
        if length == 0 {
            self.nodes = vec![[leaf; 2]];
            return Ok(());
        }
        let mut node = 0;
        for depth in 0..length {
            let side = (prefix >> (bits - 1 - depth)) as usize & 1;
            if depth + 1 == length {
                self.nodes[node][side] = leaf;
                break;
            }
            node = match self.nodes[node][side] {
                Child::Node(next) => next as usize,
                // A record of a wider prefix is split: both halves keep it, except for the part that is assigned here.
                wider => {
                    let next = u32::try_from(self.nodes.len()).map_err(|_| TooLarge)?;
                    self.nodes.push([wider; 2]);
                    self.nodes[node][side] = Child::Node(next);
                    next as usize
                }
            };
        }
        Ok(())
    }
}

/// The smallest set of prefixes that make up the range, each with its length in bits.
fn prefixes(first: u128, last: u128, bits: u32) -> impl Iterator<Item = (u128, u32)> {
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let start = next?;
        // The largest block that begins here and ends within the range.
        let aligned = start.trailing_zeros().min(bits);
        let room = match (last - start).checked_add(1) {
            Some(count) => count.ilog2(),
            None => 128,
        };
        let block = aligned.min(room);
        let end = if block == 128 { u128::MAX } else { start + ((1 << block) - 1) };
        next = (end < last).then(|| end + 1);
        Some((start, bits - block))
    })
}

fn put_node(file: &mut Vec<u8>, record_size: u16, left: u32, right: u32) {
    let (l, r) = (left.to_be_bytes(), right.to_be_bytes());
    match record_size {
        24 => file.extend([l[1], l[2], l[3], r[1], r[2], r[3]]),
        // The upper four bits of both children share the middle byte.
        28 => file.extend([l[1], l[2], l[3], l[0] << 4 | r[0], r[1], r[2], r[3]]),
        _ => file.extend(l.into_iter().chain(r)),
    }
}

fn metadata(family: Family, nodes: u32, record_size: u16, description: &Description) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let fields = [
        ("binary_format_major_version", Value::Uint16(2)),
        ("binary_format_minor_version", Value::Uint16(0)),
        ("build_epoch", Value::Uint64(description.build_epoch)),
        ("database_type", text(&description.database_type)),
        ("description", Value::Map(vec![("en".to_owned(), text(&description.text))])),
        ("ip_version", Value::Uint16(if family == Family::Ipv4 { 4 } else { 6 })),
        ("languages", Value::List(vec![text("en")])),
        ("node_count", Value::Uint32(nodes)),
        ("record_size", Value::Uint16(record_size)),
    ];
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn encode(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Text(text) => {
            put_control(to, 2, text.len());
            to.extend(text.as_bytes());
        }
        Value::Double(number) => {
            put_control(to, 3, 8);
            to.extend(number.to_be_bytes());
        }
        Value::Uint16(number) => put_uint(to, 5, u64::from(*number)),
        Value::Uint32(number) => put_uint(to, 6, u64::from(*number)),
        Value::Map(fields) => {
            put_control(to, 7, fields.len());
            for (name, value) in fields {
                put_control(to, 2, name.len());
                to.extend(name.as_bytes());
                encode(value, to);
            }
        }
        Value::Uint64(number) => put_uint(to, 9, *number),
        Value::List(values) => {
            put_control(to, 11, values.len());
            for value in values {
                encode(value, to);
            }
        }
        // A boolean stores its value as its size.
        Value::Bool(yes) => put_control(to, 14, usize::from(*yes)),
    }
}

fn put_uint(to: &mut Vec<u8>, kind: u8, number: u64) {
    let bytes = number.to_be_bytes();
    let skipped = number.leading_zeros() as usize / 8;
    put_control(to, kind, bytes.len() - skipped);
    to.extend(&bytes[skipped..]);
}

/// Type and size of the next value. Types above 7 take an additional byte (minus seven), sizes above 28 one to three.
fn put_control(to: &mut Vec<u8>, kind: u8, size: usize) {
    let (size_bits, rest) = match size {
        0..29 => (size as u8, &[][..]),
        29..285 => (29, &[(size - 29) as u8][..]),
        285..65_821 => (30, &((size - 285) as u16).to_be_bytes()[..]),
        // No text or list here reaches 16 MB.
        _ => (31, &((size - 65_821) as u32).to_be_bytes()[1..]),
    };
    if kind <= 7 {
        to.push(kind << 5 | size_bits);
    } else {
        to.extend([size_bits, kind - 7]);
    }
    to.extend(rest);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use maxminddb::Reader;
    use proptest::prelude::*;

    use super::*;

    fn description() -> Description {
        Description { database_type: "Test".to_owned(), text: "For tests.".to_owned(), build_epoch: 1_780_000_000 }
    }

    fn reader(writer: Writer) -> Reader<Vec<u8>> {
        let reader = Reader::from_source(writer.finish(&description()).expect("small")).expect("a file");
        reader.verify().expect("intact");
        reader
    }

    fn number_at(reader: &Reader<Vec<u8>>, address: IpAddr) -> Option<u32> {
        reader.lookup(address).expect("the address has the file's family").decode().expect("a number")
    }

    #[test]
    fn mmdb_values_read_back_unchanged() {
        let record = serde_json::json!({
            "text": "ä".repeat(300), "long": "x".repeat(70_000), "double": -33.87, "list": [1, true, "x"], "empty": {},
            "large": u64::MAX, "zero": 0,
        });
        let mut writer = Writer::new(Family::Ipv6);
        let address = "2001:db8::1".parse().expect("an address");
        assert_eq!(writer.insert(address, address, &Value::from_json(&record).expect("a record")), Ok(true));
        let read: Option<serde_json::Value> = reader(writer).lookup(address).expect("v6").decode().expect("a record");
        assert_eq!(read, Some(record));
    }

    #[test]
    fn narrower_ipv4_range_wins_inside_ipv6() {
        let mut writer = Writer::new(Family::Ipv6);
        let mut insert = |first: &str, last: &str, number| {
            let range = (first.parse().expect("first"), last.parse().expect("last"));
            writer.insert(range.0, range.1, &Value::Uint32(number)).expect("small")
        };
        assert!(insert("10.0.0.0", "10.255.255.255", 1));
        assert!(insert("10.1.2.3", "10.1.2.5", 2));
        assert!(insert("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 3));
        assert!(!insert("10.0.0.9", "10.0.0.1", 4), "out of order");
        assert!(!insert("10.0.0.9", "2001:db8::", 4), "two address families");
        let reader = reader(writer);
        for (address, number) in [
            ("10.0.0.0", Some(1)),
            ("10.1.2.2", Some(1)),
            ("10.1.2.3", Some(2)),
            ("10.1.2.5", Some(2)),
            ("10.1.2.6", Some(1)),
            ("11.0.0.0", None),
            ("2001:db8::7", Some(3)),
            ("2001:db9::", None),
        ] {
            assert_eq!(number_at(&reader, address.parse().expect("an address")), number, "{address}");
        }
    }

    #[test]
    fn whole_address_space_is_one_range() {
        for (family, first, last) in [
            (Family::Ipv4, "0.0.0.0", "255.255.255.255"),
            (Family::Ipv6, "1::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let mut writer = Writer::new(family);
            let range: (IpAddr, IpAddr) = (first.parse().expect("first"), last.parse().expect("last"));
            assert_eq!(writer.insert(range.0, range.1, &Value::Uint32(7)), Ok(true));
            assert_eq!(number_at(&reader(writer), range.1), Some(7));
        }
    }

    proptest! {
        /// Compared with a plain list: the last range that covers an address wins.
        #[test]
        fn look_ups_agree_with_a_list_of_ranges(
            ranges in proptest::collection::vec((0_u32..2000, 0_u32..300), 1..40),
            probes in proptest::collection::vec(0_u32..2500, 50),
        ) {
            let base = u32::from(Ipv4Addr::new(192, 0, 0, 0));
            let mut writer = Writer::new(Family::Ipv4);
            let address = |offset: u32| IpAddr::V4((base + offset).into());
            for (number, (first, length)) in ranges.iter().enumerate() {
                let inserted = writer.insert(address(*first), address(first + length), &Value::Uint32(number as u32));
                prop_assert_eq!(inserted, Ok(true));
            }
            let reader = reader(writer);
            for probe in probes {
                let expected = ranges.iter().rposition(|(first, length)| (*first..=first + length).contains(&probe));
                prop_assert_eq!(number_at(&reader, address(probe)), expected.map(|number| number as u32));
            }
        }
    }
}
