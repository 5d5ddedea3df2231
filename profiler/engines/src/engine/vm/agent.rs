//! The host's side of the agent in a guest. A guest that is silent, broken or hostile costs what would have been
//! known of its inside, and nothing else.

use std::{
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use workloads::{clock::now_ns, init::AGENT_ENDED};

use virtax_agent::wire::{self, Reply, Request, VERSION};
use virtax_model::{
    counts::{Costs, OtherSide, PhaseKind},
    profile::Profile,
};
use virtax_probes::interrupt;

/// How long an agent may take to load its probes or to name functions, and otherwise to attach and read: an emulated
/// processor is slow.
const PATIENCE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(8)];
/// How often an agent is asked for its clock before a phase.
const CLOCK_QUESTIONS: u32 = 3;
/// How often, meanwhile, it is looked whether the user wants an end.
const LOOK: Duration = Duration::from_millis(50);

/// An agent, as long as it does what it should.
pub struct Agent {
    host: UnixStream,
    /// What it has said and nobody has read.
    heard: Vec<u8>,
    console: PathBuf,
    patience: Duration,
    /// Why it is not listened to any more.
    broken: Option<String>,
    /// Whether a phase is under way in the guest.
    under_way: bool,
    kernel: String,
    lacks: Vec<String>,
}

/// Both ends of the port: the host's, and the one that QEMU is to have open.
///
/// # Errors
/// If the kernel has no descriptors left.
pub fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (host, vm) = UnixStream::pair()?;
    Ok((host, vm.into()))
}

