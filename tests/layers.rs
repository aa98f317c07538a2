//! Architecture checks on the sources. No module imports a higher layer of the list in `src/lib.rs`. No adapter imports
//! another adapter. The detection layer does no I/O. The service does not import `lab`. There are no import cycles.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The layer whose modules must not import each other.
const ADAPTERS: usize = 3;
const DETECTION: usize = 1;
/// The only module that may import `lab`.
const USES_LAB: &str = "cli";

/// Identifiers that the detection layer must not use, and what each stands for.
const NOT_IN_DETECTION: [(&str, &str); 9] = [
    ("tokio", "asynchronous code"),
    ("async", "asynchronous code"),
    ("serde_json", "file formats"),
    ("postcard", "file formats"),
    ("tracing", "logging"),
    ("rand", "randomness"),
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("RandomState", "random iteration order"),
];

/// Module path (`engine::score`) and code of each file below `src`, without comments, string literals and test modules.
type Modules = BTreeMap<String, String>;

#[test]
fn imports_use_lower_layers_only() {
    let root = source_root();
    let layers = layers(&std::fs::read_to_string(root.join("lib.rs")).expect("src/lib.rs is readable"));
    assert!(layers.len() > 20, "src/lib.rs lists too few modules: {layers:?}");
    let mut wrong = String::new();
    let files = source_files(&root);
    assert!(files.len() > 150, "too few source files found: {}", files.len());
    for (module, path, source) in files {
        for (line, reason) in violations(&module, &source, &layers) {
            writeln!(wrong, "src/{}:{line}: {reason}", path.display()).expect("writing to a String succeeds");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn lab_is_imported_by_commands_only() {
    let modules = modules();
    let users: BTreeSet<&str> = modules
        .iter()
        .filter(|(module, code)| imports(module, code, &modules).iter().any(|used| top(used) == "lab"))
        .map(|(module, _)| top(module))
        .filter(|module| *module != "lab")
        .collect();
    assert_eq!(users.into_iter().collect::<Vec<_>>(), [USES_LAB]);
}

#[test]
fn modules_have_no_import_cycles() {
    let found = cycles(&modules());
    assert!(found.is_empty(), "import cycles: {found:#?}");
}

#[test]
fn layer_check_finds_each_violation() {
    let layers = layers("//! 0. types: [`event`]\n//! 1. detection: [`term`]\n//! 3. adapters: [`wire`], [`store`]\n");
    let check = |module: &str, source: &str| {
        let module = format!("{module}::inner");
        violations(&module, source, &layers).into_iter().map(|(line, _)| line).collect::<Vec<_>>()
    };
    assert_eq!(check("store", "use crate::event::Event;\nuse crate::term;"), Vec::<usize>::new());
    assert_eq!(check("event", "\nuse crate::term::X;"), [2], "import of a higher layer");
    assert_eq!(
        check("store", "use crate::{\n    event::{self, Event},\n    wire::Decoder,\n};"),
        [3],
        "another adapter"
    );
    assert_eq!(check("store", "fn f() {\n    crate::wire::g();\n}"), [2], "path outside of a use declaration");
    assert_eq!(check("store", "use super::super::wire;"), [1], "relative path");
    assert_eq!(check("store", "// crate::wire\nlet a = \"crate::wire\"; /* crate::wire */"), Vec::<usize>::new());
    assert_eq!(check("term", "use std::time::Instant;\nfn x() {}\nasync fn y() {}"), [1, 3]);
    assert_eq!(check("attic", "\n"), [1], "module without a layer");
}

#[test]
fn cycle_check_finds_each_cycle() {
    let check = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(path, source)| ((*path).to_owned(), without_tests(&code_of(source))));
        cycles(&files.collect()).into_iter().collect::<Vec<_>>()
    };
    let none = Vec::<String>::new();
    assert_eq!(check(&[("a", "use crate::b::X;"), ("b", "use crate::c::Y;"), ("c", "")]), none);
    assert_eq!(check(&[("a", "use crate::b::X;"), ("b", "fn f() { crate::a::g(); }")]), ["a b"]);
    assert_eq!(check(&[("a::x", "use super::y::Y;"), ("a::y", "use super::{x::X, z};"), ("a", "")]), ["a::x a::y"]);
    assert_eq!(check(&[("a", "mod x;\nuse self::x::X;"), ("a::x", "use super::Y;")]), ["a a::x"], "parent and child");
    assert_eq!(check(&[("a", "mod x;\nfn f() { x::g(); }"), ("a::x", "use crate::a::Y;")]), ["a a::x"], "child's name");
    assert_eq!(check(&[("a", "mod x;"), ("a::x", "use super::Y;")]), none, "declaration of a module");
    let test = "#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n";
    assert_eq!(check(&[("a", "use crate::b;"), ("b", test)]), none, "import in a test");
    let test = "#[cfg(test)]\nmod tests;\n\nuse crate::a;\n\nfn f() {\n}\n";
    assert_eq!(check(&[("a", "use crate::b;"), ("b", test)]), ["a b"], "import after a test module in its own file");
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Module path, path below `root` and text of every source file but `lib.rs` and `main.rs`.
fn source_files(root: &Path) -> Vec<(String, PathBuf, String)> {
    let mut files = Vec::new();
    for file in rust_files(root) {
        let path = file.strip_prefix(root).expect("the file is below src").to_owned();
        let module = path.with_extension("").iter().filter_map(|part| part.to_str()).collect::<Vec<_>>().join("::");
        let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
        if !matches!(module.as_str(), "lib" | "main") {
            files.push((module, path, std::fs::read_to_string(&file).expect("the source is readable")));
        }
    }
    files
}

fn modules() -> Modules {
    let files = source_files(&source_root()).into_iter();
    files.map(|(module, _, source)| (module, without_tests(&code_of(&source)))).collect()
}

/// Layer of each module, from lines such as "//! 0. types: [`event`], [`mod@format`]".
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let Some((number, modules)) = line.split_once(". ").and_then(|(n, rest)| Some((n.parse().ok()?, rest))) else {
            continue;
        };
        for module in modules.split('`').skip(1).step_by(2) {
            layers.insert(module.trim_start_matches("mod@").to_owned(), number);
        }
    }
    layers
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

/// Line and reason of each import and identifier in `source`, the file of `module`, that the layers forbid.
fn violations(module: &str, source: &str, layers: &BTreeMap<String, usize>) -> Vec<(usize, String)> {
    let name = top(module);
    let Some(&layer) = layers.get(name) else {
        return vec![(1, format!("`{name}` has no layer: add it to the list in src/lib.rs"))];
    };
    let code = code_of(source);
    let shipped = without_tests(&code);
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (at, path) in paths(&code) {
        // Inside a test module `super` counts from another level.
        if path[0] == "super" && shipped[at..].starts_with(' ') {
            continue;
        }
        let Some(other) = absolute(module, &path).and_then(|path| path.into_iter().next()) else { continue };
        let Some(&used) = layers.get(&other) else { continue };
        if used > layer {
            found.push((line_of(at), format!("`{name}` (layer {layer}) imports `{other}` of the higher layer {used}")));
        } else if other != name && used == layer && layer == ADAPTERS {
            found.push((line_of(at), format!("adapter `{name}` imports adapter `{other}`")));
        }
    }
    if layer == DETECTION {
        for (at, token) in tokens(&code) {
            if let Some((_, what)) = NOT_IN_DETECTION.iter().find(|(name, _)| *name == token) {
                found.push((line_of(at), format!("the detection layer must not use {what}: `{token}`")));
            }
        }
    }
    found
}

/// The cycles between top-level modules and those inside each of them; a cycle is its module paths, sorted, with
/// spaces between.
fn cycles(modules: &Modules) -> BTreeSet<String> {
    let (mut between, mut inside) = (Graph::default(), Graph::default());
    for (module, code) in modules {
        for used in imports(module, code, modules) {
            if top(module) == top(&used) {
                inside.entry(module.clone()).or_default().insert(used);
            } else {
                between.entry(top(module).to_owned()).or_default().insert(top(&used).to_owned());
            }
        }
    }
    [between, inside].iter().flat_map(cycles_of).collect()
}

/// What each module imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Strongly connected components of more than one module.
fn cycles_of(graph: &Graph) -> BTreeSet<String> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|from| (from.as_str(), reach(graph, from))).collect();
    let mutual = |a: &str, b: &str| reached[a].contains(b) && reached.get(b).is_some_and(|back| back.contains(a));
    let cycle = |module: &&str| reached[*module].iter().copied().filter(|other| mutual(module, other)).collect();
    let cycles = reached.keys().map(cycle).filter(|members: &Vec<&str>| members.len() > 1);
    cycles.map(|members| members.join(" ")).collect()
}

