//! Where a sighting came from: a place on earth and a network, as far as the address tells.

/// ISO 3166-1 alpha-2 code in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// `None` unless `code` is two ASCII letters.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        match code.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    #[must_use]
    pub const fn bytes(self) -> [u8; 2] {
        self.0
    }
}

impl std::fmt::Display for Country {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A point on the WGS 84 ellipsoid with what is known of its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    /// Degrees north, −90 to 90.
    pub latitude: f32,
    /// Degrees east, −180 to 180.
    pub longitude: f32,
    /// Radius within which the client is held to be, kilometres; absent where the file gives none.
    pub accuracy_km: Option<u16>,
}

/// Where the address is.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub country: Country,
    /// Empty where only the country is known.
    pub city: Box<str>,
    pub coordinates: Option<Coordinates>,
}

/// What kind of holder a network has, judged by the words in its name and by lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkClass {
    /// Homes, offices, carriers: people.
    Access,
    /// Clouds and hosting: machines.
    Hosting,
    /// Listed relays and anonymisers: the place says nothing of the client.
    Anonymiser,
}

/// The autonomous system that announces the address.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub asn: u32,
    pub org: Box<str>,
    pub class: NetworkClass,
}
