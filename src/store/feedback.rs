//! Verdicts of people about incidents, in the table `feedback`.

use crate::verdict::Judgement;

/// A row of the table `feedback`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feedback {
    pub(crate) incident_id: String,
    /// Milliseconds since the epoch, wall clock.
    pub(crate) given_at: i64,
    pub(crate) by: String,
    pub(crate) judgement: Judgement,
    pub(crate) note: String,
}

/// The statement of a row, with a question mark for each of its values.
pub(super) const INSERT: &str = "INSERT INTO feedback (incident_id, given_at, analyst, verdict, note) \
                                 SELECT ?, fromUnixTimestamp64Milli(toInt64(?), 'UTC'), ?, ?, ?";

impl Feedback {
    /// The values of [`INSERT`].
    pub(super) fn values(&self) -> [String; 5] {
        let Self { incident_id, given_at, by, judgement, note } = self;
        [incident_id.clone(), given_at.to_string(), by.clone(), judgement.as_str().to_owned(), note.clone()]
    }
}
