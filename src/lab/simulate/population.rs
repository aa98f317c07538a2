//! Populations beside the companies, each in tenants of its own and with thefts of its own.

use super::actor::Actor;
use super::fleet::Device;
use super::machine::Machine;
use super::networks::Network;
use super::person::Person;
use super::settings::{Others, Settings};
use super::span::Span;
use super::theft::Planter;
use super::theft::kind::Group;

/// All holders of one kind.
pub(super) struct Population {
    pub(super) actors: Vec<Box<dyn Actor>>,
    pub(super) planter: Planter,
}

/// The populations of which the settings have members.
pub(super) fn all(settings: &Settings, span: &Span, networks: &[Network]) -> Vec<Population> {
    let Others { service_clients, devices, aggregator_users, vpn_people, account_holders, developers } =
        settings.others;
    let populations = [
        (Group::ServiceClients, boxed(Machine::service_clients(service_clients, span, networks))),
        (Group::Fleets, boxed(Device::all(devices, span, networks))),
        (Group::Aggregators, boxed(Machine::aggregated(aggregator_users, span, networks))),
        (Group::VpnPeople, boxed(Person::vpn_people(vpn_people, span, networks))),
        (Group::AccountHolders, boxed(Person::account_holders(account_holders, span, networks))),
        (Group::Developers, boxed(Person::developers(developers, span, networks))),
    ];
    populations
        .into_iter()
        .filter(|(_, actors)| !actors.is_empty())
        .map(|(group, actors)| Population { actors, planter: Planter::new(span.seed, group, settings) })
        .collect()
}

fn boxed<A: Actor + 'static>(actors: impl IntoIterator<Item = A>) -> Vec<Box<dyn Actor>> {
    actors.into_iter().map(|actor| Box::new(actor) as Box<dyn Actor>).collect()
}
