//! The floors of the house, as `src/lib.rs` tells them: imports go down only, no adapter sees another, and judgement
//! uses nothing that would make it depend on more than its arguments.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Floors of which each module stands alone.
const ADAPTERS: usize = 3;
const JUDGEMENT: usize = 1;

/// What judgement does without, and what would come in by it.
const NOT_IN_JUDGEMENT: [(&str, &str); 9] = [
    ("tokio", "waiting"),
    ("async", "waiting"),
    ("serde", "formats"),
    ("serde_json", "formats"),
    ("tracing", "logging"),
    ("rand", "chance"),
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("RandomState", "an order by chance"),
];

#[test]
fn imports_go_down_the_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors(&std::fs::read_to_string(root.join("lib.rs")).expect("lib.rs"));
    assert!(floors.len() > 20, "the floors in lib.rs are not read: {floors:?}");
    let mut wrong = String::new();
    let mut seen = 0;
    for file in rust_files(&root) {
        let source = std::fs::read_to_string(&file).expect("a source");
        let path = file.strip_prefix(&root).expect("below src");
        let module = path.iter().next().and_then(|part| Path::new(part).file_stem()).and_then(|stem| stem.to_str());
        let module = module.expect("a module's name");
        if matches!(module, "lib" | "main") {
            continue;
        }
        seen += 1;
        for (line, reason) in violations(module, path, &source, &floors) {
            writeln!(wrong, "src/{}:{line}: {reason}", path.display()).expect("text");
        }
    }
    assert!(seen > 30, "the sources are not found");
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The checker itself, on small houses.
#[test]
fn violations_are_found_where_they_are() {
    let floors = floors("//! 0. words: [`event`]\n//! 1. judgement: [`term`]\n//! 3. adapters: [`wire`], [`store`]\n");
    let check = |module: &str, source: &str| {
        let path = PathBuf::from(format!("{module}/inner.rs"));
        violations(module, &path, source, &floors).into_iter().map(|(line, _)| line).collect::<Vec<_>>()
    };
    assert_eq!(check("store", "use crate::event::Event;\nuse crate::term;"), Vec::<usize>::new());
    assert_eq!(check("event", "\nuse crate::term::X;"), [2], "up");
    assert_eq!(check("store", "use crate::{\n    event::{self, Event},\n    wire::Decoder,\n};"), [3], "an adapter");
    assert_eq!(check("store", "fn f() {\n    crate::wire::g();\n}"), [2], "a path in the code");
    assert_eq!(check("store", "use super::super::wire;"), [1], "by way of the root");
    assert_eq!(check("store", "// crate::wire\nlet a = \"crate::wire\"; /* crate::wire */"), Vec::<usize>::new());
    assert_eq!(check("term", "use std::time::Instant;\nfn x() {}\nasync fn y() {}"), [1, 3]);
    assert_eq!(check("attic", "\n"), [1], "stands on no floor");
}

/// Floor of each module, from lines such as "//! 0. words: [`event`], [`mod@format`]".
fn floors(lib: &str) -> BTreeMap<String, usize> {
    let mut floors = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let Some((number, modules)) = line.split_once(". ").and_then(|(n, rest)| Some((n.parse().ok()?, rest))) else {
            continue;
        };
        for module in modules.split('`').skip(1).step_by(2) {
            floors.insert(module.trim_start_matches("mod@").to_owned(), number);
        }
    }
    floors
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Line and reason of everything in `source`, a file of `module` at `path` below `src`, that the floors forbid.
fn violations(module: &str, path: &Path, source: &str, floors: &BTreeMap<String, usize>) -> Vec<(usize, String)> {
    let Some(&floor) = floors.get(module) else {
        return vec![(1, format!("`{module}` stands on no floor: name it in the list in src/lib.rs"))];
    };
    let code = code_of(source);
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (at, other) in modules_used(&code, path) {
        let Some(&below) = floors.get(&other) else { continue };
        if other == module {
            continue;
        }
        if below > floor {
            found.push((line_of(at), format!("`{module}` (floor {floor}) uses `{other}` (floor {below}), above it")));
        } else if below == floor && floor == ADAPTERS {
            found.push((line_of(at), format!("adapter `{module}` uses adapter `{other}`")));
        }
    }
    if floor == JUDGEMENT {
        for (at, word) in words(&code) {
            if let Some((_, what)) = NOT_IN_JUDGEMENT.iter().find(|(name, _)| *name == word) {
                found.push((line_of(at), format!("judgement must do without {what}: `{word}`")));
            }
        }
    }
    found
}

/// Every top-level module that the code names, and where.
fn modules_used(code: &str, path: &Path) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            heads(code, at + start.len(), &mut used);
        }
    }
    // At the file's own level, as many `super` as the module is deep lead to the root.
    let file = path.file_name().is_some_and(|name| name == "mod.rs");
    let depth = path.iter().count() - usize::from(file);
    let to_root = format!("use {}", "super::".repeat(depth));
    for (at, start) in code.match_indices(&to_root) {
        if at == 0 || code[..at].ends_with('\n') {
            heads(code, at + start.len(), &mut used);
        }
    }
    used
}

/// The name at `at`, or the first name of each path in the braces there.
fn heads(code: &str, at: usize, used: &mut Vec<(usize, String)>) {
    let rest = &code[at..];
    let name_end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if !rest.starts_with('{') {
        used.push((at, rest[..name_end(rest)].to_owned()));
        return;
    }
    let (mut depth, mut expected) = (0, false);
    for (offset, character) in rest.char_indices() {
        match character {
            '{' => {
                depth += 1;
                expected = depth == 1;
            }
            '}' => depth -= 1,
            ',' => expected = depth == 1,
            _ if expected && !character.is_whitespace() => {
                let name = &rest[offset..];
                used.push((at + offset, name[..name_end(name)].to_owned()));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
}

fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
        .filter(|(_, word)| !word.is_empty())
}

/// `source` with comments and texts blanked out, its lines where they were.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            text_length(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    code
}

/// Length of the text that `rest` begins with, its quotes counted.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
