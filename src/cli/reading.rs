//! Reads files of events once, for commands that keep only totals.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::failure::Failure;
use super::terminal::progress_of_bytes;
use crate::pipeline::Group;
use crate::port::{Message, Polled, Source as _};
use crate::source::file::FileSource;

const MESSAGES_MAX: usize = 10_000;
const WAIT: Duration = Duration::from_millis(100);

/// Passes all messages to `take`, in order and in batches. Fails at the first file that cannot be read to its end.
pub(super) fn all_messages(source: &mut FileSource, take: &mut dyn FnMut(&[Message<'_>])) -> Result<(), Failure> {
    let read = source.progress();
    let bar = std::io::stderr().is_terminal().then(|| progress_of_bytes(read.bytes_total()));
    let mut group = Group::default();
    let mut ended = Ok(false);
    while let Ok(false) = ended {
        let polled = source.poll(MESSAGES_MAX, WAIT, &mut |message| group.add(&message, take));
        group.hand_over(take);
        ended = polled.map(|polled| polled == Polled::End);
        if let Some(bar) = &bar {
            bar.set_position(read.bytes_read());
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    ended.map(drop).map_err(Failure::from)
}
