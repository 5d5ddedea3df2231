//! Starts one VM through libvirt, and ends it: what `virtax` executes, so that it needs no libvirt itself.
//!
//! `virtax-libvirt URI`, or `virtax-libvirt URI --user NUMBER [--group NUMBER]` to be that user first. Standard input
//! is the domain's XML, a zero byte, one more byte when the guest is to run, and its end when the VM is to go.
//! Standard output says `connected VERSION`, `created` and `running`, a line each; standard error, why not. Without a
//! domain (`URI` and an input that is empty) it says whether libvirt is there.

mod privileges;

use std::{
    io::{self, BufRead, Read, Write},
    process::ExitCode,
    thread,
};

use virt::{connect::Connect, domain::Domain, event, sys};

/// Longer than any domain: whoever writes more is not virtax.
const LONGEST: u64 = 1 << 20;

fn main() -> ExitCode {
    match execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    uri: String,
    user: Option<libc::uid_t>,
    group: Option<libc::gid_t>,
}

fn arguments() -> Option<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut arguments = Arguments { uri: words.next()?, user: None, group: None };
    while let Some(word) = words.next() {
        let number = Some(words.next()?.parse().ok()?);
        match word.as_str() {
            "--user" => arguments.user = number,
            "--group" => arguments.group = number,
            _ => return None,
        }
    }
    Some(arguments)
}

fn execute() -> Result<(), String> {
    let Arguments { uri, user, group } =
        arguments().ok_or("usage: virtax-libvirt URI [--user NUMBER [--group NUMBER]]")?;
    if let Some(user) = user {
        privileges::become_user(user, group).map_err(|error| format!("cannot be user {user}: {error}"))?;
    }
    // Errors are returned; printed besides, they would be said twice.
    virt::error::clear_error_callback();
    // An embedded driver talks to QEMU by events of this process.
    event::event_register_default_impl().map_err(|error| said(&error))?;
    thread::spawn(|| while event::event_run_default_impl().is_ok() {});
    let connection = Connect::open(Some(&uri)).map_err(|error| said(&error))?;
    let version = connection.get_lib_version().map_err(|error| said(&error))?;
    say(&format!("connected {}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000))?;
    serve(&connection)
}

fn serve(connection: &Connect) -> Result<(), String> {
    let broken = |error: io::Error| format!("standard input: {error}");
    let mut input = io::stdin().lock();
    let mut xml = Vec::new();
    (&mut input).take(LONGEST).read_until(0, &mut xml).map_err(broken)?;
    if xml.pop() != Some(0) {
        return if xml.is_empty() { Ok(()) } else { Err("the domain has no end".to_owned()) };
    }
    let xml = String::from_utf8(xml).map_err(|error| error.to_string())?;
    let domain = Domain::create_xml(connection, &xml, sys::VIR_DOMAIN_START_PAUSED).map_err(|error| said(&error))?;
    let vm = Vm(domain);
    say("created")?;
    let mut byte = [0];
    if input.read(&mut byte).map_err(broken)? > 0 {
        vm.0.resume().map_err(|error| said(&error))?;
        say("running")?;
        // Whatever else comes means nothing; that nothing more will come means the end.
        io::copy(&mut input, &mut io::sink()).map_err(broken)?;
    }
    Ok(())
}

/// A VM that ends with this process, unless that is killed.
struct Vm(Domain);

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.destroy();
    }
}

fn say(line: &str) -> Result<(), String> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(|error| format!("standard output: {error}"))
}

/// libvirt's own words on one line.
fn said(error: &virt::error::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}
