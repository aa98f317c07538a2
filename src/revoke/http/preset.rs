//! Presets: requests of known providers, as data.

use std::path::Path;

use serde::Deserialize;

use super::answer::AnswerSettings;
use super::request::RequestSettings;
use super::settings::{CLIENT_ID, HttpRevokerSettings, TargetKind, VerifySettings};
use super::shipped::PresetName;
use crate::outgoing::parse_preset;
use crate::port::{Mistake, Radius};

/// A preset.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    #[serde(skip)]
    pub(super) name: String,
    /// What one request does, as a part of a sentence: "revokes …".
    pub(super) about: String,
    /// What it does not end, or what the operator must know. One sentence.
    pub(super) limits: Option<String>,
    /// What the request names. Several are alternatives.
    pub(super) needs: Vec<Need>,
    /// What the request revokes. Without it, the target of the incident and no more.
    pub(super) radius: Option<Radius>,
    /// Names of the fixed values that the configuration must have.
    #[serde(default)]
    pub(super) values: Vec<String>,
    #[serde(default)]
    pub(super) request: RequestSettings,
    #[serde(default)]
    pub(super) answer: AnswerSettings,
    /// The read after a revocation.
    pub(super) verify: Option<VerifySettings>,
    /// Why there is no read, one sentence.
    pub(super) unverified: Option<String>,
}

/// What a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Need {
    /// The token itself. Events have only its id.
    TokenValue,
    TokenId,
    Grant,
    Session,
    User,
    /// A user, and the application to which the user's grant was given.
    UserAndApp,
}

impl Need {
    const fn targets(self) -> &'static [TargetKind] {
        match self {
            Self::TokenId => &[TargetKind::Token],
            Self::Grant => &[TargetKind::Family],
            Self::TokenValue | Self::Session | Self::User | Self::UserAndApp => {
                &[TargetKind::Token, TargetKind::Family]
            }
        }
    }
}

impl Preset {
    /// The preset that `settings` name, or an empty one for a request of the operator. The error is about a key
    /// in `[revoke.http]`.
    pub(super) fn of(settings: &HttpRevokerSettings) -> Result<Self, Mistake> {
        let preset = match (settings.preset, &settings.preset_file) {
            (Some(_), Some(_)) => {
                return Err(Mistake::new("preset_file", "cannot be combined with `preset`; remove one"));
            }
            (Some(name), None) => Self::shipped(name).map_err(Mistake::of("preset"))?,
            (None, Some(file)) => Self::read(file).map_err(Mistake::of("preset_file"))?,
            (None, None) => return Ok(Self::none()),
        };
        for value in &preset.values {
            let missing = format!("is missing: the preset `{}` requires it", preset.name);
            match value.as_str() {
                CLIENT_ID if settings.client_id.is_none() => return Err(Mistake::new("client_id", missing)),
                CLIENT_ID => {}
                value if !settings.values.contains_key(value) => {
                    let problem = format!("has no `{value}`, which the preset `{}` requires", preset.name);
                    return Err(Mistake::new("values", problem));
                }
                _ => {}
            }
        }
        Ok(preset)
    }

    /// The defaults of a request that the configuration defines.
    fn none() -> Self {
        let answer = AnswerSettings { already_gone: Some(vec![404, 410]), ..AnswerSettings::default() };
        Self { answer, ..Self::default() }
    }

    fn shipped(PresetName { name, text }: PresetName) -> Result<Self, String> {
        Self::parse(name, text).map_err(|(line, problem)| format!("{name}.toml:{line}: {problem}"))
    }

    fn read(file: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {}: {error}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text)
            .map_err(|(line, problem)| format!("has an error: {}:{line}: {problem}", file.display()))
    }

    /// The error is the line and the problem.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, (usize, String)> {
        let mut preset: Self = parse_preset(text)?;
        if preset.needs.is_empty() {
            return Err((1, "`needs` is empty; name at least one".to_owned()));
        }
        name.clone_into(&mut preset.name);
        Ok(preset)
    }

    /// Targets that the provider can revoke, unless the configuration has others.
    pub(super) fn targets(&self) -> Vec<TargetKind> {
        let all = [TargetKind::Token, TargetKind::Family];
        if self.needs.is_empty() {
            return all.to_vec();
        }
        all.into_iter().filter(|kind| self.needs.iter().any(|need| need.targets().contains(kind))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::shipped::PRESETS;
    use super::*;

    #[test]
    fn shipped_presets_are_valid_and_cite_their_source() {
        for PresetName { name, text } in PRESETS {
            let preset = Preset::parse(name, text).expect(name);
            assert!(!preset.targets().is_empty(), "{name}");
            assert!(preset.about.starts_with("revokes ") || preset.about.starts_with("deactivates "), "{name}");
            assert!(text.starts_with("# Source: "), "{name} names the page of the vendor or the standard");
        }
    }

    #[test]
    fn preset_error_has_its_line() {
        let error = |text: &str| Preset::parse("x", text).map(|_| ()).expect_err(text);
        assert_eq!(error("about = 'revokes'\nneeds = []").0, 1);
        let (line, problem) = error("about = 'revokes'\nneeds = ['grant']\n[request]\npaht = '/x'");
        assert!(line == 4 && problem.contains("paht"), "{line} {problem}");
        let (line, problem) = error("about = 'revokes'\nneeds = ['everything']");
        assert!(line == 2 && problem.contains("user_and_app"), "{line} {problem}");
    }
}
