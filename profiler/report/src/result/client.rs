//! What the client says: latencies of whole phases.

use hdrhistogram::Histogram as Hdr;
use workloads::protocol::decode_histogram;

use super::Latency;
use virtax_analysis::{statistics::estimate_one, waterfall};
use virtax_model::{
    counts::{PhaseKind, Repetition},
    error::{Error, Result},
};

/// What a client saw in all phases of a kind.
pub(super) struct ClientSums {
    pub operations: u64,
    pub length_ns: u64,
    pub histogram: Hdr<u64>,
}

pub(super) fn client_sums(repetitions: &[&Repetition], kind: PhaseKind) -> Result<ClientSums> {
    let mut sums = ClientSums { operations: 0, length_ns: 0, histogram: workloads::protocol::new_histogram() };
    for phase in repetitions.iter().flat_map(|repetition| waterfall::of_kind(repetition, kind)) {
        let broken = |why: String| Error::Files { what: "cannot read a stored latency histogram".to_owned(), why };
        let histogram = decode_histogram(&phase.client.histogram).map_err(broken)?;
        sums.histogram.add(&histogram).map_err(|error| broken(error.to_string()))?;
        sums.operations += phase.client.operations;
        sums.length_ns += phase.length_ns;
    }
    Ok(sums)
}

impl ClientSums {
    pub fn latency(&self, means: Vec<f64>) -> Latency {
        let mean = estimate_one(means);
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64;
        Latency {
            mean_ns: mean.mean,
            ci95_ns: mean.ci95,
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: self.histogram.max() as f64,
        }
    }
}
