//! Network namespaces, links, addresses and firewall rules of a run.

pub(crate) mod links;
mod namespace;
pub mod refusals;
mod rules;
mod subnets;
pub mod verdicts;
mod wire;

pub use links::{delete_link, links_here};
pub use namespace::{Namespace, delete_namespace, enter_before_exec, namespaces_named};
pub use rules::{add_rule, delete_rule};
pub use subnets::{Segment, Subnets};
pub use wire::Wire;
