//! A disk that fills up under the real journal: a child process with a limit on file size, ignoring
//! the signal, so that writing past the limit fails with EFBIG, in sled's own threads as well.

use std::{
    path::Path,
    process::{Command, id},
};

use punchline_storage::{
    journal::{Journal, JournalError},
    sled_journal::SledJournal,
};

use crate::write::{append, blocks_after, check_all};

const DIR: &str = "PUNCHLINE_TEST_FULL_DIR";

#[test]
fn a_full_disk_loses_nothing_and_goes_on_after_making_room() {
    let dir = tempfile::tempdir().unwrap();
    // `ulimit -f` counts in 512 bytes here and in 1024 there: 4 or 8 MiB.
    let script = "trap '' XFSZ; ulimit -S -f 8192; exec \"$0\" --exact full::child --ignored --nocapture";
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    let head: u64 = said.lines().find_map(|line| line.split_once("acknowledged ")).unwrap().1.trim().parse().unwrap();
    let (journal, report) = SledJournal::open(&dir.path().join("journal"), head + 1).unwrap();
    assert_eq!((report.head, report.cut_off), (head, None));
    check_all(&journal);
}

#[test]
#[ignore = "run by the test above, under a limit"]
fn child() {
    let dir = std::env::var_os(DIR).unwrap();
    let (journal, _) = SledJournal::open(&Path::new(&dir).join("journal"), 1).unwrap();
    let error = (0..100_000)
        .find_map(|_| {
            let blocks = blocks_after(journal.head(), journal.head_hash(), 8);
            journal.append(journal.head() + 1, &blocks).err()
        })
        .expect("there is a limit");
    println!("{error}");
    assert!(error.is_storage_full(), "{error:?}");
    let head = journal.head();
    assert!(head > 1000, "{head}");
    let blocks = blocks_after(head, journal.head_hash(), 1);
    assert!(matches!(journal.append(head + 1, &blocks), Err(JournalError::Stopped { .. })));
    check_all(&journal);

    // No room yet: whatever reopening says, it must not lose anything or hang.
    println!("reopening while full: {:?}", journal.reopen().map_err(|error| error.to_string()));
    let raised = Command::new("prlimit").args(["--fsize=unlimited:", "--pid", &id().to_string()]).status().unwrap();
    assert!(raised.success());
    assert_eq!(journal.reopen().unwrap(), head);
    check_all(&journal);
    for _ in 0..200 {
        append(&journal, 8);
    }
    check_all(&journal);
    println!("acknowledged {}", journal.head());
}
