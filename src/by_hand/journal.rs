//! The journal of a job: one file with the job, its requests, and every result, written before the next step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::plan::{Effect, Plan, Request};
use super::search::{Scope, Subject};
use crate::line::{lines, private, read, split, whole};
use crate::port::{ActionOutcome, ActionRow};
use crate::verdict::Mode;

/// Begin and end of the names of journals in the folder of the outbox.
const PREFIX: &str = "by-hand-";
const SUFFIX: &str = ".ndjson";
/// Serializes the look for an unfinished job and the creation of a new one.
const CREATION_LOCK: &str = "by-hand.lock";

/// Who revokes what, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) scope: Scope,
    pub(crate) reason: String,
    pub(crate) by: String,
    /// Milliseconds since the epoch, wall clock.
    pub(crate) started_at: i64,
    pub(crate) effect: Effect,
    /// Number of grants that no request can revoke.
    #[serde(default)]
    pub(crate) refused: usize,
    #[serde(default)]
    pub(crate) origin: Origin,
}

/// What started a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    #[default]
    Command,
    /// A request of a user. The service continues the job at its start.
    UserApi,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Entry {
    Job(Job),
    Request(Request),
    /// A row for the table `actions` that belongs to no request: the preview, and refused grants.
    Row {
        row: ActionRow,
    },
    /// The requests were confirmed. Without this entry, the job was never started.
    Confirmed {
        requests: usize,
    },
    /// The request failed and is retried.
    Tried {
        number: u32,
        row: ActionRow,
    },
    Ended {
        number: u32,
        row: ActionRow,
    },
    /// The first `rows` rows are in the store.
    Stored {
        rows: usize,
    },
}

impl Job {
    /// Id of a job that starts at `now`, in milliseconds since the epoch.
    pub(crate) fn new_id(now: i64, scope: &Scope) -> String {
        let process = u64::from(std::process::id());
        format!("HAND-{:016X}", xxh3_64_with_seed(scope.id.as_bytes(), now as u64 ^ process.rotate_left(40)))
    }
}

/// An open job, which no other process can open at the same time.
#[derive(Debug)]
pub(crate) struct JobFile {
    pub(crate) path: PathBuf,
    file: File,
    /// Size in bytes without a failed append.
    bytes: u64,
    pub(crate) job: Job,
    pub(crate) requests: Vec<Request>,
    /// Last outcome and reason of each request that has ended.
    ended: BTreeMap<u32, ActionRow>,
    attempts: BTreeMap<u32, u32>,
    rows: Vec<ActionRow>,
    stored: usize,
    is_confirmed: bool,
}

/// A job that was started and has not ended.
#[derive(Debug)]
pub(crate) struct OpenJob {
    pub(crate) id: String,
    pub(crate) requests: usize,
    pub(crate) left: usize,
    /// Rows that are not in the store.
    pub(crate) rows: usize,
    /// Whether a process works on it.
    pub(crate) is_running: bool,
}

/// Why a job cannot be opened or created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error("another process works on it")]
    Running,
    #[error("it has no job, or its first line is damaged")]
    NoJob,
    #[error("lines of {} are damaged: {lines}. It is not known which requests are done", path.display())]
    Damaged { path: PathBuf, lines: usize },
    #[error("an unfinished job for the same command was started meanwhile: {0}")]
    Exists(String),
    #[error(transparent)]
    File(#[from] io::Error),
}

