//! VMs through libvirt: by a program of its own, `virtax-libvirt`, so that virtax starts where there is no
//! libvirt.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use crate::{
    artifact,
    child::{self, ChildLease, NOBODY},
    engine::{Bench, last_lines_of},
    ledger::{Item, Lease},
};
use virtax_model::error::{Error, Result};
use virtax_probes::{interrupt, process};

/// libvirt's QEMU driver within the program that speaks to it: no daemon.
pub const EMBEDDED: &str = "qemu:///embed";
/// The word for QEMU without libvirt.
pub const NONE: &str = "none";

/// Debian's packages of the library and of the driver.
pub const PACKAGES: &str = "libvirt0 and libvirt-daemon-driver-qemu";

/// Whether its driver for QEMU is where distributions install it, and this virtax was built with a way to it.
#[must_use]
pub fn is_installed() -> bool {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [multiarch.as_str(), "/usr/lib64", "/usr/lib"].map(Path::new);
    let driver = "libvirt/connection-driver/libvirt_driver_qemu.so";
    artifact::libvirt().is_ok() && folders.iter().any(|folder| folder.join(driver).exists())
}

/// How long libvirt may take: it asks every QEMU that it meets for the first time what that can do.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often, meanwhile, it is looked whether the user wants an end.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take to end a VM.
const TO_END: Duration = Duration::from_secs(10);

/// What an embedded driver is told: it is nobody, so it has no right to anything but to execute QEMU.
const SETTINGS: &str = "# virtax's, for one run.
security_driver = \"none\"
cgroup_controllers = [ ]
namespaces = [ ]
seccomp_sandbox = 0
stdio_handler = \"file\"
";

/// A libvirt that answers.
#[derive(Debug)]
pub struct Libvirt {
    program: PathBuf,
    uri: String,
    /// The folder of an embedded driver.
    root: Option<PathBuf>,
    /// Version of libvirt.
    pub version: String,
}

impl Libvirt {
    /// Finds the one at this address; `folder`: where its program and its files are to lie.
    ///
    /// # Errors
    /// If it does not answer, with its own words.
    pub fn find(bench: &Bench, folder: &Path, uri: &str) -> Result<Self> {
        let program = folder.join("virtax-libvirt");
        fs::write(&program, artifact::libvirt()?)
            .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
            .map_err(|error| Error::file("write", &program, error))?;
        let mut found = Self { program, uri: uri.to_owned(), root: None, version: String::new() };
        if uri == EMBEDDED {
            let root = folder.join("libvirt");
            let settings = root.join("etc/qemu.conf");
            fs::create_dir_all(root.join("etc"))
                .and_then(|()| fs::write(&settings, SETTINGS))
                .and_then(|()| chown(&root, Some(NOBODY), Some(NOBODY)))
                .map_err(|error| Error::file("write", &settings, error))?;
            found.uri = format!("{uri}?root={}", root.display());
            found.root = Some(root);
        }
        let mut speaker = Speaker::start(&found, bench, None)?;
        found.version = speaker.version.clone();
        speaker.end();
        Ok(found)
    }

    /// Name of libvirt and its version, for the result.
    #[must_use]
    pub fn name(&self) -> String {
        let uri = if self.root.is_some() { EMBEDDED } else { self.uri.as_str() };
        format!("libvirt {}, {uri}", self.version)
    }

    /// Who executes QEMU, as far as that is known.
    #[must_use]
    pub fn user(&self) -> libc::uid_t {
        if self.root.is_some() { NOBODY } else { 0 }
    }

    /// Creates a VM, whose guest does not run yet. `name`: the domain's, no other has it. `group`: one that QEMU
    /// has to belong to.
    ///
    /// # Errors
    /// If libvirt refuses, with its own words.
    pub fn create(&self, bench: &Bench, name: &str, xml: &str, group: Option<libc::gid_t>) -> Result<Domain> {
        // Noted before anybody can make it: QEMU does not end with who has started it. Later than that, so removed
        // after it.
        let lease = bench.ledger.note(Item::Machine { name: name.to_owned() })?;
        let mut speaker = Speaker::start(self, bench, group)?;
        speaker.tell(xml.as_bytes())?;
        speaker.tell(&[0])?;
        speaker.expect("created")?;
        let pid = process::qemu(name)
            .ok_or_else(|| speaker.refuse("it says that the machine is there, but no process is"))?;
        let started = process::started(pid).ok_or_else(|| speaker.refuse("the machine has ended"))?;
        Ok(Domain { speaker, pid, started, _lease: lease })
    }
}

