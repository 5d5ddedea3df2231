//! The Redis serialization protocol, as much of it as two commands need
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>, version 2).

/// A request: an array of bulk strings.
#[must_use]
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+…`
    Simple(&'a [u8]),
    /// `-…`
    Error(&'a [u8]),
    /// `$…`; `None`: no such value.
    Bulk(Option<&'a [u8]>),
}

/// Largest value that a reply may announce: what is larger was not asked for.
const LARGEST_BULK: usize = 1 << 20;

/// The reply at the beginning of `bytes`, and its length; `Ok(None)`: it is not whole yet.
///
/// # Errors
/// A sentence fragment, if the bytes are no reply.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if !b"+-$".contains(kind) {
        return Err(format!("a reply that begins with {:?}", char::from(*kind)));
    }
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > 4096 { Err("a reply whose first line does not end".to_owned()) } else { Ok(None) };
    };
    let (line, after) = (&bytes[1..end], end + 2);
    match kind {
        b'+' => Ok(Some((Reply::Simple(line), after))),
        b'-' => Ok(Some((Reply::Error(line), after))),
        _ if line == b"-1" => Ok(Some((Reply::Bulk(None), after))),
        _ => {
            let length = std::str::from_utf8(line)
                .ok()
                .and_then(|text| text.parse::<usize>().ok())
                .filter(|length| *length <= LARGEST_BULK)
                .ok_or_else(|| format!("a value of {:?} bytes", String::from_utf8_lossy(line)))?;
            let whole = after + length + 2;
            if bytes.len() < whole {
                return Ok(None);
            }
            if &bytes[whole - 2..whole] != b"\r\n" {
                return Err("a value that does not end where it said".to_owned());
            }
            Ok(Some((Reply::Bulk(Some(&bytes[after..whole - 2])), whole)))
        }
    }
}

/// A reply for a person.
#[must_use]
pub fn show(reply: &Reply<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    match reply {
        Reply::Simple(line) => text(line),
        Reply::Error(line) => format!("error: {}", text(line)),
        Reply::Bulk(None) => "no value".to_owned(),
        Reply::Bulk(Some(value)) => format!("a value of {} bytes", value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        assert_eq!(request(&[b"SET", b"key", b"value"]), b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n");
    }

    #[test]
    fn replies() {
        assert_eq!(parse(b"+OK\r\nrest"), Ok(Some((Reply::Simple(b"OK"), 5))));
        assert_eq!(parse(b"-ERR no\r\n"), Ok(Some((Reply::Error(b"ERR no"), 9))));
        assert_eq!(parse(b"$3\r\nabc\r\n"), Ok(Some((Reply::Bulk(Some(b"abc")), 9))));
        assert_eq!(parse(b"$0\r\n\r\n"), Ok(Some((Reply::Bulk(Some(b"")), 6))));
        assert_eq!(parse(b"$-1\r\n"), Ok(Some((Reply::Bulk(None), 5))));
        for unfinished in [&b""[..], b"+", b"+OK\r", b"$3\r\nabc", b"$3\r\nabc\r"] {
            assert_eq!(parse(unfinished), Ok(None), "{unfinished:?}");
        }
        for broken in [&b":1\r\n"[..], b"$x\r\n", b"$99999999\r\n", b"$3\r\nabcde", b"$-2\r\n"] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
    }

    /// Any bytes, cut anywhere: no panic, and a whole reply is found whole.
    #[test]
    fn hostile_bytes() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            while state >> 60 != 0 || bytes.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(b"+-$\r\n019ab"[(state >> 33) as usize % 10]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if let Ok(Some((_, length))) = parse(&bytes) {
                assert!(length <= bytes.len());
                assert!(matches!(parse(&bytes[..length]), Ok(Some(_))));
            }
        }
    }
}
