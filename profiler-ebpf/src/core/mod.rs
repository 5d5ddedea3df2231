//! What every probe uses: the kernel's memory, tables, slots, tokens, threads, stacks.

pub mod holder;
pub mod instructions;
pub mod kernel;
pub mod maps;
pub mod phase;
pub mod settings;
pub mod slot;
pub mod slots;
pub mod stacks;
pub mod thread;
pub mod token;
