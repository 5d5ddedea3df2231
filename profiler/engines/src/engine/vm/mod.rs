//! VMs: the server in a guest of QEMU's, booted anew for every repetition.

mod agent;
mod command_line;
mod disk;
mod domain;
mod findings;
mod gate;
mod keys;
mod launch;
mod libvirt;
mod monitor;
mod removal;
mod server;
mod tap;
mod tuning;
mod vhost;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use xmltree::Element;

pub use self::{
    agent::Agent,
    gate::check_device as check_kvm,
    libvirt::PACKAGES,
    libvirt::is_installed as has_libvirt,
    removal::{give_back, remove, restore},
    tap::TUN,
};

use self::{
    command_line::Qemu,
    libvirt::{EMBEDDED, Libvirt, NONE},
    tuning::Layout,
};
use super::{
    Bench, Engine, Host, Key, Server, image,
    ns::network::{Network, Shape, Wanted},
};
use crate::{
    engine::configuration::Configuration,
    finding::Finding,
    guest::Kernel,
    injection::Kind,
    ledger::PROGRAMS,
    workload::{Settings, Tool, Workload},
};
use virtax_model::{
    counts::Accelerator,
    error::{Error, Result},
};
use virtax_probes::process::allowed_cpus;

/// See the module: one kind of processor.
pub struct Vm {
    summary: &'static str,
    accelerator: Accelerator,
}

/// What users want of how VMs are started.
#[derive(Debug, Clone, Default)]
pub struct VmOptions {
    /// libvirt's address, or "none" for QEMU without libvirt; `None`: libvirt's driver embedded, where there is one
    /// and the VM is one of libvirt's.
    pub connect: Option<String>,
    /// Their own part of the domain.
    pub snippet: Option<Element>,
}

/// Who starts a VM.
enum Starter {
    /// virtax.
    Itself,
    /// libvirt.
    Libvirt(Libvirt),
}

impl fmt::Display for Starter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => formatter.write_str("virtax"),
            Self::Libvirt(libvirt) => formatter.write_str(&libvirt.name()),
        }
    }
}

/// VMs with an emulated processor.
pub static TCG: Vm = Vm {
    summary: "a virtual machine of QEMU's with an emulated processor: no evidence of KVM's cost",
    accelerator: Accelerator::Tcg,
};

/// VMs with the hardware's virtualization.
pub static KVM: Vm = Vm { summary: "a virtual machine of QEMU's, by the kernel's KVM", accelerator: Accelerator::Kvm };

/// QEMU.
pub const QEMU: Tool = Tool { name: "qemu-system-x86_64", package: "qemu-system-x86" };
/// What makes images in QEMU's own format.
const QEMU_IMG: Tool = Tool { name: "qemu-img", package: "qemu-utils" };

