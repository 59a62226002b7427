//! What is printed and written: medians over the runs, once for all scenarios.
//!
//! # Invariants
//!
//! - Each scenario's runs are kept as they were measured (`docs/performance/<scenario>.json`), so that a page
//!   is made of what several calls have measured, and says at which commit and sizes.
//! - A ratio is of one run: the median is taken of ratios, never of what was measured at different times.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plot::{self, Point};
use crate::process;
use crate::scenario::{Figure, Measured, Scenario, Target};

/// One line on standard output.
pub fn line(text: &str) {
    // Standard output may be closed; then nobody wants to know.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The value below which `percent` of the sorted values lie.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let at = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The runs of one scenario.
#[derive(Serialize, Deserialize)]
pub struct Results {
    pub scenario: String,
    pub commit: String,
    /// As options of the command line.
    pub sizes: String,
    pub runs: Vec<Measured>,
}

/// One figure over all runs.
struct Row {
    name: String,
    unit: String,
    target: Target,
    median: f64,
    min: f64,
    max: f64,
    /// Name, median, median of the ratios.
    ceiling: Option<(String, f64, f64)>,
    /// In more than half of the runs: as the median is, whatever the target.
    met: Option<bool>,
    curve: Option<(String, f64)>,
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: Vec<f64>) -> f64 {
    percentile(&sorted(values), 50.0)
}

impl Results {
    fn rows(&self) -> Vec<Row> {
        let first = self.runs.first().map(|run| run.figures.as_slice()).unwrap_or_default();
        first.iter().map(|figure| self.row(figure)).collect()
    }

    fn row(&self, first: &Figure) -> Row {
        let all: Vec<&Figure> =
            self.runs.iter().flat_map(|run| run.figures.iter().filter(|f| f.name == first.name)).collect();
        let values = sorted(all.iter().map(|f| f.value).collect());
        let ceilings = || all.iter().filter_map(|f| f.ceiling.as_ref());
        let met = all.iter().filter(|f| f.is_met() == Some(true)).count();
        Row {
            name: first.name.clone(),
            unit: first.unit.clone(),
            target: first.target,
            median: percentile(&values, 50.0),
            min: values[0],
            max: values[values.len() - 1],
            ceiling: first.ceiling.as_ref().map(|ceiling| {
                let ratios = all.iter().filter_map(|f| f.ratio()).collect();
                (ceiling.name.clone(), median(ceilings().map(|c| c.value).collect()), median(ratios))
            }),
            met: first.is_met().map(|_| 2 * met > all.len()),
            curve: first.curve.clone(),
        }
    }

    /// As lines for people.
    pub fn print(&self) {
        line(&format!("{} at {}, {} runs: median (min..max)", self.scenario, self.commit, self.runs.len()));
        for row in self.rows() {
            let (spread, unit) = (row.spread(), &row.unit);
            line(&format!("  {:<50} {:>10} {unit:<18} {spread:<24} {}", row.name, number(row.median), row.verdict()));
            if let Some((name, ceiling, ratio)) = &row.ceiling {
                line(&format!("    beside {name:<43} {:>10} {:<18} ratio {ratio:.2}", number(*ceiling), ""));
            }
        }
    }
}

impl Row {
    fn spread(&self) -> String {
        format!("({}..{})", number(self.min), number(self.max))
    }

    fn verdict(&self) -> String {
        match self.met {
            None => String::new(),
            Some(true) => format!("met: {}", self.target),
            Some(false) => format!("MISSED: {}", self.target),
        }
    }

    fn markdown(&self, scenario: &str) -> String {
        let (ceiling, ratio) = match &self.ceiling {
            Some((name, value, ratio)) => (format!("{} {name}", number(*value)), format!("{ratio:.2}")),
            None => ("-".into(), "-".into()),
        };
        let verdict = match self.met {
            None => "",
            Some(true) => "met",
            Some(false) => "**missed**",
        };
        let (median, spread) = (number(self.median), self.spread());
        let Row { name, unit, target, .. } = self;
        format!("| `{scenario}` | {name} | {median} {unit} | {spread} | {ceiling} | {ratio} | {target} | {verdict} |\n")
    }
}

/// As many digits as say something; thousands apart.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let decimals = match value.abs() {
        0.0 => 0,
        n if n < 0.1 => 4,
        n if n < 10.0 => 2,
        n if n < 1_000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate stands in the workspace").join("docs")
}

