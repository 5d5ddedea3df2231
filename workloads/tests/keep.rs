//! What keeps a container's servers: a fresh one whenever it is told, and an end when one ends by itself.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use workloads::keep::{END, START};

struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        // With its server; one that has ended hears nothing.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.tell(libc::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

impl Keeper {
    fn of(command: &[&str]) -> Self {
        let mut keeper = Command::new(env!("CARGO_BIN_EXE_virtax-workload"));
        Self(keeper.arg("keep").args(command).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn tell(&self, signal: i32) {
        // SAFETY: no pointers; the child has not been waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }

    fn server(&self) -> Option<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        std::fs::read_to_string(children).unwrap().split_whitespace().next().map(|pid| pid.parse().unwrap())
    }

    /// Waits for this of the server.
    fn until<T>(&self, wanted: impl Fn(Option<u32>) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = wanted(self.server()) {
                return found;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "the keeper does nothing");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_fresh_server_whenever_it_is_told() {
    let keeper = Keeper::of(&["sleep", "1000"]);
    let first = keeper.until(|server| server);
    // There is one: nothing happens.
    keeper.tell(START);
    keeper.tell(END);
    keeper.until(|server| server.is_none().then_some(()));
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists(), "its server lives");
    keeper.tell(START);
    let second = keeper.until(|server| server);
    assert_ne!(first, second);
    // What is inherited would keep a server from being ended.
    let status = std::fs::read_to_string(format!("/proc/{second}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(mask, 16), Ok(0));
}

#[test]
fn it_ends_with_its_server_and_says_how() {
    let mut keeper = Keeper::of(&["sleep", "1000"]);
    let server = keeper.until(|server| server);
    // SAFETY: no pointers; its parent has not waited for it.
    unsafe { libc::kill(server as i32, libc::SIGKILL) };
    assert!(!keeper.0.wait().unwrap().success());
    let mut words = String::new();
    std::io::Read::read_to_string(&mut keeper.0.stderr.take().unwrap(), &mut words).unwrap();
    assert_eq!(words.trim(), "virtax-workload: the server was ended by signal 9");
    let mut keeper = Keeper::of(&["true"]);
    assert!(keeper.0.wait().unwrap().success());
    let mut keeper = Keeper::of(&["no-such-program"]);
    assert!(!keeper.0.wait().unwrap().success());
}