impl Engine for Vm {
    fn name(&self) -> &'static str {
        self.accelerator.name()
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn keys(&self) -> &'static [Key] {
        &keys::KEYS
    }
    fn presets(&self) -> &'static [(&'static str, &'static str)] {
        &keys::PRESETS
    }
    fn accelerator(&self) -> Option<Accelerator> {
        Some(self.accelerator)
    }
    fn suits(&self, configuration: &Configuration, workload: &dyn Workload, settings: &Settings) -> Result<()> {
        let Some(files) = workload.files() else { return Ok(()) };
        let refuse = |why| Err(Error::Usage(format!("`{configuration}` {why}")));
        if files.folder(settings).to_string_lossy().contains(',') {
            return refuse(
                "cannot have its disk in a folder with a comma in its name, which QEMU takes for its own: name another `folder`",
            );
        }
        if configuration.key("blk") == "none" {
            return refuse("has no disk for files: add blk=virtio, or blk=nvme");
        }
        if configuration.key("agent") == "off" || configuration.key("net") == "user" {
            return refuse(
                "has nobody who sees operations of files in the guest: take agent=on, and net=tap or net=nat",
            );
        }
        Ok(())
    }
    fn needs(&self, configuration: &Configuration, workload: &dyn Workload) -> Result<()> {
        if configuration.key("blk") != "none" && workload.files().is_some() {
            image::MKFS.find_of_root()?;
        }
        if configuration.key("image") == "qcow2" {
            QEMU_IMG.find_of_root()?;
        }
        Ok(())
    }
    fn findings(&self) -> Vec<Finding> {
        findings::of(self.accelerator)
    }
    fn check(&self, configuration: &Configuration) -> Result<()> {
        if configuration.key("vhost") == "on" && configuration.key("net") == "user" {
            return Err(Error::Usage(format!("`{configuration}`: vhost=on needs a tap: net=tap or net=nat")));
        }
        if configuration.key("halt-poll") != "auto" && self.accelerator != Accelerator::Kvm {
            return Err(Error::Usage(format!("`{configuration}`: only KVM polls: leave halt-poll out")));
        }
        disk::check(configuration)
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
        let kind = match self.accelerator {
            Accelerator::Tcg => "virtual",
            Accelerator::Kvm => "KVM",
        };
        let caveat = self.accelerator.caveat().map_or(String::new(), |caveat| format!(" ({caveat})"));
        format!("a {kind} machine behind {net}{caveat}")
    }
    fn prepare(&self, bench: &Bench, configurations: &[Configuration]) -> Result<Box<dyn Host>> {
        let program = QEMU.find()?;
        if self.accelerator == Accelerator::Kvm {
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
                let network = Network::create(bench, bench.next_segment(), bench.port_of(configuration), wanted)?;
                networks.insert(configuration.to_string(), Rc::new(network));
            }
        }
        let libvirt = find_libvirt(bench, &folder, self.accelerator, configurations)?;
        let qemu = Qemu { program, folder, accelerator: self.accelerator };
        Ok(Box::new(Prepared {
            qemu,
            kernels,
            networks,
            starters: [Starter::Itself].into_iter().chain(libvirt).collect(),
        }))
    }
}

/// Why libvirt cannot start a VM, whatever libvirt it is.
fn beyond_libvirt(configuration: &Configuration, accelerator: Accelerator) -> Option<&'static str> {
    if configuration.key("machine") == "microvm" {
        return Some("libvirt knows no microvm");
    }
    if configuration.key("blk") == "nvme" {
        return Some("libvirt knows no emulated NVMe");
    }
    // See [`command_line::words_of`].
    let several = accelerator == Accelerator::Tcg && configuration.key("vcpus") != "1";
    several.then_some("its emulated processors have to share a thread, and libvirt has no word for that")
}

/// The libvirt of a run, if it is to have one.
fn find_libvirt(
    bench: &Bench,
    folder: &Path,
    accelerator: Accelerator,
    configurations: &[Configuration],
) -> Result<Option<Starter>> {
    let wishes = &bench.vms;
    let beyond = |configuration: &Configuration| beyond_libvirt(configuration, accelerator);
    let found = match wishes.connect.as_deref() {
        Some(NONE) => return Ok(None),
        None if wishes.snippet.is_none() => {
            if configurations.iter().all(|configuration| beyond(configuration).is_some()) {
                return Ok(None);
            }
            if !libvirt::is_installed() {
                return Ok(None);
            }
            // Nobody has asked for it; but it is there.
            Libvirt::find(bench, folder, EMBEDDED)
                .inspect_err(|error| log::warn!("virtual machines are started without libvirt: {error}"))
                .ok()
        }
        named => {
            if let Some((why, configuration)) = configurations.iter().find_map(|one| Some((beyond(one)?, one))) {
                return Err(Error::Usage(format!("`{configuration}`: {why}; or leave `--connect` and `--domain` out")));
            }
            let has_cpu = wishes.snippet.as_ref().is_some_and(|snippet| snippet.get_child("cpu").is_some());
            if let Some(configuration) = configurations.iter().find(|one| has_cpu && one.key("topology") == "host") {
                return Err(Error::Usage(format!(
                    "`{configuration}`: the <cpu> of `--domain` takes the place of topology=host"
                )));
            }
            Some(Libvirt::find(bench, folder, named.unwrap_or(EMBEDDED))?)
        }
    };
    Ok(found.map(Starter::Libvirt))
}

