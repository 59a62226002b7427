//! Clients: they send what they wish, wait for the answer as long as they like, and send it again.
//!
//! # Invariants
//!
//! - What a client waits for outlives the node: after a restart it is sent again, unless the client gave it up.

use std::sync::Arc;
use std::time::Duration;

use punchline_engine::command::Command;
use punchline_engine::time::UnixMillis;
use punchline_runtime::clock::Clock;
use punchline_runtime::committer::{Answer, Outcome, Refusal};
use punchline_runtime::node::Submitter;
use tokio::time::{sleep, timeout};

use crate::machine::PACE_MS;
use crate::random::Random;
use crate::wishes::{Wish, Wishes};
use crate::world::World;

/// Commands sent at once, at most.
const BATCH_MAX: u64 = 6;

/// All clients.
#[derive(Debug)]
pub struct Clients {
    wishes: Wishes,
    /// What each waits for; the first one alone sets everything up.
    waiting: Vec<Vec<Wish>>,
    random: Random,
    is_set_up: bool,
    /// What was wished for before: an id is used up for ever.
    old: Vec<Wish>,
    /// Longest that a client waits between two commands.
    pub pace_ms: u64,
    /// Nobody wishes for anything new.
    pub content: bool,
}

impl Clients {
    /// So many, of a seed.
    pub fn new(seed: u64, count: usize) -> Clients {
        Clients {
            wishes: Wishes::new(Random::new(seed, "wishes")),
            waiting: vec![Vec::new(); count],
            random: Random::new(seed, "clients"),
            is_set_up: false,
            old: Vec::new(),
            pace_ms: PACE_MS,
            content: false,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Commands without a final answer.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(Vec::len).sum()
    }

    /// Whether wishes can be granted.
    pub fn is_set_up(&self) -> bool {
        self.is_set_up
    }

    /// What a client sends now: what it waits for, or something new.
    fn next(&mut self, n: usize, now: UnixMillis) -> Vec<Wish> {
        if self.waiting[n].is_empty() && !self.is_set_up {
            if n == 0 {
                self.waiting[0].extend(self.wishes.set_up());
                self.is_set_up = self.waiting[0].is_empty();
            }
        } else if self.waiting[n].is_empty() && !self.content {
            if self.random.chance(100) && !self.old.is_empty() {
                let old = self.random.pick(&self.old).clone();
                self.waiting[n].push(old);
                return self.waiting[n].clone();
            }
            let count = if self.random.chance(150) { self.random.between(2, BATCH_MAX) } else { 1 };
            let new: Vec<Wish> = (0..count).map(|_| self.wishes.next(now)).collect();
            self.old.extend(new.iter().filter(|wish| wish.command.key().is_some()).cloned());
            self.waiting[n].extend(new);
        }
        self.waiting[n].clone()
    }

    /// An answer came to a command of this client.
    fn hear(&mut self, n: usize, wish: u64, answer: &Answer) {
        if let Ok(Outcome::Accepted(stored)) = answer {
            self.wishes.learn(stored);
        }
        let is_final = match answer {
            // Whether it was carried out is not known, so it is sent again; or the client thinks better of it.
            Err(Refusal::Unavailable(_)) => self.is_set_up && !self.content && self.random.chance(100),
            _ => self.content || !self.is_set_up || !self.random.chance(150),
        };
        if is_final {
            self.waiting[n].retain(|waiting| waiting.id != wish);
        }
    }

    /// No answer came.
    fn hear_nothing(&mut self, n: usize) {
        if self.is_set_up && !self.content && self.random.chance(100) {
            self.waiting[n].clear();
        }
    }
}

/// Lets a client live as long as the node does.
pub async fn live(world: Arc<World>, n: usize, submitter: Submitter) {
    loop {
        let (wait, patience) = {
            let Clients { random, pace_ms, .. } = &mut world.lock().clients;
            let pace_ms = *pace_ms;
            (random.below(pace_ms), random.between(20, 4_000))
        };
        sleep(Duration::from_millis(wait)).await;
        let wishes = {
            let state = &mut *world.lock();
            let wishes = state.clients.next(n, world.clock.now());
            for Wish { id, command } in &wishes {
                state.auditor.sent(command);
                let (tenant, name) = (command.tenant.environment, name_of(command));
                state.log.line(format_args!("client {n} sends {id} ({tenant:?}): {name}"));
            }
            wishes
        };
        let commands: Vec<Command> = wishes.iter().map(|wish| wish.command.clone()).collect();
        let patience = Duration::from_millis(patience);
        let answers = match commands.as_slice() {
            [] => continue,
            [command] => timeout(patience, submitter.submit(command.clone())).await.map(|answer| vec![answer]),
            _ => {
                let is_patient = commands.len().is_multiple_of(2);
                let all = timeout(patience, submitter.submit_all(commands.clone(), is_patient)).await;
                all.map(|all| all.unwrap_or_else(|why| vec![Err(why.into()); commands.len()]))
            }
        };
        let state = &mut *world.lock();
        if state.is_off {
            return;
        }
        let Ok(answers) = answers else {
            state.log.line(format_args!("client {n} waits no longer"));
            state.clients.hear_nothing(n);
            continue;
        };
        for (Wish { id, command }, answer) in wishes.iter().zip(&answers) {
            match answer {
                Ok(Outcome::Accepted(stored)) => {
                    let (first, last) = (stored.first, stored.last());
                    state.log.line(format_args!("client {n}: {id} is accepted at {first} to {last}"));
                }
                Ok(Outcome::Already(at)) => state.log.line(format_args!("client {n}: {id} is so since {at}")),
                Err(why) => state.log.line(format_args!("client {n}: {id} is not taken: {why}")),
            }
            state.auditor.answered(command, answer, &state.disk);
            state.clients.hear(n, *id, answer);
        }
    }
}

/// The name of what is wished for.
fn name_of(command: &Command) -> String {
    let text = format!("{:?}", command.action);
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}
