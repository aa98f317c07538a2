//! The decompressed bytes of a file, a pipe or a terminal.

use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const MAGIC_BYTES_MAX: u64 = 6;
/// Compressed bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Compressions that are detected for the error text only.
const FOREIGN: [(&[u8], &str); 3] =
    [(&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"), (b"BZh", "bzip2"), (b"PK\x03\x04", "zip")];

/// The decompressed bytes of a file.
pub(super) enum Input {
    /// A regular file. A read does not block noticeably.
    Direct(Box<dyn Read + Send>),
    /// A pipe or a terminal, read by a thread so that a wait for it can time out.
    Piped { chunks: Receiver<io::Result<Vec<u8>>>, chunk: Cursor<Vec<u8>> },
}

impl Input {
    pub(super) fn piped(raw: impl Read + Send + 'static) -> io::Result<Self> {
        // At most two chunks are queued. An allocation for each is cheap compared with the pipe.
        const CHUNK_BYTES: usize = 64 * 1024;
        const CHUNKS_MAX: usize = 2;
        let (sender, chunks) = mpsc::sync_channel(CHUNKS_MAX);
        std::thread::Builder::new().name("read-input".to_owned()).spawn(move || {
            let mut input = match plain(raw) {
                Ok(input) => input,
                Err(error) => return drop(sender.send(Err(error))),
            };
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let result = read_some(&mut input, &mut chunk);
                let go_on = matches!(result, Ok(1..));
                let sent = sender.send(result.map(|count| {
                    chunk.truncate(count);
                    chunk
                }));
                if !go_on || sent.is_err() {
                    return;
                }
            }
        })?;
        Ok(Self::Piped { chunks, chunk: Cursor::default() })
    }

    /// Reads available bytes, 0 at the end; `TimedOut` if none came.
    pub(super) fn read(&mut self, room: &mut [u8], timeout: Duration) -> io::Result<usize> {
        match self {
            Self::Direct(input) => read_some(input, room),
            Self::Piped { chunks, chunk } => {
                if chunk.position() == chunk.get_ref().len() as u64 {
                    *chunk = match chunks.recv_timeout(timeout) {
                        Ok(next) => Cursor::new(next?),
                        Err(RecvTimeoutError::Timeout) => return Err(ErrorKind::TimedOut.into()),
                        Err(RecvTimeoutError::Disconnected) => return Ok(0),
                    };
                }
                chunk.read(room)
            }
        }
    }
}

fn read_some(input: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Decompresses `raw` if its first bytes are those of gzip or zstd.
pub(super) fn plain(mut raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::with_capacity(MAGIC_BYTES_MAX as usize);
    raw.by_ref().take(MAGIC_BYTES_MAX).read_to_end(&mut head)?;
    let foreign = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some((_, name)) = foreign {
        return Err(io::Error::new(ErrorKind::Unsupported, format!("{name} data; only gzip and zstd are read")));
    }
    let (gzip, zstd) = (head.starts_with(GZIP), head.starts_with(ZSTD));
    let raw = Cursor::new(head).chain(raw);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, raw)))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::new(raw)?)
    } else {
        Box::new(raw)
    })
}

/// Counts the bytes read.
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) counted: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(room)?;
        self.counted.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
