//! Secrets recognised by the prefix that their issuers give them.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, MatchKind, packed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The next secret with a known prefix, at or after `from`.
pub(super) fn next(text: &[u8], from: usize) -> Option<Range<usize>> {
    let stems = FINDER.as_ref()?;
    let mut at = from;
    // For each kind, the position before which no such body begins, so that the time is linear for a text of many
    // prefixes.
    let mut barren = [0; Body::KINDS];
    while let Some((found, stem)) = stems.find(text, at) {
        at = found + 1;
        for &(form, offset) in stems.forms.get(stem).into_iter().flatten() {
            let Some((prefix, body)) = FORMS.get(form) else { continue };
            let Some(start) = found.checked_sub(offset).filter(|&start| start >= from && begins_word(text, start))
            else {
                continue;
            };
            let Some(rest) = text.get(start..).and_then(|rest| rest.strip_prefix(prefix.as_bytes())) else { continue };
            let Some(barren) = barren.get_mut(body.kind()).filter(|barren| start >= **barren) else { continue };
            let opened = start + prefix.len();
            match body.length(rest) {
                Ok(length) => return Some(if body.follows_scheme() { opened } else { start }..opened + length),
                Err(length) => *barren = opened + length,
            }
        }
    }
    None
}

/// Whether `text` as a whole is a secret by one of [`ID_FORMS`].
pub(super) fn is_id_form(text: &[u8]) -> bool {
    let Some(first) = text.first() else { return false };
    ID_FORMS.iter().any(|(prefix, body)| {
        // The first bytes of most ids and forms differ.
        prefix.as_bytes().first() == Some(first)
            && text.strip_prefix(prefix.as_bytes()).is_some_and(|rest| body.length(rest) == Ok(rest.len()))
    })
}

/// Required form of the bytes after a prefix.
pub(super) enum Body {
    /// At least this many bytes of the alphabet.
    AtLeast(usize, Alphabet),
    /// Exactly this many, and then another byte.
    Exactly(usize, Alphabet),
    /// At least this many, including an unbroken piece of random text.
    Opaque(usize, Alphabet),
    /// At least this many bytes of the alphabet, including capitals, small letters and digits.
    Mixed(usize, Alphabet),
    /// Exactly this many bytes of the alphabet, a dot, and at least this many.
    Dotted(usize, usize, Alphabet),
    /// At least two parts in base64url with a dot between (RFC 7519; RFC 7516 has five).
    Jwt,
    /// The credentials after an authentication scheme (RFC 9110 section 11.4). The scheme is kept.
    Credentials,
    /// User and password in base64 (RFC 7617).
    UserAndPassword,
}

pub(super) type Alphabet = fn(u8) -> bool;

