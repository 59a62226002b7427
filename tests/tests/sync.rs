//! Accepted means on disk (G2), by the kernel's own account: an `fdatasync` that began after the journal's
//! write, and returned 0, stands before the answer's write to the client's socket.

use std::process::Command;

use punchline_tests::api::consumption;
use punchline_tests::server::Server;
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::{PHONE, World};

/// A system call, with the lines of the trace where it begins and where it ends.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    name: String,
    /// As strace shows them; descriptors with what they stand for.
    arguments: String,
    begins: usize,
    ends: usize,
    returned: i64,
}

/// Reads what `strace -f -yy -o` wrote: calls of threads that interrupt each other are put together.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: std::collections::BTreeMap<&str, Call> = std::collections::BTreeMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let (Some(mut call), Some(returned)) = (open.remove(thread), returned(resumed)) {
                (call.ends, call.returned) = (at, returned);
                calls.push(call);
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let call = Call { name: name.into(), arguments: arguments.into(), begins: at, ends: at, returned: 0 };
            match returned(arguments) {
                _ if arguments.ends_with("<unfinished ...>") => drop(open.insert(thread, call)),
                Some(returned) => calls.push(Call { returned, ..call }),
                None => {}
            }
        }
    }
    calls
}

/// The number after the last ` = `.
fn returned(text: &str) -> Option<i64> {
    let (_, result) = text.rsplit_once(" = ")?;
    result.split_whitespace().next()?.parse().ok()
}

/// Whether a sync of the journal stands between the write of `marker` into it and the answer that holds
/// `answer` to a socket.
fn sync_stands_between(trace: &str, marker: &str, answer: &str) -> Result<(), String> {
    let calls = calls(trace);
    let of_journal = |call: &&Call| call.arguments.contains("/journal/");
    let write = calls.iter().filter(of_journal).find(|call| call.name == "pwrite64" && call.arguments.contains(marker));
    let write = write.ok_or("the journal's write is not in the trace")?;
    let to_socket = |call: &&Call| call.arguments.contains("<TCP") && call.arguments.contains(answer);
    let told = calls
        .iter()
        .filter(to_socket)
        .filter(|call| ["write", "writev", "sendto", "sendmsg"].contains(&call.name.as_str()));
    let told = told.min_by_key(|call| call.begins).ok_or("the answer is not in the trace")?;
    let synced = calls.iter().filter(of_journal).any(|call| {
        let syncs = call.name == "fdatasync" || call.name == "fsync";
        syncs && call.begins > write.ends && call.ends < told.begins && call.returned == 0
    });
    match synced {
        true => Ok(()),
        false => Err(format!("no sync between line {} and line {}", write.ends + 1, told.begins + 1)),
    }
}

#[test]
fn traces_are_judged() {
    let write = r#"11 pwrite64(7</d/journal/db>, "..c-1..", 8192, 0) = 8192"#;
    let failed = "11 pwrite64(7</d/journal/db>, \"..c-1..\", 8192, 0) = -1 EIO (Input/output error)";
    let sync = "11 fdatasync(7</d/journal/db>) = 0";
    let tell = r#"12 writev(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base="..m-1..", iov_len=7}], 1) = 7"#;
    let began = "11 fdatasync(7</d/journal/db> <unfinished ...>";
    let ended = "11 <... fdatasync resumed>)        = 0";
    for (lines, sound) in [
        (&[write, sync, tell][..], true),
        (&[write, began, ended, tell], true),
        (&[write, "13 fsync(7</d/journal/db>) = 0", tell], true),
        (&[sync, write, tell], false),
        (&[write, tell, sync], false),
        (&[write, began, tell, ended], false),
        (&[began, write, ended, tell], false),
        (&[write, "11 fdatasync(7</d/journal/db>) = -1 EIO (Input/output error)", tell], false),
        (&[write, "11 fdatasync(7</d/views/db>) = 0", tell], false),
        (&[write, "11 sync_file_range(7</d/journal/db>, 0, 0, 7) = 0", tell], false),
        (&[failed, tell], false),
        (&[sync, tell], false),
        (&[write, sync], false),
    ] {
        let judged = sync_stands_between(&lines.join("\n"), "c-1", "m-1");
        assert_eq!(judged.is_ok(), sound, "{lines:#?}: {judged:?}");
    }
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test that was left out must say so")]
async fn a_sync_stands_before_the_answer() {
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace must be installed in CI");
        eprintln!("SKIPPED: strace is not installed, so nothing was shown about the order of sync and answer");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let trace = dir.path().join("trace");
    let trace = trace.to_str().expect("a path that is text");
    // -D: the tracer is the grandchild, so that the process we start and kill is the server.
    let wanted = "trace=fdatasync,fsync,sync_file_range,write,writev,sendto,sendmsg,pwrite64";
    let strace = ["strace", "-D", "-f", "-yy", "-s", "65536", "-e", wanted, "-o", trace];
    let mut world = World::start(Server::setup().through(&strace)).await;
    for id in ["synced-before-told-1", "synced-before-told-2"] {
        let receipt = world.api.record(consumption(id, PHONE, &[("article", 1)])).await.expect("accepted");
        assert_eq!(receipt.member_id, world.member_id);
    }
    assert!(world.server.stop().await.success());
    let read = || std::fs::read_to_string(trace).expect("strace wrote its trace");
    // The tracer ends a moment after the server.
    until("the trace is whole", SOON, async || if read().contains("+++ exited") { Ok(()) } else { Err("not yet") })
        .await;
    let text = read();
    // Only what comes after the setup: its calls named the member, too.
    for id in ["synced-before-told-1", "synced-before-told-2"] {
        let from = text.find(id).expect("the journal's write shows the consumption's id");
        let from = text[..from].rfind('\n').map_or(0, |at| at + 1);
        sync_stands_between(&text[from..], id, &world.member_id).expect("a sync stands between");
    }
}
