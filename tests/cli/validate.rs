//! `validate`: errors of the configuration with their places, checks of services, and warnings.

use std::os::unix::fs::PermissionsExt;

use super::support::process::{free_port, keep_one_rule, keep_secret};
use super::{ENABLE_ADDRESSES, events, folder, status, stderr, stdout, tokenwarden, write};

#[test]
fn configuration_errors_exit_with_78_and_a_place() {
    let folder = folder();
    let refused = |text: &str| {
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["run", "--config", "t.toml"]);
        assert_eq!(status(&output), 78, "{text}: {}", stderr(&output));
        stderr(&output)
    };
    insta::assert_snapshot!(refused("[source.kafka]\nbroker = 'x'"), @"tokenwarden: t.toml:2: unknown key `source.kafka.broker`; did you mean `brokers`?");
    insta::assert_snapshot!(refused("[source.kafka]\ntopics = ['x']"), @"tokenwarden: t.toml:1: [source.kafka] needs `brokers`");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'x'\ntopics = [{ topic = 'x', format = 'cloudtrial' }]"), @"tokenwarden: t.toml:3: unknown value `cloudtrial` of `source.kafka.topics[0].format`; did you mean `cloudtrail`?");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'x'\n[source.kafka.properties]\n'sasl.password' = 5"), @"tokenwarden: t.toml:4: `source.kafka.properties.sasl.password` must be a string in quotes, not a value of another type");
    insta::assert_snapshot!(refused("[store]\nurl = 'embedded:data'\npasword_file = 'x'"), @"tokenwarden: t.toml:3: unknown key `store.pasword_file`; did you mean `password_file`?");
    insta::assert_snapshot!(refused("[source.file]\npath = '-'\n[source.kafka]\nbrokers = 'x'"), @"tokenwarden: t.toml:1: `source` has both kafka and file; remove one");
    insta::assert_snapshot!(refused("[store]\nurl = 'tcp://clickhouse:9000'"), @"tokenwarden: t.toml:2: `store.url` must be embedded:DIR or http(s)://HOST:PORT");
    insta::assert_snapshot!(refused("[store]\nurl = 'https://me:hunter2@clickhouse:8443'"), @"tokenwarden: t.toml:2: `store.url` contains a user or password; set store.user and store.password_file instead");
    insta::assert_snapshot!(refused("[store]\npassword_file = 'none'"), @"tokenwarden: t.toml:2: cannot read `password_file` none: No such file or directory (os error 2)");
    let open = write(folder.path(), "open", "s3cret");
    std::fs::set_permissions(open, PermissionsExt::from_mode(0o644)).expect("permissions");
    insta::assert_snapshot!(refused("[store]\npassword_file = 'open'"), @"tokenwarden: t.toml:2: cannot read `password_file` open: other users can read or change it (mode 0644); run `chmod 600 open`");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'kafka:9093'\n[source.kafka.properties]\n'ssl.key.location' = 'open'"), @"tokenwarden: t.toml:3: the file of `ssl.key.location`: other users can read or change it (mode 0644); run `chmod 600 open`");
    insta::assert_snapshot!(refused("[store]\nurl = 'http://clickhouse:8123'\npassword = 's3cret'"), @"tokenwarden: t.toml:2: `store.url` would send the password unencrypted: use https://, or set store.allow_plaintext = true");
    insta::assert_snapshot!(refused("[source.kafka]\nbrokers = 'kafka:9092'\nproperties = { 'security.protocol' = 'sasl_plaintext' }"), @"tokenwarden: t.toml:3: `security.protocol` lets credentials be sent unencrypted: use SASL_SSL, or set source.kafka.allow_plaintext = true");
    insta::assert_snapshot!(refused("rules_dir = 'none'"), @"tokenwarden: none: the rules directory cannot be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(refused("[admin]\nlisten = '[::]:9464'"), @"tokenwarden: t.toml:2: `admin.listen` is reachable from other machines: set `admin.token_file`, or listen on 127.0.0.1");
    let output = tokenwarden(folder.path(), &["run", "--config", "none.toml"]);
    assert_eq!(status(&output), 78);
    insta::assert_snapshot!(stderr(&output), @"tokenwarden: none.toml: cannot read the configuration: No such file or directory (os error 2)");
    let program = std::fs::read(env!("CARGO_BIN_EXE_tokenwarden")).expect("the program");
    write(folder.path(), "binary.toml", &program[..4096]);
    for (name, problem) in
        [("binary.toml", "stream did not contain valid UTF-8"), (".", "Is a directory (os error 21)")]
    {
        let error = format!("{name}: cannot read the configuration: {problem}");
        let output = tokenwarden(folder.path(), &["run", "--config", name]);
        assert_eq!((status(&output), stderr(&output)), (78, format!("tokenwarden: {error}\n")));
        let output = tokenwarden(folder.path(), &["validate", "--config", name]);
        assert_eq!((status(&output), stdout(&output)), (78, format!("FAILED  configuration: {error}\n")));
    }
}

