//! SQL, read just far enough to serve it: where an INSERT's rows begin, which format an answer has, and what a caller
//! may not ask of an engine that runs with this process's rights.
//!
//! The engine is `clickhouse-local` inside: besides the server's SQL it writes and reads local files for its user
//! (`INTO OUTFILE`, `FROM INFILE`, the function `file`), `readonly` or not, and runs several statements at a time.
//! A ClickHouse server's HTTP interface does none of it, nor do we. Where a text could be read in two ways, it is
//! refused.

/// An INSERT that brings its rows in a format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Insert<'a> {
    /// Up to the word FORMAT: `INSERT INTO t (a, b)`.
    pub head: &'a str,
    pub format: &'a str,
    /// Rows that stand in the statement's own text, after the format's name; more may follow in the request's body.
    pub rows: &'a [u8],
}

/// Table functions of ClickHouse 26.5 (`system.table_functions`) that open files, servers, programs or tables of any
/// name, some of them even when a query is only explained; and functions that read a file or ask the network. Lower case.
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

/// Whether a reader may not call `name`.
fn is_outside(name: &[u8]) -> bool {
    OUTSIDE.iter().any(|outside| outside.as_bytes().eq_ignore_ascii_case(name))
}

/// Reads `text` as an INSERT whose rows follow; `None` for all else, `INSERT … SELECT` and `… VALUES` included.
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

/// The format that the statement itself asks for.
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

/// The statements of a script, in order, without what is only comment.
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

/// Refuses what no caller may ask: a second statement, and files named in SQL.
pub(super) fn check(text: &[u8]) -> Result<(), &'static str> {
    let mut ended = false;
    for token in Tokens::new(text) {
        if ended && token.kind != Kind::Symbol(b';') {
            return Err("one statement at a time");
        }
        ended |= token.kind == Kind::Symbol(b';');
        if token.is("OUTFILE") || token.is("INFILE") {
            return Err("INTO OUTFILE and FROM INFILE are not to be had here");
        }
    }
    Ok(())
}

/// As [`check`], and refuses what a caller who may only read must not ask although the engine's own `readonly` lets
/// it pass.
pub(super) fn check_read_only(text: &[u8]) -> Result<(), &'static str> {
    check(text)?;
    let mut tokens = Tokens::new(text).skip_while(|token| token.kind == Kind::Symbol(b'(')).peekable();
    let Some(first) = tokens.peek().copied() else { return Err("the query is empty") };
    if !["SELECT", "WITH", "FROM", "SHOW", "EXISTS", "DESCRIBE", "DESC", "EXPLAIN"].iter().any(|word| first.is(word)) {
        return Err("only SELECT, WITH, SHOW, EXISTS, DESCRIBE and EXPLAIN are to be had here");
    }
    let describes = first.is("DESCRIBE") || first.is("DESC");
    while let Some(token) = tokens.next() {
        let called = tokens.peek().is_some_and(|next| next.kind == Kind::Symbol(b'('));
        match token.kind {
            Kind::Unclear => return Err("nested comments, unclosed quotes and symbols beyond ASCII are not read here"),
            // The engine lets a subquery's own settings pass, `readonly` or not.
            Kind::Word if token.is("SETTINGS") && sets_one(tokens.clone()) => {
                return Err("SETTINGS are not to be had here; they may stand in the URL");
            }
            // Escapes could spell any name inside quotes.
            Kind::Quoted(b'"' | b'`') if called => return Err("a function's name must stand without quotes here"),
            Kind::Word if called && is_outside(token.text) => {
                return Err("functions that open files, servers or programs are not to be had here");
            }
            // DESCRIBE opens what a table function names: a file, a URL.
            Kind::Word if called && describes && !token.is("DESCRIBE") && !token.is("DESC") && !token.is("TABLE") => {
                return Err("DESCRIBE takes a table's name or a query without functions here");
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

/// What follows a format's name is rows, after spaces and one line break.
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
    /// A keyword, a bare name, a number.
    Word,
    /// Text between this quote and its like; `$` for heredocs.
    Quoted(u8),
    Symbol(u8),
    /// What might be read in another way by the engine.
    Unclear,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a [u8],
    start: usize,
    /// Parentheses open around it.
    depth: u32,
}

impl Token<'_> {
    /// Whether it is the bare word, in any case.
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// The tokens of ClickHouse SQL, comments left out.
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

    /// Steps over white space and comments; the length of a comment that may be read in two ways, if it meets one.
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

/// A backslash takes the next byte with it; a doubled quote reads as two texts side by side, which comes to the same.
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
    fn an_insert_is_cut_where_its_rows_begin() {
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
    fn the_format_is_the_statements_own() {
        assert_eq!(format(b"SELECT 'FORMAT CSV' FROM (SELECT 1 FORMAT TSV)"), None);
        assert_eq!(format(b"SELECT 1 -- FORMAT CSV\nFORMAT JSON SETTINGS a = 1"), Some("JSON"));
    }

    #[test]
    fn a_script_splits_at_semicolons_that_are_not_text() {
        assert_eq!(split("-- a;\nSELECT ';' ; ; /* ; */ SELECT 2\n"), ["SELECT ';' ", "SELECT 2"]);
    }

    #[test]
    fn nobody_reaches_files_or_a_second_statement() {
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
    fn a_reader_only_reads() {
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