/// Prefixes that are searched for in all texts, with their bodies. The comment before each vendor names the page of its
/// documentation that gives the format, or a scanner with public rules: gitleaks, Nosey Parker or Kingfisher. "No
/// published format" marks the others.
pub(super) const FORMS: &[(&str, Body)] = &[
    ("eyJ", Body::Jwt),
    ("Bearer ", Body::Credentials),
    ("bearer ", Body::Credentials),
    ("BEARER ", Body::Credentials),
    ("Bearer%20", Body::Credentials),
    ("Basic ", Body::UserAndPassword),
    ("DPoP ", Body::Credentials),
    ("SSWS ", Body::Credentials),
    // GitHub: "About authentication to GitHub", token prefixes.
    ("ghp_", Body::AtLeast(10, word)),
    ("gho_", Body::AtLeast(10, word)),
    ("ghu_", Body::AtLeast(10, word)),
    ("ghs_", Body::AtLeast(10, jose)),
    ("ghr_", Body::AtLeast(10, word)),
    ("github_pat_", Body::AtLeast(10, word)),
    // GitLab: "Token overview", token prefixes.
    ("glpat-", Body::AtLeast(10, jose)),
    ("glptt-", Body::AtLeast(10, jose)),
    ("gldt-", Body::AtLeast(10, jose)),
    ("glrt-", Body::AtLeast(10, jose)),
    ("glrtr-", Body::AtLeast(10, jose)),
    ("glcbt-", Body::AtLeast(10, jose)),
    ("gloas-", Body::AtLeast(10, jose)),
    ("glsoat-", Body::AtLeast(10, jose)),
    ("glft-", Body::AtLeast(10, jose)),
    ("glffct-", Body::AtLeast(10, jose)),
    ("glimt-", Body::AtLeast(10, jose)),
    ("glagent-", Body::AtLeast(10, jose)),
    ("glwt-", Body::AtLeast(10, jose)),
    // Slack: "Tokens"; legacy ones, and those of browsers and of rotation: gitleaks.
    ("xoxa-", Body::AtLeast(8, dashed)),
    ("xoxb-", Body::AtLeast(8, dashed)),
    ("xoxc-", Body::AtLeast(8, dashed)),
    ("xoxd-", Body::AtLeast(8, base64)),
    ("xoxe-", Body::AtLeast(8, dashed)),
    ("xoxe.xox", Body::AtLeast(8, jose)),
    ("xoxo-", Body::AtLeast(8, dashed)),
    ("xoxp-", Body::AtLeast(8, dashed)),
    ("xoxr-", Body::AtLeast(8, dashed)),
    ("xoxs-", Body::AtLeast(8, dashed)),
    ("xapp-", Body::AtLeast(8, dashed)),
    // OpenAI, Anthropic: gitleaks. OpenRouter: "API keys". Other vendors use the shorter prefix too.
    ("sk-proj-", Body::AtLeast(20, word)),
    ("sk-svcacct-", Body::AtLeast(20, word)),
    ("sk-admin-", Body::AtLeast(20, word)),
    ("sk-ant-", Body::AtLeast(20, word)),
    ("sk-or-v1-", Body::AtLeast(20, word)),
    ("sk-", Body::Opaque(16, word)),
    // Stripe: "API keys", "Webhooks". Publishable keys are none.
    ("sk_live_", Body::AtLeast(10, word)),
    ("sk_test_", Body::AtLeast(10, word)),
    ("sk_prod_", Body::AtLeast(10, word)),
    ("sk_org_", Body::AtLeast(10, word)),
    ("rk_live_", Body::AtLeast(10, word)),
    ("rk_test_", Body::AtLeast(10, word)),
    ("whsec_", Body::AtLeast(16, base64)),
    // Google: Nosey Parker.
    ("AIza", Body::Exactly(35, word)),
    ("ya29.", Body::AtLeast(16, jose)),
    ("1//0", Body::Mixed(24, word)),
    ("GOCSPX-", Body::AtLeast(16, word)),
    // AWS session tokens, old and new, by their base64 contents: `origin` and `er/aws`. AWS publishes no format.
    // Identifiers of keys (`AKIA…`, `ASIA…`) do not count.
    ("IQoJb3JpZ2lu", Body::AtLeast(16, base64)),
    ("FwoGZXIvYXdz", Body::AtLeast(16, base64)),
    ("FQoGZXIvYXdz", Body::AtLeast(16, base64)),
    ("FQoDYXdz", Body::AtLeast(16, base64)),
    ("AgoJb3JpZ2lu", Body::AtLeast(16, base64)),
    // Microsoft Entra ID refresh tokens: no published format.
    ("0.A", Body::Mixed(80, jose)),
    // npm, PyPI: gitleaks. Docker: Nosey Parker.
    ("npm_", Body::Opaque(30, word)),
    ("pypi-AgE", Body::AtLeast(16, word)),
    ("dckr_pat_", Body::AtLeast(16, word)),
    // Shopify: gitleaks.
    ("shpat_", Body::AtLeast(32, hex)),
    ("shpca_", Body::AtLeast(32, hex)),
    ("shppa_", Body::AtLeast(32, hex)),
    ("shpss_", Body::AtLeast(32, hex)),
    // DigitalOcean: gitleaks.
    ("dop_v1_", Body::AtLeast(32, hex)),
    ("doo_v1_", Body::AtLeast(32, hex)),
    ("dor_v1_", Body::AtLeast(32, hex)),
    // HashiCorp Vault: "Tokens", token prefixes.
    ("hvs.", Body::AtLeast(20, word)),
    ("hvb.", Body::AtLeast(20, word)),
    // Atlassian, Bitbucket: Nosey Parker; `ATCTT` and `ATSTT` have no published format.
    ("ATATT3x", Body::AtLeast(20, base64)),
    ("ATCTT3x", Body::AtLeast(20, base64)),
    ("ATSTT3x", Body::AtLeast(20, base64)),
    ("ATBB", Body::AtLeast(28, word)),
    // PASETO: "PASETO specification", versions and purposes.
    ("v1.local.", Body::AtLeast(20, jose)),
    ("v2.local.", Body::AtLeast(20, jose)),
    ("v3.local.", Body::AtLeast(20, jose)),
    ("v4.local.", Body::AtLeast(20, jose)),
    ("v1.public.", Body::AtLeast(20, jose)),
    ("v2.public.", Body::AtLeast(20, jose)),
    ("v3.public.", Body::AtLeast(20, jose)),
    ("v4.public.", Body::AtLeast(20, jose)),
    // Hugging Face: "User access tokens".
    ("hf_", Body::AtLeast(30, alphanumeric)),
    // Databricks: gitleaks.
    ("dapi", Body::AtLeast(32, hex_dashed)),
    // SendGrid: gitleaks.
    ("SG.", Body::Dotted(22, 40, word)),
    // Linear: gitleaks; OAuth tokens have a similar form.
    ("lin_api_", Body::AtLeast(32, word)),
    ("lin_oauth_", Body::AtLeast(32, word)),
    // Notion: gitleaks; the older prefix has no published format.
    ("ntn_", Body::AtLeast(40, alphanumeric)),
    ("secret_", Body::Exactly(43, alphanumeric)),
    // New Relic: gitleaks.
    ("NRAK-", Body::AtLeast(27, alphanumeric)),
    // Figma: no published format.
    ("figd_", Body::AtLeast(30, word)),
    ("figo_", Body::AtLeast(30, word)),
    // Doppler: "Auth token formats".
    ("dp.pt.", Body::AtLeast(30, word)),
    ("dp.st.", Body::AtLeast(30, jose)),
    ("dp.ct.", Body::AtLeast(30, word)),
    ("dp.sa.", Body::AtLeast(30, word)),
    ("dp.scim.", Body::AtLeast(30, word)),
    ("dp.audit.", Body::AtLeast(30, word)),
    // Postman: gitleaks.
    ("PMAK-", Body::AtLeast(30, hex_dashed)),
    // Heroku: gitleaks.
    ("HRKU-", Body::AtLeast(30, word)),
    // Sentry: gitleaks.
    ("sntrys_", Body::AtLeast(30, base64)),
    ("sntryu_", Body::AtLeast(30, hex)),
    // Grafana: gitleaks. Older keys are base64 of JSON.
    ("glsa_", Body::AtLeast(30, word)),
    ("glc_", Body::AtLeast(30, base64)),
    ("eyJrIjoi", Body::AtLeast(60, base64)),
    // Fly.io: gitleaks.
    ("fm2_", Body::AtLeast(40, base64)),
    // Supabase: no published format.
    ("sbp_", Body::AtLeast(40, hex)),
    // Airtable: gitleaks.
    ("pat", Body::Dotted(14, 60, alphanumeric)),
    // Dropbox: gitleaks.
    ("sl.", Body::AtLeast(100, jose)),
    // Meta: gitleaks.
    ("EAA", Body::AtLeast(60, alphanumeric)),
    // 1Password service accounts: gitleaks.
    ("ops_eyJ", Body::AtLeast(100, base64)),
];

