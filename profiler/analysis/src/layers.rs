//! Layers: named parts of the code, by the functions on a stack. The rules are data: `layers/rules.txt`.

use std::{collections::HashMap, sync::OnceLock};

use virtax_model::profile::{Frame, Space};

/// The layer of code in a process.
pub const USER: &str = "user";
/// The layer of stacks in the kernel that no rule matches.
pub const UNMATCHED: &str = "unmatched";
/// The layer of virtax's own probes.
pub const OWN: &str = "virtax";
/// The layer of a sample that could be taken only once interrupts were on again: where it says, but not what ran.
pub const IRQS_OFF: &str = "irqs-off";

const RULES: &str = include_str!("layers/rules.txt");

/// Where in a stack a rule looks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// At every frame, innermost first.
    Frame,
    /// At the innermost frame alone.
    Leaf,
    /// At every frame, before all other rules.
    Anywhere,
    /// At frames beneath a caller that matches.
    Under(String),
}

#[derive(Debug, Clone)]
struct Rule {
    layer: String,
    scope: Scope,
    patterns: Vec<String>,
}

/// Rules, in order.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Rule>);

/// Whether a name matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let pieces: Vec<&str> = pieces.collect();
    for (index, piece) in pieces.iter().enumerate() {
        if index + 1 == pieces.len() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

impl Rules {
    /// The rules that virtax brings along.
    ///
    /// # Panics
    /// If the file is broken, which a test excludes.
    #[must_use]
    pub fn own() -> &'static Self {
        static RULES_READ: OnceLock<Rules> = OnceLock::new();
        RULES_READ.get_or_init(|| Self::parse(RULES).expect("the rules are well-formed: a test reads them"))
    }

    /// Reads rules.
    ///
    /// # Errors
    /// The line that is none, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let broken = |why: &str| format!("line {number}: {why}: {line}");
            let (head, patterns) = line.split_once(": ").ok_or_else(|| broken("no `: ` after the layer"))?;
            let (layer, scope) = if let Some(layer) = head.strip_suffix(" leaf") {
                (layer, Scope::Leaf)
            } else if let Some(layer) = head.strip_suffix(" anywhere") {
                (layer, Scope::Anywhere)
            } else if let Some((layer, ancestor)) = head.split_once(" under ") {
                (layer, Scope::Under(ancestor.trim().to_owned()))
            } else {
                (head, Scope::Frame)
            };
            let patterns: Vec<String> = patterns.split_whitespace().map(str::to_owned).collect();
            if layer.trim().is_empty() || patterns.is_empty() {
                return Err(broken("no layer or no pattern"));
            }
            rules.push(Rule { layer: layer.trim().to_owned(), scope, patterns });
        }
        Ok(Self(rules))
    }

    /// Names of all layers, in the order of their first rules.
    #[must_use]
    pub fn layers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for rule in &self.0 {
            if !names.contains(&rule.layer.as_str()) {
                names.push(&rule.layer);
            }
        }
        names
    }

    /// The layer of a stack in the kernel, its outermost frame first.
    #[must_use]
    pub fn layer_of(&self, kernel: &[&str]) -> Option<&str> {
        let mut anywhere = self.0.iter().filter(|rule| rule.scope == Scope::Anywhere);
        if let Some(rule) = anywhere.find(|rule| kernel.iter().any(|name| rule.names(name))) {
            return Some(&rule.layer);
        }
        (0..kernel.len()).rev().find_map(|frame| {
            let callers = &kernel[..frame];
            let is_leaf = frame + 1 == kernel.len();
            let found = self.0.iter().find(|rule| rule.applies(is_leaf, callers) && rule.names(kernel[frame]))?;
            Some(found.layer.as_str())
        })
    }
}

impl Rule {
    fn names(&self, function: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, function))
    }
    fn applies(&self, is_leaf: bool, callers: &[&str]) -> bool {
        match &self.scope {
            Scope::Frame => true,
            Scope::Leaf => is_leaf,
            Scope::Anywhere => false,
            Scope::Under(pattern) => callers.iter().any(|caller| matches(pattern, caller)),
        }
    }
}

/// The layer of a stack with its frames in place of indices, outermost first.
#[must_use]
pub fn layer_of<'a>(rules: &'a Rules, stack: &[&Frame]) -> &'a str {
    let kernel: Vec<&str> =
        stack.iter().filter(|frame| frame.0 == Space::Kernel).map(|frame| frame.1.as_str()).collect();
    if kernel.is_empty() {
        return USER;
    }
    rules.layer_of(&kernel).unwrap_or(UNMATCHED)
}

/// Layers of stacks, each looked up once.
pub struct Lookup<'a> {
    rules: &'a Rules,
    known: HashMap<Vec<u32>, &'a str>,
}

impl<'a> Lookup<'a> {
    /// Nothing is known yet. A look-up serves one table of frames.
    #[must_use]
    pub fn new(rules: &'a Rules) -> Self {
        Self { rules, known: HashMap::new() }
    }

