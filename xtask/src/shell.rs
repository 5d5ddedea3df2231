//! Running commands.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A command that inherits the terminal.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs it; anything but success is an error that shows the command.
pub fn run(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot execute {}", show(&command)))?;
    if !status.success() {
        bail!("{} ended with {status}", show(&command));
    }
    Ok(())
}

/// What a test run brought.
#[derive(Default)]
pub struct TestCounts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were not run.
    pub ignored: u64,
    /// Whether the runner itself was content.
    pub success: bool,
}

/// Runs `cargo test`, shows what it prints, and adds up its results: it closes with one line per binary only.
pub fn run_tests(mut command: Command) -> Result<TestCounts> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot execute {}", show(&command)))?;
    let mut counts = TestCounts::default();
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line.context("cannot read what the tests print")?;
        println!("{line}");
        add_result(&line, &mut counts);
    }
    counts.success = child.wait()?.success();
    Ok(counts)
}

/// Lets this thread, and what it executes, have only what other work leaves of the processors.
pub fn be_nice() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: a system call with a structure that outlives it. Where it is refused, the thread is as busy as others.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

/// What tests print, passed on as it comes; it is text in lines.
#[derive(Default)]
pub struct TestOutput {
    line: Vec<u8>,
    counts: TestCounts,
}

impl TestOutput {
    /// The results, once all is there.
    pub fn finish(mut self, success: bool) -> TestCounts {
        self.counts.success = success;
        self.counts
    }
}

impl io::Write for TestOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write_all(bytes)?;
        for byte in bytes {
            if *byte == b'\n' {
                add_result(&String::from_utf8_lossy(&self.line), &mut self.counts);
                self.line.clear();
            } else {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

impl TestCounts {
    /// Both together.
    pub fn plus(self, other: &Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
            success: self.success && other.success,
        }
    }
}

/// `test result: ok. 65 passed; 0 failed; 0 ignored; …`
fn add_result(line: &str, counts: &mut TestCounts) {
    let Some((_, results)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
    for result in results.split("; ") {
        let Some((number, what)) = result.split_once(' ') else { continue };
        let number = number.parse().unwrap_or(0);
        match what {
            "passed" => counts.passed += number,
            "failed" => counts.failed += number,
            "ignored" => counts.ignored += number,
            _ => {}
        }
    }
}

/// Runs it and returns what it printed.
pub fn output(mut command: Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot execute {}", show(&command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", show(&command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something else than text", show(&command)))
}

/// Whether it can be executed and succeeds, in silence.
pub fn succeeds(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The full path of a program on the PATH, or where Debian keeps root's programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Everything happens in the project's folder.
pub fn enter_project() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the project")?;
    env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))
}

/// Where things are kept that are built once: `virtax` in the user's cache folder.
pub fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let folder = base.join("virtax");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Copies a file unless the target holds the same: what depends on it is then not built again.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// Ctrl-C reaches the child that runs in the foreground; this process goes on, to put things back. A handler, not
/// SIG_IGN, which children would inherit.
pub fn outlive_interrupts() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(signal, nothing as *const () as libc::sighandler_t) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_are_added_up() {
        let mut counts = TestCounts::default();
        add_result(
            "test result: ok. 65 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.40s",
            &mut counts,
        );
        add_result("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured", &mut counts);
        add_result("test result::sentence ... ok", &mut counts);
        assert_eq!((counts.passed, counts.failed, counts.ignored), (67, 3, 1));
    }
}
