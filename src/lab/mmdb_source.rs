//! Input of [`mmdb_writer`](super::mmdb_writer): tables of networks in CSV, as registries' data are published, and
//! small descriptions in JSON.

use std::io::{self, BufRead};
use std::net::IpAddr;

use serde::Deserialize;

use super::mmdb_writer::{Description, Family, TooLarge, Value, Writer};

/// Why no file can be built. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: &'static str },
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("network {network:?}: {reason}")]
    Network { network: String, reason: &'static str },
    #[error("contains no networks")]
    Empty,
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Reads CSV lines into records of MaxMind's ASN schema: `first address, last address, AS number, name of its holder`
/// (RFC 4180, without a header). All lines are of one address family. Networks without a holder (AS 0) are left out.
pub(crate) fn asn_csv(source: impl BufRead) -> Result<Writer, SourceError> {
    let mut writer = None;
    for (number, text) in source.lines().enumerate() {
        let line = number + 1;
        let wrong = |reason| SourceError::Line { line, reason };
        let text = text?;
        let fields = csv_fields(&text).ok_or_else(|| wrong("a quoted field is not closed"))?;
        let [first, last, asn, org] = fields.as_slice() else {
            return Err(wrong("expected four fields: first address, last address, AS number, name"));
        };
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| wrong("the first two fields must be addresses"));
        let (first, last) = (address(first)?, address(last)?);
        let asn = asn.parse().map_err(|_| wrong("the third field must be an AS number"))?;
        if asn == 0 {
            continue;
        }
        let family = if first.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let record = Value::Map(vec![
            ("autonomous_system_number".to_owned(), Value::Uint32(asn)),
            ("autonomous_system_organization".to_owned(), Value::Text(org.clone())),
        ]);
        if !writer.get_or_insert_with(|| Writer::new(family)).insert(first, last, &record)? {
            return Err(wrong("the addresses must be in order and of one address family"));
        }
    }
    writer.ok_or(SourceError::Empty)
}

/// The fields of one line; `None` if a quote is not closed.
fn csv_fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            // Inside quotes, two quotes stand for one.
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

/// A file described in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFile {
    database_type: String,
    description: String,
    build_epoch: u64,
    ip_version: u8,
    /// Prefix and record. If two prefixes overlap, the later one takes precedence.
    networks: Vec<(String, serde_json::Value)>,
}

/// Reads a whole file as JSON: `{database_type, description, build_epoch, ip_version, networks: [[PREFIX, RECORD],
/// …]}`.
pub fn json(text: &str) -> Result<(Writer, Description), SourceError> {
    let file: JsonFile = serde_json::from_str(text)?;
    let mut writer = Writer::new(if file.ip_version == 4 { Family::Ipv4 } else { Family::Ipv6 });
    for (network, record) in file.networks {
        let wrong = |reason| SourceError::Network { network: network.clone(), reason };
        let (first, last) = range_of(&network).ok_or_else(|| wrong("is not a prefix such as 192.0.2.0/24"))?;
        let record = Value::from_json(&record).ok_or_else(|| wrong("contains null in its record"))?;
        if !writer.insert(first, last, &record)? {
            return Err(wrong("is not of the file's address family"));
        }
    }
    let description =
        Description { database_type: file.database_type, text: file.description, build_epoch: file.build_epoch };
    Ok((writer, description))
}

/// First and last address of a prefix.
fn range_of(prefix: &str) -> Option<(IpAddr, IpAddr)> {
    let (address, length) = prefix.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    Some(match address.parse().ok()? {
        IpAddr::V4(v4) if length <= 32 => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            (IpAddr::V4((v4.to_bits() & !host).into()), IpAddr::V4((v4.to_bits() | host).into()))
        }
        IpAddr::V6(v6) if length <= 128 => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            (IpAddr::V6((v6.to_bits() & !host).into()), IpAddr::V6((v6.to_bits() | host).into()))
        }
        _ => return None,
    })
}

impl Value {
    /// Whole numbers become unsigned integers of the smallest width, other numbers doubles. `None` if the value
    /// contains null, which the format cannot store.
    pub(crate) fn from_json(json: &serde_json::Value) -> Option<Self> {
        Some(match json {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(yes) => Self::Bool(*yes),
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(values) => Self::List(values.iter().map(Self::from_json).collect::<Option<_>>()?),
            serde_json::Value::Object(fields) => Self::Map(
                fields
                    .iter()
                    .map(|(name, value)| Some((name.clone(), Self::from_json(value)?)))
                    .collect::<Option<_>>()?,
            ),
            serde_json::Value::Number(number) => match number.as_u64() {
                Some(whole) => u32::try_from(whole).map_or(Self::Uint64(whole), Self::Uint32),
                None => Self::Double(number.as_f64()?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_may_contain_commas_and_quotes() {
        let fields = csv_fields("1.0.0.0,1.0.0.255,13335,\"Cloudflare, \"\"Inc.\"\"\"\r").expect("closed");
        assert_eq!(fields, ["1.0.0.0", "1.0.0.255", "13335", "Cloudflare, \"Inc.\""]);
        assert_eq!(csv_fields("a,\"b"), None);
    }

    #[test]
    fn asn_csv_errors_contain_the_line() {
        for (source, message) in [
            ("", "contains no networks"),
            ("192.0.2.0,192.0.2.255,64496", "line 1: expected four fields"),
            ("192.0.2.0,192.0.2.255,64496,A\nx,y,1,B", "line 2: the first two fields"),
            ("192.0.2.0,192.0.2.255,AS64496,A", "line 1: the third field"),
            ("192.0.2.9,192.0.2.0,64496,A", "line 1: the addresses must be in order"),
            ("192.0.2.0,192.0.2.255,64496,A\n2001:db8::,2001:db8::1,64496,A", "line 2: the addresses must be"),
        ] {
            let error = asn_csv(source.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(message), "{source}: {error}");
        }
    }
}
