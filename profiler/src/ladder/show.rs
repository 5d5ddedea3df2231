//! A ladder, for the terminal and as a chart.

use std::fmt::Write;

use comfy_table::Cell;

use super::{Ladder, RungResult, Says};
use crate::render::{
    numbers::{bounds, micros, signed_micros},
    terminal::{Look, lines, number},
};

/// The verdict in words.
#[must_use]
pub fn says(rung: &RungResult) -> String {
    match rung.says {
        Says::Agrees => format!("{}, and its rows say why", costs(rung)),
        Says::Disagrees => format!("{}, and its rows say something else", costs(rung)),
        Says::Unexplained => match rung.rounds_needed {
            Some(rounds) => {
                format!("{}; whether its rows say why, about {rounds} rounds would tell", costs(rung))
            }
            None => format!("{}; whether its rows say why cannot be told", costs(rung)),
        },
        Says::EqualToNothing => {
            format!("equal to nothing within {:.1} %", rung.equal_within_percent.unwrap_or_default())
        }
        Says::TooSmall => match rung.rounds_needed {
            Some(rounds) => format!("too small to tell; about {rounds} rounds would"),
            None => "too small to tell".to_owned(),
        },
        Says::TooFewRounds => "no verdict below 5 rounds".to_owned(),
        Says::Incomplete => "incomplete: see the report".to_owned(),
        Says::Missing => format!("missing: {}", first_line(rung.why.as_deref().unwrap_or_default())),
        Says::Ground => String::new(),
    }
}

/// What a mechanism surely does.
fn costs(rung: &RungResult) -> &'static str {
    if rung.measured_ns < 0.0 { "saves time" } else { "costs time" }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What changed most, in words.
fn largest(rung: &RungResult) -> String {
    let stages = rung.stages.iter().map(|stage| format!("{} {}", signed_micros(stage.delta_ns), stage.label));
    let layers = rung.layers.iter().map(|layer| format!("{} {}", signed_micros(layer.delta_ns), layer.layer));
    let shown: Vec<String> = if rung.layers.is_empty() { stages.take(2).collect() } else { layers.take(3).collect() };
    shown.join(", ")
}

/// The table.
#[must_use]
pub fn table(ladder: &Ladder, look: Look) -> String {
    let mut text = format!(
        "what each mechanism of the {} ladder adds to a request of {} ({} rounds)\n\n",
        ladder.order.name(),
        ladder.workload,
        ladder.rounds
    );
    let mut table = look.table(&["mechanism", "latency µs", "adds", "95 %", "attributed", "95 %", "gap", "what"]);
    // Said is only what a rung comes on top of that is not the one before it.
    let mut before = None;
    for rung in &ladder.rungs {
        let measured = rung.on.is_some();
        let only = |text: String| if measured { text } else { String::new() };
        let on = match &rung.on {
            Some(on) if Some(on.as_str()) != before => format!("{} (on {on})", rung.mechanism),
            Some(_) | None => rung.mechanism.clone(),
        };
        before = (rung.says != Says::Missing).then_some(rung.mechanism.as_str()).or(before);
        let what: Vec<String> =
            [says(rung), only(largest(rung))].into_iter().filter(|words| !words.is_empty()).collect();
        table.add_row([
            Cell::new(on),
            number(if rung.says == Says::Missing { String::new() } else { micros(rung.latency_ns) }),
            number(only(signed_micros(rung.measured_ns))),
            number(bounds(rung.measured_ci95_ns)),
            number(only(signed_micros(rung.attributed_ns))),
            number(bounds(rung.attributed_ci95_ns)),
            number(only(format!("{} {}", signed_micros(rung.gap_ns), bounds(rung.gap_ci95_ns)))),
            Cell::new(what.join("; ")),
        ]);
    }
    text += &lines(&table);
    let _ = writeln!(
        text,
        "\nadds: by the client, nothing attached; attributed: the stages' differences, less the probes' own time"
    );
    text
}

