//! The command line without root: help, lists, refusals and their exit codes.

use crate::common::{Out, harness, text, virtax};

/// Exit code and last words.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let output = virtax().args(arguments).output().unwrap();
    assert!(output.stdout.is_empty(), "errors go to standard error: {}", text(&output.stdout));
    (output.status.code().unwrap(), text(&output.stderr))
}

pub fn help_and_lists_are_as_reviewed() {
    for (name, arguments) in [("help", &["--help"][..]), ("run-help", &["run", "--help"]), ("list", &["list"])] {
        let output = virtax().args(arguments).output().unwrap();
        assert!(output.status.success());
        insta::assert_snapshot!(name, text(&output.stdout));
    }
}

pub fn wrong_usage_ends_with_2_before_anything_happens() {
    let cases: &[&[&str]] = &[
        &["run", "tcp-r", "--in", "native"],
        &["run", "tcp-rr", "--in", "natve"],
        &["run", "tcp-rr", "--in", "native", "--baseline", "docker:net=host"],
        &["run", "tcp-rr", "--in", "native", "--set", "connections=0"],
        &["run", "tcp-rr", "--in", "native", "--duration", "0.1"],
        &["run", "tcp-rr", "--in", "native", "--duration", "-1"],
        &["run", "tcp-rr", "--in", "native", "--rounds", "0"],
        &["run", "tcp-rr", "--in", "native", "--placement", "here"],
        &["run", "tcp-rr"],
        &["report"],
        &["frobnicate"],
    ];
    let mut words = String::new();
    for arguments in cases {
        let (code, said) = refusal(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        words += &format!("$ virtax {}\n{said}\n", arguments.join(" "));
    }
    insta::assert_snapshot!(words);
}

pub fn a_folder_without_a_run_and_broken_files_end_with_6() {
    let out = Out::new();
    let folder = out.path();
    std::fs::create_dir(&folder).unwrap();
    let report = || refusal(&["report", folder.to_str().unwrap()]);
    let (code, said) = report();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("run.json"), "{said}");
    std::fs::write(folder.join("run.json"), "{\"schema_version\": ").unwrap();
    let (code, said) = report();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("cannot understand"), "{said}");
}

pub fn without_root_a_run_says_what_it_needs() {
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        harness::skip("root, to give it up");
        return;
    }
    use std::os::unix::process::CommandExt;
    // The binary may lie where only root may look: a copy where anyone may.
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = open.path().join("virtax");
    std::fs::copy(env!("CARGO_BIN_EXE_virtax"), &copy).unwrap();
    let mut command = std::process::Command::new(&copy);
    command.args(["run", "tcp-rr", "--in", "native"]).uid(65534).gid(65534).current_dir("/");
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("run as root"), "{said}");
}

pub fn every_command_has_a_manual_page_and_completions() {
    let says = |arguments: &[&str]| {
        let output = virtax().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let pages = says(&["manual", "--list"]);
    assert!(pages.lines().count() >= 6 && pages.contains("virtax-run\n") && !pages.contains("bench"), "{pages}");
    for page in pages.lines() {
        let text = says(&["manual", page]);
        assert!(text.contains(".TH") && text.contains("SH NAME"), "{page}: {text}");
    }
    // Hyphens are escaped in roff.
    assert!(says(&["manual", "virtax-run"]).contains("\\-\\-placement"));
    for shell in ["bash", "zsh", "fish"] {
        let text = says(&["completions", shell]);
        assert!(text.contains("placement") && text.contains("doctor"), "{shell}: {text}");
    }
}
