//! `events consume`: a named consumer, whose cursor the server keeps.
//!
//! ```text
//! Consume ──event──▶ line on stdout, or a command ──Verdict──▶ ack | nack ──▶ Consume
//! ```
//!
//! # Invariants
//!
//! - An event is acknowledged after its line was written out, or its command ended well: what was lost
//!   with this process comes again.
//! - A command that outlives the acknowledgement's time is killed: the event is sent again, and two
//!   commands at one event would be one too many.

use std::collections::HashMap;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::pin::{Pin, pin};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::consume_request::Kind as Say;
use punchline_proto::v1::consume_response::Kind;
use punchline_proto::v1::consume_start::Start;
use punchline_proto::v1::event_service_client::EventServiceClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::client::Service;
use super::super::failure::Failure;
use super::super::input;
use super::super::message::json;
use super::super::output::{self, Answer};
use super::{Filter, RECONNECT_DELAY};

/// Events under way at once, where they are printed and nothing is said.
const IN_FLIGHT_PRINTED: u32 = 64;
/// Longest that an acknowledgement may take, where nothing is said, in milliseconds.
const ACK_TIMEOUT_MS: u64 = 30_000;
/// Exit codes of a command that are a verdict; the first is `EX_TEMPFAIL` of sysexits.h.
const EXIT_RETRY: i32 = 75;
const EXIT_PARK: i32 = 76;
/// The wait after a command that failed without a verdict: doubled for each attempt, up to the last.
const BACKOFF_MS_FIRST: u64 = 1_000;
const BACKOFF_MS_MAX: u64 = 300_000;
/// How often a command is asked whether it has ended.
const CHILD_POLL: Duration = Duration::from_millis(5);
/// Longest that the server takes to read the last acknowledgements.
const FAREWELL: Duration = Duration::from_secs(5);

/// `events consume`.
#[derive(Args, Debug)]
#[command(after_help = "\
With --exec, the command's exit code is the verdict:
   0  done
  75  again, after --retry-after
  76  park it as a dead letter; the member's later events go on
  other codes and signals: again, after 1s, 2s, 4s … up to 5m")]
pub(in super::super) struct ConsumeArgs {
    /// 1 to 64 characters of a-z 0-9 _ - . ; made where it is new; its types and filter become those given here
    consumer: String,
    #[command(flatten)]
    filter: Filter,
    /// A new consumer begins with the first event; with what happens from now on if absent
    #[arg(long, group = "start")]
    from_start: bool,
    /// A new consumer begins with this position
    #[arg(long, value_name = "SEQUENCE", group = "start")]
    from_sequence: Option<u64>,
    /// A new consumer begins with the first event at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME", group = "start", value_parser = input::time)]
    from_time: Option<Timestamp>,
    /// Events under way at once; 64 if absent, with --exec 1
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_in_flight: Option<u32>,
    /// An event that is not done within this time is sent again
    #[arg(long, value_name = "DURATION", value_parser = input::duration_ms, default_value = "30s")]
    ack_timeout: u64,
    /// Times that an event is sent before it is parked; 10 if absent
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    max_attempts: u32,
    /// Run this command for each event, with the event as a JSON line on its standard input, and with
    /// PUNCHLINE_SEQUENCE, PUNCHLINE_EVENT_TYPE and PUNCHLINE_ATTEMPT in its environment; print nothing
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// How long an event waits whose command ended with 75
    #[arg(long, value_name = "DURATION", value_parser = input::duration_ms, default_value = "1s", requires = "exec")]
    retry_after: u64,
    /// Stop after so many events
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// What became of an event here.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Retry {
        after_ms: u64,
        reason: String,
    },
    Park {
        reason: String,
    },
    /// The server decides: the time is over.
    Late,
}

/// Events that are being worked on, by what will tell.
type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = (u64, std::io::Result<Verdict>)>>>>;

/// How a connection ended, unless badly.
enum End {
    /// All that was wanted is done.
    Enough,
    /// Somebody stopped it.
    Interrupted,
    /// The server has gone.
    Lost,
}

pub(super) async fn run(args: &ConsumeArgs, service: &mut EventServiceClient<Service>) -> Result<Answer, Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut reached = false;
    let mut interrupted = pin!(interrupted());
    loop {
        let lost = match connection(args, &mut left, &mut reached, interrupted.as_mut(), service).await {
            Ok(End::Enough) => return Ok(Answer::Nothing),
            Ok(End::Interrupted) => return Err(stopped()),
            Ok(End::Lost) => Status::unavailable("the server ended the stream"),
            Err(Failure::Status(status)) if status.code() == Code::Unavailable && reached => *status,
            Err(failure) => return Err(failure),
        };
        output::note(&format!("{}; trying again", lost.message()));
        tokio::select! {
            () = tokio::time::sleep(RECONNECT_DELAY) => {}
            () = interrupted.as_mut() => return Err(stopped()),
        }
    }
}