const WIDTH: f64 = 1040.0;
const NAMES: f64 = 190.0;
const RIGHT: f64 = 370.0;
const ROW: f64 = 44.0;
const TOP: f64 = 74.0;
const BAR: f64 = 13.0;
const MEASURED: &str = "#3b6ea5";
const ATTRIBUTED: &str = "#d98a2b";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What the chart's axis must hold: from … to, ns.
fn reach(ladder: &Ladder) -> [f64; 2] {
    let ends = ladder.rungs.iter().filter(|rung| rung.on.is_some()).flat_map(|rung| {
        let intervals = [rung.measured_ci95_ns, rung.attributed_ci95_ns].into_iter().flatten().flatten();
        intervals.chain([rung.measured_ns, rung.attributed_ns]).collect::<Vec<_>>()
    });
    let [low, high] = ends.fold([0.0_f64, 0.0], |[low, high], end| [low.min(end), high.max(end)]);
    [low * 1.05, (high * 1.05).max(low + 1.0)]
}

/// Distance between the axis's lines: 1, 2 or 5 times a power of ten, ns.
fn tick(width_ns: f64) -> f64 {
    let rough = width_ns / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough).unwrap_or(10.0 * power)
}

/// A bar with its interval.
fn bar(text: &mut String, at: &dyn Fn(f64) -> f64, y: f64, ns: f64, interval: Option<[f64; 2]>, colour: &str) {
    let (from, to) = (at(ns.min(0.0)), at(ns.max(0.0)));
    let _ = writeln!(
        text,
        r#"<rect x="{from:.1}" y="{y:.1}" width="{:.1}" height="{BAR}" fill="{colour}"/>"#,
        (to - from).max(0.5)
    );
    if let Some([low, high]) = interval {
        let (low, high, middle) = (at(low), at(high), y + BAR / 2.0);
        let _ = writeln!(
            text,
            r##"<path d="M{low:.1} {:.1}v6m0 -3H{high:.1}m0 -3v6" stroke="#222" fill="none"/>"##,
            middle - 3.0
        );
    }
}

/// The chart: for every rung what it adds, measured and attributed, with intervals. An SVG.
#[must_use]
pub fn chart(ladder: &Ladder) -> String {
    let height = TOP + ROW * ladder.rungs.len() as f64 + 40.0;
    let [low, high] = reach(ladder);
    let at = |ns: f64| NAMES + (ns - low) / (high - low) * (WIDTH - NAMES - RIGHT);
    let mut text = format!(
        r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#fff"/>
<text x="16" y="26" font-size="17">What each mechanism of the {} ladder adds to a request of {}</text>
<text x="16" y="46" fill="#555">µs per operation over {} rounds, with 95 % intervals</text>
<rect x="{NAMES}" y="54" width="12" height="12" fill="{MEASURED}"/><text x="{:.0}" y="64">measured, nothing attached</text>
<rect x="{:.0}" y="54" width="12" height="12" fill="{ATTRIBUTED}"/><text x="{:.0}" y="64">attributed by the waterfalls</text>
"##,
        ladder.order.name(),
        escape(&ladder.workload),
        ladder.rounds,
        NAMES + 18.0,
        NAMES + 210.0,
        NAMES + 228.0,
    );
    scale(&mut text, [low, high], height, &at);
    for (index, rung) in ladder.rungs.iter().enumerate() {
        bars(&mut text, rung, TOP + ROW * index as f64 + 6.0, &at);
    }
    text + "</svg>\n"
}

/// Vertical lines at round numbers, from the lowest to the highest.
fn scale(text: &mut String, [low, high]: [f64; 2], height: f64, at: &dyn Fn(f64) -> f64) {
    let step = tick(high - low);
    let mut line = (low / step).ceil() * step;
    while line <= high {
        let (x, colour) = (at(line), if line.abs() < step / 2.0 { "#555" } else { "#ddd" });
        let _ = writeln!(
            text,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{:.1}" stroke="{colour}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#555">{}</text>"##,
            height - 36.0,
            height - 18.0,
            micros(line)
        );
        line += step;
    }
}

