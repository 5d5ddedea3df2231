//! A program that computes, and does nothing else.

/// What it does.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 14_400)]
    pub lifetime: u32,
}

/// Computes until its lifetime ends.
pub fn compute(options: &Options) -> ! {
    crate::clock::end_after(options.lifetime);
    loop {
        std::hint::spin_loop();
    }
}
