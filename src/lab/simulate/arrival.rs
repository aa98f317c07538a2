//! Order in which events arrive: nearly in order, some late, a few twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::label::{Label, LabelBook};
use super::random::Random;
use super::record::Record;
use super::span::Depth;
use crate::event::Kind;
use crate::millis::HOUR_MS;

/// Events in transit, and those that will be delivered again.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// One stream per source of events, so that the delays of one source do not depend on the others.
    random: Vec<Random>,
    /// If false, each event arrives once and at its own time.
    untidy: bool,
    troubles: Vec<Trouble>,
    pending: BinaryHeap<Reverse<Pending>>,
    admitted: u64,
    written: u64,
    book: LabelBook,
}

/// A period in which the logs of one application's servers are faulty.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(crate) app: &'static str,
    pub(crate) from: i64,
    pub(crate) until: i64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Events were held back and then arrived together.
    HeldBack,
    /// The servers' clock was ahead by this number of milliseconds; that of the token endpoint was right.
    ClockAhead(i64),
}

#[derive(Debug)]
struct Pending {
    arrives: i64,
    admitted: u64,
    source: usize,
    /// Number of the event that is delivered again.
    again: Option<u64>,
    record: Record,
}

/// One event at its delivery.
pub(super) struct Written<'a> {
    pub(crate) record: &'a Record,
    pub(crate) event_id: String,
}

impl Arrivals {
    /// `sources`: number of sources of events.
    pub(crate) fn new(seed: u64, sources: usize, depth: Depth, troubles: Vec<Trouble>) -> Self {
        let stream = |source| 8_000_000 + 100 * source as u64;
        Self {
            random: (0..sources).map(|source| Random::new(seed, stream(source))).collect(),
            untidy: depth == Depth::Full,
            troubles,
            pending: BinaryHeap::new(),
            admitted: 0,
            written: 0,
            book: LabelBook::default(),
        }
    }

    pub(crate) fn admit(&mut self, source: usize, mut record: Record) {
        let mut arrives = record.at;
        if self.untidy {
            arrives += self.delay(source, &mut record);
        }
        self.admitted += 1;
        self.pending.push(Reverse(Pending { arrives, admitted: self.admitted, source, again: None, record }));
    }

    /// Writes what arrives before `until`: events to `out`, their labels to `labels`.
    pub(crate) fn write_before(
        &mut self,
        until: i64,
        out: &mut Vec<u8>,
        labels: &mut Vec<u8>,
        mut seen: impl FnMut(&Written<'_>),
    ) {
        while self.pending.peek().is_some_and(|Reverse(pending)| pending.arrives < until) {
            let Some(Reverse(mut pending)) = self.pending.pop() else { return };
            let number = pending.again.unwrap_or(self.written + 1);
            self.written += 1;
            let event_id = format!("e{number:08}");
            pending.record.write(&event_id, out);
            if let Some(label) = pending.record.label
                && pending.again.is_none()
            {
                self.book.write(label, &event_id, labels);
            }
            seen(&Written { record: &pending.record, event_id });
            // A producer that receives no acknowledgement sends the event again.
            if self.untidy && pending.again.is_none() && self.random[pending.source].chance(0.001) {
                pending.arrives += self.random[pending.source].log_normal(4_000.0, 1.5) as i64 + 50;
                pending.again = Some(number);
                self.pending.push(Reverse(pending));
            }
        }
    }

    /// Milliseconds from an event's time to its arrival: some hundred, rarely minutes, plus the delay of an outage.
    fn delay(&mut self, source: usize, record: &mut Record) -> i64 {
        let random = &mut self.random[source];
        let mut delay = random.log_normal(300.0, 0.9) as i64;
        let about = |trouble: &&Trouble| {
            trouble.app == record.holder.app.id && (trouble.from..trouble.until).contains(&record.at)
        };
        let trouble = self.troubles.iter().find(about);
        let scenario = if let Some(Trouble { from, until, what, .. }) = trouble {
            match *what {
                What::HeldBack => {
                    delay += until - record.at;
                    Some(("held_back", *from as u64))
                }
                What::ClockAhead(by) if record.kind == Kind::Use => {
                    record.at += by;
                    Some(("clock_ahead", *from as u64))
                }
                What::ClockAhead(_) => None,
            }
        } else if random.chance(0.002) {
            delay += random.log_normal(150_000.0, 1.3).min(4.0 * HOUR_MS as f64) as i64;
            Some(("late_event", self.admitted))
        } else {
            None
        };
        if record.label.is_none() {
            record.label = scenario.map(|(scenario, instance)| Label::honest(scenario, instance));
        }
        delay
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrives, self.admitted).cmp(&(other.arrives, other.admitted))
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pending {}
