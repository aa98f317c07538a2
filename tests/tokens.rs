//! Raw tokens: one test for each format that is told from an id, and the ids that have to stay.
//!
//! No token stands in this file: each is made of its prefix and of made-up characters when a test runs.

use tokenwarden::feed::Feed;
use tokenwarden::format::Format;
use tokenwarden::secret::looks_opaque;
use tokenwarden::token::{TokenHasher, TokenIds};
use tokenwarden::wire::{self, Decoded, Decoder, Notes};

fn hasher() -> TokenHasher {
    TokenHasher::new(b"a key for tests")
}

/// `length` made-up characters of an alphabet.
fn noise(length: usize, alphabet: &str) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        letters[(state >> 16) as usize % letters.len()]
    };
    std::iter::repeat_with(next).take(length).collect()
}

const HEX: &str = "0123456789abcdef";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const DIGITS: &str = "0123456789";
const CAPITALS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A native event with `id` as its token's, and the notes that decoding it leaves.
fn decoded(hasher: TokenHasher, id: &str, parent: &str) -> (Vec<String>, String, Notes) {
    let text = format!(
        r#"{{"event_id":"e","timestamp":1,"ip_address":"::1","token_id":"{id}","parent_token_id":"{parent}","attrs":{{"copy":"{id}"}}}}"#
    );
    let mut decoder = Decoder::new(Format::Native, hasher);
    let (mut ids, mut shown) = (Vec::new(), String::new());
    decoder.decode(text.as_bytes(), &mut |decoded| {
        let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {text}: {decoded:?}") };
        shown = format!("{event:?}");
        ids.push(event.token_id.as_str().to_owned());
        ids.extend(event.parent_token_id.map(|id| id.as_str().to_owned()));
    });
    (ids, shown, decoder.take_notes())
}

