//! Reads SQL as far as the endpoint needs it: where an INSERT's rows begin, the format of a result, and statements that
//! callers must not run in an engine with this process's rights.
//!
//! The engine is `clickhouse-local`. Unlike a server's HTTP interface it reads and writes local files (`INTO OUTFILE`,
//! `FROM INFILE`, the function `file`), even with `readonly`, and runs several statements at a time. The endpoint
//! refuses all of these, and any text that can be read in two ways.

/// An INSERT with rows in a format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Insert<'a> {
    /// Up to the word FORMAT: `INSERT INTO t (a, b)`.
    pub(crate) head: &'a str,
    pub(crate) format: &'a str,
    /// Rows in the statement's own text, after the format's name; more may follow in the request's body.
    pub(crate) rows: &'a [u8],
}

/// Table functions of ClickHouse 26.5 (`system.table_functions`) that open files, servers, programs or arbitrary
/// tables, some even when a query is only explained; and functions that read a file or use the network. Lower case.
const OUTSIDE: &[&str] = &[
    "arrowflight",
    "arrowstream",
    "azureblobstorage",
    "azureblobstoragecluster",
    "catboostevaluate",
    "cluster",
    "clusterallreplicas",
    "cosn",
    "deltalake",
    "deltalakeazure",
    "deltalakeazurecluster",
    "deltalakecluster",
    "deltalakelocal",
    "deltalakes3",
    "deltalakes3cluster",
    "dictionary",
    "executable",
    "file",
    "filecluster",
    "filesystem",
    "fuzzjson",
    "fuzzquery",
    "gcs",
    "generaterandom",
    "hdfs",
    "hdfscluster",
    "hudi",
    "hudicluster",
    "iceberg",
    "icebergazure",
    "icebergazurecluster",
    "icebergcluster",
    "iceberghdfs",
    "iceberghdfscluster",
    "iceberglocal",
    "iceberglocalcluster",
    "icebergs3",
    "icebergs3cluster",
    "input",
    "jdbc",
    "loop",
    "merge",
    "mergetreeanalyzeindexes",
    "mergetreeanalyzeindexesuuid",
    "mergetreeindex",
    "mergetreeprojection",
    "mergetreetextindex",
    "mongodb",
    "mysql",
    "odbc",
    "oss",
    "paimon",
    "paimonazure",
    "paimonazurecluster",
    "paimoncluster",
    "paimonhdfs",
    "paimonhdfscluster",
    "paimonlocal",
    "paimons3",
    "paimons3cluster",
    "postgresql",
    "prometheusquery",
    "prometheusqueryrange",
    "python",
    "redis",
    "remote",
    "remotesecure",
    "reversednsquery",
    "s3",
    "s3cluster",
    "sqlite",
    "sqlstandardvalues",
    "timeseriesdata",
    "timeseriesmetrics",
    "timeseriesselector",
    "timeseriestags",
    "url",
    "urlcluster",
    "viewexplain",
    "viewifpermitted",
    "ytsaurus",
];

/// Whether an analyst may not call `name`.
fn is_outside(name: &[u8]) -> bool {
    OUTSIDE.iter().any(|outside| outside.as_bytes().eq_ignore_ascii_case(name))
}

/// Parses `text` as an INSERT whose rows follow; `None` for everything else, including `INSERT … SELECT` and `…
/// VALUES`.
pub(super) fn insert(text: &[u8]) -> Option<Insert<'_>> {
    let mut tokens = Tokens::new(text).filter(|token| token.depth == 0);
    tokens.next().filter(|first| first.is("INSERT"))?;
    while let Some(token) = tokens.next() {
        if ["SELECT", "WITH", "VALUES", "FROM", "WATCH"].iter().any(|word| token.is(word)) {
            return None;
        }
        if token.is("FORMAT") {
            let name = tokens.next().filter(|name| name.kind == Kind::Word && !name.is("VALUES"))?;
            let head = std::str::from_utf8(text.get(..token.start)?).ok()?.trim_end();
            let format = std::str::from_utf8(name.text).ok()?;
            let rows = text.get(name.start + name.text.len()..)?;
            return Some(Insert { head, format, rows: after_line_break(rows) });
        }
    }
    None
}

