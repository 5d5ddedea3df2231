//! VMs, for real: QEMU with an emulated processor, a guest that virtax builds.

use std::{fs, path::Path, process::Command, sync::mpsc, thread::JoinHandle, time::Duration};

use crate::common::{
    Feature, Out, Running, Traces, alone, check, full, has, is_there, is_wanted_in_full, of, run_workload, text,
    virtax, wait_until,
};
use profiler::result::ConfigurationResult;
use profiler_common::Counter;

/// Guests take long to boot: one repetition of each.
const SHORT: [&str; 6] = ["--rounds", "1", "--duration", "1.2", "--placement", "split"];

fn ready() -> bool {
    has(Feature::Probes) && has(Feature::Vm)
}

/// ns per operation in the VM: from the request's hand-over to the tap until the answer comes from there, the
/// boundary and what the guest's agent saw.
fn in_vm(configuration: &ConfigurationResult) -> f64 {
    let in_guest = configuration.stages.iter().filter(|stage| stage.label.contains("(guest)"));
    boundary(configuration) + in_guest.map(|stage| stage.ns_per_op).sum::<f64>()
}

fn boundary(configuration: &ConfigurationResult) -> f64 {
    let once = |id: &str| {
        let stage = configuration.stages.iter().find(|stage| stage.id == id);
        let stage = stage.unwrap_or_else(|| panic!("{id}: {:?}", configuration.stages));
        assert!((stage.count_per_op - 1.0).abs() < 0.05, "{}: {}", stage.id, stage.count_per_op);
        stage.ns_per_op
    };
    // QEMU takes every request out of the tap before it can answer it.
    assert!(once("request/xmit(tap@host)→taken") > 0.0);
    once("request/taken→receive(tap@host)")
}

pub fn requests_are_followed_into_a_guest_and_out_of_it() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    // Each VM takes its time to start.
    let all = if full() {
        "native,ns:net=veth,tcg,tcg:agent=off,tcg:net=nat,tcg:net=user"
    } else {
        "native,tcg,tcg:net=user"
    };
    let result = run_workload("tcp-rr", &out, &[&["--in", all], &SHORT[..]].concat());
    assert_eq!(before, Traces::now());
    for configuration in &result.configurations {
        check(configuration);
    }
    let tap = of(&result, "tcg:net=tap");
    assert!(in_vm(tap) > 0.5 * tap.traced_latency.mean_ns, "{}", in_vm(tap));
    check_inside(tap);
    if full() {
        in_vm(of(&result, "tcg:net=nat"));
        check_inside(of(&result, "tcg:net=nat"));
        // Without its agent, a VM is one row.
        let silent = of(&result, "tcg:net=tap,agent=off");
        assert!(silent.stages.iter().all(|stage| !stage.label.contains("(guest)")), "{:?}", silent.stages);
        assert!(boundary(silent) > 0.0 && !silent.settings.contains_key("guest_agent"));
    }
    // QEMU itself is the server there.
    let user = of(&result, "tcg:net=user");
    assert!(user.stages.iter().any(|stage| stage.id == "request/received→send"), "{:?}", user.stages);
    let setting = |name: &str| tap.settings.get(name).map_or("", String::as_str);
    assert_eq!((setting("accelerator"), setting("machine")), ("tcg", "q35"));
    if is_there(Feature::Libvirt) {
        let started_by = setting("started_by");
        assert!(started_by.starts_with("libvirt ") && started_by.ends_with("qemu:///embed"), "{started_by}");
    }
    // Wherever it is shown: tables, warnings, pictures.
    let report = virtax().arg("report").arg(out.path()).output().unwrap();
    assert!(text(&report.stdout).contains("\ntcg:net=tap (emulated: no evidence of KVM's cost)\n"));
    let picture = fs::read_to_string(out.path().join("latency.tcg-net-tap.svg")).unwrap();
    assert!(picture.contains("no evidence of KVM") && picture.contains("server@guest"));
    let picture = fs::read_to_string(out.path().join("cpu.tcg-net-tap.svg")).unwrap();
    assert!(picture.contains("guest"), "{picture}");
    let picture = fs::read_to_string(out.path().join("off-cpu.tcg-net-tap.svg")).unwrap();
    assert!(picture.contains("server@guest"), "{picture}");
    let stacks = fs::read_to_string(out.path().join("off-cpu.tcg-net-tap.folded")).unwrap();
    let woken = stacks.lines().filter(|line| line.contains(";server@guest;") && line.contains("woken by"));
    assert!(woken.count() > 0, "{stacks}");
    // The first of them may have started while this host did something else.
    let ready = result.configurations.iter().filter_map(|configuration| configuration.settings.get("guest_ready"));
    let seconds: Vec<f64> = ready.map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
    let vms = if full() { 4 } else { 2 };
    assert!(seconds.len() == vms && seconds.iter().any(|seconds| (0.1..5.0).contains(seconds)), "{seconds:?}");
    let emulated: Vec<_> = result.warnings.iter().filter(|warning| warning.name == "emulated").collect();
    assert_eq!(emulated.len(), vms);
    assert!(emulated[0].text.contains("no evidence of KVM's cost"));
}

