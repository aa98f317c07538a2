//! The configuration, event, rule and commands in README.md work as shown.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const README: &str = include_str!("../README.md");

/// The first block of the README in `language` that contains `mark`.
fn block(language: &str, mark: &str) -> &'static str {
    let blocks = README.split("\n```").skip(1).step_by(2);
    let of_language = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    of_language.into_iter().find(|block| block.contains(mark)).expect("the README has such a block")
}

fn tokenwarden(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("tokenwarden runs")
}

#[test]
fn readme_configuration_is_valid() {
    // Paths are relative to the file. Its folder contains the files of a checkout, and the secrets.
    let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().expect("a folder"));
    for name in ["rules", "geoip"] {
        std::os::unix::fs::symlink(root.join(name), folder.path().join(name)).expect("a link");
    }
    let text = block("toml", "[source.kafka]");
    std::fs::create_dir(folder.path().join("secrets")).expect("a folder");
    for (_, rest) in text.match_indices("_file = \"").map(|(at, key)| text.split_at(at + key.len())) {
        let name = rest.split('"').next().expect("a name in quotes");
        let file = folder.path().join(name);
        std::fs::write(&file, "a-secret-of-some-thirty-bytes").expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("permissions");
    }
    let file = folder.path().join("tokenwarden.toml");
    std::fs::write(&file, text).expect("written");
    let output = tokenwarden(&["validate", "--offline", "--config", &file.to_string_lossy()]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("FAILED"), "{told}");
}

/// Output of `validate` for the shipped configuration under an environment.
fn validation_of_shipped_configuration(
    environment: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .args(["validate", "--offline", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/tokenwarden.toml")])
        .env_clear()
        .env("TOKENWARDEN__RULES_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/rules"))
        .envs(environment)
        .output()
        .expect("tokenwarden runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The compose file sends the password to another host unencrypted, which the configuration must accept.
#[test]
fn shipped_configuration_works_with_compose() {
    let compose = include_str!("../deploy/compose.yaml");
    let environment: Vec<_> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("TOKENWARDEN__")?.split_once(": "))
        .map(|(name, value)| (format!("TOKENWARDEN__{name}"), value.trim_matches('"').to_owned()))
        .collect();
    assert!(environment.iter().any(|(name, _)| name == "TOKENWARDEN__STORE__PASSWORD"), "{environment:?}");
    let told = validation_of_shipped_configuration(environment);
    assert!(told.lines().any(|line| line.starts_with("ok ") && line.contains("configuration")), "{told}");
}

/// The shipped configuration with the environment of the systemd unit, without checks that depend on the machine.
#[test]
fn shipped_configuration_is_valid() {
    let unit = include_str!("../deploy/tokenwarden.service");
    let environment = unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
    let told = validation_of_shipped_configuration(environment);
    // GeoIP files are not shipped, and the service runs without them.
    for checked in ["configuration", "rules", "alerts", "revocation"] {
        assert!(told.lines().any(|line| line.starts_with("ok ") && line.contains(checked)), "{checked}: {told}");
    }
    for word in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).flat_map(str::split_whitespace) {
        assert!(["/usr/bin/tokenwarden", "run", "--config", "/etc/tokenwarden/tokenwarden.toml"].contains(&word));
    }
    // The files that the container image copies exist.
    let copied = include_str!("../deploy/Containerfile").lines().filter_map(|line| line.strip_prefix("COPY "));
    for source in copied.filter(|line| !line.contains("--from")).flat_map(|line| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.pop();
        words
    }) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(source.trim_end_matches('/'));
        assert!(path.exists(), "{source}");
    }
}

/// Puts a program `name` that runs `script` into `folder`.
fn program(folder: &Path, name: &str, script: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("permissions");
    file.to_string_lossy().into_owned()
}

#[test]
fn known_advisories_fail_ci() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |script: &str| {
        let deny = program(folder.path(), "cargo-deny", script);
        let root = env!("CARGO_MANIFEST_DIR");
        let output = Command::new(format!("{root}/.ci/advisories")).arg(deny).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (passed, said) = check("echo 'cannot resolve github.com'; exit 1");
    assert!(passed && said.starts_with("not checked here: known vulnerabilities"), "{said}");
    assert!(said.contains("cannot resolve github.com"), "{said}");
    let (passed, said) = check("[ \"$1\" = fetch ] || { echo RUSTSEC-2026-0001; exit 1; }");
    assert!(!passed && said.contains("RUSTSEC-2026-0001"), "{said}");
    let (passed, said) = check("exit 0");
    assert!(passed && said.is_empty(), "{said}");
}

