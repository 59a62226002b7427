//! The auditor's visit to a server that was just started.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use punchline_proto::v1;

use crate::api::Api;
use crate::dice::Dice;
use crate::model::Model;

/// Holds a server against the [`Model`].
#[derive(Debug)]
pub struct Audit {
    api: Api,
    model: Arc<Mutex<Model>>,
    members: BTreeMap<String, String>,
    next_sequence: u64,
}

impl Audit {
    /// An auditor of these members, by phone; the model is told what stands in the journal.
    pub fn new(api: Api, model: Arc<Mutex<Model>>, members: BTreeMap<String, String>) -> Audit {
        Audit { api, model, members, next_sequence: 1 }
    }

    /// What is new in the journal, some repeats, some members.
    ///
    /// # Panics
    ///
    /// If anything is not as the model has it.
    pub async fn spot_check(&mut self, dice: &mut Dice) {
        self.journal().await;
        let (count, known) = (20, self.model.lock().expect("sound").acknowledged_count() as u64);
        let from = dice.below(known.saturating_sub(count).max(1)) as usize;
        let some = self.model.lock().expect("sound").acknowledged(from, count as usize);
        self.repeats(some).await;
        let phones: Vec<&String> = self.members.keys().collect();
        for _ in 0..2 {
            self.member(dice.pick::<&String>(&phones)).await;
        }
    }

    /// The whole journal, every acknowledged consumption once more, every member with its entries.
    ///
    /// # Panics
    ///
    /// If anything is not as the model has it.
    pub async fn everything(&mut self) {
        let all = self.model.lock().expect("sound").acknowledged(0, usize::MAX);
        self.repeats(all).await;
        self.journal().await;
        for phone in self.members.keys() {
            self.member(phone).await;
            self.entries(phone).await;
        }
    }
    /// Every consumption that the journal has gained; nothing acknowledged is missing.
    async fn journal(&mut self) {
        let (events, next_sequence) = self.api.events_from(self.next_sequence, &["consumption.recorded"]).await;
        self.next_sequence = next_sequence;
        let mut model = self.model.lock().expect("the model is sound");
        for event in events {
            let data: serde_json::Value = serde_json::from_str(&event.data_json).expect("data is JSON");
            let id = data["consumption_id"].as_str().expect("a consumption has an id");
            model.recorded(id, event.sequence);
        }
        model.check_nothing_is_lost();
    }

    /// Once more, please: the first receipt, and no second one.
    async fn repeats(&self, some: Vec<(v1::Consumption, u64)>) {
        for (one, sequence) in some {
            let id = one.consumption_id.clone();
            let refused = self.api.record(one).await.expect_err("an acknowledged consumption is a repeat");
            assert_eq!(refused.code, tonic::Code::AlreadyExists, "{id}: {refused:?}");
            assert_eq!(refused.reason, "CONSUMPTION_EXISTS", "{id}: {refused:?}");
            assert_eq!(refused.receipt.expect("the first receipt").sequence, sequence, "{id}");
        }
    }

    /// What a member has is what the model has for it.
    async fn member(&self, phone: &str) {
        let id = &self.members[phone];
        let expected = self.model.lock().expect("the model is sound").holdings(phone);
        let mut balances = self.api.balances(id).await;
        let mut punchcards = self.api.punchcards(id).await;
        let mut expected = expected;
        // Whether nothing is shown as 0 or not at all is no matter of this test.
        balances.retain(|_, amount| *amount != 0);
        punchcards.retain(|_, state| *state != (0, 0));
        expected.balances.retain(|_, amount| *amount != 0);
        expected.punchcards.retain(|_, state| *state != (0, 0));
        assert_eq!((balances, punchcards), (expected.balances, expected.punchcards), "of {phone}");
    }

    /// A member's entries add up to its balances.
    async fn entries(&self, phone: &str) {
        let member_id = self.members[phone].clone();
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListEntriesRequest { member_id: member_id.clone(), page_size: 500, page_token };
            let page = self.api.ledger().list_entries(request).await.expect("the member exists").into_inner();
            for entry in page.entries {
                let balance = entry.new_balance.expect("an entry says what it came to");
                *sums.entry(crate::api::currency(&balance)).or_default() += entry.amount;
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let mut balances = self.api.balances(&member_id).await;
        balances.retain(|_, amount| *amount != 0);
        assert_eq!(sums, balances, "entries of {phone} add up to its balances");
    }
}