/// The format that the statement itself names.
pub(super) fn format(text: &[u8]) -> Option<&str> {
    let mut found = None;
    let mut tokens = Tokens::new(text).filter(|token| token.depth == 0).peekable();
    while let Some(token) = tokens.next() {
        if token.is("FORMAT")
            && let Some(name) = tokens.peek().filter(|name| name.kind == Kind::Word)
        {
            found = std::str::from_utf8(name.text).ok();
        }
    }
    found
}

/// The statements of a script in order, without those that are only comments.
pub(super) fn split(script: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut begin = None;
    for token in Tokens::new(script.as_bytes()) {
        if token.kind == Kind::Symbol(b';') {
            statements.extend(begin.take().and_then(|begin| script.get(begin..token.start)));
        } else {
            begin.get_or_insert(token.start);
        }
    }
    statements.extend(begin.and_then(|begin| script.get(begin..)).map(str::trim_end));
    statements
}

/// A text as a literal of ClickHouse.
pub(super) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Refuses a second statement and files in SQL, for all callers.
pub(super) fn check(text: &[u8]) -> Result<(), &'static str> {
    let mut ended = false;
    for token in Tokens::new(text) {
        if ended && token.kind != Kind::Symbol(b';') {
            return Err("one statement at a time");
        }
        ended |= token.kind == Kind::Symbol(b';');
        if token.is("OUTFILE") || token.is("INFILE") {
            return Err("INTO OUTFILE and FROM INFILE are not allowed");
        }
    }
    Ok(())
}

