//! Lengths and texts, as the engine reads them and in saved rows.

/// The prefix of a text: the number of its bytes.
pub(super) fn length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

/// A text with its length.
pub(super) fn put_text(to: &mut Vec<u8>, text: &[u8]) {
    length(to, text.len());
    to.extend_from_slice(text);
}

/// The text at the start of `from`, and the bytes after it.
pub(super) fn take_text(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut at) = (0_usize, 0);
    loop {
        let byte = *from.get(at)?;
        length |= usize::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        at += 1;
        if byte & 0x80 == 0 {
            return from.get(at..)?.split_at_checked(length);
        }
    }
}

/// A number of rows or bytes in saved rows.
pub(super) fn put_size(to: &mut Vec<u8>, size: usize) {
    to.extend_from_slice(&(size as u64).to_le_bytes());
}

pub(super) fn take_size(from: &[u8]) -> Option<(usize, &[u8])> {
    let (size, rest) = from.split_first_chunk()?;
    Some((usize::try_from(u64::from_le_bytes(*size)).ok()?, rest))
}

/// Bytes with their number before them.
pub(super) fn put_sized(to: &mut Vec<u8>, bytes: &[u8]) {
    put_size(to, bytes.len());
    to.extend_from_slice(bytes);
}

pub(super) fn take_sized(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, from) = take_size(from)?;
    from.split_at_checked(size)
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
}
