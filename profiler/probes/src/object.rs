//! Loading the probes, choosing among their alternatives by trying, attaching and detaching them.

use std::{
    any::Any,
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    time::Duration,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData, RingBuf},
    programs::{Program, ProgramError},
};
use aya_log::EbpfLogger;
use profiler_common::{
    CALL_CONTROL, CALL_FILE, CALL_POLL, CALL_REAP, CALL_RECEIVE, CALL_RING, CALL_SEND, CALL_SUBMIT, Control, Counter,
    Turn, border_key,
};

use super::{
    Limits, Offsets, Options,
    followed::{Block, Border, Window},
    layouts::Records,
    mapped::Mapped,
    stacked,
    table::{Table, keyed_mut, typed, unusable},
    tables::{BORDERS, CALL_KINDS, CONTROL, EVENT_RING, RECORD_RING, ROLES, Tables, check_tables},
    tracefs,
    vcpus::Reasons,
};
use crate::artifact;
use virtax_model::{
    counts::PhaseKind,
    error::{Error, Result},
    points::{Alternative, Hook, PROBES, Probe},
};

/// A set of attached probes; dropping it detaches them and leaves them loaded.
pub struct Attached(#[expect(dead_code, reason = "held for its drop")] pub(super) Vec<Box<dyn Any>>);

/// The probes in the kernel.
pub struct Loaded {
    pub(super) bpf: Ebpf,
    /// For each probe that loaded: its alternative.
    chosen: Vec<(&'static Probe, Alternative)>,
    pub(super) control: Mapped<CONTROL>,
    pub(super) tables: Tables,
    pub(super) ring: RingBuf<MapData>,
    pub(super) events: RingBuf<MapData>,
    logger: Option<EbpfLogger<FaultNames>>,
    records: Records,
    pub(super) limits: Limits,
    pub(super) reasons: Reasons,
    /// See [`Options::files`].
    pub(super) of_files: bool,
    /// Number of the last phase.
    epoch: u16,
}

/// System calls that send, receive, wait for readiness, or ask KVM, by the numbers of this architecture.
const CALLS: &[(libc::c_long, u32)] = &[
    (libc::SYS_ioctl, CALL_CONTROL),
    (libc::SYS_pread64, CALL_FILE),
    (libc::SYS_pwrite64, CALL_FILE),
    (libc::SYS_preadv, CALL_FILE),
    (libc::SYS_pwritev, CALL_FILE),
    (libc::SYS_preadv2, CALL_FILE),
    (libc::SYS_pwritev2, CALL_FILE),
    (libc::SYS_fsync, CALL_FILE),
    (libc::SYS_fdatasync, CALL_FILE),
    (libc::SYS_sync_file_range, CALL_FILE),
    // Of all that open files, only the workload that measures this does it by this call.
    (libc::SYS_openat2, CALL_FILE),
    (libc::SYS_io_submit, CALL_SUBMIT),
    (libc::SYS_io_getevents, CALL_REAP),
    (libc::SYS_io_uring_enter, CALL_RING),
    (libc::SYS_write, CALL_SEND),
    (libc::SYS_writev, CALL_SEND),
    (libc::SYS_sendto, CALL_SEND),
    (libc::SYS_sendmsg, CALL_SEND),
    (libc::SYS_sendmmsg, CALL_SEND),
    (libc::SYS_read, CALL_RECEIVE),
    (libc::SYS_readv, CALL_RECEIVE),
    (libc::SYS_recvfrom, CALL_RECEIVE),
    (libc::SYS_recvmsg, CALL_RECEIVE),
    (libc::SYS_recvmmsg, CALL_RECEIVE),
    (libc::SYS_epoll_pwait, CALL_POLL),
    (libc::SYS_epoll_pwait2, CALL_POLL),
    (libc::SYS_ppoll, CALL_POLL),
    (libc::SYS_pselect6, CALL_POLL),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, CALL_POLL),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, CALL_POLL),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, CALL_POLL),
];

