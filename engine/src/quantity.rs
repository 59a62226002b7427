//! Amounts. Whole numbers only; what must not be mixed up is not one type.
//!
//! # Invariants
//!
//! - No arithmetic here overflows silently: it is checked, and the caller says what a `None` means.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// Nothing.
            pub const ZERO: $name = $name(0);

            /// The sum, `None` on overflow.
            pub fn checked_add(self, other: $name) -> Option<$name> {
                self.0.checked_add(other.0).map($name)
            }

            /// This amount for each of `units`, `None` on overflow.
            pub fn checked_mul(self, units: u64) -> Option<$name> {
                self.0.checked_mul(i64::try_from(units).ok()?).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

amount!(
    /// A campaign's currency.
    Points
);
amount!(
    /// The advertiser's currency across campaigns ("Cheercoins").
    Coins
);

/// Marks on a punchcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamps(pub u64);

/// Units of a SKU on one consumption line: 1 to [`Quantity::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Quantity(u32);

impl Quantity {
    /// Largest quantity of one line: with the largest reward a unit (1 000 000) a line stays far
    /// below what a balance can hold.
    pub const MAX: u32 = 10_000;

    /// `None` unless 1 ≤ `units` ≤ [`Quantity::MAX`].
    pub fn new(units: u64) -> Option<Quantity> {
        (1..=u64::from(Self::MAX)).contains(&units).then_some(Quantity(units as u32))
    }

    /// The units.
    pub fn units(self) -> u64 {
        u64::from(self.0)
    }
}
