//! Revocation by hand, of one grant or of many: `tokenwarden revoke`.
//!
//! [`mod@search`] finds the grants in the store. [`mod@plan`] turns them into requests to the configured provider. [`mod@journal`]
//! stores the job on disk before its first request, and every result. [`mod@execute`] sends the requests, and continues a job
//! after a crash. [`mod@text`] prints.

mod execute;
mod journal;
mod plan;
mod search;
#[cfg(test)]
mod testing;
mod text;

pub(crate) use self::execute::{Ending, Executor, FAILED_PERCENT_MAX, PER_MINUTE, Pace, store_rows};
pub(crate) use self::journal::{Beside, Job, JobError, JobFile, OpenJob, Origin, open_jobs, unfinished};
pub(crate) use self::plan::{Effect, Plan, Refused, Request, plan};
pub(crate) use self::search::{
    ACCEPTED, CHECKED, Found, Grant, Moment, Scope, SearchError, Subject, Unit, search, unknown,
};
pub(crate) use self::text::{preview_json, preview_text, results_json, results_text};
