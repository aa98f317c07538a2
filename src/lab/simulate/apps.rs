//! The applications that tokens are for, and what can be called in each.

use super::random::Random;
use crate::event::TokenType;

/// How an application's tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// Access tokens of so many minutes, each bought with a refresh token that is then replaced.
    Rotating { minutes: i64 },
    /// As above, with a refresh token that stays.
    Refreshing { minutes: i64 },
    /// One long-lived secret.
    Standing(TokenType),
}

#[derive(Debug)]
pub(super) struct App {
    pub id: &'static str,
    /// The name in its phone clients' user agents.
    pub name: &'static str,
    pub tokens: Tokens,
    pub binding: Binding,
    /// Its events name the browser's session.
    pub has_sessions: bool,
    /// For so long after their expiry its servers take access tokens.
    pub leeway_ms: i64,
    pub routes: &'static [Route],
}

/// What some of an application's clients prove possession of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    None,
    /// A key of the client's own (RFC 9449).
    Dpop,
    /// The certificate of a mutual TLS connection (RFC 8705).
    Certificate,
}

impl Binding {
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::None | Self::Dpop => "jkt",
            Self::Certificate => "x5t#S256",
        }
    }
}

/// One call, with `{}` where an object's number goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// Share of the calls, about; below .02 most owners never use it.
    weight: f64,
    /// Median of the answer's size.
    bytes: f64,
    /// Behind a gateway that tells neither fingerprints nor keys.
    pub bare: bool,
}

const fn get(path: &'static str, weight: f64, bytes: f64) -> Route {
    Route { method: "GET", path, weight, bytes, bare: false }
}

const fn write(method: &'static str, path: &'static str, weight: f64) -> Route {
    Route { method, path, weight, bytes: 400.0, bare: false }
}

/// A route behind the older gateway.
const fn bare(mut route: Route) -> Route {
    route.bare = true;
    route
}

pub(super) const CRM: App = App {
    id: "crm",
    name: "CRM",
    tokens: Tokens::Rotating { minutes: 60 },
    binding: Binding::None,
    has_sessions: true,
    leeway_ms: 25_000,
    routes: &[
        get("/v1/contacts", 0.24, 22_000.0),
        get("/v1/contacts/{}", 0.26, 3_000.0),
        write("PATCH", "/v1/contacts/{}", 0.08),
        get("/v1/deals", 0.14, 18_000.0),
        get("/v1/deals/{}", 0.12, 4_000.0),
        write("POST", "/v1/deals", 0.04),
        bare(get("/v1/search", 0.08, 9_000.0)),
        bare(get("/v1/reports/{}", 0.03, 60_000.0)),
        get("/v1/export/contacts", 0.005, 900_000.0),
        get("/v1/settings/members", 0.004, 8_000.0),
    ],
};

pub(super) const DOCS: App = App {
    id: "docs",
    name: "Docs",
    tokens: Tokens::Rotating { minutes: 480 },
    binding: Binding::Dpop,
    has_sessions: true,
    leeway_ms: 300_000,
    routes: &[
        get("/api/pages/{}", 0.46, 30_000.0),
        get("/api/tree", 0.16, 12_000.0),
        write("PUT", "/api/pages/{}", 0.16),
        bare(get("/api/search", 0.1, 9_000.0)),
        write("POST", "/api/comments", 0.08),
        get("/api/pages/{}/history", 0.03, 15_000.0),
        bare(get("/api/spaces/{}/export", 0.004, 4_000_000.0)),
        get("/api/members", 0.006, 9_000.0),
    ],
};

pub(super) const MAIL: App = App {
    id: "mail",
    name: "Mail",
    tokens: Tokens::Rotating { minutes: 60 },
    binding: Binding::None,
    has_sessions: false,
    leeway_ms: 25_000,
    routes: &[
        get("/v1/messages", 0.5, 14_000.0),
        get("/v1/messages/{}", 0.28, 20_000.0),
        write("POST", "/v1/messages", 0.1),
        get("/v1/folders", 0.08, 2_000.0),
        bare(get("/v1/attachments/{}", 0.03, 300_000.0)),
        get("/v1/search", 0.01, 8_000.0),
        get("/v1/settings/forwarding", 0.002, 500.0),
    ],
};

pub(super) const TALK: App = App {
    id: "talk",
    name: "Talk",
    tokens: Tokens::Refreshing { minutes: 720 },
    binding: Binding::Dpop,
    has_sessions: false,
    leeway_ms: 25_000,
    routes: &[
        get("/channels/{}/messages", 0.5, 9_000.0),
        write("POST", "/channels/{}/messages", 0.2),
        get("/channels", 0.16, 6_000.0),
        write("POST", "/presence", 0.1),
        bare(get("/files/{}", 0.03, 200_000.0)),
        get("/users", 0.006, 40_000.0),
        get("/search", 0.004, 9_000.0),
    ],
};

pub(super) const FORGE: App = App {
    id: "forge",
    name: "Forge",
    tokens: Tokens::Standing(TokenType::Personal),
    binding: Binding::None,
    has_sessions: false,
    leeway_ms: 25_000,
    routes: &[
        write("POST", "/git-upload-pack", 0.4),
        get("/repos/{}/pulls", 0.2, 18_000.0),
        get("/repos/{}/commits", 0.16, 20_000.0),
        write("POST", "/git-receive-pack", 0.1),
        get("/repos/{}/issues", 0.08, 16_000.0),
        write("POST", "/repos/{}/pulls", 0.04),
        get("/user/repos", 0.015, 30_000.0),
        get("/repos/{}/archive", 0.004, 6_000_000.0),
        get("/orgs/{}/members", 0.003, 9_000.0),
        get("/user/keys", 0.002, 900.0),
    ],
};

