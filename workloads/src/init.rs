//! The first process of a guest: loads drivers and does what the guest is there for, then takes the power off. A
//! server gets its network, and its being there is said; any other program gets what a distribution would have
//! mounted.

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread::sleep,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where a guest finds what it is to do.
pub const GUEST: &str = "/guest.json";
/// What its console says once the server answers, followed by the kernel's release, by how long it has been running,
/// in s, and by its disk, if it has one: `NAME:DRIVER:SECTORS:CACHE`.
pub const READY: &str = "virtax-ready";
/// What its console says of what went wrong.
pub const FAILED: &str = "virtax-failed:";
/// What it says when a program ([`Task::Execute`]) has ended, followed by the exit code.
pub const ENDED: &str = "virtax-ended:";
/// What it says of an agent that cannot be started, or has ended.
pub const AGENT_ENDED: &str = "virtax-agent-ended:";
/// Where such a program's output goes: the second serial line.
const OUTPUT: &str = "/dev/ttyS1";
/// What is on a guest's disk that is there for files.
pub const FILE_SYSTEM: &str = "ext4";
/// The guest's only network card.
const CARD: &CStrName = b"eth0\0";
/// User and group of the server: `nobody`.
const NOBODY: u32 = 65534;

type CStrName = [u8; 5];

/// What a guest is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Files of its drivers, in the order in which they load.
    pub drivers: Vec<PathBuf>,
    /// What it is there for.
    pub task: Task,
}

/// What a guest is there for; with the end of it, its power goes off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Being a server behind its network card.
    Serve(Serve),
    /// Executing a program, as root, in a VM set up as a distribution's would be.
    Execute(Execute),
}

/// A server and its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// Address of the card.
    pub address: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Where all else is reached.
    pub gateway: Ipv4Addr,
    /// Port that the server listens on.
    pub port: u16,
    /// The server's program.
    pub program: PathBuf,
    /// The server's arguments.
    pub arguments: Vec<String>,
    /// The program that follows requests in the guest, if it is to be there.
    pub agent: Option<PathBuf>,
    /// Whether it has a disk, which comes some time after its driver.
    pub has_disk: bool,
    /// Where its disk's file system is mounted, for files that the server reads and writes.
    pub data: Option<PathBuf>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// The program; what it prints goes to the second serial line.
    pub program: PathBuf,
    /// Arguments of the program.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// Does all that, and never returns while the guest lives.
pub fn run() -> ! {
    let said = start().unwrap_or_else(|error| format!("{FAILED} {error}"));
    println!("{said}");
    let _ = io::stdout().flush();
    // The console is slower than the power button.
    sleep(Duration::from_millis(50));
    // SAFETY: no pointers.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    std::process::exit(1)
}

/// The guest's last words.
fn start() -> io::Result<String> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        about(place, mount(kind, place))?;
    }
    let text = about(GUEST, fs::read(GUEST))?;
    let guest: Guest = serde_json::from_slice(&text)?;
    for driver in &guest.drivers {
        about(&driver.display().to_string(), load(driver))?;
    }
    about("lo", take_up(b"lo\0\0\0", Ipv4Addr::LOCALHOST, 8))?;
    match guest.task {
        Task::Serve(task) => serve(&task).map(|status| format!("{FAILED} the server ended ({status})")),
        Task::Execute(task) => execute(&task).map(|code| format!("{ENDED} {code}")),
    }
}

fn serve(guest: &Serve) -> io::Result<ExitStatus> {
    about("eth0", await_card().and_then(|()| take_up(CARD, guest.address, guest.prefix)))?;
    about("route", route_through(guest.gateway))?;
    let disk = if guest.has_disk { about("disk", await_disk())? } else { String::new() };
    if let Some(data) = &guest.data {
        let device = format!("/dev/{}", disk.split(':').next().unwrap_or_default());
        about(&device, mount_from(&device, FILE_SYSTEM, &data.display().to_string()))?;
        about("data", fs::set_permissions(data, fs::Permissions::from_mode(0o1777)))?;
    }
    let mut command = Command::new(&guest.program);
    command.args(&guest.arguments).current_dir("/tmp").uid(NOBODY).gid(NOBODY);
    let mut server = about(&guest.program.display().to_string(), command.spawn())?;
    while !is_listened_on(guest.port) {
        if let Some(status) = server.try_wait()? {
            return Ok(status);
        }
        sleep(Duration::from_millis(5));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    println!("{READY} {} {} {disk}", release.trim(), uptime.split(' ').next().unwrap_or_default());
    let agent = guest.agent.as_ref().map(|agent| {
        let of_files = guest.data.iter().map(|_| "--files".to_owned());
        Command::new(agent).args([server.id().to_string(), guest.port.to_string()]).args(of_files).spawn()
    });
    if let Some(Err(error)) = &agent {
        // Without it, the VM is one row: no reason to end.
        println!("{AGENT_ENDED} {error}");
    }
    loop {
        let (pid, status) = await_child()?;
        if pid == server.id() {
            return Ok(ExitStatus::from_raw(status));
        }
        if agent.iter().flatten().any(|agent| agent.id() == pid) {
            println!("{AGENT_ENDED} {}", ExitStatus::from_raw(status));
        }
    }
}

/// Whether somebody listens on a port, by the kernel's own list (proc(5), `/proc/net/tcp`): a server may take the
/// first who comes for its client.
fn is_listened_on(port: u16) -> bool {
    let listed = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    listed.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.get(1).and_then(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok());
        at == Some(port) && words.get(3) == Some(&"0A")
    })
}

