//! What the kernel calls the reasons for which a guest is left, and the totals of virtual processors by them.

use std::collections::BTreeMap;

use profiler_common::{
    Control, ExitId, Thread,
    vcpu::{BLOCKED, EXIT, GUEST, HOLDING, INSIDE, KERNEL, OUT, PLACE, POLLED, PORT, UNKNOWN, UNSEEN, USER},
};

use super::tracefs::Tracefs;
use virtax_model::counts::{VcpuState, VcpuTotal};

const EXIT_EVENT: &str = "kvm/kvm_exit";
/// What the processor can: `vmx` is Intel's virtualization.
const PROCESSOR: &str = "/proc/cpuinfo";

/// Names of exit reasons, as the running kernel prints them.
#[derive(Debug, Clone, Default)]
pub struct Reasons(BTreeMap<u16, String>);

impl Reasons {
    /// Names of the kind of processor that this host has; none where the kernel has no KVM.
    #[must_use]
    pub fn of_running_kernel() -> Self {
        let text = Tracefs::open().ok().and_then(|tracefs| tracefs.text(EXIT_EVENT).ok()).unwrap_or_default();
        let processor = std::fs::read_to_string(PROCESSOR).unwrap_or_default();
        Self(reasons(&text, processor.split_whitespace().any(|flag| flag == "vmx")))
    }

    fn name(&self, number: u16) -> String {
        if number == UNSEEN {
            return "(not said yet)".to_owned();
        }
        self.0.get(&number).cloned().unwrap_or_else(|| format!("{number:#x}"))
    }
}

/// The kernel prints a reason by one of two lists, `(REC->isa == 1) ? __print_symbolic(…VMX…) :
/// __print_symbolic(…SVM…)`; pairs stand as `{ 0x078, "hlt" }` or `{ 0x040 + 6, "UD excp" }`. A third list, of flags,
/// may follow.
fn reasons(format: &str, intel: bool) -> BTreeMap<u16, String> {
    let printed = format.split_once("print fmt:").map_or("", |(_, printed)| printed);
    let mut lists = printed.split("__print_symbolic(").skip(1);
    let list = if intel { lists.next() } else { lists.nth(1) };
    let pairs = list.unwrap_or_default().split('{').skip(1);
    pairs
        .filter_map(|pair| {
            let (number, rest) = pair.split_once(',')?;
            let name = rest.split('"').nth(1)?;
            let sum = number.split('+').map(|term| integer(term.trim())).sum::<Option<u64>>()?;
            // All of SVM's codes fit but those of requests by encrypted guests, which would take others' places, and
            // one that stands for an error, and is all ones.
            (sum <= 0xffff || sum == u64::MAX).then(|| (sum as u16, name.to_owned()))
        })
        .collect()
}

fn integer(text: &str) -> Option<u64> {
    let text = text.trim_matches(['(', ')', ' ']).trim_end_matches(['u', 'U', 'l', 'L']);
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse::<i64>().ok().map(|number| number as u64),
    }
}

fn state(number: u8) -> Option<VcpuState> {
    Some(match number {
        GUEST => VcpuState::Guest,
        KERNEL => VcpuState::Kernel,
        USER => VcpuState::User,
        OUT => VcpuState::ScheduledOut,
        BLOCKED => VcpuState::Blocked,
        POLLED => VcpuState::Polled,
        EXIT => VcpuState::Exit,
        PLACE => VcpuState::Access,
        _ => return None,
    })
}

fn place(place: u64) -> String {
    match place & PORT {
        0 => format!("memory {:#x}", place << 12),
        _ => format!("port {:#x}", place & !PORT),
    }
}

/// How often, how long together (ns), and how often each duration.
type Sum = (u64, u64, Vec<(u16, u32)>);

