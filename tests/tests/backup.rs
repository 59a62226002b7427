//! Backups of a server that serves, and what comes back: balances, events, ids that stay used up.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::api::{Api, consumption};
use punchline_tests::campaign::{CAMPAIGN, SKUS};
use punchline_tests::dice::Dice;
use punchline_tests::server::{OPERATOR_TOKEN, Server};
use punchline_tests::world::{World, populate};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

const MEMBERS: usize = 8;

/// An advertiser with members, of whom something is reported all the time.
struct Load {
    going: Arc<AtomicBool>,
    senders: JoinSet<u64>,
}

impl Load {
    /// Batches of twenty from each of three senders, until [`stop`](Load::stop).
    fn start(api: &Api, phones: &[String], name: &str, dice: &mut Dice) -> Load {
        let (going, mut senders) = (Arc::new(AtomicBool::new(true)), JoinSet::new());
        for n in 0..3 {
            let (api, phones, mut dice) = (api.clone(), phones.to_vec(), dice.split());
            let (going, name) = (going.clone(), format!("{name}-{n}"));
            senders.spawn(async move {
                let mut sent = 0;
                while going.load(Ordering::Relaxed) {
                    let consumptions = (0..20).map(|_| {
                        sent += 1;
                        let lines = [(*dice.pick(&SKUS), dice.between(1, 3))];
                        consumption(&format!("{name}-{sent}"), dice.pick::<String>(&phones), &lines)
                    });
                    let request = v1::BatchRecordConsumptionsRequest { consumptions: consumptions.collect() };
                    if api.ingest().batch_record_consumptions(request).await.is_err() {
                        break;
                    }
                }
                sent
            });
        }
        Load { going, senders }
    }

    async fn stop(self) -> u64 {
        self.going.store(false, Ordering::Relaxed);
        self.senders.join_all().await.into_iter().sum()
    }
}

/// What a server knows of an advertiser: every balance and punchcard, and every event.
async fn known(api: &Api, members: &BTreeMap<String, String>) -> (Vec<String>, Vec<v1::Event>) {
    let mut holdings = Vec::new();
    for id in members.values() {
        holdings.push(format!("{id}: {:?} {:?}", api.balances(id).await, api.punchcards(id).await));
    }
    (holdings, api.events_from(1, &[]).await.0)
}

async fn members(api: &Api) -> BTreeMap<String, String> {
    populate(api).await;
    let mut members = BTreeMap::new();
    for n in 0..MEMBERS {
        let phone = format!("407300{n:05}");
        members.insert(phone.clone(), api.new_member(&phone, &[CAMPAIGN]).await);
    }
    members
}

