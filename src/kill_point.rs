//! Steps of the work at which tests kill the process. Without the feature `full-tests`, [`reach`] does nothing.

/// A step, named by the effect before or after which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    BeforeOutbox,
    InOutbox,
    AfterOutbox,
    InRewrite,
    BeforeInsert,
    BetweenInserts,
    AfterInsert,
    BeforeCommit,
    AfterCommit,
    InSnapshot,
    InTransaction,
    BeforeTransactionEnd,
    AfterTransaction,
    AfterRestoration,
    BeforeRevocation,
    AfterRevocation,
    BeforeAlert,
    AfterAlert,
    AfterActionRows,
}

impl Step {
    /// Each step, and what the process has just done there.
    pub const ALL: [(Self, &str); 19] = [
        (Self::BeforeOutbox, "incidents are found; they are not in the outbox"),
        (Self::InOutbox, "lines are written to the outbox and not synchronized"),
        (Self::AfterOutbox, "incidents are in the outbox; their rows are not stored"),
        (Self::InRewrite, "a new file of the outbox is written; the old one has the name"),
        (Self::BeforeInsert, "rows are sealed; no insert has begun"),
        (Self::BetweenInserts, "`token_events` has the rows; the other tables do not"),
        (Self::AfterInsert, "ClickHouse has all rows; the worker does not have the answer"),
        (Self::BeforeCommit, "the worker has the answer of ClickHouse; the offsets are not committed"),
        (Self::AfterCommit, "the commit of offsets is sent"),
        (Self::InSnapshot, "a state is handed to the thread of snapshots"),
        (Self::InTransaction, "the records of a snapshot are sent in an open transaction"),
        (Self::BeforeTransactionEnd, "the marker of a snapshot is sent; its transaction is open"),
        (Self::AfterTransaction, "the transaction of a snapshot is committed; the worker does not have the answer"),
        (Self::AfterRestoration, "a state is restored; no message has been read"),
        (Self::BeforeRevocation, "the request of a revocation is counted in the outbox; it is not sent"),
        (Self::AfterRevocation, "the provider has answered a revocation; the outbox does not have the answer"),
        (Self::BeforeAlert, "an alert is due; it is not sent"),
        (Self::AfterAlert, "a channel has accepted an alert; the outbox does not have the answer"),
        (Self::AfterActionRows, "`actions` has rows that the outbox still has"),
    ];

    /// Whether a process reaches the step again and again while events arrive. The others need an incident or a start.
    pub const fn is_repeated(self) -> bool {
        matches!(
            self,
            Self::BeforeInsert
                | Self::BetweenInserts
                | Self::AfterInsert
                | Self::BeforeCommit
                | Self::AfterCommit
                | Self::InSnapshot
                | Self::InTransaction
                | Self::BeforeTransactionEnd
                | Self::AfterTransaction
        )
    }
}

#[cfg(not(feature = "full-tests"))]
pub(crate) const fn reach(_: Step) {}

#[cfg(feature = "full-tests")]
pub use armed::VARIABLE;
#[cfg(feature = "full-tests")]
pub(crate) use armed::reach;

#[cfg(feature = "full-tests")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Step;

    /// `STEP:COUNT`: the process kills itself when it reaches the step for the COUNT-th time.
    pub const VARIABLE: &str = "TOKENWARDEN_KILL_AT";

    /// The step, and how often it is still passed.
    #[expect(clippy::disallowed_methods, reason = "it is no setting of the service, and only test builds read it")]
    static ARMED: LazyLock<Option<(Step, AtomicU32)>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':')?;
        let (step, _) = Step::ALL.into_iter().find(|(step, _)| format!("{step:?}") == name)?;
        Some((step, AtomicU32::new(count.parse().ok()?)))
    });

    pub(crate) fn reach(step: Step) {
        let Some((armed, left)) = &*ARMED else { return };
        // Below 1, the counter would begin anew.
        if *armed == step && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}