/// Totals of virtual processors from the table of stages, by key; what they are in the midst of at the end of the
/// phase is added, and no durations for it.
pub(super) fn totals(
    found: impl Iterator<Item = (u64, Sum)>,
    unfinished: impl Iterator<Item = (u64, u64)>,
    reasons: &Reasons,
    places: &[u64],
) -> Vec<VcpuTotal> {
    let mut all: BTreeMap<u64, Sum> = found.collect();
    for (key, ns) in unfinished {
        all.entry(key).or_default().1 += ns;
    }
    all.into_iter()
        .filter_map(|(key, (count, total_ns, buckets))| {
            let ExitId { state: doing, number: vcpu, reason: number, .. } = ExitId::of_key(key);
            let state = state(doing)?;
            let reason = match state {
                VcpuState::Guest => String::new(),
                VcpuState::Access => places.get(usize::from(number)).map_or_else(String::new, |found| place(*found)),
                VcpuState::Kernel
                | VcpuState::User
                | VcpuState::ScheduledOut
                | VcpuState::Blocked
                | VcpuState::Polled
                | VcpuState::Exit => reasons.name(number),
            };
            let (holding, inside) = (key & HOLDING != 0, key & INSIDE != 0);
            Some(VcpuTotal { vcpu, state, reason, holding, inside, count, total_ns, buckets })
        })
        .collect()
}

/// What the virtual processors among these threads are in the midst of at the end of a phase: time by key.
pub(super) fn unfinished(threads: impl Iterator<Item = Thread>, phase: &Control) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for thread in threads.filter(|thread| thread.vcpu.number != 0) {
        let (vcpu, configuration) = (thread.vcpu, thread.configuration);
        // One that was not seen at all in this phase slept through it.
        let seen = vcpu.epoch == phase.epoch();
        let (state, since_ns) = if seen { (vcpu.state, vcpu.since_ns) } else { (BLOCKED, 0) };
        let since_ns = since_ns.max(phase.open_ns);
        if state != UNKNOWN && since_ns < phase.close_ns {
            let reason = if state == GUEST { 0 } else { vcpu.reason };
            let id = ExitId { configuration, state, number: vcpu.number - 1, reason };
            *times.entry(id.key()).or_default() += phase.close_ns - since_ns;
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use profiler_common::Turn;

    use super::*;

    const FORMAT: &str = r#"name: kvm_exit
print fmt: "vcpu %u reason %s%s%s rip 0x%lx", REC->vcpu_id, (REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 0, "EXCEPTION_NMI" }, { 12, "HLT" }) : __print_symbolic(REC->exit_reason, { 0x000, "read_cr0" }, { 0x040 + 6, "UD excp" }, { 0x078, "hlt" }, { 0x400, "npf" }, { 0x80000078, "vmgexit_x" }, { -1, "invalid_guest_state" }), (REC->isa == 1 && REC->exit_reason & ~0xffff) ? " " : "", __print_flags(REC->exit_reason & ~0xffff, " ", { 0x80000000, "FAILED_VMENTRY" })"#;

    #[test]
    fn reasons_have_the_kernels_names() {
        let svm = reasons(FORMAT, false);
        let named = |number| svm.get(&number).map(String::as_str);
        assert_eq!(named(0x78), Some("hlt"));
        assert_eq!(named(0x46), Some("UD excp"));
        assert_eq!(named(0x400), Some("npf"));
        assert_eq!(named(0xffff), Some("invalid_guest_state"));
        let vmx = reasons(FORMAT, true);
        assert_eq!(vmx.get(&12).map(String::as_str), Some("HLT"));
        assert_eq!(vmx.len(), 2);
        assert!(reasons("", true).is_empty());
        assert_eq!(Reasons::default().name(0x78), "0x78");
    }

    #[test]
    fn time_in_the_midst_of_something_is_added() {
        let phase = Control { turn: Turn::new(2, 0), open_ns: 100, close_ns: 200, ..Control::default() };
        let thread = |epoch, state, since_ns| Thread {
            vcpu: profiler_common::Vcpu { number: 1, epoch, state, since_ns, reason: 0x78, ..Default::default() },
            ..Thread::default()
        };
        let threads = [thread(2, GUEST, 150), thread(2, KERNEL, 0), thread(1, USER, 0), thread(2, UNKNOWN, 0)];
        let times = unfinished(threads.into_iter(), &phase);
        let shown = totals(std::iter::empty(), times.into_iter(), &Reasons(reasons(FORMAT, false)), &[]);
        let shown: Vec<_> = shown.iter().map(|total| (total.state, total.reason.as_str(), total.total_ns)).collect();
        assert_eq!(
            shown,
            [(VcpuState::Guest, "", 50), (VcpuState::Kernel, "hlt", 100), (VcpuState::Blocked, "hlt", 100)]
        );
    }

    #[test]
    fn places_are_ports_or_pages() {
        assert_eq!(place(PORT | 0x3f8), "port 0x3f8");
        assert_eq!(place(0xfee00), "memory 0xfee00000");
    }
}
