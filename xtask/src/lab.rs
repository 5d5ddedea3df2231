//! `cargo xtask lab`: a VM of its own for a command, emulated, in which KVM's exits are real.
//!
//! QEMU's emulated processor has AMD's virtualization, so that in this VM `kvm-amd` loads and guests run under
//! KVM, with its tracepoints. Its kernel is Debian's, with what the reference machine's lacks: kprobes, trampolines,
//! modules.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    kernel::{self, Suite},
    shell::{TestCounts, TestOutput, command, find, output, run},
};

/// What is loaded before the command starts: the bus of the VM, links, rules, taps, KVM, file systems, and disks
/// to put them on.
const DRIVERS: &[&str] = &[
    "virtio_pci",
    "virtio_rng",
    "veth",
    "bridge",
    "tun",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "overlay",
    "vhost_net",
    "kvm-amd",
    "ext4",
    "crc32c_generic",
    "null_blk",
    "dm-delay",
    "raid0",
    "raid1",
];
/// Programs that runs of virtax's need, if this host has them.
const PROGRAMS: &[&str] =
    &["nft", "iptables", "iptables-save", "redis-server", "redis-benchmark", "perf", "mkfs.ext4", "dmsetup", "mdadm"];
/// What QEMU reads when it boots a kernel on a PC, and where Debian has it.
const FIRMWARE: &[&str] = &[
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/pvh.bin",
];
const QEMU: &str = "qemu-system-x86_64";
/// Words to its kernel: its console, no second chance, panic rather than wait where a CPU hangs, and no doubt about
/// its clock.
const KERNEL_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 reboot=t softlockup_panic=1 random.trust_cpu=on tsc=reliable \
                           net.ifnames=0 rdinit=/init";
const VIRTAX: &str = "target/release/virtax";
/// What the first process says at the end, followed by the exit code (`workloads::init::ENDED`).
const ENDED: &str = "virtax-ended:";
/// How long a lost interrupt can hold up the VM.
const BETWEEN_INTERRUPTS: Duration = Duration::from_millis(50);

/// A VM of the lab.
pub struct Lab {
    /// Image of the VM's kernel.
    pub kernel: PathBuf,
    /// Memory of the VM, MiB.
    pub memory: u32,
    /// Processors of the VM.
    pub cpus: u32,
    /// How long it may live.
    pub patience: Duration,
    full: bool,
}

impl Lab {
    /// The VM with a kernel of Debian's, which its guests boot as well.
    pub fn new(suite: Suite) -> Result<Self> {
        Ok(Self {
            kernel: kernel::image(&kernel::fetched(suite)?)?,
            memory: 3072,
            cpus: 1,
            patience: Duration::from_secs(1200),
            full: false,
        })
    }

    /// Boots it, executes the command in it, and passes on what that prints. Returns its exit code.
    pub fn execute(&self, words: &[String], output: impl Write) -> Result<i32> {
        let folder = Path::new("target/lab");
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let (initial, console) = (folder.join("initial"), folder.join("console.log"));
        self.write_image(&initial, words)?;
        let code = self.boot(&initial, &console, output);
        let _ = fs::remove_file(&initial);
        code
    }

