//! `tokenwarden revoke`: revocation by hand, of one grant or of all grants of a user, session or application.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::confirmation::Confirmation;
use super::failure::Failure;
use super::setup::start_runtime;
use super::sql::failure;
use super::terminal::{progress_bar, to_stderr, to_stdout};
use super::user_messages::{self, Sent};
use super::{delivery, denylist, moment, operator};
use crate::by_hand::{
    Beside, Effect, Ending, Executor, FAILED_PERCENT_MAX, Found, Job, JobError, JobFile, Moment, OpenJob, Origin,
    PER_MINUTE, Pace, Scope, SearchError, Subject, open_jobs, plan, preview_json, preview_text, results_json,
    results_text, search, store_rows, unknown,
};
use crate::config::Config;
use crate::deliver::PAUSE_FILE;
use crate::denylist::IfLogFails;
use crate::number::counted;
use crate::port::{ActionOutcome, Clock, Radius, Reference, Revoker, UserMessage, UserMessageKind};
use crate::sanitize;
use crate::store::{ClickHouse, Reader};
use crate::telemetry::{SystemClock, start_logging};

/// Revoke a token's grant, a grant, or all grants of a session, a user or an application at the provider.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the command")]
pub(crate) struct Arguments {
    /// Kind of the id.
    #[arg(value_enum, required_unless_present = "resume")]
    kind: Option<Kind>,
    /// The id: token_id, family_id, session_id, user_id or app_id of the events.
    #[arg(value_name = "ID", required_unless_present = "resume")]
    id: Option<String>,
    /// Tenant of the id. Needed if several tenants have the id. "" stands for events without a tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only grants that were used at or after this time: RFC 3339, a date, or 30m, 12h or 7d before now.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only grants that were issued before this time.
    #[arg(long, value_name = "TIME")]
    issued_before: Option<String>,
    /// Reason, for the audit trail and the provider.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["resume", "dry_run"])]
    reason: Option<String>,
    /// Show what would be revoked, and end.
    #[arg(long)]
    dry_run: bool,
    /// Revoke without asking if the number of requests is COUNT, as --dry-run shows it.
    #[arg(long, value_name = "COUNT")]
    yes: Option<usize>,
    /// Name for the audit trail [default: the user of the operating system].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Maximum number of requests per minute.
    #[arg(long, value_name = "N", default_value_t = PER_MINUTE, value_parser = clap::value_parser!(u32).range(1..=6_000))]
    per_minute: u32,
    /// Revoke although `pause-actions` is in force.
    #[arg(long)]
    despite_pause: bool,
    /// Continue an unfinished job. Requests that succeeded are not repeated.
    #[arg(long, value_name = "JOB", conflicts_with_all = ["dry_run", "yes", "reason", "by", "new_job"])]
    resume: Option<String>,
    /// Inform the users whose grants are revoked, by the channels of [notify_users].
    #[arg(long, conflicts_with = "dry_run")]
    notify_users: bool,
    /// Start a new job although an unfinished one for the same command exists.
    #[arg(long)]
    new_job: bool,
    /// Journal of the job [default: a file in the folder of the outbox].
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The grant of a token, or the token itself if it has no grant.
    Token,
    #[value(alias = "family")]
    Grant,
    Session,
    User,
    App,
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Token => Self::Token,
            Kind::Grant => Self::Grant,
            Kind::Session => Self::Session,
            Kind::User => Self::User,
            Kind::App => Self::App,
        }
    }
}

/// The parts that a new job and a resumed one share.
struct Service<'a> {
    arguments: &'a Arguments,
    config: Config,
    clock: Arc<dyn Clock>,
    revoker: Arc<dyn Revoker>,
    /// Folder of the journals.
    folder: PathBuf,
}

