//! libFuzzer on what reads things from outside. `cargo xtask fuzz` compiles it with counters of coverage, and calls it.
//!
//! `VIRTAX_FUZZ_TARGET` names the target. With `VIRTAX_FUZZ_UNPACK`, its seeds and corpus are written into that folder,
//! a file each, as libFuzzer wants them; with `VIRTAX_FUZZ_PACK`, the folder's files become the corpus; with
//! `VIRTAX_FUZZ_LIST`, the targets' names are printed.
#![no_main]

#[path = "../../tests/offline/targets.rs"]
mod targets;

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use libfuzzer_sys::fuzz_target;
use targets::{Target, targets};

thread_local! {
    // libFuzzer has one thread.
    static TARGET: Target = chosen();
}

fn chosen() -> Target {
    let name = std::env::var("VIRTAX_FUZZ_TARGET").unwrap_or_default();
    targets()
        .into_iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("VIRTAX_FUZZ_TARGET=`{name}` is no target"))
}

fn unpack(target: &Target, folder: &Path) -> std::io::Result<()> {
    let inputs = target.seeds.iter().chain(&target.refused).cloned().chain(target.corpus());
    inputs.enumerate().try_for_each(|(number, input)| fs::write(folder.join(format!("{number:05}")), input))
}

/// Bytes of a corpus: it is a part of the repository.
const CORPUS: usize = 48 << 10;

/// The shortest inputs, as far as there is room.
fn pack(target: &Target, folder: &Path) -> std::io::Result<()> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let input = fs::read(entry?.path())?;
        if !target.seeds.contains(&input) && !target.refused.contains(&input) {
            lines.push(BASE64_STANDARD.encode(input) + "\n");
        }
    }
    lines.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    let mut room = CORPUS;
    let mut fits = |line: &String| room.checked_sub(line.len()).map(|left| room = left).is_some();
    let kept: Vec<String> = lines.into_iter().take_while(|line| fits(line)).collect();
    fs::write(target.corpus_path(), kept.concat())
}

/// What is asked for instead of fuzzing is done, and the process ends.
fn prepare() {
    let folder = |name: &str| std::env::var_os(name);
    let done = if folder("VIRTAX_FUZZ_LIST").is_some() {
        targets().iter().for_each(|target| println!("{}", target.name));
        Ok(())
    } else if let Some(folder) = folder("VIRTAX_FUZZ_UNPACK") {
        TARGET.with(|target| unpack(target, Path::new(&folder)))
    } else if let Some(folder) = folder("VIRTAX_FUZZ_PACK") {
        TARGET.with(|target| pack(target, Path::new(&folder)))
    } else {
        return;
    };
    if let Err(error) = &done {
        eprintln!("virtax-fuzz: {error}");
    }
    std::process::exit(i32::from(done.is_err()));
}

fuzz_target!(init: prepare(), |bytes: &[u8]| {
    TARGET.with(|target| (target.feed)(bytes));
});
