//! Mistakes in the settings of an adapter.

/// A mistake in one section of the configuration. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Key in the section.
    pub key: &'static str,
    /// What is wrong with its value, and the fix: `is missing`, `cannot be combined with token; remove one`.
    pub problem: String,
}

impl Mistake {
    pub(crate) fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into() }
    }

    /// Makes a problem of the value of `key` a mistake, for `map_err`.
    pub(crate) fn of(key: &'static str) -> impl Fn(String) -> Self {
        move |problem| Self { key, problem }
    }
}

impl From<(&'static str, String)> for Mistake {
    fn from((key, problem): (&'static str, String)) -> Self {
        Self { key, problem }
    }
}
