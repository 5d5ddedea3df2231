//! Configurations: `engine:key=value,key=value`. An engine declares its keys; the grammar is the same for all.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    engine::{self, Engine, Key},
    injection::{Injection, Kind},
};
use virtax_model::error::{Error, Result, did_you_mean};

/// How a server is run: an engine and the values of all its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Configuration {
    /// The engine's name.
    pub engine: String,
    /// The value of every key that the engine declares.
    pub keys: BTreeMap<String, String>,
    /// A known cost that is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<Injection>,
}

impl fmt::Display for Configuration {
    /// The canonical name: the engine's first key, and those of the others that do not follow from what is given.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.engine)?;
        for (index, (key, value)) in self.telling_keys().into_iter().enumerate() {
            let separator = if index == 0 { ':' } else { ',' };
            write!(formatter, "{separator}{key}={value}")?;
        }
        self.injection.map_or(Ok(()), |injection| injection.fmt(formatter))
    }
}

impl Configuration {
    /// The value of a key; the engine declared it, so it is there.
    #[must_use]
    pub fn key(&self, name: &str) -> &str {
        self.keys.get(name).map_or("", String::as_str)
    }

    /// The keys that its name consists of, in the order of the engine's own list.
    fn telling_keys(&self) -> Vec<(&str, &str)> {
        let Some(engine) = engine::by_name(&self.engine) else {
            return self.keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        };
        let mut telling = self.keys.clone();
        for key in engine.keys().iter().skip(usize::from(engine.tells_first_key())) {
            let value = telling.remove(key.name);
            let (filled, _) = fill_in(engine, telling.clone());
            if filled != self.keys {
                telling.extend(value.map(|value| (key.name.to_owned(), value)));
            }
        }
        let in_order = engine.keys().iter().filter(|key| telling.contains_key(key.name));
        in_order.map(|key| (key.name, self.key(key.name))).collect()
    }

    /// A file name made of its name.
    #[must_use]
    pub fn file_stem(&self) -> String {
        virtax_model::run_folder::file_stem(&self.to_string())
    }
}

/// Configurations as asked for, and what was assumed of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Configurations, in the order given.
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
        let continues = piece.split_once('=').is_some_and(|(key, _)| !key.contains([':', '+']));
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
        let (mut configuration, note) = parse(piece)?;
        parsed.notes.extend(note);
        if parsed.configurations.contains(&configuration) {
            configuration = copy_of(configuration, &parsed.configurations)?;
            parsed.notes.push(format!("`{piece}` is given again: compared with itself, as `{configuration}`"));
        }
        parsed.configurations.push(configuration);
    }
    Ok(parsed)
}

/// A copy of a configuration, under a name that is not taken.
fn copy_of(configuration: Configuration, taken: &[Configuration]) -> Result<Configuration> {
    if configuration.injection.is_some() {
        return Err(Error::Usage(format!("configuration `{configuration}` is given twice")));
    }
    (2..=999)
        .map(|value| Configuration { injection: Some(Injection { kind: Kind::Copy, value }), ..configuration.clone() })
        .find(|copy| !taken.contains(copy))
        .ok_or_else(|| Error::Usage(format!("configuration `{configuration}` is given too often")))
}

