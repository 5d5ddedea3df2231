//! QEMU's monitor (QMP, <https://www.qemu.org/docs/master/interop/qmp-spec.html>): which of its threads are
//! processors and I/O threads, by QEMU's own word. All else goes by the names that these threads have, so the two are
//! held against each other.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::Value;

use virtax_model::error::{Error, Result};
use virtax_probes::process;

/// How long QEMU may take to answer: it may have to wait for a CPU.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer; one processor takes some hundred.
const LONGEST: u64 = 1 << 20;
/// A thread of the monitor itself, of which it does not speak.
const MONITORS_OWN: &str = "IO mon_iothread";
/// Answers to others' questions, and events, before ours.
const LINES: usize = 100;

/// QEMU's arguments for a monitor behind this descriptor.
#[must_use]
pub fn arguments(vms_end: i32) -> [(&'static str, String); 2] {
    [("-chardev", format!("socket,id=monitor,fd={}", vms_end)), ("-mon", "chardev=monitor,mode=control".to_owned())]
}

/// Threads of a VM's process.
#[derive(Debug, Default, PartialEq, Eq)]
struct Threads {
    processors: BTreeSet<u32>,
    io: BTreeSet<u32>,
}

/// Asks for the VM's threads, and sees whether they have the names by which they are known; how many there are,
/// for a person.
///
/// # Errors
/// If QEMU does not answer, or its threads have other names.
pub fn check(monitor: UnixStream, pid: u32) -> Result<String> {
    let fail = |why: String| Error::engine("QEMU's monitor is of no use", why, "report this, with QEMU's version");
    monitor.set_read_timeout(Some(PATIENCE)).map_err(|error| fail(error.to_string()))?;
    let told = ask(monitor).map_err(|error| fail(error.to_string()))?;
    let named = by_name(&process::named_threads(pid));
    if told != named {
        return Err(fail(format!("it says {told:?}, by their names they are {named:?}")));
    }
    Ok(format!("{} for processors, {} for I/O, by QMP", told.processors.len(), told.io.len()))
}

fn ask(monitor: UnixStream) -> io::Result<Threads> {
    let mut writer = monitor.try_clone()?;
    let mut lines = BufReader::new(monitor.take(LONGEST));
    let mut answer = |command: &str| {
        writer.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())?;
        for _ in 0..LINES {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut said: Value = serde_json::from_str(&line)?;
            if let Some(answer) = said.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = said.get("error") {
                return Err(io::Error::other(format!("{command}: {error}")));
            }
        }
        Err(io::Error::other(format!("{command}: no answer among {LINES} lines")))
    };
    answer("qmp_capabilities")?;
    Ok(Threads { processors: numbers(&answer("query-cpus-fast")?), io: numbers(&answer("query-iothreads")?) })
}

/// The `thread-id`s of an array's objects.
fn numbers(answer: &Value) -> BTreeSet<u32> {
    let numbers = answer.as_array().into_iter().flatten().filter_map(|one| one.get("thread-id")?.as_u64());
    numbers.filter_map(|number| number.try_into().ok()).collect()
}

/// The threads by the names that `debug-threads=on` gives them.
fn by_name(threads: &[(u32, String)]) -> Threads {
    let with =
        |wanted: &dyn Fn(&str) -> bool| threads.iter().filter(|(_, name)| wanted(name)).map(|(tid, _)| *tid).collect();
    let is_io = |name: &str| name.starts_with("IO ") && name != MONITORS_OWN;
    Threads { processors: with(&process::is_processor), io: with(&is_io) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked of somebody who says this and no more.
    fn of(said: &str) -> io::Result<Threads> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        ask(ours)
    }

    #[test]
    fn threads_are_those_that_qemu_names() {
        let greeting = r#"{"QMP":{"version":{}}}"#;
        let event = r#"{"event":"RESUME","timestamp":{}}"#;
        let cpus = r#"{"return":[{"cpu-index":0,"thread-id":7},{"cpu-index":1,"thread-id":8}]}"#;
        let io = r#"{"return":[{"id":"io0","thread-id":9}]}"#;
        let told = of(&format!("{greeting}\n{{\"return\":{{}}}}\n{event}\n{cpus}\n{io}\n")).unwrap();
        assert_eq!(told, Threads { processors: [7, 8].into(), io: [9].into() });
        let named =
            [(6, "qemu"), (7, "CPU 0/KVM"), (8, "CPU 1/KVM"), (9, "IO io0"), (10, "worker"), (11, MONITORS_OWN)];
        assert_eq!(by_name(&named.map(|(tid, name)| (tid, name.to_owned()))), told);
    }

    #[test]
    fn nonsense_is_an_error() {
        let refusal = r#"{"error":{"class":"CommandNotFound","desc":"no"}}"#;
        for said in ["", "nonsense\n", &format!("{refusal}\n"), &"{}\n".repeat(LINES + 1)] {
            assert!(of(said).is_err(), "{said}");
        }
        assert_eq!(numbers(&serde_json::json!([{"thread-id": -1}, {"thread-id": 1u64 << 40}, {}, 3])), [].into());
    }
}