impl JobFile {
    /// Writes the journal of a confirmed job to disk. With `file`, there, otherwise into `folder`, which is created. If an
    /// unfinished job with the same scope is in `folder`, nothing is created, unless `beside`.
    pub(crate) fn create(
        folder: &Path,
        file: Option<&Path>,
        job: Job,
        plan: &Plan,
        beside: Beside,
    ) -> Result<Self, JobError> {
        std::fs::create_dir_all(folder)?;
        let creation = private().open(folder.join(CREATION_LOCK))?;
        flock(&creation, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        if beside == Beside::Refused
            && let Some(open) = open_jobs(folder, &job.scope)?.first()
        {
            return Err(JobError::Exists(open.id.clone()));
        }
        let path = file.map_or_else(|| path_of(folder, &job.id), Path::to_owned);
        let mut file = private().create_new(true).open(&path)?;
        lock(&file)?;
        let mut entries = vec![Entry::Job(job.clone())];
        entries.extend(plan.requests.iter().cloned().map(Entry::Request));
        let rows = preview_rows(&job, plan);
        entries.extend(rows.iter().cloned().map(|row| Entry::Row { row }));
        entries.push(Entry::Confirmed { requests: plan.requests.len() });
        let lines = lines(&entries)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        File::open(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
            .sync_all()?;
        Ok(Self {
            path,
            file,
            bytes: lines.len() as u64,
            job,
            requests: plan.requests.clone(),
            ended: BTreeMap::new(),
            attempts: BTreeMap::new(),
            rows,
            stored: 0,
            is_confirmed: true,
        })
    }

    /// Opens the job `id` in `folder`, or the one in `file`.
    pub(crate) fn open(folder: &Path, file: Option<&Path>, id: &str) -> Result<Self, JobError> {
        let path = file.map_or_else(|| path_of(folder, id), Path::to_owned);
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
        lock(&file)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        // A crash may leave an incomplete last line, whose append did not return.
        let whole = whole(&content);
        let mut job = Self::of(path, file, whole)?;
        if job.job.id != id || !job.is_confirmed {
            return Err(JobError::NoJob);
        }
        // Not before it is known to be a journal: the operator may have named another file.
        job.file.set_len(whole.len() as u64)?;
        job.file.seek(SeekFrom::End(0))?;
        Ok(job)
    }

    fn of(path: PathBuf, file: File, content: &[u8]) -> Result<Self, JobError> {
        let mut entries = split(content).map(read::<Entry>);
        let Some(Some(Entry::Job(job))) = entries.next() else { return Err(JobError::NoJob) };
        let mut this = Self {
            path,
            file,
            bytes: content.len() as u64,
            job,
            requests: Vec::new(),
            ended: BTreeMap::new(),
            attempts: BTreeMap::new(),
            rows: Vec::new(),
            stored: 0,
            is_confirmed: false,
        };
        let mut damaged = 0;
        for entry in entries {
            match entry {
                None => damaged += 1,
                Some(Entry::Request(request)) => this.requests.push(request),
                Some(entry) => this.apply(entry),
            }
        }
        if damaged > 0 { Err(JobError::Damaged { path: this.path, lines: damaged }) } else { Ok(this) }
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Job(_) | Entry::Request(_) => {}
            Entry::Row { row } => self.rows.push(row),
            Entry::Confirmed { requests } => self.is_confirmed = requests == self.requests.len(),
            Entry::Tried { number, row } => {
                *self.attempts.entry(number).or_default() += 1;
                self.rows.push(row);
            }
            Entry::Ended { number, row } => {
                *self.attempts.entry(number).or_default() += 1;
                self.rows.push(row.clone());
                self.ended.insert(number, row);
            }
            Entry::Stored { rows } => self.stored = rows.min(self.rows.len()),
        }
    }

    /// Records a failed attempt that is retried.
    pub(super) fn tried(&mut self, number: u32, row: ActionRow) -> io::Result<()> {
        self.append(Entry::Tried { number, row })
    }

    /// Records the last attempt of a request.
    pub(super) fn ended(&mut self, number: u32, row: ActionRow) -> io::Result<()> {
        self.append(Entry::Ended { number, row })
    }

    /// Records that all rows so far are in the store.
    pub(super) fn stored(&mut self) -> io::Result<()> {
        self.append(Entry::Stored { rows: self.rows.len() })
    }

    /// Returns after the entry is on disk.
    fn append(&mut self, entry: Entry) -> io::Result<()> {
        let line = lines(std::slice::from_ref(&entry))?;
        // Bytes of a failed append.
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.bytes += line.len() as u64;
        self.apply(entry);
        Ok(())
    }

    /// Number of attempts so far.
    pub(super) fn attempts(&self, number: u32) -> u32 {
        self.attempts.get(&number).copied().unwrap_or_default()
    }

    /// The last row of a request that has ended.
    pub(crate) fn result(&self, number: u32) -> Option<&ActionRow> {
        self.ended.get(&number)
    }

    /// The requests that have not succeeded, those that failed included.
    pub(crate) fn left(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| !self.result(request.number).is_some_and(is_success))
    }

    /// Number of requests that were revoked or already gone.
    pub(crate) fn revoked(&self) -> usize {
        self.ended.values().filter(|row| is_success(row)).count()
    }

    /// The rows that are not in the store.
    pub(crate) fn waiting_rows(&self) -> &[ActionRow] {
        self.rows.get(self.stored..).unwrap_or_default()
    }