fn stopped() -> Failure {
    Failure::Interrupted("stopped: what is not acknowledged comes again".into())
}

/// Until somebody stops this process. Its commands do not hear of Ctrl-C by themselves.
async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        // Without a handler, the signal ends the process.
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
        else => std::future::pending().await,
    }
}

impl ConsumeArgs {
    fn start(&self) -> v1::ConsumeStart {
        let begins = match (self.from_start, self.from_sequence, self.from_time) {
            (true, _, _) => Some(Start::FromStart(true)),
            (_, Some(sequence), _) => Some(Start::FromSequence(sequence)),
            (_, _, Some(time)) => Some(Start::FromTime(time)),
            _ => None,
        };
        let in_flight = if self.exec.is_some() { 1 } else { IN_FLIGHT_PRINTED };
        v1::ConsumeStart {
            consumer: self.consumer.clone(),
            max_in_flight: self.max_in_flight.unwrap_or(in_flight),
            filter: Some(self.filter.message()),
            start: begins,
            ack_timeout_ms: self.ack_timeout,
            max_attempts: self.max_attempts,
            heartbeat_ms: 0,
        }
    }

    /// Longest that a command may take: a little less than the server waits.
    fn time(&self) -> Duration {
        let given_ms = if self.ack_timeout == 0 { ACK_TIMEOUT_MS } else { self.ack_timeout };
        Duration::from_millis(given_ms - given_ms / 20)
    }
}

/// One connection's worth of events.
async fn connection(
    args: &ConsumeArgs,
    left: &mut u64,
    reached: &mut bool,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
    service: &mut EventServiceClient<Service>,
) -> Result<End, Failure> {
    let start = args.start();
    // As wide as what may be under way, so that answering never waits for the server.
    let (sender, receiver) = mpsc::channel(start.max_in_flight as usize + 1);
    say(&sender, Say::Start(start)).await;
    let mut stream = service.consume(ReceiverStream::new(receiver)).await?.into_inner();
    let mut under_way = UnderWay::new();
    let mut attempts = HashMap::new();
    let mut end = End::Enough;
    while *left > 0 {
        tokio::select! {
            () = interrupted.as_mut() => {
                end = End::Interrupted;
                break;
            }
            settled = under_way.next(), if !under_way.is_empty() => {
                let (sequence, verdict) = settled.expect("there is one");
                let attempt = attempts.remove(&sequence).unwrap_or(1);
                *left -= u64::from(settle(&sender, sequence, attempt, verdict?).await);
            }
            message = stream.message() => match message?.and_then(|message| message.kind) {
                Some(Kind::Started(started)) => {
                    if !*reached {
                        let v1::ConsumeStarted { subscription_id, cursor } = started;
                        output::note(&format!("consumer {} ({subscription_id}) at {cursor}", args.consumer));
                    }
                    *reached = true;
                }
                Some(Kind::Event(consumed)) => {
                    let v1::ConsumedEvent { event: Some(event), attempt } = consumed else { continue };
                    match &args.exec {
                        None => {
                            output::line(&line(&event, attempt))?;
                            *left -= u64::from(settle(&sender, event.sequence, attempt, Verdict::Done).await);
                        }
                        Some(command) => {
                            attempts.insert(event.sequence, attempt);
                            under_way.push(Box::pin(execute(command.clone(), event, attempt, args.time(), args.retry_after)));
                        }
                    }
                }
                Some(Kind::Heartbeat(_)) => {}
                None => return Ok(End::Lost),
            }
        }
    }
    drop(under_way);
    farewell(sender, stream).await;
    Ok(end)
}

/// The end of what is said, and of what is heard: then the server has read all of it.
async fn farewell(sender: mpsc::Sender<v1::ConsumeRequest>, mut stream: Streaming<v1::ConsumeResponse>) {
    drop(sender);
    let heard = async { while let Ok(Some(_)) = stream.message().await {} };
    // What was not read in time is sent again, to the next connection.
    let _ = tokio::time::timeout(FAREWELL, heard).await;
}

async fn say(sender: &mpsc::Sender<v1::ConsumeRequest>, kind: Say) {
    // A channel that is closed is a stream that failed: the stream says so next.
    let _ = sender.send(v1::ConsumeRequest { kind: Some(kind) }).await;
}

/// Tells the server; whether the event is done with here.
async fn settle(sender: &mpsc::Sender<v1::ConsumeRequest>, sequence: u64, attempt: u32, verdict: Verdict) -> bool {
    let sequences = vec![sequence];
    let told = |action: &str, reason: &str| output::note(&format!("{sequence}, attempt {attempt}: {action}: {reason}"));
    let (kind, is_done) = match verdict {
        Verdict::Done => (Say::Ack(v1::Ack { sequences }), true),
        Verdict::Retry { after_ms, reason } => {
            told(&format!("again after {after_ms} ms"), &reason);
            let action = v1::NackAction::Retry.into();
            (Say::Nack(v1::Nack { sequences, action, retry_after_ms: after_ms, reason }), false)
        }
        Verdict::Park { reason } => {
            told("parked", &reason);
            let action = v1::NackAction::Park.into();
            (Say::Nack(v1::Nack { sequences, action, retry_after_ms: 0, reason }), true)
        }
        Verdict::Late => {
            told("again", "the command took longer than --ack-timeout");
            return false;
        }
    };
    say(sender, kind).await;
    is_done
}

