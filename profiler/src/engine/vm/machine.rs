//! QEMU's command line.

use std::path::{Path, PathBuf};

use super::Files;
use crate::configuration::Configuration;

/// What every machine of a run is made of.
pub struct Machine {
    /// QEMU.
    pub qemu: PathBuf,
    /// Where a guest's files lie.
    pub folder: PathBuf,
    /// QEMU's words for what executes the guest.
    pub accelerator: &'static str,
}

/// How a guest is joined to the rest.
#[derive(Debug, Clone)]
pub enum Card {
    /// By this descriptor of a tap.
    Tap(i32),
    /// By QEMU's own network: what it forwards from where to where.
    User {
        /// Address and port of the host.
        from: std::net::SocketAddrV4,
        /// Address and port of the guest.
        to: std::net::SocketAddrV4,
        /// The guest's router.
        gateway: std::net::Ipv4Addr,
    },
}

/// A PC with PCI Express.
pub const MACHINE: &str = "q35";

/// Words to the guest's kernel: its console, silence, no second chance, and no address by itself.
const KERNEL_LINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on ipv6.disable=1 net.ifnames=0 rdinit=/init";

impl Machine {
    /// QEMU's arguments for a guest.
    #[must_use]
    pub fn arguments(&self, configuration: &Configuration, files: &Files, card: &Card) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let network = match card {
            Card::Tap(descriptor) => format!("tap,id=net0,fd={descriptor}"),
            Card::User { from, to, gateway } => {
                format!("user,id=net0,restrict=on,ipv6=off,net={gateway}/24,host={gateway},hostfwd=tcp:{from}-{to}")
            }
        };
        let words = [
            ("-name", "guest=virtax,debug-threads=on".to_owned()),
            ("-machine", MACHINE.to_owned()),
            ("-accel", self.accelerator.to_owned()),
            ("-cpu", "max".to_owned()),
            ("-smp", configuration.key("vcpus").to_owned()),
            ("-m", format!("{}M", configuration.key("memory"))),
            ("-kernel", shown(&files.kernel)),
            ("-initrd", shown(&files.initial)),
            ("-append", KERNEL_LINE.to_owned()),
            ("-serial", "stdio".to_owned()),
            ("-netdev", network),
            ("-device", "virtio-net-pci,netdev=net0,romfile=".to_owned()),
            ("-device", "virtio-rng-pci".to_owned()),
        ];
        let switches = ["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned);
        let display = ["-display", "none"].map(str::to_owned);
        let pairs = words.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
        switches.into_iter().chain(display).chain(pairs).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::configuration::parse;

    #[test]
    fn command_lines() {
        let machine =
            Machine { qemu: "qemu-system-x86_64".into(), folder: "/programs".into(), accelerator: "tcg,thread=multi" };
        let files = Files {
            kernel: "/programs/vmlinuz".into(),
            console: "/programs/console".into(),
            initial: "/programs/initial".into(),
        };
        let at = |last, port| SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, last), port);
        let user = Card::User { from: at(1, 7000), to: at(18, 7000), gateway: Ipv4Addr::new(198, 18, 1, 17) };
        let shown = [("tcg", Card::Tap(3)), ("tcg:net=user,vcpus=2", user)].map(|(name, card)| {
            let configuration = parse(name).unwrap().0;
            machine.arguments(&configuration, &files, &card).join(" ").replace(" -", "\n  -")
        });
        insta::assert_snapshot!(shown.join("\n\n"));
    }
}
