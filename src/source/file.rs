//! Messages from files and standard input, plain or compressed.

mod input;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use self::input::{Counted, Input, plain};
use super::records::Records;
use crate::checkpoint::{Bookmark, FirstRecord, Position};
use crate::port::{Message, Origin, Polled, Source, SourceError};

/// Records that one poll skips at most, because an earlier process has read them.
const SKIPPED_MAX: usize = 1 << 16;

/// The records of one file after another. If a file is one JSON array, or an object whose first member is an array
/// (`{"Records":[…]}`), its elements are the records. Otherwise each line is a record, or each JSON value over several
/// lines. gzip and zstd are detected by the first bytes.
///
/// A record's position is its file's path, partition 0 and its number from 0; empty lines count too. If a file cannot
/// be read to its end, its readable part is returned and then an error. The next poll continues with the next file.
pub struct FileSource {
    waiting: std::vec::IntoIter<PathBuf>,
    current: Option<Reader>,
    /// Where files continue that an earlier process has read in part.
    resumed: Vec<Bookmark>,
    /// Files that were read to their end.
    done: Vec<Bookmark>,
    progress: Progress,
}

/// Progress of a [`FileSource`], readable by other threads.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Progress {
    /// Bytes read so far; compressed files count with their compressed size.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes in all files; `None` if one of them is a pipe.
    pub(crate) const fn bytes_total(&self) -> Option<u64> {
        self.total
    }
}

impl FileSource {
    /// Files are read in the order given; `-` is standard input. Fails at once for an unreadable path, before anything
    /// is processed.
    pub fn open(paths: Vec<PathBuf>) -> Result<Self, SourceError> {
        if paths.is_empty() {
            return Err(SourceError::Misconfigured("no file is given".to_owned()));
        }
        let mut total = Some(0);
        for path in &paths {
            let size = if is_stdin(path) { None } else { size_of(path)? };
            total = total.zip(size).map(|(total, size)| total + size);
        }
        let progress = Progress { read: Arc::default(), total };
        Ok(Self { waiting: paths.into_iter(), current: None, resumed: Vec::new(), done: Vec::new(), progress })
    }

    pub(crate) fn progress(&self) -> Progress {
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
        let (mut count, mut skipped) = (0, 0);
        while count < max {
            let Some(reader) = &mut self.current else {
                // Return the records that were read rather than wait for the next file.
                if count > 0 {
                    break;
                }
                match self.waiting.next() {
                    Some(path) => {
                        let mut reader = Reader::open(&path, &self.progress)?;
                        let resumed = self.resumed.iter().find(|bookmark| *bookmark.path == *reader.position.topic);
                        reader.at.resumed = resumed.filter(|_| reader.at.is_file).cloned();
                        self.current = Some(reader);
                    }
                    None => return Ok(Polled::End),
                }
                continue;
            };
            if let Some((number, payload)) = reader.records.next(reader.ended) {
                if !reader.at.reach(&reader.position.topic, number, payload) {
                    skipped += 1;
                    if skipped == SKIPPED_MAX {
                        break;
                    }
                    continue;
                }
                reader.position.offset = number;
                take(Message {
                    position: &reader.position,
                    payload,
                    key: None,
                    logged_at: None,
                    replayed: false,
                    origin: Origin::Here,
                });
                count += 1;
            } else if !reader.ended {
                let patience = if count == 0 { timeout } else { Duration::ZERO };
                if !reader.fill(patience, &self.progress) {
                    break;
                }
            } else if count > 0 {
                break;
            } else if let Some(reader) = self.current.take() {
                self.done.extend(reader.bookmark());
                if let Some(fault) = reader.fault {
                    return Err(fault);
                }
                reader.at.warn_if_short(&reader.position.topic);
            }
        }
        Ok(Polled::Messages(count))
    }

    fn bookmarks(&self) -> Vec<Bookmark> {
        let current = self.current.as_ref().and_then(Reader::bookmark);
        let mut bookmarks: Vec<_> = self.done.iter().cloned().chain(current).collect();
        // Files that are not opened, or not yet.
        for resumed in &self.resumed {
            if bookmarks.iter().all(|bookmark| bookmark.path != resumed.path) {
                bookmarks.push(resumed.clone());
            }
        }
        bookmarks
    }

