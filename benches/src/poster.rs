//! The ceiling of delivering: a bare hyper client that signs and posts the same body as often, to the same
//! receivers, with as many requests under way. In a process of its own, as the server is, so that its CPU can be
//! compared.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use punchline_delivery::signature::{Secret, sign};
use punchline_engine::dispatch::subscription::IN_FLIGHT_DEFAULT;
use punchline_runtime::clock::{Clock, Stopwatch, SystemClock};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::cpu_seconds;
use crate::report::line;
use crate::sink::Sink;

/// `delivery.in_flight_max` as the server has it by default.
const IN_FLIGHT_MAX: usize = 4_096;

/// What the client came to.
pub struct Posted {
    pub per_second: f64,
    pub cpu_seconds_each: f64,
}

/// Requests under way to each of so many receivers: as the server may have.
pub fn in_flight_per_host(hosts: usize) -> usize {
    (IN_FLIGHT_MAX / hosts).clamp(1, IN_FLIGHT_DEFAULT as usize)
}

/// Lets a client post `count` webhooks like the one that `sink` has got, spread over its addresses.
pub async fn bare(sink: &Sink, count: u64) -> Posted {
    let program = std::env::current_exe().expect("this program has a path");
    let body = String::from_utf8(sink.sample().to_vec()).expect("a webhook is JSON");
    let mut command = Command::new(program);
    command.args(["post", &count.to_string(), &body]).args(sink.addresses.iter().map(ToString::to_string));
    // The receiver goes on meanwhile.
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("this program starts");
    assert!(output.status.success(), "the client posts: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("it says numbers");
    let (seconds, cpu) = said.trim().split_once(' ').expect("two of them");
    let number = |text: &str| text.parse::<f64>().expect("a number");
    Posted { per_second: count as f64 / number(seconds), cpu_seconds_each: number(cpu) / count as f64 }
}

/// The client itself: count, body, addresses. Says seconds and seconds of CPU.
pub async fn post(arguments: &[String]) {
    let [count, body, addresses @ ..] = arguments else { panic!("count, body and addresses") };
    let count: u64 = count.parse().expect("a count");
    let body = Bytes::from(body.clone());
    let secret = Arc::new(Secret::from_bytes(&[7; 32]).expect("32 bytes are a secret"));
    let per_host = in_flight_per_host(addresses.len());
    let mut connections = Vec::new();
    for address in addresses {
        for _ in 0..per_host {
            let socket = TcpStream::connect(address).await.expect("the receiver listens");
            socket.set_nodelay(true).expect("it is a socket");
            let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("it speaks HTTP");
            tokio::spawn(connection);
            connections.push((address.clone(), sender));
        }
    }
    let (watch, cpu, begun) = (Stopwatch::start(), cpu_seconds("self"), Arc::new(AtomicU64::new(0)));
    let mut posting = JoinSet::new();
    for (address, mut sender) in connections {
        let (begun, body, secret) = (begun.clone(), body.clone(), secret.clone());
        posting.spawn(async move {
            loop {
                let n = begun.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                let (id, now_s) = (format!("msg_{n}_01966cf23c4070008000000000000002"), SystemClock.now().0 / 1_000);
                let request = Request::post("/counts/bare")
                    .header("host", &address)
                    .header("user-agent", "Punchline/0.1.0")
                    .header("content-type", "application/json")
                    .header("webhook-id", &id)
                    .header("webhook-timestamp", now_s)
                    .header("webhook-signature", sign(&id, now_s, &body, &[&*secret]))
                    .header("punchline-attempt", 1)
                    .header("punchline-sequence", n)
                    .body(Full::new(body.clone()))
                    .expect("a request");
                sender.ready().await.expect("the receiver keeps the connection");
                let answer = sender.send_request(request).await.expect("it is answered");
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.expect("to its end");
            }
        });
    }
    posting.join_all().await;
    line(&format!("{} {}", watch.seconds(), cpu_seconds("self") - cpu));
}
