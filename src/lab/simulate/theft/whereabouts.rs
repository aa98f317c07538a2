//! Network of a thief relative to the owner: abroad, behind a VPN, in homes of the country, or next door.

use super::Planter;
use crate::lab::simulate::networks::{Network, Purpose, continent};
use crate::lab::simulate::record::Record;
use crate::lab::simulate::span::Depth;
use crate::lab::simulate::thief::{Thief, network_of};

impl Planter {
    pub(super) fn anywhere(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        match self.random.below(4) {
            0 => self.foreigner(owned, networks),
            1 => self.same_country_vpn(owned, networks),
            2 => self.residential_proxy(owned, networks),
            _ => self.compatriot(owned, networks),
        }
    }

    pub(super) fn foreigner(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let (country, home) = (own.country, continent(own.country));
        let near = self.depth == Depth::Full && self.random.chance(0.4);
        self.far_thief(owned, networks, |network| {
            let far = continent(network.country) != home || near && network.country != country;
            far && match network.purpose {
                Purpose::Abroad | Purpose::Rented => true,
                Purpose::Vpn | Purpose::Cloud => near,
                _ => false,
            }
        })
    }

    pub(super) fn same_country_vpn(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        self.far_thief(owned, networks, |network| {
            network.country == own.country && matches!(network.purpose, Purpose::Vpn | Purpose::Rented)
        })
    }

    pub(super) fn residential_proxy(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let mut thief = self.far_thief(owned, networks, |network| {
            network.country == own.country && network.purpose == Purpose::Home && network.asn != own.asn
        })?;
        thief.moves = self.random.log_uniform(0.01, 0.7);
        thief.exits = networks
            .iter()
            .enumerate()
            .filter(|(_, network)| network.country == own.country && network.purpose == Purpose::Home)
            .map(|(number, _)| number)
            .collect();
        Some(thief)
    }

    /// In the owner's country, on another provider's network.
    pub(super) fn compatriot(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        self.far_thief(owned, networks, |network| {
            matches!(network.purpose, Purpose::Home | Purpose::Vpn | Purpose::Rented)
                && network.country == own.country
                && network.asn != own.asn
        })
    }

    /// Behind a consumer VPN, in the country of the owner's address or in another one.
    pub(super) fn behind_a_vpn(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let near = self.random.chance(0.4);
        self.far_thief(owned, networks, |network| {
            network.purpose == Purpose::Vpn && (!near || network.country == own.country)
        })
    }

    pub(super) fn neighbour(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        self.far_thief(owned, networks, |network| network.asn == own.asn && network.country == own.country)
    }

    /// Behind the owner's own address, or another one of the same provider in the same city.
    pub(super) fn insider(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let near = self.random.chance(0.4);
        let mut thief =
            self.far_thief(owned, networks, |network| network.asn == own.asn && network.city == own.city)?;
        if !near {
            thief.address = owned.sighting.as_ref()?.address;
        }
        Some(thief)
    }

    /// The same application on another carrier of the country, sometimes on the owner's own.
    pub(super) fn other_phone(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let elsewhere = self.random.chance(0.8);
        let suits = |network: &Network| {
            network.purpose == Purpose::Mobile
                && network.country == own.country
                && (!elsewhere || network.asn != own.asn)
        };
        let mut thief = self.far_thief(owned, networks, suits)?;
        thief.client = Thief::phone(owned, &mut self.random)?;
        thief.moves = self.random.log_uniform(0.01, 0.3);
        let exits = networks.iter().enumerate().filter(|(_, network)| suits(network));
        thief.exits = exits.map(|(number, _)| number).collect();
        Some(thief)
    }

    pub(super) fn far_thief(
        &mut self,
        owned: &Record,
        networks: &[Network],
        suits: impl Fn(&Network) -> bool,
    ) -> Option<Thief> {
        Thief::new(owned, networks, suits, self.depth, &mut self.random)
    }
}