/// As [`check`], and refuses everything that the engine's own `readonly` allows but an analyst must not do.
pub(super) fn check_read_only(text: &[u8]) -> Result<(), &'static str> {
    check(text)?;
    let mut tokens = Tokens::new(text).skip_while(|token| token.kind == Kind::Symbol(b'(')).peekable();
    let Some(first) = tokens.peek().copied() else { return Err("the query is empty") };
    if !["SELECT", "WITH", "FROM", "SHOW", "EXISTS", "DESCRIBE", "DESC", "EXPLAIN"].iter().any(|word| first.is(word)) {
        return Err("only SELECT, WITH, SHOW, EXISTS, DESCRIBE and EXPLAIN are allowed");
    }
    let describes = first.is("DESCRIBE") || first.is("DESC");
    while let Some(token) = tokens.next() {
        let called = tokens.peek().is_some_and(|next| next.kind == Kind::Symbol(b'('));
        match token.kind {
            Kind::Unclear => return Err("nested comments, unclosed quotes and symbols beyond ASCII are not allowed"),
            // The engine accepts a subquery's own settings even with `readonly`.
            Kind::Word if token.is("SETTINGS") && sets_one(tokens.clone()) => {
                return Err("SETTINGS are not allowed in the query; pass them in the URL");
            }
            // Escapes inside quotes could spell any name.
            Kind::Quoted(b'"' | b'`') if called => return Err("a function's name must not be quoted"),
            Kind::Word if called && is_outside(token.text) => {
                return Err("functions that open files, servers or programs are not allowed");
            }
            // DESCRIBE opens what a table function names, for example a file or a URL.
            Kind::Word if called && describes && !token.is("DESCRIBE") && !token.is("DESC") && !token.is("TABLE") => {
                return Err("DESCRIBE is allowed only with a table's name or a query without functions");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a name and a `=` follow.
fn sets_one<'a>(mut tokens: impl Iterator<Item = Token<'a>>) -> bool {
    let is_name = tokens.next().is_some_and(|name| matches!(name.kind, Kind::Word | Kind::Quoted(_) | Kind::Unclear));
    is_name && tokens.next().is_some_and(|sign| sign.kind == Kind::Symbol(b'='))
}

/// The rows after a format's name: after spaces and one line break.
fn after_line_break(rest: &[u8]) -> &[u8] {
    let rest = rest.trim_ascii_start_blank();
    let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
    rest.strip_prefix(b"\n").unwrap_or(rest)
}

trait TrimBlank {
    /// Without leading spaces, tabs and form feeds; line breaks stay.
    fn trim_ascii_start_blank(&self) -> &Self;
}

impl TrimBlank for [u8] {
    fn trim_ascii_start_blank(&self) -> &Self {
        let blanks = self.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\x0c')).count();
        self.get(blanks..).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A keyword, a bare name or a number.
    Word,
    /// Text between two of this quote; `$` for heredocs.
    Quoted(u8),
    Symbol(u8),
    /// Text that the engine might read in another way.
    Unclear,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a [u8],
    start: usize,
    /// Number of open parentheses around it.
    depth: u32,
}

impl Token<'_> {
    /// Whether it is the bare word, in any case.
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// The tokens of ClickHouse SQL, without comments.
#[derive(Clone)]
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Tokens<'a> {
    const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips white space and comments. Returns the length of a comment that can be read in two ways, if there is one.
    fn skip_blank(&mut self) -> Option<usize> {
        loop {
            let rest = self.rest();
            let length = match rest {
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => 1,
                [b'-', b'-', ..] | [b'/', b'/', ..] | [b'#', b' ' | b'!', ..] => {
                    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
                }
                [b'/', b'*', inside @ ..] => match inside.windows(2).position(|pair| pair == b"*/") {
                    Some(length) if !inside.get(..length)?.windows(2).any(|pair| pair == b"/*") => length + 4,
                    Some(length) => return Some(length + 4),
                    None => return Some(rest.len()),
                },
                _ => return None,
            };
            self.at += length;
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let unclear = self.skip_blank();
        let rest = self.rest();
        let &first = rest.first()?;
        let (kind, length) = match first {
            _ if unclear.is_some() => (Kind::Unclear, unclear.unwrap_or_default()),
            b'\'' | b'"' | b'`' => quoted(rest, first),
            b'$' => heredoc(rest),
            byte if is_word(byte) => (Kind::Word, rest.iter().take_while(|&&byte| is_word(byte)).count()),
            byte if byte.is_ascii() => (Kind::Symbol(byte), 1),
            _ => (Kind::Unclear, 1),
        };
        if kind == Kind::Symbol(b')') {
            self.depth = self.depth.saturating_sub(1);
        }
        let token = Token { kind, text: rest.get(..length).unwrap_or(rest), start: self.at, depth: self.depth };
        if kind == Kind::Symbol(b'(') {
            self.depth += 1;
        }
        self.at += length.max(1);
        Some(token)
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A backslash escapes the next byte. A doubled quote is read as two adjacent texts, with the same result.
fn quoted(rest: &[u8], quote: u8) -> (Kind, usize) {
    let mut escaped = false;
    for (at, &byte) in rest.iter().enumerate().skip(1) {
        if !escaped && byte == quote {
            return (Kind::Quoted(quote), at + 1);
        }
        escaped = !escaped && byte == b'\\';
    }
    (Kind::Unclear, rest.len())
}

/// `$tag$ … $tag$`.
fn heredoc(rest: &[u8]) -> (Kind, usize) {
    let tag = 2 + rest.iter().skip(1).take_while(|&&byte| is_word(byte)).count();
    let closing = rest
        .get(..tag)
        .filter(|opening| opening.ends_with(b"$"))
        .and_then(|opening| rest.get(tag..)?.windows(tag).position(|window| window == opening));
    closing.map_or((Kind::Unclear, 1), |length| (Kind::Quoted(b'$'), tag + length + tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_is_cut_before_its_rows() {
        let cut = |text| insert(text).map(|found| (found.head, found.format, found.rows));
        assert_eq!(
            cut(b"INSERT INTO t (a, format) FORMAT RowBinary\n\n\x01\n"),
            Some(("INSERT INTO t (a, format)", "RowBinary", b"\n\x01\n".as_slice()))
        );
        assert_eq!(
            cut(b"insert into `a format b` /* FORMAT X */ settings s='FORMAT Y' format CSV 1,2"),
            Some(("insert into `a format b` /* FORMAT X */ settings s='FORMAT Y'", "CSV", b"1,2".as_slice()))
        );
        assert_eq!(cut(b"INSERT INTO t VALUES ('FORMAT CSV')"), None);
        assert_eq!(cut(b"INSERT INTO t SELECT 1 FORMAT CSV"), None);
        assert_eq!(cut(b"INSERT INTO t FORMAT Values (1)"), None);
        assert_eq!(cut(b"SELECT 1 FORMAT CSV"), None);
    }

    #[test]
    fn format_is_that_of_the_outer_statement() {
        assert_eq!(format(b"SELECT 'FORMAT CSV' FROM (SELECT 1 FORMAT TSV)"), None);
        assert_eq!(format(b"SELECT 1 -- FORMAT CSV\nFORMAT JSON SETTINGS a = 1"), Some("JSON"));
    }

    #[test]
    fn split_ignores_semicolons_inside_text() {
        assert_eq!(split("-- a;\nSELECT ';' ; ; /* ; */ SELECT 2\n"), ["SELECT ';' ", "SELECT 2"]);
    }

    #[test]
    fn check_refuses_files_and_second_statements() {
        assert!(check(b"SELECT 1;  -- done\n ;").is_ok());
        for text in [
            b"SELECT 1; DROP TABLE t".as_slice(),
            b"SELECT 1 INTO /* x */ outfile '/tmp/x'",
            b"INSERT INTO t FROM INFILE '/etc/passwd'",
            b"SELECT $a$ ' $a$ INTO OUTFILE '/tmp/x'",
        ] {
            assert!(check(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert!(check(b"SELECT 'INTO OUTFILE'").is_ok());
    }

    #[test]
    fn check_read_only_allows_only_reads() {
        for text in [
            "SELECT count() FROM token_events WHERE endpoint LIKE '%file(%' AND city = 'Köln'",
            "(SELECT 1) UNION ALL (SELECT 2)",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "DESCRIBE TABLE token_events",
            "DESCRIBE (SELECT * FROM token_events)",
            "EXPLAIN indexes = 1 SELECT 1",
            "SHOW CREATE TABLE `token_events`",
            "SELECT `a b`, \"c\" FROM t -- naïve\n",
            "SELECT url, settings FROM t WHERE settings = 'x' AND file = 1",
            "SHOW SETTINGS LIKE '%memory%'",
        ] {
            assert_eq!(check_read_only(text.as_bytes()), Ok(()), "{text}");
        }
        for text in [
            "",
            "KILL QUERY WHERE 1",
            "SET readonly = 0",
            "SELECT file('/etc/passwd')",
            "SELECT file /* x */ ('/etc/passwd')",
            "SELECT `fi\\x6ce`('/etc/passwd')",
            "SELECT “ ' ”, file('/etc/passwd') -- '",
            "SELECT 1 /* /* */ ' */, file('/etc/passwd') -- '",
            "SELECT $a, file('/etc/passwd') /* $ */",
            "DESCRIBE TABLE url('http://169.254.169.254/')",
            "DESC s3('http://169.254.169.254/')",
            "SELECT 'unclosed",
            "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
            "SELECT * FROM (SELECT 1 settings /* x */ `max_memory_usage`=0)",
            "EXPLAIN SELECT * FROM S3 ('http://169.254.169.254/')",
        ] {
            assert!(check_read_only(text.as_bytes()).is_err(), "{text}");
        }
    }
}