/// The modules that `from` imports, directly or through others.
fn reach<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = vec![from];
    while let Some(module) = next.pop() {
        for used in graph.get(module).into_iter().flatten() {
            if reached.insert(used.as_str()) {
                next.push(used);
            }
        }
    }
    reached
}

/// The modules among `modules` that `module` imports by its code.
fn imports(module: &str, code: &str, modules: &Modules) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (_, mut path) in paths(code) {
        if modules.contains_key(&format!("{module}::{}", path[0])) {
            path.insert(0, "self");
        }
        let Some(mut path) = absolute(module, &path) else { continue };
        // The last names may be items of the module.
        while !path.is_empty() && !modules.contains_key(&path.join("::")) {
            path.pop();
        }
        if !path.is_empty() {
            used.insert(path.join("::"));
        }
    }
    used.remove(module);
    used
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// `path`, as `module` writes it, from the root of the crate; `None` for paths into other crates.
fn absolute(module: &str, path: &[&str]) -> Option<Vec<String>> {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    match path.first()? {
        &"crate" => base.clear(),
        &"self" | &"super" => {}
        _ => return None,
    }
    while let Some((name @ ("crate" | "self" | "super"), after)) =
        rest.split_first().map(|(name, after)| (*name, after))
    {
        if name == "super" {
            base.pop();
        }
        rest = after;
    }
    Some(base.into_iter().chain(rest.iter().copied()).map(str::to_owned).collect())
}