    fn resume(&mut self, bookmarks: Vec<Bookmark>) {
        self.resumed = bookmarks;
    }
}

/// Position in a file, to continue there after a restart.
#[derive(Default)]
struct ReadPosition {
    /// A pipe or a terminal cannot be read again.
    is_file: bool,
    first: Option<FirstRecord>,
    /// Number of the next record.
    next: i64,
    /// Where an earlier process stopped. `None` from there on.
    resumed: Option<Bookmark>,
}

impl ReadPosition {
    /// Moves on to the record with `number`. Returns whether it is new: not among those that an earlier process has read.
    fn reach(&mut self, path: &str, number: i64, payload: &[u8]) -> bool {
        let first = *self.first.get_or_insert_with(|| FirstRecord { number, hash: xxh3_64(payload) });
        self.next = number + 1;
        let Some(bookmark) = &self.resumed else { return true };
        if bookmark.first != first {
            tracing::warn!(path, "the file begins with another record than before; reading it from its beginning");
        } else if number < bookmark.next {
            return false;
        }
        self.resumed = None;
        true
    }

    /// All records of the file were read before. It must have as many as then.
    fn warn_if_short(&self, path: &str) {
        if let Some(bookmark) = &self.resumed
            && self.next < bookmark.next
        {
            let (records, before) = (self.next, bookmark.next);
            tracing::warn!(path, records, before, "the file is shorter than when it was read before; it was skipped");
        }
    }
}

/// One file being read.
struct Reader {
    at: ReadPosition,
    position: Position,
    input: Input,
    records: Records,
    ended: bool,
    /// Why the file ended too early.
    fault: Option<SourceError>,
    /// Bytes of all files read before this one was opened.
    read_before: u64,
}

impl Reader {
    fn open(path: &Path, progress: &Progress) -> Result<Self, SourceError> {
        let counted = Arc::clone(&progress.read);
        let read_before = progress.bytes_read();
        let mut is_file = false;
        let input = if is_stdin(path) {
            super::stdin::open().and_then(|inner| Input::piped(Counted { inner, counted }))
        } else {
            let inner = File::open(path).map_err(|error| unreadable(path, &error))?;
            match size_of(path)? {
                Some(_) => {
                    is_file = true;
                    plain(Counted { inner, counted }).map(Input::Direct)
                }
                None => Input::piped(Counted { inner, counted }),
            }
        }
        .map_err(|error| unreadable(path, &error))?;
        Ok(Self {
            at: ReadPosition { is_file, ..ReadPosition::default() },
            position: Position::new(path.to_string_lossy(), 0, 0),
            input,
            records: Records::new(),
            ended: false,
            fault: None,
            read_before,
        })
    }

    /// Where the file continues. `None`: it has no record, or cannot be read again.
    fn bookmark(&self) -> Option<Bookmark> {
        let ReadPosition { is_file, first, next, resumed } = &self.at;
        let path = self.position.topic.to_string();
        // Records that an earlier process has read may not be reached yet.
        let next = resumed.as_ref().map_or(*next, |bookmark| bookmark.next.max(*next));
        let first = first.or_else(|| resumed.as_ref().map(|bookmark| bookmark.first))?;
        is_file.then_some(Bookmark { path, next, first })
    }

