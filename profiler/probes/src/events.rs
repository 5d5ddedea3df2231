//! The sampler, and the stacks that it and the scheduler's points leave behind.

use aya::{
    maps::{MapData, RingBuf},
    programs::{
        PerfEvent, Program,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
};
use profiler_common::{Event, EventHead, FRAMES};

use super::object::{Attached, Loaded};
use virtax_model::error::{Error, Result};

const PROGRAM: &str = "sample";

/// What happened, and its stacks: innermost frame first, empty where none was taken.
#[derive(Debug, Clone)]
pub struct RawEvent {
    /// What it is, see [`profiler_common::event`].
    pub head: EventHead,
    /// Addresses in the kernel.
    pub kernel: Vec<u64>,
    /// Addresses in the process.
    pub user: Vec<u64>,
}

/// The frames of a stack, of which the kernel says how many bytes it has; an error of the kernel's is an empty one.
fn frames(bytes: &[u8], length: i32) -> Vec<u64> {
    let length = usize::try_from(length).unwrap_or(0).min(FRAMES * size_of::<u64>());
    bytes[..length.min(bytes.len())]
        .chunks_exact(size_of::<u64>())
        .map(|word| u64::from_ne_bytes(word.try_into().expect("chunks of eight bytes")))
        .filter(|address| *address != 0)
        .collect()
}

impl RawEvent {
    /// Reads what [`Event`] or [`EventHead`] lays out; `None` if the bytes have another length.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<EventHead>() && bytes.len() != size_of::<Event>() {
            return None;
        }
        // SAFETY: there are enough bytes, any of which make a head; its alignment is not assumed.
        let head = unsafe { bytes.as_ptr().cast::<EventHead>().read_unaligned() };
        let (mut kernel, mut user) = (Vec::new(), Vec::new());
        if bytes.len() == size_of::<Event>() {
            kernel = frames(&bytes[std::mem::offset_of!(Event, kernel)..], head.kernel_bytes);
            user = frames(&bytes[std::mem::offset_of!(Event, user)..], head.user_bytes);
        }
        Some(Self { head, kernel, user })
    }
}

impl Loaded {
    /// Loads the sampler.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn load_sampler(bpf: &mut aya::Ebpf) -> Result<()> {
        sampler(bpf)?.load().map_err(|error| refuse(&error))
    }

    /// Starts a timer of `rate_hz` on each of these CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach_sampler(&mut self, cpus: &[usize], rate_hz: u32) -> Result<Attached> {
        let program = sampler(&mut self.bpf)?;
        let mut links: Vec<Box<dyn std::any::Any>> = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let link = program
                .attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu: *cpu as u32 },
                    SamplePolicy::Period(1_000_000_000 / u64::from(rate_hz.max(1))),
                    false,
                )
                .and_then(|link| program.take_link(link))
                .map_err(|error| refuse(&error))?;
            links.push(Box::new(link));
        }
        Ok(Attached(links))
    }

    /// All events that wait in the ring buffer; returns how many were unreadable.
    #[must_use]
    pub fn take_events(&mut self, into: &mut Vec<RawEvent>) -> u64 {
        take(&mut self.events, into)
    }
}

fn take(ring: &mut RingBuf<MapData>, into: &mut Vec<RawEvent>) -> u64 {
    let mut unreadable = 0;
    while let Some(item) = ring.next() {
        match RawEvent::parse(&item) {
            Some(event) => into.push(event),
            None => unreadable += 1,
        }
    }
    unreadable
}

fn sampler(bpf: &mut aya::Ebpf) -> Result<&mut PerfEvent> {
    match bpf.program_mut(PROGRAM) {
        Some(Program::PerfEvent(program)) => Ok(program),
        _ => Err(refuse(&"the object has no such program")),
    }
}

fn refuse(why: &dyn std::fmt::Display) -> Error {
    Error::unsupported("cannot sample stacks", why, "run with CAP_PERFMON, or without: `--sample-rate 0`")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = RawEvent::parse(&bytes);
        }

        #[test]
        fn any_bytes_of_an_event_are_one(bytes in prop::collection::vec(any::<u8>(), size_of::<Event>())) {
            let event = RawEvent::parse(&bytes).unwrap();
            prop_assert!(event.kernel.len() <= FRAMES && event.user.len() <= FRAMES);
        }
    }

    #[test]
    fn stacks_end_where_the_kernel_says() {
        let mut bytes = vec![0u8; size_of::<Event>()];
        let kernel = std::mem::offset_of!(Event, kernel);
        for (index, address) in [7u64, 8, 9].iter().enumerate() {
            bytes[kernel + 8 * index..kernel + 8 * index + 8].copy_from_slice(&address.to_ne_bytes());
        }
        let length = std::mem::offset_of!(EventHead, kernel_bytes);
        bytes[length..length + 4].copy_from_slice(&16i32.to_ne_bytes());
        let event = RawEvent::parse(&bytes).unwrap();
        assert_eq!((event.kernel, event.user), (vec![7, 8], vec![]));
        bytes[length..length + 4].copy_from_slice(&(-14i32).to_ne_bytes());
        assert!(RawEvent::parse(&bytes).unwrap().kernel.is_empty());
    }
}
