//! Mappings of other systems' records to token events: one table per format. `docs/formats.md` describes each table
//! with its sources.

mod aws;
mod cloudtrail;
mod ecs;
mod github;
pub(super) mod lasting;
mod machines;
mod ocsf;
mod okta;
pub(super) mod table;

use self::table::Mapping;
use crate::format::Format;

/// The table of `format`; `None` for the native format.
pub(crate) fn of(format: Format) -> Option<&'static Mapping> {
    match format {
        Format::Native => None,
        Format::Cloudtrail => Some(&cloudtrail::MAPPING),
        Format::Ecs => Some(&ecs::MAPPING),
        Format::Github => Some(&github::MAPPING),
        Format::Ocsf => Some(&ocsf::MAPPING),
        Format::Okta => Some(&okta::MAPPING),
    }
}
