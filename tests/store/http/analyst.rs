//! The analyst's account: it only reads, cannot lift its limits, and reaches no file.

use super::*;

#[tokio::test]
async fn password_is_required_and_analysts_only_read() {
    let (owner, directory, access) = owner();
    let secret = TempDir::new().unwrap();
    let (file, written) = (secret.path().join("secret"), secret.path().join("written"));
    std::fs::write(&file, "hunter2").unwrap();
    let (file, written) = (file.display(), written.display());

    for request in [
        reqwest::Client::new().post(access.text("url")).body("SELECT 1"),
        reqwest::Client::new().get(access.text("url") + "/?query=SELECT+1"),
        reqwest::Client::new().get(access.text("url") + "/?query=SELECT+1&user=tokenwarden&password="),
        reqwest::Client::new().post(access.text("url")).basic_auth("tokenwarden", Some("x")).body("SELECT 1"),
        access.request(Method::GET, "user", "analyst_password", &[("query", "SELECT 1")]),
    ] {
        let (status, said) = text(request).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    }
    for sql in [
        "INSERT INTO token_events (event_id) VALUES ('x')".to_owned(),
        "INSERT INTO token_events (event_id) FORMAT CSV x".to_owned(),
        "DROP TABLE token_events".to_owned(),
        "KILL QUERY WHERE 1".to_owned(),
        "SET readonly = 0".to_owned(),
        "SELECT 1 SETTINGS readonly = 0".to_owned(),
        "SELECT 1; DROP TABLE token_events".to_owned(),
        format!("SELECT file('{file}')"),
        format!("SELECT `file`('{file}')"),
        format!("SELECT * FROM file('{file}', 'LineAsString')"),
        format!("DESCRIBE TABLE file('{file}', 'LineAsString')"),
        format!("SELECT 1 INTO OUTFILE '{written}'"),
        format!("SELECT 1 INTO/**/outfile '{written}'"),
        format!("INSERT INTO FUNCTION file('{written}', 'CSV') SELECT 1"),
        format!("SELECT “ ' ”, file('{file}') -- '"),
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')".to_owned(),
        "SELECT * FROM executable('x', 'TSV', 'a String')".to_owned(),
    ] {
        let post = access.request(Method::POST, "analyst_user", "analyst_password", &[("readonly", "0")]);
        for request in [access.get(&sql), post.body(sql.clone())] {
            let (status, said) = text(request).await;
            assert!(status.is_client_error() || status.is_server_error(), "{sql}: {said}");
            assert!(!said.contains("hunter2"), "{sql}: {said}");
        }
    }
    assert!(!secret.path().join("written").exists());
    // A GET cannot change data, even with the owner's password.
    let get = access.request(Method::GET, "user", "password", &[("query", "DROP TABLE tokenwarden.token_events")]);
    assert!(!text(get).await.0.is_success());
    assert_eq!(text(access.get("SELECT count() FROM token_events")).await.1, "10\n");

    // Only this user can read the passwords, which stay the same after a restart.
    let file = directory.path().join("endpoint.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(owner);
    let mut again = child::start("own", directory.path(), child::PLAIN);
    assert_eq!(again.line(), "ready");
    assert_eq!(Access::of(directory.path()).text("analyst_password"), access.text("analyst_password"));
}

#[tokio::test]
async fn analyst_cannot_lift_limits() {
    let (_owner, _directory, access) = owner();
    let limits = [
        ("max_memory_usage", 1_000_000_000),
        ("max_execution_time", 120),
        ("max_result_bytes", 250_000_000),
        ("max_result_rows", 10_000_000),
        ("max_temporary_data_on_disk_size_for_query", 1_000_000_000),
        ("max_threads", 4),
    ];
    for (name, max) in limits {
        let now = format!("SELECT toUInt64(getSetting('{name}'))");
        for wanted in ["0", "18446744073709551615", "-1", "1e30", "unlimited", ""] {
            let (status, said) = text(access.analyse(&now, &[(name, wanted)])).await;
            assert_eq!((status, said), (StatusCode::OK, format!("{max}\n")), "{name} = {wanted}");
        }
        let (_, said) = text(access.analyse(&now, &[(name, "3"), (name, "2")])).await;
        assert_eq!(said, "2\n", "{name} may be lowered");
        for sql in [
            format!("SELECT 1 SETTINGS {name} = 0"),
            format!("SELECT * FROM (SELECT 1 SETTINGS {name} = 0)"),
            format!("WITH (SELECT 1 SETTINGS {name} = 0) AS x SELECT x"),
            format!("SELECT 1 UNION ALL SELECT 2 SETTINGS {name} = 0"),
            format!("SET {name} = 0"),
            format!("EXPLAIN SELECT 1 SETTINGS {name} = 0"),
            format!("SELECT * FROM view(SELECT 1 SETTINGS {name} = 0)"),
        ] {
            let (status, said) = text(access.analyse(&sql, &[])).await;
            assert!(!status.is_success(), "{sql}: {said}");
        }
    }
    // Settings that are neither harmless nor limits: they name files, or allow more.
    for (name, value) in [
        ("allow_ddl", "1"),
        ("format_template_row", "/etc/passwd"),
        ("format_schema", "/etc/passwd:x"),
        ("output_format_schema", "/tmp/x"),
        ("max_memory_usage_for_user", "0"),
        ("max_bytes_ratio_before_external_sort", "0"),
        ("memory_overcommit_ratio_denominator", "0"),
        ("profile", "default"),
        ("no_such_setting", "1"),
    ] {
        let (status, said) = text(access.analyse("SELECT 1", &[(name, value)])).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {said}");
        assert!(said.contains("Cannot modify"), "{name}: {said}");
    }
    for (name, value) in [("readonly", "0"), ("final", "0"), ("output_format_json_quote_64bit_integers", "0")] {
        let (status, said) = text(access.analyse("SELECT getSetting('readonly')", &[(name, value)])).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, "1\n"), "{name}");
    }
    // The owner can set limits.
    let own = access.request(Method::POST, "user", "password", &[("max_memory_usage", "5000000000")]);
    assert_eq!(text(own.body("SELECT getSetting('max_memory_usage')")).await.1, "5000000000\n");
}

