//! A snapshot that a thread writes, so that the caller does not wait for the storage.

use std::io::{self, ErrorKind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::snapshots::SnapshotWriter;
use crate::snapshot::Marker;

/// Records that wait for the storage.
const WAITING_MAX: usize = 8;
/// Maximum time that all records of a snapshot together wait for the storage. Then the snapshot fails, so that the caller
/// can go on.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Interval in which room for a record is looked for.
const LOOK_WAIT: Duration = Duration::from_millis(1);

/// What the thread receives.
pub(crate) enum Received {
    Record(Vec<u8>),
    /// The last one.
    End(Box<Marker>),
    /// Nothing was written for a while.
    Nothing,
}

/// The records and the marker of a snapshot.
pub(crate) struct Incoming(Receiver<Received>);

impl Incoming {
    /// Waits for the next record, at most `wait`. Fails if the snapshot is discarded.
    pub(crate) fn next(&self, wait: Duration) -> io::Result<Received> {
        match self.0.recv_timeout(wait) {
            Ok(next) => Ok(next),
            Err(RecvTimeoutError::Timeout) => Ok(Received::Nothing),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the snapshot was discarded")),
        }
    }
}

/// Starts `work` on a thread. It must end with an error if [`Incoming::next`] fails, and otherwise with the size of the
/// snapshot in the storage.
pub(crate) fn in_background(
    work: impl FnOnce(&Incoming) -> io::Result<u64> + Send + 'static,
) -> io::Result<Box<dyn SnapshotWriter>> {
    let (sender, waiting) = mpsc::sync_channel(WAITING_MAX);
    let thread = std::thread::Builder::new().name("snapshot".to_owned());
    let thread = thread.spawn(move || work(&Incoming(waiting)))?;
    Ok(Box::new(Background { sender, waited: Duration::ZERO, thread: Some(thread) }))
}

struct Background {
    sender: SyncSender<Received>,
    /// Time that records have waited for the storage.
    waited: Duration,
    /// `None` after its failure was reported.
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl Background {
    /// Why the thread has ended too early.
    fn failure(&mut self) -> io::Error {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            _ => io::Error::other("the thread that writes the snapshot has ended"),
        }
    }
}

impl SnapshotWriter for Background {
    fn write(&mut self, record: Vec<u8>) -> io::Result<()> {
        let mut next = Received::Record(record);
        loop {
            match self.sender.try_send(next) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(self.failure()),
                Err(TrySendError::Full(_)) if self.waited >= WAIT_MAX => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "the storage is too slow"));
                }
                Err(TrySendError::Full(full)) => next = full,
            }
            std::thread::sleep(LOOK_WAIT);
            self.waited += LOOK_WAIT;
        }
    }

    fn finish(mut self: Box<Self>, marker: Marker) -> JoinHandle<io::Result<u64>> {
        std::thread::spawn(move || {
            // Waits for room. If the thread has failed, its result is the reason.
            let _ = self.sender.send(Received::End(Box::new(marker)));
            match self.thread.take().map(JoinHandle::join) {
                Some(Ok(result)) => result,
                _ => Err(self.failure()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_waits_for_a_slow_storage_on_a_thread() {
        let (storage, ready) = mpsc::channel::<()>();
        let mut writer = in_background(move |incoming| {
            ready.recv().map_err(io::Error::other)?;
            let mut records = 0;
            loop {
                match incoming.next(WAIT_MAX)? {
                    Received::Record(_) => records += 1,
                    Received::End(_) => return Ok(records),
                    Received::Nothing => {}
                }
            }
        })
        .expect("a thread");
        for _ in 0..WAITING_MAX {
            writer.write(Vec::new()).expect("there is room");
        }
        // There is no room for the end of the snapshot, and the storage is released only after this call.
        let end = writer.finish(Marker::default());
        storage.send(()).expect("the storage waits");
        assert_eq!(end.join().expect("no panic").ok(), Some(WAITING_MAX as u64));
    }

    #[test]
    fn slow_storage_fails_snapshot_within_total_time() {
        let (released, release) = mpsc::channel::<()>();
        let mut writer = in_background(move |incoming| {
            // Each record takes less than the limit.
            while release.recv_timeout(WAIT_MAX / 4).is_err() {
                incoming.next(WAIT_MAX)?;
            }
            Ok(0)
        })
        .expect("a thread");
        let error = std::iter::repeat_with(|| writer.write(Vec::new()).err()).flatten().next();
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::TimedOut));
        drop(released);
    }

    #[test]
    fn failure_of_the_storage_is_the_error_of_the_writer() {
        let mut writer = in_background(|incoming| {
            incoming.next(WAIT_MAX)?;
            Err(ErrorKind::StorageFull.into())
        })
        .expect("a thread");
        let mut error = None;
        while error.is_none() {
            error = writer.write(Vec::new()).err();
        }
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::StorageFull));
        let result = writer.finish(Marker::default()).join().expect("no panic");
        assert!(result.is_err(), "the failure is not forgotten");
        let writer = in_background(|_| Err(ErrorKind::StorageFull.into())).expect("a thread");
        let result = writer.finish(Marker::default()).join().expect("no panic");
        assert_eq!(result.map_err(|error| error.kind()), Err(ErrorKind::StorageFull));
    }
}
