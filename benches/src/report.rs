//! What is printed.

use std::io::Write as _;

/// One line on standard output.
pub fn line(text: &str) {
    // Standard output may be closed; then nobody wants to know.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A figure with its target.
pub fn figure(name: &str, value: f64, unit: &str, target: &str) {
    line(&format!("{name:<44} {value:>12.1} {unit:<18} target {target}"));
}

/// A figure's ceiling, measured in the same run, and the ratio.
pub fn ceiling(name: &str, value: f64, ceiling: f64) {
    line(&format!("  ceiling: {name:<33} {ceiling:>12.1} {:<18} ratio {:.2}", "", value / ceiling));
}

/// The value below which `percent` of the sorted values lie.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let at = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