    /// Reads more bytes, or notes the end. `false` if none came in time.
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

/// The contents of the file at `path`, decompressed like in a [`FileSource`].
pub(crate) fn contents(path: &Path) -> io::Result<impl Read> {
    plain(File::open(path)?)
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::TempDir;

    use super::*;

    /// All records of a source until its end, and its errors.
    fn drain(source: &mut FileSource, max: usize) -> (Vec<(String, i64, String)>, Vec<SourceError>) {
        let (mut messages, mut errors) = (Vec::new(), Vec::new());
        loop {
            let polled = source.poll(max, Duration::from_secs(5), &mut |message| {
                assert_eq!(message.position.partition, 0);
                let path =
                    Path::new(&*message.position.topic).file_name().expect("a name").to_string_lossy().into_owned();
                messages.push((path, message.position.offset, String::from_utf8_lossy(message.payload).into_owned()));
            });
            match polled {
                Ok(Polled::End) => return (messages, errors),
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
    }

    /// Reads `files`, continued at `bookmarks`.
    fn resumed(files: &[&PathBuf], bookmarks: Vec<Bookmark>) -> (Vec<(String, i64, String)>, Vec<Bookmark>) {
        let mut source = FileSource::open(files.iter().map(|path| (*path).clone()).collect()).expect("it opens");
        source.resume(bookmarks);
        let (messages, errors) = drain(&mut source, 2);
        assert!(errors.is_empty(), "{errors:?}");
        (messages, source.bookmarks())
    }

    fn records(file: &str, records: &[(i64, &str)]) -> Vec<(String, i64, String)> {
        records.iter().map(|(number, text)| (file.to_owned(), *number, (*text).to_owned())).collect()
    }

    #[test]
    fn file_continues_where_it_was_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (file(&folder, "one", b"\na\nb\nc\n"), file(&folder, "two", &gzip(b"x\ny\n")));
        let mut source = FileSource::open(vec![one.clone(), two.clone()]).expect("it opens");
        assert_eq!(source.bookmarks(), []);
        let polled = source.poll(2, Duration::ZERO, &mut |_| {});
        assert_eq!(polled.expect("two records"), Polled::Messages(2));
        let bookmarks = source.bookmarks();
        assert_eq!(bookmarks.iter().map(|bookmark| bookmark.next).collect::<Vec<_>>(), [3]);
        let (rest, at_end) = resumed(&[&one, &two], bookmarks.clone());
        assert_eq!(rest, [records("one", &[(3, "c")]), records("two", &[(0, "x"), (1, "y")])].concat());
        assert_eq!(resumed(&[&one, &two], at_end.clone()), (Vec::new(), at_end.clone()));
        file(&folder, "one", b"\na\nb\nc\nd\n");
        assert_eq!(resumed(&[&one], at_end.clone()).0, records("one", &[(4, "d")]));
        let (_, kept) = resumed(&[&one], at_end.clone());
        assert!(kept.contains(&at_end[1]), "the place in a file that is not read now is kept");
    }

    #[test]
    fn other_file_at_the_same_path_is_read_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(&folder, "log", b"a\nb\nc\n");
        let (_, bookmarks) = resumed(&[&path], Vec::new());
        file(&folder, "log", b"x\nb\nc\n");
        assert_eq!(resumed(&[&path], bookmarks.clone()).0, records("log", &[(0, "x"), (1, "b"), (2, "c")]));
        file(&folder, "log", b"a\nb\n");
        assert_eq!(resumed(&[&path], bookmarks.clone()), (Vec::new(), bookmarks), "a shorter file has no new record");
    }

    #[test]
    fn many_known_records_are_skipped_in_several_polls() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = "a\n".repeat(SKIPPED_MAX + 10);
        let path = file(&folder, "log", lines.as_bytes());
        let (all, mut bookmarks) = resumed(&[&path], Vec::new());
        bookmarks[0].next -= 1;
        assert_eq!(resumed(&[&path], bookmarks).0, all[all.len() - 1..]);
    }

    fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("writing to a vector succeeds");
        encoder.finish().expect("writing to a vector succeeds")
    }

    fn message(name: &str, number: i64, text: &str) -> (String, i64, String) {
        (name.to_owned(), number, text.to_owned())
    }

    #[test]
    fn plain_and_compressed_files_are_read_in_order() {
        let folder = TempDir::new().expect("a folder");
        let two_members = [gzip(b"c\n"), gzip(b"d\n")].concat();
        let paths = vec![
            file(&folder, "plain", b"a\nb"),
            file(&folder, "empty", b""),
            file(&folder, "gz", &two_members),
            file(&folder, "zst", &zstd::encode_all(&b"e\n"[..], 1).expect("zstd")),
        ];
        let total: u64 = paths.iter().map(|path| path.metadata().expect("the file exists").len()).sum();
        for max in [1, 2, 100] {
            let mut source = FileSource::open(paths.clone()).expect("the files open");
            assert_eq!(source.progress().bytes_total(), Some(total));
            let (messages, errors) = drain(&mut source, max);
            let expected = [("plain", 0, "a"), ("plain", 1, "b"), ("gz", 0, "c"), ("gz", 1, "d"), ("zst", 0, "e")];
            assert_eq!(messages, expected.map(|(name, number, text)| message(name, number, text)));
            assert!(errors.is_empty());
            assert_eq!(source.progress().bytes_read(), total);
        }
    }

    #[test]
    fn delivery_file_yields_its_records() {
        let folder = TempDir::new().expect("a folder");
        let path = file(&folder, "delivery", &gzip(br#"{"Records":[{"a":1},{"b":2}]}"#));
        let mut source = FileSource::open(vec![path]).expect("the file opens");
        let expected = vec![message("delivery", 0, r#"{"a":1}"#), message("delivery", 1, r#"{"b":2}"#)];
        assert_eq!(drain(&mut source, 10).0, expected);
    }

    #[test]
    fn truncated_file_is_read_to_its_end_then_the_next() {
        let folder = TempDir::new().expect("a folder");
        let lines: String = (0..20_000).fold(String::new(), |lines, number| lines + &format!("{{\"n\":{number}}}\n"));
        let compressed = gzip(lines.as_bytes());
        let zstd = zstd::encode_all(lines.as_bytes(), 1).expect("zstd");
        for (name, whole) in [("cut.gz", compressed), ("cut.zst", zstd)] {
            let cut = file(&folder, name, &whole[..whole.len() / 2]);
            let after = file(&folder, "after", b"z\n");
            let mut source = FileSource::open(vec![after.clone(), cut, after]).expect("the files open");
            let (messages, errors) = drain(&mut source, 1000);
            let from_cut = messages.iter().filter(|(from, ..)| from == name).count();
            // zstd decompresses whole blocks only.
            assert!(from_cut > 1000 || name == "cut.zst", "{name}: {from_cut}");
            assert_eq!(messages.last(), Some(&message("after", 0, "z")));
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.len(), 1, "{texts:?}");
            assert!(texts[0].contains(name) && texts[0].contains(&format!("byte {}", whole.len() / 2)), "{texts:?}");
        }
    }

    #[test]
    fn open_error_names_the_path() {
        let folder = TempDir::new().expect("a folder");
        let error = |path: PathBuf| match FileSource::open(vec![path]) {
            Ok(mut source) => drain(&mut source, 10).1.first().map(ToString::to_string).unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        assert!(error(folder.path().join("missing")).ends_with("missing: there is no such file"));
        assert!(error(folder.path().to_owned()).ends_with("is a directory: name the files in it"));
        let xz = file(&folder, "events.xz", b"\xfd7zXZ\0rest");
        assert!(error(xz).ends_with("events.xz: xz data; only gzip and zstd are read"));
        assert!(FileSource::open(Vec::new()).is_err());
    }

    #[test]
    fn binary_file_yields_lines_of_bounded_length() {
        let folder = TempDir::new().expect("a folder");
        let bytes: Vec<u8> = (0..50_000_u32).map(|number| ((number * 7919) >> 3) as u8).collect();
        let mut source = FileSource::open(vec![file(&folder, "binary", &bytes)]).expect("it opens");
        let (messages, errors) = drain(&mut source, 100);
        assert!(!messages.is_empty() && errors.is_empty());
    }

    #[test]
    fn pipe_read_returns_at_its_timeout() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut input = Input::piped(reader).expect("a thread");
        let mut room = [0; 64];
        let waited = input.read(&mut room, Duration::from_millis(10));
        assert_eq!(waited.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
        writer.write_all(b"one line\n").expect("writing to the pipe succeeds");
        let mut line = Vec::new();
        while line.len() < 9 {
            let count = input.read(&mut room, Duration::from_secs(5)).expect("a part of the line");
            line.extend_from_slice(&room[..count]);
        }
        assert_eq!(line, b"one line\n");
        drop(writer);
        assert_eq!(input.read(&mut room, Duration::from_secs(5)).expect("the end"), 0);
    }
}
