//! Server processes that end with the test in every case.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

/// A child process tied to a pipe. If this value is dropped or the test process dies, the pipe closes and the child is
/// killed.
pub(crate) struct Tied {
    child: Child,
    pid_file: PathBuf,
}

impl Tied {
    /// Starts `program`; its output goes to `log`.
    pub(crate) fn start(program: &str, arguments: &[&str], log: &Path) -> Self {
        let pid_file = log.with_extension("pid");
        let log = std::fs::File::create(log).expect("a log file");
        let child = Command::new("sh")
            .arg("-c")
            // A background job reads from /dev/null by default; the shell itself waits on the pipe.
            .arg("\"$@\" </dev/null & server=$!; echo $server >\"$0\"; cat >/dev/null; kill -9 $server")
            .arg(&pid_file)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("a shell starts");
        Self { child, pid_file }
    }

    /// Sends the signal `name`, for example `-STOP`, to the process.
    pub(crate) fn signal(&self, name: &str) {
        let pid = eventually(Duration::from_secs(5), "the process has a number", || {
            read(&self.pid_file).trim().parse::<u32>().ok()
        });
        let sent = Command::new("kill").args([name, &pid.expect("a number").to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal is sent");
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A loopback port on which no server listens. Until the test process ends, the system does not choose it for another
/// socket, because a socket stays bound to it. A server that sets `SO_REUSEADDR` can bind to it.
pub(crate) fn free_port() -> u16 {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("the port can be bound again");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let port = socket.local_addr().expect("an address").port();
    std::mem::forget(socket);
    port
}

/// Waits until a process listens on `port`.
pub(crate) fn wait_for_port(port: u16, log: &Path) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(Duration::from_secs(180), "the server listens", || TcpStream::connect(address).is_ok().then_some(()))
        .unwrap_or_else(|| panic!("no server on {port}:\n{}", read(log)));
}

/// Polls `probe` until it returns a value or `patience` is over.
pub(crate) fn eventually<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if began.elapsed() > patience {
            eprintln!("gave up waiting until {what}");
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn read(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes one rule into the folder `rules` in `folder`, for tests that do not depend on rules: an unoptimised build
/// takes seconds to read all shipped ones.
pub(crate) fn keep_one_rule(folder: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/new_ip.toml");
    std::fs::create_dir(folder.join("rules")).expect("a folder");
    std::fs::copy(shipped, folder.join("rules/new_ip.toml")).expect("a rule");
}

/// Writes a file with a secret, readable only by its owner.
pub(crate) fn keep_secret(file: &Path, secret: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file).expect("a file");
    file.write_all(secret.as_bytes()).expect("written");
}

/// The cache folder of the setup script.
pub(crate) fn cache() -> std::path::PathBuf {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
    folder("TOKENWARDEN_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("tokenwarden")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/tokenwarden")))
        .expect("HOME is set")
}
