//! Tests as a list, so that one that is skipped is reported as skipped, with what is missing, and counted.

use std::cell::RefCell;

use libtest_mimic::{Arguments, ColorSetting, Completion, Failed, Trial};

thread_local! {
    /// What the test of this thread lacks.
    static LACKS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A test by its name.
pub type Test = (&'static str, fn());

/// The tests of modules, by their names: `module: test, test; …`. One that is in no list is never used, which does not
/// pass the lints.
#[macro_export]
macro_rules! tests {
    ($($module:ident: $($name:ident),+;)+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn())),+),+]
    };
}

/// The test of this thread cannot be run, because the host lacks this: it is to return at once. Where everything was
/// set up (`VIRTAX_NO_SKIP`), it fails.
pub fn skip(what: &str) {
    assert!(std::env::var_os("VIRTAX_NO_SKIP").is_none(), "missing: {what}");
    LACKS.set(Some(what.to_owned()));
}

/// Skips the test where a host need not have it, though everything was set up.
pub fn skip_anyway(what: &str) {
    LACKS.set(Some(what.to_owned()));
}

fn complete(test: fn()) -> Result<Completion, Failed> {
    LACKS.take();
    test();
    Ok(LACKS.take().map_or(Completion::Completed, Completion::ignored_with))
}

/// Runs what the command line names of them, as tests are run.
pub fn run(tests: &'static [Test]) -> ! {
    let trials = tests.iter().map(|(name, test)| Trial::ignorable_test(*name, move || complete(*test)));
    // Who counts results reads text: a guest's console is a terminal, too.
    let mut arguments = Arguments::from_args();
    arguments.color.get_or_insert(ColorSetting::Never);
    libtest_mimic::run(&arguments, trials.collect()).exit()
}
