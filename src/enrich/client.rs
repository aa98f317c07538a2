//! Parses user agents into family, version and device.
//!
//! All browsers claim to be Mozilla and contain each other's names; `woothee` distinguishes them. Other programs begin
//! with their name (RFC 9110 section 10.1.5): `product/version (comment) product/version …`. A user agent is a claim of
//! its sender; scoring decides how much it counts.

use std::sync::Arc;

use woothee::parser::Parser;
use xxhash_rust::xxh3::xxh3_64;

use super::slots::Slots;
use crate::enrichment::{Client, Device};
use crate::key::{Class, KeyHasher, half};
use crate::sanitize;

/// 4,096 user agents: more than an installation uses at a time, at most 6 MB.
const TABLE_BITS: u32 = 11;

/// Longer user agents are parsed up to this byte.
const AGENT_BYTES_MAX: usize = 1024;
const FAMILY_CHARS_MAX: usize = 64;
const VERSION_CHARS_MAX: usize = 32;

/// Family of an absent or empty user agent.
const UNKNOWN: &str = "unknown";

/// Clients by user agent. The table's hash is not keyed: a producer who finds a collision only causes the other user
/// agent to be parsed again.
#[derive(Debug)]
pub(super) struct Clients {
    known: Slots<String, Arc<Client>>,
    hasher: KeyHasher,
    unknown: Arc<Client>,
}

impl Clients {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self { known: Slots::new(TABLE_BITS), hasher, unknown: Arc::new(parse("", &hasher)) }
    }

    pub(crate) fn of(&mut self, agent: Option<&str>) -> Arc<Client> {
        let hasher = &self.hasher;
        match agent {
            None => Arc::clone(&self.unknown),
            // Long user agents are rare and are not kept, so that the table's size is bounded.
            Some(agent) if agent.len() > AGENT_BYTES_MAX => Arc::new(parse(agent, hasher)),
            Some(agent) => self.known.get_or_make(xxh3_64(agent.as_bytes()), agent, || Arc::new(parse(agent, hasher))),
        }
    }
}

fn parse(agent: &str, hasher: &KeyHasher) -> Client {
    let named = match beginning(agent).trim_start() {
        browser if browser.starts_with("Mozilla/") || browser.starts_with("Opera/") => browser_name(browser),
        other => program_name(other),
    };
    let family = sanitize::name(&named.family, FAMILY_CHARS_MAX);
    let version = sanitize::name(&named.version, VERSION_CHARS_MAX);
    let (family, device) =
        if family.is_empty() || &*family == "-" { (UNKNOWN.into(), Device::Unknown) } else { (family, named.device) };
    let family_key = hasher.name(Class::AgentFamily, family.as_bytes());
    Client {
        family_key: half(family_key),
        version_key: half(hasher.record(Class::AgentVersion, family_key, version.as_bytes())),
        agent_key: half(hasher.name(Class::Agent, agent.as_bytes())),
        family,
        version,
        device,
    }
}

fn beginning(agent: &str) -> &str {
    let mut end = agent.len().min(AGENT_BYTES_MAX);
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    &agent[..end]
}

/// Parts of a user agent before they are cut to size.
struct Named {
    family: String,
    version: String,
    device: Device,
}

/// A browser, or an application that embeds one and adds its own name (`Slack/4.35`).
fn browser_name(agent: &str) -> Named {
    let parsed = Parser::new().parse(agent).unwrap_or_default();
    let device = match parsed.category {
        "pc" => Device::Desktop,
        "smartphone" | "mobilephone" => Device::Mobile,
        "crawler" => Device::Machine,
        _ => Device::Unknown,
    };
    if let Some(own) = products(agent).find(|product| !PARTS_OF_BROWSERS.contains(&product.name)) {
        let automated = AUTOMATED_BROWSERS.contains(&own.name);
        let device = if automated { Device::Machine } else { device };
        return Named { family: own.name.to_owned(), version: own.version.to_owned(), device };
    }
    let known = |text: &str| if text == "UNKNOWN" { String::new() } else { text.to_owned() };
    match known(parsed.name) {
        family if family.is_empty() => Named { family: "Mozilla".to_owned(), version: String::new(), device },
        family => Named { family, version: known(parsed.version), device },
    }
}

