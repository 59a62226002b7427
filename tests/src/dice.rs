//! Randomness from a printed seed.

use std::hash::{BuildHasher, Hasher};

/// xorshift64*, after Vigna 2016: small, and good enough to choose what is sent when.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From `PUNCHLINE_TEST_SEED`, else from a new seed, which is printed.
    ///
    /// # Panics
    ///
    /// If the variable holds no number.
    #[allow(clippy::print_stderr, reason = "the seed is needed to replay a failure")]
    pub fn from_environment(test: &str) -> Dice {
        let seed = match std::env::var("PUNCHLINE_TEST_SEED") {
            Ok(text) => text.parse().expect("PUNCHLINE_TEST_SEED is a whole number"),
            // The standard library's own source of hash keys is random for each process.
            Err(_) => std::hash::RandomState::new().build_hasher().finish(),
        };
        eprintln!("{test}: replay with PUNCHLINE_TEST_SEED={seed}");
        Dice::new(seed)
    }

    /// The same seed, the same rolls.
    pub fn new(seed: u64) -> Dice {
        // Seeds that differ by 1 should not roll alike; and a state of 0 would stay 0.
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.roll();
        dice
    }

    /// Another sequence of rolls, for a task of its own.
    pub fn split(&mut self) -> Dice {
        Dice::new(self.roll())
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From `0` to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.roll() >> 32) % n
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