/// Every path of two names or more in `code`, those of `use` declarations one by one, each with its offset.
fn paths(code: &str) -> Vec<(usize, Vec<&str>)> {
    let tokens: Vec<_> = tokens(code).collect();
    let text = |at: usize| tokens.get(at).map_or("", |(_, text)| *text);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let before = if at == 0 { "" } else { text(at - 1) };
        if text(at) == "use" && text(at + 1) != "<" {
            at = use_tree(&tokens, at + 1, &[], &mut found);
        } else if is_name(text(at)) && text(at + 1) == "::" && !matches!(before, "::" | "$" | "in") {
            let (start, mut path) = (tokens[at].0, vec![text(at)]);
            while text(at + 1) == "::" && is_name(text(at + 2)) {
                at += 2;
                path.push(text(at));
            }
            found.push((start, path));
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Adds the paths of the `use` tree at token `at`, which stands after `prefix`; the token after the tree.
fn use_tree<'a>(
    tokens: &[(usize, &'a str)],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some(&(offset, token)) = tokens.get(at) {
        at += 1;
        if token == "{" {
            while tokens.get(at).is_some_and(|(_, token)| *token != "}") {
                at = if tokens[at].1 == "," { at + 1 } else { use_tree(tokens, at, &path, found) };
            }
            return at + 1;
        }
        if is_name(token) && (token != "self" || path.is_empty()) {
            path.push(token);
        }
        if tokens.get(at).is_none_or(|(_, next)| *next != "::") {
            let renamed = tokens.get(at).is_some_and(|(_, next)| *next == "as");
            if !path.is_empty() {
                found.push((offset, path));
            }
            return if renamed { at + 2 } else { at };
        }
        at += 1;
    }
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Names, `::` and single other characters, each with its offset.
fn tokens(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].find(|c: char| !c.is_whitespace())?;
        let rest = &code[at..];
        let length = if is_name(rest) {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            rest.chars().next()?.len_utf8()
        };
        at += length;
        Some((at - length, &rest[..length]))
    })
}

/// `code` with its test modules replaced by spaces.
fn without_tests(code: &str) -> String {
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]\nmod ") {
        // A test module in its own file ends at the semicolon, an inline one at the brace in the first column.
        let module = &rest[start..];
        let end = match module.find([';', '{']) {
            Some(at) if module[at..].starts_with(';') => Some(at + 1),
            _ => module.find("\n}\n").map(|at| at + 2),
        };
        let length = end.unwrap_or(module.len());
        shipped.push_str(&rest[..start]);
        shipped.extend(rest[start..start + length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[start + length..];
    }
    shipped + rest
}

/// `source` with comments and string literals replaced by spaces; line numbers stay the same.
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

/// Length in bytes of the string literal at the start of `rest`, including its quotes.
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
