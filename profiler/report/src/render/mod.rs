//! What is shown: pure functions of the result.

pub mod flame;
pub mod html;
pub mod numbers;
pub mod terminal;
