//! pprof's format: one profile of all configurations' stacks, told apart by a label, in protocol buffers and gzip
//! (`profile.proto` of github.com/google/pprof, whose field numbers these are).

use std::{collections::HashMap, io::Write};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use super::no_form;
use crate::result::RunResult;
use virtax_analysis::stacks::Weighted;
use virtax_model::error::Result;

/// `Profile`: texts are numbers of the string table, of which the first is empty.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What a sample's values are.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// Stacks.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Frames.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// What frames are called.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// Texts.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Start of the run, ns since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// Remarks, texts' numbers.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
}

/// `ValueType`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    /// Name of the kind.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Unit of the kind.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// `Sample`.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// Frames, the innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One for each type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// The configuration.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// `Label`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Label {
    /// Name of the label.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Text of the label.
    #[prost(int64, tag = "2")]
    pub str: i64,
}

/// `Location`.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    /// Not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The function.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// `Line`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Line {
    /// The function's number.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
}

/// `Function`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    /// Not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name of the function.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Name of the function, as its system calls it.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
}

/// Texts and frames, each once.
#[derive(Default)]
struct Tables {
    texts: HashMap<String, i64>,
    frames: HashMap<i64, u64>,
    profile: Profile,
}

impl Tables {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    /// The location of a frame of this name: it has no address, so that its function is all of it.
    fn frame(&mut self, name: &str) -> u64 {
        let name = self.text(name);
        if let Some(known) = self.frames.get(&name) {
            return *known;
        }
        let id = self.profile.location.len() as u64 + 1;
        self.profile.function.push(Function { id, name, system_name: name });
        self.profile.location.push(Location { id, line: vec![Line { function_id: id }] });
        self.frames.insert(name, id);
        id
    }
}

/// The file.
///
/// # Errors
/// If it cannot be packed.
pub fn file<'a>(
    result: &RunResult,
    of_configurations: impl Iterator<Item = (&'a str, &'a [Weighted])>,
) -> Result<Vec<u8>> {
    let mut tables = Tables::default();
    tables.text("");
    let (time, unit) = (tables.text("time"), tables.text("nanoseconds"));
    let key = tables.text("configuration");
    let remark = format!("{} ({}): values are ns per operation", result.workload.name, result.run_id);
    let remark = tables.text(&remark);
    for (name, stacks) in of_configurations {
        let label = Label { key, str: tables.text(name) };
        for stack in stacks.iter().filter(|stack| stack.ns >= 0.5) {
            let location_id = stack.frames.iter().rev().map(|frame| tables.frame(&frame.name)).collect();
            let value = vec![stack.ns.round() as i64];
            tables.profile.sample.push(Sample { location_id, value, label: vec![label] });
        }
    }
    let mut profile = tables.profile;
    profile.sample_type = vec![ValueType { r#type: time, unit }];
    profile.time_nanos = (result.started_unix_s as i64).saturating_mul(1_000_000_000);
    profile.comment = vec![remark];
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&profile.encode_to_vec()).and_then(|()| packed.finish()).map_err(|error| no_form(&error))
}