    /// Builds the tests of `profiler/tests/lab`, and executes them there; the longer ones only with `full`.
    pub fn test(&mut self, full: bool, arguments: &[String]) -> Result<TestCounts> {
        let mut build = command("cargo");
        build.args(["test", "--release", "--package", "profiler", "--test", "lab", "--no-run", "--locked"]);
        build.args(["--message-format", "json-render-diagnostics"]);
        let messages = output(build)?;
        let program = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "lab")
            .find_map(|message| message["executable"].as_str().map(str::to_owned))
            .context("cargo has built no test named lab")?;
        let words: Vec<String> = std::iter::once(program).chain(arguments.iter().cloned()).collect();
        self.full = full;
        let mut counts = TestOutput::default();
        let code = self.execute(&words, &mut counts)?;
        Ok(counts.finish(code == 0))
    }

    fn write_image(&self, initial: &Path, words: &[String]) -> Result<()> {
        let qemu = find(QEMU).with_context(|| format!("there is no {QEMU}"))?;
        let mut image = command(VIRTAX);
        image.arg("guest-image").arg("--out").arg(initial);
        image.arg("--kernel").arg(&self.kernel).arg("--guest-kernel").arg(&self.kernel);
        image.args(DRIVERS.iter().flat_map(|driver| ["--driver", driver]));
        let virtax = fs::canonicalize(VIRTAX).context("virtax is not built")?;
        for program in PROGRAMS.iter().filter_map(|name| find(name)).chain([qemu, virtax]) {
            image.arg("--program").arg(program);
        }
        for file in FIRMWARE.iter().filter(|file| Path::new(file).is_file()) {
            image.args(["--file", file]);
        }
        image.args(["--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "--env", "HOME=/tmp"]);
        image.args(["--env", "VIRTAX_LAB=1", "--env", "VIRTAX_NO_SKIP=1"]);
        if self.full {
            image.args(["--env", "VIRTAX_FULL=1"]);
        }
        image.arg("--");
        let program = words.first().context("no command is given")?;
        image.arg(if program == "virtax" { PathBuf::from(VIRTAX) } else { found(program)? }).args(&words[1..]);
        run(image)
    }

    fn boot(&self, initial: &Path, console: &Path, mut output: impl Write) -> Result<i32> {
        let log = File::create(console).with_context(|| format!("cannot write {}", console.display()))?;
        drop(log);
        // With two processors in one thread, guests of the VM hang; in threads of their own, code that the
        // kernel changes under a running processor (a trampoline's call, say) sometimes is not seen by it.
        let threads = if self.cpus > 1 { "tcg,thread=multi" } else { "tcg,thread=single" };
        // Without cmpxchg16b, by which newer kernels allocate memory: emulated, it sometimes leaves nonsense in the
        // flags, and the kernel dies of a double fault (seen in `kmem_cache_alloc_noprof` of 6.12).
        let processor = "max,-cx16";
        let mut qemu = command(QEMU);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-machine", "q35", "-accel", threads, "-cpu", processor])
            .args(["-smp", &self.cpus.to_string(), "-m", &self.memory.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(initial)
            .args(["-append", KERNEL_LINE])
            .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
            .args(["-device", "virtio-rng-pci"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut vm = Vm(qemu.spawn().with_context(|| format!("cannot execute {QEMU}"))?);
        let mut line = vm.0.stdin.take();
        let deadline = Instant::now() + self.patience;
        let stdout = vm.0.stdout.take().context("its output is a pipe")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || copy(stdout, &sender));
        loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => {
                    // Before, the line would say each byte again; and nothing that loses interrupts runs yet.
                    line.take().into_iter().for_each(keep_awake);
                    output.write_all(&bytes).and_then(|()| output.flush()).context("cannot pass on its output")?
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the machine was not done after {} s{}", self.patience.as_secs(), last_words(console))
                }
            }
        }
        vm.0.wait().context("cannot wait for QEMU")?;
        reader.join().map_err(|_| anyhow!("its output could not be read"))?.context("cannot read its output")?;
        exit_code(&said(console))
            .with_context(|| format!("the machine ended without an exit code{}", last_words(console)))
    }
}

/// Interrupts the VM now and then, until its QEMU ends.
///
/// An interrupt of the VM's timer can be lost in QEMU 7.2 while guests run in the VM: its processor then
/// stood still with interrupts enabled and the timer's pending, in one run of three (probably because flags of
/// pending interrupts are changed without a lock where a guest exits). The next interrupt, from anywhere, makes the
/// processor look again; a byte on the second serial line is one.
fn keep_awake(mut line: ChildStdin) {
    std::thread::spawn(move || {
        while line.write_all(b"\0").and_then(|()| line.flush()).is_ok() {
            std::thread::sleep(BETWEEN_INTERRUPTS);
        }
    });
}

/// QEMU, which does not outlive this.
struct Vm(Child);
impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn copy(mut from: impl Read, to: &std::sync::mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(()),
            count if to.send(bytes[..count].to_vec()).is_err() => return Ok(()),
            _ => {}
        }
    }
}

/// A program by its path, or as a shell would find it.
fn found(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        return fs::canonicalize(program).with_context(|| format!("there is no {program}"));
    }
    find(program).with_context(|| format!("there is no {program}"))
}

fn said(console: &Path) -> String {
    String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned()
}

fn exit_code(console: &str) -> Option<i32> {
    console.lines().rev().find_map(|line| line.trim().strip_prefix(ENDED)?.trim().parse().ok())
}

/// The end of the console, for a message.
fn last_words(console: &Path) -> String {
    let said = said(console);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    format!("; its console ({}) ends with:\n{}", console.display(), lines[lines.len().saturating_sub(12)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_says_it_in_these_words() {
        let init = include_str!("../../workloads/src/init.rs");
        assert!(init.contains(&format!("pub const ENDED: &str = {ENDED:?};")));
    }

    #[test]
    fn the_exit_code_is_the_last_that_was_said() {
        assert_eq!(exit_code("kernel\nvirtax-ended: 3\r\n"), Some(3));
        assert_eq!(exit_code("virtax-failed: virtax-ended\n"), None);
        assert_eq!(exit_code(""), None);
    }
}
