//! A warning, by name and with a remedy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// Name of the warning, stable.
    pub name: String,
    /// What is the matter.
    pub text: String,
    /// What can be done.
    pub remedy: String,
}

pub(super) fn warning(name: &str, text: impl Into<String>, remedy: &str) -> Warning {
    Warning { name: name.to_owned(), text: text.into(), remedy: remedy.to_owned() }
}