/// Products that occur in browsers' user agents. Any other product is the name of the application.
const PARTS_OF_BROWSERS: &[&str] = &[
    "AppleWebKit",
    "Chrome",
    "Chromium",
    "CriOS",
    "Edg",
    "EdgA",
    "EdgiOS",
    "Edge",
    "Electron",
    "Fedora",
    "Firefox",
    "FxiOS",
    "Gecko",
    "KHTML",
    "Mobile",
    "Mozilla",
    "OPR",
    "OPT",
    "OPX",
    "Opera",
    "Presto",
    "Safari",
    "Trident",
    "Ubuntu",
    "Version",
    "Mobile Safari",
    "like Gecko",
];

/// Browsers that run without a user.
const AUTOMATED_BROWSERS: &[&str] =
    &["HeadlessChrome", "PhantomJS", "Cypress", "WindowsPowerShell", "PowerShell", "Postman", "Lighthouse"];

/// A library, command-line tool, SDK, bot or mobile application.
fn program_name(agent: &str) -> Named {
    let mut named = products(agent).peekable();
    let mut product = named.next().unwrap_or_default();
    while FRONTS.contains(&product.name)
        && let Some(next) = named.next()
    {
        product = next;
    }
    let mentions = |words: &[&str]| words.iter().any(|word| has_word(agent, word));
    let device = if mentions(&["iPhone", "iPad", "iOS", "Android", "CFNetwork", "Dalvik"]) {
        Device::Mobile
    } else if mentions(&["Macintosh", "Windows NT", "Electron"]) {
        Device::Desktop
    } else {
        Device::Machine
    };
    // A vendor's language bindings for one API: `Stripe/v1 NodeBindings/16.6.0`, and the same with RubyBindings.
    if product.of_api
        && let Some(program) = named.find(|next| !next.version.is_empty())
    {
        let family = format!("{} {}", product.name, program.name);
        return Named { family, version: program.version.to_owned(), device };
    }
    Named { family: product.name.to_owned(), version: product.version.to_owned(), device }
}

/// Words before a program's own name: a partner programme, a vendor or the programming language.
const FRONTS: &[&str] = &["APN", "HashiCorp", "Java", "Python", "Ruby"];

/// Whether `text` contains `word` without a letter or digit before it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()))
}

/// One product of a user agent.
#[derive(Clone, Copy, Default)]
struct Product<'a> {
    name: &'a str,
    /// Without the `v` of `v1.28`; empty if there is none.
    version: &'a str,
    /// The version is that of an API (`v1`), not of a program (`v1.28`, `2`).
    of_api: bool,
}

/// The products of a user agent in order, without comments. Words without a version before a product belong to its name
/// (`AWS Internal`), except for [`FRONTS`].
fn products(agent: &str) -> impl Iterator<Item = Product<'_>> {
    let mut rest = agent;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "[];,/)".contains(c));
            if let Some(comment) = rest.strip_prefix('(') {
                rest = after_comment(comment);
                continue;
            }
            if rest.is_empty() {
                return None;
            }
            let end = rest.find(|c: char| "/()[];,".contains(c)).unwrap_or(rest.len());
            // A front ends at its space: the product after it has a name of its own.
            let end = FRONTS
                .iter()
                .find_map(|front| rest[..end].strip_prefix(front)?.starts_with(' ').then_some(front.len()))
                .unwrap_or(end);
            let (name, after) = rest.split_at(end);
            let name = name.trim_end();
            if let Some(versioned) = after.strip_prefix('/') {
                let end =
                    versioned.find(|c: char| c.is_whitespace() || "()[];,".contains(c)).unwrap_or(versioned.len());
                let (version, after) = versioned.split_at(end);
                rest = after;
                let of_api = version != bare(version) && bare(version).bytes().all(|byte| byte.is_ascii_digit());
                return Some(Product { name, version: bare(version), of_api });
            }
            rest = after;
            // `Slack 23.05.10 (iPhone; …)`
            return Some(match name.rsplit_once(' ') {
                Some((name, version)) if bare(version).starts_with(|c: char| c.is_ascii_digit()) => {
                    Product { name, version: bare(version), of_api: false }
                }
                _ => Product { name, ..Product::default() },
            });
        }
    })
}