/// Prefixes that are compared only with the start of an id: each would otherwise cost a search of every message.
pub(super) const ID_FORMS: &[(&str, Body)] = &[
    // Microsoft Entra ID refresh tokens, and those of personal accounts: no published format.
    ("1.A", Body::Mixed(80, jose)),
    ("M.C", Body::AtLeast(80, token68)),
    // HashiCorp Vault before 1.10 (gitleaks), and "Tokens", token prefixes.
    ("s.", Body::Exactly(24, alphanumeric)),
    ("b.", Body::AtLeast(100, word)),
    ("hvr.", Body::AtLeast(20, word)),
    // LinkedIn: no published format.
    ("AQ", Body::AtLeast(100, word)),
    // Cloudflare: "Token formats".
    ("cfk_", Body::AtLeast(40, word)),
    ("cfut_", Body::AtLeast(40, word)),
    ("cfat_", Body::AtLeast(40, word)),
    // Fly.io.
    ("FlyV1 fm", Body::AtLeast(40, base64)),
    ("fm1r_", Body::AtLeast(40, base64)),
    ("fm1a_", Body::AtLeast(40, base64)),
    ("fo1_", Body::AtLeast(40, word)),
    // Supabase.
    ("sb_secret_", Body::AtLeast(20, word)),
    // New Relic.
    ("NRII-", Body::AtLeast(30, word)),
    ("NRIQ-", Body::AtLeast(30, word)),
    // Amazon Bedrock API keys.
    ("ABSK", Body::AtLeast(100, base64)),
    // Hugging Face organisations.
    ("api_org_", Body::AtLeast(30, alphanumeric)),
    // Docker organisations.
    ("dckr_oat_", Body::AtLeast(16, word)),
    // Trello.
    ("ATTA", Body::Exactly(72, hex)),
    // Groq, Perplexity, LangSmith: gitleaks. xAI, Replicate: Kingfisher. Pinecone: no published format.
    ("gsk_", Body::AtLeast(40, alphanumeric)),
    ("xai-", Body::AtLeast(60, word)),
    ("pplx-", Body::AtLeast(40, alphanumeric)),
    ("r8_", Body::AtLeast(30, alphanumeric)),
    ("lsv2_pt_", Body::AtLeast(30, word)),
    ("lsv2_sk_", Body::AtLeast(30, word)),
    ("pcsk_", Body::AtLeast(40, word)),
    // PlanetScale, Pulumi, RubyGems, Dynatrace, JFrog, Typeform, Square: gitleaks. Tailscale, Buildkite, CircleCI:
    // Kingfisher. PostHog: no published format.
    ("tskey-", Body::AtLeast(20, word)),
    ("pscale_", Body::AtLeast(32, jose)),
    ("pul-", Body::Exactly(40, hex)),
    ("rubygems_", Body::Exactly(48, hex)),
    ("bkua_", Body::AtLeast(40, alphanumeric)),
    ("CCIPAT_", Body::AtLeast(40, word)),
    ("dt0c01.", Body::Dotted(24, 60, alphanumeric)),
    ("AKCp", Body::AtLeast(60, alphanumeric)),
    ("tfp_", Body::AtLeast(40, word)),
    ("phx_", Body::AtLeast(40, word)),
    ("sq0atp-", Body::AtLeast(22, word)),
    ("EAAA", Body::AtLeast(50, word)),
    ("cmVmd", Body::Exactly(59, alphanumeric)),
    // Mailgun: gitleaks.
    ("key-", Body::Exactly(32, hex)),
    // GitLab: runner registration tokens of before 16.0. OpenShift, Brevo, Plaid, Prefect, ReadMe, Shippo, Sourcegraph,
    // Duffel, EasyPost, Adobe, Infracost, Octopus Deploy, ClickHouse Cloud, Frame.io, Scalingo, Clojars, Cloudflare's origin
    // CA: gitleaks.
    ("GR1348941", Body::AtLeast(20, word)),
    ("sha256~", Body::Exactly(43, word)),
    ("xkeysib-", Body::AtLeast(80, dashed)),
    ("access-production-", Body::Exactly(36, hex_dashed)),
    ("access-development-", Body::Exactly(36, hex_dashed)),
    ("access-sandbox-", Body::Exactly(36, hex_dashed)),
    ("pnu_", Body::Exactly(36, alphanumeric)),
    ("rdme_", Body::Exactly(70, alphanumeric)),
    ("shippo_live_", Body::Exactly(40, hex)),
    ("shippo_test_", Body::Exactly(40, hex)),
    ("sgp_", Body::AtLeast(40, word)),
    ("duffel_live_", Body::AtLeast(43, word)),
    ("duffel_test_", Body::AtLeast(43, word)),
    ("EZAK", Body::Exactly(54, alphanumeric)),
    ("EZTK", Body::Exactly(54, alphanumeric)),
    ("p8e-", Body::Exactly(32, alphanumeric)),
    ("ico-", Body::Exactly(32, alphanumeric)),
    ("API-", Body::Exactly(26, alphanumeric)),
    ("4b1d", Body::Exactly(38, alphanumeric)),
    ("fio-u-", Body::AtLeast(64, word)),
    ("tk-us-", Body::Exactly(48, word)),
    ("CLOJARS_", Body::Exactly(60, alphanumeric)),
    ("v1.0-", Body::AtLeast(160, hex_dashed)),
];