#[test]
fn errors_found_by_adapters_state_the_place() {
    let folder = folder();
    keep_secret(&folder.path().join("secret"), "short");
    let refused = |text: &str| {
        write(folder.path(), "t.toml", format!("[source.file]\npath = 'events'\n{text}"));
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 78, "{text}: {}", stdout(&output));
        let failed = stdout(&output).lines().find(|line| line.starts_with("FAILED")).map(str::to_owned);
        failed.expect("something failed")
    };
    write(folder.path(), "events", events(1));
    let mail = "[alert.email]\nsmtp_url = 'smtps://mail.example:465'\nfrom = 'w@example.com'\n";
    insta::assert_snapshot!(refused(&format!("{mail}to = []")), @"FAILED  alerts: t.toml:6: `alert.email.to` has no recipient");
    insta::assert_snapshot!(refused(&mail.replace("smtps", "imap").replace("'\nfrom", "'\nto = ['a@example.com']\nfrom")), @"FAILED  alerts: t.toml:4: `alert.email.smtp_url` must begin with smtps:// or smtp://");
    let plain =
        format!("{mail}to = ['a@example.com']\nusername = 'me'\npassword = 's3cret'\n").replace("smtps", "smtp");
    for starttls in ["none", "opportunistic"] {
        let text = format!("{plain}starttls = '{starttls}'");
        insta::allow_duplicates! {
            insta::assert_snapshot!(refused(&text), @r#"FAILED  alerts: t.toml:9: `alert.email.starttls` may send the password unencrypted: use "required", or set allow_plaintext = true"#);
        }
        for (from, to) in [("smtp://mail.example", "smtp://127.0.0.1"), ("to = ", "allow_plaintext = true\nto = ")] {
            write(folder.path(), "t.toml", format!("[source.file]\npath = 'events'\n{}", text.replace(from, to)));
            let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
            assert_eq!(status(&output), 0, "{to}: {}", stdout(&output));
        }
    }
    insta::assert_snapshot!(refused("[alert.webhook]\nurl = 'https://hooks.example/x'\nsecret_file = 'secret'"), @"FAILED  alerts: t.toml:5: `alert.webhook.secret` is shorter than 16 bytes");
    let channel = |keys: &str| refused(&format!("[alert.channel.oncall]\n{keys}"));
    insta::assert_snapshot!(channel("kind = 'slack'\ntoken_file = 'secret'"), @"FAILED  alerts: t.toml:3: `alert.channel.oncall.values` has no `channel`, which channels of this kind require");
    insta::assert_snapshot!(channel("kind = 'pagerduty'\nsmtp_url = 'x'"), @"FAILED  alerts: t.toml:5: `alert.channel.oncall.smtp_url` is not used by channels of kind `pagerduty`; remove it. This kind uses url, webhook_url, token, values, allow_private, ca_file");
    insta::assert_snapshot!(refused("[alert.channel.email]\nkind = 'teams'"), @"FAILED  alerts: t.toml:4: `alert.channel.email.kind` belongs to a channel with the reserved name `email`; choose another name");
    insta::assert_snapshot!(refused("[revoke.http]\nurl = 'https://id.example/revoke'\nclient_id = 'me'"), @"FAILED  revocation: t.toml:5: `revoke.http.client_id` requires `client_secret_file`");
    let okta = "[revoke.http]\npreset = 'okta_sessions'\nurl = 'https://acme.okta.com'";
    insta::assert_snapshot!(refused(okta), @r#"FAILED  revocation: t.toml:4: `revoke.http.preset` revokes all Okta sessions of a user, with the OAuth tokens, with the radius `user`, for incidents about one token; to allow this, write `radius = "user"` in [revoke.http]"#);
    let few = format!("[revoke]\nmax_per_hour = 3\n{okta}\nradius = 'user'");
    insta::assert_snapshot!(refused(&few), @"FAILED  revocation: t.toml:4: `revoke.max_per_hour` is 3, and a revocation with the radius `user` counts as 5, so none would be requested; set at least 5");
    let few = format!("[revoke.limits]\nrules = {{ new_ip = 4 }}\n{okta}\nradius = 'user'");
    insta::assert_snapshot!(refused(&few), @"FAILED  revocation: t.toml:4: `revoke.limits.rules.new_ip` is 4, and a revocation with the radius `user` counts as 5, so none would be requested; set at least 5");
    insta::assert_snapshot!(refused("[revoke.http]\npreset = 'okta_sesions'"), @"FAILED  configuration: t.toml:4: unknown value `okta_sesions` of `revoke.http.preset`; did you mean `okta_sessions`?");
}

#[test]
fn wide_radius_with_a_small_margin_is_a_warning() {
    let folder = folder();
    write(folder.path(), "events", events(1));
    let warned = |preset: &str, margin: &str| {
        let text = format!(
            "[source.file]\npath = 'events'\n[revoke.http]\nurl = 'https://id.example'\ntenant = 'acme'\n{preset}\n\
             [detection]\n{margin}"
        );
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 0, "{}", stdout(&output));
        stdout(&output).contains("detection.revoke_margin is")
    };
    let user = "preset = 'okta_sessions'\nradius = 'user'";
    let role = "preset = 'aws_role_sessions'\nradius = 'role'\nvalues = { account = '1' }";
    let grant = "preset = 'okta_grant'";
    assert!(warned(user, "") && warned(role, "revoke_margin = 2.6"));
    assert!(!warned(user, "revoke_margin = 2.6") && !warned(role, "revoke_margin = 4.0") && !warned(grant, ""));
}