/// Executes a program to its end; its exit code, 128 and more for a signal. Orphans that end meanwhile are laid to
/// rest.
fn execute(task: &Execute) -> io::Result<i32> {
    for (kind, place) in [("cgroup2", "/sys/fs/cgroup"), ("tracefs", "/sys/kernel/tracing")] {
        about(place, mount(kind, place))?;
    }
    for device in ["/dev/kvm", "/dev/vhost-net", "/dev/net/tun"] {
        // As a distribution would: whoever is there may use them.
        let _ = fs::set_permissions(device, fs::Permissions::from_mode(0o666));
    }
    let output = about(OUTPUT, fs::OpenOptions::new().write(true).open(OUTPUT).and_then(as_it_is))?;
    let mut command = Command::new(&task.program);
    command.args(&task.arguments).envs(task.environment.iter().map(|(name, value)| (name, value))).current_dir("/tmp");
    command.stdout(output.try_clone()?).stderr(output).stdin(std::process::Stdio::null());
    let program = about(&task.program.display().to_string(), command.spawn())?.id();
    loop {
        let (ended, status) = await_child()?;
        if ended == program {
            return Ok(if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            });
        }
    }
}

/// The next child that ends, of whomever: its number and status (waitpid(2)).
fn await_child() -> io::Result<(u32, i32)> {
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    let ended = done(unsafe { libc::waitpid(-1, &raw mut status, 0) }.into())?;
    Ok((ended as u32, status))
}

/// A terminal that passes on every byte as it is (termios(3)).
fn as_it_is(terminal: fs::File) -> io::Result<fs::File> {
    // SAFETY: all zeroes are a value of it; the pointers are to a local.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        done(libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings).into())?;
        libc::cfmakeraw(&raw mut settings);
        done(libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings).into())?;
        // A serial line knows no size.
        let size = libc::winsize { ws_row: 50, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        done(libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size).into())?;
    }
    Ok(terminal)
}

fn about<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn mount(kind: &str, place: &str) -> io::Result<()> {
    mount_from(kind, kind, place)
}

fn mount_from(source: &str, kind: &str, place: &str) -> io::Result<()> {
    let (source, kind, place) = (CString::new(source)?, CString::new(kind)?, CString::new(place)?);
    // SAFETY: the strings live as long as the call; no data.
    let result = unsafe { libc::mount(source.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    done(result.into()).map(drop)
}

fn load(driver: &Path) -> io::Result<()> {
    let file = fs::File::open(driver)?;
    // SAFETY: the descriptor and the empty string live as long as the call.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match done(result) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result.map(drop),
    }
}

/// The card comes some time after its driver.
fn await_card() -> io::Result<()> {
    for _ in 0..1000 {
        if Path::new("/sys/class/net/eth0").exists() {
            return Ok(());
        }
        sleep(Duration::from_millis(5));
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "there is no such network card"))
}

/// The disk, as the kernel's block layer has it.
fn await_disk() -> io::Result<String> {
    for _ in 0..1000 {
        for found in fs::read_dir("/sys/block")?.flatten() {
            let folder = found.path();
            // Disks in memory hang from no device. An NVMe disk hangs from its controller, and that from the bus.
            let links = ["device/driver", "device/device/driver"].map(|link| fs::read_link(folder.join(link)));
            let Some(driver) = links.into_iter().flatten().next() else { continue };
            let text = |file: &str| fs::read_to_string(folder.join(file)).map(|text| text.trim().replace(' ', "-"));
            let driver = driver.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = found.file_name().to_string_lossy().into_owned();
            return Ok(format!("{name}:{driver}:{}:{}", text("size")?, text("queue/write_cache")?));
        }
        sleep(Duration::from_millis(5));
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "there is none"))
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is new.
    unsafe { Ok(OwnedFd::from_raw_fd(done(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).into())? as i32)) }
}

fn address_of(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data; the kernel reads the one as the other.
    unsafe { std::mem::transmute(inet) }
}

/// Gives a card an address, and takes it up (netdevice(7)).
fn take_up(name: &CStrName, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let socket = socket()?;
    // SAFETY: all zeroes are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (into, byte) in request.ifr_name.iter_mut().zip(name) {
        *into = *byte as libc::c_char;
    }
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0));
    let mut ask = |number, fill: &dyn Fn(&mut libc::ifreq)| {
        fill(&mut request);
        // SAFETY: the request lives as long as the call, and is of the kind that the number asks for.
        done(unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut request) }.into())
    };
    ask(libc::SIOCSIFADDR, &|request| request.ifr_ifru.ifru_addr = address_of(address))?;
    ask(libc::SIOCSIFNETMASK, &|request| request.ifr_ifru.ifru_netmask = address_of(mask))?;
    ask(libc::SIOCSIFFLAGS, &|request| {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short
    })
    .map(drop)
}

/// Everything else is reached through this address.
fn route_through(gateway: Ipv4Addr) -> io::Result<()> {
    let socket = socket()?;
    // SAFETY: all zeroes are a value of it.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address_of(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = address_of(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address_of(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the route lives as long as the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_as_the_kernel_reads_them() {
        let address = address_of(Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(address.sa_family, libc::AF_INET as u16);
        assert_eq!(address.sa_data.map(|byte| byte as u8)[2..6], [198, 18, 0, 1]);
    }
}