    /// The layer of a stack of indices into `frames`.
    pub fn layer(&mut self, frames: &[Frame], stack: &[u32]) -> &'a str {
        if let Some(layer) = self.known.get(stack) {
            return layer;
        }
        let resolved: Vec<&Frame> = stack.iter().filter_map(|index| frames.get(*index as usize)).collect();
        let layer = layer_of(self.rules, &resolved);
        self.known.insert(stack.to_vec(), layer);
        layer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(stack: &str) -> &'static str {
        let kernel: Vec<&str> = stack.split(' ').collect();
        Rules::own().layer_of(&kernel).unwrap_or(UNMATCHED)
    }

    #[test]
    fn patterns() {
        assert!(matches("tcp_*", "tcp_ack") && matches("tcp_ack", "tcp_ack") && matches("*_mt", "comment_mt"));
        assert!(matches("bpf_prog_*_typed", "bpf_prog_0a1b_xmit_typed") && matches("*", ""));
        assert!(!matches("tcp_ack", "tcp_ack_update") && !matches("tcp_*", "__tcp_ack") && !matches("a*b*c", "acb"));
    }

    /// Real stacks, shortened, and what a kernel developer would call their innermost work.
    #[test]
    fn stacks_of_the_nat_path() {
        let receive = "do_syscall_64 __x64_sys_sendto tcp_sendmsg __dev_queue_xmit __local_bh_enable_ip do_softirq \
                       handle_softirqs net_rx_action __napi_poll process_backlog ip_rcv";
        let under = |rest: &str| layer(&format!("{receive} {rest}"));
        assert_eq!(under("nf_hook_slow nf_conntrack_in"), "conntrack");
        assert_eq!(under("nf_hook_slow nf_conntrack_in nf_conntrack_tcp_packet tcp_in_window"), "conntrack");
        assert_eq!(under("nf_hook_slow nf_nat_ipv4_pre_routing nf_nat_inet_fn"), "NAT");
        assert_eq!(under("nf_hook_slow nf_nat_ipv4_pre_routing nf_nat_manip_pkt l4proto_manip_pkt"), "NAT");
        assert_eq!(under("nf_hook_slow"), "iptables/nftables");
        assert_eq!(under("nf_hook_slow nft_do_chain_inet nft_do_chain"), "iptables/nftables");
        assert_eq!(under("nf_hook_slow ipt_do_table tcp_mt"), "iptables/nftables");
        assert_eq!(under("ip_rcv_finish_core ip_route_input_noref fib_table_lookup"), "routing");
        assert_eq!(under("ip_forward ip_output br_dev_xmit br_forward"), "bridge");
        assert_eq!(under("tcp_v4_rcv tcp_rcv_established tcp_ack"), "tcp");
        assert_eq!(under("ip_local_deliver_finish"), "ip");
        assert_eq!(under("tcp_v4_rcv sock_def_readable _raw_spin_unlock_irqrestore"), "irqs-off");
        assert_eq!(under("tcp_v4_rcv sock_def_readable __wake_up_sync_key try_to_wake_up"), "scheduler");
        assert_eq!(under("tcp_v4_rcv __memcpy"), "tcp");
    }

    #[test]
    fn stacks_elsewhere() {
        assert_eq!(layer("entry_SYSCALL_64_after_hwframe do_syscall_64"), "system-call entry/exit");
        assert_eq!(layer("do_syscall_64 __x64_sys_epoll_wait do_epoll_wait ep_poll"), "vfs");
        assert_eq!(layer("do_syscall_64 __secure_computing __seccomp_filter bpf_prog_0123456789abcdef"), "seccomp");
        assert_eq!(layer("__dev_queue_xmit __traceiter_net_dev_start_xmit bpf_prog_91_xmit_typed htab_find"), "virtax");
        assert_eq!(layer("cgroup_bpf_run bpf_prog_0123_someone_else"), "bpf");
        assert_eq!(layer("__dev_queue_xmit veth_xmit"), "veth");
        assert_eq!(layer("tcp_sendmsg_locked tcp_stream_alloc_skb kmem_cache_alloc_node_noprof"), "memory");
        assert_eq!(layer("a_function_of_a_future_kernel"), UNMATCHED);
        assert_eq!(layer_of(Rules::own(), &[&Frame(Space::User, "main".to_owned())]), USER);
    }

    #[test]
    fn scopes() {
        let rules = Rules::parse("outer: o*\ninner under outer_b: i\nlast leaf: x\n").unwrap();
        assert_eq!(rules.layer_of(&["outer_b", "i"]), Some("inner"));
        assert_eq!(rules.layer_of(&["outer_a", "i"]), Some("outer"));
        assert_eq!(rules.layer_of(&["outer_a", "x"]), Some("last"));
        assert_eq!(rules.layer_of(&["x", "y"]), None);
    }

    #[test]
    fn broken_rules_are_named_by_their_line() {
        assert!(Rules::parse("tcp: tcp_*\nnonsense\n").unwrap_err().starts_with("line 2"));
        for neither in ["tcp: \n", " : tcp_*\n", "tcp under ip:\n"] {
            assert!(Rules::parse(neither).is_err(), "{neither}");
        }
    }

    /// The layers that code knows by name have rules of that name.
    #[test]
    fn layers_of_code_are_layers_of_rules() {
        let layers = Rules::own().layers();
        assert!([OWN, IRQS_OFF].iter().all(|name| layers.contains(name)), "{layers:?}");
    }

    /// Every layer that the documents promise.
    #[test]
    fn all_layers_have_rules() {
        let layers = Rules::own().layers();
        for name in [
            "conntrack",
            "NAT",
            "iptables/nftables",
            "routing",
            "bridge",
            "veth",
            "tcp",
            "ip",
            "qdisc",
            "socket",
            "softirq",
            "scheduler",
            "memory",
            "system-call entry/exit",
            "seccomp",
            "vfs",
            OWN,
            "irqs-off",
        ] {
            assert!(layers.contains(&name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn matching_never_panics(pattern in "[a-c*]{0,8}", name in "[a-c]{0,8}", text in ".{0,60}") {
            let _ = matches(&pattern, &name);
            let _ = Rules::parse(&text);
        }

        #[test]
        fn a_prefix_matches_what_begins_with_it(prefix in "[a-z_]{0,6}", rest in "[a-z_]{0,6}") {
            let pattern = format!("{}*", prefix);
            let name = format!("{}{}", prefix, rest);
            prop_assert!(matches(&pattern, &name));
        }
    }
}
