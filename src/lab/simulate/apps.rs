//! The applications that tokens are for, and the routes of each.

use super::random::Random;
use crate::event::TokenType;

/// Life cycle of an application's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// Access tokens with this lifetime, each obtained with a refresh token that is then replaced.
    Rotating { minutes: i64 },
    /// The same with a refresh token that stays valid.
    Refreshing { minutes: i64 },
    /// Access tokens with this lifetime, which a service obtains with its client secret. There are no refresh tokens.
    Minted { minutes: i64 },
    /// One long-lived secret.
    Standing(TokenType),
}

impl Tokens {
    /// Lifetime of access tokens in milliseconds; 0 if there are none.
    pub(super) const fn lifetime_ms(&self) -> i64 {
        match self {
            Self::Rotating { minutes } | Self::Refreshing { minutes } | Self::Minted { minutes } => *minutes * 60_000,
            Self::Standing(_) => 0,
        }
    }

    /// Type of the tokens that calls carry.
    pub(super) const fn in_calls(&self) -> TokenType {
        match self {
            Self::Standing(token_type) => *token_type,
            Self::Rotating { .. } | Self::Refreshing { .. } | Self::Minted { .. } => TokenType::Access,
        }
    }

    /// Whether each use of a refresh token replaces it.
    pub(super) const fn rotates(&self) -> bool {
        matches!(self, Self::Rotating { .. })
    }
}

#[derive(Debug)]
pub(super) struct App {
    pub(crate) id: &'static str,
    /// The name in user agents of its phone clients.
    pub(crate) name: &'static str,
    pub(crate) tokens: Tokens,
    pub(crate) binding: Binding,
    /// Its events contain the id of the browser session.
    pub(crate) has_sessions: bool,
    /// Time in milliseconds for which its servers accept access tokens after their expiry.
    pub(crate) leeway_ms: i64,
    /// Whether its authorization server reports the tokens that services obtain with a client secret.
    pub(crate) logs_issuance: bool,
    pub(crate) routes: &'static [Route],
}

/// How some of an application's clients prove possession of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    None,
    /// A key of the client (RFC 9449).
    Dpop,
    /// The certificate of a mutual TLS connection (RFC 8705).
    Certificate,
}

impl Binding {
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::None | Self::Dpop => "jkt",
            Self::Certificate => "x5t#S256",
        }
    }
}

/// One call; `{}` stands for the number of an object, `{repo}` and `{file}` for the names of a repository and a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// Approximate share of the calls. Below 0.02 most owners never use the route.
    weight: f64,
    /// Median size of the response in bytes.
    bytes: f64,
    /// Behind a gateway that does not log fingerprints and keys.
    pub(crate) bare: bool,
}

pub(super) const fn get(path: &'static str, weight: f64, bytes: f64) -> Route {
    Route { method: "GET", path, weight, bytes, bare: false }
}

pub(super) const fn write(method: &'static str, path: &'static str, weight: f64) -> Route {
    Route { method, path, weight, bytes: 400.0, bare: false }
}

/// A route behind the older gateway.
const fn bare(mut route: Route) -> Route {
    route.bare = true;
    route
}