    /// Whether requests or rows are left, apart from requests that the provider refused.
    fn open_job(&self, is_running: bool) -> Option<OpenJob> {
        let (left, rows) = (self.requests.len() - self.ended.len(), self.waiting_rows().len());
        let is_open = self.is_confirmed && (left > 0 || rows > 0);
        is_open.then(|| OpenJob { id: self.job.id.clone(), requests: self.requests.len(), left, rows, is_running })
    }
}

/// Whether an unfinished job with the same scope prevents a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Refused,
    Allowed,
}

/// The unfinished jobs of `scope` in `folder` that a command started.
pub(crate) fn open_jobs(folder: &Path, scope: &Scope) -> Result<Vec<OpenJob>, JobError> {
    let is_of_scope = |job: &Job| job.origin == Origin::Command && job.scope == *scope;
    let files = journals(folder, &is_of_scope)?;
    let mut open = Vec::new();
    for (path, file, content) in files {
        let is_running = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
        open.extend(JobFile::of(path, file, &content)?.open_job(is_running));
    }
    open.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(open)
}

/// Ids of the jobs in `folder` with this origin, in order.
pub(crate) fn unfinished(folder: &Path, origin: Origin) -> Result<Vec<String>, JobError> {
    let mut ids = Vec::new();
    for (_, _, content) in journals(folder, &|job| job.origin == origin)? {
        let first = split(&content).next().and_then(read::<Entry>);
        if let Some(Entry::Job(job)) = first {
            ids.push(job.id);
        }
    }
    ids.sort();
    Ok(ids)
}

/// The journals in `folder` whose jobs match, with their whole lines.
fn journals(folder: &Path, matches: &dyn Fn(&Job) -> bool) -> Result<Vec<(PathBuf, File, Vec<u8>)>, JobError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_job = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if !is_job {
            continue;
        }
        let mut file = File::open(entry.path())?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        content.truncate(whole(&content).len());
        let first = split(&content).next().and_then(read::<Entry>);
        if matches!(first, Some(Entry::Job(job)) if matches(&job)) {
            found.push((entry.path(), file, content));
        }
    }
    Ok(found)
}

fn path_of(folder: &Path, id: &str) -> PathBuf {
    // An id from the command line must not lead out of the folder.
    let safe: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    folder.join(format!("{PREFIX}{safe}{SUFFIX}"))
}

fn lock(file: &File) -> Result<(), JobError> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|_| JobError::Running)
}

fn is_success(row: &ActionRow) -> bool {
    matches!(row.outcome, ActionOutcome::Done | ActionOutcome::AlreadyGone)
}