/// The domain that libvirt is given for a configuration, with the names of a run that has not begun; `snippet`: the
/// user's part.
///
/// # Errors
/// [`Error::Usage`] if libvirt cannot start such a VM.
pub fn domain_xml(configuration: &Configuration, snippet: Option<&Element>) -> Result<String> {
    let engine = [&TCG, &KVM].into_iter().find(|engine| engine.name() == configuration.engine);
    let Some(Vm { accelerator, .. }) = engine else {
        return Err(Error::Usage(format!("`{configuration}` is no virtual machine: take tcg or kvm")));
    };
    if let Some(why) = beyond_libvirt(configuration, *accelerator) {
        return Err(Error::Usage(format!("`{configuration}`: {why}; virtax starts QEMU itself")));
    }
    let file = |name: &str| format!("{PROGRAMS}/RUN/{name}");
    // As a run may choose them.
    let at = |last| Ipv4Addr::new(198, 18, 1, last);
    let reached = |last| SocketAddrV4::new(at(last), 7000);
    let user = command_line::UserNetwork { from: reached(1), to: reached(18), gateway: at(17) }.words();
    let is_tap = configuration.key("net") != "user";
    let agent = (is_tap && configuration.key("agent") == "on").then(|| file("agent-0"));
    let names = domain::Names {
        domain: "virtax-RUN-0",
        qemu: &format!("/usr/bin/{}", QEMU.name),
        kernel: &file("vmlinuz-0"),
        initial: &file("initial-0"),
        console: &format!("{}/RUN/console.log", crate::ledger::RUNS),
        agent: agent.as_deref(),
        disk: None,
        card: if is_tap { domain::Card::Tap("vxRUNt0") } else { domain::Card::User(&user) },
    };
    let disk = (configuration.key("blk") != "none").then(|| file("disk-0"));
    let names = domain::Names { disk: disk.as_deref(), ..names };
    let layout = Layout::of(configuration, &allowed_cpus()?);
    let mut described = domain::describe(configuration, *accelerator, &layout, &names);
    snippet.into_iter().for_each(|snippet| domain::merge(&mut described, snippet));
    domain::print(&described)
}

/// # Errors
/// [`Error::Usage`] if a domain's part is given and no libvirt is to have it.
pub fn check(wishes: &VmOptions) -> Result<()> {
    match (wishes.connect.as_deref(), &wishes.snippet) {
        (Some(NONE), Some(_)) => Err(Error::Usage(format!("`--domain` is for libvirt: leave `--connect {NONE}` out"))),
        _ => Ok(()),
    }
}

/// Whether a text can be a user's part of a domain.
///
/// # Errors
/// [`Error::Usage`] if what it holds cannot be used.
pub fn understand_snippet(text: &str) -> Result<()> {
    domain::parse_snippet(text).map(drop)
}

/// Reads a user's part of a domain.
///
/// # Errors
/// If the file cannot be read, or what it holds cannot be used.
pub fn read_snippet(path: &Path) -> Result<Element> {
    let text = fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
    domain::parse_snippet(&text)
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
    qemu: Qemu,
    kernels: BTreeMap<String, Kernel>,
    networks: BTreeMap<String, Rc<Network>>,
    /// virtax, and libvirt where there is one.
    starters: Vec<Starter>,
}

impl Host for Prepared {
    fn start(&mut self, bench: &Bench, configuration: &Configuration) -> Result<Box<dyn Server>> {
        let network = self.networks.get(&configuration.to_string());
        let kernel = self
            .kernels
            .get(configuration.key("kernel"))
            .ok_or_else(|| Error::Usage(format!("`{configuration}` was not prepared")))?;
        let by_libvirt = beyond_libvirt(configuration, self.qemu.accelerator).is_none();
        let starter = self.starters.iter().rfind(|starter| by_libvirt || matches!(starter, Starter::Itself));
        server::start(bench, configuration, &self.qemu, kernel, network, starter.unwrap_or(&Starter::Itself))
    }
}

/// Files of one guest.
#[derive(Clone)]
struct Files {
    kernel: PathBuf,
    console: PathBuf,
    initial: PathBuf,
    disk: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use crate::engine::configuration::parse;

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
            "kvm:blk=virtio,cache=writeback",
            "kvm:blk=scsi",
        ]
        .map(|text| {
            let said = parse(text).map_or_else(|error| error.to_string(), |(parsed, _)| parsed.to_string());
            format!("{text:<34} {said}")
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