#[test]
fn validate_prints_a_line_for_each_part() {
    let folder = folder();
    let memory = "[detection]\nmemory_mib_max = 768\n";
    write(folder.path(), "right.toml", format!("{memory}[source.kafka]\nbrokers = 'kafka.example:9092'"));
    let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "right.toml"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    insta::assert_snapshot!(stdout(&output), @r"
    ok      configuration: right.toml
    ok      memory: limit 768 MiB (detection.memory_mib_max), for at most 2 partitions
    ok      rules: 21 from this build
    ok      GeoIP: no files are configured, so places and networks are not scored
    ok      snapshots: in a topic, if the brokers permit it
    ok      alerts: no channel is configured, so alerts are not sent
    ok      revocation: no provider is configured
    ");
    let wrong = format!("{memory}[geoip]\ncity = ['none.mmdb']\n[source.kafka]\nbrokers = 'kafka.example:9092'");
    write(folder.path(), "wrong.toml", wrong);
    let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "wrong.toml"]);
    assert_eq!(status(&output), 78);
    insta::assert_snapshot!(stdout(&output), @r"
    ok      configuration: wrong.toml
    ok      memory: limit 768 MiB (detection.memory_mib_max), for at most 2 partitions
    ok      rules: 21 from this build
    FAILED  GeoIP: none.mmdb cannot be read: No such file or directory (os error 2); its places or networks are missing; geoip/README.md describes where to get files
    ok      snapshots: in a topic, if the brokers permit it
    ok      alerts: no channel is configured, so alerts are not sent
    ok      revocation: no provider is configured
    ");
}

#[test]
fn validate_reports_a_limit_of_memory_that_does_not_suffice() {
    let folder = folder();
    write(folder.path(), "events", events(1));
    let validate = |mib: u64| {
        let text = format!("[source.file]\npath = 'events'\n[detection]\nmemory_mib_max = {mib}\n");
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        (status(&output), stdout(&output))
    };
    insta::assert_snapshot!(validate(639).1, @"FAILED  configuration: t.toml:4: `detection.memory_mib_max` must be at least 640, which is enough for one partition; each further one needs 128 more");
    let (status, shown) = validate(1 << 30);
    let warning =
        "warning configuration: t.toml:4: `detection.memory_mib_max` is 1073741824, but the process can have ";
    assert!(status == 0 && shown.lines().any(|line| line.starts_with(warning)), "{shown}");
}

