//! `virtax-agent`: what follows requests in a guest. Started by the guest's first process, never by a person.

use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let of_files = std::env::args().any(|word| word == "--files");
    let [server, port] = numbers[..] else {
        eprintln!("virtax-agent: SERVER-PID PORT [--files]");
        return ExitCode::from(2);
    };
    match virtax_agent::serve(server, port as u16, of_files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtax-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
