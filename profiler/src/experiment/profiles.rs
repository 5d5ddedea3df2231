//! Stacks of sampled phases: `stacks.<configuration>.jsonl.gz`, one gzip member with one line a repetition.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use crate::{
    error::{Error, Result},
    input::{self, Lines},
    profile::Profile,
};

/// Appends a repetition's stacks.
///
/// # Errors
/// If the file cannot be written.
pub fn append(path: &Path, profile: &Profile) -> Result<()> {
    let fail = |error: std::io::Error| Error::file("write", path, error);
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
    let mut member = GzEncoder::new(file, Compression::fast());
    serde_json::to_writer(&mut member, profile).map_err(|error| fail(error.into()))?;
    member.write_all(b"\n").map_err(fail)?;
    member.finish().and_then(|file| file.sync_data()).map_err(fail)
}

/// Reads all repetitions' stacks; none if there is no such file. What was cut off at the end is left out.
///
/// # Errors
/// If the file cannot be read or understood, or names a function that its table lacks.
pub fn read(path: &Path) -> Result<Vec<Profile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", path, error)),
    };
    let mut lines = Lines::new(path, MultiGzDecoder::new(file));
    let mut profiles = Vec::new();
    while let Some((number, line, ended)) = lines.next_line()? {
        let profile = input::parse(line).and_then(|profile: Profile| check(&profile).map(|()| profile));
        match profile {
            Ok(profile) => profiles.push(profile),
            Err(_) if !ended => {}
            Err(why) => return Err(Error::file("understand", path, format!("line {number}: {why}"))),
        }
    }
    Ok(profiles)
}

fn check(profile: &Profile) -> std::result::Result<(), String> {
    let known = profile.frames.len() as u32;
    let stacks = profile
        .samples
        .iter()
        .map(|sample| &sample.stack)
        .chain(profile.waits.iter().flat_map(|wait| [&wait.stack, &wait.waker]));
    if stacks.flatten().any(|frame| *frame >= known) {
        return Err(format!("round {}: a stack names a function that is not in the table", profile.round));
    }
    let is_time = |ns: f64| (0.0..=input::LARGEST_NUMBER).contains(&ns);
    if !profile.samples.iter().all(|sample| is_time(sample.ns)) {
        return Err(format!("round {}: a sample's time is no time", profile.round));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, Sample, Space};

    fn profile(round: u32) -> Profile {
        Profile {
            round,
            operations: 10,
            length_ns: 1000,
            rate_hz: 997,
            timers: 1,
            frames: vec![Frame(Space::Kernel, "tcp_ack".to_owned())],
            samples: vec![Sample {
                thread: None,
                softirq: None,
                stage: None,
                stack: vec![0],
                count: 1,
                ns: 0.5,
                in_guest: false,
            }],
            waits: Vec::new(),
            cpus: [(3, Default::default())].into(),
            cpu: Vec::new(),
            states: Vec::new(),
            guest_states: Vec::new(),
            events: 1,
            lost: 0,
        }
    }

    #[test]
    fn what_was_appended_is_read_and_a_cut_end_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stacks.gz");
        assert!(read(&path).unwrap().is_empty());
        append(&path, &profile(0)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        append(&path, &profile(1)).unwrap();
        assert_eq!(read(&path).unwrap(), [profile(0), profile(1)]);
        let both = std::fs::read(&path).unwrap();
        std::fs::write(&path, &both[..whole.len() + 15]).unwrap();
        assert_eq!(read(&path).unwrap(), [profile(0)]);
        std::fs::write(&path, b"\x1f\x8bnot gzip").unwrap();
        assert_eq!(read(&path).unwrap_err().exit_code(), 6);
    }

    #[test]
    fn stacks_name_functions_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stacks.gz");
        let mut broken = profile(7);
        broken.samples[0].stack.push(1);
        append(&path, &broken).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("round 7"));
    }
}
