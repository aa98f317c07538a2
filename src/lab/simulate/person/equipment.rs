//! The applications of a person, and the devices on which they use them.

use std::sync::Arc;

use super::{Change, Person};
use crate::lab::simulate::apps::{App, CRM, DOCS, FORGE, MAIL, TALK, Taste};
use crate::lab::simulate::clients::{BROWSERS, Client, PHONES, Product, TOOLS};
use crate::lab::simulate::grant::{Grant, Owner};
use crate::lab::simulate::record::Subject;
use crate::lab::simulate::span::{Depth, Span};
use crate::lab::simulate::tool::{Device, Tool};

impl Person {
    /// A browser for everyone, a phone for most, and a developer's secret for some.
    pub(super) fn equip(&mut self, developer: bool, span: &Span) {
        let browser = self.random.pick(BROWSERS);
        let handset = self.random.pick(PHONES);
        let web: &'static App = if self.random.chance(0.5) { &CRM } else { &DOCS };
        let version = usize::from(self.random.chance(0.85));
        let upgrades = self.random.chance(0.6);
        self.add(web, Device::Laptop, browser.client("", version), (1.8, 2.8));
        if upgrades {
            self.upgrade(span, browser, "");
        }
        if self.depth == Depth::Full && self.random.chance(0.3) {
            // The same application in a browser on a second device, with its own login.
            let second = self.random.pick(BROWSERS).client("", version);
            self.add(web, Device::Laptop, second, (0.3, 2.0));
        }
        if self.random.chance(0.75) {
            let app: &'static App = if self.random.chance(0.5) { &MAIL } else { &TALK };
            let upgrades = self.random.chance(0.5);
            self.add(app, Device::Phone, handset.client(app.name, 1), (2.0, 1.2));
            if upgrades {
                self.upgrade(span, handset, app.name);
            }
        }
        if developer {
            let tool = self.random.pick(TOOLS).client("", 1);
            self.add(&FORGE, Device::Laptop, tool, (1.4, 3.5));
        }
    }

    pub(super) fn add(
        &mut self,
        app: &'static App,
        device: Device,
        client: Arc<Client>,
        (sessions, calls): (f64, f64),
    ) {
        let random = &mut self.random;
        let owner = Owner { tenant: self.tenant, subject: Subject::User(self.user.clone()), zone: &self.zone };
        let grant = Grant::new(owner, app, self.depth, random);
        let taste = Taste::new(app, random);
        let objects = random.below(90_000) + 1_000;
        // Some use an application all day, others once in a week or two.
        let keenness = if self.depth == Depth::Full { random.log_normal(0.8, 0.9).clamp(0.05, 4.0) } else { 1.0 };
        let logs_out = if app.has_sessions && self.depth == Depth::Full && random.chance(0.25) {
            random.log_uniform(0.02, 0.6)
        } else {
            0.0
        };
        let (sessions, news, busy_until) = (sessions * keenness, None, 0);
        self.tools.push(Tool {
            grant,
            device,
            client,
            news,
            taste,
            sessions,
            calls,
            busy_until,
            objects,
            working_set: None,
            logs_out,
        });
    }

    /// The tool that was added last gets a newer version on some day.
    pub(super) fn upgrade(&mut self, span: &Span, product: &Product, app: &str) {
        let at = span.moment(&mut self.random);
        self.changes.push((at, Change::Upgrade(self.tools.len() - 1, product.client(app, 2))));
    }
}