pub(super) const WAREHOUSE: App = App {
    id: "warehouse",
    name: "Warehouse",
    tokens: Tokens::Standing(TokenType::ApiKey),
    binding: Binding::Certificate,
    has_sessions: false,
    leeway_ms: 25_000,
    routes: &[
        get("/v2/orders", 0.4, 40_000.0),
        get("/v2/orders/{}", 0.2, 3_000.0),
        write("POST", "/v2/shipments", 0.15),
        bare(get("/v2/stock", 0.2, 50_000.0)),
        get("/v2/customers", 0.03, 60_000.0),
        get("/v2/customers/{}", 0.015, 2_000.0),
        bare(get("/v2/export/customers", 0.002, 5_000_000.0)),
    ],
};

pub(super) const DEPLOY: App = App {
    id: "deploy",
    name: "Deploy",
    tokens: Tokens::Standing(TokenType::ApiKey),
    binding: Binding::None,
    has_sessions: false,
    leeway_ms: 25_000,
    routes: &[
        write("POST", "/v1/uploads", 0.3),
        write("POST", "/v1/releases", 0.1),
        get("/v1/releases/{}", 0.4, 3_000.0),
        get("/v1/projects/{}", 0.18, 2_000.0),
        write("DELETE", "/v1/releases/{}", 0.02),
        get("/v1/secrets", 0.01, 1_500.0),
    ],
};

pub(super) static PLUGINS: [App; 12] = [
    plugin("calendar-plugin"),
    plugin("leads-plugin"),
    plugin("notes-plugin"),
    plugin("invoice-plugin"),
    plugin("survey-plugin"),
    plugin("dialer-plugin"),
    plugin("signing-plugin"),
    plugin("forecast-plugin"),
    plugin("webinar-plugin"),
    plugin("routing-plugin"),
    plugin("chat-plugin"),
    plugin("backup-plugin"),
];

/// A vendor's application that acts for users out of the vendor's servers.
const fn plugin(id: &'static str) -> App {
    App {
        id,
        name: "plugin",
        tokens: Tokens::Standing(TokenType::Access),
        binding: Binding::None,
        has_sessions: false,
        leeway_ms: 25_000,
        routes: PLUGIN_ROUTES,
    }
}

const PLUGIN_ROUTES: &[Route] = &[
    get("/v1/contacts/changes", 0.5, 6_000.0),
    get("/v1/contacts/{}", 0.25, 3_000.0),
    write("PATCH", "/v1/contacts/{}", 0.15),
    get("/v1/me", 0.08, 500.0),
    get("/v1/deals", 0.01, 18_000.0),
    get("/v1/export/contacts", 0.002, 900_000.0),
];

/// What one holder calls, and how often: everybody has their own use of an application.
#[derive(Clone, Debug)]
pub(super) struct Taste {
    cumulated: Vec<f64>,
}

impl Taste {
    pub fn new(app: &App, random: &mut Random) -> Self {
        let mut sum = 0.0;
        let cumulated = app.routes.iter().map(|route| {
            let knows = random.chance((route.weight * 15.0).min(1.0));
            sum += if knows { route.weight * random.log_normal(1.0, 0.6) } else { route.weight * 0.02 };
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    pub fn choose(&self, app: &App, random: &mut Random) -> &'static Route {
        let all = self.cumulated.last().copied().unwrap_or_default();
        let drawn = random.unit() * all;
        let at = self.cumulated.partition_point(|sum| *sum <= drawn);
        &app.routes[at.min(app.routes.len() - 1)]
    }
}

impl Route {
    pub fn answer_bytes(&self, random: &mut Random) -> u32 {
        random.log_normal(self.bytes, 0.7).min(1e9) as u32
    }
}

impl App {
    /// What a scanner calls to see whether a token lives: the lightest of the reads.
    pub fn who_am_i(&self) -> &'static Route {
        let reads = self.routes.iter().filter(|route| route.method == "GET");
        reads.min_by(|a, b| a.bytes.total_cmp(&b.bytes)).unwrap_or(&self.routes[0])
    }

    /// Reads that name an object; all reads where none does.
    pub fn object_routes(&self) -> Vec<&'static Route> {
        let reads = || self.routes.iter().filter(|route| route.method == "GET");
        let of_objects: Vec<&'static Route> = reads().filter(|route| route.path.contains("{}")).collect();
        if of_objects.is_empty() { reads().collect() } else { of_objects }
    }

    /// The call that answers most.
    pub fn largest_export(&self) -> &'static Route {
        self.routes.iter().max_by(|a, b| a.bytes.total_cmp(&b.bytes)).unwrap_or(&self.routes[0])
    }

    /// The calls that most owners never make: exports, members, secrets.
    pub fn rare_route(&self, random: &mut Random) -> &'static Route {
        let first_rare = self.routes.iter().position(|route| route.weight < 0.02).unwrap_or(0);
        random.pick(&self.routes[first_rare..])
    }
}
