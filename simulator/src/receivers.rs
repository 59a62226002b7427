//! Receivers, and the network to them: requests and answers are delayed, dropped, duplicated and reset.
//!
//! What a receiver saw is the evidence: it outlives the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use punchline_delivery::courier::{AttemptFuture, AttemptRequest, Courier};
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome};
use tokio::time::{sleep, timeout};

use crate::random::Random;
use crate::world::World;

/// Attempts to a receiver that comes and goes.
const ATTEMPTS_MAX: u32 = 5;

/// The host of a URL of [`crate::programme`].
pub fn host_of(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// How it is with a receiver at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything, and the network to it is well.
    Well,
    /// Fails now and then, in every way.
    Flaky,
    /// Answers 503 to everything.
    Down,
    /// Cannot be reached.
    Away,
    /// Takes everything, and takes its time.
    Slow,
}

/// A request, as the receiver saw it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event.
    pub sequence: u64,
    /// Number of the attempt.
    pub attempt: u32,
    /// Its id on the wire.
    pub webhook_id: String,
    /// What was sent.
    pub body: serde_json::Value,
    /// The receiver took it, whether or not its answer reached anybody.
    pub taken: bool,
}

/// What happened at a receiver, in order.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A request came.
    Came(Arrival),
    /// The sender may have given a delivery up after this attempt failed.
    MayHaveDied(u64),
}

/// All receivers, by the host of their URL.
#[derive(Debug, Default)]
pub struct Receivers {
    /// What each saw.
    pub seen: BTreeMap<String, Vec<Seen>>,
    moods: BTreeMap<String, Mood>,
    /// Attempts of a schedule, by host.
    attempts_max: BTreeMap<String, u32>,
}

impl Receivers {
    /// A receiver whose deliveries have so many attempts.
    pub fn add(&mut self, host: &str, attempts_max: u32) {
        self.seen.entry(host.into()).or_default();
        self.attempts_max.insert(host.into(), attempts_max);
    }

    /// Their names.
    pub fn hosts(&self) -> Vec<String> {
        self.seen.keys().cloned().collect()
    }

    /// From now on it is so with this one.
    pub fn set_mood(&mut self, host: &str, mood: Mood) {
        self.moods.insert(host.into(), mood);
    }

    /// Requests that came, in all.
    pub fn arrivals(&self) -> usize {
        self.seen.values().flatten().filter(|seen| matches!(seen, Seen::Came(_))).count()
    }
}

/// What becomes of one attempt.
#[derive(Debug, Clone, Copy)]
struct Fate {
    there: Duration,
    back: Duration,
    status: u16,
    trouble: Trouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The request is lost: nobody answers.
    Lost,
    /// No connection is made.
    Refused,
    /// The request arrives, the answer is lost.
    Unanswered,
    /// The request arrives, then the connection is reset.
    Reset,
    /// The request arrives twice.
    Twice,
    /// 410.
    Gone,
}

impl Fate {
    fn draw(mood: Mood, random: &mut Random) -> Fate {
        let ms = |random: &mut Random, most| Duration::from_millis(random.below(most));
        let (there, back) = (ms(random, 20), ms(random, 20));
        let fate = Fate { there, back, status: 200, trouble: Trouble::None };
        match mood {
            Mood::Well => fate,
            Mood::Down => Fate { status: 503, ..fate },
            Mood::Away => Fate { trouble: Trouble::Refused, ..fate },
            Mood::Slow => Fate { there: ms(random, 3_000), back: ms(random, 3_000), ..fate },
            Mood::Flaky => {
                use Trouble::{Gone, Lost, Refused, Reset, Twice, Unanswered};
                let trouble = random.weighted(&[
                    (60, Trouble::None),
                    (5, Lost),
                    (5, Refused),
                    (8, Unanswered),
                    (6, Reset),
                    (5, Twice),
                    (1, Gone),
                ]);
                let statuses = [200, 200, 200, 202, 204, 301, 400, 404, 408, 425, 429, 500, 502, 503];
                Fate { trouble, status: *random.pick(&statuses), ..fate }
            }
        }
    }
}

/// The network.
pub struct Network {
    world: Arc<World>,
}

impl Network {
    /// Of this world.
    pub fn of(world: &Arc<World>) -> Arc<Network> {
        Arc::new(Network { world: world.clone() })
    }

    fn arrive(&self, host: &str, request: &AttemptRequest, taken: bool) {
        let state = &mut *self.world.lock();
        if state.is_off {
            return;
        }
        let (sequence, attempt) = (request.sequence, request.attempt);
        let body = serde_json::from_slice(&request.body).unwrap_or(serde_json::Value::Null);
        state
            .log
            .line(format_args!("{host} <- {sequence}, attempt {attempt}: {}", if taken { "taken" } else { "not" }));
        let arrival = Arrival { sequence, attempt, webhook_id: request.webhook_id.clone(), body, taken };
        state.receivers.seen.entry(host.into()).or_default().push(Seen::Came(arrival));
    }

    async fn travel(&self, host: &str, request: &AttemptRequest, fate: Fate) -> AttemptReport {
        sleep(fate.there).await;
        let status = if fate.trouble == Trouble::Gone { 410 } else { fate.status };
        match fate.trouble {
            Trouble::Lost => std::future::pending().await,
            Trouble::Refused => return AttemptReport::failed(ErrorCode::Connect, "refused"),
            _ => self.arrive(host, request, (200..300).contains(&status)),
        }
        match fate.trouble {
            Trouble::Unanswered => std::future::pending().await,
            Trouble::Reset => return AttemptReport::failed(ErrorCode::Closed, "reset"),
            Trouble::Twice => {
                sleep(fate.back).await;
                self.arrive(host, request, (200..300).contains(&status));
            }
            _ => {}
        }
        sleep(fate.back).await;
        let status = StatusCode::from_u16(status).expect("a status");
        AttemptReport::answered(status, &request.permanent_statuses)
    }
}

impl Courier for Network {
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_> {
        Box::pin(async move {
            let host = request.endpoint.host().to_owned();
            let fate = {
                let state = &mut *self.world.lock();
                let mood = state.receivers.moods.get(&host).copied().unwrap_or(Mood::Well);
                Fate::draw(mood, &mut state.network)
            };
            let report = timeout(request.timeout, self.travel(&host, &request, fate)).await;
            let report = report.unwrap_or_else(|_| AttemptReport::failed(ErrorCode::Timeout, "nobody answers"));
            let state = &mut *self.world.lock();
            let attempts_max = state.receivers.attempts_max.get(&host).copied().unwrap_or(ATTEMPTS_MAX);
            let may_die = match report.outcome {
                Outcome::Delivered | Outcome::Gone => false,
                Outcome::Retry => request.attempt >= attempts_max,
                Outcome::Refused | Outcome::AbortedByReceiver => true,
            };
            if may_die && !state.is_off {
                state.receivers.seen.entry(host).or_default().push(Seen::MayHaveDied(request.sequence));
            }
            report
        })
    }
}
