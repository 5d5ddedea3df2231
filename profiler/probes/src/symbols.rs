//! Names of functions: the kernel's from kallsyms (programs of BPF included), processes' from their own files, as they
//! see them (containers, deleted files), with debug information where there is some.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use blazesym::{
    MaybeDefault, Pid,
    symbolize::{
        Input, Symbolized, Symbolizer,
        source::{Kernel, Process, Source},
    },
};

use virtax_model::error::{Error, Result};

/// The kernel's symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Refuses a VM that hides its kernel's addresses: all stacks would be numbers.
///
/// # Errors
/// If they are hidden, with the setting that does it.
pub fn check_kernel_symbols(path: &Path) -> Result<()> {
    let missing = |why: String| {
        Error::unsupported(
            "cannot name the kernel's functions",
            why,
            "sysctl kernel.kptr_restrict=0 (or 1, as root), or run without stacks: `--sample-rate 0`",
        )
    };
    let file = File::open(path).map_err(|error| missing(format!("{}: {error}", path.display())))?;
    let shown = BufReader::new(file)
        .lines()
        .map_while(std::result::Result::ok)
        .take(2000)
        .any(|line| line.split(' ').next().is_some_and(|address| address.bytes().any(|digit| digit != b'0')));
    if shown { Ok(()) } else { Err(missing(format!("{} shows no addresses (kernel.kptr_restrict)", path.display()))) }
}

/// Names of addresses, looked up once each.
pub struct Symbols {
    symbolizer: Symbolizer,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { symbolizer: Symbolizer::builder().enable_code_info(false).enable_inlined_fns(true).build() }
    }
}

/// What stands for an address that has no name.
fn unnamed(module: &str) -> String {
    format!("[{module}]")
}

/// `function.isra.0` and its like are the function.
fn plain(name: &str) -> &str {
    [".isra.", ".constprop.", ".part.", ".cold", ".llvm."]
        .iter()
        .filter_map(|suffix| name.find(suffix))
        .min()
        .filter(|at| *at > 0)
        .map_or(name, |at| &name[..at])
}

impl Symbols {
    /// Functions of the kernel, one for each address.
    ///
    /// # Errors
    /// If kallsyms cannot be read.
    pub fn kernel(&self, addresses: &BTreeSet<u64>) -> Result<HashMap<u64, Vec<String>>> {
        self.kernel_of(Path::new(KALLSYMS), addresses)
    }

    /// Names functions of the kernel by another file of that form.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn kernel_of(&self, kallsyms: &Path, addresses: &BTreeSet<u64>) -> Result<HashMap<u64, Vec<String>>> {
        let source = Source::Kernel(Kernel {
            kallsyms: MaybeDefault::Some(kallsyms.into()),
            vmlinux: MaybeDefault::None,
            debug_syms: false,
            ..Kernel::default()
        });
        self.names(&source, addresses, "kernel")
            .map_err(|error| Error::unsupported("cannot name the kernel's functions", error, "see `virtax doctor`"))
    }

    /// Functions of a living process, innermost inlined one first; what cannot be named is `[unknown]`.
    #[must_use]
    pub fn process(&self, pid: u32, addresses: &BTreeSet<u64>) -> HashMap<u64, Vec<String>> {
        let source = Source::Process(Process::new(Pid::from(pid)));
        match self.names(&source, addresses, "unknown") {
            Ok(names) => names,
            Err(_) if Path::new("/proc").join(pid.to_string()).exists() => self.by_halves(&source, addresses),
            Err(error) => {
                log::warn!("functions of process {pid} have no names: {error}");
                addresses.iter().map(|address| (*address, vec![unnamed("unknown")])).collect()
            }
        }
    }

    /// A stack without frame pointers holds addresses that are none, and one in a mapping that is no program
    /// (libaio's ring of events) fails all that are asked for with it.
    fn by_halves(&self, source: &Source<'_>, addresses: &BTreeSet<u64>) -> HashMap<u64, Vec<String>> {
        if let Ok(names) = self.names(source, addresses, "unknown") {
            return names;
        }
        if addresses.len() <= 1 {
            return addresses.iter().map(|address| (*address, vec![unnamed("unknown")])).collect();
        }
        let middle = addresses.iter().nth(addresses.len() / 2).copied().unwrap_or_default();
        let (low, high): (BTreeSet<u64>, BTreeSet<u64>) = addresses.iter().partition(|address| **address < middle);
        let mut names = self.by_halves(source, &low);
        names.extend(self.by_halves(source, &high));
        names
    }

    fn names(
        &self,
        source: &Source<'_>,
        addresses: &BTreeSet<u64>,
        whose: &str,
    ) -> std::result::Result<HashMap<u64, Vec<String>>, blazesym::Error> {
        if addresses.is_empty() {
            return Ok(HashMap::new());
        }
        let list: Vec<u64> = addresses.iter().copied().collect();
        let found = self.symbolizer.symbolize(source, Input::AbsAddr(&list))?;
        Ok(list
            .into_iter()
            .zip(found)
            .map(|(address, symbolized)| {
                let names = match symbolized {
                    Symbolized::Sym(symbol) => symbol
                        .inlined
                        .iter()
                        .rev()
                        .map(|inlined| plain(&inlined.name).to_owned())
                        .chain([plain(&symbol.name).to_owned()])
                        .collect(),
                    Symbolized::Unknown(_) => vec![unnamed(whose)],
                };
                (address, names)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_addresses_are_refused_with_the_setting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kallsyms");
        std::fs::write(&path, "0000000000000000 T _stext\n0000000000000000 T _text\n").unwrap();
        let error = check_kernel_symbols(&path).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("kptr_restrict"), "{error}");
        std::fs::write(&path, "0000000000000000 A fixed\nffffffff81000000 T _text\n").unwrap();
        check_kernel_symbols(&path).unwrap();
        assert!(check_kernel_symbols(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn compilers_suffixes_are_no_part_of_a_name() {
        assert_eq!(plain("tcp_sendmsg_locked.isra.0"), "tcp_sendmsg_locked");
        assert_eq!(plain("nf_hook_slow.constprop.0.cold"), "nf_hook_slow");
        assert_eq!(plain("core::str::from_utf8"), "core::str::from_utf8");
        assert_eq!(plain(".cold"), ".cold");
    }

    #[inline(never)]
    fn a_function_of_this_test() -> u64 {
        std::hint::black_box(7)
    }

    /// This process's own functions have names, demangled.
    #[test]
    fn functions_of_a_process_have_names() {
        assert_eq!(a_function_of_this_test(), 7);
        let address = a_function_of_this_test as *const () as u64;
        let names = Symbols::default().process(std::process::id(), &BTreeSet::from([address + 1, 1]));
        assert!(names[&(address + 1)].iter().any(|name| name.ends_with("a_function_of_this_test")), "{names:?}");
        assert_eq!(names[&1], ["[unknown]"]);
    }
}