/// A rung: its name, what it adds, measured and attributed, and what is said of it.
fn bars(text: &mut String, rung: &RungResult, y: f64, at: &dyn Fn(f64) -> f64) {
    let _ = writeln!(
        text,
        r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
        NAMES - 12.0,
        y + 18.0,
        escape(&rung.mechanism)
    );
    if rung.on.is_some() {
        bar(text, &at, y, rung.measured_ns, rung.measured_ci95_ns, MEASURED);
        bar(text, &at, y + BAR + 3.0, rung.attributed_ns, rung.attributed_ci95_ns, ATTRIBUTED);
    }
    let words = match rung.says {
        Says::Ground => format!("{} µs", micros(rung.latency_ns)),
        Says::Missing => "missing".to_owned(),
        Says::Agrees
        | Says::Disagrees
        | Says::EqualToNothing
        | Says::Unexplained
        | Says::TooSmall
        | Says::TooFewRounds
        | Says::Incomplete => says(rung),
    };
    let _ = writeln!(
        text,
        r##"<text x="{:.0}" y="{:.1}" fill="#333">{}</text>"##,
        WIDTH - RIGHT + 14.0,
        y + 18.0,
        escape(&words)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ladder::Order, result::StageDelta};

    fn rung(mechanism: &str, measured: Option<f64>, says: Says) -> RungResult {
        let around = |ns: f64, half: f64| measured.map(|_| [ns - half, ns + half]);
        let ns = measured.unwrap_or(0.0);
        let stage = StageDelta {
            id: "request/x→y".to_owned(),
            label: "bridge".to_owned(),
            delta_ns: ns,
            ci95_ns: None,
            service_delta_ns: None,
            corrected_delta_ns: ns,
            detectable_ns: None,
            significant: true,
        };
        RungResult {
            mechanism: mechanism.to_owned(),
            configuration: mechanism.to_owned(),
            on: None,
            latency_ns: 17_000.0 + ns,
            measured_ns: ns,
            measured_ci95_ns: around(ns, 300.0),
            attributed_ns: 0.9 * ns,
            attributed_ci95_ns: around(0.9 * ns, 400.0),
            gap_ns: -0.1 * ns,
            gap_ci95_ns: around(-0.1 * ns, 200.0),
            own_layers_ns: None,
            stages: if ns > 1000.0 { vec![stage] } else { Vec::new() },
            layers: Vec::new(),
            says,
            equal_within_percent: (says == Says::EqualToNothing).then_some(1.8),
            rounds_needed: matches!(says, Says::TooSmall | Says::Unexplained).then_some(41),
            why: (says == Says::Missing).then(|| "no program for <rules> & more\n  remedy: none".to_owned()),
        }
    }

    fn ladder() -> Ladder {
        let mut ladder = Ladder {
            schema_version: crate::ladder::judge::SCHEMA_VERSION,
            order: Order::Network,
            workload: "tcp-rr".to_owned(),
            precision_percent: 2.0,
            rounds: 10,
            rungs: vec![
                rung("native", None, Says::Ground),
                rung("cgroup", Some(120.0), Says::EqualToNothing),
                rung("seccomp", Some(-150.0), Says::TooSmall),
                rung("veth", Some(3_000.0), Says::Agrees),
                rung("bridge", Some(1_500.0), Says::Disagrees),
                rung("conntrack", Some(600.0), Says::Unexplained),
                rung("NAT", None, Says::Missing),
                rung("Docker NAT", Some(900.0), Says::TooFewRounds),
                rung("userland proxy", Some(16_000.0), Says::Incomplete),
            ],
        };
        // Each on the one before that stands, but for the proxy.
        let mut below = None;
        for rung in ladder.rungs.iter_mut().filter(|rung| rung.says != Says::Missing) {
            let last = below.replace(rung.mechanism.clone());
            rung.on = if rung.mechanism == "userland proxy" { Some("bridge".to_owned()) } else { last };
        }
        ladder
    }

    #[test]
    fn the_table_and_the_chart_are_as_reviewed() {
        insta::assert_snapshot!("table", table(&ladder(), Look { width: Some(160), styled: false }));
        insta::assert_snapshot!("chart", chart(&ladder()));
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (width, step) in [(6_000.0, 1_000.0), (7_000.0, 2_000.0), (20_000.0, 5_000.0), (50_000.0, 10_000.0)] {
            assert!((tick(width) - step).abs() < 1e-6, "{width}: {}", tick(width));
        }
    }
}