async fn back_up(api: &Api) -> Result<v1::CreateBackupResponse, tonic::Status> {
    api.admin().create_backup(v1::CreateBackupRequest {}).await.map(tonic::Response::into_inner)
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

fn restore(server: &Server, from: &Path, to: &Path) -> Output {
    let key = server.data_dir().join("master.key");
    let mut command = server.command();
    command.args(["restore", "--output", "json", "--from"]).arg(from).arg("--data-dir").arg(to);
    command.arg("--master-key-file").arg(key).output().expect("the binary runs")
}

fn checked(server: &Server, from: &Path) -> Output {
    server
        .command()
        .args(["restore", "--validate-only", "--output", "json", "--from"])
        .arg(from)
        .output()
        .expect("runs")
}

/// A server on what was restored.
async fn server_on(data_dir: &Path) -> Server {
    Server::setup().with("storage.data_dir", data_dir.display()).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_backed_up_under_load_comes_back() {
    let mut dice = Dice::from_environment("backup");
    let dir = TempDir::new().expect("a directory");
    let backup = dir.path().join("backup");
    let mut server = Server::setup().with("backup.directory", backup.display()).start().await;
    let (advertiser, api) = server.operator().new_advertiser("Backup").await;
    let members = members(&api).await;
    let phones: Vec<String> = members.keys().cloned().collect();

    // Members who come and are erased all the time: their keys have to go with the journal.
    let (churning, churned) = (Arc::new(AtomicBool::new(true)), api.clone());
    let churn = churning.clone();
    let churn = tokio::spawn(async move {
        let mut erased = 0;
        while churn.load(Ordering::Relaxed) {
            let member_id = churned.new_member(&format!("407390{erased:05}"), &[CAMPAIGN]).await;
            let request = v1::EraseMemberRequest { member_id };
            churned.members().erase_member(request).await.expect("the member is erased");
            erased += 1;
        }
        erased
    });
    let mut last = 0;
    for round in 0..4 {
        let load = Load::start(&api, &phones, &format!("r{round}"), &mut dice);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let made = back_up(&api).await.expect("it is backed up");
        let found = made.backup.expect("a backup");
        assert!(found.last_sequence > last && found.first_sequence == 1, "it grew: {found:?}");
        assert_eq!(made.events_added, found.last_sequence - last, "each run adds what is new");
        last = found.last_sequence;
        assert!(load.stop().await > 0);
        let copied = Command::new("cp").arg("-r").arg(&backup).arg(dir.path().join(format!("copy-{round}"))).status();
        assert!(copied.expect("there is a cp").success());
        let status = api.status().await.backup.expect("the status tells of the backup");
        assert_eq!((status.last_sequence, status.runs), (last, round + 1));
    }
    churning.store(false, Ordering::Relaxed);
    assert!(churn.await.expect("it does not panic") > 3);
    let used_up = consumption("used-up", &phones[0], &[("article", 1)]);
    let first = api.record(used_up.clone()).await.expect("accepted").sequence;
    // The last one with nothing going on, so that what comes back can be compared; then more, which is lost.
    last = back_up(&api).await.expect("it is backed up").backup.expect("a backup").last_sequence;
    let before = known(&api, &members).await;
    assert!(api.record(consumption("too-late", &phones[0], &[("article", 1)])).await.is_ok());
    assert!(server.stop().await.success());

    let sound = json(&checked(&server, &backup));
    assert_eq!(sound["backup"]["last_sequence"], last);
    let data = dir.path().join("restored");
    let restored = json(&restore(&server, &backup, &data));
    assert_eq!(restored["head_sequence"], last);
    for round in [0, 3] {
        let data = dir.path().join(format!("restored-{round}"));
        json(&restore(&server, &dir.path().join(format!("copy-{round}")), &data));
    }
    let again = restore(&server, &backup, &data);
    assert!(!again.status.success() && said(&again).contains("is not empty"), "{}", said(&again));

    let mut second = server_on(&data).await;
    let api = second.operator().advertiser(&advertiser);
    let after = known(&api, &members).await;
    assert_eq!(after.0, before.0, "every balance");
    assert_eq!(after.1, before.1, "every event");
    let repeat = api.record(used_up).await.expect_err("its id stays used up");
    assert_eq!((repeat.reason, repeat.receipt.map(|r| r.sequence)), ("CONSUMPTION_EXISTS".into(), Some(first)));
    assert!(api.record(consumption("too-late", &phones[0], &[("article", 1)])).await.is_ok(), "it was never seen here");
    assert!(second.stop().await.success());
    let verified = second.command().env("PUNCHLINE_STORAGE__DATA_DIR", &data).arg("verify").output().expect("it runs");
    assert!(verified.status.success(), "{}", said(&verified));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_in_a_backup_leaves_the_one_before() {
    let mut dice = Dice::from_environment("backup-kill");
    let dir = TempDir::new().expect("a directory");
    let backup = dir.path().join("backup");
    let mut server = Server::setup().with("backup.directory", backup.display()).start().await;
    let (_, api) = server.operator().new_advertiser("Backup").await;
    let members = members(&api).await;
    let phones: Vec<String> = members.keys().cloned().collect();
    let (mut completed, mut last) = (0, 0);
    for round in 0..8 {
        let load = Load::start(&api, &phones, &format!("k{round}"), &mut dice);
        tokio::time::sleep(Duration::from_millis(dice.between(50, 250))).await;
        let caller = api.clone();
        let running = tokio::spawn(async move { back_up(&caller).await });
        tokio::time::sleep(Duration::from_millis(dice.between(0, 40))).await;
        server.kill();
        load.stop().await;
        if let Ok(made) = running.await.expect("it does not panic") {
            (completed, last) = (completed + 1, made.backup.expect("a backup").last_sequence);
        }
        if backup.join("manifest").exists() {
            let found = json(&checked(&server, &backup))["backup"]["last_sequence"].as_u64().expect("a position");
            assert!(found >= last, "what was answered for is there: {last}, and there is {found}");
        } else {
            assert_eq!(last, 0, "nothing was completed");
        }
        server.restart().await;
    }
    back_up(&api).await.expect("the next run goes on");
    assert!(server.stop().await.success());
    let data = dir.path().join("restored");
    json(&restore(&server, &backup, &data));
    println!("backup: {completed} of 8 were completed before the kill");

    // A restore that is killed: nobody opens what it leaves.
    let data = dir.path().join("cut-off");
    let mut command = server.command();
    command.args(["restore", "--from"]).arg(&backup).arg("--data-dir").arg(&data).arg("--master-key-file");
    let mut restoring = command.arg(server.data_dir().join("master.key")).spawn().expect("it starts");
    while !data.join("journal").exists() {
        assert!(restoring.try_wait().expect("a child can be waited for").is_none(), "it had ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    restoring.kill().expect("a child can be killed");
    restoring.wait().expect("a child can be waited for");
    for arguments in [&["serve"][..], &["verify"], &["backup", "--to", "x"]] {
        let mut command = server.command();
        let refused = command.args(arguments).arg("--data-dir").arg(&data).output().expect("the binary runs");
        assert!(!refused.status.success() && said(&refused).contains("was cut off"), "{}", said(&refused));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_takes_backups_of_servers_and_of_directories() {
    let dir = TempDir::new().expect("a directory");
    let mut world = World::start(Server::setup()).await;
    for n in 0..20 {
        world.article(&format!("a-{n}")).await;
    }
    let (endpoint, stream) = (format!("http://{}", world.server.grpc_address()), dir.path().join("stream.tar"));
    let by_server = |to: &[&str]| {
        let mut command = world.server.command();
        command.arg("backup").args(to).args(["--endpoint", &endpoint, "--token", OPERATOR_TOKEN]);
        command.output().expect("the binary runs")
    };
    let refused = by_server(&[]);
    assert!(said(&refused).contains("BACKUP_NOT_CONFIGURED"), "{}", said(&refused));
    let refused = by_server(&["--to", "x"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let streamed = by_server(&["--to", "-"]);
    assert!(streamed.status.success(), "{}", said(&streamed));
    fs::write(&stream, &streamed.stdout).expect("written");
    let request = v1::CreateBackupRequest {};
    let token = world.token(&world.advertiser_id, &[v1::Scope::Manage]).await;
    let error = world.api.bearer(&token).admin().create_backup(request).await.expect_err("for operators only");
    assert_eq!(error.code(), tonic::Code::PermissionDenied);
    let balances = world.api.balances(&world.member_id).await;
    assert!(world.server.stop().await.success());

    let server = &world.server;
    let to = |to: &str| server.command().args(["backup", "--output", "json", "--to", to]).output().expect("it runs");
    let directory = dir.path().join("backup").display().to_string();
    let made = json(&to(&directory));
    assert_eq!(made["backup"]["last_sequence"], made["events_added"]);
    assert_eq!(json(&to(&directory))["events_added"], 0);
    let offline = to("-");
    assert!(offline.status.success(), "{}", said(&offline));

    for (n, bytes) in [streamed.stdout, offline.stdout].iter().enumerate() {
        let data: PathBuf = dir.path().join(format!("data-{n}"));
        let mut command = server.command();
        command.args(["restore", "--from", "-", "--data-dir"]).arg(&data).arg("--master-key-file");
        command.arg(server.data_dir().join("master.key"));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(bytes).expect("it reads all");
        let ended = child.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{}", said(&ended));
        let second = server_on(&data).await;
        let api = second.operator().advertiser(&world.advertiser_id);
        assert_eq!(api.balances(&world.member_id).await, balances);
    }

    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("there is one");
    let full = server.command().args(["backup", "--to", "-"]).stdout(full).output().expect("it runs");
    assert!(!full.status.success() && said(&full).contains("No space left"), "{}", said(&full));

    // Another master key opens nothing, and is refused.
    let key = dir.path().join("other.key");
    fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("written");
    let mut command = server.command();
    command.args(["restore", "--from", &directory, "--data-dir"]).arg(dir.path().join("other"));
    let refused = command.arg("--master-key-file").arg(&key).output().expect("the binary runs");
    assert!(said(&refused).contains("does not belong to this master key"), "{}", said(&refused));

    // A byte that is another.
    let blocks = Path::new(&directory).join("blocks-00000000000000000001");
    let mut bytes = fs::read(&blocks).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blocks, bytes).expect("written");
    for refused in [checked(server, Path::new(&directory)), {
        restore(server, Path::new(&directory), &dir.path().join("damaged"))
    }] {
        let told = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains(&blocks.display().to_string()) && told.contains("is damaged at byte"), "{told}");
    }
}
