//! A curve as SVG: medians over a logarithmic axis, with the spread of the runs.

use crate::options::short;
use crate::report::number;

/// One size.
pub struct Point {
    pub at: f64,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
const STEPS: u32 = 4;

/// The picture. The vertical axis begins at zero, so that what looks flat is flat.
pub fn svg(title: &str, unit: &str, points: &[Point]) -> String {
    let (first, last) = (points[0].at.ln(), points[points.len() - 1].at.ln());
    let most = points.iter().map(|p| p.max).fold(f64::MIN_POSITIVE, f64::max);
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at.ln() - first) / (last - first).max(f64::MIN_POSITIVE);
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title} ({unit})</text>\n"
    );
    for step in 0..=STEPS {
        let value = most * f64::from(step) / f64::from(STEPS);
        let (at, end, label) = (y(value), WIDTH - RIGHT, number(value));
        svg += &format!(
            "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{label}</text>\n",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut path = String::new();
    for point in points {
        let (at, middle, label) = (x(point.at), y(point.median), short(point.at as u64));
        path += &format!("{}{at:.1} {middle:.1}", if path.is_empty() { "M" } else { "L" });
        svg += &format!(
            "<path d=\"M{at:.1} {:.1}V{:.1}\" stroke=\"#999\" stroke-width=\"4\"/><circle cx=\"{at:.1}\" \
             cy=\"{middle:.1}\" r=\"4\" fill=\"#06c\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{label}</text>\n",
            y(point.min),
            y(point.max),
            HEIGHT - BOTTOM + 18.0
        );
    }
    svg + &format!("<path d=\"{path}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>\n</svg>\n")
}
