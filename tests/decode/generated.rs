//! Random events, and random JSON and bytes.

use super::*;

/// Value of a text field: identifiers, words of any script, and characters that JSON must escape.
fn words(bytes_max: usize) -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{1,24}", "[\\PC\\n\\t\"\\\\]{1,24}"]
        .prop_filter("too long or a secret", move |text| text.len() <= bytes_max && !looks_like_bearer(text))
}

/// A native event as a JSON object, with random fields.
fn object() -> impl Strategy<Value = Map<String, Value>> {
    let texts = ["family_id", "parent_token_id", "session_id", "user_id", "app_id", "tenant_id", "user_agent"]
        .into_iter()
        .chain(["client_fingerprint", "method", "endpoint", "binding"])
        .map(|name| prop::option::of(words(128)).prop_map(move |text| text.map(|text| (name.to_owned(), json!(text)))))
        .collect::<Vec<_>>();
    let address = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    // From 1980: a smaller number would look like seconds.
    let millis = 315_532_800_000..=Timestamp::MAX.millis();
    let required = (words(128), millis, words(128), address, any::<bool>());
    let numbers = (prop::option::of(0..1000_u16), prop::option::of(any::<u64>()), prop::option::of(0..=2000_i64));
    let scopes = prop::collection::vec(words(128), 0..4);
    let attrs = prop::collection::btree_map("[a-z]{1,8}\\.x", words(200), 0..4);
    let kinds = (0..Kind::ALL.len(), 0..TokenType::ALL.len());
    (required, texts, numbers, scopes, attrs, kinds).prop_map(|(required, texts, numbers, scopes, attrs, kinds)| {
        let (event_id, millis, token_id, address, as_text) = required;
        let timestamp = format!("{:.3}", jiff::Timestamp::from_millisecond(millis).expect("in range"));
        let mut object: Map<String, Value> = texts.into_iter().flatten().collect();
        object.insert("event_id".into(), json!(event_id));
        object.insert("timestamp".into(), if as_text { json!(timestamp) } else { json!(millis) });
        object.insert("token_id".into(), json!(token_id));
        object.insert("ip_address".into(), json!(address.to_string()));
        object.insert("kind".into(), json!(Kind::ALL[kinds.0].as_str()));
        object.insert("token_type".into(), json!(TokenType::ALL[kinds.1].as_str()));
        object.insert("status".into(), json!(numbers.0));
        object.insert("bytes_out".into(), json!(numbers.1));
        object.insert("expires_at".into(), json!(numbers.2));
        object.insert("scopes".into(), json!(scopes));
        object.insert("attrs".into(), json!(attrs));
        object
    })
}

/// The JSON object that an event was read from, for comparison.
fn object_of(event: &Event<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    put("event_id", json!(event.event_id));
    put("token_id", json!(event.token_id.as_str()));
    put("parent_token_id", json!(event.parent_token_id.as_ref().map(|id| id.as_str().to_owned())));
    put("timestamp", json!(event.timestamp.millis()));
    put("expires_at", json!(event.expires_at.map(Timestamp::millis)));
    put("kind", json!(event.kind.as_str()));
    put("token_type", json!(event.token_type.as_str()));
    put("ip_address", json!(event.address.map(|address| address.ip().to_string())));
    put("status", json!(event.status));
    put("bytes_out", json!(event.bytes_out));
    put("scopes", json!(event.scopes));
    put("attrs", Value::Object(event.attrs.iter().map(|(name, value)| (name.to_string(), json!(value))).collect()));
    for (name, text) in [
        ("family_id", &event.family_id),
        ("session_id", &event.session_id),
        ("user_id", &event.user_id),
        ("app_id", &event.app_id),
        ("tenant_id", &event.tenant_id),
        ("user_agent", &event.user_agent),
        ("client_fingerprint", &event.client_fingerprint),
        ("method", &event.method),
        ("endpoint", &event.endpoint),
        ("binding", &event.binding),
    ] {
        put(name, json!(text));
    }
    object
}