/// The guest's stages, from its card to the server and back to the card, once an operation each.
fn check_inside(configuration: &ConfigurationResult) {
    let state = &configuration.settings["guest_agent"];
    assert!(state.starts_with("on "), "{state}");
    for id in ["request/ready→received", "request/received→send", "response/send→xmit(eth0@guest)"] {
        let stage = configuration.stages.iter().find(|stage| stage.id == id);
        let stage = stage.unwrap_or_else(|| panic!("{id}: {:?}", configuration.stages));
        assert!(stage.label.contains("(guest)") && stage.ns_per_op > 0.0, "{stage:?}");
        // The guest's probes are not free, and the agent knows what they cost.
        assert!((0.0..stage.ns_per_op).contains(&stage.corrected_ns_per_op), "{stage:?}");
        assert!((stage.count_per_op - 1.0).abs() < 0.05, "{stage:?}");
    }
    // And what they consist of, by stacks that were taken there.
    let sampled: u64 = configuration
        .stages
        .iter()
        .filter(|stage| stage.label.contains("(guest)"))
        .flat_map(|stage| &stage.layers)
        .map(|layer| layer.samples)
        .sum();
    assert!(sampled > 0 && configuration.cpu_layers.iter().any(|layer| layer.role == "guest"), "{sampled}");
    let arrives = |stage: &&profiler::result::StageResult| stage.id.starts_with("request/receive(eth0@guest)→");
    let arrived: f64 = configuration.stages.iter().filter(arrives).map(|stage| stage.count_per_op).sum();
    assert!((arrived - 1.0).abs() < 0.05, "{arrived}");
}

pub fn many_connections_into_a_guest_keep_their_own_tokens() {
    let _alone = alone();
    if !is_wanted_in_full() || !ready() || !has(Feature::Redis) {
        return;
    }
    let connections = ["--in", "tcg", "--set", "connections=16", "--set", "request=300"];
    check(&run_workload("tcp-rr", &Out::new(), &[&connections, &SHORT[..]].concat()).configurations[0]);
    let clients = ["--in", "tcg:vcpus=2,memory=1024", "--set", "clients=10"];
    let result = run_workload("redis-set", &Out::new(), &[&clients, &SHORT[..]].concat());
    check(&result.configurations[0]);
    in_vm(&result.configurations[0]);
}

/// Losses on the way into a guest are counted at their causes: a full table, and segments that the router drops,
/// which come again.
pub fn losses_on_the_way_into_a_guest_are_named() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let starved = ["--in", "tcg:agent=off", "--set", "connections=16", "--starve", "connections=2056"];
    let result = run_workload("tcp-rr", &Out::new(), &[&starved, &SHORT[..]].concat());
    let losses = &result.configurations[0].losses;
    let lost: u64 = losses.lost.values().sum();
    assert!(losses.lost["connection_table_full"] > 0, "{losses:?}");
    assert_eq!(lost, losses.lost["connection_table_full"], "{losses:?}");
    assert_eq!(losses.followed, losses.completed + losses.unfinished + lost, "{losses:?}");
}

/// Does something in a run's router, as soon as that can be done; it goes with the router.
struct InRouter(mpsc::Sender<()>, JoinHandle<bool>);

impl InRouter {
    fn once(program: &'static str, arguments: &'static str) -> Self {
        let (sender, stop) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while stop.recv_timeout(Duration::from_millis(20)).is_err() {
                let namespaces = profiler::net::namespaces_named("virtax-");
                let Some(router) = namespaces.iter().find(|name| name.contains("-router")) else { continue };
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{router}")).arg(program).args(arguments.split(' '));
                if command.output().is_ok_and(|output| output.status.success()) {
                    return true;
                }
            }
            false
        });
        Self(sender, thread)
    }

    /// Whether it came to be done.
    fn done(self) -> bool {
        let _ = self.0.send(());
        self.1.join().unwrap_or(false)
    }
}

