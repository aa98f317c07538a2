//! Vendors of plugins, whose few servers use the tokens of all their users.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Change, Hosts, Machine, Rhythm, Work, any, any_zone};
use crate::lab::simulate::apps::{App, PLUGINS};
use crate::lab::simulate::clients::{Client, LIBRARIES};
use crate::lab::simulate::grant::Owner;
use crate::lab::simulate::label::Label;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::random::Random;
use crate::lab::simulate::record::Subject;
use crate::lab::simulate::span::{Depth, Span};
use crate::millis::HOUR_MS;

/// A vendor of plugins, whose few servers use the tokens of all its users.
#[derive(Debug)]
pub(in crate::lab::simulate) struct Vendor {
    app: &'static App,
    addresses: Vec<IpAddr>,
    client: Arc<Client>,
    /// A change on one day that affects the tokens of all its users.
    change: Option<(i64, Change)>,
}

impl Vendor {
    /// The first `count` vendors.
    pub(crate) fn all(count: usize, span: &Span, networks: &[Network]) -> Vec<Self> {
        let mut random = Random::new(span.seed, 3_000_000);
        let make = |(number, app): (usize, &'static App)| {
            let address = |random: &mut Random| {
                let network = any(&[Purpose::Cloud, Purpose::Rented], networks, random);
                (0..3).map(|_| networks[network].random_v4(random)).collect::<Vec<_>>()
            };
            let addresses = address(&mut random);
            let client = random.pick(LIBRARIES).any_client(&mut random);
            let moved = address(&mut random);
            let at = span.moment(&mut random);
            // Of three vendors, one moves to other servers, one deploys a version, and one does not change.
            let change = match number % 3 {
                0 => Some(Change::Hosts(Hosts::Own(moved), Label::honest("app_migration", number as u64))),
                1 => Some(Change::Deploy(
                    random.pick(LIBRARIES).any_client(&mut random),
                    true,
                    Label::honest("deploy_day", 1_000 + number as u64),
                )),
                _ => None,
            };
            let change = change.filter(|_| span.depth == Depth::Full).map(|change| (at, change));
            Self { app, addresses, client, change }
        };
        PLUGINS.iter().take(count).enumerate().map(make).collect()
    }
}

impl Machine {
    /// One user's grant to a vendor's plugin.
    pub(crate) fn plugin(
        number: u64,
        span: &Span,
        tenant: &'static str,
        vendor: &Vendor,
        networks: &[Network],
    ) -> Self {
        let mut random = Random::new(span.seed, 6_000_000 + number);
        let a_day = match span.depth {
            Depth::Plain => random.log_normal(4.0, 0.6),
            Depth::Full => random.log_normal(3.0, 1.0).min(40.0),
        };
        let hosts = Hosts::Own(vendor.addresses.clone());
        let zone = any_zone(networks, &mut random);
        let user = format!("member-{number}");
        let rhythm = Rhythm::Webhooks { a_day };
        let mut machine = Self::new(
            number,
            random,
            Owner { tenant, subject: Subject::User(user), zone: &zone },
            Work { app: vendor.app, hosts, rhythm, calls: 1.2 },
            span,
        );
        machine.client = Arc::clone(&vendor.client);
        machine.changes.clear();
        if let Some((at, change)) = &vendor.change {
            // Rolled out over some hours.
            let at = at + machine.random.within(0..4 * HOUR_MS);
            machine.changes.push((at, change.clone()));
        }
        machine
    }
}
