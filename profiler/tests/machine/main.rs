//! What needs root, and a machine that can do it: real servers under real probes, in containers and guests; one test
//! at a time ([`common::alone`]).

mod adversity;
#[path = "../common/mod.rs"]
mod common;
mod cross_checks;
mod faults;
mod files;
mod files_below;
mod fio;
mod libvirt;
mod losses;
mod mechanisms;
mod outside;
mod privileges;
mod real_runs;
mod redis;
mod vm;
mod vm_files;
