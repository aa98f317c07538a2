//! A TCP proxy in front of a server, which refuses, cuts or delays connections, loses answers or sends garbage.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the proxy holds each piece of data while it delays.
const DELAY: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Pass,
    /// New connections are closed at once.
    Refuse,
    /// Each piece of data waits.
    Delay,
    /// Requests reach the server. Instead of an answer, the client gets the end of the connection.
    LoseAnswers,
    /// Clients get bytes of no protocol, and the end of the connection.
    Garbage,
}

#[derive(Default)]
struct Shared {
    mode: Mutex<Mode>,
    open: Mutex<Vec<TcpStream>>,
    /// Number of accepted connections.
    accepted: AtomicUsize,
}

pub(crate) struct Proxy {
    shared: Arc<Shared>,
    pub port: u16,
}

impl Proxy {
    /// Listens on a free loopback port until the process ends.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                of_thread.accepted.fetch_add(1, Ordering::Relaxed);
                match of_thread.mode() {
                    Mode::Refuse => {}
                    Mode::Garbage => _ = client.write_all(b"\0\xff\x16garbage\r\n\r\n"),
                    _ => {
                        if let Ok(server) = TcpStream::connect(target) {
                            of_thread.connect(&client, &server);
                        }
                    }
                }
            }
        });
        Self { shared, port }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("a lock") = mode;
    }

    /// Number of connections that were accepted so far, in any mode.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Ends all connections, wherever their data is.
    pub(crate) fn cut(&self) {
        for connection in self.shared.open.lock().expect("a lock").drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().expect("a lock")
    }

    fn connect(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        self.open.lock().expect("a lock").extend([copy(client), copy(server)]);
        for (from, to, is_answer) in [(copy(client), copy(server), false), (copy(server), copy(client), true)] {
            let this = Arc::clone(self);
            std::thread::spawn(move || this.forward(from, to, is_answer));
        }
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
        let mut piece = [0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            match self.mode() {
                Mode::Delay => std::thread::sleep(DELAY),
                Mode::LoseAnswers if is_answer => break,
                _ => {}
            }
            if to.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
