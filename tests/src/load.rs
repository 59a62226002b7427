//! A load of unary calls, batches and streams, with repeats among them, until the server is gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punchline_proto::v1;
use tokio::task::JoinSet;

use crate::api::{Api, Refused, consumption, outcome};
use crate::campaign::SKUS;
use crate::dice::Dice;
use crate::model::Model;

/// What all senders share.
#[derive(Clone, Debug)]
pub struct Load {
    api: Api,
    model: Arc<Mutex<Model>>,
    sent: Arc<Mutex<Vec<v1::Consumption>>>,
    phones: Arc<Vec<String>>,
    name: String,
}

impl Load {
    /// A load on behalf of these members, which the model is told of.
    pub fn new(api: Api, model: Arc<Mutex<Model>>, phones: Vec<String>) -> Load {
        Load { api, model, sent: Arc::default(), phones: Arc::new(phones), name: String::new() }
    }

    /// Four senders of unary calls, one of batches, one stream; each ends with the server. Ids tell the rounds apart.
    pub fn senders(&self, round: u32, dice: &mut Dice) -> JoinSet<()> {
        let mut senders = JoinSet::new();
        for n in 0..4 {
            senders.spawn(self.named(format!("u{round}-{n}")).unary(dice.split()));
        }
        senders.spawn(self.named(format!("b{round}")).batches(dice.split()));
        senders.spawn(self.named(format!("s{round}")).stream(dice.split()));
        senders
    }

    fn named(&self, name: String) -> Load {
        Load { name, ..self.clone() }
    }

    /// A new consumption, or one of the last that went out once more; noted as sent.
    fn next(&self, dice: &mut Dice, number: &mut u64) -> v1::Consumption {
        let mut sent = self.sent.lock().expect("no sender panics here");
        if !sent.is_empty() && dice.percent(15) {
            let back = dice.below(sent.len().min(500) as u64) as usize;
            return sent[sent.len() - 1 - back].clone();
        }
        *number += 1;
        let id = format!("{}-{number}", self.name);
        let lines: Vec<(&str, u64)> =
            (0..dice.between(1, 3)).map(|_| (*dice.pick(&SKUS), dice.between(1, 4))).collect();
        let new = consumption(&id, dice.pick::<String>(&self.phones), &lines);
        self.model.lock().expect("the model is sound").sent(&new);
        sent.push(new.clone());
        new
    }

    /// Notes an answer; whether the server is still there.
    fn answered(&self, id: &str, answer: &Result<v1::Receipt, Refused>) -> bool {
        self.model.lock().expect("the model is sound").answered(id, answer);
        !answer.as_ref().is_err_and(Refused::is_unknown_outcome)
    }

    async fn pause(dice: &mut Dice) {
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
    }

    async fn unary(self, mut dice: Dice) {
        let mut number = 0;
        loop {
            let one = self.next(&mut dice, &mut number);
            let id = one.consumption_id.clone();
            if !self.answered(&id, &self.api.record(one).await) {
                return;
            }
            Load::pause(&mut dice).await;
        }
    }

    async fn batches(self, mut dice: Dice) {
        let mut number = 0;
        loop {
            let some: Vec<_> = (0..dice.between(1, 12)).map(|_| self.next(&mut dice, &mut number)).collect();
            let ids: Vec<_> = some.iter().map(|one| one.consumption_id.clone()).collect();
            let request = v1::BatchRecordConsumptionsRequest { consumptions: some };
            let results = match self.api.ingest().batch_record_consumptions(request).await {
                Ok(answer) => answer.into_inner().results,
                Err(status) => {
                    let refused = Refused::of(&status);
                    assert!(refused.is_unknown_outcome(), "a batch as such is not refused: {refused:?}");
                    return;
                }
            };
            assert_eq!(results.len(), ids.len(), "a result for each");
            for (id, result) in ids.iter().zip(results) {
                self.answered(id, &outcome(result));
            }
            Load::pause(&mut dice).await;
        }
    }

    /// Up to 16 under way on one stream, which lasts until the server dies.
    async fn stream(self, mut dice: Dice) {
        let (requests, taken) = tokio::sync::mpsc::channel(16);
        let taken = tokio_stream::wrappers::ReceiverStream::new(taken);
        let order = Arc::new(Mutex::new(VecDeque::new()));
        let sender = {
            let (load, order) = (self.clone(), order.clone());
            async move {
                let mut number = 0;
                loop {
                    let one = load.next(&mut dice, &mut number);
                    order.lock().expect("sound").push_back(one.consumption_id.clone());
                    let request = v1::StreamConsumptionsRequest { consumption: Some(one) };
                    if requests.send(request).await.is_err() {
                        return;
                    }
                    Load::pause(&mut dice).await;
                }
            }
        };
        let reader = async {
            let Ok(answer) = self.api.ingest().stream_consumptions(taken).await else { return };
            let mut results = answer.into_inner();
            // An error ends it: what was under way then has no known outcome.
            while let Ok(Some(message)) = results.message().await {
                let id = order.lock().expect("sound").pop_front().expect("a result follows a request");
                self.answered(&id, &outcome(message.result.expect("a result")));
            }
        };
        tokio::select! {
            () = sender => {}
            () = reader => {}
        }
    }
}
