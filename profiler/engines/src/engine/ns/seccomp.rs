//! System-call filters: one of the size and shape of the profile that Docker gives its containers, and filters that
//! look at arguments.

use std::{collections::BTreeMap, mem::offset_of};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use virtax_model::error::{Error, Result};

/// Names of the system calls that Docker's default profile allows to a container without capabilities, whatever their
/// arguments (moby, `profiles/seccomp/default.json`, as of version 20.10), as far as they exist on this architecture.
const ALLOWED: &str = include_str!("seccomp_allowed.txt");
/// `EPERM`, the profile's answer to all others.
const REFUSED: u32 = libc::EPERM as u32;
/// `personality` is allowed for these values.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

fn refuse(why: &dyn std::fmt::Display) -> Error {
    Error::unsupported("cannot make a seccomp filter", why, "leave out `seccomp=docker`")
}

fn architecture() -> Result<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(|error| refuse(&error))
}

fn number(name: &str) -> Option<i64> {
    name.parse::<syscalls::Sysno>().ok().map(|call| i64::from(call.id()))
}

fn condition(argument: u8, comparison: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, comparison, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| refuse(&error))
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, others: SeccompAction, known: SeccompAction) -> Result<BpfProgram> {
    SeccompFilter::new(rules, others, known, architecture()?)
        .and_then(BpfProgram::try_from)
        .map_err(|error| refuse(&error))
}

/// The filter in the shape of Docker's: everything known is allowed, a few calls by their arguments, all others are
/// refused.
///
/// # Errors
/// If this architecture has none.
pub fn docker() -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.lines().filter_map(number).map(|number| (number, Vec::new())).collect();
    if let Some(personality) = number("personality") {
        let values: Result<Vec<SeccompRule>> =
            PERSONALITIES.into_iter().map(|value| condition(0, SeccompCmpOp::Eq, value)).collect();
        rules.insert(personality, values?);
    }
    // No new namespaces, and no socket of the hypervisor's.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    if let Some(clone) = number("clone") {
        rules.insert(clone, vec![condition(0, SeccompCmpOp::MaskedEq(namespaces as u64), 0)?]);
    }
    if let Some(socket) = number("socket") {
        rules.insert(socket, vec![condition(0, SeccompCmpOp::Ne, libc::AF_VSOCK as u64)?]);
    }
    compile(rules, SeccompAction::Errno(REFUSED), SeccompAction::Allow).map(without_clone3)
}

fn line(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn load(offset: usize) -> sock_filter {
    line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset as u32)
}

/// Goes on `equal` lines further if what was loaded is this number, else `other` lines.
fn jump(number: i64, equal: u8, other: u8) -> sock_filter {
    line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, equal, other, number as u32)
}

fn answer(action: u32) -> sock_filter {
    line(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

/// Docker's answer to `clone3`, whose arguments no filter can look at: there is no such call, so that programs take
/// `clone`. Lines of their own before a filter of rules, which has one answer only for all that it refuses.
fn without_clone3(filter: BpfProgram) -> BpfProgram {
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let lines = [load(offset_of!(libc::seccomp_data, nr)), jump(libc::SYS_clone3, 0, 1), answer(refused)];
    lines.into_iter().chain(filter).collect()
}

/// System calls of request and response whose first argument [`loading`] looks at: the server reads and writes by them.
const HOT: [&str; 2] = ["recvfrom", "sendto"];

/// How often a filter of [`loading`] loads the argument: of eight such filters a call may run through all (the kernel's
/// `MAX_INSNS_PER_PATH`).
const LOADS: usize = 800;

/// A filter that allows everything, and loads an argument of the hot calls first: the kernel cannot answer from its
/// cache of filters that always say the same (`seccomp_cache_check_allow`). Written out, because a filter made of
/// rules leaves early.
///
/// # Errors
/// If this architecture has none.
pub fn loading() -> Result<BpfProgram> {
    let allow = libc::SECCOMP_RET_ALLOW;
    let mut filter = vec![load(offset_of!(libc::seccomp_data, nr))];
    for (index, name) in HOT.into_iter().enumerate() {
        let number = number(name).ok_or_else(|| refuse(&format!("no system call `{name}` here")))?;
        filter.push(jump(number, (HOT.len() - index) as u8, 0));
    }
    filter.push(answer(allow));
    // A division takes the time that a load hides.
    let divide = || line(libc::BPF_ALU | libc::BPF_DIV | libc::BPF_K, 0, 0, 3);
    let pair = || [load(offset_of!(libc::seccomp_data, args)), divide()];
    filter.extend(std::iter::repeat_with(pair).take(LOADS).flatten());
    filter.push(answer(allow));
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_call_exists_once() {
        let mut seen = std::collections::BTreeSet::new();
        for name in ALLOWED.lines() {
            assert!(number(name).is_some(), "{name}");
            assert!(seen.insert(name), "{name} twice");
        }
        for dangerous in ["mount", "bpf", "reboot", "init_module", "setns", "unshare", "ptrace_x"] {
            assert!(!seen.contains(dangerous), "{dangerous}");
        }
    }

    #[test]
    fn clone3_and_mount_are_answered_as_under_docker() {
        // Filters hold for the thread that installs them.
        let answers = std::thread::spawn(|| {
            seccompiler::apply_filter(&docker().unwrap()).unwrap();
            let answer = |number: i64| {
                // SAFETY: both calls refuse these arguments, if a filter does not before.
                let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0) };
                (result, std::io::Error::last_os_error().raw_os_error())
            };
            let known = std::thread::spawn(|| 7).join().ok();
            (answer(libc::SYS_clone3), answer(libc::SYS_mount), known)
        });
        let expected = ((-1, Some(libc::ENOSYS)), (-1, Some(libc::EPERM)), Some(7));
        assert_eq!(answers.join().unwrap(), expected);
    }

    #[test]
    fn filters_have_the_size_of_dockers() {
        // One comparison a call, at least; a filter that the kernel takes has 4096 instructions at most.
        let docker = docker().unwrap();
        assert!((600..4096).contains(&docker.len()), "{}", docker.len());
        assert!((1000..4096).contains(&loading().unwrap().len()));
    }
}
