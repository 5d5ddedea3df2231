//! Numbers as text.

/// Nanoseconds as microseconds, with as many digits as a person can use.
#[must_use]
pub fn micros(ns: f64) -> String {
    let micros = ns / 1000.0;
    let digits = if micros.abs() >= 1000.0 {
        0
    } else if micros.abs() >= 100.0 {
        1
    } else {
        2
    };
    minus(format!("{micros:.digits$}"))
}

/// A time in microseconds with its sign.
#[must_use]
pub fn signed_micros(ns: f64) -> String {
    let text = micros(ns);
    if text.starts_with('−') || text.trim_matches(['0', '.']).is_empty() { text } else { format!("+{text}") }
}

/// The ends of an interval, "[1.42, 3.58]", or nothing: few are symmetric.
#[must_use]
pub fn bounds(interval: Option<[f64; 2]>) -> String {
    interval.map_or(String::new(), |[low, high]| format!("[{}, {}]", micros(low), micros(high)))
}

/// Bounds of a share (0–1), in percent.
#[must_use]
pub fn share_bounds(interval: Option<[f64; 2]>) -> String {
    interval.map_or(String::new(), |[low, high]| format!("[{:.0}, {:.0}]", 100.0 * low, 100.0 * high))
}

/// A share (0–1) as a percentage.
#[must_use]
pub fn percent(share: f64) -> String {
    minus(format!("{:.2} %", 100.0 * share))
}

fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.trim_matches(['0', '.']).is_empty() => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_follow_the_size() {
        assert_eq!(micros(1_234.0), "1.23");
        assert_eq!(micros(123_456.0), "123.5");
        assert_eq!(micros(12_345_678.0), "12346");
        assert_eq!(micros(-1.0), "0.00");
        assert_eq!(signed_micros(-1_500.0), "−1.50");
        assert_eq!(signed_micros(1_500.0), "+1.50");
        assert_eq!(signed_micros(0.0), "0.00");
        assert_eq!(bounds(Some([-200.0, 1_400.0])), "[−0.20, 1.40]");
        assert_eq!(bounds(None), "");
        assert_eq!(share_bounds(Some([0.231, 0.29])), "[23, 29]");
    }
}
