//! Keys of configurations, and what they can be.

use virtax_model::error::did_you_mean;

/// A key that an engine understands.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name of the key.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
    /// The value if it is not given.
    pub default: &'static str,
    /// One line for `virtax list`.
    pub help: &'static str,
}

/// What a key can be.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// A whole number, in decimal digits, or the key's default.
    Number {
        /// The smallest.
        from: u32,
        /// The largest.
        to: u32,
    },
    /// An absolute path without a comma, or the key's default.
    Path,
}

impl Key {
    /// Whether it can be this.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        match self.values {
            Values::Words(words) => words.contains(&value),
            // As it is printed again: `01` would be another name for the same configuration.
            Values::Number { from, to } => {
                let is_one = |number: u32| (from..=to).contains(&number) && number.to_string() == value;
                value == self.default || value.parse().is_ok_and(is_one)
            }
            Values::Path => value == self.default || value.starts_with('/'),
        }
    }

    /// What it can be, as a list or in words.
    #[must_use]
    pub fn range(&self, separator: &str) -> String {
        match self.values {
            Values::Words(words) => words.join(separator),
            Values::Number { from, to } if self.default.parse::<u32>().is_ok() => format!("{from}–{to}"),
            Values::Number { from, to } => format!("{}{separator}{from}–{to}", self.default),
            Values::Path => format!("{}{separator}/PATH", self.default),
        }
    }

    /// " (did you mean `x`?)", as [`did_you_mean`].
    #[must_use]
    pub fn near(&self, value: &str) -> String {
        match self.values {
            Values::Words(words) => did_you_mean(value, words.iter().copied()),
            Values::Number { .. } | Values::Path => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling_and_paths_are_absolute() {
        let key = |values, default| Key { name: "x", values, default, help: "" };
        let number = key(Values::Number { from: 1, to: 64 }, "1");
        assert!(["1", "64"].iter().all(|value| number.accepts(value)));
        assert!(["0", "65", "01", "+1", "", "x", "4294967297"].iter().all(|value| !number.accepts(value)));
        let or_word = key(Values::Number { from: 0, to: 9 }, "auto");
        assert!(["auto", "0", "9"].iter().all(|value| or_word.accepts(value)) && !or_word.accepts("10"));
        assert_eq!(or_word.range("|"), "auto|0–9");
        let path = key(Values::Path, "auto");
        assert!(path.accepts("auto") && path.accepts("/boot/vmlinuz-6.1+x") && !path.accepts("boot/vmlinuz"));
        assert_eq!((number.range("|"), path.range("|")), ("1–64".to_owned(), "auto|/PATH".to_owned()));
    }
}
