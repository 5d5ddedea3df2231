//! When a connection's requests are due.

/// How an open loop's requests are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// At equal intervals on every connection, the connections evenly offset.
    Constant,
    /// At random, independently of each other: the intervals of every connection are exponential.
    Poisson,
}

/// The times at which the requests of one connection are due; without a rate, whenever the connection is free.
pub struct Schedule {
    arrivals: Arrivals,
    /// Mean interval, ns; 0: there is no rate.
    interval_ns: f64,
    /// How long after the beginning its first request is due, ns.
    offset_ns: f64,
    due_ns: f64,
    random: Random,
}

/// xorshift64* (Vigna, ACM TOMS 42, 2016): arrivals need no better.
struct Random(u64);

impl Random {
    /// Above 0, up to 1.
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        (bits + 1) as f64 / (1u64 << 53) as f64
    }
}

impl Schedule {
    /// The schedule of a connection, by its index, from `start_ns` on: `rate` requests a second over all connections;
    /// 0: a closed loop.
    #[must_use]
    pub fn new(arrivals: Arrivals, rate: f64, connections: u32, index: u32, start_ns: u64) -> Self {
        let connections = f64::from(connections.max(1));
        let interval_ns = if rate > 0.0 { 1e9 * connections / rate } else { 0.0 };
        // Seeds that differ in few bits begin alike: they are spread (Knuth's multiplicative hash, 64 bits).
        let random = Random((u64::from(index) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let offset_ns = interval_ns * f64::from(index) / connections;
        Self { arrivals, interval_ns, offset_ns, due_ns: start_ns as f64 + offset_ns, random }
    }

    /// When the next request is due; `None`: as soon as the connection is free.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        (self.interval_ns > 0.0).then_some(self.due_ns as u64)
    }

    /// Begins anew at this time: what was due before is not made up for.
    pub fn restart(&mut self, start_ns: u64) {
        self.due_ns = start_ns as f64 + self.offset_ns;
    }

    /// The next request was made.
    pub fn advance(&mut self) {
        self.due_ns += match self.arrivals {
            Arrivals::Constant => self.interval_ns,
            Arrivals::Poisson => -self.interval_ns * self.random.share().ln(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(arrivals: Arrivals, count: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(arrivals, 10_000.0, 4, 1, 1_000_000);
        (0..count)
            .map(|_| {
                let due = schedule.due_ns().unwrap();
                schedule.advance();
                due
            })
            .collect()
    }

    #[test]
    fn constant_arrivals_are_offset_by_connection() {
        assert_eq!(dues(Arrivals::Constant, 3), [1_100_000, 1_500_000, 1_900_000]);
        let mut schedule = Schedule::new(Arrivals::Constant, 10_000.0, 4, 1, 1_000_000);
        schedule.advance();
        schedule.restart(5_000_000);
        assert_eq!(schedule.due_ns(), Some(5_100_000));
        assert_eq!(Schedule::new(Arrivals::Constant, 0.0, 4, 1, 5).due_ns(), None);
    }

    /// The mean of exponential intervals is their standard deviation.
    #[test]
    fn poisson_arrivals_have_exponential_intervals() {
        let dues = dues(Arrivals::Poisson, 100_001);
        let intervals: Vec<f64> = dues.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = intervals.iter().sum::<f64>() / 1e5;
        let deviation = (intervals.iter().map(|interval| (interval - mean).powi(2)).sum::<f64>() / 1e5).sqrt();
        assert!((mean / 400_000.0 - 1.0).abs() < 0.01, "{mean}");
        assert!((deviation / mean - 1.0).abs() < 0.02, "{deviation}");
    }

    /// Requests that each take as long wait for each other as the formula of Pollaczek and Khinchine says for one
    /// server (M/D/1): ρ / (2 (1 − ρ)) of what one takes.
    #[test]
    fn poisson_arrivals_wait_as_in_m_d_1() {
        for (busy, takes_ns) in [(0.5, 50_000.0), (0.9, 90_000.0)] {
            let mut schedule = Schedule::new(Arrivals::Poisson, 10_000.0, 1, 0, 1);
            let (mut free_ns, mut sum_ns, count) = (0.0_f64, 0.0, 1_000_000);
            for _ in 0..count {
                let due_ns = schedule.due_ns().unwrap() as f64;
                schedule.advance();
                free_ns = free_ns.max(due_ns);
                sum_ns += free_ns - due_ns;
                free_ns += takes_ns;
            }
            let formula = busy / (2.0 * (1.0 - busy)) * takes_ns;
            let mean = sum_ns / f64::from(count);
            assert!((mean / formula - 1.0).abs() < 0.05, "{busy}: {mean}, {formula}");
        }
    }
}
