//! Who takes part in a run, and their CPU time.

use std::collections::BTreeMap;

use crate::{
    counts::{Role, Side},
    probes::{Border, BorderKind, Boundary, Followed, Task},
    process,
};

/// The first processes of client and server, whose children are followed as well.
#[derive(Debug, Clone, Copy)]
pub struct Parties {
    /// The client's.
    pub client: u32,
    /// The server's.
    pub server: u32,
    /// Whether that is a VM's.
    pub is_vm: bool,
    /// The side on which operations begin. The guest's, for those of files in a VM: the host has its process's
    /// share of them.
    pub primary: Side,
    /// That of a proxy between them.
    pub proxy: Option<u32>,
    /// The device behind which the server answers from a VM.
    pub boundary: Option<Boundary>,
    /// The port on which the client reaches them.
    pub port: u16,
}

/// Processes and threads of a run, with their roles.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    processes: BTreeMap<u32, Role>,
    /// Threads that have another role than their process.
    threads: BTreeMap<u32, Role>,
}

impl Parties {
    /// What of these, with their roles, the probes follow.
    #[must_use]
    pub fn followed(self, roles: &Roles) -> Followed {
        let port_of = |role: Role| (role == Role::ProxyIn).then_some(self.port);
        let border = self.boundary.map(|device| Border { device, kind: BorderKind::LeadsIn });
        Followed {
            tasks: roles.iter().map(|(id, role)| Task { id, role, port: port_of(role) }).collect(),
            borders: border.into_iter().collect(),
        }
    }

    /// All their processes and threads.
    #[must_use]
    pub fn roles(self) -> Roles {
        let mut roles = Roles::default();
        let mut add = |pid: u32, role| roles.processes.extend(process::family(pid).into_iter().map(|pid| (pid, role)));
        add(self.client, Role::Client);
        add(self.server, if self.is_vm { Role::Vmm } else { Role::Server });
        self.proxy.into_iter().for_each(|proxy| add(proxy, Role::ProxyIn));
        if self.is_vm {
            roles.add_vm(self.server);
        }
        roles
    }
}

impl Roles {
    /// The threads of QEMU's that are something of their own, by the names that `debug-threads=on` and the kernel
    /// give them.
    fn add_vm(&mut self, qemu: u32) {
        let worker = format!("vhost-{qemu}");
        for (thread, name) in process::named_threads(qemu) {
            if let Some(role) = role_of_thread(&name, &worker) {
                self.threads.insert(thread, role);
            }
        }
        // Before 6.4, the workers of vhost are threads of the kernel's own.
        self.processes.extend(process::processes_named(&worker).into_iter().map(|pid| (pid, Role::Vhost)));
    }

    /// Processes.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Threads of all processes.
    pub fn threads(&self) -> Vec<u32> {
        self.processes().flat_map(process::named_threads).map(|(thread, _)| thread).collect()
    }

    /// Numbers of processes and threads, with their roles; a thread's goes before its process's.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Role)> {
        let processes = self.processes.iter().map(|(pid, role)| (*pid, *role));
        processes.chain(self.threads.iter().map(|(tid, role)| (*tid, *role)))
    }

    /// CPU time by role, by the scheduler's account, ns.
    #[must_use]
    pub fn schedstat_ns(&self) -> BTreeMap<Role, u64> {
        let mut times: BTreeMap<Role, u64> = BTreeMap::new();
        for (pid, role) in &self.processes {
            // At one instant: reading a thousand threads one by one takes as long as a phase does.
            if self.threads.is_empty() {
                *times.entry(*role).or_default() += process::cpu_ns(*pid);
                continue;
            }
            for (tid, ns) in process::thread_schedstats_ns(*pid) {
                *times.entry(self.threads.get(&tid).copied().unwrap_or(*role)).or_default() += ns;
            }
        }
        times
    }
}

/// `None`: the process's own.
fn role_of_thread(name: &str, worker: &str) -> Option<Role> {
    match name {
        _ if process::is_processor(name) => Some(Role::Vcpu),
        _ if name == worker => Some(Role::Vhost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_vm_are_known_by_name() {
        let role = |name| role_of_thread(name, "vhost-17");
        assert_eq!(role("CPU 0/KVM"), Some(Role::Vcpu));
        assert_eq!(role("CPU 11/TCG"), Some(Role::Vcpu));
        assert_eq!(role("ALL CPUs/TCG"), Some(Role::Vcpu));
        assert_eq!(role("vhost-17"), Some(Role::Vhost));
        for other in ["vhost-18", "qemu-system-x86", "IO mon_iothread", "CPU /KVM", "worker", "CPU 1"] {
            assert_eq!(role(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_has_a_role_and_cpu_time() {
        let own = std::process::id();
        let parties = Parties {
            client: own,
            server: u32::MAX,
            is_vm: false,
            primary: Side::Host,
            proxy: None,
            boundary: None,
            port: 1,
        };
        let roles = parties.roles();
        assert!(roles.iter().any(|found| found == (own, Role::Client)));
        assert!(roles.schedstat_ns()[&Role::Client] > 0);
    }
}
