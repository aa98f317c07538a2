//! A simulation as a source of messages. Another thread generates the next day.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::simulate::{Settings, Simulation, Theft};
use crate::checkpoint::Position;
use crate::port::{Message, Origin, Polled, Source, SourceError};

/// Source of simulated events. Calls `P` with the progress after each poll with messages.
pub(crate) struct SimulatedSource<P> {
    days: Receiver<Vec<u8>>,
    today: Vec<u8>,
    /// Bytes of today that were taken.
    read: usize,
    /// Number of the current day, from 1.
    day: u64,
    position: Position,
    report: P,
}

/// Progress of a simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Progress {
    /// Number of the current day, from 1.
    pub(crate) day: u64,
    /// Simulated days whose events were taken; the fraction is the share of the current day.
    pub(crate) days: f64,
    /// Number of events taken.
    pub(crate) events: u64,
}

impl<P: FnMut(Progress)> SimulatedSource<P> {
    /// Starts the generator. Its thread returns the generated thefts.
    pub(crate) fn start(settings: Settings, report: P) -> std::io::Result<(Self, JoinHandle<Vec<Theft>>)> {
        let (sender, days) = mpsc::sync_channel(1);
        let generator =
            std::thread::Builder::new().name("generator".to_owned()).spawn(move || generate(settings, &sender))?;
        let position = Position::new("demo", 0, 0);
        Ok((Self { days, today: Vec::new(), read: 0, day: 0, position, report }, generator))
    }
}

fn generate(settings: Settings, days: &SyncSender<Vec<u8>>) -> Vec<Theft> {
    let mut simulation = Simulation::new(settings);
    loop {
        let mut day = Vec::new();
        // The receiver is dropped only after an error, which the other thread reports.
        if !simulation.next_day(&mut day) || days.send(day).is_err() {
            return simulation.thefts().to_vec();
        }
    }
}

impl<P: FnMut(Progress) + Send> Source for SimulatedSource<P> {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<Polled, SourceError> {
        if max > 0 && self.read == self.today.len() {
            match self.days.recv_timeout(timeout) {
                Ok(day) => (self.today, self.read, self.day) = (day, 0, self.day + 1),
                Err(RecvTimeoutError::Timeout) => return Ok(Polled::Messages(0)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Polled::End),
            }
        }
        let mut count = 0;
        for line in self.today.get(self.read..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n').take(max) {
            self.read += line.len();
            let payload = line.trim_ascii_end();
            take(Message {
                position: &self.position,
                key: None,
                payload,
                logged_at: None,
                replayed: false,
                origin: Origin::Here,
            });
            self.position.offset += 1;
            count += 1;
        }
        let of_today = self.read as f64 / self.today.len().max(1) as f64;
        (self.report)(Progress {
            day: self.day,
            days: self.day.saturating_sub(1) as f64 + of_today,
            events: self.position.offset as u64,
        });
        Ok(Polled::Messages(count))
    }
}
