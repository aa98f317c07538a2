//! The service as a child process.

use super::*;

/// The service as an operator runs it.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) admin: u16,
}

impl Service {
    pub(crate) fn start(folder: &Path, admin: u16) -> Self {
        Self::start_as(folder, "one", admin)
    }

    /// `member`: name in the consumer group, kept over restarts.
    pub(crate) fn start_as(folder: &Path, member: &str, admin: u16) -> Self {
        let log = folder.join(format!("log of {member}"));
        Self::spawn(&mut Self::command(folder, member, admin), &log, admin)
    }

    /// The command of [`Self::start_as`], without its log.
    pub(crate) fn command(folder: &Path, member: &str, admin: u16) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
        command
            .args(["run", "--config", "tokenwarden.toml"])
            .current_dir(folder)
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .env("TOKENWARDEN__ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
            .env("TOKENWARDEN__OUTBOX__DIR", format!("outbox of {member}"))
            .env("TOKENWARDEN__SOURCE__KAFKA__PROPERTIES__GROUP_INSTANCE_ID", member);
        command
    }

    /// Starts the command. Its log is appended to `log`.
    pub(crate) fn spawn(command: &mut Command, log: &Path, admin: u16) -> Self {
        let out = std::fs::File::options().create(true).append(true).open(log).expect("a log file");
        let folder = command.get_current_dir().expect("a folder").to_owned();
        let child = command.stderr(out).spawn().expect("tokenwarden runs");
        Self { child, folder, log: log.to_owned(), admin }
    }

    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits until the endpoint responds with 200, and returns the body.
    pub(crate) fn page(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.admin);
        let ask = || {
            let answer = blocking(async { reqwest::get(&url).await?.error_for_status()?.text().await });
            answer.ok()
        };
        eventually(Duration::from_secs(60), path, ask).unwrap_or_else(|| panic!("no {path}:\n{}", self.log()))
    }

    /// Result of `tokenwarden sql` while the service runs.
    pub(crate) fn sql(&self, sql: &str) -> String {
        ask_store(&self.folder, sql)
    }

    /// Waits until `sql` returns `wanted`.
    pub(crate) fn until(&self, sql: &str, wanted: &str) {
        let mut last = String::new();
        let found = eventually(Duration::from_secs(30), sql, || {
            last = self.sql(sql);
            (last == wanted).then_some(())
        });
        assert!(found.is_some(), "{sql}: {last} instead of {wanted}\n{}", self.log());
    }

    /// Waits until `/metrics` contains `line`.
    pub(crate) fn until_metric(&self, line: &str) {
        let found = || self.page("/metrics").lines().any(|found| found == line).then_some(());
        eventually(Duration::from_secs(20), line, found).unwrap_or_else(|| panic!("{}", self.page("/metrics")));
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it is gone");
    }

    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal("-TERM");
        let status =
            eventually(Duration::from_secs(15), "the service stops", || self.child.try_wait().expect("a child"));
        (status.unwrap_or_else(|| panic!("the service does not stop:\n{}", self.log())), began.elapsed())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
