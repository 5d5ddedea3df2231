//! The shape of `result.json` as a JSON Schema: what others can check their readers against.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::RunResult;

/// The schema (draft 2020-12) of a result as it is written, with the types' own words.
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    generator.into_root_schema_for::<RunResult>().to_value()
}
