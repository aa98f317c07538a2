//! Labels of metrics.

use std::borrow::Cow;

/// `N` labels of a metric: name and value of each.
pub(super) type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
