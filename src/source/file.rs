//! Messages from files and standard input, plain or compressed.

use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;

use super::records::Records;
use crate::checkpoint::Position;
use crate::format::Format;
use crate::port::{Message, Polled, Source, SourceError};

/// The records of one file after another. A file that is one JSON array, bare or as `{"Records":[…]}` in CloudTrail's
/// format, yields its elements; any other yields its lines. gzip and zstd are told by their first bytes.
///
/// A record's position is its file's path, partition 0 and its number from 0; lines count even where they are empty. A
/// file that cannot be read to its end yields what could be read and then an error; polling again goes on with the
/// next file.
pub struct FileSource {
    waiting: std::vec::IntoIter<PathBuf>,
    current: Option<Reader>,
    format: Format,
    progress: Progress,
}

/// How far a [`FileSource`] has come, to be watched from elsewhere.
#[derive(Clone, Debug)]
pub struct Progress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Progress {
    /// Bytes read so far, as they lie in the files (compressed ones compressed).
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes in all files; `None` where one of them is a pipe.
    #[must_use]
    pub const fn bytes_total(&self) -> Option<u64> {
        self.total
    }
}

impl FileSource {
    /// Files are read in the order given; `-` is standard input. Fails at once for a path that cannot be read, so that
    /// nothing is done by halves.
    pub fn open(paths: Vec<PathBuf>, format: Format) -> Result<Self, SourceError> {
        if paths.is_empty() {
            return Err(SourceError::Misconfigured("no file is given".to_owned()));
        }
        let mut total = Some(0);
        for path in &paths {
            let size = if is_stdin(path) { None } else { size_of(path)? };
            total = total.zip(size).map(|(total, size)| total + size);
        }
        let progress = Progress { read: Arc::default(), total };
        Ok(Self { waiting: paths.into_iter(), current: None, format, progress })
    }

    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Source for FileSource {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<Polled, SourceError> {
        let mut count = 0;
        while count < max {
            let Some(reader) = &mut self.current else {
                // What was handed over must not wait for the next file.
                if count > 0 {
                    break;
                }
                match self.waiting.next() {
                    Some(path) => self.current = Some(Reader::open(&path, self.format, &self.progress)?),
                    None => return Ok(Polled::End),
                }
                continue;
            };
            if let Some((number, payload)) = reader.records.next(reader.ended) {
                reader.position.offset = number;
                take(Message { position: &reader.position, payload, key: None, replayed: false });
                count += 1;
            } else if !reader.ended {
                let patience = if count == 0 { timeout } else { Duration::ZERO };
                if !reader.fill(patience, &self.progress) {
                    break;
                }
            } else if count > 0 {
                break;
            } else if let Some(fault) = self.current.take().and_then(|reader| reader.fault) {
                return Err(fault);
            }
        }
        Ok(Polled::Messages(count))
    }
}

/// One file being read.
struct Reader {
    position: Position,
    input: Input,
    records: Records,
    ended: bool,
    /// Why it ended too early.
    fault: Option<SourceError>,
    /// What had been read of all files when this one was opened.
    read_before: u64,
}

impl Reader {
    fn open(path: &Path, format: Format, progress: &Progress) -> Result<Self, SourceError> {
        let counted = Arc::clone(&progress.read);
        let input = if is_stdin(path) {
            Input::piped(Counted { inner: io::stdin(), counted })
        } else {
            let inner = File::open(path).map_err(|error| unreadable(path, &error))?;
            match size_of(path)? {
                Some(_) => plain(Counted { inner, counted }).map(Input::Direct),
                None => Input::piped(Counted { inner, counted }),
            }
        }
        .map_err(|error| unreadable(path, &error))?;
        let topic = path.to_string_lossy().into();
        Ok(Self {
            position: Position { topic, partition: 0, offset: 0 },
            input,
            records: Records::new(format == Format::Cloudtrail),
            ended: false,
            fault: None,
            read_before: progress.bytes_read(),
        })
    }

    /// Gets more bytes, or notes that there are none. `false` where none came in time.
    fn fill(&mut self, timeout: Duration, progress: &Progress) -> bool {
        match self.input.read(self.records.room(), timeout) {
            Ok(0) => self.ended = true,
            Ok(count) => self.records.filled(count),
            Err(error) if error.kind() == ErrorKind::TimedOut => return false,
            Err(error) => {
                let Self { position: Position { topic, offset, .. }, read_before, .. } = self;
                let byte = progress.bytes_read().saturating_sub(*read_before);
                let reason = format!("{topic}: unreadable from byte {byte} on, near record {offset}: {error}");
                self.fault = Some(match error.kind() {
                    ErrorKind::PermissionDenied => SourceError::Unavailable(reason),
                    _ => SourceError::Unusable(reason),
                });
                self.ended = true;
            }
        }
        true
    }
}

/// Where bytes come from, decompressed.
enum Input {
    /// A regular file: reading it takes no time to speak of.
    Direct(Box<dyn Read + Send>),
    /// A pipe or a terminal: read by a thread, so that waiting for it can end.
    Piped { chunks: Receiver<io::Result<Vec<u8>>>, chunk: Cursor<Vec<u8>> },
}

impl Input {
    fn piped(raw: impl Read + Send + 'static) -> io::Result<Self> {
        // Two chunks are on their way at most; an allocation for each is cheap beside the pipe.
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

    /// Reads what there is, 0 bytes at the end; `TimedOut` where nothing came.
    fn read(&mut self, room: &mut [u8], timeout: Duration) -> io::Result<usize> {
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

/// Decompresses what its first bytes say is compressed.
fn plain(mut raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
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

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const MAGIC_BYTES_MAX: u64 = 6;
/// Compressed bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Compressions that are told apart only to say so.
const FOREIGN: [(&[u8], &str); 3] =
    [(&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"), (b"BZh", "bzip2"), (b"PK\x03\x04", "zip")];

/// Counts what is read.
struct Counted<R> {
    inner: R,
    counted: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(room)?;
        self.counted.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Bytes in a regular file, `None` for a pipe.
fn size_of(path: &Path) -> Result<Option<u64>, SourceError> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        let reason = format!("{} is a directory: name the files in it", path.display());
        return Err(SourceError::Misconfigured(reason));
    }
    Ok(metadata.is_file().then_some(metadata.len()))
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => SourceError::Misconfigured(format!("{path}: there is no such file")),
        ErrorKind::Unsupported => SourceError::Unusable(format!("{path}: {error}")),
        _ => SourceError::Unavailable(format!("{path}: {error}")),
    }
}
