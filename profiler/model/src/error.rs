//! Errors that a user can meet: what failed, why, and the remedy, in one or two lines; an exit code by kind.

use std::path::Path;

/// Everything that can go wrong outside of virtax itself.
///
/// Texts are lowercase fragments that follow "virtax: ".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that does not exist or does not fit together.
    #[error("{0}")]
    Usage(String),
    /// This kernel or host lacks something that is needed.
    #[error("{what}: {why}\n  remedy: {remedy}")]
    Unsupported {
        /// What cannot be done.
        what: String,
        /// The reason the host gave.
        why: String,
        /// What the user can do.
        remedy: String,
    },
    /// A container engine or the network could not be set up as asked.
    #[error("{what}: {why}\n  remedy: {remedy}")]
    Engine {
        /// What failed.
        what: String,
        /// The engine's answer.
        why: String,
        /// What the user can do.
        remedy: String,
    },
    /// The workload's client or server did not do its work.
    #[error("{what}: {why}")]
    Workload {
        /// What failed.
        what: String,
        /// What it said.
        why: String,
    },
    /// A file or directory could not be read or written.
    #[error("{what}: {why}")]
    Files {
        /// What failed.
        what: String,
        /// The reason.
        why: String,
    },
    /// The user stopped the run.
    #[error("interrupted")]
    Interrupted,
}

/// A result with a user's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The process's exit code: 2 usage, 3 host, 4 engine, 5 workload, 6 files, 130 interrupted (128 + SIGINT).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unsupported { .. } => 3,
            Self::Engine { .. } => 4,
            Self::Workload { .. } => 5,
            Self::Files { .. } => 6,
            Self::Interrupted => 130,
        }
    }

    /// An [`Error::Files`] about a path.
    pub fn file(doing: &str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Files { what: format!("cannot {doing} {}", path.display()), why: why.to_string() }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(what: impl Into<String>, why: impl std::fmt::Display, remedy: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }

    /// An [`Error::Engine`].
    pub fn engine(what: impl Into<String>, why: impl std::fmt::Display, remedy: impl Into<String>) -> Self {
        Self::Engine { what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }

    /// An [`Error::Workload`].
    pub fn workload(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Workload { what: what.into(), why: why.to_string() }
    }
}

/// " (did you mean `x`?)" if one of the words is near, or begins with what was given; else nothing.
#[must_use]
pub fn did_you_mean<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, words).map_or(String::new(), |known| format!(" (did you mean `{known}`?)"))
}

/// The nearest of the words, if one is near: a few letters wrong, or the rest left out.
#[must_use]
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_start = |known: &str| word.chars().count() >= 3 && known.starts_with(word);
    words
        .into_iter()
        .map(|known| (if is_start(known) { 0 } else { strsim::damerau_levenshtein(word, known) }, known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        assert_eq!(did_you_mean("natve", ["native", "docker"]), " (did you mean `native`?)");
        assert_eq!(did_you_mean("zebra", ["native", "docker"]), "");
        assert_eq!(did_you_mean("redis", ["tcp-rr", "redis-set", "redis-get"]), " (did you mean `redis-get`?)");
        assert_eq!(nearest("rnu", ["run", "report"]), Some("run"));
        assert_eq!(nearest("", ["run", "report"]), None);
    }
}