/// One of the longer tests. Segments that do not get into the guest come again, and their requests' tokens with them:
/// dropped by the router, and by a tap whose queue is full.
pub fn segments_that_are_dropped_before_the_guest_stay_in_the_books() {
    let _alone = alone();
    if !is_wanted_in_full() || !ready() {
        return;
    }
    let rule = "--wait -I FORWARD -p tcp --dport 7000 -m statistic --mode nth --every 200 --packet 0 -j DROP";
    let cases = [
        ("iptables", rule, "request/receive(wire@host)→dropped"),
        ("ip", "link set tap0 txqueuelen 4", "request/xmit(tap@host)→dropped"),
    ];
    for (program, arguments, row) in &cases {
        let doing = InRouter::once(program, arguments);
        let arguments = [
            "--in",
            "tcg:agent=off",
            "--rounds",
            "1",
            "--duration",
            "2",
            "--placement",
            "split",
            "--set",
            "connections=16",
        ];
        let result = run_workload("tcp-rr", &Out::new(), &arguments);
        assert!(doing.done(), "{program}");
        let found = &result.configurations[0];
        assert!(found.counters.of(Counter::Drops) > 0, "{:?}", found.counters);
        assert_eq!(found.losses.lost.values().sum::<u64>(), 0, "{:?}", found.losses);
        assert!(found.conservation_percent.abs() <= 0.5, "{}", found.conservation_percent);
        let has_row = found.stages.iter().any(|stage| stage.id == *row && stage.ns_per_op > 0.0);
        assert!(has_row, "{row}: {:#?}", found.stages);
    }
}

/// Ctrl-C, and `kill -9` with `virtax clean` after it, while the guest boots and while it is measured.
pub fn guests_that_are_interrupted_or_killed_leave_nothing() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    for step in ["step: server", "step: traced phase"] {
        for signal in [libc::SIGINT, libc::SIGKILL] {
            let out = Out::new();
            let mut run = Running::of(&out, &["--in", "tcg,tcg:net=user", "--rounds", "1", "--duration", "0.6"]);
            run.wait_for(step);
            // Into the boot, too.
            std::thread::sleep(Duration::from_millis(if signal == libc::SIGINT { 900 } else { 300 }));
            run.signal(signal);
            let (code, said) = run.end();
            if signal == libc::SIGKILL {
                assert_eq!(code, None, "{said}");
                let output = virtax().arg("clean").output().unwrap();
                assert!(output.status.success(), "{}", text(&output.stderr));
            } else {
                assert_eq!(code, Some(130), "{said}");
            }
            // The kernel lets go of a killed process's programs some time later.
            wait_until(&format!("nothing left after {step}, signal {signal}"), || Traces::now() == before);
        }
    }
}

/// `virtax run tcp-rr --in tcg` with this kernel folder: its exit code, and what it said.
fn refusal(kernel: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let out = Out::new();
    let mut command = virtax();
    command.args(["run", "tcp-rr", "--rounds", "1", "--duration", "0.4", "--out"]).arg(out.path());
    let output = command.args(arguments).env("VIRTAX_GUEST_KERNEL", kernel).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

pub fn guests_that_do_not_start_are_explained() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let kernel = profiler::guest::Kernel::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = refusal(folder.path(), &["--in", "tcg"]);
    assert!(code == Some(3) && said.contains("without boot/vmlinuz-*"), "{code:?}: {said}");
    fs::create_dir_all(folder.path().join("boot")).unwrap();
    fs::write(folder.path().join("boot/vmlinuz-1"), "text").unwrap();
    let (code, said) = refusal(folder.path(), &["--in", "tcg"]);
    assert!(code == Some(3) && said.contains("is no Linux kernel"), "{code:?}: {said}");
    let (code, said) = refusal(folder.path(), &["--in", "tcg:kernel=/nonexistent/vmlinuz"]);
    assert!(code == Some(6) && said.contains("/nonexistent/vmlinuz"), "{code:?}: {said}");
    // A kernel without its modules.
    let image = folder.path().join("boot").join(kernel.image.file_name().unwrap());
    fs::copy(&kernel.image, &image).unwrap();
    let (code, said) = refusal(folder.path(), &["--in", "tcg"]);
    assert!(code == Some(3) && said.contains("has no driver virtio"), "{code:?}: {said}");
    // One whose modules are none: the first process says which.
    let modules = folder.path().join("lib/modules").join(&kernel.release);
    fs::create_dir_all(modules.join("kernel")).unwrap();
    let builtin: String = profiler::guest::DRIVERS.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
    fs::write(modules.join("modules.builtin"), builtin).unwrap();
    let (code, said) = refusal(folder.path(), &["--in", "tcg"]);
    assert!(code == Some(4) && said.contains("virtax-failed: eth0: there is no such network card"), "{code:?}: {said}");
    assert_eq!(before, Traces::now());
}