/// Substrings of the prefixes. Every message is searched for these, so they are few and short. On the events of
/// `benches/decode.rs` this takes half the time of a search for the prefixes. Vectorised search supports at most 64.
pub(super) const STEMS: &[&str] = &[
    "eyJ", "earer", "EARER", "Basic ", "DPoP ", "SSWS ", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "pat", "glpt", "gld",
    "glr", "glc", "glo", "gls", "glf", "gli", "gla", "glw", "xox", "xapp-", "sk-", "sk_", "rk_", "whsec_", "AIza",
    "1//0", "ya29.", "GOCSPX-", "Jb3J", "YXdz", "npm_", "pypi-", "shp", "_v1_", "hvs.", "hvb.", "TT3x", ".loc", ".pub",
    "hf_", "dapi", "SG.", "lin_", "ntn_", "NRAK", "0.A", "ATBB", "fig", "secret_", "dp.", "PMAK", "HRKU", "sntry",
    "fm2_", "sbp_", "sl.", "EAA",
];

/// Finds the stems, vectorised if the processor supports it.
pub(super) struct Stems {
    packed: Option<packed::Searcher>,
    plain: AhoCorasick,
    /// For each stem, the forms whose prefix contains it, and its offset in the prefix.
    forms: Vec<Vec<(usize, usize)>>,
}