/// Any JSON of any depth.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        "[a-z]{0,6}",
        prop::sample::select(vec![
            "event_id",
            "timestamp",
            "token_id",
            "ip_address",
            "geo",
            "attrs",
            "scopes",
            "Records",
            "userIdentity",
            "eventTime",
            "eventID",
            "accessKeyId",
            "target",
            "type",
            "id",
            "actor",
            "uuid",
            "published",
            "event",
            "@timestamp",
            "time",
            "metadata",
            "uid",
            "_document_id",
            "action",
            "credentials",
            "responseElements",
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("2026-11-22T10:15:30Z")),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn native_event_decodes_as_encoded(object in object()) {
        let text = Value::Object(object.clone()).to_string();
        let decoded = object_of(&event(Format::Native, &text));
        let mut expected: Map<String, Value> = object.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let time = &expected["timestamp"];
        let millis = time.as_str().map(|text| text.parse::<jiff::Timestamp>().expect("a time").as_millisecond());
        expected.insert("timestamp".into(), json!(millis.or(time.as_i64())));
        let address: IpAddr = expected["ip_address"].as_str().expect("a text").parse().expect("an address");
        expected.insert("ip_address".into(), json!(Address::new(address).to_string()));
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn any_bytes_give_an_answer_in_every_format(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in Format::ALL {
            prop_assert!(!decode_all(format, &bytes).0.is_empty());
        }
    }

    #[test]
    fn any_json_gives_an_answer_in_every_format(json in any_json(), cut in any::<prop::sample::Index>()) {
        let text = json.to_string();
        for format in Format::ALL {
            let batch = text.trim_ascii().starts_with('[') || text.starts_with("{\"Records\":[");
            prop_assert!(batch || !decode_all(format, text.as_bytes()).0.is_empty());
            let _ = decode_all(format, &text.as_bytes()[..cut.index(text.len())]);
        }
    }

    #[test]
    fn planted_token_is_found_in_every_field(
        at in 0..PLACES.len(),
        token in tokens(),
        around in prop::sample::select(vec![("", ""), ("see ", " there"), ("/v1/x?access_token=", "&limit=1"), ("caf\u{e9} ", "\n")]),
    ) {
        let (before, after) = PLACES[at];
        let value = Value::from(format!("{}{token}{}", around.0, around.1)).to_string();
        let message = format!("{before}{value}{after}");
        // An unnecessary escape does not hide the token.
        let first = format!("\\u{:04x}{}", token.as_bytes()[0], &token[1..]);
        let hidden = message.replace(&token, &first);
        let shown = format!("{:?}", decode_all(Format::Native, hidden.as_bytes()));
        prop_assert!(!shown.contains(&token[1..]), "{}", shown);
        let (taken, redactions) = decode_all(Format::Native, message.as_bytes());
        prop_assert!(matches!(taken.as_slice(), [Ok(Decoded::Event(_))]), "{:?}", taken);
        prop_assert!(!format!("{taken:?}").contains(&token), "{:?}", taken);
        prop_assert!(redactions >= 1);
        // The same in a dead letter, complete or truncated.
        let hasher = TokenHasher::new(b"a key for tests");
        for letter in [message.as_bytes(), &message.as_bytes()[..before.len() + value.len() - 1]] {
            let clean = wire::redact(letter, &hasher);
            prop_assert!(!String::from_utf8_lossy(&clean).contains(&token));
            prop_assert_eq!(&wire::redact(&clean, &hasher), &clean);
        }
    }

    #[test]
    fn fault_does_not_repeat_the_message(canary in "canary[a-z]{12}", field in prop::sample::select(vec![
        "timestamp", "kind", "token_type", "ip_address", "status", "bytes_out", "issued_at", "geo", "scopes", "attrs",
    ])) {
        for message in [
            format!(r#"{{"event_id":"e","{field}":"{canary}"}}"#),
            format!(r#"{{"{canary}":"#),
            canary.clone(),
            format!(r#"{{"event_id":["{canary}"]}}"#),
        ] {
            for format in Format::ALL {
                for record in decode_all(format, message.as_bytes()).0 {
                    let Err(error) = record else { continue };
                    let told = format!("{error} {error:?}");
                    prop_assert!(!told.contains("canary"), "{}", told);
                }
            }
        }
    }
}

/// Text before and after a value in an event, for every position of a text.
const PLACES: &[(&str, &str)] = &[
    (r#"{"event_id":"#, r#","timestamp":1,"token_id":"t","ip_address":"::1"}"#),
    (r#"{"event_id":"e","timestamp":1,"ip_address":"::1","token_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","parent_token_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","family_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","session_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","user_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","app_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","tenant_id":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","user_agent":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","client_fingerprint":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","method":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","endpoint":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","binding":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","scopes":["a","#, "]}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","geo":{"country":"#, "}}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","geo":{"as_org":"#, "}}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","geo":{"note":"#, "}}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","attrs":{"a":"#, "}}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","attrs":{"a":[{"b": "#, "}]}}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","more":"#, "}"),
    (r#"{"event_id":"e","timestamp":1,"token_id":"t","ip_address":"::1","more":{"a": ["#, "]}}"),
];

/// Made-up tokens of the common forms.
fn tokens() -> impl Strategy<Value = String> {
    prop_oneof![
        "eyJ[A-Za-z0-9]{20,40}\\.[A-Za-z0-9_-]{20,60}\\.[A-Za-z0-9_-]{43}",
        "gh[pousr]_[A-Za-z0-9]{36}",
        "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        "xox[abposr]-[0-9]{12}-[A-Za-z0-9]{24}",
        "glpat-[A-Za-z0-9_]{20}",
        "sk-[A-Za-z]{10}[0-9]{10}[A-Za-z]{28}",
        "sk_live_[A-Za-z0-9]{24}",
        "AIza[A-Za-z0-9_-]{34}a",
        "ya29\\.[A-Za-z0-9_-]{60}",
        "(FwoGZXIvYXdz|IQoJb3JpZ2luX2Vj)[A-Za-z0-9/+]{200}",
    ]
}