pub(super) const CRM: App = App {
    has_sessions: true,
    ..App::new(
        "crm",
        "CRM",
        Tokens::Rotating { minutes: 60 },
        &[
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
    )
};

pub(super) const DOCS: App = App {
    binding: Binding::Dpop,
    has_sessions: true,
    leeway_ms: 300_000,
    ..App::new(
        "docs",
        "Docs",
        Tokens::Rotating { minutes: 480 },
        &[
            get("/api/pages/{}", 0.46, 30_000.0),
            get("/api/tree", 0.16, 12_000.0),
            write("PUT", "/api/pages/{}", 0.16),
            bare(get("/api/search", 0.1, 9_000.0)),
            write("POST", "/api/comments", 0.08),
            get("/api/pages/{}/history", 0.03, 15_000.0),
            bare(get("/api/spaces/{}/export", 0.004, 4_000_000.0)),
            get("/api/members", 0.006, 9_000.0),
        ],
    )
};

pub(super) const MAIL: App = App::new(
    "mail",
    "Mail",
    Tokens::Rotating { minutes: 60 },
    &[
        get("/v1/messages", 0.5, 14_000.0),
        get("/v1/messages/{}", 0.28, 20_000.0),
        write("POST", "/v1/messages", 0.1),
        get("/v1/folders", 0.08, 2_000.0),
        bare(get("/v1/attachments/{}", 0.03, 300_000.0)),
        get("/v1/search", 0.01, 8_000.0),
        get("/v1/settings/forwarding", 0.002, 500.0),
    ],
);

pub(super) const TALK: App = App {
    binding: Binding::Dpop,
    ..App::new(
        "talk",
        "Talk",
        Tokens::Refreshing { minutes: 720 },
        &[
            get("/channels/{}/messages", 0.5, 9_000.0),
            write("POST", "/channels/{}/messages", 0.2),
            get("/channels", 0.16, 6_000.0),
            write("POST", "/presence", 0.1),
            bare(get("/files/{}", 0.03, 200_000.0)),
            get("/users", 0.006, 40_000.0),
            get("/search", 0.004, 9_000.0),
        ],
    )
};

pub(super) const FORGE: App = App::new(
    "forge",
    "Forge",
    Tokens::Standing(TokenType::Personal),
    &[
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
);

pub(super) const WAREHOUSE: App = App {
    binding: Binding::Certificate,
    ..App::new(
        "warehouse",
        "Warehouse",
        Tokens::Standing(TokenType::ApiKey),
        &[
            get("/v2/orders", 0.4, 40_000.0),
            get("/v2/orders/{}", 0.2, 3_000.0),
            write("POST", "/v2/shipments", 0.15),
            bare(get("/v2/stock", 0.2, 50_000.0)),
            get("/v2/customers", 0.03, 60_000.0),
            get("/v2/customers/{}", 0.015, 2_000.0),
            bare(get("/v2/export/customers", 0.002, 5_000_000.0)),
        ],
    )
};

pub(super) const DEPLOY: App = App::new(
    "deploy",
    "Deploy",
    Tokens::Standing(TokenType::ApiKey),
    &[
        write("POST", "/v1/uploads", 0.3),
        write("POST", "/v1/releases", 0.1),
        get("/v1/releases/{}", 0.4, 3_000.0),
        get("/v1/projects/{}", 0.18, 2_000.0),
        write("DELETE", "/v1/releases/{}", 0.02),
        get("/v1/secrets", 0.01, 1_500.0),
    ],
);

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

/// A vendor's application that acts for users from the vendor's servers.
const fn plugin(id: &'static str) -> App {
    App::new(id, "plugin", Tokens::Standing(TokenType::Access), PLUGIN_ROUTES)
}

const PLUGIN_ROUTES: &[Route] = &[
    get("/v1/contacts/changes", 0.5, 6_000.0),
    get("/v1/contacts/{}", 0.25, 3_000.0),
    write("PATCH", "/v1/contacts/{}", 0.15),
    get("/v1/me", 0.08, 500.0),
    get("/v1/deals", 0.01, 18_000.0),
    get("/v1/export/contacts", 0.002, 900_000.0),
];

/// The routes and call rates of one holder. Each holder uses an application differently.
#[derive(Clone, Debug)]
pub(super) struct Taste {
    cumulated: Vec<f64>,
}

impl Taste {
    pub(crate) fn new(app: &App, random: &mut Random) -> Self {
        let mut sum = 0.0;
        let cumulated = app.routes.iter().map(|route| {
            let knows = random.chance((route.weight * 15.0).min(1.0));
            sum += if knows { route.weight * random.log_normal(1.0, 0.6) } else { route.weight * 0.02 };
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    pub(crate) fn choose(&self, app: &App, random: &mut Random) -> &'static Route {
        let all = self.cumulated.last().copied().unwrap_or_default();
        let drawn = random.unit() * all;
        let at = self.cumulated.partition_point(|sum| *sum <= drawn);
        &app.routes[at.min(app.routes.len() - 1)]
    }
}

impl Route {
    pub(crate) fn answer_bytes(&self, random: &mut Random) -> u32 {
        random.log_normal(self.bytes, 0.7).min(1e9) as u32
    }
}

impl App {
    /// An application without browser sessions and bound keys, whose authorization server does not report the tokens of
    /// services.
    pub(super) const fn new(id: &'static str, name: &'static str, tokens: Tokens, routes: &'static [Route]) -> Self {
        Self {
            id,
            name,
            tokens,
            binding: Binding::None,
            has_sessions: false,
            leeway_ms: 25_000,
            logs_issuance: false,
            routes,
        }
    }

    /// The route that a scanner calls to test whether a token is valid: the read with the smallest response.
    pub(crate) fn who_am_i(&self) -> &'static Route {
        let reads = self.routes.iter().filter(|route| route.method == "GET");
        reads.min_by(|a, b| a.bytes.total_cmp(&b.bytes)).unwrap_or(&self.routes[0])
    }

    /// Reads of single objects, or all reads if there are none.
    pub(crate) fn object_routes(&self) -> Vec<&'static Route> {
        let reads = || self.routes.iter().filter(|route| route.method == "GET");
        let of_objects: Vec<&'static Route> = reads().filter(|route| route.path.contains("{}")).collect();
        if of_objects.is_empty() { reads().collect() } else { of_objects }
    }

    /// The route with the largest response.
    pub(crate) fn largest_export(&self) -> &'static Route {
        self.routes.iter().max_by(|a, b| a.bytes.total_cmp(&b.bytes)).unwrap_or(&self.routes[0])
    }

    /// A route that most owners never call: exports, members, secrets.
    pub(crate) fn rare_route(&self, random: &mut Random) -> &'static Route {
        let first_rare = self.routes.iter().position(|route| route.weight < 0.02).unwrap_or(0);
        random.pick(&self.routes[first_rare..])
    }
}
