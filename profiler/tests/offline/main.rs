//! What needs neither root nor a machine: recorded inputs, pictures and tables as reviewed, the command line, input
//! that is bad.

mod bad_input;
mod command_line;
#[path = "../common/mod.rs"]
mod common;
mod docs;
mod exports;
mod formats;
mod fuzz;
mod golden;
mod golden_runs;
mod recorded_paths;
mod schema;
