//! What a VM boots: a kernel, and an initial file system with a first process, the drivers that it
//! needs, and the same programs as everywhere else.

mod archive;
mod image;
mod kernel;
mod modules;

pub use image::{DRIVERS, Image, add_kernel};
pub use kernel::Kernel;