/// The text after a comment whose opening parenthesis was read; comments can be nested.
fn after_comment(text: &str) -> &str {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

fn bare(version: &str) -> &str {
    version.strip_prefix(['v', 'V']).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Family, version, device, user agent.
    const AGENTS: &str = "\
Chrome|145.0.0.0|desktop|Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36
Edge|145.0.0.0|desktop|Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36 Edg/145.0.0.0
Chrome|145.0.0.0|mobile|Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Mobile Safari/537.36
Opera|120.0.0.0|desktop|Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36 OPR/120.0.0.0
Firefox|148.0|desktop|Mozilla/5.0 (X11; Linux x86_64; rv:148.0) Gecko/20100101 Firefox/148.0
Safari|26.1|desktop|Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15
Safari|26.1|mobile|Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1
Internet Explorer|11.0|desktop|Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko
Slack|4.35.126|desktop|Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Slack/4.35.126 Chrome/118.0.5993.144 Electron/27.1.2 Safari/537.36
HeadlessChrome|145.0.0.0|machine|Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/145.0.0.0 Safari/537.36
WindowsPowerShell|5.1.19041.4894|machine|Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.4894
Googlebot||machine|Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)
Mozilla||unknown|Mozilla/5.0
curl|8.1.2|machine|curl/8.1.2
python-requests|2.31.0|machine|python-requests/2.31.0
aiohttp|3.9.1|machine|Python/3.11 aiohttp/3.9.1
Java|17.0.2|machine|Java/17.0.2
Go-http-client|2.0|machine|Go-http-client/2.0
aws-cli|2.13.5|machine|aws-cli/2.13.5 Python/3.11.4 Windows/10 exe/AMD64 prompt/off command/iam.list-users
aws-cli|2.2.0|machine|[aws-cli/2.2.0 Python/3.8.8 Linux/5.4.0]
Boto3|1.26.165|machine|Boto3/1.26.165 Python/3.9.16 Linux/5.10 Botocore/1.29.165
Terraform|1.5.7|machine|APN/1.0 HashiCorp/1.0 Terraform/1.5.7 (+https://www.terraform.io) terraform-provider-aws/5.0.0
Terraform|1.0.0|machine|HashiCorp Terraform/1.0.0 (+https://www.terraform.io)
Stripe NodeBindings|16.6.0|machine|Stripe/v1 NodeBindings/16.6.0 AppInfo/shop/1.2
Stripe RubyBindings|12.1.0|machine|Stripe/v1 RubyBindings/12.1.0
Stripe|1|machine|Stripe/v1 (https://stripe.com)
kubectl|1.28.2|machine|kubectl/v1.28.2 (linux/amd64) kubernetes/89a4ea3
okta-sdk-python|2.9.5|machine|okta-sdk-python/2.9.5 python/3.11.4 Linux/5.15
AWS Internal||machine|AWS Internal
cloudformation.amazonaws.com||machine|cloudformation.amazonaws.com
Slack|23.05.10|mobile|Slack/23.05.10 (iPhone; iOS 16.4; Scale/3.00)
Acme Notes|23.05.10|mobile|Acme Notes 23.05.10 (iPhone; iOS 16.4)
acme|77|mobile|acme/77 CFNetwork/1410.0.3 Darwin/22.6.0
Dalvik|2.1.0|mobile|Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7)
unknown||unknown|(nothing but a comment
unknown||unknown|-
unknown||unknown|
";

    #[test]
    fn clients_are_parsed_from_user_agents() {
        for line in AGENTS.lines() {
            let (expected, agent) = line.rsplit_once('|').expect("a line of the table");
            let client = parse(agent, &KeyHasher::default());
            assert_eq!(format!("{}|{}|{}", client.family, client.version, client.device.as_str()), expected, "{agent}");
        }
    }

    #[test]
    fn client_keys_differ_by_version_and_agent() {
        let mut clients = Clients::new(KeyHasher::default());
        let [a, b, c] = ["curl/8.1.2", "curl/8.2.0", "curl/8.1.2 (x)"].map(|agent| clients.of(Some(agent)));
        assert_eq!(a.family_key, b.family_key);
        assert_ne!(a.version_key, b.version_key);
        assert_eq!(a.version_key, c.version_key);
        assert_ne!(a.agent_key, c.agent_key);
        assert_eq!(&*clients.of(None).family, "unknown");
        assert!(Arc::ptr_eq(&a, &clients.of(Some("curl/8.1.2"))), "the table keeps the client");
    }

    proptest! {
        #[test]
        fn client_names_are_printable(agent in prop_oneof![".{0,300}", "(Mozilla/5.0 )?[ -~]{0,200}"]) {
            let client = parse(&agent, &KeyHasher::default());
            prop_assert!((1..=FAMILY_CHARS_MAX).contains(&client.family.chars().count()));
            prop_assert!(client.version.chars().count() <= VERSION_CHARS_MAX);
            prop_assert!(!client.family.chars().chain(client.version.chars()).any(char::is_control));
        }
    }
}
