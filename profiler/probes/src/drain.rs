//! The end of a phase, after which the requests that began in it go on.

use super::{object::Loaded, totals::Totals};
use virtax_model::error::Result;

/// Looks at all holders in a row that find no request of the phase. One look may miss a token that goes from one holder
/// to another meanwhile.
const LOOKS: u32 = 5;

/// A phase that is over, but for requests that began in it.
#[derive(Debug, Default)]
pub struct Drain {
    empty_looks: u32,
}

impl Drain {
    /// Whether all requests that count have ended, or been lost. The counters say so exactly; a token that was lost
    /// without being counted is in no holder, and must not hold up the run.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn is_over(&mut self, probes: &Loaded, before: &Totals, epoch: u32) -> Result<bool> {
        if probes.open_since(before)? == 0 {
            return Ok(true);
        }
        self.empty_looks = if probes.under_way(epoch) == 0 { self.empty_looks + 1 } else { 0 };
        Ok(self.empty_looks >= LOOKS)
    }
}
