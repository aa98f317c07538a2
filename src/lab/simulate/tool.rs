//! Applications on the devices of people.

use crate::millis::HOUR_MS;
use std::sync::Arc;

use super::apps::Taste;
use super::clients::Client;
use super::grant::Grant;
use super::label::News;
use super::random::Random;
use super::record::Call;
use super::repositories::WorkingSet;

/// An application on one of the person's devices.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) grant: Grant,
    pub(super) device: Device,
    pub(super) client: Arc<Client>,
    /// A recent change that makes its use a hard case.
    pub(super) news: Option<News>,
    pub(super) taste: Taste,
    /// Median number of sessions per day.
    pub(super) sessions: f64,
    /// Median number of calls per session.
    pub(super) calls: f64,
    pub(super) busy_until: i64,
    pub(super) objects: u64,
    /// Files in which a developer works, instead of objects.
    pub(super) working_set: Option<WorkingSet>,
    /// Share of the days that end with a logout.
    pub(super) logs_out: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Laptop,
    Phone,
}

impl Tool {
    /// A call to one of the routes and objects that the person likes.
    pub(super) fn make_call(&self, random: &mut Random) -> Call {
        let route = self.taste.choose(self.grant.holder.app, random);
        // People return to the same few objects.
        let object = match &self.working_set {
            Some(files) => files.choose(random),
            None => self.objects + random.pareto(1.0, 0.8).min(3_000.0) as u64,
        };
        Call { route, object, bytes: route.answer_bytes(random) }
    }
}

impl Device {
    /// Local time at which a session begins: mornings and afternoons on a computer, any waking hour on a phone.
    /// `day_begins` is a local hour.
    pub(super) fn session_begins(self, day_begins: f64, random: &mut Random) -> i64 {
        let hour = match (self, random.below(10)) {
            (Self::Laptop, 0..=4) => random.normal(day_begins + 0.8, 0.9),
            (Self::Laptop, 5..=8) => random.normal(day_begins + 5.5, 1.6),
            (Self::Laptop, _) => random.normal(20.0, 1.5),
            (Self::Phone, 0..=2) => random.normal(day_begins - 0.7, 0.6),
            (Self::Phone, _) => day_begins - 1.0 + random.unit() * 15.0,
        };
        (hour.clamp(0.0, 23.9) * HOUR_MS as f64) as i64
    }
}
