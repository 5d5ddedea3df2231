//! Paths of requests as the kernel's own tracer recorded them: what the table of points allows must be what happens.

use std::collections::HashMap;

use profiler::points::{self, Point};

/// A step of a recorded path.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    point: Point,
    device: Option<String>,
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.device {
            Some(device) => write!(formatter, "{}({device})", self.point),
            None => formatter.write_str(self.point.name()),
        }
    }
}

/// The value of `name=` in a line of the tracer.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}="))?;
    rest.split_whitespace().next()
}

/// The event's name: between the time and the next colon.
fn event(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(": ")?;
    let (name, rest) = rest.split_once(':')?;
    Some((name.trim(), rest))
}

/// One message's steps, in the words of the table of points: from a sending call to the next receipt. The tracer does
/// not say which skb tcp_probe looks at: it is the one received last.
fn messages(trace: &str) -> Vec<Vec<Step>> {
    let mut done = Vec::new();
    let mut current: Vec<Step> = Vec::new();
    let mut skb = None;
    for line in trace.lines() {
        let Some((name, rest)) = event(line) else { continue };
        let device = field(rest, "dev").map(str::to_owned);
        let follows = skb.is_some() && field(rest, "skbaddr") == skb;
        let step = |point| Step { point, device: device.clone() };
        match name {
            "sys_enter" if rest.trim_start().starts_with("NR 1 ") => {
                current = vec![Step { point: Point::Call, device: None }, Step { point: Point::Send, device: None }];
                skb = None;
            }
            "net_dev_queue" if current.last().is_some_and(|last| last.point == Point::Send) => {
                skb = field(rest, "skbaddr");
                current.push(step(Point::Queue));
            }
            "net_dev_queue" if follows => current.push(step(Point::Queue)),
            "net_dev_start_xmit" if follows => current.push(step(Point::Xmit)),
            "netif_receive_skb" if follows => current.push(step(Point::Receive)),
            "tcp_probe" if skb.is_some() => {
                current.push(Step { point: Point::Delivered, device: None });
                skb = None;
            }
            "sk_data_ready" if current.last().is_some_and(|last| last.point == Point::Delivered) => {
                current.push(Step { point: Point::Ready, device: None });
            }
            "sock_recv_length" if current.last().is_some_and(|last| last.point == Point::Ready) => {
                current.push(Step { point: Point::Received, device: None });
                done.push(std::mem::take(&mut current));
            }
            _ => {}
        }
    }
    done
}

fn path(messages: &[Vec<Step>], index: usize) -> String {
    messages[index].iter().map(ToString::to_string).collect::<Vec<_>>().join(" → ")
}

const LOOPBACK: &str = include_str!("../data/trace-tcp-rr-loopback.txt");
const VETH: &str = include_str!("../data/trace-tcp-rr-veth.txt");
const DNAT: &str = include_str!("../data/trace-tcp-rr-veth-dnat-bridge.txt");

pub fn every_recorded_step_is_legal() {
    for (name, trace) in [("loopback", LOOPBACK), ("veth", VETH), ("dnat", DNAT)] {
        let messages = messages(trace);
        assert!(messages.len() >= 4, "{name}: {} messages", messages.len());
        for message in &messages {
            for pair in message.windows(2) {
                assert!(points::is_legal(pair[0].point, pair[1].point), "{name}: {} → {}", pair[0], pair[1]);
            }
        }
    }
}

pub fn the_ways_of_the_recorded_requests_and_responses() {
    let (veth, dnat) = (messages(VETH), messages(DNAT));
    insta::assert_snapshot!([path(&veth, 0), path(&veth, 1), path(&dnat, 0), path(&dnat, 1)].join("\n"));
}

pub fn all_messages_of_a_recording_go_the_same_two_ways() {
    for trace in [LOOPBACK, VETH, DNAT] {
        let mut ways: HashMap<String, usize> = HashMap::new();
        let messages = messages(trace);
        for index in 0..messages.len() {
            *ways.entry(path(&messages, index)).or_default() += 1;
        }
        // Loopback's two directions look alike.
        assert!((1..=2).contains(&ways.len()), "{ways:#?}");
    }
}
