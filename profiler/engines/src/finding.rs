//! What this host has, or lacks, for a purpose: for `virtax doctor`.

use virtax_model::error::Result;

use crate::workload::Tool;

/// Something that is here, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as one would wish.
    pub good: bool,
    /// What was found.
    pub text: String,
    /// What to do, and what for; `None`: nothing.
    pub remedy: Option<String>,
}

impl Finding {
    /// What was found; the remedy stands only where it is not good.
    #[must_use]
    pub fn new(good: bool, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { good, text: text.into(), remedy: (!good).then(|| remedy.into()) }
    }

    /// Whether a program is here, by how it was looked for.
    #[must_use]
    pub fn program<T>(tool: Tool, found: &Result<T>, purpose: &str) -> Self {
        let (name, is_there) = (tool.name, found.is_ok());
        let text = if is_there { name.to_owned() } else { format!("no {name}") };
        Self::new(is_there, text, format!("apt-get install --no-install-recommends {}, {purpose}", tool.package))
    }
}
