//! Conditions that the health checks report.

/// Reason why the service is not ready, or does not do all that it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The worker has not polled its source yet.
    Starting,
    /// The worker has stopped polling its source.
    Hung,
    /// The consumer group has assigned nothing to this member yet, not even an empty set of partitions.
    NoPartitions,
    /// The snapshot of a partition's state cannot be read. Its messages wait.
    StateUnavailable,
    /// Baselines are being rebuilt from messages that were committed before.
    Rebuilding,
    /// Messages are not forwarded to the partitions of their subjects.
    Forwarder,
    /// A source topic does not exist, or cannot be read.
    SourceTopic,
    /// No Kafka broker has answered for 15 s.
    Broker,
    /// The last offset commit failed.
    Commit,
    /// A committed offset lies outside the log, and no valid one has been committed since.
    OffsetGap,
    /// The dead-letter topic does not take messages; the table `dead_letters` has them.
    DeadLetterTopic,
    /// The topic of verdicts does not take messages. Offsets are not committed.
    VerdictTopic,
    /// The topic of sightings does not take appearances. Offsets are not committed.
    SightingTopic,
    /// Sightings cannot be read, or not all of them can be used.
    Campaigns,
    /// ClickHouse does not take rows.
    Store,
    /// The spool of rows for ClickHouse is full, or its disk fails.
    SpoolFull,
    /// Too many deliveries wait in the outbox.
    Outbox,
    /// The outbox cannot be written to disk. Deliveries continue from memory.
    OutboxDisk,
    /// The last snapshot of the state was not written.
    Snapshot,
    /// The topic of snapshots cannot be used.
    SnapshotsOff,
    /// Lines of the outbox's file are damaged.
    OutboxDamaged,
    /// A delivery lane has failed and is being restarted.
    Lane,
    /// A delivery lane has ended and cannot be restarted inside this process.
    LaneEnded,
    /// An alert channel rejects alerts.
    Channel,
    /// New entries of the denylist cannot be read.
    Denylist,
    /// New silences cannot be read.
    Silences,
    /// New feedback cannot be read.
    Feedback,
    /// The stops of revocations that were lifted cannot be read.
    Breakers,
}

impl Condition {
    pub(crate) const ALL: [Self; 28] = [
        Self::Starting,
        Self::Hung,
        Self::NoPartitions,
        Self::StateUnavailable,
        Self::Rebuilding,
        Self::Forwarder,
        Self::SourceTopic,
        Self::Broker,
        Self::Commit,
        Self::OffsetGap,
        Self::DeadLetterTopic,
        Self::VerdictTopic,
        Self::SightingTopic,
        Self::Campaigns,
        Self::Store,
        Self::SpoolFull,
        Self::Outbox,
        Self::OutboxDisk,
        Self::Snapshot,
        Self::SnapshotsOff,
        Self::OutboxDamaged,
        Self::Lane,
        Self::LaneEnded,
        Self::Channel,
        Self::Denylist,
        Self::Silences,
        Self::Feedback,
        Self::Breakers,
    ];

    /// The name at the start of its line in `/readyz`, and the label in `tokenwarden_unready`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Hung => "hung",
            Self::NoPartitions => "no_partitions",
            Self::StateUnavailable => "state_unavailable",
            Self::Rebuilding => "rebuilding",
            Self::Forwarder => "forwarder",
            Self::SourceTopic => "source_topic",
            Self::Broker => "broker",
            Self::Commit => "commit",
            Self::OffsetGap => "offset_gap",
            Self::DeadLetterTopic => "dead_letter_topic",
            Self::VerdictTopic => "verdict_topic",
            Self::SightingTopic => "sighting_topic",
            Self::Campaigns => "campaigns",
            Self::Store => "store",
            Self::SpoolFull => "spool_full",
            Self::Outbox => "outbox",
            Self::OutboxDisk => "outbox_disk",
            Self::Snapshot => "snapshot",
            Self::SnapshotsOff => "snapshots_off",
            Self::OutboxDamaged => "outbox_damaged",
            Self::Lane => "lane",
            Self::LaneEnded => "lane_ended",
            Self::Channel => "channel",
            Self::Denylist => "denylist",
            Self::Silences => "silences",
            Self::Feedback => "feedback",
            Self::Breakers => "breakers",
        }
    }

    /// Description for `/readyz`.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Starting => "the worker has not polled its source yet",
            Self::Hung => "the worker has not polled its source for 60 s",
            Self::NoPartitions => "the consumer group has not assigned partitions to this member yet",
            Self::StateUnavailable => "the snapshot of the state cannot be read; the messages of the partition wait",
            Self::Rebuilding => "baselines are being rebuilt from messages of the partitions taken over",
            Self::Forwarder => {
                "messages of the source topics are not forwarded to the partitions of their subjects; trying again (see the log)"
            }
            Self::SourceTopic => "the topic does not exist or cannot be read",
            Self::Broker => "no Kafka broker has answered for 15 s",
            Self::Commit => "the last offset commit failed",
            Self::OffsetGap => "the committed offset is outside the log; messages may be lost or read again",
            Self::DeadLetterTopic => "the dead-letter topic cannot be written; the table dead_letters has the messages",
            Self::VerdictTopic => {
                "the topic of verdicts cannot be written; verdicts wait, and offsets are not committed"
            }
            Self::SightingTopic => {
                "the topic of sightings cannot be written; appearances wait, and offsets are not committed"
            }
            Self::Campaigns => {
                "sightings cannot be read or used (see the log); campaigns over several partitions are not found"
            }
            Self::Store => "ClickHouse is unavailable",
            Self::SpoolFull => "the spool for ClickHouse is full or its disk fails; partitions are paused",
            Self::Outbox => "too many deliveries wait in the outbox; the source is paused",
            Self::OutboxDisk => {
                "the outbox cannot be written to disk; alerts and revocations continue from memory, and offsets are not committed"
            }
            Self::Snapshot => {
                "the last snapshot of the state was not written; a restart reads the messages since the one before again"
            }
            Self::SnapshotsOff => {
                "the topic of snapshots cannot be used (see the log); a restart rebuilds the memory from the last messages only"
            }
            Self::OutboxDamaged => "lines of the outbox are damaged; alerts or revocations may be lost",
            Self::Lane => "the delivery lane has failed and is being restarted",
            Self::LaneEnded => "the delivery lane has ended; restart the process",
            Self::Channel => "the alert channel rejects alerts",
            Self::Denylist => "the denylist cannot be read; tokens that other members revoke may be accepted",
            Self::Silences => "the silences cannot be read; alerts that new silences match are sent",
            Self::Feedback => "the feedback cannot be read; detection does not learn from new feedback",
            Self::Breakers => "the log of breakers cannot be read; lifts have no effect until it can",
        }
    }

    /// Whether `/readyz` succeeds although it holds: the service does its work, and waiting would not end the condition.
    pub(crate) const fn is_degradation(self) -> bool {
        matches!(self, Self::SnapshotsOff | Self::Silences | Self::Feedback | Self::Breakers | Self::Campaigns)
    }

    /// Whether a restart of the process repairs it, so that `/healthz` fails too.
    pub(crate) const fn needs_restart(self) -> bool {
        matches!(self, Self::Hung | Self::LaneEnded)
    }
}