#[tokio::test]
async fn analyst_cannot_probe_files() {
    let (_owner, directory, access) = owner();
    let there = directory.path().join("endpoint.json").display().to_string();
    let not_there = directory.path().join("nothing.json").display().to_string();
    for database in ["tokenwarden", "default", "system", "information_schema"] {
        for form in [
            "EXISTS TABLE `{}`",
            "EXISTS TABLE default.`{}`",
            "EXISTS VIEW default.`{}`",
            "EXISTS DICTIONARY default.`{}`",
            "EXISTS DATABASE `{}`",
            "EXISTS `{}`",
            "SELECT * FROM `{}`",
            "SELECT * FROM default.`{}`",
            "DESCRIBE TABLE default.`{}`",
            "SHOW CREATE TABLE default.`{}`",
            "SHOW TABLES FROM default LIKE '{}'",
            "SHOW COLUMNS FROM default.`{}`",
            "EXPLAIN SELECT * FROM default.`{}`",
            "SELECT count() FROM system.tables WHERE database = 'default' AND name = '{}'",
            "SELECT count() FROM system.columns WHERE database = 'default' AND table = '{}'",
            "SELECT hasColumnInTable('default', '{}', 'x')",
        ] {
            let mut answers = Vec::new();
            for file in [&there, &not_there] {
                let request =
                    access.request(Method::POST, "analyst_user", "analyst_password", &[("database", database)]);
                let (status, said) = text(request.body(form.replace("{}", file))).await;
                assert!(!said.contains("analyst_password"), "{form}: {said}");
                answers.push((status, said.replace(file.as_str(), "FILE")));
            }
            assert_eq!(answers[0], answers[1], "{form} in {database} tells which file is there");
        }
    }
    for sql in [
        "EXPLAIN SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "EXPLAIN SYNTAX SELECT * FROM s3('http://127.0.0.1:1/x')",
        "EXPLAIN QUERY TREE SELECT * FROM FILE('/etc/passwd')",
        "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT 1 WHERE 1 IN (SELECT * FROM sqlite('/etc/passwd', 'x'))",
        "SELECT catboostEvaluate('/etc/passwd', 1)",
        "SELECT reverseDNSQuery('192.0.2.1')",
        "SELECT 1 FORMAT CSV INTO OUTFILE '/tmp/x'",
        "CREATE DICTIONARY d (x UInt64) PRIMARY KEY x SOURCE(FILE(path '/etc/passwd' format 'CSV')) LAYOUT(FLAT()) LIFETIME(1)",
        "CREATE TABLE t (x String) ENGINE = File(CSV, '/etc/passwd')",
        "ATTACH TABLE t FROM '/etc'",
        "BACKUP DATABASE tokenwarden TO File('/tmp/x')",
    ] {
        let (status, said) = text(access.analyse(sql, &[])).await;
        assert!(said.contains("Code: 36.") && status == StatusCode::BAD_REQUEST, "{sql}: {said}");
    }
}

