//! A round of `make faults`: a fault and a kill around the events of the round.

use std::os::unix::process::ExitStatusExt as _;

use super::super::outage::{readiness, until_unready};
use super::super::support::proxy::Mode;
use super::super::*;
use super::fault::{Failure, Fault, Receiver};
use super::stage::{Engine, Stage};
use super::{PARTITIONS, PATIENCE};

/// Number of the signal of a kill.
const SIGKILL: i32 = 9;

impl Stage {
    /// Sends the events of the round, and lets the fault and a kill of the member `one` happen, which it returns started
    /// again.
    pub(super) fn round(&mut self, number: u64, fault: Fault, one: Service) -> Service {
        let one = self.begin(fault, one);
        let victim = self.send(number);
        if matches!(fault, Fault::At(_)) {
            self.until_killed(fault, one);
            return self.member(0);
        }
        self.random.pause(2_000);
        self.disturb(fault, one, &victim)
    }

    /// Begins a fault that must be in effect when the events of the round arrive.
    fn begin(&mut self, fault: Fault, one: Service) -> Service {
        match fault {
            Fault::At(step) => {
                one.kill();
                let count = if step.is_repeated() { 1 + self.random.below(3) } else { 1 };
                return self.member_with(0, Some(&format!("{step:?}:{count}")));
            }
            Fault::GeoIp(damage) => self.break_geoip(damage, &one),
            Fault::DiskFull => self.disk.fill(),
            Fault::Of(receiver, failure) => self.fail(receiver, failure),
            _ => {}
        }
        one
    }

    fn fail(&mut self, receiver: Receiver, failure: Failure) {
        let gate = &self.gates[receiver as usize];
        match (failure, receiver) {
            (Failure::Refuses, _) => gate.set(Mode::Refuse),
            (Failure::LosesAnswers, _) => gate.set(Mode::LoseAnswers),
            (Failure::Garbles, _) => gate.set(Mode::Garbage),
            (Failure::Fails, Receiver::Mail) => self.receivers.smtp.reject("451 4.3.0 try again later"),
            (Failure::Fails, Receiver::Revoker) => self.receivers.api.answer(&[500, 503, 429]),
            (Failure::Hangs, Receiver::Mail) => self.receivers.smtp.hold(),
            (Failure::Hangs, Receiver::Revoker) => self.receivers.api.hold(true),
            (Failure::Rejects | Failure::Forbids, Receiver::Mail) => self.receivers.smtp.reject("550 5.7.1 rejected"),
            (Failure::Rejects, Receiver::Revoker) => self.receivers.api.refuse(Some(400)),
            (Failure::Forbids, Receiver::Revoker) => self.receivers.api.refuse(Some(403)),
        }
        gate.cut();
        self.accepted = gate.accepted();
    }

    /// Ends a fault that began with [`Self::fail`].
    fn repair(&self, receiver: Receiver, failure: Failure) {
        self.gates[receiver as usize].set(Mode::Pass);
        match (failure, receiver) {
            (Failure::Fails | Failure::Rejects | Failure::Forbids, Receiver::Mail) => self.receivers.smtp.accept(),
            (Failure::Rejects | Failure::Forbids, Receiver::Revoker) => self.receivers.api.refuse(None),
            (Failure::Hangs, Receiver::Mail) => self.receivers.smtp.answer(),
            (Failure::Hangs, Receiver::Revoker) => self.receivers.api.hold(false),
            _ => {}
        }
    }

    /// Sends further events until the member has killed itself.
    fn until_killed(&mut self, fault: Fault, mut one: Service) {
        let ended = eventually(PATIENCE, "the step is reached", || {
            self.ledger.ordinary(20);
            self.ledger.send(&self.kafka);
            std::thread::sleep(Duration::from_millis(500));
            one.child.try_wait().expect("a child")
        });
        let ended = ended.unwrap_or_else(|| panic!("{fault:?} is not reached\n{}", one.log()));
        assert_eq!(ended.signal(), Some(SIGKILL), "{fault:?}: {ended}\n{}", one.log());
    }

