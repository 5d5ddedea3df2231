//! Addresses of a run: all from 198.18.0.0/15, the range for benchmarks (RFC 2544).

use std::{fs, net::Ipv4Addr};

use virtax_model::error::{Error, Result};

/// The range that all traffic stays in.
pub const RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);

/// The two networks of one run: `198.18.N.0/24` for the wire, `198.19.N.0/24` for containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnets {
    number: u8,
}

impl Subnets {
    /// Prefix length of both.
    pub const PREFIX: u8 = 24;

    /// Networks that no route of this host leads to, beginning at a number made of the run's id.
    ///
    /// # Errors
    /// If all are taken.
    pub fn choose(run_id: &str) -> Result<Self> {
        let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
        Self::choose_among(run_id, &routes)
    }

    fn choose_among(run_id: &str, routes: &str) -> Result<Self> {
        let taken = destinations(routes);
        let first = run_id.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        // 255 is left to Docker's default bridge.
        (0..255u8)
            .map(|offset| Self { number: (u16::from(first) + u16::from(offset)).rem_euclid(255) as u8 })
            .find(|subnets| !taken.contains(&subnets.wire()) && !taken.contains(&subnets.containers()))
            .ok_or_else(|| {
                Error::unsupported(
                    "no free network in 198.18.0.0/15",
                    "routes lead to all of them",
                    "remove what earlier runs left: `virtax clean`",
                )
            })
    }

    /// Network of the wire.
    #[must_use]
    pub const fn wire(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 0)
    }
    /// The host's end of the wire.
    #[must_use]
    pub const fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }
    /// The client's end of the wire.
    #[must_use]
    pub const fn client(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }
    /// Network of the containers.
    #[must_use]
    pub const fn containers(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.number, 0)
    }
    /// Addresses of a small network beside the wire, of which a run can have [`Subnets::SEGMENTS`].
    #[must_use]
    pub fn segment(self, index: u8) -> Option<Segment> {
        // The first sixteen addresses are the wire's own.
        let first = (index < Self::SEGMENTS).then(|| (index + 1) * 16)?;
        let at = |offset: u8| Ipv4Addr::new(198, 18, self.number, first + offset);
        Some(Segment { router: at(1), client: at(2), inner: at(8), gateway: at(9), server: at(10) })
    }
    /// Addresses of a network that only QEMU knows, within itself: its router's, and the guest's.
    #[must_use]
    pub const fn inside_qemu(self) -> (Ipv4Addr, Ipv4Addr) {
        (Ipv4Addr::new(198, 19, self.number, 2), Ipv4Addr::new(198, 19, self.number, 15))
    }
    /// Small networks of a run.
    pub const SEGMENTS: u8 = 15;
}

/// A client's link to a router, and the network behind that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The router's end of the client's link.
    pub router: Ipv4Addr,
    /// The client's end.
    pub client: Ipv4Addr,
    /// The network behind the router.
    pub inner: Ipv4Addr,
    /// The router's address there.
    pub gateway: Ipv4Addr,
    /// The server's.
    pub server: Ipv4Addr,
}

impl Segment {
    /// Prefix length of both networks.
    pub const PREFIX: u8 = 29;
}

/// Destinations in `/proc/net/route`: hexadecimal, in the host's byte order.
fn destinations(routes: &str) -> Vec<Ipv4Addr> {
    routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let word = line.split_whitespace().nth(1)?;
            let number = u32::from_str_radix(word, 16).ok()?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Iface\tDestination\tGateway\n";

    fn line(address: Ipv4Addr) -> String {
        format!("eth0\t{:08X}\t00000000\n", u32::from_ne_bytes(address.octets()))
    }

    #[test]
    fn taken_networks_are_passed_over() {
        let first = Subnets::choose_among("abcde", HEADER).unwrap();
        let routes = format!("{HEADER}{}", line(first.containers()));
        let second = Subnets::choose_among("abcde", &routes).unwrap();
        assert_ne!(first, second);
        assert_eq!(first.host().octets()[2], first.wire().octets()[2]);
    }

    #[test]
    fn all_taken_is_an_error() {
        let all: String = (0..=255).map(|number| line(Ipv4Addr::new(198, 18, number, 0))).collect();
        let error = Subnets::choose_among("abcde", &format!("{HEADER}{all}")).unwrap_err();
        assert!(error.to_string().contains("virtax clean"));
    }

    #[test]
    fn every_address_lies_in_the_range_for_benchmarks() {
        for id in ["00000", "fffff", "a1b2c"] {
            let subnets = Subnets::choose_among(id, HEADER).unwrap();
            let last = subnets.segment(Subnets::SEGMENTS - 1).unwrap();
            assert_eq!((last.server.octets()[3], subnets.segment(Subnets::SEGMENTS)), (250, None));
            for address in [subnets.host(), subnets.client(), subnets.containers(), last.router, last.server] {
                assert_eq!(u32::from(address) >> 17, u32::from(RANGE.0) >> 17);
            }
        }
    }
}