/// Copies what the drivers of virtax's VMs can be made of.
fn copy_drivers(from: &Path, to: &Path) {
    for path in crate::common::files_below(from) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ["virtio", "failover", "rng", "modules.builtin"].iter().any(|part| name.contains(part)) {
            let folder = if name.contains(".ko") { to.join("kernel") } else { to.to_owned() };
            fs::copy(&path, folder.join(name)).unwrap();
        }
    }
}

/// A kernel that finds no first process, because there was no room for it: what it says of that is in the message.
pub fn a_kernel_that_panics_is_quoted() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let kernel = profiler::guest::Kernel::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("boot")).unwrap();
    fs::copy(&kernel.image, folder.path().join("boot").join(kernel.image.file_name().unwrap())).unwrap();
    let modules = folder.path().join("lib/modules").join(&kernel.release);
    fs::create_dir_all(modules.join("kernel")).unwrap();
    copy_drivers(&kernel.modules, &modules);
    // What stands behind the end of a module is nobody's; here it fills the memory.
    let driver = fs::OpenOptions::new().write(true).open(modules.join("kernel/virtio_net.ko")).unwrap();
    driver.set_len(100 << 20).unwrap();
    let (code, said) = refusal(folder.path(), &["--in", "tcg:memory=192"]);
    assert!(code == Some(4) && said.contains("Kernel panic"), "{code:?}: {said}");
    assert!(said.contains("QEMU ended"), "{said}");
    assert_eq!(before, Traces::now());
}

/// Anybody may use KVM while this lives.
struct OpenKvm(Option<u32>);

impl OpenKvm {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let before = fs::metadata("/dev/kvm").ok().map(|metadata| metadata.permissions().mode());
        if before.is_some() {
            fs::set_permissions("/dev/kvm", fs::Permissions::from_mode(0o666)).unwrap();
        }
        Self(before)
    }
}

impl Drop for OpenKvm {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        if let Some(mode) = self.0 {
            let _ = fs::set_permissions("/dev/kvm", fs::Permissions::from_mode(mode));
        }
    }
}

/// A KVM is believed only where a guest was entered and left; else the reason is said, and what to take instead.
pub fn kvm_is_proven_or_refused() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let _open = OpenKvm::new();
    let out = Out::new();
    let output =
        virtax().args(["run", "tcp-rr", "--in", "kvm", "--json", "--out"]).arg(out.path()).args(SHORT).output();
    let output = output.unwrap();
    let said = text(&output.stderr);
    if output.status.success() {
        let result: profiler::result::RunResult = serde_json::from_slice(&output.stdout).unwrap();
        assert!(result.configurations[0].exits.iter().any(|exit| exit.count > 0), "{:?}", result.configurations[0]);
    } else {
        assert_eq!(output.status.code(), Some(3), "{said}");
        let reasons = [
            "there is no KVM here",
            "KVM executes no guest here",
            "nothing of what KVM does could be seen",
            "does not start under KVM",
        ];
        assert!(reasons.iter().any(|reason| said.contains(reason)) && said.contains("take `tcg`"), "{said}");
    }
    assert_eq!(before, Traces::now());
}

/// Something else stands where taps come from.
pub fn a_host_without_taps_is_explained() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let kernel = profiler::guest::Kernel::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = kernel.image.parent().and_then(Path::parent).unwrap();
    let mut command = Command::new("unshare");
    let hidden = "mount --bind /dev/null /dev/net/tun && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", hidden]).arg(env!("CARGO_BIN_EXE_virtax"));
    command.args(["run", "tcp-rr", "--in", "tcg", "--rounds", "1", "--duration", "0.4", "--out"]);
    let output = command.arg(folder.path().join("a")).env("VIRTAX_GUEST_KERNEL", root).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("there is no tap for a virtual machine"), "{said}");
    assert!(said.contains("modprobe tun"), "{said}");
    assert_eq!(before, Traces::now());
}

/// A VM that stops in the midst of a phase, its virtual processor with it.
pub fn a_vm_that_hangs_is_noticed_and_removed() {
    let _alone = alone();
    if !ready() {
        return;
    }
    let before = Traces::now();
    let out = Out::new();
    let mut run = Running::of(&out, &["--in", "tcg", "--rounds", "1", "--duration", "3"]);
    run.wait_for("step: traced phase");
    let qemu = run.qemu();
    // SAFETY: a process that the run has started.
    unsafe { libc::kill(qemu as i32, libc::SIGSTOP) };
    let (code, said) = run.end();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("guest's inside: it has not answered for"), "{said}");
    assert!(said.contains("no operation ended within") || said.contains("the client failed"), "{said}");
    wait_until("nothing left", || Traces::now() == before);
}
