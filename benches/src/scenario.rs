//! What a scenario is, and what one run of it gives.

use serde::{Deserialize, Serialize};

use crate::options::Sizes;

/// One row group of the report.
pub struct Scenario {
    /// As it is asked for.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// Does it once, on a fresh server.
    pub run: fn(&Sizes) -> Measured,
}

/// Figures of one run.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub figures: Vec<Figure>,
}

/// One figure, beside what bounds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// What the machine gives at most, or what it is compared with, measured in the same run.
    pub ceiling: Option<Ceiling>,
    pub target: Target,
    /// Name of a curve, and where on it this figure stands.
    pub curve: Option<(String, f64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ceiling {
    pub name: String,
    pub value: f64,
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// It is only told.
    None,
    AtLeast(f64),
    AtMost(f64),
    /// Of the ceiling.
    ShareAtLeast(f64),
    /// Of the ceiling.
    ShareAtMost(f64),
    /// Either will do: so much, or this share of the ceiling.
    AtLeastOrShare(f64, f64),
    /// Not more than the ceiling and so much.
    AtMostAbove(f64),
}

impl Measured {
    /// Takes a figure down; what it is to be is said on what this returns.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &str) -> &mut Figure {
        let (name, unit) = (name.into(), unit.into());
        self.figures.push(Figure { name, value, unit, ceiling: None, target: Target::None, curve: None });
        self.figures.last_mut().expect("it was just pushed")
    }
}

impl Figure {
    pub fn beside(&mut self, name: impl Into<String>, value: f64) -> &mut Figure {
        self.ceiling = Some(Ceiling { name: name.into(), value });
        self
    }

    /// Compared with the first of its kind; that one is compared with nothing, and is the first.
    pub fn against(&mut self, name: impl Into<String>, first: &mut Option<f64>, target: Target) -> &mut Figure {
        match *first {
            Some(value) => self.beside(name, value).target(target),
            None => {
                *first = Some(self.value);
                self
            }
        }
    }

    pub fn target(&mut self, target: Target) -> &mut Figure {
        self.target = target;
        self
    }

    pub fn on(&mut self, curve: &str, at: u64) -> &mut Figure {
        self.curve = Some((curve.into(), at as f64));
        self
    }

    /// Value over ceiling.
    pub fn ratio(&self) -> Option<f64> {
        self.ceiling.as_ref().map(|ceiling| self.value / ceiling.value)
    }

    /// Whether the figure is as it is to be; `None` where nothing is asked.
    pub fn is_met(&self) -> Option<bool> {
        let ceiling = self.ceiling.as_ref().map_or(f64::NAN, |ceiling| ceiling.value);
        // A figure that is no number meets nothing.
        Some(match self.target {
            Target::None => return None,
            Target::AtLeast(bound) => self.value >= bound,
            Target::AtMost(bound) => self.value <= bound,
            Target::ShareAtLeast(share) => self.value >= share * ceiling,
            Target::ShareAtMost(share) => self.value <= share * ceiling,
            Target::AtLeastOrShare(bound, share) => self.value >= bound || self.value >= share * ceiling,
            Target::AtMostAbove(more) => self.value <= ceiling + more,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::None => f.write_str("-"),
            Target::AtLeast(bound) => write!(f, ">= {bound}"),
            Target::AtMost(bound) => write!(f, "<= {bound}"),
            Target::ShareAtLeast(share) => write!(f, "ratio >= {share}"),
            Target::ShareAtMost(share) => write!(f, "ratio <= {share}"),
            Target::AtLeastOrShare(bound, share) => write!(f, ">= {bound} or ratio >= {share}"),
            Target::AtMostAbove(more) => write!(f, "<= ceiling + {more}"),
        }
    }
}
