//! Backups: whole and in steps, to a directory and as a stream; cut off, damaged, of another journal.

use std::fs;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use punchline_engine::time::UnixMillis;
use punchline_storage::backup::{
    BackupError, Contents, Directory, Source, Summary, check, manifest_in, to_directory, to_stream, unpack,
};
use punchline_storage::data_dir::{DataDir, DataDirError, DataDirOptions};
use punchline_storage::journal::Journal;
use punchline_storage::memory::MemoryDisk;

use crate::write::{append, check_all, large_block_after};

fn contents<'a>(journal: &'a dyn Journal, keys: &'static [u8]) -> Contents<'a> {
    let keys = Box::new(Cursor::new(keys));
    Contents { journal, upto: journal.head(), keys, base: None, made_at: UnixMillis(1_700_000_000_000) }
}

fn into(path: &Path, journal: &dyn Journal, keys: &'static [u8]) -> Result<Summary, BackupError> {
    patient(
        || to_directory(path, contents(journal, keys), &mut |_, _| {}),
        |error| matches!(error, BackupError::InUse { .. }),
    )
}

/// Tries again for a while: a process that another test is just starting has our locks until its exec.
fn patient<T, E>(attempt: impl Fn() -> Result<T, E>, is_in_use: impl Fn(&E) -> bool) -> Result<T, E> {
    for _ in 0..500 {
        match attempt() {
            Err(error) if is_in_use(&error) => std::thread::sleep(std::time::Duration::from_millis(10)),
            done => return done,
        }
    }
    attempt()
}

fn begin_restore(path: &Path) -> Result<DataDir, DataDirError> {
    patient(|| DataDir::begin_restore(path), |error| matches!(error, DataDirError::InUse { .. }))
}

fn open(path: &Path) -> Result<DataDir, DataDirError> {
    patient(|| DataDir::open(path, DataDirOptions::default()), |error| matches!(error, DataDirError::InUse { .. }))
}

fn checked(path: &Path) -> Result<u64, BackupError> {
    Ok(check(Source::Directory(Directory::read(path)?), &mut |_| {})?.blocks)
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "LOCK");
    names.sort();
    names
}

fn restored(source: Source<'_>, at: &Path) -> DataDir {
    let data_dir = begin_restore(at).unwrap();
    unpack(source, &data_dir, &mut |_| {}).unwrap();
    data_dir
}

#[test]
fn a_backup_grows_with_the_journal_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (backup, data) = (dir.path().join("deep/backup"), dir.path().join("data"));
    let (journal, _) = MemoryDisk::new().journal(1).unwrap();

    let nothing = into(&backup, &journal, b"").unwrap();
    assert_eq!((nothing.manifest.last, nothing.events_added, checked(&backup).unwrap()), (0, 0, 0));
    append(&journal, 50);
    let first = into(&backup, &journal, b"keys of the first run").unwrap();
    assert_eq!((first.manifest.last, first.events_added), (300, 300));
    append(&journal, 10);
    let large = large_block_after(journal.head(), journal.head_hash(), 900_000);
    journal.append(journal.head() + 1, &[large]).unwrap();
    let second = into(&backup, &journal, b"keys of the second run").unwrap();
    assert_eq!((second.manifest.last, second.events_added, second.manifest.run), (361, 61, 3));
    let again = into(&backup, &journal, b"keys of the last run").unwrap();
    assert_eq!((again.manifest.last, again.events_added), (361, 0));
    assert_eq!(
        files(&backup),
        ["blocks-00000000000000000001", "blocks-00000000000000000301", "keys-00000004-00001", "manifest"],
        "keys of earlier runs are gone"
    );
    assert_eq!(checked(&backup).unwrap(), 61);
    assert_eq!(manifest_in(&backup).unwrap().unwrap(), again.manifest);

    let data_dir = restored(Source::Directory(Directory::read(&backup).unwrap()), &data);
    assert!(matches!(DataDir::open(&data, DataDirOptions::default()), Err(DataDirError::InUse { .. })));
    data_dir.finish_restore().unwrap();
    drop(data_dir);
    let data_dir = open(&data).unwrap();
    let (back, report) = data_dir.open_journal(0).unwrap();
    assert_eq!((report.head, report.cut_off), (361, None));
    assert_eq!(back.head_hash(), journal.head_hash());
    check_all(&back);
    append(&back, 1);
    assert_eq!(fs::read(data.join("keys/members.keys")).unwrap(), b"keys of the last run");
}