#[tokio::test]
async fn analyst_table_functions_reach_nothing_outside() {
    let (_owner, _directory, access) = owner();
    let harmless = [
        "format",
        "generateSeries",
        "generate_series",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    ];
    let (_, names) = text(access.analyse("SELECT name FROM system.table_functions", &[])).await;
    assert!(names.lines().count() > 80, "{names}");
    for name in names.lines().filter(|name| !harmless.contains(name)) {
        for sql in
            [format!("SELECT * FROM {name}('x')"), format!("EXPLAIN SELECT * FROM {} ('x')", name.to_uppercase())]
        {
            let (_, said) = text(access.analyse(&sql, &[])).await;
            assert!(said.contains("are not allowed"), "{sql}: {said}");
        }
    }
    let (status, said) = text(access.analyse("SELECT sum(number) FROM numbers(10)", &[])).await;
    assert_eq!((status, said.as_str()), (StatusCode::OK, "45\n"));
}

#[tokio::test]
async fn analyst_cannot_take_the_service_down() {
    let (_owner, _directory, access) = owner();
    let store = ClickHouse::open(&access.settings()).await.unwrap();
    let queries = [
        "SELECT length(groupArray(number)) FROM numbers(10000000000)",
        "SELECT repeat('x', 1000000000) FROM numbers(10)",
        "SELECT number, repeat('x', 1000) FROM numbers(10000000)",
        "SELECT count() FROM (SELECT DISTINCT sipHash128(number) FROM numbers(10000000000))",
        "SELECT arrayMap(x -> range(100000000), range(100))",
        "SELECT a.number FROM numbers(100000000) a JOIN numbers(100000000) b ON a.number = b.number ORDER BY 1",
        "SELECT count() FROM numbers(1000000000000000) WHERE cityHash64(number) = 1",
        "SELECT sleepEachRow(1) FROM numbers(1000)",
    ];
    let lifting =
        [("max_memory_usage", "0"), ("max_result_bytes", "0"), ("max_execution_time", "5"), ("max_threads", "0")];
    let asked: Vec<_> = queries.iter().map(|sql| tokio::spawn(text(access.analyse(sql, &lifting)))).collect();
    let mut written = 0;
    while !asked.iter().all(tokio::task::JoinHandle::is_finished) {
        store.write(&epoch(1_000 + written * 50..1_050 + written * 50)).await.expect("rows are taken meanwhile");
        written += 1;
        assert!(written < 2_000, "the queries do not end");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut busy = 0;
    for (asked, sql) in asked.into_iter().zip(queries) {
        let (status, said) = asked.await.unwrap();
        assert!(!status.is_success(), "{sql}: {} bytes", said.len());
        busy += usize::from(said.contains("Code: 202."));
    }
    assert!((1..=4).contains(&busy), "{busy} of eight found no place");
    // One after another, each ends by its limit.
    for sql in queries {
        let (_, said) = text(access.analyse(sql, &lifting)).await;
        // Memory, time, size of a function's result, temporary disk, size of the answer, time to sleep.
        let codes = [241, 159, 128, 131, 243, 396, 160];
        assert!(codes.iter().any(|code| said.starts_with(&format!("Code: {code}."))), "{sql}: {said:.300}");
    }
    let counted = format!("{}\n", 10 + written * 50);
    assert_eq!(text(access.get("SELECT count() FROM token_events")).await.1, counted);
    let (status, _) = text(access.analyse(&format!("SELECT '{}'", "x".repeat(2 << 20)), &[])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a statement of 2 MiB");
}
