//! A run that goes on while a test does something to it.

use std::process::Command;

use super::{Out, child_with, send, virtax, wait_until};

/// A `virtax run --verbose` that is under way: its steps, as it says them.
pub struct Running {
    pub child: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
    said: String,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        use std::io::BufRead;
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("virtax can be executed");
        let stderr = child.stderr.take().expect("a pipe");
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, said: String::new() }
    }

    /// `virtax run tcp-rr --verbose`, with its result in `out`.
    pub fn of(out: &Out, arguments: &[&str]) -> Self {
        let mut command = virtax();
        command.args(["run", "tcp-rr", "--verbose", "--out"]).arg(out.path()).args(arguments);
        Self::start(command)
    }

    /// Waits until it says this; no longer than a guest and its agent may take to start.
    pub fn wait_for(&mut self, words: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { panic!("`{words}` did not come: {}", self.said) };
            self.said += &format!("{line}\n");
            if line.contains(words) {
                return;
            }
        }
    }

    /// The child of the run with this word in its arguments, as soon as it is there.
    pub fn party(&self, word: &str) -> u32 {
        let mut pid = None;
        wait_until(word, || {
            pid = child_with(self.child.id(), word);
            pid.is_some()
        });
        pid.unwrap()
    }

    pub fn signal(&self, signal: libc::c_int) {
        send(self.child.id(), signal);
    }

    /// The process of its VM, whoever has started that.
    pub fn qemu(&self) -> u32 {
        let mut pid = None;
        wait_until("QEMU", || {
            pid = profiler::process::processes_named("qemu-system-x86").into_iter().find(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| super::text(&line).contains("guest=virtax"))
            });
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Exit code of the run, and all that it said. A minute at most: a run that hangs is a failure.
    pub fn end(mut self) -> (Option<i32>, String) {
        let child = &mut self.child;
        let mut status = None;
        wait_until("the end of the run", || {
            status = child.try_wait().expect("our child");
            status.is_some()
        });
        let rest: String = self.lines.iter().map(|line| line + "\n").collect();
        self.said += &rest;
        (status.and_then(|status| status.code()), std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a test that failed leaves one alive.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(libc::SIGINT);
            for _ in 0..500 {
                if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