/// Finds the grants, asks for confirmation, and revokes.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    start_logging("warn");
    let config = Config::load(arguments.config.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let revoker = delivery::revoker(&config, &clock, denylist::open(&config)?, IfLogFails::Fail)?.ok_or_else(|| {
        Failure::Configuration(
            "there is no [revoke.http] or [denylist] to revoke with; docs/revocation.md lists presets of providers"
                .into(),
        )
    })?;
    let folder = match &arguments.journal {
        Some(file) => {
            file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
        }
        None => config.outbox.dir.clone(),
    };
    if arguments.notify_users {
        if config.notify_users.is_none() {
            return Err(Failure::Usage("--notify-users needs [notify_users] in the configuration".to_owned()));
        }
        if revoker.radius().is_some_and(|radius| radius >= Radius::Role) {
            let problem = "--notify-users cannot be used: one request revokes a role or an application, and its users are \
                           not known";
            return Err(Failure::Usage(problem.to_owned()));
        }
    }
    let service = Service { arguments, config, clock, revoker, folder };
    let runtime = start_runtime()?;
    runtime.block_on(async {
        match &arguments.resume {
            Some(id) => service.execute(service.reopen(id)?).await,
            None => match service.confirmed().await? {
                Some(job) => service.execute(job).await,
                None => Ok(()),
            },
        }
    })
}

