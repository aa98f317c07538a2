//! The presets of the build, from the files in `src/notify/presets`.

/// A preset of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresetName {
    name: &'static str,
    /// The file.
    text: &'static str,
}

impl PresetName {
    pub(super) const fn name(self) -> &'static str {
        self.name
    }

    pub(super) const fn text(self) -> &'static str {
        self.text
    }
}

/// Declares the presets of the build by the names of their files.
macro_rules! presets {
    ($($name:literal,)+) => {
        pub(super) const PRESETS: &[PresetName] =
            &[$(PresetName { name: $name, text: include_str!(concat!("presets/", $name, ".toml")) },)+];
    };
}

presets! {
    "alertmanager",
    "opsgenie",
    "pagerduty",
    "slack",
    "slack_webhook",
    "teams",
}