const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

fn kernel_types() -> Result<Btf> {
    Btf::from_sys_fs().map_err(|error| {
        Error::unsupported("cannot read the kernel's BTF", error, "use a kernel with CONFIG_DEBUG_INFO_BTF")
    })
}

fn open_object(offsets: &Offsets, records: &Records, options: &Options, types: &Btf) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for (symbol, offset) in &records.offsets {
        loader.override_global(symbol, offset, true);
    }
    loader.btf(Some(types));
    for (symbol, offset) in offsets.iter() {
        loader.override_global(symbol, offset, true);
    }
    let debug = u32::from(options.debug);
    loader.override_global("DEBUG_PROBES", &debug, true);
    let stacked = u32::from(stacked::any());
    loader.override_global("STACKED", &stacked, true);
    loader.override_global("RECORD_LIMIT", &options.limits.record_points, true);
    let masks = options.limits.masks();
    for (symbol, mask) in &masks {
        loader.override_global(symbol, mask, true);
    }
    for (name, entries) in options.limits.maps() {
        loader.map_max_entries(name, entries);
    }
    loader.load(artifact::probes()?).map_err(|error| {
        Error::unsupported(
            "cannot create the probes' maps",
            error,
            "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        )
    })
}

fn load_program(program: &mut Program, hook: Hook, types: &Btf) -> std::result::Result<(), ProgramError> {
    match (program, hook) {
        (Program::BtfTracePoint(program), Hook::TypedTracepoint(name)) => program.load(name, types),
        (Program::RawTracePoint(program), Hook::RawTracepoint(_)) => program.load(),
        (Program::TracePoint(program), Hook::Tracepoint { .. }) => program.load(),
        (Program::FEntry(program), Hook::Fentry(function)) => program.load(function, types),
        (Program::FExit(program), Hook::Fexit(function)) => program.load(function, types),
        (Program::KProbe(program), Hook::Kprobe(_) | Hook::KretprobePair { .. }) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_program(
    program: &mut Program,
    hook: Hook,
    records: &Records,
) -> std::result::Result<Box<dyn Any>, Box<dyn std::error::Error>> {
    Ok(match (program, hook) {
        (Program::TracePoint(program), Hook::Tracepoint { event, fields }) => {
            // By its number: aya looks for the number where tracefs is mounted only.
            Box::new(tracefs::attach(records.number(event, fields)?, program.fd()?.as_fd().as_raw_fd())?)
        }
        (Program::BtfTracePoint(program), _) => {
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        (Program::RawTracePoint(program), Hook::RawTracepoint(name)) => {
            let link = program.attach(name)?;
            Box::new(program.take_link(link)?)
        }
        (Program::FEntry(program), _) => {
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        (Program::FExit(program), _) => {
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        (Program::KProbe(program), Hook::Kprobe(function) | Hook::KretprobePair { function, .. }) => {
            let link = program.attach(function, 0)?;
            Box::new(program.take_link(link)?)
        }
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    })
}

/// Loads one alternative (and, of a kretprobe, the program at the entry).
fn load_alternative(
    bpf: &mut Ebpf,
    alternative: &Alternative,
    types: &Btf,
    records: &Records,
) -> std::result::Result<(), String> {
    if let Hook::Tracepoint { event, fields } = alternative.hook {
        records.number(event, fields)?;
    }
    if matches!(alternative.hook, Hook::Kprobe(_) | Hook::KretprobePair { .. }) && !Path::new(KPROBES).exists() {
        // Their programs load everywhere; what is missing shows only when they are attached.
        return Err(format!("the kernel has no kprobes ({KPROBES} is missing)"));
    }
    let mut names = vec![(alternative.program, alternative.hook)];
    names.extend(alternative.plain.map(|plain| (plain, alternative.hook)));
    if let Hook::KretprobePair { function, entry } = alternative.hook {
        names.push((entry, Hook::Kprobe(function)));
    }
    for (name, hook) in names {
        let program = bpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
        load_program(program, hook, types).map_err(|error| reason(&error))?;
        if let (Program::RawTracePoint(program), Hook::RawTracepoint(tracepoint)) = (program, hook)
            && !records.all.contains(tracepoint)
        {
            // It loads everywhere: whether the kernel has a tracepoint that is no event shows when it is attached.
            let link = program.attach(tracepoint).map_err(|error| reason(&error))?;
            program.detach(link).map_err(|error| reason(&error))?;
        }
    }
    Ok(())
}

/// An error with its causes in one line; a verifier's log is cut to its end, where the reason stands.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = line.chars().count().saturating_sub(300);
    if skipped == 0 { line } else { format!("… {}", line.chars().skip(skipped).collect::<String>()) }
}

/// Faults come from the kernel as "tracepoint: fault N"; a person reads names.
struct FaultNames;

impl log::Log for FaultNames {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        log::warn!("probe {}", name_fault(&record.args().to_string()));
    }
    fn flush(&self) {}
}

fn name_fault(line: &str) -> String {
    let named = line.rsplit_once("fault ").and_then(|(start, number)| {
        let counter = Counter::ALL.get(number.trim().parse::<usize>().ok()?)?;
        Some(format!("{start}{}", counter.name()))
    });
    named.unwrap_or_else(|| line.to_owned())
}

/// Waits until no program runs that was begun before: programs run inside RCU's read sections, and this barrier waits
/// for those (membarrier(2)). One that was interrupted half-way, by the hypervisor say, has taken a token from one
/// holder and not given it to the next: who counts tokens then misses it.
fn settle() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers. Where the kernel lacks it, the time that reading takes has to do.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

impl Loaded {
    /// Loads the probes; nothing is attached yet.
    ///
    /// # Errors
    /// If the kernel refuses a probe that nothing works without.
    pub fn new(offsets: &Offsets, options: &Options) -> Result<Self> {
        let types = kernel_types()?;
        let records = Records::of_running_kernel();
        let mut bpf = open_object(offsets, &records, options, &types)?;
        let mut chosen = Vec::new();
        for probe in PROBES.iter().filter(|probe| options.wants(probe.set)) {
            let mut refusals = Vec::new();
            let found = options.preference.order(probe.alternatives).into_iter().find(|alternative| {
                load_alternative(&mut bpf, alternative, &types, &records)
                    .map_err(|why| refusals.push(format!("{}: {why}", alternative.program)))
                    .is_ok()
            });
            match (found, probe.without) {
                (Some(alternative), _) => chosen.push((probe, *alternative)),
                (None, Some(consequence)) => log::warn!("no probe for {}: {consequence}", probe.name),
                (None, None) => {
                    return Err(Error::unsupported(
                        format!("no way to see the point `{}`", probe.name),
                        refusals.join("; "),
                        "see `virtax doctor`",
                    ));
                }
            }
        }
        Self::load_sampler(&mut bpf)?;
        let reasons = if options.vms { Reasons::of_running_kernel() } else { Reasons::default() };
        check_tables(&bpf)?;
        let control = Mapped::open(&bpf)?;
        let tables = Tables::new(&bpf)?;
        let ring = typed(bpf.take_map(RECORD_RING))?;
        let events = typed(bpf.take_map(EVENT_RING))?;
        let mut loaded = Self {
            bpf,
            chosen,
            control,
            tables,
            ring,
            events,
            logger: None,
            records,
            limits: options.limits,
            reasons,
            of_files: options.files,
            epoch: 0,
        };
        loaded.name_calls()?;
        if options.debug {
            loaded.logger = EbpfLogger::init_with_logger(&mut loaded.bpf, FaultNames)
                .map_err(|error| log::warn!("faults of the probes cannot be shown: {error}"))
                .ok();
        }
        Ok(loaded)
    }

    fn name_calls(&mut self) -> Result<()> {
        let mut kinds: Array<&mut MapData, u32> = typed(self.bpf.map_mut(CALL_KINDS::NAME))?;
        for (call, kind) in CALLS {
            kinds.set(*call as u32, kind, 0).map_err(unusable)?;
        }
        Ok(())
    }

    /// The number of the next phase, before anything is attached for it. Tokens of an earlier one are void, whoever
    /// made them: no number comes twice, unless everything has been forgotten.
    pub(super) fn next_epoch(&mut self) -> Result<u16> {
        if self.epoch >= self.limits.phases {
            self.forget_all()?;
            self.epoch = 0;
        }
        self.epoch += 1;
        Ok(self.epoch)
    }

    /// The probe and program of everything that loaded.
    pub fn chosen(&self) -> impl Iterator<Item = (&'static Probe, &Alternative)> {
        self.chosen.iter().map(|(probe, alternative)| (*probe, alternative))
    }

    /// Attaches the probes of a kind of phase.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn attach(&mut self, kind: PhaseKind) -> Result<Attached> {
        let mut links = Vec::new();
        for (probe, alternative) in self.chosen.clone() {
            if !probe.set.is_attached_in(kind) {
                continue;
            }
            if let Hook::KretprobePair { function, entry } = alternative.hook {
                links.push(self.attach_one(entry, Hook::Kprobe(function))?);
            }
            links.push(self.attach_one(alternative.program_in(kind), alternative.hook)?);
        }
        Ok(Attached(links))
    }

    /// Attaches one probe alone, as in traced phases.
    ///
    /// # Errors
    /// If it did not load, or the kernel refuses it.
    pub fn attach_probe(&mut self, name: &str) -> Result<Attached> {
        let (_, alternative) =
            *self.chosen.iter().find(|(probe, _)| probe.name == name).ok_or_else(|| {
                Error::unsupported(format!("no probe {name}"), "it did not load", "see `virtax doctor`")
            })?;
        Ok(Attached(vec![self.attach_one(alternative.program_in(PhaseKind::Traced), alternative.hook)?]))
    }

    fn attach_one(&mut self, name: &str, hook: Hook) -> Result<Box<dyn Any>> {
        let refuse = |why: String| Error::unsupported(format!("cannot attach {name}"), why, "see `virtax doctor`");
        let program = self.bpf.program_mut(name).ok_or_else(|| refuse("no such program".to_owned()))?;
        attach_program(program, hook, &self.records).map_err(|error| refuse(reason(error.as_ref())))
    }

    /// Tells the probes what to do from now on.
    pub fn control(&self, control: Control) {
        // The state goes last: programs look at it first, and must then find the rest in place.
        self.control.set(0, Control { state: profiler_common::OFF, ..control });
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.control.set(0, control);
    }

    /// Nothing is followed from now on. The rest stays as it is: a program that is running still looks at it.
    pub fn stop(&self) {
        let control = self.control.get(0).unwrap_or_default();
        self.control.set(0, Control { state: profiler_common::OFF, ..control });
        settle();
    }

    /// Sets the recorded interval of a phase that is followed already, without a moment in which it is not, and whose
    /// it is.
    pub(super) fn record(&self, window: Window) {
        let mut control = self.control.get(0).unwrap_or_default();
        control.turn = Turn::new(self.epoch, window.configuration.number());
        // The end first: nothing is recorded before both stand.
        control.close_ns = window.close_ns;
        self.control.set(0, control);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        control.open_ns = window.open_ns;
        self.control.set(0, control);
    }

    /// Kernel memory of this process's tables, bytes, by the kernel's own account (`/proc/self/fdinfo`).
    #[must_use]
    pub fn memory_bytes() -> u64 {
        let open = std::fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
        open.filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok().filter(|text| text.contains("map_type:"))?;
            text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok())
        })
        .sum()
    }

    /// What to follow from now on. Devices that the probes have met already are told as well what they are.
    ///
    /// # Errors
    /// If the tables were made for fewer configurations, or one is full.
    pub(super) fn follow(&mut self, block: &Block) -> Result<()> {
        if block.configurations().count() > self.limits.configurations as usize {
            let room = self.limits.configurations;
            return Err(unusable(format!("they have room for {room} configurations at once, and not for more")));
        }
        let mut roles = keyed_mut::<ROLES>(&mut self.bpf)?;
        for (configuration, followed) in block.followed() {
            for task in &followed.tasks {
                let (role, port) = (task.role.number(), task.port.unwrap_or(0));
                let value = profiler_common::Followed { role, configuration: configuration.number(), port };
                roles.insert(task.id, value, 0).map_err(unusable)?;
            }
        }
        let mut borders = keyed_mut::<BORDERS>(&mut self.bpf)?;
        let all: Vec<&Border> = block.followed().flat_map(|(_, followed)| &followed.borders).collect();
        for border in &all {
            borders.insert(border.key(), border.kind.raw(), 0).map_err(unusable)?;
        }
        let of_device = |device: &profiler_common::Device| {
            let of = |border: &&&Border| border.key() == border_key(device.namespace, device.ifindex);
            all.iter().find(of).map_or_else(profiler_common::Border::default, |border| border.kind.raw())
        };
        for index in 0..self.tables.devices.len() {
            if let Some(mut device) = self.tables.devices.get(index).filter(|device| device.key != 0) {
                device.border = of_device(&device);
                self.tables.devices.set(index, device);
            }
        }
        Ok(())
    }

    /// Whether the ring buffers are read while a phase lasts.
    #[must_use]
    pub const fn reads_meanwhile(&self) -> bool {
        self.limits.reader != 0
    }

    /// Prints what the probes reported under `--debug-probes`.
    pub fn show_faults(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Runs and time, by probe, of every program that is attached in phases of a kind, while the kernel keeps
    /// run-time statistics.
    #[allow(clippy::wildcard_enum_match_arm, reason = "an enum of another crate's")]
    pub fn run_times(&self, kind: PhaseKind) -> BTreeMap<&'static str, (u64, Duration)> {
        self.chosen
            .iter()
            .filter_map(|(probe, alternative)| {
                let info = match self.bpf.program(alternative.program_in(kind))? {
                    Program::BtfTracePoint(program) => program.info(),
                    Program::RawTracePoint(program) => program.info(),
                    Program::TracePoint(program) => program.info(),
                    Program::FEntry(program) => program.info(),
                    Program::FExit(program) => program.info(),
                    Program::KProbe(program) => program.info(),
                    _ => return None,
                };
                info.ok().map(|info| (probe.name, (info.run_count(), info.run_time())))
            })
            .collect()
    }
}

/// What one alternative of a probe did when it was tried.
pub struct Support {
    /// The probe.
    pub probe: &'static Probe,
    /// Each of its alternatives: loaded, or the kernel's reason.
    pub tried: Vec<(&'static Alternative, std::result::Result<(), String>)>,
}

/// Tries to load every alternative of every probe.
///
/// # Errors
/// If not even the maps can be created.
pub fn support() -> Result<Vec<Support>> {
    let offsets = Offsets::of_running_kernel()?;
    let types = kernel_types()?;
    let records = Records::of_running_kernel();
    let mut bpf = open_object(&offsets, &records, &Options::default(), &types)?;
    Ok(PROBES
        .iter()
        .map(|probe| Support {
            probe,
            tried: probe
                .alternatives
                .iter()
                .map(|alternative| (alternative, load_alternative(&mut bpf, alternative, &types, &records)))
                .collect(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_names() {
        let number = Counter::Drops as u32;
        assert_eq!(name_fault(&format!("kfree_skb: fault {number}")), "kfree_skb: drops");
        assert_eq!(name_fault("kfree_skb: fault 999"), "kfree_skb: fault 999");
        assert_eq!(name_fault("something else"), "something else");
    }
}