/// QEMU's words for a VM that has the port behind a descriptor.
pub fn arguments(descriptor: &OwnedFd, bus: &str) -> [(&'static str, String); 3] {
    [
        ("-device", format!("virtio-serial-{bus}")),
        ("-chardev", format!("socket,id=agent,fd={}", descriptor.as_raw_fd())),
        ("-device", format!("virtserialport,chardev=agent,name={}", wire::PORT)),
    ]
}

impl Agent {
    /// Waits until it answers. `console`: where the guest's first process says that it never will.
    ///
    /// # Errors
    /// If its stream cannot be used at all.
    pub fn greet(host: UnixStream, console: &Path) -> io::Result<Self> {
        host.set_read_timeout(Some(LOOK))?;
        host.set_write_timeout(Some(PATIENCE[1]))?;
        let (heard, kernel, lacks) = (Vec::new(), String::new(), Vec::new());
        let console = console.to_owned();
        let mut agent =
            Self { host, heard, console, patience: PATIENCE[0], broken: None, under_way: false, kernel, lacks };
        match agent.ask(&Request::Hello { version: VERSION }) {
            Some(Reply::Hello { version: VERSION, release, lacks }) => {
                agent.kernel = release;
                agent.lacks = lacks;
            }
            Some(Reply::Hello { version, .. }) => agent.give_up(format!("it speaks version {version}, not {VERSION}")),
            other => agent.refuse(other),
        }
        agent.patience = PATIENCE[1];
        Ok(agent)
    }

    /// Why the guest's inside is not known, or what of it is not.
    pub fn state(&self) -> String {
        match (&self.broken, self.lacks.as_slice()) {
            (Some(why), _) => format!("none: {why}"),
            (None, []) => format!("on {}", self.kernel),
            (None, lacks) => format!("on {}, without {}", self.kernel, lacks.join(", ")),
        }
    }

    /// Follows requests in the guest from now on.
    pub fn begin(&mut self, kind: PhaseKind, connections: u32, rate_hz: u32, wait_every: u32) {
        match self.ask(&Request::Begin { kind, connections, rate_hz, wait_every }) {
            Some(Reply::Begun) => self.under_way = true,
            other => self.refuse(other),
        }
    }

    /// What is to be added to the host's clock for the guest's, ns: by the question that was answered fastest. It is
    /// off by less than that took. `None`: it does not say.
    pub fn clock_shift_ns(&mut self) -> Option<i64> {
        let mut fastest: Option<(u64, i64)> = None;
        for _ in 0..CLOCK_QUESTIONS {
            let asked_ns = now_ns();
            let Some(Reply::Clock { now_ns: shown_ns }) = self.ask(&Request::Clock) else { break };
            let (took_ns, middle_ns) = (now_ns() - asked_ns, asked_ns.midpoint(now_ns()));
            if fastest.is_none_or(|(fastest_ns, _)| took_ns < fastest_ns) {
                fastest = Some((took_ns, shown_ns.wrapping_sub(middle_ns) as i64));
            }
        }
        fastest.map(|(_, shift_ns)| shift_ns)
    }

    /// Tells it when the phase lies: from now, or at a time of its own clock.
    pub fn record(&mut self, in_ns: u64, at_ns: Option<u64>, length_ns: u64) {
        if self.under_way
            && let Err(error) = wire::say(&mut self.host, &Request::Record { in_ns, at_ns, length_ns })
        {
            self.give_up(error.to_string());
        }
    }

    /// What it counted; `None`: nothing, or nothing that can be used.
    pub fn end(&mut self) -> Option<OtherSide> {
        if !std::mem::take(&mut self.under_way) {
            return None;
        }
        match self.ask(&Request::End) {
            Some(Reply::Counted(counts)) => Some(*counts),
            other => {
                self.refuse(other);
                None
            }
        }
    }

    /// What its probes cost; `None`: that is not known.
    pub fn costs(&mut self, connections: u32) -> Option<Costs> {
        let patience = std::mem::replace(&mut self.patience, PATIENCE[0]);
        let answer = self.ask(&Request::Costs { connections });
        self.patience = patience;
        match answer {
            Some(Reply::Costs(costs)) => Some(costs),
            // All else that it does may still be right.
            Some(Reply::Failed { why }) => {
                log::warn!("what the probes in the guest cost is not known: {why}");
                None
            }
            other => {
                self.refuse(other);
                None
            }
        }
    }

    /// What its sampled phases saw; `None`: nothing, or nothing that can be used.
    pub fn profile(&mut self) -> Option<Profile> {
        self.patience = PATIENCE[0];
        match self.ask(&Request::Profile) {
            Some(Reply::Profiled(profile)) => Some(*profile),
            other => {
                self.refuse(other);
                None
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Option<Reply> {
        if self.broken.is_some() {
            return None;
        }
        let answer = wire::say(&mut self.host, request).and_then(|()| self.hear());
        answer.map_err(|error| self.give_up(error.to_string())).ok()
    }

    /// The next line.
    fn hear(&mut self) -> io::Result<Reply> {
        let deadline = Instant::now() + self.patience;
        let mut bytes = [0; 16384];
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return wire::understand(&line);
            }
            if self.heard.len() > wire::LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            interrupt::check().map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
            match self.host.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.heard.extend(&bytes[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.look_at_console()?;
                }
                Err(error) => return Err(error),
            }
            if Instant::now() > deadline {
                let why = format!("it has not answered for {} s", self.patience.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }

    /// # Errors
    /// If the console says that the agent has ended.
    fn look_at_console(&self) -> io::Result<()> {
        let console = std::fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let Some((_, rest)) = console.split_once(AGENT_ENDED) else { return Ok(()) };
        let words: String =
            rest.lines().next().unwrap_or_default().chars().filter(|letter| !letter.is_control()).collect();
        Err(io::Error::new(io::ErrorKind::BrokenPipe, format!("the agent has ended: {}", words.trim())))
    }

    fn refuse(&mut self, answer: Option<Reply>) {
        match answer {
            Some(Reply::Failed { why }) => self.give_up(why),
            Some(_) => self.give_up("it does not answer what it is asked".to_owned()),
            None => {}
        }
    }

    fn give_up(&mut self, why: String) {
        self.under_way = false;
        if self.broken.is_none() && interrupt::check().is_ok() {
            log::warn!("nothing is known of the guest's inside: {why}");
        }
        if self.broken.is_none() {
            self.broken = Some(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An agent in a guest that says this and no more, and the guest's end.
    fn hearing(said: &[u8]) -> (Agent, UnixStream) {
        let (host, guest) = UnixStream::pair().unwrap();
        let mut guest_end = guest.try_clone().unwrap();
        guest_end.write_all(said).unwrap();
        guest.shutdown(std::net::Shutdown::Write).unwrap();
        (Agent::greet(host, Path::new("/nonexistent/console")).unwrap(), guest)
    }

    fn hello(version: u32) -> String {
        format!("{{\"say\":\"hello\",\"version\":{version},\"release\":\"6.1\",\"lacks\":[]}}\n")
    }

    #[test]
    fn an_agent_that_has_ended_is_not_waited_for() {
        let (host, _guest) = UnixStream::pair().unwrap();
        let console = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(console.path(), format!("virtax-ready 6.1\n{AGENT_ENDED} exit status: 3\r\n")).unwrap();
        let began = Instant::now();
        let agent = Agent::greet(host, console.path()).unwrap();
        assert_eq!(agent.state(), "none: the agent has ended: exit status: 3");
        assert!(began.elapsed() < PATIENCE[1]);
    }

    #[test]
    fn a_guest_that_says_nonsense_is_not_listened_to() {
        let (mut good, _guest) = hearing(format!("{}{{\"say\":\"begun\"}}\n", hello(VERSION)).as_bytes());
        assert_eq!(good.state(), "on 6.1");
        good.begin(PhaseKind::Traced, 1, 0, 0);
        assert!(good.under_way);
        // It ends in the midst of a phase.
        assert_eq!(good.end(), None);
        assert!(good.state().starts_with("none: "), "{}", good.state());
        for bad in
            ["", "{\"say\":\"begun\"}\n", "garbage\n", "{\"say\":\"failed\",\"why\":\"no BTF\"}\n", &hello(VERSION + 1)]
        {
            let (mut agent, _guest) = hearing(bad.as_bytes());
            assert!(agent.state().starts_with("none: "), "{bad}: {}", agent.state());
            agent.begin(PhaseKind::Traced, 1, 0, 0);
            agent.record(1, None, 1);
            assert_eq!(agent.end(), None);
        }
    }
}