/// A VM of libvirt's; dropping it ends it.
pub struct Domain {
    speaker: Speaker,
    pid: u32,
    started: u64,
    _lease: Lease,
}

impl Domain {
    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
    /// The guest runs from now on.
    ///
    /// # Errors
    /// If libvirt refuses.
    pub fn resume(&mut self) -> Result<()> {
        self.speaker.tell(b"r")?;
        self.speaker.expect("running")
    }
    /// Whether QEMU has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        process::started(self.pid) != Some(self.started)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.speaker.end();
        // libvirt has ended it, unless it was ended itself.
        if let Err(error) = process::kill(self.pid, self.started) {
            log::warn!("{error}");
        }
    }
}

/// The program that speaks to libvirt, as long as it runs.
struct Speaker {
    child: Child,
    _lease: ChildLease,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Where it writes why it cannot.
    complaints: PathBuf,
    uri: String,
    version: String,
    /// What to do if it refuses.
    remedy: String,
}

impl Speaker {
    fn start(libvirt: &Libvirt, bench: &Bench, group: Option<libc::gid_t>) -> Result<Self> {
        let complaints = bench.ledger.folder().join("libvirt.log");
        let file = File::create(&complaints).map_err(|error| Error::file("write", &complaints, error))?;
        let mut command = Command::new(&libvirt.program);
        // Its input's end is what ends it: killed with virtax, it could not end its VM.
        command.arg(&libvirt.uri).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).process_group(0);
        // What virtax gave itself is not for QEMU.
        // SAFETY: one async-signal-safe system call.
        unsafe {
            command.pre_exec(|| {
                libc::setpriority(libc::PRIO_PROCESS, 0, 0);
                Ok(())
            });
        }
        if let Some(root) = &libvirt.root {
            command.args(["--user", &NOBODY.to_string()]);
            if let Some(group) = group {
                command.args(["--group", &group.to_string()]);
            }
            // Its own diary is not for users: what it refuses, it says.
            command.env("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null");
            for variable in ["HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR"] {
                command.env(variable, root);
            }
        }
        let (mut child, lease) = child::spawn(&bench.ledger, command)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let heard =
                output.into_iter().flat_map(|output| BufReader::new(output).lines().map_while(std::result::Result::ok));
            heard.for_each(|line| drop(sender.send(line)));
        });
        let uri = libvirt.uri.clone();
        let remedy = match &bench.vms.snippet {
            Some(_) => "change what `--domain` puts in: `virtax vm xml --domain FILE` shows the whole".to_owned(),
            None => format!("install {PACKAGES}; or let virtax start QEMU itself: --connect {NONE}"),
        };
        let mut speaker = Self { child, _lease: lease, input, lines, complaints, uri, version: String::new(), remedy };
        let said = speaker.hear()?;
        match said.strip_prefix("connected ") {
            Some(version) => speaker.version = version.to_owned(),
            None => return Err(speaker.refuse(&format!("it says `{said}`"))),
        }
        Ok(speaker)
    }

    fn tell(&mut self, bytes: &[u8]) -> Result<()> {
        let told = self.input.as_mut().map_or(Ok(()), |input| input.write_all(bytes).and_then(|()| input.flush()));
        told.map_err(|error| self.refuse(&error.to_string()))
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        match self.hear()? {
            said if said == wanted => Ok(()),
            said => Err(self.refuse(&format!("it says `{said}`"))),
        }
    }

    /// The next line that it says.
    fn hear(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    self.input = None;
                    let _ = self.child.wait();
                    return Err(self.refuse("it ended without a word"));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(self.refuse(&format!("it has not answered for {} s", PATIENCE.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            }
        }
    }

    /// What it complained of, or this.
    fn refuse(&self, otherwise: &str) -> Error {
        let words = last_lines_of(&self.complaints, 4);
        let why = if words.is_empty() { otherwise.to_owned() } else { words };
        Error::engine(format!("libvirt refuses ({})", self.uri), why, self.remedy.clone())
    }

    /// Ends its VM and itself.
    fn end(&mut self) {
        self.input = None;
        let deadline = Instant::now() + TO_END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        child::end(&mut self.child);
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.end();
    }
}
