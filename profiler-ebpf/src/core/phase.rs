//! The phase that a program runs in, and what it keeps there.

use profiler_common::{Control, OFF, PARTS, STACKS, TOTALS};

use crate::core::{instructions::read_once, maps, slot::Slot};

/// The phase, while requests are followed. Programs come twice: for all kinds of phases, and (`D` is false) for those
/// that keep nothing but totals and records, where every instruction that is not there counts.
#[derive(Clone, Copy)]
pub struct Phase<const D: bool>(Slot<Control>);

impl<const D: bool> Phase<D> {
    /// Nothing but totals and records.
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        !D || self.0.mode == TOTALS
    }
    /// Stages are split into parts.
    #[inline(always)]
    pub fn splits(self) -> bool {
        D && self.0.mode == PARTS
    }
    /// Stacks are sampled, with what each context works on.
    #[inline(always)]
    pub fn tags(self) -> bool {
        D && self.0.mode == STACKS
    }
}
impl<const D: bool> core::ops::Deref for Phase<D> {
    type Target = Control;
    #[inline(always)]
    fn deref(&self) -> &Control {
        &self.0
    }
}

/// The phase, while requests are followed.
#[inline(always)]
pub fn following<const D: bool>() -> Option<Phase<D>> {
    let control = maps::control()?;
    (read_once(&control.state) != OFF).then_some(Phase(control))
}
