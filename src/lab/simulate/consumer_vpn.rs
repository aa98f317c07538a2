//! The application of a consumer VPN: each session may leave through another country.

use std::net::IpAddr;

use super::connection::those;
use super::label::Label;
use super::networks::{Network, Purpose};
use super::random::Random;
use super::span::Span;
use crate::millis::DAY_MS;

/// The application of a consumer VPN.
#[derive(Debug)]
pub(super) struct ConsumerVpn {
    number: u64,
    /// Networks of exits in the person's country, if there are any, and in other countries.
    near: Vec<usize>,
    far: Vec<usize>,
    /// Share of the sessions over an exit in the person's country.
    stays_near: f64,
    /// Share of the sessions over the VPN.
    share: f64,
    /// Time of the first session over the VPN, if it is in the simulation.
    adopted_at: Option<i64>,
}

impl ConsumerVpn {
    pub(super) fn new(number: u64, country: &str, span: &Span, networks: &[Network], random: &mut Random) -> Self {
        let exits = those(networks, |network| network.purpose == Purpose::Vpn);
        Self {
            number,
            near: exits.iter().copied().filter(|exit| networks[*exit].country == country).collect(),
            far: (0..random.within(3..13)).map(|_| *random.pick(&exits)).collect(),
            stays_near: random.unit(),
            share: random.log_uniform(0.1, 0.9),
            adopted_at: random.chance(0.3).then(|| span.moment(random)),
        }
    }

    /// The exit of a session at `at` and its label, if the session is over the VPN.
    pub(super) fn exit(&self, at: i64, networks: &[Network], random: &mut Random) -> Option<(IpAddr, Label)> {
        if self.adopted_at.is_some_and(|adopted_at| at < adopted_at) || !random.chance(self.share) {
            return None;
        }
        let near = !self.near.is_empty() && random.chance(self.stays_near);
        let exit = *random.pick(if near { &self.near } else { &self.far });
        let is_new = self.adopted_at.is_some_and(|adopted_at| at < adopted_at + 4 * DAY_MS);
        let scenario = if is_new { "vpn_adopted" } else { "consumer_vpn" };
        Some((networks[exit].random_v4(random), Label::honest(scenario, self.number)))
    }
}