/// The token appears in no event and no dead letter, and keeps one name.
fn is_replaced(token: &str) {
    let (ids, shown, notes) = decoded(hasher(), token, "rt-1");
    assert!(ids[0].starts_with("hmac:") && ids[0].len() == 37, "{token} is stored as {}", ids[0]);
    assert_eq!(ids[1], "rt-1");
    assert!(!shown.contains(token) && notes.redactions >= 2, "{shown}");
    let (as_parent, ..) = decoded(hasher(), "at-1", token);
    assert_eq!(as_parent, ["at-1", &ids[0]], "the same token has the same name");
    let letter = format!(r#"{{"event_id":7,"token_id":"{token}""#);
    let kept = wire::redact(letter.as_bytes(), &hasher());
    assert!(!String::from_utf8_lossy(&kept).contains(token), "{}", String::from_utf8_lossy(&kept));
    assert_eq!(wire::redact(&kept, &hasher()), kept);
}

/// The token is found within a longer text too.
fn is_found(token: &str) {
    is_replaced(token);
    for (before, after) in
        [("see ", " there"), ("/v1/x/", "?limit=1"), ("caf\u{e9} ", ""), ("Authorization: token ", "")]
    {
        let (text, replaced) = hasher().redact(format!("{before}{token}{after}").into());
        assert!(replaced && !text.contains(token), "{text}");
        let message =
            format!(r#"{{"event_id":"e","timestamp":1,"token_id":"t","user_agent":"{before}{token}{after}"}}"#);
        Decoder::new(Format::Native, hasher()).decode(message.as_bytes(), &mut |decoded| {
            assert!(decoded.is_ok() && !format!("{decoded:?}").contains(token), "{decoded:?}");
        });
    }
}

macro_rules! formats {
    ($check:ident: $($name:ident = $($prefix:expr, $length:expr, $alphabet:expr);+,)+) => {
        $(#[test]
        fn $name() {
            let token = [$(format!("{}{}", $prefix, noise($length, $alphabet))),+].concat();
            $check(&token);
        })+
    };
}

/// Formats that are found in every text.
mod text {
    use super::*;

    formats! { is_found:
        one_password = "ops_eyJ", 300, BASE64,
        airtable = "pat", 14, ALNUM; ".", 64, HEX,
        anthropic = "sk-ant-api03-", 93, URL64; "AA", 0, ALNUM,
        atlassian = "ATATT3xFfGF0", 180, URL64,
        atlassian_service = "ATSTT3xFfGF0", 180, URL64,
        aws_session_token = "IQoJb3JpZ2luX2Vj", 300, BASE64,
        aws_session_token_old = "FwoGZXIvYXdzE", 300, BASE64,
        azure_refresh_token = "0.A", 600, URL64,
        bitbucket_app_password = "ATBB", 32, ALNUM,
        databricks = "dapi", 32, HEX,
        databricks_numbered = "dapi", 32, HEX; "-2", 0, HEX,
        digitalocean = "dop_v1_", 64, HEX,
        digitalocean_oauth = "doo_v1_", 64, HEX,
        digitalocean_refresh = "dor_v1_", 64, HEX,
        docker = "dckr_pat_", 27, URL64,
        doppler = "dp.pt.", 43, ALNUM,
        doppler_service = "dp.st.dev.", 43, ALNUM,
        dropbox = "sl.", 140, URL64,
        dropbox_short_lived = "sl.u.", 140, URL64,
        facebook = "EAA", 180, ALNUM,
        figma = "figd_", 40, URL64,
        fly = "fm2_", 200, BASE64,
        github = "ghp_", 36, ALNUM,
        github_fine_grained = "github_pat_", 22, ALNUM; "_", 59, ALNUM,
        github_installation = "ghs_", 36, ALNUM,
        github_oauth = "gho_", 36, ALNUM,
        github_refresh = "ghr_", 76, ALNUM,
        github_user = "ghu_", 36, ALNUM,
        gitlab_agent = "glagent-", 50, URL64,
        gitlab_deploy = "gldt-", 20, URL64,
        gitlab_feature_flags = "glffct-", 20, URL64,
        gitlab_feed = "glft-", 20, URL64,
        gitlab_job = "glcbt-", 20, URL64,
        gitlab_mail = "glimt-", 25, URL64,
        gitlab_oauth = "gloas-", 64, HEX,
        gitlab_personal = "glpat-", 20, URL64,
        gitlab_personal_routable = "glpat-", 27, URL64; ".01.0z", 7, ALNUM,
        gitlab_runner = "glrt-", 20, URL64,
        gitlab_runner_registered = "glrtr-", 20, URL64,
        gitlab_scim = "glsoat-", 20, URL64,
        gitlab_trigger = "glptt-", 40, HEX,
        gitlab_workspace = "glwt-", 20, URL64,
        google_access = "ya29.", 180, URL64,
        google_api_key = "AIza", 34, ALNUM; "a", 0, ALNUM,
        google_client_secret = "GOCSPX-", 28, URL64,
        google_refresh = "1//0g", 90, ALNUM,
        grafana_cloud = "glc_", 100, BASE64,
        grafana_old = "eyJrIjoi", 90, BASE64,
        grafana_service_account = "glsa_", 32, ALNUM; "_", 8, HEX,
        heroku = "HRKU-AA", 58, URL64,
        hugging_face = "hf_", 34, ALNUM,
        jwt = "eyJ", 30, ALNUM; ".", 60, URL64; ".", 43, URL64,
        linear = "lin_api_", 40, ALNUM,
        linear_oauth = "lin_oauth_", 64, HEX,
        new_relic = "NRAK-", 27, CAPITALS,
        notion = "ntn_", 11, DIGITS; "", 35, ALNUM,
        notion_old = "secret_", 43, ALNUM,
        npm = "npm_", 36, ALNUM,
        openai = "sk-", 48, ALNUM,
        openai_project = "sk-proj-", 124, URL64,
        openrouter = "sk-or-v1-", 64, HEX,
        paseto_v1 = "v1.local.", 120, URL64,
        paseto_v2 = "v2.public.", 120, URL64,
        paseto_v3 = "v3.local.", 120, URL64,
        paseto_v4 = "v4.public.", 120, URL64,
        postman = "PMAK-", 24, HEX; "-", 34, HEX,
        pypi = "pypi-AgEIcHlwaS5vcmc", 150, URL64,
        sendgrid = "SG.", 22, URL64; ".", 43, URL64,
        sentry = "sntrys_", 160, BASE64,
        sentry_user = "sntryu_", 64, HEX,
        shopify = "shpat_", 32, HEX,
        shopify_custom_app = "shpca_", 32, HEX,
        shopify_private_app = "shppa_", 32, HEX,
        shopify_shared_secret = "shpss_", 32, HEX,
        slack_app = "xapp-1-A0-", 13, DIGITS; "-", 64, HEX,
        slack_bot = "xoxb-", 12, DIGITS; "-", 13, DIGITS; "-", 24, ALNUM,
        slack_configuration = "xoxe.xoxp-1-", 160, ALNUM,
        slack_cookie = "xoxd-", 120, BASE64,
        slack_user = "xoxp-", 12, DIGITS; "-", 32, HEX,
        stripe = "sk_live_", 24, ALNUM,
        stripe_prod = "sk_prod_", 24, ALNUM,
        stripe_restricted = "rk_live_", 99, ALNUM,
        stripe_webhook = "whsec_", 32, ALNUM,
        supabase = "sbp_", 40, HEX,
        vault = "hvs.", 95, URL64,
        vault_batch = "hvb.", 140, URL64,
    }
}

/// Formats that only an id is held against.
mod id {
    use super::*;

    formats! { is_replaced:
        adobe = "p8e-", 32, ALNUM,
        artifactory_reference = "cmVmd", 59, ALNUM,
        azure_client_secret = "abc8Q~", 34, URL64,
        azure_refresh_token_new = "1.A", 600, URL64,
        bedrock = "ABSK", 130, BASE64,
        brevo = "xkeysib-", 64, HEX; "-", 16, ALNUM,
        buildkite = "bkua_", 40, HEX,
        buildkite_letters = "bkua_", 40, ALNUM,
        circleci = "CCIPAT_", 22, ALNUM; "_", 40, HEX,
        clickhouse_cloud = "4b1d", 38, ALNUM,
        clojars = "CLOJARS_", 60, ALNUM,
        cloudflare_account = "cfat_", 48, ALNUM,
        cloudflare_global = "cfk_", 48, ALNUM,
        cloudflare_origin = "v1.0-", 24, HEX; "-", 146, HEX,
        cloudflare_user = "cfut_", 48, ALNUM,
        discord = "M", 23, ALNUM; ".", 6, URL64; ".", 38, URL64,
        docker_organisation = "dckr_oat_", 32, ALNUM,
        duffel = "duffel_live_", 43, URL64,
        dynatrace = "dt0c01.", 24, CAPITALS; ".", 64, CAPITALS,
        easypost = "EZAK", 54, ALNUM,
        fly_macaroon = "fm1r_", 200, BASE64,
        frame_io = "fio-u-", 64, URL64,
        gitlab_runner_registration = "GR1348941", 20, URL64,
        groq = "gsk_", 52, ALNUM,
        hugging_face_organisation = "api_org_", 34, ALNUM,
        infracost = "ico-", 32, ALNUM,
        jfrog = "AKCp", 69, ALNUM,
        langsmith = "lsv2_pt_", 32, HEX; "_", 10, HEX,
        linkedin = "AQ", 340, URL64,
        mailgun = "key-", 32, HEX,
        new_relic_insert = "NRII-", 32, URL64,
        octopus_deploy = "API-", 26, CAPITALS,
        okta_api_token = "00", 40, URL64,
        openshift = "sha256~", 43, URL64,
        perplexity = "pplx-", 48, ALNUM,
        plaid = "access-production-", 8, HEX; "-4d7e-9a41-8c8e-", 12, HEX,
        planetscale = "pscale_tkn_", 43, URL64,
        prefect = "pnu_", 36, ALNUM,
        pulumi = "pul-", 40, HEX,
        readme = "rdme_", 70, ALNUM,
        replicate = "r8_", 37, ALNUM,
        rubygems = "rubygems_", 48, HEX,
        salesforce = "00D", 12, ALNUM; "!AQ", 94, ALNUM,
        salesforce_long = "00D", 15, ALNUM; "!AQ", 94, ALNUM,
        scalingo = "tk-us-", 48, URL64,
        shippo = "shippo_live_", 40, HEX,
        sourcegraph = "sgp_", 16, HEX; "_", 40, HEX,
        square = "sq0atp-", 22, URL64,
        square_production = "EAAA", 60, URL64,
        supabase_secret = "sb_secret_", 31, URL64,
        tailscale = "tskey-api-", 12, ALNUM; "-", 32, ALNUM,
        telegram = "", 10, DIGITS; ":AA", 33, URL64,
        terraform = "", 14, ALNUM; ".atlasv1.", 67, URL64,
        trello = "ATTA", 72, HEX,
        typeform = "tfp_", 44, URL64,
        vault_before_1_10 = "s.", 24, ALNUM,
        xai = "xai-", 80, ALNUM,
    }
}

#[test]
fn ids_that_are_no_tokens_stay() {
    for id in [
        // UUID, ULID, KSUID, nanoid, CUID, a `jti` of Keycloak and of Auth0, a Mongo id.
        "5f0c8a1e-7b32-4d7e-9a41-0123456789ab".to_owned(),
        "01JD8Z4W8Q4R5V6T7X8Y9Z0A1B".to_owned(),
        noise(27, ALNUM),
        noise(21, URL64),
        noise(25, HEX),
        format!("onrtro:{}", "5f0c8a1e-7b32-4d7e-9a41-0123456789ab"),
        noise(32, ALNUM),
        noise(24, HEX),
        // AWS ids of keys, Okta's ids of tokens, users and sessions.
        format!("AKIA{}", noise(16, CAPITALS)),
        format!("ASIA{}", noise(16, CAPITALS)),
        format!("00T{}", noise(17, ALNUM)),
        format!("00u{}", noise(17, ALNUM)),
        format!("00D{}", noise(15, ALNUM)),
        format!("SK{}", noise(32, HEX)),
        "sha256-of-the-certificate-of-the-gateway-1".to_owned(),
        "access-production-eu-central-1-reader".to_owned(),
        format!("oar{}", noise(17, ALNUM)),
        format!("idx{}", noise(22, URL64)),
        format!("102{}", noise(22, URL64)),
        // Hashes: SHA-256 in base64 as of GitHub, in hexadecimal, and a thumbprint.
        format!("{}=", noise(43, BASE64)),
        noise(64, HEX),
        noise(43, URL64),
        format!("sha256:{}", noise(64, HEX)),
        format!("jkt:{}", noise(43, URL64)),
        format!("hmac:{}", noise(32, URL64)),
        // Names that only begin like a token.
        "hf_internal_reports".to_owned(),
        "dapi-gateway-eu-1".to_owned(),
        "SG.production.eu".to_owned(),
        "pat.smith".to_owned(),
        "secret_rotation_job".to_owned(),
        "fig-tree-service-account".to_owned(),
        "s.karlsson".to_owned(),
        "v1.local.cache".to_owned(),
        "dp.st.nightly".to_owned(),
        "sl.example.org".to_owned(),
        "AQ-service-account-of-the-data-platform".to_owned(),
        "key-rotation".to_owned(),
        "EAArchive".to_owned(),
        "0.A-team".to_owned(),
        "arn:aws:iam::111122223333:user/sk-production-eu-1".to_owned(),
        "grant-77/2026-11-22T10:15:30Z".to_owned(),
    ] {
        let (ids, _, notes) = decoded(hasher(), &id, "rt-1");
        assert_eq!((ids[0].as_str(), notes.redactions), (id.as_str(), 0), "{id}");
        let kept = wire::redact(format!(r#"{{"token_id":"{id}"}}"#).as_bytes(), &hasher());
        assert!(String::from_utf8_lossy(&kept).contains(&id), "{id}");
    }
}

#[test]
fn opaque_ids_differ_from_ids() {
    for (opaque, id) in [
        (true, noise(43, URL64)),
        (true, noise(40, HEX)),
        (true, noise(128, HEX)),
        (true, noise(64, URL64) + "x"),
        (true, noise(36, ALNUM)),
        (false, noise(32, HEX)),
        (false, noise(64, HEX)),
        (false, format!("{}=", noise(43, BASE64))),
        (false, noise(22, URL64)),
        (false, "5f0c8a1e-7b32-4d7e-9a41-0123456789ab".to_owned()),
        (false, "01JD8Z4W8Q4R5V6T7X8Y9Z0A1B".to_owned()),
        (false, "a-long-name-of-a-service-account-in-europe-1".to_owned()),
        (false, "arn:aws:sts::111122223333:assumed-role/Reader/ana".to_owned()),
        (false, format!("Aa1{}", "a".repeat(60))),
        (false, String::new()),
    ] {
        assert_eq!(looks_opaque(&id), opaque, "{id}");
    }
    let (_, _, notes) = decoded(hasher(), &noise(43, URL64), "rt-1");
    assert_eq!((notes.opaque_ids, notes.redactions), (1, 0), "it is counted and stays");
    let (_, _, notes) = decoded(hasher().with_ids(TokenIds::Hashed), &noise(43, URL64), "rt-1");
    assert_eq!(notes.opaque_ids, 0, "its hash gives nothing away");
}

#[test]
fn hashed_ids_replace_every_token_id() {
    let hashed = || hasher().with_ids(TokenIds::Hashed);
    let (ids, shown, notes) = decoded(hashed(), "at-5521", "rt-9");
    assert!(ids.iter().all(|id| id.starts_with("hmac:")) && ids[0] != ids[1], "{ids:?}");
    assert!(!shown.contains("rt-9") && notes.redactions == 0, "{shown}");
    let (again, ..) = decoded(hashed(), &ids[0], "rt-9");
    assert_eq!(again, ids, "a hash is its own");
    let (swapped, ..) = decoded(hashed(), "rt-9", "at-5521");
    assert_eq!(swapped, [ids[1].clone(), ids[0].clone()], "a token has one name wherever it stands");
    // A token that is told by its form has the same name under both settings.
    let token = format!("ghp_{}", noise(36, ALNUM));
    assert_eq!(decoded(hashed(), &token, "x").0[0], decoded(hasher(), &token, "x").0[0]);
    // What is too long for an id is read all the same.
    let (long, ..) = decoded(hashed(), &noise(900, URL64), "rt-9");
    assert_eq!(long[0].len(), 37);
    // With an escape in it, the slow reader gives the same.
    let text = r#"{"event_id":"e","timestamp":1,"token_id":"at\u002d5521","ip_address":"::1"}"#;
    Decoder::new(Format::Native, hashed()).decode(text.as_bytes(), &mut |decoded| {
        let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {decoded:?}") };
        assert_eq!(event.token_id.as_str(), ids[0]);
    });
    let letter = br#"{"event_id":7,"token_id" : "at-5521","parent_token_id":"rt-9","attrs":{"token_id":"x"},"#;
    let kept = String::from_utf8(wire::redact(letter, &hashed())).expect("text");
    assert!(!kept.contains("at-5521") && !kept.contains("rt-9") && kept.contains(&ids[0]), "{kept}");
    assert!(String::from_utf8_lossy(&wire::redact(letter, &hasher())).contains("at-5521"), "the control");
}

#[test]
fn hashed_ids_hold_for_every_format() {
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Native) {
        let path = format!("{}/tests/data/formats/{format}.ndjson", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the samples are there");
        let read = |ids: TokenIds| {
            let mut decoder = Decoder::new(Feed::from(format), hasher().with_ids(ids));
            let mut found = Vec::new();
            for line in text.lines() {
                decoder.decode(line.as_bytes(), &mut |decoded| {
                    let Ok(Decoded::Event(event)) = decoded else { return };
                    found.push(event.token_id.as_str().to_owned());
                    found.extend(event.parent_token_id.map(|id| id.as_str().to_owned()));
                });
            }
            found
        };
        let (sent, hashed) = (read(TokenIds::AsSent), read(TokenIds::Hashed));
        assert!(!sent.is_empty() && sent.len() == hashed.len(), "{format}");
        for (sent, hashed) in sent.iter().zip(&hashed) {
            assert!(hashed.starts_with("hmac:") && hashed.len() == 37, "{format}: {sent} is {hashed}");
            let same = sent.starts_with("hmac:") && sent.len() == 37;
            assert_eq!(same, sent == hashed, "{format}: {sent} is {hashed}");
        }
    }
}
