//! Sessions of a person: where they are, sign-in and sign-out, calls and downloads.

use std::sync::Arc;

use super::{Moment, Person};
use crate::event::Kind;
use crate::lab::simulate::clients::LIBRARIES;
use crate::lab::simulate::grant::Visitor;
use crate::lab::simulate::label::Label;
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::record::{Call, Record};
use crate::lab::simulate::span::Depth;
use crate::lab::simulate::tool::{Device, Tool};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

impl Person {
    /// Downloads everything once, for a report or a migration.
    pub(super) fn export(&mut self, tool: &mut Tool, at: i64, networks: &[Network], out: &mut Vec<Record>) {
        if tool.grant.is_ended() || !self.reachable(at) {
            return;
        }
        let at = at.max(tool.busy_until + 1);
        let local = (at + self.zone.offset_ms(at)).rem_euclid(DAY_MS);
        let visitor = self.visitor(tool, Moment { at, local, works: true, weekday: 0 }, networks);
        let label = Some(Label::honest("honest_export", self.changed << 32 | self.number));
        let visitor = Visitor { label, ..visitor };
        let random = &mut self.random;
        let app = tool.grant.holder.app;
        let (route, calls, pause) = if random.chance(0.4) {
            (app.largest_export(), random.within(1..6), 20_000.0)
        } else {
            (random.pick(app.routes), random.log_uniform(40.0, 900.0) as i64, 1_300.0)
        };
        tool.busy_until = at;
        for n in 0..calls {
            let call = Call { route, object: tool.objects + n as u64, bytes: route.answer_bytes(random) };
            tool.grant.call(tool.busy_until, &visitor, call, random, out);
            tool.busy_until += random.log_normal(pause, 0.7) as i64;
        }
    }

    /// One burst of calls with heavy-tailed gaps. Returns its end.
    pub(super) fn session(
        &mut self,
        tool: &mut Tool,
        moment: Moment,
        networks: &[Network],
        out: &mut Vec<Record>,
    ) -> i64 {
        let calls = 1 + self.random.count(tool.calls * self.activity, 1.0);
        let mut visitor = self.visitor(tool, moment, networks);
        let mut at = moment.at;
        if tool.grant.is_ended() {
            at = self.come_back(tool, at, &visitor, out);
        } else if self.signs_in_on_trip(tool, at) {
            let label = Label::honest("travel_login", at as u64 ^ self.number << 44);
            tool.grant.begin_anew(at, Some(label), &mut self.random, out);
            visitor.label = Some(label);
            at += self.random.within(80..900);
        }
        for call in 0..calls {
            if call > 0 {
                at += (self.random.pareto(1.4, 0.85).min(1_100.0) * 1_000.0) as i64;
                if tool.device == Device::Phone && self.random.chance(0.015) {
                    // The device leaves or reaches the wireless network.
                    visitor = self.visitor(tool, Moment { at, ..moment }, networks);
                }
            }
            let call = tool.make_call(&mut self.random);
            tool.grant.call(at, &visitor, call, &mut self.random, out);
        }
        at
    }

    /// The client learns that its grant has ended, and the user logs in again. Returns the time of the login.
    fn come_back(&mut self, tool: &mut Tool, at: i64, visitor: &Visitor, out: &mut Vec<Record>) -> i64 {
        let random = &mut self.random;
        let stale = Label::honest("stale_client", at as u64 ^ self.number << 44);
        let mut at = at;
        if tool.grant.was_revoked() {
            for _ in 0..random.within(1..4) {
                let call = tool.make_call(random);
                out.push(tool.grant.stale_call(at, 401, stale, visitor, call));
                at += random.within(40..2_500);
            }
            out.extend(tool.grant.stale_refresh(at, stale, visitor));
        }
        at += random.log_normal(15_000.0, 0.6) as i64;
        let label = Label::honest("new_login", at as u64 ^ self.number << 44);
        tool.grant.begin_anew(at, Some(label), random, out);
        if tool.news.is_none_or(|news| news.until < at) {
            tool.news = Some(label.until(at + 20 * MINUTE_MS));
        }
        at + random.within(80..900)
    }

    /// Logs out. A request may still be in transit, and another window may try for a while.
    pub(super) fn log_out(&mut self, tool: &mut Tool, moment: Moment, networks: &[Network], out: &mut Vec<Record>) {
        let visitor = self.visitor(tool, moment, networks);
        let random = &mut self.random;
        let at = moment.at;
        tool.grant.end(at, Kind::SessionEnded, out);
        let instance = at as u64 ^ self.number << 44;
        if random.chance(0.3) {
            let call = tool.make_call(random);
            let label = Label::honest("in_flight", instance);
            out.push(tool.grant.stale_call(at + random.within(30..9_000), 200, label, &visitor, call));
        }
        if random.chance(0.25) {
            let mut tried_at = at + 10_000;
            for _ in 0..random.within(1..6) {
                tried_at += random.log_normal(4.0 * MINUTE_MS as f64, 1.3) as i64;
                let call = tool.make_call(random);
                let label = Label::honest("stale_client", instance);
                out.push(tool.grant.stale_call(tried_at, 401, label, &visitor, call));
            }
        }
    }

    fn visitor(&mut self, tool: &Tool, moment: Moment, networks: &[Network]) -> Visitor {
        let Moment { at, local, works, weekday } = moment;
        let random = &mut self.random;
        let at_work = works && (self.begins..self.begins + 8.5).contains(&(local as f64 / HOUR_MS as f64));
        let in_office = at_work && self.office_days & (1 << weekday) != 0;
        let trip = self.trips.iter_mut().find(|trip| (trip.leaves..trip.returns).contains(&at));
        let wireless = random.chance(if tool.device == Device::Laptop { 1.0 } else { 0.55 });
        let line = match (trip, &mut self.office, &mut self.vpn) {
            (Some(trip), ..) if wireless => &mut trip.hotel,
            (Some(trip), ..) => &mut trip.roaming,
            (_, _, Some((vpn, share))) if tool.device == Device::Laptop && !in_office && random.chance(*share) => vpn,
            (_, Some(office), _) if in_office && wireless => office,
            _ if wireless => &mut self.home,
            _ => &mut self.phone,
        };
        let (mut address, mut of_line) = (line.address(networks, at, random), line.news);
        if let Some((exit, label)) = self.consumer_vpn.as_ref().and_then(|vpn| vpn.exit(at, networks, random)) {
            (address, of_line) = (exit, Some(label.until(i64::MAX)));
        }
        let hop = (self.depth == Depth::Full && tool.device == Device::Phone)
            .then(|| (if wireless { &mut self.phone } else { &mut self.home }).address(networks, at, random));
        // Holders of a long-lived secret sometimes use it in a script.
        let by_script = tool.grant.holder.family.is_none() && random.chance(0.06);
        let client = if by_script { random.pick(LIBRARIES).any_client(random) } else { Arc::clone(&tool.client) };
        let of_night =
            self.night.filter(|(night, _)| (*night - DAY_MS..*night + DAY_MS).contains(&at) && local < 5 * HOUR_MS);
        let label = [of_line, tool.news].into_iter().flatten().find_map(|news| news.at(at));
        let label = label.or(of_night.map(|(_, label)| label));
        let label = label.or_else(|| by_script.then(|| Label::honest("script", at as u64 ^ self.number << 44)));
        Visitor { address, hop, client, label }
    }
}