impl Service<'_> {
    fn scope(&self) -> Result<Option<Scope>, Failure> {
        let Arguments { kind, id, tenant, since, issued_before, .. } = self.arguments;
        let (Some(kind), Some(id)) = (kind, id) else { return Ok(None) };
        if id.is_empty() {
            return Err(Failure::Usage("ID is empty".to_owned()));
        }
        let moment = |text: &Option<String>, option: &str| {
            let text = text.clone().map(|text| {
                let millis = moment::parse(&text, self.clock.now_millis(), option)?;
                Ok::<_, Failure>(Moment { text, millis })
            });
            text.transpose()
        };
        Ok(Some(Scope {
            subject: (*kind).into(),
            id: id.clone(),
            tenant: tenant.clone(),
            since: moment(since, "--since")?,
            issued_before: moment(issued_before, "--issued-before")?,
        }))
    }

    /// A new job on disk that the operator confirmed, and the number of grants that it cannot revoke. `None` after
    /// `--dry-run`.
    async fn confirmed(&self) -> Result<Option<JobFile>, Failure> {
        let arguments = self.arguments;
        let scope = self.scope()?.ok_or_else(|| Failure::Usage("KIND and ID are missing".to_owned()))?;
        let reason =
            arguments.reason.as_deref().map_or(Ok(String::new()), |reason| operator::text(reason, "--reason"))?;
        let by = operator::name(arguments.by.as_deref())?;
        if !arguments.dry_run {
            self.refuse_pause()?;
            if !arguments.new_job
                && let Some(open) = open_jobs(&self.folder, &scope).map_err(|error| self.job_failure(error))?.first()
            {
                return Err(offer(open));
            }
        }
        let found = self.find(&scope).await?;
        let plan = plan(found, &*self.revoker, &reason);
        let warnings: Vec<_> = delivery::doubts(&self.config, &*self.revoker).collect();
        if arguments.dry_run {
            let for_eyes = std::io::stdout().is_terminal();
            let preview = if for_eyes { preview_text } else { preview_json }(&scope, &plan, &warnings);
            to_stdout(&preview)?;
            return Ok(None);
        }
        to_stderr(preview_text(&scope, &plan, &warnings).trim_end());
        if plan.requests.is_empty() {
            return Err(Failure::Usage("nothing was requested: no request to the provider is possible".to_owned()));
        }
        let confirmation = Confirmation {
            count: plan.requests.len(),
            counted: "requests",
            id: &scope.id,
            verb: "revoke",
            refused: "nothing was requested",
        };
        confirmation.obtain(arguments.yes)?;
        let now = self.clock.now_millis();
        let job = Job {
            id: Job::new_id(now, &scope),
            scope,
            reason,
            by,
            started_at: now,
            effect: plan.effect.clone(),
            refused: plan.refused.len(),
            origin: Origin::Command,
        };
        let beside = if arguments.new_job { Beside::Allowed } else { Beside::Refused };
        let job = JobFile::create(&self.folder, arguments.journal.as_deref(), job, &plan, beside);
        Ok(Some(job.map_err(|error| self.job_failure(error))?))
    }

    /// Searches the store. A single token or grant is revoked without it if necessary.
    async fn find(&self, scope: &Scope) -> Result<Found, Failure> {
        let reader = match Reader::open(&self.config.store).await {
            Ok(reader) => reader,
            Err(error) => {
                let known = unknown(scope, format!("the store cannot be read: {error}"));
                return known.ok_or_else(|| failure(&error, Failure::Configuration));
            }
        };
        let found = search(&reader, scope, Effect::unit(&*self.revoker)).await;
        reader.close().await;
        let none =
            || Failure::Usage(format!("the store has no matching events of {} {}", scope.subject.as_str(), scope.id));
        match found {
            Ok(grants) if grants.is_empty() => {
                unknown(scope, "the store has no event of it".to_owned()).ok_or_else(none)
            }
            Ok(grants) => Ok(Found { grants, unknown: None }),
            Err(SearchError::Store(error)) => {
                let known = unknown(scope, format!("the store cannot be read: {error}"));
                known.ok_or_else(|| failure(&error, Failure::Unavailable))
            }
            Err(error) => Err(Failure::Usage(error.to_string())),
        }
    }

    /// Opens an unfinished job.
    fn reopen(&self, id: &str) -> Result<JobFile, Failure> {
        self.refuse_pause()?;
        let job = JobFile::open(&self.folder, self.arguments.journal.as_deref(), id).map_err(|error| {
            let error = self.job_failure(error);
            match error {
                Failure::Unavailable(problem) => Failure::Unavailable(format!("job {id}: {problem}")),
                other => other,
            }
        })?;
        if self.scope()?.is_some_and(|scope| scope != job.job.scope) {
            let scope = &job.job.scope;
            let problem = format!("{id} is a job for {} {}; leave KIND and ID out", scope.subject.as_str(), scope.id);
            return Err(Failure::Usage(problem));
        }
        if Effect::of(&*self.revoker) != job.job.effect {
            let problem = "[revoke.http] has another preset, radius, url or tenant than at the start of the job, so that a request \
                           would do something else than was confirmed; start a new job with --new-job";
            return Err(Failure::Configuration(problem.to_owned()));
        }
        Ok(job)
    }

    fn refuse_pause(&self) -> Result<(), Failure> {
        if self.pause_file().is_some_and(|file| file.exists()) {
            let problem = "revocations are paused (pause-actions); nothing was requested. To revoke nevertheless, add \
                           --despite-pause";
            return Err(Failure::Unavailable(problem.to_owned()));
        }
        Ok(())
    }

    fn pause_file(&self) -> Option<PathBuf> {
        (!self.arguments.despite_pause).then(|| self.config.outbox.dir.join(PAUSE_FILE))
    }

    /// Sends the requests that are left, writes the rows, and prints the results.
    async fn execute(&self, mut job: JobFile) -> Result<(), Failure> {
        let store = ClickHouse::new(&self.config.store);
        to_stderr(&format!("{}: journal in {}", job.job.id, job.path.display()));
        let bar = progress_bar(job.requests.len() as u64, "{bar:40} {pos} of {len} requests {msg} {eta}");
        bar.set_position(job.revoked() as u64);
        let executor = Executor {
            revoker: &*self.revoker,
            store: &store,
            clock: &*self.clock,
            pace: &Pace::new(self.arguments.per_minute),
            pause_file: self.pause_file(),
            stop: signals().map_err(|error| Failure::Unavailable(format!("cannot handle signals: {error}")))?,
        };
        let (mut answers, every) = (0, job.requests.len().div_ceil(20).max(1));
        let mut progress = |job: &JobFile| {
            bar.set_position(job.revoked() as u64);
            answers += 1;
            // Without a bar: about 20 lines.
            if bar.is_hidden() && answers % every == 0 {
                to_stderr(&format!("{}: {} of {} requests are done", job.job.id, job.revoked(), job.requests.len()));
            }
        };
        let ending = executor.run(&mut job, &mut progress).await;
        bar.finish_and_clear();
        if let Err(error) = store_rows(&store, &mut job).await {
            to_stderr(&format!(
                "the store has not got {} rows of the audit trail: {error}. They are in {}. Write them with: {}",
                job.waiting_rows().len(),
                job.path.display(),
                self.resume_command(&job)
            ));
        }
        store.close().await;
        let for_eyes = std::io::stdout().is_terminal();
        to_stdout(&if for_eyes { results_text(&job) } else { results_json(&job) })?;
        let informed = if self.arguments.notify_users { self.inform_users(&job).await } else { Ok(()) };
        self.end(&job, ending).and(informed)
    }

    /// Informs the users whose grants are revoked. A resumed job informs those of its earlier runs again, with the same ids,
    /// because the earlier run may have ended before.
    async fn inform_users(&self, job: &JobFile) -> Result<(), Failure> {
        let Sent { lines, accepted, failed } = user_messages::send(&self.config, &messages(job)).await?;
        for line in &lines {
            to_stderr(&sanitize::line(line));
        }
        to_stderr(&format!("messages to users: {accepted} sent, {failed} failed"));
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::Unavailable(format!("{} could not be sent to users", counted(failed as u64, "message"))))
    }

    fn end(&self, job: &JobFile, ending: Ending) -> Result<(), Failure> {
        let refused = job.job.refused;
        let left = job.left().count();
        let why = match ending {
            Ending::Complete if left == 0 && refused == 0 => return Ok(()),
            Ending::Complete if left == 0 => {
                let problem = format!("grants that no request to this provider can revoke: {refused}");
                return Err(Failure::Unavailable(problem));
            }
            Ending::Complete => "some requests failed".to_owned(),
            Ending::Paused => "stopped: revocations are paused (pause-actions)".to_owned(),
            Ending::Interrupted => "stopped by a signal".to_owned(),
            Ending::CredentialRejected(reason) => {
                format!("stopped: the provider rejects the credential of [revoke.http]: {reason}")
            }
            Ending::TooManyFailures { failed, requests, last } => format!(
                "stopped: {failed} of {requests} requests failed, which is more than {FAILED_PERCENT_MAX} %. The last \
                 reason: {last}"
            ),
            Ending::Journal(error) => format!("stopped: cannot write the journal: {error}"),
        };
        let (revoked, total) = (job.revoked(), job.requests.len());
        Err(Failure::Unavailable(format!(
            "{why}. {revoked} of {total} requests succeeded. Continue with: {}",
            self.resume_command(job)
        )))
    }

    fn resume_command(&self, job: &JobFile) -> String {
        let with = |option: &str, file: &Option<PathBuf>| {
            file.as_ref().map_or_else(String::new, |file| format!(" {option} {}", file.display()))
        };
        format!(
            "tokenwarden revoke --resume {}{}{}",
            job.job.id,
            with("--journal", &self.arguments.journal),
            with("--config", &self.arguments.config)
        )
    }

    fn job_failure(&self, error: JobError) -> Failure {
        match error {
            JobError::Exists(_) => Failure::Usage(format!("nothing was requested: {error}")),
            JobError::File(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let problem = "the file of --journal exists; to continue its job, add --resume JOB";
                Failure::Usage(problem.to_owned())
            }
            JobError::File(error) => {
                Failure::Unavailable(format!("cannot use a journal in {}: {error}", self.folder.display()))
            }
            other => Failure::Unavailable(other.to_string()),
        }
    }
}

