//! The auditor: what must have come of the consumptions that exist. Maps and sums, nothing clever.
//!
//! It is told what was sent and what was answered, and holds the answers against each other:
//!
//! - an id that was acknowledged once is answered with the same sequence for ever;
//! - no two ids share a sequence.
//!
//! # What is absent on purpose
//!
//! - The engine. Sums do not depend on the order in which consumptions came: the test campaign has no
//!   rule for which they would.

use std::collections::{BTreeMap, BTreeSet};

use punchline_proto::v1;

use crate::api::Refused;
use crate::campaign::{CAMPAIGN, PUNCHCARD};

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// As [`Api::balances`](crate::api::Api::balances) answers.
    pub balances: BTreeMap<String, i64>,
    /// As [`Api::punchcards`](crate::api::Api::punchcards) answers.
    pub punchcards: BTreeMap<String, (u64, u64)>,
}

/// The auditor's books.
#[derive(Debug, Default)]
pub struct Model {
    /// All that was ever sent, by id.
    sent: BTreeMap<String, v1::Consumption>,
    /// Those that were accepted, and not refused as repeats.
    accepted: BTreeSet<String>,
    /// Sequence of the receipt, by id: those of which the server said that they are in.
    acknowledged: BTreeMap<String, u64>,
    /// Id by sequence of the receipt.
    by_sequence: BTreeMap<u64, String>,
    /// Sequence by id: those that stand in the journal.
    recorded: BTreeMap<String, u64>,
}

impl Model {
    /// A consumption goes out.
    pub fn sent(&mut self, consumption: &v1::Consumption) {
        let known = self.sent.entry(consumption.consumption_id.clone()).or_insert_with(|| consumption.clone());
        assert_eq!(known, consumption, "a test sends an id with one content only");
    }

    /// The answer is here.
    ///
    /// # Panics
    ///
    /// If it contradicts an earlier one, or is a refusal that this consumption has not earned.
    pub fn answered(&mut self, id: &str, answer: &Result<v1::Receipt, Refused>) {
        match answer {
            Ok(receipt) => {
                // The answer to a repeat may overtake this one, so only a second acceptance is a fault.
                assert!(self.accepted.insert(id.into()), "{id} was accepted twice: {receipt:?}");
                self.acknowledge(id, receipt.sequence);
            }
            Err(refused) if refused.reason == "CONSUMPTION_EXISTS" => {
                let receipt = refused.receipt.as_ref().expect("a repeat is answered with the first receipt");
                self.acknowledge(id, receipt.sequence);
            }
            Err(refused) if refused.is_unknown_outcome() => {}
            Err(refused) => panic!("{id} was refused: {refused:?}"),
        }
    }

    fn acknowledge(&mut self, id: &str, sequence: u64) {
        let first = *self.acknowledged.entry(id.into()).or_insert(sequence);
        assert_eq!(first, sequence, "{id} is answered with another sequence than before");
        let owner = self.by_sequence.entry(sequence).or_insert_with(|| id.into());
        assert_eq!(owner, id, "two consumptions share sequence {sequence}");
    }

    /// `consumption.recorded` with this id stands at this place of the journal.
    ///
    /// # Panics
    ///
    /// If it stands there twice, or was never sent.
    pub fn recorded(&mut self, id: &str, sequence: u64) {
        assert!(self.sent.contains_key(id), "{id} was recorded at {sequence}, but never sent");
        if let Some(first) = self.recorded.insert(id.into(), sequence) {
            panic!("{id} was recorded twice, at {first} and at {sequence}");
        }
    }

    /// Holds what was acknowledged against what was recorded.
    ///
    /// # Panics
    ///
    /// If an acknowledged one is not there, or is elsewhere.
    pub fn check_nothing_is_lost(&self) {
        for (id, sequence) in &self.acknowledged {
            assert_eq!(self.recorded.get(id), Some(sequence), "{id} was acknowledged at {sequence}, and is lost");
        }
    }

    /// How many are in the journal.
    pub fn recorded_count(&self) -> usize {
        self.recorded.len()
    }

    /// How many were acknowledged.
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// How many were sent.
    pub fn sent_count(&self) -> usize {
        self.sent.len()
    }

    /// Acknowledged ones, from the `from`-th on, with their sequences.
    pub fn acknowledged(&self, from: usize, count: usize) -> Vec<(v1::Consumption, u64)> {
        let some = self.acknowledged.iter().skip(from).take(count);
        some.map(|(id, sequence)| (self.sent[id].clone(), *sequence)).collect()
    }

    /// What the member with this phone number must have, by what is recorded.
    pub fn holdings(&self, phone: &str) -> Holdings {
        let mut units: BTreeMap<&str, u64> = BTreeMap::new();
        for id in self.recorded.keys() {
            let consumption = &self.sent[id];
            if consumption.identifiers[0].value == phone {
                for line in &consumption.lines {
                    *units.entry(&line.sku).or_default() += line.quantity as u64;
                }
            }
        }
        holdings_of(&units)
    }
}

/// What so many units of each SKU come to. The rules of the test campaign, in other words.
pub fn holdings_of(units: &BTreeMap<&str, u64>) -> Holdings {
    let of = |sku: &str| units.get(sku).copied().unwrap_or(0);
    let coffees = of("coffee_small") + of("coffee_large");
    let cans = of("can_mango") + of("can_yuzu");
    let points = 50 * of("article") + 5 * coffees + 3 * cans + 100 * of("kit").min(40);
    let mut holdings = Holdings::default();
    holdings.balances.insert(CAMPAIGN.into(), points as i64);
    holdings.balances.insert("coins".into(), 2 * cans as i64);
    holdings.punchcards.insert(PUNCHCARD.into(), (coffees % 10, coffees / 10));
    holdings
}
