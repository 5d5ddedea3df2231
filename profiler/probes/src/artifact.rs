//! The object file of the probes, which the binary carries inside.

use virtax_model::error::{Error, Result};

/// `include_bytes!` promises no alignment; the ELF reader wants 8.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static PROBES: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/virtax-probes")));
/// The probes' ELF object.
///
/// # Errors
/// If this build has none.
pub fn probes() -> Result<&'static [u8]> {
    present(&PROBES.0, "probes")
}

/// A part that `cargo xtask build` compiles before, if this build has it.
///
/// # Errors
/// If it is empty: this build has none.
pub fn present(bytes: &'static [u8], what: &str) -> Result<&'static [u8]> {
    if bytes.is_empty() {
        return Err(Error::unsupported(
            format!("this virtax was built without its {what}"),
            "it was compiled by cargo alone",
            "run `cargo xtask build`",
        ));
    }
    Ok(bytes)
}