#[test]
fn systemd_unit_is_confined() {
    let root = env!("CARGO_MANIFEST_DIR");
    let check = |unit: &str, path: Option<&str>| {
        let mut command = Command::new(format!("{root}/.ci/exposure"));
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = command.arg(unit).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let unit = format!("{root}/deploy/tokenwarden.service");
    let (passed, said) = check(&unit, None);
    assert!(passed, "{said}");
    if said.contains("not checked here") {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
    } else {
        assert!(said.contains(": exposure ") && said.ends_with(" of 10\n"), "{said}");
        let folder = tempfile::tempdir().expect("a folder");
        let open = folder.path().join("open.service");
        std::fs::write(&open, "[Service]\nExecStart=/bin/true\n").expect("written");
        assert!(!check(&open.to_string_lossy(), None).0, "a unit without any confinement");
    }
    let folder = tempfile::tempdir().expect("a folder");
    for tool in ["bash", "sed"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("it runs");
        let found = String::from_utf8(found.stdout).expect("a path");
        std::os::unix::fs::symlink(found.trim(), folder.path().join(tool)).expect("a link");
    }
    let (passed, said) = check(&unit, folder.path().to_str());
    assert!(passed && said.starts_with("not checked here: the confinement of "), "{said}");
}

#[test]
fn readme_event_is_scored() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), block("json", "event_id")).expect("written");
    let output = tokenwarden(&[
        "replay",
        "--strict",
        "--geoip-asn",
        "geoip/test/asn-ipv4.mmdb",
        "--verdicts",
        "-",
        &file.path().to_string_lossy(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"event_id\":\"01JD8Z\",\"token_id\":\"at-5521\""));
}

#[test]
fn readme_rule_equals_the_shipped_rule() {
    let shipped = include_str!("../rules/impossible_travel.toml");
    for line in block("toml", "[[cases]]").lines() {
        assert!(shipped.lines().any(|shipped| shipped == line), "{line}");
    }
}

#[test]
fn readme_commands_exist() {
    let in_blocks =
        README.split("\n```sh\n").skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block);
    let in_text = README.split("\n```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    let mut seen = 0;
    for line in in_blocks.flat_map(str::lines).chain(in_text) {
        let Some(rest) = line.strip_prefix("tokenwarden ").or_else(|| line.strip_prefix("target/release/tokenwarden "))
        else {
            continue;
        };
        let command = rest.split(' ').next().unwrap_or_default();
        assert!(tokenwarden(&[command, "--help"]).status.success(), "there is no command `{command}`: {line}");
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} commands are found");
}

/// The text of a Markdown page without its code blocks.
fn prose(page: &str) -> String {
    format!("\n{page}").split("\n```").step_by(2).collect()
}

/// The anchors that GitHub generates from the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect::<String>().replace(' ', "-")
    };
    prose(page).lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Every Markdown page for users and developers.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<_> = ["README.md", "CHANGELOG.md", "geoip/README.md"].map(|page| root.join(page)).into();
    for folder in ["docs", "docs/decisions"] {
        let files = std::fs::read_dir(root.join(folder)).expect("a folder");
        let files = files.map(|file| file.expect("a file").path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

#[test]
fn doc_links_resolve() {
    let (mut links, mut broken) = (0, String::new());
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        let prose = prose(&text);
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to);
        for target in targets.filter(|target| !target.starts_with("http")) {
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let found = match anchor {
                None => file.exists(),
                Some(anchor) => {
                    std::fs::read_to_string(&file).is_ok_and(|text| anchors(&text).iter().any(|a| a == anchor))
                }
            };
            links += 1;
            if !found {
                writeln!(broken, "{}: {target}", page.display()).expect("a string takes everything");
            }
        }
    }
    assert!(links > 100, "only {links} links are found");
    assert!(broken.is_empty(), "\n{broken}");
}