#[test]
fn a_stream_is_a_whole_backup_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = MemoryDisk::new().journal(1).unwrap();
    append(&journal, 20);
    let mut stream = Vec::new();
    let summary = to_stream(&mut stream, contents(&journal, b"keys"), &mut |_, _| {}).unwrap();
    assert_eq!(summary.manifest.last, 120);
    let mut read = &stream[..];
    let data_dir = restored(Source::Stream(&mut read), &dir.path().join("data"));
    check_all(&data_dir.open_journal(0).unwrap().0);

    for len in (0..stream.len() - 1_024).step_by(97) {
        let mut cut = &stream[..len];
        let error = check(Source::Stream(&mut cut), &mut |_| {}).expect_err("it is cut off");
        assert!(matches!(error, BackupError::Damaged { .. }), "{len}: {error}");
    }
    // Padding and names' ends aside, every byte counts: the headers have a checksum, the parts a digest.
    for at in (0..stream.len() - 1_024).step_by(61) {
        let mut spoilt = stream.clone();
        spoilt[at] ^= 0x10;
        let mut read = &spoilt[..];
        if let Ok(checked) = check(Source::Stream(&mut read), &mut |_| {}) {
            assert!(stream[at] == 0, "byte {at}: {checked:?}");
        }
    }
}

#[test]
fn a_byte_that_is_another_is_found_and_its_file_named() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = MemoryDisk::new().journal(1).unwrap();
    append(&journal, 20);
    into(dir.path(), &journal, b"the keys of members").unwrap();
    append(&journal, 2);
    into(dir.path(), &journal, b"the keys of members").unwrap();
    for name in files(dir.path()) {
        let path = dir.path().join(&name);
        let sound = fs::read(&path).unwrap();
        for at in (0..sound.len()).step_by(53).chain([sound.len() - 1]) {
            let mut spoilt = sound.clone();
            spoilt[at] ^= 1;
            fs::write(&path, spoilt).unwrap();
            let error = checked(dir.path()).expect_err("a byte is another").to_string();
            assert!(error.contains(&path.display().to_string()), "{name} at {at}: {error}");
            let from: u64 =
                error.split("byte ").nth(1).map_or(0, |rest| rest.split(':').next().unwrap().parse().unwrap());
            if name.starts_with("blocks") {
                assert!(from <= at as u64 && at as u64 - from < 8_192, "{name} at {at}: {error}");
            }
        }
        fs::write(&path, &sound[..sound.len() - 1]).unwrap();
        assert!(checked(dir.path()).is_err(), "{name} without its last byte");
        fs::remove_file(&path).unwrap();
        let error = checked(dir.path()).expect_err("it is missing").to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{name}: {error}");
        fs::write(&path, sound).unwrap();
    }
    checked(dir.path()).unwrap();
}

#[test]
fn a_backup_continues_its_own_journal_only() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(1).unwrap();
    append(&journal, 5);
    let early = disk.after_kill();
    append(&journal, 5);
    into(dir.path(), &journal, b"").unwrap();
    let before = manifest_in(dir.path()).unwrap();

    let (lost, _) = early.journal(1).unwrap();
    let refused = |error: BackupError, told: &str| {
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(manifest_in(dir.path()).unwrap(), before);
        checked(dir.path()).unwrap();
    };
    refused(into(dir.path(), &lost, b"").expect_err("it lost its end"), "at sequence 60 the journal is at its end");
    // The same length, other content.
    let large = large_block_after(lost.head(), lost.head_hash(), 100);
    lost.append(31, &[large]).unwrap();
    append(&lost, 5);
    refused(into(dir.path(), &lost, b"").expect_err("it went another way"), "at sequence 60");

    append(&journal, 5);
    journal.trim(61).unwrap();
    let added = into(dir.path(), &journal, b"").unwrap();
    assert_eq!((added.manifest.first, added.events_added), (1, 30), "what was trimmed is in the backup");
    journal.trim(91).unwrap();
    let late = tempfile::tempdir().unwrap();
    assert!(matches!(into(late.path(), &journal, b""), Err(BackupError::NoBase { first: 85 })));
    append(&journal, 5);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("manifest"), elsewhere.path().join("manifest")).unwrap();
    journal.trim(121).unwrap();
    assert!(matches!(into(elsewhere.path(), &journal, b""), Err(BackupError::Gap { last: 90, first: 115, .. })));
}

