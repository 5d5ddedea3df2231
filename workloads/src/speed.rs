//! How fast a CPU is at the moment, by the time that a fixed piece of work takes: what shares its core, and slows all
//! that runs there, shows in no account of the kernel's.

use crate::clock::now_ns;

/// Turns of a piece of work, which takes about 4 µs, and pieces: the fastest counts, since others may come in between.
const TURNS: u64 = 5000;
const PIECES: usize = 4;

/// Additions and shifts that wait little for each other: they take as many of a core's units as there are, so that
/// who shares it shows.
fn piece() -> u64 {
    let (mut a, mut b, mut c, mut d, mut e, mut f) = (1u64, 2u64, 3u64, 4u64, 5u64, 6u64);
    for turn in 0..TURNS {
        a = a.wrapping_mul(3).wrapping_add(turn);
        b = (b ^ turn).wrapping_add(7);
        c = c.wrapping_add(c >> 3);
        d ^= d << 1;
        e = e.wrapping_add(turn);
        f = f.wrapping_sub(e);
        // Not to be computed before the program runs.
        (a, b, c) = std::hint::black_box((a, b, c));
    }
    a ^ b ^ c ^ d ^ e ^ f
}

/// Time of the fastest of some pieces of the same work, ns.
#[must_use]
pub fn measure_ns() -> u64 {
    let timed = || {
        let start_ns = now_ns();
        std::hint::black_box(piece());
        now_ns() - start_ns
    };
    (0..PIECES).map(|_| timed()).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    /// Twice as fast as itself is no CPU for long: the fastest of many is near the fastest of many others.
    #[test]
    fn the_same_work_takes_about_as_long_again() {
        let fastest = || (0..200).map(|_| super::measure_ns()).min().unwrap();
        let (first, second) = (fastest() as f64, fastest() as f64);
        assert!(first > 500.0 && (0.5..2.0).contains(&(first / second)), "{first} {second}");
    }
}
