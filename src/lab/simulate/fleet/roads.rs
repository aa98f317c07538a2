//! Roads between cities, with the hours that a truck needs.

#[derive(Clone, Copy, Debug)]
pub(super) struct Road {
    pub(super) from: &'static str,
    to: &'static str,
    hours: f64,
}

const fn road(from: &'static str, to: &'static str, hours: f64) -> Road {
    Road { from, to, hours }
}

pub(super) const EUROPE: &[Road] = &[
    road("Berlin", "Hamburg", 4.0),
    road("Berlin", "Munich", 8.0),
    road("Warsaw", "Berlin", 8.0),
    road("Hamburg", "Amsterdam", 7.0),
    road("Stockholm", "Hamburg", 15.0),
    road("Munich", "Hamburg", 10.0),
    road("Munich", "Lyon", 10.0),
    road("Amsterdam", "Paris", 7.0),
    road("Lyon", "Paris", 6.0),
    road("Madrid", "Lyon", 16.0),
    road("Paris", "Madrid", 17.0),
    road("London", "Paris", 9.0),
    road("London", "Manchester", 5.0),
    road("Manchester", "London", 5.0),
];

pub(super) const AMERICA: &[Road] = &[
    road("Toronto", "New York", 10.0),
    road("Toronto", "Chicago", 10.0),
    road("New York", "Chicago", 16.0),
    road("Chicago", "Dallas", 18.0),
    road("Dallas", "San Francisco", 34.0),
    road("San Francisco", "Seattle", 16.0),
    road("Seattle", "Chicago", 40.0),
];

impl Road {
    /// The city at the other end and the hours to it, if the road passes through `city`.
    pub(super) fn leads_from(&self, city: &str) -> Option<(&'static str, f64)> {
        match city {
            _ if city == self.from => Some((self.to, self.hours)),
            _ if city == self.to => Some((self.from, self.hours)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::networks::{Purpose, all};
    use super::*;

    #[test]
    fn roads_lead_to_cities_with_carriers() {
        let networks = all();
        for Road { from, to, .. } in EUROPE.iter().chain(AMERICA) {
            for city in [from, to] {
                assert!(networks.iter().any(|n| n.purpose == Purpose::Mobile && n.city == *city), "{city}");
            }
        }
    }
}
