//! Encoder of ClickHouse's `RowBinary`: little-endian numbers, texts after their length as LEB128, IPv6 in network
//! order (<https://clickhouse.com/docs/interfaces/formats/RowBinary>). Every function appends to `to` and does not
//! allocate otherwise.

use std::net::Ipv6Addr;

pub(super) fn text(to: &mut Vec<u8>, text: &str) {
    bytes(to, text.as_bytes());
}

/// `None` is written as the empty text.
pub(super) fn optional_text(to: &mut Vec<u8>, value: Option<&str>) {
    text(to, value.unwrap_or_default());
}

/// A `String` of any bytes.
pub(super) fn bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    length(to, bytes.len());
    to.extend_from_slice(bytes);
}

/// The prefix of a text, an array or a map: the number of bytes, elements or pairs.
pub(super) fn length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

pub(super) fn flag(to: &mut Vec<u8>, flag: bool) {
    to.push(u8::from(flag));
}

pub(super) fn u16(to: &mut Vec<u8>, number: u16) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn i32(to: &mut Vec<u8>, number: i32) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn u64(to: &mut Vec<u8>, number: u64) {
    to.extend_from_slice(&number.to_le_bytes());
}

/// `Int64`, and `DateTime64(3)` as milliseconds since the epoch.
pub(super) fn i64(to: &mut Vec<u8>, number: i64) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn f32(to: &mut Vec<u8>, number: f32) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn f64(to: &mut Vec<u8>, number: f64) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn ipv6(to: &mut Vec<u8>, address: Ipv6Addr) {
    to.extend_from_slice(&address.octets());
}

/// A `Nullable`: whether it is NULL, then the value if it is not.
pub(super) fn nullable<T>(to: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    flag(to, value.is_none());
    if let Some(value) = value {
        write(to, value);
    }
}

/// An `Array` whose elements `write` writes.
pub(super) fn array<T>(
    to: &mut Vec<u8>,
    values: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    length(to, values.len());
    for value in values {
        write(to, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_leb128() {
        let encode = |number| {
            let mut to = Vec::new();
            length(&mut to, number);
            to
        };
        assert_eq!(encode(0), [0]);
        assert_eq!(encode(127), [127]);
        assert_eq!(encode(128), [0x80, 1]);
        assert_eq!(encode(624_485), [0xe5, 0x8e, 0x26]);
    }

    #[test]
    fn nullable_is_a_flag_and_the_value() {
        let mut to = Vec::new();
        nullable(&mut to, None, f32);
        nullable(&mut to, Some(1.0), f32);
        assert_eq!(to, [1, 0, 0, 0, 0x80, 0x3f]);
    }
}