/// `None` only if the stems make too large an automaton; a test shows that these do not.
pub(super) static FINDER: LazyLock<Option<Stems>> = LazyLock::new(|| {
    let plain = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(STEMS).ok()?;
    let mut forms = vec![Vec::new(); STEMS.len()];
    for (form, (prefix, _)) in FORMS.iter().enumerate() {
        let stem = STEMS.iter().enumerate().find_map(|(number, stem)| Some((number, prefix.find(stem)?)));
        if let Some((stem, offset)) = stem {
            forms.get_mut(stem)?.push((form, offset));
        }
    }
    Some(Stems { packed: packed::Searcher::new(STEMS), plain, forms })
});

impl Stems {
    /// Where the next stem at or after `from` begins, and its number.
    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let found = match &self.packed {
            Some(packed) => packed.find_in(text, (from..text.len()).into()),
            None => self.plain.find(Input::new(text).span(from..text.len())),
        };
        found.map(|found| (found.start(), found.pattern().as_usize()))
    }
}

impl Body {
    /// The prefix is the name of an authentication scheme, and no part of the secret.
    pub(super) const fn follows_scheme(&self) -> bool {
        matches!(self, Self::Credentials | Self::UserAndPassword)
    }

    const KINDS: usize = 3;

    /// If one body of a kind is absent up to a position, all bodies of its kind are.
    const fn kind(&self) -> usize {
        match self {
            Self::Jwt => 0,
            Self::Opaque(..) => 1,
            _ => 2,
        }
    }

