//! The removal of what a run has made. Each kind of item has an owner, which knows how: here stands who that is. It is
//! one `match`, so that no kind of item can be without an owner.

use crate::{
    cgroup, engine,
    ledger::{self, Item},
    net,
};
use virtax_model::error::{Error, Result};
use virtax_probes::process;

/// The remedy for what another version has made.
const CLEAN: &str = "remove it by the version of virtax that made it: virtax clean";

/// Removes an item; what is gone already is no error.
///
/// # Errors
/// If it is still there afterwards.
pub fn remove(item: &Item) -> Result<()> {
    match item {
        Item::Namespace { name } => net::delete_namespace(name),
        Item::Link { name } => net::delete_link(name),
        Item::Container { engine, .. } | Item::Network { engine, .. } | Item::Image { engine, .. } => {
            let unknown =
                || Error::engine(format!("cannot remove {item}"), format!("no engine is called {engine}"), CLEAN);
            engine::by_name(engine).ok_or_else(unknown)?.remove(item)
        }
        Item::Rule { arguments } => net::delete_rule(arguments),
        Item::Sysctl { path, before } => engine::vm::restore(path, before),
        Item::Cgroup { path } => cgroup::delete(path),
        Item::Folder { path } => ledger::remove_folder(path),
        Item::Machine { name } => engine::vm::remove(name),
        Item::HugePages { path, pages } => engine::vm::give_back(path, *pages),
        Item::Process { pid, started } => process::kill(*pid, *started),
    }
}
