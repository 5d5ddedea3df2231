//! libvirt's description of a VM (<https://libvirt.org/formatdomain.html>), and what users change of it.

use xmltree::{Element, EmitterConfig, XMLNode};

use super::{command_line::KERNEL_LINE, tuning::Layout};
use crate::engine::configuration::Configuration;
use virtax_agent::wire;
use virtax_model::{
    counts::Accelerator,
    error::{Error, Result},
};

/// What differs from VM to VM, as libvirt is to name it.
pub struct Names<'a> {
    /// The domain's own.
    pub domain: &'a str,
    /// QEMU.
    pub qemu: &'a str,
    /// The guest's kernel.
    pub kernel: &'a str,
    /// Initial file system of the guest.
    pub initial: &'a str,
    /// Where its console is written.
    pub console: &'a str,
    /// The socket of its agent, if it has one.
    pub agent: Option<&'a str>,
    /// The image of its disk, if it has one.
    pub disk: Option<&'a str>,
    /// Card of the guest.
    pub card: Card<'a>,
}

/// How libvirt joins a guest to the rest.
#[derive(Debug, Clone, Copy)]
pub enum Card<'a> {
    /// A tap that is there.
    Tap(&'a str),
    /// QEMU's own network, in QEMU's words: libvirt 9 has none for ports that are forwarded.
    User(&'a str),
}

/// An element with attributes.
fn element(name: &str, attributes: &[(&str, &str)]) -> Element {
    let mut element = Element::new(name);
    element.attributes.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    element
}

/// An element with a text.
fn text(name: &str, content: &str) -> Element {
    with(Element::new(name), [XMLNode::Text(content.to_owned())])
}

fn with(mut element: Element, children: impl IntoIterator<Item = XMLNode>) -> Element {
    element.children.extend(children);
    element
}

fn nest(element: Element, children: impl IntoIterator<Item = Element>) -> Element {
    with(element, children.into_iter().map(XMLNode::Element))
}

/// The domain of a configuration.
#[must_use]
pub fn describe(
    configuration: &Configuration,
    accelerator: Accelerator,
    layout: &Layout,
    names: &Names<'_>,
) -> Element {
    let (kind, cpu) = match accelerator {
        Accelerator::Tcg => ("qemu", element("cpu", &[("mode", "maximum")])),
        Accelerator::Kvm => ("kvm", element("cpu", &[("mode", "host-passthrough")])),
    };
    let mut memory = text("memory", configuration.key("memory"));
    memory.attributes.insert("unit".to_owned(), "MiB".to_owned());
    let system = nest(
        Element::new("os"),
        [
            with(
                element("type", &[("arch", "x86_64"), ("machine", configuration.key("machine"))]),
                [XMLNode::Text("hvm".to_owned())],
            ),
            text("kernel", names.kernel),
            text("initrd", names.initial),
            text("cmdline", KERNEL_LINE),
        ],
    );
    // A guest that gives up is not to begin again.
    let ends = ["on_poweroff", "on_reboot", "on_crash"].map(|event| text(event, "destroy"));
    let mut domain = nest(
        element("domain", &[("type", kind)]),
        [
            text("name", names.domain),
            memory,
            text("vcpu", configuration.key("vcpus")),
            system,
            nest(Element::new("features"), [Element::new("acpi"), Element::new("apic")]),
            nest(cpu, processors(layout)),
        ]
        .into_iter()
        .chain(memory_backing(layout))
        .chain(names.disk.map(|_| text("iothreads", "1")))
        .chain(ends)
        .chain([nest(Element::new("devices"), devices(configuration, names))]),
    );
    if let Card::User(words) = names.card {
        let mut namespace = xmltree::Namespace::empty();
        namespace.put("qemu", "http://libvirt.org/schemas/domain/qemu/1.0");
        domain.namespaces = Some(namespace);
        domain.children.push(XMLNode::Element(commandline(&[
            "-netdev",
            words,
            "-device",
            "virtio-net-pci,netdev=net0,romfile=,addr=0x10",
        ])));
    }
    domain
}

fn processors(layout: &Layout) -> Vec<Element> {
    let [sockets, cores, threads] = layout.processors.map(|count| count.to_string());
    let topology = [("sockets", sockets.as_str()), ("dies", "1"), ("cores", &cores), ("threads", &threads)];
    let caches = layout.caches.then(|| element("cache", &[("mode", "passthrough")]));
    [element("topology", &topology)].into_iter().chain(caches).collect()
}

fn memory_backing(layout: &Layout) -> Vec<Element> {
    let huge = layout.huge_pages.then(|| {
        // With a size, libvirt needs no mounted hugetlbfs.
        let pages = nest(Element::new("hugepages"), [element("page", &[("size", "2048"), ("unit", "KiB")])]);
        nest(Element::new("memoryBacking"), [pages, element("source", &[("type", "memfd")])])
    });
    let nodes = layout.node_list();
    let bound = (!nodes.is_empty()).then(|| {
        nest(Element::new("numatune"), [element("memory", &[("mode", "strict"), ("nodeset", nodes.as_str())])])
    });
    huge.into_iter().chain(bound).collect()
}

fn devices(configuration: &Configuration, names: &Names<'_>) -> Vec<Element> {
    let mut devices = vec![
        text("emulator", names.qemu),
        element("controller", &[("type", "usb"), ("model", "none")]),
        nest(element("serial", &[("type", "file")]), [element("source", &[("path", names.console)])]),
        nest(
            element("rng", &[("model", "virtio")]),
            [with(element("backend", &[("model", "random")]), [XMLNode::Text("/dev/urandom".to_owned())])],
        ),
        element("memballoon", &[("model", "none")]),
    ];
    if let Some(socket) = names.agent {
        devices.push(nest(
            element("channel", &[("type", "unix")]),
            [
                element("source", &[("mode", "bind"), ("path", socket)]),
                element("target", &[("type", "virtio"), ("name", wire::PORT)]),
            ],
        ));
    }
    if let Some(image) = names.disk {
        let driver = [
            ("name", "qemu"),
            ("type", configuration.key("image")),
            ("cache", configuration.key("cache")),
            ("io", configuration.key("aio")),
            ("iothread", "1"),
        ];
        devices.push(nest(
            element("disk", &[("type", "file"), ("device", "disk")]),
            [
                element("driver", &driver),
                element("source", &[("file", image)]),
                element("target", &[("dev", "vda"), ("bus", "virtio")]),
            ],
        ));
    }
    if let Card::Tap(tap) = names.card {
        let driver = if configuration.key("vhost") == "on" { "vhost" } else { "qemu" };
        devices.push(nest(
            element("interface", &[("type", "ethernet")]),
            [
                element("target", &[("dev", tap), ("managed", "no")]),
                element("model", &[("type", "virtio")]),
                element("driver", &[("name", driver)]),
                element("rom", &[("enabled", "no")]),
            ],
        ));
    }
    devices
}

/// QEMU's own words, behind libvirt's.
fn commandline(words: &[&str]) -> Element {
    let argument = |word: &&str| {
        let mut argument = element("arg", &[("value", word)]);
        argument.prefix = Some("qemu".to_owned());
        argument
    };
    let mut whole = nest(Element::new("commandline"), words.iter().map(argument));
    whole.prefix = Some("qemu".to_owned());
    whole
}

/// Reads a user's part of a domain: a `<domain>` with some of its elements.
///
/// # Errors
/// [`Error::Usage`] if it is not that, or would change what virtax itself has to set.
pub fn parse_snippet(snippet: &str) -> Result<Element> {
    let refuse = |why: String| Error::Usage(format!("the domain's part cannot be used: {why}"));
    let parsed = Element::parse(snippet.as_bytes()).map_err(|error| refuse(error.to_string()))?;
    if parsed.name != "domain" {
        return Err(refuse(format!("it is a <{}>, not a <domain>", parsed.name)));
    }
    let children = || parsed.children.iter().filter_map(XMLNode::as_element);
    // By these, virtax finds the VM, boots it, places it, and says what it measured.
    match children().find(|child| {
        ["name", "uuid", "os", "memory", "currentMemory", "vcpu", "cputune"].contains(&child.name.as_str())
    }) {
        None if children().next().is_none() => Err(refuse("it is empty".to_owned())),
        None => Ok(parsed),
        Some(child) => Err(refuse(format!(
            "<{}> is virtax's own: keys of the configuration set it, where anything does",
            child.name
        ))),
    }
}

/// Puts a user's part in: an element takes the place of virtax's own of that name; devices come beside virtax's.
pub fn merge(domain: &mut Element, snippet: &Element) {
    if let Some(theirs) = &snippet.namespaces {
        let ours = domain.namespaces.get_or_insert_with(xmltree::Namespace::empty);
        for (prefix, uri) in theirs {
            ours.put(prefix, uri);
        }
    }
    for child in snippet.children.iter().filter_map(XMLNode::as_element) {
        match domain.get_mut_child(child.name.as_str()) {
            Some(ours) if child.name == "devices" || child.name == "commandline" => {
                ours.children.extend(child.children.iter().filter(|node| node.as_element().is_some()).cloned());
            }
            Some(ours) => *ours = child.clone(),
            None => domain.children.push(XMLNode::Element(child.clone())),
        }
    }
}

/// The domain as a file has it.
///
/// # Errors
/// If it cannot be written, which cannot happen for what was read.
pub fn print(domain: &Element) -> Result<String> {
    let mut bytes = Vec::new();
    let style = EmitterConfig::new().perform_indent(true).indent_string("  ").write_document_declaration(false);
    domain
        .write_with_config(&mut bytes, style)
        .map_err(|error| Error::Usage(format!("the domain cannot be written: {error}")))?;
    String::from_utf8(bytes).map_err(|error| Error::Usage(format!("the domain cannot be written: {error}")))
}
