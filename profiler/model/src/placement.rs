//! The CPUs on which client, server and virtax run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// On which CPUs client and server run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "command-line", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Both on one CPU: small mechanisms resolve.
    Same,
    /// One CPU each: waking the other side counts.
    Split,
    /// Wherever the scheduler puts them.
    Free,
}

/// CPUs of the three parties; empty: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    /// The client's.
    pub client: Vec<usize>,
    /// The server's.
    pub server: Vec<usize>,
    /// virtax's own.
    pub virtax: Vec<usize>,
}

impl Cpus {
    /// Whether nobody else has a place on the client's CPUs.
    #[must_use]
    pub fn client_has_its_own(&self) -> bool {
        !self.client.is_empty() && !self.client.iter().any(|cpu| self.server.contains(cpu) || self.virtax.contains(cpu))
    }

    /// The server's, or, where it has no place, those that it may run on.
    #[must_use]
    pub fn of_server<'a>(&'a self, allowed: &'a [usize]) -> &'a [usize] {
        if self.server.is_empty() { allowed } else { &self.server }
    }
}

impl Placement {
    /// Divides the CPUs that this process may use. The last ones work: the first one has most interrupts.
    ///
    /// # Errors
    /// If there are too few.
    pub fn divide(self, allowed: &[usize]) -> Result<Cpus> {
        let needed = match self {
            Self::Same => 1,
            Self::Split => 2,
            Self::Free => 0,
        };
        if allowed.len() < needed {
            return Err(Error::unsupported(
                "`--placement split` needs two CPUs",
                format!("this process may use {}", allowed.len()),
                "use `--placement same`",
            ));
        }
        let (rest, working) = allowed.split_at(allowed.len() - needed);
        // With no CPU left over, virtax shares the client's, never the server's alone.
        let virtax = if rest.is_empty() { working.first().copied().into_iter().collect() } else { rest.to_vec() };
        Ok(match self {
            Self::Same => Cpus { client: working.to_vec(), server: working.to_vec(), virtax },
            Self::Split => Cpus { client: vec![working[0]], server: vec![working[1]], virtax },
            Self::Free => Cpus { client: Vec::new(), server: Vec::new(), virtax: Vec::new() },
        })
    }

    /// Name of the placement on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Split => "split",
            Self::Free => "free",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements() {
        let same = Placement::Same.divide(&[0, 1]).unwrap();
        assert_eq!((same.client, same.server, same.virtax), (vec![1], vec![1], vec![0]));
        let split = Placement::Split.divide(&[0, 1]).unwrap();
        assert_eq!((split.client, split.server, split.virtax), (vec![0], vec![1], vec![0]));
        assert_eq!(Placement::Split.divide(&[0, 1, 2, 3]).unwrap().virtax, [0, 1]);
        assert!(Placement::Split.divide(&[3]).is_err());
    }

    #[test]
    fn a_client_has_its_own_cpus_or_shares_them() {
        let cpus = |client: &[usize], server: &[usize], virtax: &[usize]| Cpus {
            client: client.to_vec(),
            server: server.to_vec(),
            virtax: virtax.to_vec(),
        };
        assert!(cpus(&[1], &[2], &[0]).client_has_its_own());
        // Any, the server's, virtax's.
        assert!(!cpus(&[], &[2], &[0]).client_has_its_own());
        assert!(!cpus(&[1], &[1], &[0]).client_has_its_own());
        assert!(!cpus(&[1], &[2], &[0, 1]).client_has_its_own());
    }
}