/// What the operator confirmed, and the grants that no request can revoke.
fn preview_rows(job: &Job, plan: &Plan) -> Vec<ActionRow> {
    let scope = &job.scope;
    let row = |action_id: String, kind: &str, target: &str| ActionRow {
        action_id,
        incident_id: String::new(),
        requested_at: job.started_at,
        kind: kind.to_owned(),
        target: target.to_owned(),
        mode: Mode::Enforce,
        attempt: 0,
        outcome: ActionOutcome::Proposed,
        http_status: 0,
        latency_ms: 0,
        requested_by: job.by.clone(),
        reason: String::new(),
        tenant_id: scope.tenant.clone().unwrap_or_default(),
        user_id: if scope.subject == Subject::User { scope.id.clone() } else { String::new() },
        radius: None,
        confirmation: None,
    };
    let about = plan.effect.about.as_deref().unwrap_or("the request of the configuration");
    let preview = format!(
        "{}: confirmed; requests: {}, grants: {}, refused: {}; {about}",
        job.reason,
        plan.requests.len(),
        plan.found.grants.len(),
        plan.refused.len()
    );
    let target = format!("{}:{}", scope.subject.as_str(), scope.id);
    let first = ActionRow { reason: preview, ..row(job.id.clone(), "revoke_by_hand", &target) };
    let refused = plan.refused.iter().enumerate().map(|(number, refused)| ActionRow {
        outcome: ActionOutcome::Failed,
        reason: format!("{}: not requested: {}", job.reason, refused.reason),
        tenant_id: refused.request.grant.tenant_id.clone(),
        user_id: refused.request.grant.user_id.clone(),
        ..row(
            format!("{}-refused-{number:06}", job.id),
            refused.request.target.action().as_str(),
            refused.request.target.id(),
        )
    });
    std::iter::once(first).chain(refused).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{create, plan_of, scope};
    use super::*;

    fn row(outcome: ActionOutcome) -> ActionRow {
        let job = create(tempfile::tempdir().expect("a folder").path(), "J", &plan_of(1)).expect("a job");
        ActionRow { outcome, ..job.rows[0].clone() }
    }

    #[test]
    fn job_is_continued_after_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut job = create(folder.path(), "J1", &plan_of(3)).expect("a job");
        job.tried(1, row(ActionOutcome::Retry)).expect("written");
        job.ended(0, row(ActionOutcome::Done)).expect("written");
        job.ended(2, row(ActionOutcome::Failed)).expect("written");
        let path = job.path.clone();
        drop(job);
        // The append of a process that was killed in the middle.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("a file");
        file.write_all(b"0123456789abcdef {\"entry\":\"ended\",\"numb").expect("written");
        let open = open_jobs(folder.path(), &scope("ana")).expect("jobs");
        assert_eq!((open.len(), open[0].left, open[0].rows, open[0].is_running), (1, 1, 4, false));
        let mut job = JobFile::open(folder.path(), None, "J1").expect("the job");
        assert_eq!(job.left().map(|request| request.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((job.attempts(1), job.revoked(), job.requests.len()), (1, 1, 3));
        job.ended(1, row(ActionOutcome::AlreadyGone)).expect("written");
        job.stored().expect("written");
        assert!(job.waiting_rows().is_empty());
        drop(job);
        assert!(open_jobs(folder.path(), &scope("ana")).expect("jobs").is_empty());
    }

    #[test]
    fn second_process_and_second_job_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let job = create(folder.path(), "J1", &plan_of(1)).expect("a job");
        assert!(matches!(JobFile::open(folder.path(), None, "J1"), Err(JobError::Running)));
        assert!(open_jobs(folder.path(), &scope("ana")).expect("jobs")[0].is_running);
        assert!(matches!(create(folder.path(), "J2", &plan_of(1)), Err(JobError::Exists(id)) if id == "J1"));
        assert!(open_jobs(folder.path(), &scope("bob")).expect("jobs").is_empty(), "another scope");
        drop(job);
        assert!(JobFile::open(folder.path(), None, "J1").is_ok());
    }

    #[test]
    fn unconfirmed_and_damaged_jobs_are_not_continued() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = create(folder.path(), "J1", &plan_of(3)).expect("a job").path;
        let text = std::fs::read_to_string(&path).expect("a file");
        let cut = text.lines().take(3).collect::<Vec<_>>().join("\n") + "\n";
        std::fs::write(&path, cut).expect("written");
        assert!(open_jobs(folder.path(), &scope("ana")).expect("jobs").is_empty());
        assert!(matches!(JobFile::open(folder.path(), None, "J1"), Err(JobError::NoJob)));
        let other = folder.path().join("a secret");
        std::fs::write(&other, "s3cret without a line break").expect("written");
        assert!(matches!(JobFile::open(folder.path(), Some(&other), "J1"), Err(JobError::NoJob)));
        assert_eq!(std::fs::read_to_string(&other).expect("a file"), "s3cret without a line break");
        std::fs::write(&path, text.replace("\"g1\"", "\"gX\"")).expect("written");
        assert!(matches!(JobFile::open(folder.path(), None, "J1"), Err(JobError::Damaged { lines: 1, .. })));
        assert!(
            matches!(JobFile::open(folder.path(), None, "../../J1"), Err(JobError::Damaged { .. })),
            "the same file"
        );
    }

    #[test]
    fn preview_and_refusals_have_rows() {
        let mut plan = plan_of(2);
        let request = plan.requests.pop().expect("a request");
        plan.refused.push(super::super::plan::Refused { request, reason: "no user".to_owned() });
        let folder = tempfile::tempdir().expect("a folder");
        let job = create(folder.path(), "J1", &plan).expect("a job");
        let rows: Vec<_> = job.waiting_rows().iter().map(|row| (&*row.kind, &*row.target, row.outcome)).collect();
        let expected =
            [("revoke_by_hand", "user:ana", ActionOutcome::Proposed), ("revoke_family", "g1", ActionOutcome::Failed)];
        assert_eq!(rows, expected);
        assert!(
            job.waiting_rows()[0].reason.starts_with("stolen laptop: confirmed; requests: 1, grants: 2, refused: 1")
        );
        assert!(job.waiting_rows()[1].reason.ends_with("not requested: no user"));
    }
}
