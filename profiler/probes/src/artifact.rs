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

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

    /// aya links a call to a function in another section than `.text.unlikely` to whatever stands at the same offset
    /// of that one, and says nothing. Functions that are not inlined are `#[cold]`, which puts them there; a closure
    /// that LLVM makes a function of is not, and must be written without. (What the compiler itself brings is linked
    /// rightly.)
    #[test]
    fn functions_lie_where_calls_to_them_are_linked() {
        let Ok(bytes) = super::probes() else {
            assert!(std::env::var_os("VIRTAX_NO_SKIP").is_none(), "this build has no probes");
            return;
        };
        let file = object::File::parse(bytes).unwrap();
        let named = |name: &str| {
            let mut sections = file.sections().filter(|section| section.kind() == SectionKind::Text);
            sections.find(|section| section.name() == Ok(name)).unwrap().index()
        };
        let (others, own) = (named(".text"), named(".text.unlikely."));
        let names = |section| -> Vec<&str> {
            let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
            let there = functions.filter(|symbol| symbol.section_index() == Some(section));
            there.map(|symbol| symbol.name().unwrap()).collect()
        };
        assert!(names(own).len() > 20, "{:?}", names(own));
        let mut of_others = names(others);
        of_others.retain(|name| !["memset", "memmove", "memcpy", "memcmp"].contains(name));
        assert_eq!(of_others, Vec::<&str>::new());
    }
}
