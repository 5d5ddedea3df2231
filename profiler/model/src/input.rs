//! Files that may come from anywhere: another host, another version, a broken disk, a stranger. Read within bounds
//! of size and of numbers, so that what computes with them need not look again. Depth is bounded by the JSON reader
//! itself (128).

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read},
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::{Error, Result};

/// Largest document, bytes: results of a hundred configurations come to a tenth of it.
const LARGEST_DOCUMENT: u64 = 64 << 20;
/// Longest line of a file of lines, bytes: a repetition's stacks come to a tenth of it.
const LONGEST_LINE: u64 = 64 << 20;
/// Largest file of lines, bytes after decompression.
const LARGEST_FILE: u64 = 4 << 30;
/// Largest number: nanoseconds since boot reach it after 31 years. Sums of many such may wrap: nonsense, but no harm.
pub const LARGEST_NUMBER: f64 = 1e18;
/// Longest text, bytes: encoded histograms come to a tenth of it.
const LONGEST_TEXT: usize = 1 << 20;

/// Refuses documents of an unknown version before anything else of them is looked at: a newer one may have another
/// shape.
#[derive(Deserialize)]
struct Versioned {
    schema_version: u32,
}

/// Reads a document with a `schema_version`.
///
/// # Errors
/// [`Error::Files`] if it cannot be read, is too large, of another version, broken, or holds impossible numbers.
pub fn document<T: DeserializeOwned>(path: &Path, version: u32) -> Result<T> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_DOCUMENT + 1).read_to_end(&mut text))
        .map_err(|error| Error::file("read", path, error))?;
    if text.len() as u64 > LARGEST_DOCUMENT {
        return Err(Error::file("read", path, format!("it is larger than {} MB", LARGEST_DOCUMENT >> 20)));
    }
    let understand = |error: serde_json::Error| Error::file("understand", path, error);
    let found: Versioned = serde_json::from_slice(&text).map_err(understand)?;
    if found.schema_version != version {
        let (is, whose) = if found.schema_version > version {
            ("newer", "a newer virtax")
        } else {
            ("older", "the virtax that wrote it")
        };
        let why =
            format!("its schema version {} is {is} than this virtax's, {version}; use {whose}", found.schema_version);
        return Err(Error::file("understand", path, why));
    }
    parse(&text).map_err(|why| Error::file("understand", path, why))
}

/// Parses JSON whose numbers and texts are possible ones.
///
/// # Errors
/// What is wrong with it.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> std::result::Result<T, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    check(&value)?;
    // By its text, so that the error says where.
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

fn check(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::Number(number) if number.as_f64().is_none_or(|number| number.abs() > LARGEST_NUMBER) => {
            Err(format!("{number} is no possible number"))
        }
        Value::String(text) => check_text(text),
        Value::Array(values) => values.iter().try_for_each(check),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            check_text(name)?;
            // A seed is any number of 64 bits; nothing is computed from it.
            if name == "seed" && value.is_u64() { Ok(()) } else { check(value) }
        }),
        _ => Ok(()),
    }
}

fn check_text(text: &str) -> std::result::Result<(), String> {
    if text.len() > LONGEST_TEXT {
        return Err(format!("a text of {} bytes", text.len()));
    }
    // They would act on the terminal of whoever looks at it.
    if text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')) {
        return Err(format!("a text with control characters: {:?}", text.chars().take(40).collect::<String>()));
    }
    Ok(())
}

/// Lines of a file, each with its number, from 1.
pub struct Lines<'a, R> {
    path: &'a Path,
    reader: BufReader<R>,
    line: Vec<u8>,
    number: usize,
    bytes: u64,
}

impl<'a, R: Read> Lines<'a, R> {
    /// Reads lines of what comes from `path` through `reader`.
    pub fn new(path: &'a Path, reader: R) -> Self {
        Self { path, reader: BufReader::new(reader), line: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line without its end, and whether it has one: a last line without is what a process was writing when
    /// it ended.
    ///
    /// # Errors
    /// [`Error::Files`] if the file cannot be read, or is too large.
    pub fn next_line(&mut self) -> Result<Option<(usize, &[u8], bool)>> {
        self.line.clear();
        let too_large = |what: String| Error::file("read", self.path, what);
        match self.reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.line) {
            // A compressed member that was cut off: what came of it so far stands in `line`.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(Error::file("read", self.path, error)),
        }
        if self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += self.line.len() as u64;
        let ended = self.line.pop_if(|last| *last == b'\n').is_some();
        if !ended && self.line.len() as u64 >= LONGEST_LINE {
            return Err(too_large(format!("line {} is longer than {} MB", self.number, LONGEST_LINE >> 20)));
        }
        if self.bytes > LARGEST_FILE {
            return Err(too_large(format!("it holds more than {} GB", LARGEST_FILE >> 30)));
        }
        Ok(Some((self.number, &self.line, ended)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        parse::<Value>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn impossible_values_are_named() {
        assert!(
            refusal("{\"a\":[1,2,1e19]}").contains("1e19 is no possible number") || refusal("[1e19]").contains("1e+19")
        );
        assert!(refusal("[18446744073709551615]").contains("18446744073709551615"));
        assert!(refusal("[1e999]").contains("out of range"));
        assert!(refusal(&format!("\"{}\"", "x".repeat(LONGEST_TEXT + 1))).contains("bytes"));
        assert!(refusal("[\"\\u001b[2J\"]").contains("control characters"));
        assert!(refusal("{\"\\u001b[2J\":1}").contains("control characters"));
        assert!(refusal("{\"seed\":\"\\u001b[2J\"}").contains("control characters"));
        assert!(refusal(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(parse::<Value>(b"{\"seed\":18446744073709551615,\"x\":-1e17}").is_ok());
    }

    #[test]
    fn a_line_without_an_end_is_told_from_whole_ones() {
        let mut lines = Lines::new(Path::new("x"), &b"one\n\ntwo"[..]);
        assert_eq!(lines.next_line().unwrap(), Some((1, &b"one"[..], true)));
        assert_eq!(lines.next_line().unwrap(), Some((2, &b""[..], true)));
        assert_eq!(lines.next_line().unwrap(), Some((3, &b"two"[..], false)));
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        let mut lines = Lines::new(Path::new("x"), std::io::repeat(b'['));
        assert!(lines.next_line().unwrap_err().to_string().contains("line 1 is longer than 64 MB"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse::<Value>(&bytes);
        }
    }

    #[test]
    fn a_text_may_be_as_long_as_the_longest() {
        assert_eq!(check_text(&"a".repeat(LONGEST_TEXT)), Ok(()));
        let refused = check_text(&"a".repeat(LONGEST_TEXT + 1)).unwrap_err();
        assert_eq!(refused, format!("a text of {} bytes", LONGEST_TEXT + 1));
    }
}