/// A message to each user of a request that is done.
fn messages(job: &JobFile) -> Vec<UserMessage> {
    let mut messages = BTreeMap::new();
    for request in &job.requests {
        let (user, row) = ((&request.grant.tenant_id, &request.grant.user_id), job.result(request.number));
        let at = row.filter(|row| row.outcome == ActionOutcome::Done).and_then(|row| row.confirmation);
        if let Some(at) = at.map(|confirmation| confirmation.revoked_at).filter(|_| !user.1.is_empty()) {
            let latest = messages.entry(user).or_insert(at);
            *latest = at.max(*latest);
        }
    }
    let message = |((tenant_id, user_id), at): ((&String, &String), i64)| UserMessage {
        kind: UserMessageKind::Revoked,
        tenant_id: tenant_id.clone(),
        user_id: user_id.clone(),
        about: Reference::Job(job.job.id.clone()),
        at,
    };
    messages.into_iter().map(message).collect()
}

/// Error that names the unfinished job.
fn offer(open: &OpenJob) -> Failure {
    let OpenJob { id, requests, left, rows, is_running } = open;
    if *is_running {
        let problem = format!("another process works on the same command: {id}, {left} of {requests} requests left");
        return Failure::Unavailable(problem);
    }
    Failure::Usage(format!(
        "nothing was requested: the same command has the unfinished job {id}, with {left} of {requests} requests and \
         {rows} rows of the audit trail left. Continue it with --resume {id}, or start anew with --new-job"
    ))
}

/// Becomes true at the first SIGINT or SIGTERM.
fn signals() -> std::io::Result<watch::Receiver<bool>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(stopped)
}