    /// Length of the body at the start of `rest`. Without a body, the length that need not be searched again for this
    /// kind.
    fn length(&self, rest: &[u8]) -> Result<usize, usize> {
        match *self {
            Self::AtLeast(min, alphabet) => {
                let opens = rest.len() >= min && rest.iter().take(min).all(|&byte| alphabet(byte));
                if opens { Ok(run(rest, alphabet)) } else { Err(0) }
            }
            Self::Exactly(length, alphabet) => {
                let window = rest.get(..length + 1).unwrap_or(rest);
                if run(window, alphabet) == length { Ok(length) } else { Err(0) }
            }
            Self::Opaque(min, alphabet) => {
                let opaque = |piece: &[u8]| {
                    piece.len() >= 16
                        && piece.iter().any(u8::is_ascii_digit)
                        && piece.iter().any(u8::is_ascii_alphabetic)
                };
                let length = run(rest, alphabet);
                let mut pieces = rest.get(..length).unwrap_or_default().split(|&byte| byte == b'-' || byte == b'_');
                if length >= min && pieces.any(opaque) { Ok(length) } else { Err(length) }
            }
            Self::Mixed(min, alphabet) => {
                let opens = rest.get(..min).is_some_and(|head| {
                    head.iter().all(|&byte| alphabet(byte))
                        && head.iter().any(u8::is_ascii_digit)
                        && head.iter().any(u8::is_ascii_uppercase)
                        && head.iter().any(u8::is_ascii_lowercase)
                });
                if opens { Ok(run(rest, alphabet)) } else { Err(0) }
            }
            Self::Dotted(first, min, alphabet) => {
                let found = run(rest.get(..first + 1).unwrap_or(rest), alphabet) == first
                    && rest.get(first) == Some(&b'.')
                    && rest.get(first + 1..).is_some_and(|rest| run(rest, alphabet) >= min);
                if found { Ok(first + 1 + rest.get(first + 1..).map_or(0, |rest| run(rest, alphabet))) } else { Err(0) }
            }
            Self::Jwt => {
                let header = run(rest, word);
                let claims = rest.get(header + 1..).map_or(0, |rest| run(rest, word));
                let found = header >= 8 && rest.get(header) == Some(&b'.') && claims >= 8;
                if found { Ok(run(rest, jose)) } else { Err(header) }
            }
            Self::Credentials => {
                const WINDOW: usize = 20;
                let length = run(rest.get(..WINDOW).unwrap_or(rest), token68);
                let inner = rest.get(1..length).unwrap_or_default();
                let mixed = inner.iter().any(u8::is_ascii_uppercase) && inner.iter().any(u8::is_ascii_lowercase);
                let found = length >= WINDOW || length >= 8 && (mixed || inner.iter().any(u8::is_ascii_digit));
                if found { Ok(run(rest, token68)) } else { Err(0) }
            }
            Self::UserAndPassword => {
                let length = run(rest, base64);
                let decoded = STANDARD.decode(rest.get(..length).unwrap_or_default()).unwrap_or_default();
                if decoded.contains(&b':') { Ok(length) } else { Err(0) }
            }
        }
    }
}

/// Length of the run of `alphabet` that `text` begins with; a backslash that escapes what follows is no part of it.
fn run(text: &[u8], alphabet: Alphabet) -> usize {
    let length = text.iter().position(|&byte| !alphabet(byte)).unwrap_or(text.len());
    let escapes = text.iter().take(length).rev().take_while(|&&byte| byte == b'\\').count();
    length - escapes
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn hex_dashed(byte: u8) -> bool {
    hex(byte) || byte == b'-'
}

fn dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Of base64url and of most issuers' tokens.
pub(super) fn word(byte: u8) -> bool {
    dashed(byte) || byte == b'_'
}

/// Of the compact forms of JOSE: base64url parts with dots between.
fn jose(byte: u8) -> bool {
    word(byte) || byte == b'.'
}

/// Of credentials in a header (RFC 9110 section 11.2).
fn token68(byte: u8) -> bool {
    jose(byte) || matches!(byte, b'~' | b'+' | b'/' | b'=' | b'%')
}

/// Of base64, as it is or escaped for a URL (`%2B`) or within JSON (`\/`, `\u002b`).
fn base64(byte: u8) -> bool {
    word(byte) || matches!(byte, b'+' | b'/' | b'=' | b'%' | b'\\')
}

/// Whether a word can begin at `at`: after anything but a letter or digit, or after an escape (`\n`, `\u003d`, `%3D`).
fn begins_word(text: &[u8], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).and_then(|at| text.get(at)).copied();
    !before(1).is_some_and(|byte| byte.is_ascii_alphanumeric())
        || before(2) == Some(b'\\')
        || before(3) == Some(b'%')
        || (before(6), before(5)) == (Some(b'\\'), Some(b'u'))
}
