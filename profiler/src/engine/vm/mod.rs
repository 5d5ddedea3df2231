//! Virtual machines: the server in a guest of QEMU's, booted anew for every repetition.

mod agent;
mod gate;
mod machine;
mod server;
mod tap;
mod vhost;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, path::PathBuf, rc::Rc};

pub use self::{agent::Agent, gate::check_device as check_kvm, tap::TUN};

use self::machine::Machine;
use super::{
    Bench, Engine, Host, Key, Server, Values,
    ns::network::{Network, Shape, Wanted},
};
use crate::{
    configuration::Configuration,
    error::{Error, Result},
    guest::Kernel,
    injection::Kind,
    ledger::PROGRAMS,
    pack,
};

/// See the module: one kind of processor.
pub struct Vm {
    name: &'static str,
    summary: &'static str,
    processor: Processor,
}

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// QEMU translates every one to one or more of the host's: there is no hypervisor.
    Emulated,
    /// The processor itself, by the kernel's hypervisor.
    Kvm,
}

/// With an emulated processor.
pub static TCG: Vm = Vm {
    name: "tcg",
    summary: "a virtual machine of QEMU's with an emulated processor: no evidence of KVM's cost",
    processor: Processor::Emulated,
};

/// With the hardware's virtualization.
pub static KVM: Vm =
    Vm { name: "kvm", summary: "a virtual machine of QEMU's, by the kernel's KVM", processor: Processor::Kvm };

/// QEMU, and Debian's package of it.
pub const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// What stands beside every result of an emulated processor.
pub const EMULATED: &str = "emulated: no evidence of KVM's cost";

const KEYS: [Key; 7] = [
    Key {
        name: "net",
        values: Values::Words(&["tap", "nat", "user"]),
        default: "tap",
        help: "tap: a tap behind a router; nat: with a published port; user: QEMU's own network in user space (the machine is \
               one row)",
    },
    Key {
        name: "machine",
        values: Values::Words(&["q35", "microvm"]),
        default: "q35",
        help: "q35: a PC; microvm: as little as boots Linux, its devices without a PCI bus",
    },
    Key { name: "vcpus", values: Values::Number { from: 1, to: 64 }, default: "1", help: "processors of the guest" },
    Key {
        name: "memory",
        values: Values::Number { from: 128, to: 1 << 20 },
        default: "512",
        help: "memory of the guest, MiB",
    },
    Key {
        name: "vhost",
        values: Values::Words(&["off", "on"]),
        default: "off",
        help: "on: a worker of the kernel's moves packets between tap and guest; off: QEMU does",
    },
    Key {
        name: "agent",
        values: Values::Words(&["on", "off"]),
        default: "on",
        help: "on: requests are followed in the guest, too; off: the machine is one row",
    },
    Key {
        name: "kernel",
        values: Values::Path,
        default: "auto",
        help: "the guest's kernel, with its modules in ../lib/modules; auto: that of VIRTAX_GUEST_KERNEL, else the host's, else \
               the one that was installed with virtax",
    },
];

impl Engine for Vm {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn keys(&self) -> &'static [Key] {
        &KEYS
    }
    fn is_kvm(&self) -> bool {
        self.processor == Processor::Kvm
    }
    fn check(&self, configuration: &Configuration) -> Result<()> {
        if configuration.key("vhost") == "on" && configuration.key("net") == "user" {
            return Err(Error::Usage(format!("`{configuration}`: vhost=on needs a tap: net=tap or net=nat")));
        }
        Ok(())
    }
    fn accepts(&self, kind: Kind) -> bool {
        // The guest keeps no account that the host could read.
        kind == Kind::Copy
    }
    fn phrase(&self, configuration: &Configuration) -> String {
        let net = match configuration.key("net") {
            "user" => "QEMU's user-mode network",
            "nat" => "a tap and NAT",
            _ => "a tap",
        };
        match self.processor {
            Processor::Emulated => format!("a virtual machine behind {net} ({EMULATED})"),
            Processor::Kvm => format!("a KVM machine behind {net}"),
        }
    }
    fn prepare(&self, bench: &Bench, configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        let qemu = pack::find_program(QEMU.0, QEMU.1)?;
        if self.processor == Processor::Kvm {
            gate::check_device()?;
        }
        let folder = Path::new(PROGRAMS).join(&bench.run_id);
        let (mut networks, mut kernels) = (BTreeMap::new(), BTreeMap::new());
        for configuration in configurations {
            let wanted_kernel = configuration.key("kernel");
            if !kernels.contains_key(wanted_kernel) {
                let kernel = take_kernel(wanted_kernel, &folder.join(format!("vmlinuz-{}", kernels.len())))?;
                kernels.insert(wanted_kernel.to_owned(), kernel);
            }
            if let Some(wanted) = wanted(configuration) {
                let network = Network::create(bench, bench.next_segment(), wanted)?;
                networks.insert(configuration.to_string(), Rc::new(network));
            }
        }
        let machine = Machine { qemu, folder, processor: self.processor };
        Ok(Box::new(Prepared { machine, kernels, networks }))
    }
}

/// The kernel of `kernel=`, its image copied to where whoever boots it can read it: QEMU is nobody.
fn take_kernel(wanted: &str, image: &Path) -> Result<Kernel> {
    let kernel = if wanted.starts_with('/') { Kernel::at(Path::new(wanted))? } else { Kernel::find()? };
    fs::copy(&kernel.image, image)
        .and_then(|_| fs::set_permissions(image, fs::Permissions::from_mode(0o644)))
        .map_err(|error| Error::file("write", image, error))?;
    Ok(Kernel { image: image.to_owned(), ..kernel })
}

/// The network of a configuration; `None`: QEMU's own.
fn wanted(configuration: &Configuration) -> Option<Wanted> {
    let nat = configuration.key("net") == "nat";
    (configuration.key("net") != "user").then_some(Wanted {
        shape: Shape::Tap,
        hooks: nat,
        conntrack: nat,
        nat,
        useless: [0, 0],
        queue: None,
    })
}

struct Prepared {
    machine: Machine,
    kernels: BTreeMap<String, Kernel>,
    networks: BTreeMap<String, Rc<Network>>,
}

impl Host for Prepared {
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let network = self.networks.get(&configuration.to_string());
        let kernel = self
            .kernels
            .get(configuration.key("kernel"))
            .ok_or_else(|| Error::Usage(format!("`{configuration}` was not prepared")))?;
        server::start(bench, configuration, &self.machine, kernel, network)
    }
}

/// Files of one guest.
struct Files {
    kernel: PathBuf,
    console: PathBuf,
    initial: PathBuf,
}

#[cfg(test)]
mod tests {
    use crate::configuration::parse;

    #[test]
    fn names_and_refusals() {
        let said = [
            "tcg",
            "tcg:vcpus=1,memory=512",
            "tcg:net=nat,vcpus=2",
            "tcg:memory=3G",
            "tcg+spin-us=20",
            "tcg:net=veth",
            "tcg:kernel=/boot/vmlinuz-6.1+deb12",
            "tcg:kernel=/a+copy=2",
            "tcg:kernel=vmlinuz",
        ]
        .map(|text| {
            let said = parse(text).map_or_else(|error| error.to_string(), |(parsed, _)| parsed.to_string());
            format!("{text:<34} {said}")
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
