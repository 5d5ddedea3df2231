//! The load generator against servers that are none.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
};

use workloads::{connect::SILENCE, protocol::Reply};

/// Answers the first request on a connection with the first reply, and so on; the last one for ever.
fn serve(replies: &'static [&'static [u8]]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        for reply in replies.iter().chain(std::iter::repeat(replies.last().unwrap())) {
            if !matches!(stream.read(&mut buffer), Ok(bytes) if bytes > 0) || stream.write_all(reply).is_err() {
                return;
            }
        }
    });
    address
}

fn client(address: &str, operation: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_virtax-workload"))
        .args(["redis-client", "--connect", address, "--operation", operation, "--clients", "1", "--keyspace", "1"])
        .args(["--patience-ms", "300", "--lifetime", "60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The client's answers until it says why it cannot go on.
fn failure(mut client: Child) -> String {
    let mut answers = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut requests = client.stdin.take().unwrap();
    let reason = loop {
        match serde_json::from_str(&answers.next().expect("an answer").unwrap()).unwrap() {
            Reply::Failed { reason } => break reason,
            Reply::Ready { .. } | Reply::Phase(_) => {
                thread::sleep(std::time::Duration::from_millis(100));
                requests.write_all(b"{\"request\":\"report\"}\n").unwrap();
            }
        }
    };
    drop(requests);
    client.wait().unwrap();
    reason
}

#[test]
fn a_wrong_reply_is_shown() {
    let said = failure(client(&serve(&[b"+PONG\r\n", b"-LOADING not yet\r\n"]), "set"));
    assert!(said.contains("wrong reply: error: LOADING not yet"), "{said}");
    let said = failure(client(&serve(&[b"+PONG\r\n", b"+OK\r\n", b"$-1\r\n"]), "get"));
    assert!(said.contains("wrong reply: no value"), "{said}");
    let said = failure(client(&serve(&[b"+PONG\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]), "set"));
    assert!(said.contains("a reply that begins with 'H'"), "{said}");
}

#[test]
fn what_is_no_redis_at_all_is_said_at_once() {
    let said = failure(client(&serve(&[b"+HELLO\r\n"]), "set"));
    assert!(said.contains("wrong reply: HELLO"), "{said}");
    let said = failure(client("127.0.0.1:1", "set"));
    assert!(said.contains("cannot connect to 127.0.0.1:1"), "{said}");
}

/// A server that falls silent is no reason to wait for ever.
#[test]
fn a_server_that_hangs_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let bytes = stream.read(&mut buffer).unwrap();
        assert!(bytes > 0);
        stream.write_all(b"+PONG\r\n").unwrap();
        // Reads on, says nothing, until the client leaves.
        while matches!(stream.read(&mut buffer), Ok(bytes) if bytes > 0) {}
    });
    let said = failure(client(&address, "set"));
    assert!(said.contains(&format!("no reply for {} s", SILENCE.as_secs())), "{said}");
    server.join().unwrap();
}