/// A file of keys that breaks off, as a disk does.
struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("input/output error"))
    }
}

#[test]
fn a_run_that_fails_leaves_the_backup_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = MemoryDisk::new().journal(1).unwrap();
    append(&journal, 5);
    into(dir.path(), &journal, b"keys").unwrap();
    let before = files(dir.path());
    append(&journal, 5);
    let broken = Contents { keys: Box::new(Broken), ..contents(&journal, b"") };
    assert!(matches!(to_directory(dir.path(), broken, &mut |_, _| {}), Err(BackupError::Io { .. })));
    assert_eq!(files(dir.path()), before, "no part of it is left");
    // What a kill leaves: parts that no manifest lists, one cut short, and a manifest that was not renamed.
    fs::write(dir.path().join("blocks-00000000000000000031"), b"half").unwrap();
    fs::write(dir.path().join("keys-00000002-00001"), b"half").unwrap();
    fs::write(dir.path().join("manifest.new"), b"half").unwrap();
    assert_eq!(checked(dir.path()).unwrap(), 5, "it is no part of the backup");
    assert_eq!(into(dir.path(), &journal, b"keys").unwrap().events_added, 30);
    assert_eq!(checked(dir.path()).unwrap(), 10);

    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(to_stream(&mut Full(4_000), contents(&journal, b""), &mut |_, _| {}).is_err());
}

#[test]
fn directories_are_not_mistaken() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = MemoryDisk::new().journal(1).unwrap();
    append(&journal, 1);
    assert!(matches!(checked(dir.path()), Err(BackupError::None { .. })));
    fs::write(dir.path().join("holiday.jpg"), b"").unwrap();
    let error = into(dir.path(), &journal, b"").expect_err("it is something else's");
    assert!(error.to_string().contains("holiday.jpg"), "{error}");
    fs::remove_file(dir.path().join("holiday.jpg")).unwrap();
    into(dir.path(), &journal, b"").unwrap();
    let reading = Directory::read(dir.path()).unwrap();
    let refused = to_directory(dir.path(), contents(&journal, b""), &mut |_, _| {});
    assert!(matches!(refused, Err(BackupError::InUse { .. })));
    drop(reading);
    into(dir.path(), &journal, b"").unwrap();
    let later = fs::read_to_string(dir.path().join("manifest")).unwrap().replace("backup 1", "backup 2");
    fs::write(dir.path().join("manifest"), later).unwrap();
    let error = checked(dir.path()).expect_err("it is a later version's");
    assert!(matches!(&error, BackupError::Version { found, .. } if found == "2"), "{error}");

    let data: PathBuf = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("letter"), b"").unwrap();
    let error = begin_restore(&data).expect_err("it is not empty");
    assert!(matches!(&error, DataDirError::NotEmpty { found, .. } if found == "letter"), "{error}");
    fs::rename(data.join("letter"), data.join("master.key")).unwrap();
    drop(begin_restore(&data).unwrap());
    for opened in [open(&data), begin_restore(&data)] {
        let error = opened.expect_err("it was cut off");
        assert!(matches!(error, DataDirError::Unfinished { .. }), "{error}");
    }
}

const DIR: &str = "PUNCHLINE_TEST_FULL_BACKUP_DIR";

/// As in `full.rs`: a limit on file size, with the signal ignored, in a process of its own.
#[test]
fn a_full_disk_leaves_the_backup_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    // 8 or 16 KiB.
    let script = "trap '' XFSZ; ulimit -S -f 16; exec \"$0\" --exact backup::child --ignored --nocapture";
    let mut child = Command::new("sh");
    let child = child.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(DIR, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert_eq!(checked(dir.path()).unwrap(), 45);
}

#[test]
#[ignore = "run by the test above, under a limit"]
fn child() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let (journal, _) = MemoryDisk::new().journal(1).unwrap();
    append(&journal, 5);
    into(&dir, &journal, b"keys").unwrap();
    let before = files(&dir);
    append(&journal, 40);
    let error = into(&dir, &journal, b"keys").expect_err("there is a limit").to_string();
    assert!(error.contains("blocks-00000000000000000031: File too large"), "{error}");
    assert_eq!(files(&dir), before, "nothing of it is left");
    checked(&dir).unwrap();
    let pid = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--fsize=unlimited:", "--pid", &pid]).status().unwrap();
    assert!(raised.success());
    into(&dir, &journal, b"keys").unwrap();
}
