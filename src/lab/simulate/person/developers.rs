//! Developers at a code hosting service whose routes contain the names of repositories, directories and files.

use super::{Change, Person, Profile};
use crate::event::TokenType;
use crate::lab::simulate::apps::{App, Route, Tokens, get, write};
use crate::lab::simulate::clients::{EDITORS, TOOLS};
use crate::lab::simulate::company;
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::repositories::WorkingSet;
use crate::lab::simulate::span::Span;
use crate::lab::simulate::tool::Device;

/// Calls with a personal token.
const CODE: App = App::new("codehost", "code", Tokens::Standing(TokenType::Personal), ROUTES);

/// Calls of an editor to which the developer gave a grant.
const CODE_EDITOR: App = App::new("codehost-editor", "code", Tokens::Refreshing { minutes: 480 }, ROUTES);

/// Index of the route of a file in [`CODE`]'s routes.
pub(in crate::lab::simulate) const CONTENTS: usize = 0;

/// Indices of the routes of secrets, keys and jobs in [`CODE`]'s routes.
pub(in crate::lab::simulate) const SECRETS: std::ops::Range<usize> = 8..13;

const ROUTES: &[Route] = &[
    get("/v1/repos/{repo}/contents/{file}", 0.44, 12_000.0),
    get("/v1/repos/{repo}/commits", 0.14, 20_000.0),
    get("/v1/repos/{repo}/pulls", 0.12, 18_000.0),
    write("PUT", "/v1/repos/{repo}/contents/{file}", 0.08),
    write("POST", "/v1/repos/{repo}/pulls", 0.05),
    get("/v1/repos/{repo}/issues", 0.06, 16_000.0),
    get("/v1/search/code", 0.04, 15_000.0),
    get("/v1/user/repos", 0.03, 30_000.0),
    get("/v1/repos/{repo}/actions/workflows", 0.01, 6_000.0),
    get("/v1/repos/{repo}/hooks", 0.003, 1_500.0),
    get("/v1/repos/{repo}/actions/secrets", 0.003, 1_200.0),
    get("/v1/repos/{repo}/keys", 0.002, 900.0),
    get("/v1/user/keys", 0.003, 900.0),
    get("/v1/repos/{repo}/archive", 0.004, 6_000_000.0),
];

impl Person {
    /// The first `count` developers.
    pub(crate) fn developers(count: u32, span: &Span, networks: &[Network]) -> Vec<Self> {
        let cities = ["San Francisco", "Berlin", "Bengaluru", "London"];
        let company = [company::small("stackforge", &cities, span, networks)];
        let person = |number: u64| Self::with_profile(800_000 + number, span, &company, networks, Profile::Developer);
        (0..u64::from(count)).map(person).collect()
    }

    /// A personal token for everyone, and an editor for most.
    pub(super) fn equip_developer(&mut self, span: &Span) {
        let tool = self.random.pick(TOOLS).client("", 1);
        self.add(&CODE, Device::Laptop, tool, (1.6, 5.0));
        if self.random.chance(0.7) {
            let editor = self.random.pick(EDITORS);
            self.add(&CODE_EDITOR, Device::Laptop, editor.client("", 0), (1.4, 8.0));
            self.upgrade(span, editor, "");
        }
        let working_set = WorkingSet::new(&mut self.random);
        for number in 0..self.tools.len() {
            self.tools[number].objects = working_set.choose(&mut self.random);
            self.tools[number].working_set = Some(working_set.clone());
            if let Some(at) = span.happens(0.4, &mut self.random) {
                self.changes.push((at, Change::NewTask(number)));
            }
        }
    }
}