/// Keeps what was measured, and writes the page anew of all that is kept.
pub fn keep(results: &Results, scenarios: &[Scenario]) {
    let folder = docs().join("performance");
    fs::create_dir_all(&folder).expect("docs can be written");
    let text = serde_json::to_string_pretty(results).expect("figures are JSON");
    fs::write(folder.join(format!("{}.json", results.scenario)), text + "\n").expect("docs can be written");
    write(scenarios);
}

/// `docs/performance.md` and its plots, of all that is kept.
pub fn write(scenarios: &[Scenario]) {
    let folder = docs().join("performance");
    let kept = |scenario: &Scenario| {
        let text = fs::read_to_string(folder.join(format!("{}.json", scenario.name))).ok()?;
        Some((scenario.about, serde_json::from_str::<Results>(&text).expect("it was written by this program")))
    };
    let kept: Vec<(&str, Results)> = scenarios.iter().filter_map(kept).collect();
    let mut page = String::from(HEAD);
    page += "\n| the machine | |\n|---|---|\n";
    for (what, value) in process::machine() {
        page += &format!("| {what} | {value} |\n");
    }
    page += "\n## Figures\n\n| scenario | figure | median | min..max | ceiling | ratio | target | |\n|---|---|--:|---|---|--:|---|---|\n";
    for (_, results) in &kept {
        page.extend(results.rows().iter().map(|row| row.markdown(&results.scenario)));
    }
    page += "\n## What was run\n\n| scenario | what | runs | at commit | sizes |\n|---|---|--:|---|---|\n";
    for (about, Results { scenario, commit, sizes, runs }) in &kept {
        page += &format!("| `{scenario}` | {about} | {} | {commit} | `{sizes}` |\n", runs.len());
    }
    page += "\n## Curves\n";
    for (_, results) in &kept {
        page.extend(curves(results, &folder));
    }
    page += FINDINGS;
    fs::write(docs().join("performance.md"), page).expect("docs can be written");
}

/// Writes the curves of a scenario, and gives the lines that show them.
fn curves(results: &Results, folder: &Path) -> Vec<String> {
    let mut curves: Vec<(String, String, Vec<Point>)> = Vec::new();
    for row in results.rows() {
        let Some((curve, at)) = row.curve else { continue };
        let point = Point { at, median: row.median, min: row.min, max: row.max };
        match curves.iter_mut().find(|(name, ..)| *name == curve) {
            Some((.., points)) => points.push(point),
            None => curves.push((curve, row.unit, vec![point])),
        }
    }
    let write = |(curve, unit, points): (String, String, Vec<Point>)| {
        let file = format!("{}-{}.svg", results.scenario, curve.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        let title = format!("{}: {curve}", results.scenario);
        fs::write(folder.join(&file), plot::svg(&title, &unit, &points)).expect("docs can be written");
        format!("\n![{title}](performance/{file})\n")
    };
    // One point is no curve.
    curves.into_iter().filter(|(.., points)| points.len() > 1).map(write).collect()
}

/// What profiles showed, which no run of this program finds out.
const FINDINGS: &str = include_str!("../findings.md");

const HEAD: &str = "# Performance

Written by `cargo run --release -p punchline-benches -- report`; not edited by hand. Server, driver and receiver
share the cores; every commit is synced to the disk. A figure is the median of the runs, beside its ceiling: what
the machine gives without us, or what it is compared with, measured in the same run. The ratio is the median of the
runs' ratios. A target is met where it is in more than half of the runs.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_median_of_ratios() {
        let run = |value, ceiling| {
            let mut run = Measured::default();
            run.figure("rate", value, "calls/s").beside("bare", ceiling).target(Target::ShareAtLeast(0.6));
            run
        };
        // The second run had half the machine: its rate is low, its ratio is not.
        let runs = vec![run(60.0, 100.0), run(35.0, 50.0), run(50.0, 100.0)];
        let results = Results { scenario: String::new(), commit: String::new(), sizes: String::new(), runs };
        let row = &results.rows()[0];
        assert_eq!((row.median, row.min, row.max), (50.0, 35.0, 60.0));
        assert_eq!(row.ceiling, Some(("bare".into(), 100.0, 0.6)));
        assert_eq!(row.met, Some(true));
    }

    #[test]
    fn numbers_are_short() {
        let numbers =
            [(0.0042, "0.0042"), (4.129, "4.13"), (42.0, "42.0"), (1234.5, "1 234"), (-1234567.0, "-1 234 567")];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }
}