#[test]
fn validate_connects_to_the_services() {
    let folder = folder();
    let text = format!("[source.kafka]\nbrokers = '127.0.0.1:{0}'\n[store]\nurl = 'http://127.0.0.1:{0}'", free_port());
    write(folder.path(), "t.toml", text);
    let output = tokenwarden(folder.path(), &["validate", "--config", "t.toml"]);
    assert_eq!(status(&output), 69);
    let shown = stdout(&output);
    let failed: Vec<_> = shown.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert_eq!(failed.len(), 2, "{shown}");
    assert!(failed[0].contains(" (source.kafka.brokers): ") && failed[1].contains(" (store.url): "), "{shown}");
    keep_one_rule(folder.path());
    for (path, message) in [("none", "none: there is no such file"), (".", ". is a directory: name the files in it")] {
        write(
            folder.path(),
            "t.toml",
            format!("rules_dir = 'rules'\n[source.file]\npath = '{path}'\n[store]\nurl = 'http://127.0.0.1:1'"),
        );
        let output = tokenwarden(folder.path(), &["validate", "--config", "t.toml"]);
        assert_eq!(status(&output), 78, "a configuration error has precedence over an unavailable service");
        let shown = stdout(&output);
        assert!(shown.contains(&format!("FAILED  source: t.toml:3: `source.file.path`: {message}\n")), "{shown}");
    }
}

#[test]
fn validate_states_how_to_enable_addresses() {
    let folder = folder();
    let topics = "topics = ['a', { topic = 'audit', format = 'github' }, { topic = 'b', format = 'okta' }]";
    write(folder.path(), "t.toml", format!("[source.kafka]\nbrokers = 'kafka.example:9092'\n{topics}\n"));
    let shown = stdout(&tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]));
    let notes: Vec<_> = shown.lines().filter(|line| line.starts_with("note ")).collect();
    assert_eq!(notes, [format!("note    addresses of topic audit: {ENABLE_ADDRESSES}")]);
}

#[test]
fn validate_warns_of_hashed_ids_for_revocation() {
    let folder = folder();
    let warns = |ids: &str, http: &str| {
        let text = format!(
            "[source.kafka]\nbrokers = 'kafka.example:9092'\n[privacy]\ntoken_ids = '{ids}'\n[revoke.http]\n{http}"
        );
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 0, "{http}: {}", stdout(&output));
        stdout(&output)
            .contains("WARNING revocation: [revoke.http] sends token ids, and privacy.token_ids is \"hashed\"")
    };
    let url = "url = 'https://id.example/revoke'";
    for (http, needs_ids) in [
        (format!("{url}\npreset = 'rfc7009'"), true),
        (format!("{url}\npreset = 'by_id'"), true),
        (format!("{url}\npreset = 'by_id'\ntargets = ['family']"), false),
        (format!("{url}\nbody = '{{\"user\":\"{{user_id}}\"}}'"), false),
        (format!("{url}\nbody = '{{\"token\":\"{{token_id}}\"}}'\ntargets = ['family']"), true),
        ("url = 'https://id.example/tokens/{id}'".to_owned(), true),
    ] {
        assert_eq!((warns("hashed", &http), warns("as_sent", &http)), (needs_ids, false), "{http}");
    }
}

#[test]
fn validate_warns_of_a_request_without_tenant() {
    let folder = folder();
    let warns = |topics: &str, http: &str| {
        let text = format!(
            "[source.kafka]\nbrokers = 'kafka.example:9092'\ntopics = [{topics}]\n[revoke.http]\n\
             url = 'https://id.example/revoke'\n{http}"
        );
        write(folder.path(), "t.toml", text);
        let output = tokenwarden(folder.path(), &["validate", "--offline", "--config", "t.toml"]);
        assert_eq!(status(&output), 0, "{http}: {}", stdout(&output));
        stdout(&output).contains("WARNING revocation: [revoke.http] sends the tenant only in the header")
    };
    let acme = |topic: &str| format!("{{ topic = '{topic}', tenant = 'acme' }}");
    for (topics, http, warned) in [
        ("'a'".to_owned(), "preset = 'by_id'", true),
        ("'a'".to_owned(), "preset = 'rfc7009'", true),
        (format!("{}, 'b'", acme("a")), "preset = 'by_id'", true),
        (format!("{}, {}", acme("a"), acme("b").replace("acme", "other")), "preset = 'by_id'", true),
        (format!("{}, {}", acme("a"), acme("b")), "preset = 'by_id'", false),
        ("'a'".to_owned(), "preset = 'by_id'\ntenant = 'acme'", false),
        ("'a'".to_owned(), "body = '{\"tenant\":\"{tenant_id}\",\"id\":\"{id}\"}'", false),
    ] {
        assert_eq!(warns(&topics, http), warned, "{topics} {http}");
    }
}