/// Parses one configuration; the second value says which defaults were filled in, if any.
///
/// # Errors
/// As [`parse_list`].
pub fn parse(text: &str) -> Result<(Configuration, Option<String>)> {
    if text.is_empty() {
        return Err(Error::Usage("an empty configuration: is there a comma too many?".to_owned()));
    }
    let (plain, injection) = match split_injection(text) {
        Some((plain, injection)) => (plain, Some(Injection::parse(injection)?)),
        None => (text, None),
    };
    let (name, rest) = match plain.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (plain, None),
    };
    let engine = engine::by_name(name).ok_or_else(|| {
        let known: Vec<_> = engine::all().iter().map(|engine| engine.name()).collect();
        Error::Usage(format!(
            "unknown engine `{name}` in configuration `{text}`{}; engines: {}",
            did_you_mean(name, known.iter().copied()),
            known.join(", ")
        ))
    })?;
    let (preset, rest) = split_preset(engine, rest);
    let mut keys = BTreeMap::new();
    for pair in rest.into_iter().flat_map(|rest| rest.split(',')) {
        let (key, value) = parse_pair(engine, text, pair)?;
        if keys.insert(key.name.to_owned(), value.to_owned()).is_some() {
            return Err(Error::Usage(format!("key `{}` is given twice in configuration `{text}`", key.name)));
        }
    }
    // What is given goes before what a preset says.
    for pair in preset.into_iter().flat_map(|pairs| pairs.split(',')) {
        let (key, value) = parse_pair(engine, text, pair)?;
        keys.entry(key.name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let (keys, filled) = fill_in(engine, keys);
    if let Some(injection) = injection.filter(|injection| !engine.accepts(injection.kind)) {
        let known = injection.kind.name();
        return Err(Error::Usage(format!("engine `{name}` cannot put in the known cost `{known}`; engine `ns` can")));
    }
    let configuration = Configuration { engine: name.to_owned(), keys, injection };
    engine.check(&configuration)?;
    let note = (filled && configuration.to_string() != text).then(|| format!("`{text}` means `{configuration}`"));
    Ok((configuration, note))
}

/// A configuration and the known cost behind it. Paths may have a `+` of their own.
fn split_injection(text: &str) -> Option<(&str, &str)> {
    if !text.contains('/') {
        return text.split_once('+');
    }
    text.rsplit_once('+').filter(|(_, injection)| injection.contains('=') && !injection.contains('/'))
}

/// The keys that a preset in front stands for, and the rest.
fn split_preset<'a>(engine: &dyn Engine, rest: Option<&'a str>) -> (Option<&'static str>, Option<&'a str>) {
    let Some(whole) = rest else { return (None, None) };
    let (first, others) = whole.split_once(',').map_or((whole, None), |(first, others)| (first, Some(others)));
    match engine.presets().iter().find(|(name, _)| *name == first) {
        Some((_, pairs)) => (Some(pairs), others),
        None => (None, rest),
    }
}

/// The keys that are given and, one after another, what follows from them for the others; and whether there were any.
fn fill_in(engine: &dyn Engine, mut keys: BTreeMap<String, String>) -> (BTreeMap<String, String>, bool) {
    let missing: Vec<&Key> = engine.keys().iter().filter(|key| !keys.contains_key(key.name)).collect();
    for key in &missing {
        let value = engine.default_of(key, &keys).to_owned();
        keys.insert(key.name.to_owned(), value);
    }
    (keys, !missing.is_empty())
}

fn parse_pair<'a>(engine: &dyn Engine, text: &str, pair: &'a str) -> Result<(&'static Key, &'a str)> {
    let Some((name, value)) = pair.split_once('=') else {
        let presets: Vec<_> = engine.presets().iter().map(|(name, _)| *name).collect();
        let also = if presets.is_empty() { String::new() } else { format!(", nor one of {}", presets.join(", ")) };
        let near = did_you_mean(pair, presets.iter().copied());
        return Err(Error::Usage(format!("`{pair}` in configuration `{text}` is not `key=value`{also}{near}")));
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
    if !key.accepts(value) {
        return Err(Error::Usage(format!(
            "key `{name}` of engine `{}` cannot be `{value}`{}; values: {}",
            engine.name(),
            key.near(value),
            key.range(", ")
        )));
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Values;

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
    fn given_again_it_is_compared_with_itself() {
        assert_eq!(
            names("native,docker,native,native"),
            ["native", "docker:net=nat", "native+copy=2", "native+copy=3"]
        );
        assert_eq!(names("native,native+spin-us=20"), ["native", "native+spin-us=20"]);
        assert!(parse_list("docker,docker:net=nat").unwrap().notes[1].contains("compared with itself"));
    }

    #[test]
    fn refusals() {
        insta::assert_snapshot!(
            [
                "nativ",
                "",
                "native,",
                "native+copy=2,native+copy=2",
                "docker:net=hots",
                "docker:nett=host",
                "docker:net",
                "docker:net=host,net=nat",
                "native:net=host",
                "net=host,native",
                "docker:",
                "xen",
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
        fn canonical_names_parse_to_themselves(keys in prop::collection::vec((0..9usize, 0..5usize), 0..9)) {
            let known = engine::by_name("ns").unwrap().keys();
            let mut given = BTreeMap::new();
            for (key, value) in keys {
                let Values::Words(words) = known[key].values else { continue };
                given.insert(known[key].name, words[value % words.len()]);
            }
            let pairs: Vec<String> = given.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let text = if pairs.is_empty() { "ns".to_owned() } else { format!("ns:{}", pairs.join(",")) };
            // What cannot be is refused.
            let Ok((configuration, _)) = parse(&text) else { return Ok(()) };
            let (again, note) = parse(&configuration.to_string()).unwrap();
            prop_assert_eq!(&again, &configuration);
            prop_assert_eq!(note, None);
        }
    }
}
