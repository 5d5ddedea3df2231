//! Colours: one a layer, the same in every picture; red and blue for differences.

use std::fmt::Write;

/// A layer's colour, as `#rrggbb`; frames that are no code, or of an unknown layer, are grey.
const LAYERS: &[(&str, &str)] = &[
    ("conntrack", "#e15759"),
    ("NAT", "#b6202e"),
    ("iptables/nftables", "#ff9d9a"),
    ("routing", "#f28e2b"),
    ("bridge", "#edc948"),
    ("veth", "#d4a94c"),
    ("tcp", "#4e79a7"),
    ("ip", "#76b7d6"),
    ("qdisc", "#a0cbe8"),
    ("socket", "#59a14f"),
    ("vfs", "#8cd17d"),
    ("page cache", "#bfe3a9"),
    ("ext4", "#2f8f83"),
    ("xfs", "#38761d"),
    ("overlayfs", "#a2c417"),
    ("block", "#e0823d"),
    ("I/O scheduler", "#f6b26b"),
    ("loop", "#5b3a8c"),
    ("dm/md", "#7d6bb5"),
    ("virtio-blk", "#c2527a"),
    ("nvme", "#a64d79"),
    ("system-call entry/exit", "#b6992d"),
    ("seccomp", "#86552d"),
    ("softirq", "#499894"),
    ("scheduler", "#86bcb6"),
    ("memory", "#b07aa1"),
    ("virtio", "#d37295"),
    ("interrupts", "#fabfd2"),
    ("irqs-off", "#9c755f"),
    ("user", "#d98cb3"),
    ("virtax", "#ff00c8"),
    ("bpf", "#c08a6a"),
    ("unmatched", "#79706e"),
    ("blocked", "#7b86a8"),
    ("waking", "#98a2c0"),
    ("run-queue", "#b3bbd3"),
    ("throttled", "#56607f"),
    ("other-requests", "#f7e1a0"),
    ("switching", "#dfe6f2"),
    ("device", "#2b2d5b"),
    ("waiting", "#c9cfe0"),
    ("queue", "#69759f"),
    ("idle-exit", "#c0dbf6"),
    ("unaccounted", "#f3f3e7"),
    ("unsampled", "#f0e1bd"),
    ("rto", "#6b2a2a"),
    ("loss-probe", "#8a3f3a"),
    ("fast-retransmit", "#a85a50"),
    ("probe-timer", "#7a4a58"),
    ("other-retransmission", "#4f6b3a"),
];

/// Colour of frames that are no code.
pub const PLAIN: &str = "#e4ded4";

/// The colour of a layer.
#[must_use]
pub fn of_layer(layer: Option<&str>) -> &'static str {
    let Some(layer) = layer else { return PLAIN };
    LAYERS.iter().find(|(name, _)| *name == layer).map_or("#bab0ac", |(_, colour)| colour)
}

/// The colour of a change, −1 (blue: gone) to 1 (red: new).
#[must_use]
pub fn of_change(change: f64) -> String {
    let faded = (255.0 - 200.0 * change.abs().min(1.0).sqrt()).round() as u8;
    if change > 0.0 { format!("#ff{faded:02x}{faded:02x}") } else { format!("#{faded:02x}{faded:02x}ff") }
}

/// An invisible letter (one of Unicode's variation selectors) that tells frames of different layers apart where their
/// texts are equal: the library knows a frame's colour by its text alone.
#[must_use]
pub fn mark(layer: Option<&str>) -> String {
    let index = layer.and_then(|layer| LAYERS.iter().position(|(name, _)| *name == layer));
    let letter = index.and_then(|index| char::from_u32(0xE0100 + index as u32));
    letter.map_or_else(String::new, String::from)
}

const ROW: f64 = 17.0;
const LETTER: f64 = 6.8;

/// Adds a legend below a picture of inferno's: the picture grows by its rows.
#[must_use]
pub fn with_legend(svg: &str, entries: &[(String, String)]) -> String {
    let Some((width, height)) = view_box(svg) else { return svg.to_owned() };
    let (mut x, mut y) = (10.0, height + 4.0);
    let mut legend = String::from("<g id=\"legend\" font-family=\"monospace\" font-size=\"11\">");
    for (name, colour) in entries {
        let needed = 28.0 + LETTER * name.chars().count() as f64;
        if x + needed > width {
            (x, y) = (10.0, y + ROW);
        }
        let _ = write!(
            legend,
            "<rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" fill=\"rgb(0,0,0)\">{}</text>",
            x + 16.0,
            y + 10.0,
            name.replace('&', "&amp;").replace('<', "&lt;")
        );
        x += needed;
    }
    legend.push_str("</g></svg>");
    let grown = y + ROW + 4.0;
    let end = svg.rfind("</svg>").unwrap_or(svg.len());
    let mut text = format!("{}{legend}\n", &svg[..end]);
    for (before, after) in [
        (format!("viewBox=\"0 0 {width} {height}\""), format!("viewBox=\"0 0 {width} {grown}\"")),
        (format!("height=\"{height}\""), format!("height=\"{grown}\"")),
    ] {
        text = text.replacen(&before, &after, 1);
    }
    // The background lies over the whole picture.
    text.replacen(
        &format!("height=\"{height}\" fill=\"url(#background)\""),
        &format!("height=\"{grown}\" fill=\"url(#background)\""),
        1,
    )
}

fn view_box(svg: &str) -> Option<(f64, f64)> {
    let (_, rest) = svg.split_once("viewBox=\"0 0 ")?;
    let (numbers, _) = rest.split_once('"')?;
    let (width, height) = numbers.split_once(' ')?;
    Some((width.parse().ok()?, height.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtax_analysis::layers::Rules;

    #[test]
    fn every_layer_has_a_colour_of_its_own() {
        for layer in Rules::own().layers() {
            assert!(LAYERS.iter().any(|(name, _)| *name == layer), "{layer}");
        }
        let parse = |colour: &str| inferno::flamegraph::color::parse_hex_color(colour).unwrap();
        for (index, (name, colour)) in LAYERS.iter().enumerate() {
            for (other, of_other) in LAYERS[index + 1..].iter().chain([&("plain frames", PLAIN)]) {
                let (a, b) = (parse(colour), parse(of_other));
                let squares = [(a.r, b.r), (a.g, b.g), (a.b, b.b)].map(|(a, b)| f64::from(a.abs_diff(b)).powi(2));
                let distance = squares.iter().sum::<f64>().sqrt();
                assert!(distance >= 25.0, "{name} and {other}: {distance}");
            }
        }
    }

    #[test]
    fn changes_are_red_or_blue() {
        assert_eq!(of_change(1.0), "#ff3737");
        assert_eq!(of_change(-1.0), "#3737ff");
        assert_eq!(of_change(0.0), "#ffffff");
    }

    #[test]
    fn a_legend_makes_room_for_itself() {
        let svg = "<svg height=\"100\" viewBox=\"0 0 200 100\"><rect/></svg>";
        let entries: Vec<(String, String)> =
            ["a layer", "another layer", "x < y"].iter().map(|name| ((*name).to_owned(), PLAIN.to_owned())).collect();
        let grown = with_legend(svg, &entries);
        assert!(grown.contains("viewBox=\"0 0 200 142\"") && grown.contains("height=\"142\""), "{grown}");
        assert!(grown.contains("x &lt; y") && grown.ends_with("</g></svg>\n"));
        assert_eq!(with_legend("no picture", &entries), "no picture");
    }
}
