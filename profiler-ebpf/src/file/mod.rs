//! Operations on files and disks.

pub mod below;
pub mod bios;
pub mod block;
pub mod calls;
pub mod held;
pub mod operation;
pub mod worker;
pub mod writeback;
