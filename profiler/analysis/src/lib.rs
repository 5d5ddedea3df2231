//! Pure functions from raw counts to waterfalls and comparisons.

pub mod comparison;
mod correction;
pub mod describe;
pub mod label;
pub mod layers;
pub mod path;
pub mod profile;
pub mod stacks;
pub mod statistics;
pub mod tail;
pub mod waterfall;
