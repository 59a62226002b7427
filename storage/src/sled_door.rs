//! The one door to sled: every call goes through [`call`], which turns a panic of sled into an
//! error.
//!
//! sled 0.34.7 panics on some corruption, when opening (assertions over a recovered snapshot) and
//! when reading (a page that points nowhere). The panic is confined to the call; the database it
//! came from must not be used again for writing.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::Duration,
};

use crate::{layout::SEGMENT_BYTES, sync};

/// How a call to sled failed.
#[derive(Debug)]
pub(crate) enum DoorError {
    Io(io::Error),
    Damaged(String),
}

/// Runs `f` and makes an error of its panic.
pub(crate) fn call<T>(f: impl FnOnce() -> sled::Result<T>) -> Result<T, DoorError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(DoorError::Io(error)),
        Ok(Err(error)) => Err(DoorError::Damaged(error.to_string())),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(DoorError::Damaged(format!("sled panicked: {said}")))
        }
    }
}

/// Runs `f`, such as a drop, and swallows its panic after saying so.
pub(crate) fn close(path: &Path, f: impl FnOnce()) {
    let closed = call(|| {
        f();
        Ok(())
    });
    if let Err(DoorError::Damaged(what)) = closed {
        tracing::warn!(path = %path.display(), what, "sled panicked while closing");
    }
}

/// Tries of opening while the lock of an earlier handle of this process is still held.
const OPEN_TRIES_MAX: u32 = 500;

/// Opens a database. Retries for up to five seconds if its file is locked, because threads of sled
/// hold on to a closed database until their last write is over; that no other process has it is
/// seen to by the lock on the data directory.
pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<sled::Db, DoorError> {
    sync::ensure_linked();
    remove_unfinished_snapshots(path).map_err(DoorError::Io)?;
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(cache_bytes)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None);
    let mut tries = 1;
    loop {
        match call(|| config.open()) {
            Err(DoorError::Io(error)) if is_locked(&error) && tries < OPEN_TRIES_MAX => {
                tries += 1;
                thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Removes what a power cut left of a snapshot that was being written. sled would write the next one of that name
/// over it, without making it shorter first: the rest of the longer one behind it, and a checksum that is wrong for
/// ever after.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            match std::fs::remove_file(entry.path()) {
                // An earlier handle of this process has finished it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// sled wraps the lock's error into a message, so the text is all there is.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().starts_with("could not acquire lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_snapshot_spoils_no_later_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        let reopen = || {
            let db = open(path, 1 << 20).unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(db.get("key").expect("readable"), Some("value".into()));
            close(path, || drop(db));
        };
        let db = open(path, 1 << 20).expect("an empty directory");
        db.insert("key", "value").expect("written");
        db.flush().expect("on disk");
        close(path, || drop(db));
        reopen();
        let names = || std::fs::read_dir(path).expect("it is there").map(|entry| entry.expect("an entry").path());
        let snapshots = || names().filter(|name| name.to_string_lossy().contains("/snap."));
        let snapshot = snapshots().next().expect("sled writes one");
        // As if the power had gone before it was renamed, and a longer one had been there before.
        std::fs::write(format!("{}.generating", snapshot.display()), vec![7; 10_000]).expect("written");
        std::fs::remove_file(snapshot).expect("removed");
        (0..3).for_each(|_| reopen());
        assert!(snapshots().all(|name| name.extension().is_some_and(|end| end != "generating")));
    }
}
