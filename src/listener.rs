//! Connections of an HTTP listener: their number, and the times within which a client must send.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Maximum number of connections. Others wait in the queue of the operating system.
const CONNECTIONS_MAX: usize = 256;
/// Time within which the headers of a request must arrive.
pub(crate) const HEADERS_WAIT: Duration = Duration::from_secs(10);
/// Time after which a connection ends with its current request.
const CONNECTION_WAIT: Duration = Duration::from_secs(120);
/// Time limit of that request and its answer.
const LAST_WAIT: Duration = Duration::from_secs(40);
/// Wait after a connection that cannot be accepted, for example because too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves `router` to the clients of `listener`, which must send their headers within `headers_wait`.
pub(crate) async fn serve(listener: TcpListener, router: Router, headers_wait: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router, headers_wait).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Errors of a connection are those of its client.
async fn connection(stream: TcpStream, router: Router, headers_wait: Duration) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(headers_wait);
    let mut answering = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    if tokio::time::timeout(CONNECTION_WAIT, answering.as_mut()).await.is_err() {
        answering.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_WAIT, answering).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn client_without_headers_is_disconnected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, Router::new(), Duration::from_millis(50)));
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.expect("sent");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(HEADERS_WAIT, client.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is open");
    }
}
