//! Guesses the format of a message that is not JSON, for the error text.

/// First bytes of formats that have some, and the formats' names.
const MAGIC: &[(&[u8], &str)] = &[
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (&[0xff, 0x06, 0x00, 0x00, b's', b'N', b'a', b'P', b'p', b'Y'], "snappy"),
    (b"\x82SNAPPY\0", "snappy"),
    (b"BZh", "bzip2"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (b"PK\x03\x04", "zip"),
    (&[0x78, 0x01], "zlib"),
    (&[0x78, 0x9c], "zlib"),
    (&[0x78, 0xda], "zlib"),
    (b"Obj\x01", "an Avro file"),
    (b"PAR1", "Parquet"),
    (&[0xff, 0xfe], "UTF-16"),
    (&[0xfe, 0xff], "UTF-16"),
    (b"{\0", "UTF-16"),
    (b"\0{", "UTF-16"),
    // Byte 0, then four bytes of the schema's number (Confluent Schema Registry, "Wire format").
    (&[0], "Avro, Protobuf or JSON behind a schema registry's prefix"),
    (b"CEF:", "CEF"),
    (b"LEEF:", "LEEF"),
];

/// Bytes examined: enough to tell text from binary data.
const LOOK_BYTES: usize = 1024;

/// Names the format of `message`, which is not JSON.
pub(crate) fn of(message: &[u8]) -> &'static str {
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| message.starts_with(magic)) {
        return name;
    }
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message).trim_ascii();
    let head = message.get(..LOOK_BYTES).unwrap_or(message);
    let is_text = match std::str::from_utf8(head) {
        Ok(text) => !text.chars().any(|c| c.is_control() && !c.is_whitespace()),
        // Cut in the middle of a character.
        Err(error) => error.error_len().is_none(),
    };
    match head {
        [b'{' | b'[', ..] => "damaged JSON",
        _ if !is_text => "binary data, such as Protobuf",
        [b'<', b'0'..=b'9', ..] => "syslog",
        [b'<', ..] if begins_html(head) => "HTML",
        [b'<', ..] => "XML",
        _ if head.len() >= 16 && head.iter().all(|&byte| is_base64(byte)) => "base64",
        _ if head.contains(&b'=') && !head.contains(&b',') => "key=value pairs",
        _ if head.contains(&b',') => "CSV",
        _ => "plain text",
    }
}

fn begins_html(text: &[u8]) -> bool {
    ["<!doctype html", "<html"]
        .iter()
        .any(|start| text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes())))
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_names_what_producers_send() {
        for (message, expected) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\0\0\0\0\x07\x02\x10", "Avro, Protobuf or JSON behind a schema registry's prefix"),
            (b"\x0a\x05hello\x12\x03abc\x08\x96\x01", "binary data, such as Protobuf"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b" <html lang=en>", "HTML"),
            (b"<?xml version='1.0'?>", "XML"),
            (b"<134>1 2026-09-21T10:00:00Z host", "syslog"),
            (b"{\"event_id\":\"e\",", "damaged JSON"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"eyJldmVudF9pZCI6ImUifQ==", "base64"),
            (b"event_id=e token_id=t", "key=value pairs"),
            (b"e,2026-09-21,t,192.0.2.1", "CSV"),
            (b"hello world", "plain text"),
            (b"caf\xc3\xa9", "plain text"),
        ] {
            assert_eq!(of(message), expected, "{}", String::from_utf8_lossy(message));
        }
    }
}