/// The event, for programs, with its attempt.
fn line(event: &v1::Event, attempt: u32) -> String {
    let mut value = json(event);
    value["attempt"] = attempt.into();
    value.to_string()
}

/// Runs a command for an event, on a thread of its own.
async fn execute(
    command: String,
    event: v1::Event,
    attempt: u32,
    longest: Duration,
    retry_after_ms: u64,
) -> (u64, std::io::Result<Verdict>) {
    let sequence = event.sequence;
    let outcome = async {
        let mut child = spawn(&command, &event, attempt)?;
        let mut stdin = child.0.stdin.take().expect("it is piped");
        let text = line(&event, attempt) + "\n";
        // A command that does not read must not hold this up, nor one that reads slowly: a thread writes.
        tokio::task::spawn_blocking(move || {
            // A command need not read its event.
            let _ = stdin.write_all(text.as_bytes());
        });
        let ended = async {
            loop {
                if let Some(status) = child.0.try_wait()? {
                    return Ok::<_, std::io::Error>(status);
                }
                tokio::time::sleep(CHILD_POLL).await;
            }
        };
        match tokio::time::timeout(longest, ended).await {
            Ok(status) => Ok(verdict(status?, attempt, retry_after_ms)),
            Err(_) => Ok(Verdict::Late),
        }
    };
    (sequence, outcome.await)
}

/// A command and all that it began; they end when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if let (Ok(None), Some(group)) = (self.0.try_wait(), rustix::process::Pid::from_raw(self.0.id() as i32)) {
            // It may have ended just now.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

fn spawn(command: &str, event: &v1::Event, attempt: u32) -> std::io::Result<Killed> {
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("PUNCHLINE_SEQUENCE", event.sequence.to_string())
        .env("PUNCHLINE_EVENT_TYPE", &event.r#type)
        .env("PUNCHLINE_ATTEMPT", attempt.to_string())
        // The command has no business with the token.
        .env_remove("PUNCHLINE_TOKEN")
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()?;
    Ok(Killed(child))
}

fn verdict(status: ExitStatus, attempt: u32, retry_after_ms: u64) -> Verdict {
    let reason = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    match status.code() {
        Some(0) => Verdict::Done,
        Some(EXIT_RETRY) => Verdict::Retry { after_ms: retry_after_ms, reason },
        Some(EXIT_PARK) => Verdict::Park { reason },
        _ => {
            let doubled = BACKOFF_MS_FIRST.checked_shl(attempt.saturating_sub(1)).unwrap_or(BACKOFF_MS_MAX);
            Verdict::Retry { after_ms: doubled.min(BACKOFF_MS_MAX), reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> v1::Event {
        v1::Event { sequence: 17, r#type: "points.credited".into(), data_json: "{}".into(), ..v1::Event::default() }
    }

    #[tokio::test]
    async fn exit_codes_are_verdicts() {
        let retry = |after_ms: u64, reason: &str| Verdict::Retry { after_ms, reason: reason.into() };
        let cases = [
            ("cat > /dev/null", 1, Verdict::Done),
            ("exit 0", 1, Verdict::Done),
            ("grep -q '\"sequence\":17'", 1, Verdict::Done),
            (
                "test $PUNCHLINE_SEQUENCE,$PUNCHLINE_EVENT_TYPE,$PUNCHLINE_ATTEMPT = 17,points.credited,2",
                2,
                Verdict::Done,
            ),
            ("exit 75", 3, retry(7, "exit code 75")),
            ("exit 76", 1, Verdict::Park { reason: "exit code 76".into() }),
            ("exit 1", 1, retry(1_000, "exit code 1")),
            ("exit 1", 3, retry(4_000, "exit code 1")),
            ("exit 1", 50, retry(300_000, "exit code 1")),
            ("no-such-command 2> /dev/null", 1, retry(1_000, "exit code 127")),
            ("kill -9 $$", 1, retry(1_000, "signal 9")),
        ];
        for (command, attempt, expected) in cases {
            let (sequence, got) = execute(command.into(), event(), attempt, Duration::from_secs(20), 7).await;
            assert_eq!((sequence, got.expect("it ran")), (17, expected), "{command}");
        }
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_what_it_began() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("mark");
        let command = format!("(sleep 1; touch {}) & sleep 30", mark.display());
        let (_, got) = execute(command, event(), 1, Duration::from_millis(100), 0).await;
        assert_eq!(got.expect("it ran"), Verdict::Late);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(!mark.exists(), "what it began goes on");
    }
}
