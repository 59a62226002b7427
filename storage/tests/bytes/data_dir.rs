use std::{fs, process::Command};

use punchline_storage::{
    data_dir::{DataDir, DataDirError, DataDirOptions},
    layout::Table,
    rows::Rows,
};

use crate::write::{append, check_all, wait_closed};

/// Tries again for a while: a process that another test is just starting has our locks until its exec.
fn open(dir: &tempfile::TempDir) -> DataDir {
    for _ in 0..500 {
        match DataDir::open(&dir.path().join("data"), DataDirOptions::default()) {
            Err(DataDirError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays in use", dir.path().display());
}

#[test]
fn one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let owned = open(&dir);
    let error = DataDir::open(owned.path(), DataDirOptions::default()).unwrap_err();
    assert!(matches!(&error, DataDirError::InUse { owner, .. } if *owner == std::process::id().to_string()), "{error}");
    let path = owned.path().display().to_string();
    assert!(error.to_string().contains(&path), "{error} names {path}");
    // Another process sees it as well.
    let lock = owned.path().join("LOCK");
    let flock = |lock| Command::new("flock").args(["--nonblock", lock, "true"]).status().unwrap().success();
    assert!(!flock(lock.to_str().unwrap()));
    drop(owned);
    drop(open(&dir));
    assert!((0..500).any(|_| flock(lock.to_str().unwrap())), "dropping lets go of it");
}

#[test]
fn a_missing_directory_is_made_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let options = DataDirOptions { create: false, ..DataDirOptions::default() };
    let error = DataDir::open(&dir.path().join("data"), options).unwrap_err();
    assert!(matches!(error, DataDirError::Io { .. }), "{error}");
    assert!(open(&dir).free_bytes().unwrap() > 0);
}

#[test]
fn journal_and_views_come_back() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3_u64 {
        let data = open(&dir);
        let (journal, report) = data.open_journal(1).unwrap();
        assert_eq!(report.head, round * 12);
        append(&journal, 2);
        check_all(&journal);
        let views = data.open_views().unwrap();
        assert!(!views.rebuilt);
        let stored = views.rows.get(Table::Meta, b"round").unwrap();
        assert_eq!(stored, (round > 0).then(|| vec![round as u8 - 1]));
        views.rows.write(Table::Meta, &[(b"round".to_vec(), Some(vec![round as u8]))]).unwrap();
        views.rows.sync().unwrap();
    }
}

#[test]
fn damaged_views_are_set_aside() {
    type Spoil = fn(&mut Vec<u8>);
    let spoilt: [(&str, Spoil); 3] = [
        ("conf", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x55)),
        ("db", |bytes| bytes[20..4000].fill(0x99)),
        ("snap", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x55)),
    ];
    for (name, spoil) in spoilt {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let data = open(&dir);
            append(&data.open_journal(1).unwrap().0, 1);
            let rows = data.open_views().unwrap().rows;
            rows.write(Table::Meta, &[(b"k".to_vec(), Some(vec![1; 3000]))]).unwrap();
            rows.sync().unwrap();
        }
        let data = open(&dir);
        wait_closed(&data.views_path());
        let mut spoilt = 0;
        for entry in fs::read_dir(data.views_path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(name) {
                let mut bytes = fs::read(&path).unwrap();
                spoil(&mut bytes);
                fs::write(&path, bytes).unwrap();
                spoilt += 1;
            }
        }
        assert!(spoilt > 0, "{name}");
        let opened = data.open_views().unwrap();
        let found = opened.rows.get(Table::Meta, b"k").unwrap_or(None);
        let aside = data.path().join("views.damaged-1").exists();
        println!("{name}: set aside {aside}, row found {}", found.is_some());
        assert_eq!(opened.rebuilt, aside);
        assert!(opened.rebuilt, "{name}");
        assert_eq!(found, None);
        let (journal, report) = data.open_journal(1).unwrap();
        assert_eq!((report.head, report.cut_off), (12, None), "the journal is untouched");
        check_all(&journal);
    }
}

#[test]
fn what_a_later_version_wrote_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = open(&dir).path().to_owned();
    let format = path.join("FORMAT");
    assert_eq!(fs::read_to_string(&format).unwrap(), "punchline data directory, format 1\n");
    fs::remove_file(&format).unwrap();
    drop(open(&dir));
    assert!(format.exists(), "a directory that says nothing is of the first version");
    fs::write(&format, "punchline data directory, format 2\n").unwrap();
    let refused = || loop {
        match DataDir::open(&path, DataDirOptions::default()) {
            Err(DataDirError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened.unwrap_err().to_string(),
        }
    };
    let told = refused();
    assert!(told.contains("has format \"2\", this program knows 1: run the version that wrote it"), "{told}");
    fs::write(&format, "rot").unwrap();
    assert!(refused().contains("\"rot\""));
}
