//! What people do about incidents, in the append-only table `incident_work`.

/// Progress of the work on an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkStatus {
    Open,
    Acknowledged,
    Resolved,
}

impl WorkStatus {
    /// The word in the table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }

    /// An incident without changes is open.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "acknowledged" => Self::Acknowledged,
            "resolved" => Self::Resolved,
            _ => Self::Open,
        }
    }
}

/// A row of the table. The store adds the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkChange {
    pub(crate) incident_id: String,
    /// One more than the version that the operator saw.
    pub(crate) version: u32,
    /// Different for every change.
    pub(crate) change_id: u64,
    pub(crate) by: String,
    pub(crate) status: WorkStatus,
    pub(crate) assignee: String,
    pub(crate) note: String,
}

/// The statement of a row, with a question mark for each of its values. Numbers are texts, because a client may send those
/// of 64 bits as floating point.
pub(super) const INSERT: &str = "INSERT INTO incident_work (incident_id, version, change_id, changed_by, status, assignee, note) \
     SELECT ?, toUInt32(?), toUInt64(?), ?, ?, ?, ?";

impl WorkChange {
    /// The values of [`INSERT`].
    pub(super) fn values(&self) -> [String; 7] {
        let Self { incident_id, version, change_id, by, status, assignee, note } = self;
        let (version, change_id, status) = (version.to_string(), change_id.to_string(), status.as_str().to_owned());
        [incident_id.clone(), version, change_id, by.clone(), status, assignee.clone(), note.clone()]
    }
}
