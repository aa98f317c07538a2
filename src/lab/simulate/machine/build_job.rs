//! Build jobs on hosted runners.

use super::{Change, Hosts, Machine, Rhythm, Work, all_of, any_zone};
use crate::lab::simulate::apps::DEPLOY;
use crate::lab::simulate::clients::LIBRARIES;
use crate::lab::simulate::grant::Owner;
use crate::lab::simulate::label::Label;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::random::Random;
use crate::lab::simulate::record::Subject;
use crate::lab::simulate::span::{Depth, Span};
use crate::millis::HOUR_MS;

impl Machine {
    pub(crate) fn build_job(number: u64, span: &Span, tenant: &'static str, networks: &[Network]) -> Self {
        let mut random = Random::new(span.seed, 5_000_000 + number);
        let runners: Vec<usize> = all_of(Purpose::Ci, networks);
        // Before a larger pool is opened, jobs run in a part of it.
        let deep = span.depth == Depth::Full;
        let first = if deep { vec![*random.pick(&runners)] } else { runners.clone() };
        let rhythm = if random.chance(0.75) {
            let a_day = random.log_normal(4.0, 0.5);
            Rhythm::Pushes { a_day }
        } else {
            Rhythm::Daily { at_ms: random.within(0..5) * HOUR_MS, local: false }
        };
        let user = format!("ci-{}-{number}", random.pick(&["web", "api", "mobile", "infra", "docs"]));
        let zone = any_zone(networks, &mut random);
        let hosts = Hosts::Runners(first);
        let mut machine = Self::new(
            number,
            random,
            Owner { tenant, subject: Subject::User(user), zone: &zone },
            Work { app: &DEPLOY, hosts, rhythm, calls: 4.0 },
            span,
        );
        let random = &mut machine.random;
        let mut changes = Vec::new();
        let more = Change::Hosts(Hosts::Runners(runners), Label::honest("runner_pool", number));
        changes.extend(span.happens(0.5, random).map(|at| (at, more)));
        changes.extend(span.happens(0.08, random).map(|at| (at, Change::NewSecret)));
        let client = random.pick(LIBRARIES).any_client(random);
        let deploy = Change::Deploy(client, true, Label::honest("new_task", 5_000_000 + number));
        changes.extend(span.happens(0.2, random).map(|at| (at, deploy)));
        machine.plan(changes);
        machine
    }
}
