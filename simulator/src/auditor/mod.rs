//! The auditor: a second opinion on what the node said and did, worked out in plain maps.
//!
//! It is told every command and every answer, sees what receivers saw, and reads the journal after each restart
//! and at the end. What it finds wrong it says in a sentence that begins with the guarantee.
//!
//! # Invariants
//!
//! - What was acknowledged stays known here for ever, whatever the node forgets.
//! - A command whose answer was lost may have been carried out or not; every other one is known.
//!
//! # What is absent on purpose
//!
//! - The rules of loyalty: `engine/tests/auditor` has its own model of those.

mod deliveries;
mod history;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;

use punchline_engine::command::{Action, Command};
use punchline_engine::id::{AdvertiserId, Environment, KeySlot, Sequence, Tenant};
use punchline_engine::rejection::Rejection;
use punchline_runtime::committer::{Answer, Outcome, Refusal, Unavailable};
use punchline_runtime::feed::Stored;
use punchline_storage::memory::MemoryDisk;

use crate::receivers::Receivers;
use history::History;

/// Whose the taking on of advertisers is.
const NOBODY: Tenant = Tenant { advertiser: AdvertiserId(0), environment: Environment::Production };

/// How commands with one key were answered.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Sent, and no answer that says what became of it.
    open: u64,
    /// Its position, once one was accepted.
    accepted: Option<u64>,
    /// Positions that answers said it has.
    claimed: Option<u64>,
}

/// What was found at an audit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found {
    /// Last position.
    pub head: u64,
    /// Records.
    pub records: usize,
    /// Rows and ids compared with a fold from the beginning.
    pub rows: u64,
}

/// The second opinion.
#[derive(Debug, Default)]
pub struct Auditor {
    acknowledged: BTreeMap<u64, Arc<Stored>>,
    keys: BTreeMap<(Tenant, String), Known>,
    /// The first thing that was wrong.
    fault: Option<String>,
}

impl Auditor {
    /// Something is wrong.
    pub fn accuse(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    /// The first thing that was wrong.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// How many commands were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// A command is sent.
    pub fn sent(&mut self, command: &Command) {
        if let Some(known) = self.known(command) {
            known.open += 1;
        }
    }

    fn known(&mut self, command: &Command) -> Option<&mut Known> {
        // Who is taken on has no tenant of its own yet.
        let tenant = match command.action {
            Action::CreateAdvertiser { .. } => NOBODY,
            _ => command.tenant,
        };
        Some(self.keys.entry((tenant, format!("{:?}", command.key()?))).or_default())
    }

    /// An answer came.
    pub fn answered(&mut self, command: &Command, answer: &Answer, disk: &MemoryDisk) {
        if let (Action::EraseMember { member_id }, Ok(Outcome::Accepted(stored))) = (&command.action, answer) {
            let slot = stored.record.key_slot;
            if slot != KeySlot::NONE && !disk.member_keys().is_destroyed(slot).unwrap_or(true) {
                self.accuse(format!("G10: {member_id} was said to be erased, and its key in {slot:?} is there"));
            }
        }
        if let Ok(Outcome::Accepted(stored)) = answer
            && self.acknowledged.insert(stored.first.0, stored.clone()).is_some()
        {
            self.accuse(format!("G2: two commands were answered with the position {}", stored.first));
        }
        let fault = match self.known(command) {
            Some(known) => known.hear(answer),
            None => Ok(()),
        };
        if let Err(what) = fault {
            self.accuse(format!("{what}: {:?} was answered {answer:?}", command.key()));
        }
    }

    /// Checks all that can be checked of what a disk has: its journal, its views, and what receivers saw.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn audit(&self, disk: &MemoryDisk, receivers: &Receivers, at_the_end: bool) -> Result<Found, String> {
        // The disk itself stays as it is: a node is to open it yet.
        let history = History::read(&disk.after_kill())?;
        self.check_answers(&history)?;
        ledger::check(&history)?;
        deliveries::check(&history, receivers, at_the_end)?;
        Ok(Found { head: history.head, records: history.records.len(), rows: history.rows_compared })
    }

    fn check_answers(&self, history: &History) -> Result<(), String> {
        for (first, acknowledged) in &self.acknowledged {
            match history.records.get(first) {
                None => {
                    let key = &acknowledged.record.key;
                    return Err(format!("G2: position {first} was acknowledged and is not there: {key:?}"));
                }
                Some(record) if !history.is_same(&acknowledged.record, record) => {
                    return Err(format!(
                        "G2: position {first} was acknowledged as {:?} and is {record:?}",
                        acknowledged.record
                    ));
                }
                Some(_) => {}
            }
        }
        for ((tenant, key), known) in &self.keys {
            let at = history.keys.get(&(*tenant, key.clone())).copied();
            let said = known.accepted.or(known.claimed);
            if said.is_some() && at != said {
                return Err(format!("G1: {key} was said to be at {said:?} and is at {at:?}"));
            }
            if let Some(at) = at.filter(|_| said.is_none() && known.open == 0) {
                return Err(format!("G1: {key} was only ever refused, and is at {at}"));
            }
        }
        Ok(())
    }
}

impl Known {
    fn hear(&mut self, answer: &Answer) -> Result<(), String> {
        match answer {
            Ok(Outcome::Accepted(stored)) => {
                self.open -= 1;
                match self.accepted.or(self.claimed) {
                    Some(before) => return Err(format!("G1: accepted a second time, first at {before}")),
                    None => self.accepted = Some(stored.first.0),
                }
            }
            // By its key where it was accepted before; or it is so by what others did.
            Ok(Outcome::Already(sequence)) => {
                self.open -= 1;
                if let Some(accepted) = self.accepted.filter(|accepted| *accepted != sequence.0) {
                    return Err(format!("G1: accepted at {accepted}"));
                }
            }
            Err(Refusal::Rejected(rejection)) => {
                self.open -= 1;
                match (first_of(rejection), self.accepted.or(self.claimed)) {
                    (Some(first), Some(at)) if first.0 != at => return Err(format!("G1: it was said to be at {at}")),
                    (Some(_), None) if self.open == 0 => return Err("G1: a repeat of what was never accepted".into()),
                    (Some(first), _) => self.claimed = Some(first.0),
                    // What it was about is not known any more.
                    (None, Some(_)) if matches!(rejection, Rejection::MemberErased(_)) => {}
                    (None, Some(at)) => return Err(format!("G1: refused although it was accepted at {at}")),
                    (None, None) => {}
                }
            }
            Err(Refusal::Unavailable(Unavailable::QueueFull)) => self.open -= 1,
            // It may be on disk all the same.
            Err(Refusal::Unavailable(_)) => {}
        }
        Ok(())
    }
}

/// The position of what a repeat is one of.
fn first_of(rejection: &Rejection) -> Option<Sequence> {
    match rejection {
        Rejection::ConsumptionExists { first } => Some(first.sequence),
        // Whom its identifiers name may have changed since.
        Rejection::FactExists { first } | Rejection::FactExistsWithDifferentContent { first, .. } => {
            Some(first.sequence)
        }
        _ => None,
    }
}
