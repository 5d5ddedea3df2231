//! QEMU's command line.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{Files, agent, disk, monitor, tuning::Layout};
use crate::engine::configuration::Configuration;
use virtax_model::counts::Accelerator;

/// What every VM of a run is made of.
pub struct Qemu {
    /// The program itself.
    pub program: PathBuf,
    /// Where a guest's files lie.
    pub folder: PathBuf,
    /// What executes the guest.
    pub accelerator: Accelerator,
}

/// How a guest is joined to the rest.
#[derive(Debug, Clone)]
pub enum Card {
    /// Descriptors of a tap, and of vhost.
    Tap(i32, Option<i32>),
    /// QEMU's own network.
    User(UserNetwork),
}

/// QEMU's own network: what it forwards from where to where.
#[derive(Debug, Clone, Copy)]
pub struct UserNetwork {
    /// Address and port of the host.
    pub from: SocketAddrV4,
    /// Address and port of the guest.
    pub to: SocketAddrV4,
    /// The guest's router.
    pub gateway: Ipv4Addr,
}

impl UserNetwork {
    /// QEMU's words for it.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { from, to, gateway } = self;
        format!("user,id=net0,restrict=on,ipv6=off,net={gateway}/24,host={gateway},hostfwd=tcp:{from}-{to}")
    }
}

/// QEMU's words for an accelerator: its name and properties, and the kind of processor that the guest sees.
fn words_of(accelerator: Accelerator, vcpus: &str) -> (&'static str, &'static str) {
    match accelerator {
        Accelerator::Tcg if vcpus == "1" => ("tcg,thread=multi", "max"),
        // With a thread each, a processor sometimes does not see that its kernel has changed code under it, and hangs
        // there: the agent's trampolines do that.
        Accelerator::Tcg => ("tcg,thread=single", "max"),
        Accelerator::Kvm => ("kvm", "host"),
    }
}

/// A kind of VM: QEMU's words for it, and the end of its devices' names.
fn kind(name: &str) -> (&'static str, &'static str) {
    match name {
        // No bus but that of virtio's own: with PCI (`pcie=on`), guests of nested and emulated processors hang at its
        // resources.
        "microvm" => ("microvm,x-option-roms=off,isa-serial=on,rtc=off,auto-kernel-cmdline=on", "device"),
        _ => ("q35", "pci"),
    }
}

/// Words to the guest's kernel: its console, silence, no second chance, and no address by itself.
pub(super) const KERNEL_LINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on ipv6.disable=1 net.ifnames=0 rdinit=/init";

impl Qemu {
    /// QEMU's arguments for a guest.
    #[must_use]
    pub fn arguments(
        &self,
        configuration: &Configuration,
        files: &Files,
        card: &Card,
        layout: &Layout,
        port: Option<&OwnedFd>,
        monitor: i32,
    ) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let network = match card {
            Card::Tap(descriptor, None) => format!("tap,id=net0,fd={descriptor}"),
            Card::Tap(descriptor, Some(vhost)) => format!("tap,id=net0,fd={descriptor},vhost=on,vhostfd={vhost}"),
            Card::User(network) => network.words(),
        };
        let (accelerator, cpu) = words_of(self.accelerator, configuration.key("vcpus"));
        let (machine, bus) = kind(configuration.key("machine"));
        let [sockets, cores, threads] = layout.processors;
        // A card boots nothing here, and needs no program for that.
        let card_words = if bus == "pci" { ",romfile=" } else { "" };
        let words = [
            ("-name", "guest=virtax,debug-threads=on".to_owned()),
            ("-machine", format!("{machine},memory-backend=ram")),
            ("-accel", accelerator.to_owned()),
            ("-cpu", format!("{cpu}{}", if layout.caches { ",host-cache-info=on" } else { "" })),
            ("-smp", format!("{},sockets={sockets},cores={cores},threads={threads}", configuration.key("vcpus"))),
            ("-m", format!("{}M", configuration.key("memory"))),
            ("-object", memory(configuration.key("memory"), layout)),
            ("-kernel", shown(&files.kernel)),
            ("-initrd", shown(&files.initial)),
            ("-append", KERNEL_LINE.to_owned()),
            ("-serial", "stdio".to_owned()),
            ("-netdev", network),
            ("-device", format!("virtio-net-{bus},netdev=net0{card_words}")),
            ("-device", format!("virtio-rng-{bus}")),
        ];
        let switches = ["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned);
        let display = ["-display", "none"].map(str::to_owned);
        let port = port.into_iter().flat_map(|port| agent::arguments(port, bus));
        let disk = files.disk.iter().flat_map(|path| disk::arguments(configuration, path, bus));
        let pairs = words
            .into_iter()
            .chain(disk)
            .chain(monitor::arguments(monitor))
            .chain(port)
            .flat_map(|(key, value)| [key.to_owned(), value]);
        switches.into_iter().chain(display).chain(pairs).collect()
    }
}

/// QEMU's words for a guest's memory.
fn memory(megabytes: &str, layout: &Layout) -> String {
    let (kind, options) = if layout.huge_pages {
        ("memory-backend-memfd", ",hugetlb=on,hugetlbsize=2M,prealloc=on")
    } else {
        ("memory-backend-ram", "")
    };
    let nodes: String = layout.nodes.iter().map(|node| format!(",host-nodes={node}")).collect();
    let policy = if nodes.is_empty() { "" } else { ",policy=bind" };
    format!("{kind},id=ram,size={megabytes}M{options}{nodes}{policy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::configuration::parse;

    #[test]
    fn command_lines() {
        let qemu = |accelerator| Qemu { program: "qemu-system-x86_64".into(), folder: "/programs".into(), accelerator };
        let files = Files {
            kernel: "/programs/vmlinuz".into(),
            console: "/programs/console".into(),
            initial: "/programs/initial".into(),
            disk: None,
        };
        let with_disk = Files { disk: Some("/programs/disk".into()), ..files.clone() };
        let at = |last, port| SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, last), port);
        let gateway = Ipv4Addr::new(198, 18, 1, 17);
        let user = Card::User(UserNetwork { from: at(1, 7000), to: at(18, 7000), gateway });
        let rows = [
            ("tcg", Card::Tap(3, None), Accelerator::Tcg),
            ("tcg:net=user,vcpus=2", user, Accelerator::Tcg),
            ("kvm:machine=microvm,vhost=on", Card::Tap(3, Some(4)), Accelerator::Kvm),
            ("kvm:hugepages=on,vcpus=2,memory=1024", Card::Tap(3, None), Accelerator::Kvm),
            ("kvm:machine=microvm,blk=virtio,cache=directsync,aio=native", Card::Tap(3, None), Accelerator::Kvm),
            ("tcg:blk=nvme,cache=unsafe", Card::Tap(3, None), Accelerator::Tcg),
        ];
        let like_host = Layout { processors: [1, 1, 2], caches: true, huge_pages: true, nodes: vec![0, 1] };
        let shown = rows.map(|(name, card, processor)| {
            let configuration = parse(name).unwrap().0;
            let layout = if name.contains("huge") { like_host.clone() } else { Layout::of(&configuration, &[]) };
            let files = if name.contains("blk=") { &with_disk } else { &files };
            qemu(processor).arguments(&configuration, files, &card, &layout, None, 5).join(" ").replace(" -", "\n  -")
        });
        insta::assert_snapshot!(shown.join("\n\n"));
    }
}