    /// Lets the fault happen around a kill of the member `one`, which it returns started again.
    fn disturb(&mut self, fault: Fault, one: Service, victim: &str) -> Service {
        let hold = Duration::from_millis(1_000 + self.random.below(2_000));
        let mode = match fault {
            Fault::StoreRefuses => Mode::Refuse,
            Fault::StoreDelays => Mode::Delay,
            Fault::AnswersLost => Mode::LoseAnswers,
            _ => Mode::Pass,
        };
        self.proxy.set(mode);
        let mut two = None;
        match fault {
            Fault::None | Fault::StoreDelays | Fault::At(_) => {}
            Fault::StoreRefuses | Fault::StoreCuts | Fault::AnswersLost => self.proxy.cut(),
            Fault::StoreKilled => self.engine.kill(),
            Fault::MemberPaused => {
                one.signal("-STOP");
                std::thread::sleep(Duration::from_millis(7_000 + self.random.below(3_000)));
                one.signal("-CONT");
            }
            Fault::MemberJoins => {
                two = Some(self.member(1));
                self.random.pause(6_000);
            }
            Fault::BrokersRestart => self.kafka.stop(),
            Fault::LeaderKilled => {
                let partition = self.random.below(PARTITIONS as u64) as i32;
                self.kafka.stop_leader(TOPIC, partition);
            }
            Fault::DiskFull => {
                let target = format!("grant-{victim}");
                let is_revoked = || self.receivers.api.accepted().iter().any(|asked| asked.path.ends_with(&target));
                let revoked = eventually(PATIENCE, "the grant is revoked", || is_revoked().then_some(()));
                assert!(revoked.is_some(), "{fault:?}\n{}", one.log());
                until_unready(&one, "outbox_disk: ");
            }
            Fault::Rules(damage) => self.break_rules(damage, &one),
            Fault::GeoIp(_) => {
                self.random.pause(1_500);
                self.restore_geoip(&one);
            }
            Fault::Of(receiver, _) => {
                let gate = &self.gates[receiver as usize];
                let met = eventually(PATIENCE, "the service connects to the receiver", || {
                    (gate.accepted() > self.accepted).then_some(())
                });
                assert!(met.is_some(), "{fault:?}\n{}", one.log());
            }
        }
        self.random.pause(1_500);
        one.kill();
        let mut one = self.member(0);
        if mode != Mode::Pass || matches!(fault, Fault::Of(..) | Fault::LeaderKilled | Fault::DiskFull) {
            std::thread::sleep(hold);
        }
        self.proxy.set(Mode::Pass);
        match fault {
            Fault::Of(receiver, failure) => self.repair(receiver, failure),
            Fault::StoreKilled => self.engine = Engine::start(&self.engine.folder.clone()),
            Fault::BrokersRestart => self.kafka.resume(),
            Fault::LeaderKilled => {
                let has_leaders = || (0..PARTITIONS).all(|partition| self.kafka.leader(TOPIC, partition).is_some());
                let elected = eventually(PATIENCE, "there are new leaders", || has_leaders().then_some(()));
                assert!(elected.is_some(), "{fault:?}");
                self.kafka.resume();
            }
            Fault::DiskFull => {
                self.disk.free();
                let on_disk = || !readiness(&one).is_empty() && !readiness(&one).contains("outbox_disk");
                let recovered = eventually(PATIENCE, "the outbox is on disk", || on_disk().then_some(()));
                assert!(recovered.is_some(), "{fault:?}\n{}", one.log());
            }
            _ => {}
        }
        if let Some(two) = two {
            self.random.pause(3_000);
            if self.random.below(2) == 0 {
                two.kill();
            } else {
                two.terminate();
            }
        }
        // As a supervisor does: the service ends if no broker answers at its start.
        if one.child.try_wait().expect("a child").is_some() {
            one = self.member(0);
        }
        one
    }
}
