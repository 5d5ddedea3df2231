//! Configurations: `engine:key=value,key=value`. An engine declares its keys; the grammar is the same for all.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    engine::{self, Engine, Key},
    error::{Error, Result, did_you_mean},
};

/// How a server is run: an engine and the values of all its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Configuration {
    /// The engine's name.
    pub engine: String,
    /// The value of every key that the engine declares.
    pub keys: BTreeMap<String, String>,
}

impl fmt::Display for Configuration {
    /// The canonical name: keys in order, all spelled out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.engine)?;
        for (index, (key, value)) in self.keys.iter().enumerate() {
            let separator = if index == 0 { ':' } else { ',' };
            write!(formatter, "{separator}{key}={value}")?;
        }
        Ok(())
    }
}

impl Configuration {
    /// The value of a key; the engine declared it, so it is there.
    #[must_use]
    pub fn key(&self, name: &str) -> &str {
        self.keys.get(name).map_or("", String::as_str)
    }

    /// A file name made of its name.
    #[must_use]
    pub fn file_stem(&self) -> String {
        file_stem(&self.to_string())
    }
}

/// A configuration's name with what file systems and shells dislike replaced.
#[must_use]
pub fn file_stem(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// Configurations as asked for, and what was assumed of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// In the order given.
    pub configurations: Vec<Configuration>,
    /// Lines for the user: defaults that were filled in.
    pub notes: Vec<String>,
}

/// Parses a list such as `native,docker:net=host,docker:net=nat`. A piece that has a `=` but no `:` before it goes on
/// with the keys of the one before it.
///
/// # Errors
/// [`Error::Usage`] for unknown engines, keys and values, keys given twice, and configurations given twice.
pub fn parse_list(text: &str) -> Result<Parsed> {
    let mut pieces: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let continues = piece.split_once('=').is_some_and(|(key, _)| !key.contains(':'));
        match pieces.last_mut() {
            Some(last) if continues => {
                last.push(',');
                last.push_str(piece);
            }
            _ => pieces.push(piece.to_owned()),
        }
    }
    let mut parsed = Parsed { configurations: Vec::new(), notes: Vec::new() };
    for piece in &pieces {
        let (configuration, note) = parse(piece)?;
        if parsed.configurations.contains(&configuration) {
            return Err(Error::Usage(format!(
                "configuration `{configuration}` is given twice; comparing a configuration with itself is not built yet"
            )));
        }
        parsed.configurations.push(configuration);
        parsed.notes.extend(note);
    }
    Ok(parsed)
}

/// Parses one configuration; the second value says which defaults were filled in, if any.
///
/// # Errors
/// As [`parse_list`].
pub fn parse(text: &str) -> Result<(Configuration, Option<String>)> {
    let (name, rest) = match text.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let engine = engine::by_name(name).ok_or_else(|| {
        let known: Vec<_> = engine::all().iter().map(|engine| engine.name()).collect();
        Error::Usage(format!(
            "unknown engine `{name}` in configuration `{text}`{}; engines: {}",
            did_you_mean(name, known.iter().copied()),
            known.join(", ")
        ))
    })?;
    let mut keys = BTreeMap::new();
    for pair in rest.into_iter().flat_map(|rest| rest.split(',')) {
        let (key, value) = parse_pair(engine, text, pair)?;
        if keys.insert(key.name.to_owned(), value.to_owned()).is_some() {
            return Err(Error::Usage(format!("key `{}` is given twice in configuration `{text}`", key.name)));
        }
    }
    let mut filled = false;
    for key in engine.keys() {
        keys.entry(key.name.to_owned()).or_insert_with(|| {
            filled = true;
            key.default.to_owned()
        });
    }
    let configuration = Configuration { engine: name.to_owned(), keys };
    let note = filled.then(|| format!("`{text}` means `{configuration}`"));
    Ok((configuration, note))
}

fn parse_pair<'a>(engine: &dyn Engine, text: &str, pair: &'a str) -> Result<(&'static Key, &'a str)> {
    let Some((name, value)) = pair.split_once('=') else {
        return Err(Error::Usage(format!("`{pair}` in configuration `{text}` is not `key=value`")));
    };
    let keys = engine.keys();
    let key = keys.iter().find(|key| key.name == name).ok_or_else(|| {
        let known: Vec<_> = keys.iter().map(|key| key.name).collect();
        let list = if known.is_empty() { "it has none".to_owned() } else { format!("keys: {}", known.join(", ")) };
        Error::Usage(format!(
            "engine `{}` has no key `{name}`{}; {list}",
            engine.name(),
            did_you_mean(name, known.iter().copied())
        ))
    })?;
    if !key.values.contains(&value) {
        return Err(Error::Usage(format!(
            "key `{name}` of engine `{}` cannot be `{value}`{}; values: {}",
            engine.name(),
            did_you_mean(value, key.values.iter().copied()),
            key.values.join(", ")
        )));
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse_list(text).unwrap().configurations.iter().map(ToString::to_string).collect()
    }
    fn refusal(text: &str) -> String {
        parse_list(text).unwrap_err().to_string()
    }

    #[test]
    fn a_list_of_configurations() {
        assert_eq!(names("native,docker:net=host,docker:net=nat"), ["native", "docker:net=host", "docker:net=nat"]);
    }

    #[test]
    fn docker_alone_means_nat_and_says_so() {
        let parsed = parse_list("docker").unwrap();
        assert_eq!(parsed.configurations[0].key("net"), "nat");
        assert_eq!(parsed.notes, ["`docker` means `docker:net=nat`"]);
        assert!(parse_list("docker:net=host").unwrap().notes.is_empty());
    }

    #[test]
    fn refusals() {
        insta::assert_snapshot!(
            [
                "nativ",
                "",
                "native,",
                "native,native",
                "docker,docker:net=nat",
                "docker:net=hots",
                "docker:nett=host",
                "docker:net",
                "docker:net=host,net=nat",
                "native:net=host",
                "net=host,native",
                "docker:",
                "kvm",
            ]
            .map(|text| format!("{text:<24} {}", refusal(text)))
            .join("\n")
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            let _ = parse_list(&text);
        }

        #[test]
        fn canonical_names_parse_to_themselves(net in prop::sample::select(vec!["host", "nat", "bridge"])) {
            let (configuration, _) = parse(&format!("docker:net={net}")).unwrap();
            let (again, note) = parse(&configuration.to_string()).unwrap();
            prop_assert_eq!(&again, &configuration);
            prop_assert_eq!(note, None);
        }
    }
}
