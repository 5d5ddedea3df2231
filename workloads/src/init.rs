//! The first process of a guest: loads drivers, takes the network up, starts the server, and says that it is there.

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread::sleep,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where a guest finds what it is to do.
pub const GUEST: &str = "/guest.json";
/// What its console says once the server answers, followed by the kernel's release.
pub const READY: &str = "virtax-ready";
/// What its console says of what went wrong.
pub const FAILED: &str = "virtax-failed:";
/// The guest's only network card.
const CARD: &CStrName = b"eth0\0";
/// User and group of the server: `nobody`.
const NOBODY: u32 = 65534;

type CStrName = [u8; 5];

/// What a guest is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Where all else is reached.
    pub gateway: Ipv4Addr,
    /// Files of its drivers, in the order in which they load.
    pub drivers: Vec<PathBuf>,
    /// Port that the server listens on.
    pub port: u16,
    /// The server's program.
    pub program: PathBuf,
    /// The server's arguments.
    pub arguments: Vec<String>,
}

/// Does all that, and never returns while the guest lives: its power goes off with the server.
pub fn run() -> ! {
    let ended = start().map(|status| format!("the server ended ({status})"));
    let why = ended.unwrap_or_else(|error| error.to_string());
    println!("{FAILED} {why}");
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

fn start() -> io::Result<ExitStatus> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        about(place, mount(kind, place))?;
    }
    let text = about(GUEST, fs::read(GUEST))?;
    let guest: Guest = serde_json::from_slice(&text)?;
    for driver in &guest.drivers {
        about(&driver.display().to_string(), load(driver))?;
    }
    about("lo", take_up(b"lo\0\0\0", Ipv4Addr::LOCALHOST, 8))?;
    about("eth0", await_card().and_then(|()| take_up(CARD, guest.address, guest.prefix)))?;
    about("route", route_through(guest.gateway))?;
    let mut command = Command::new(&guest.program);
    command.args(&guest.arguments).current_dir("/tmp").uid(NOBODY).gid(NOBODY);
    let mut server = about(&guest.program.display().to_string(), command.spawn())?;
    while TcpStream::connect(SocketAddrV4::new(guest.address, guest.port)).is_err() {
        if let Some(status) = server.try_wait()? {
            return Ok(status);
        }
        sleep(Duration::from_millis(5));
    }
    println!("{READY} {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    server.wait()
}

fn about<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn mount(kind: &str, place: &str) -> io::Result<()> {
    let (kind, place) = (CString::new(kind)?, CString::new(place)?);
    // SAFETY: the strings live as long as the call; no data.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
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
