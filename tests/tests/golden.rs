//! What each version of the format left on disk, opened by the binary of today: data directories and backups.
//!
//! `tests/golden/<version>` holds a data directory (`data.tar.gz`, with its master key), a backup of it and what is
//! in them (`expected.json`). Never changed. A new version of the format adds a folder:
//! `cargo test -p punchline-tests --test golden -- --ignored` writes `tests/golden/new`, to be renamed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use punchline_proto::v1;
use punchline_tests::api::{Api, consumption};
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::server::Server;
use punchline_tests::world::{PHONE, World};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// What a server knows of an advertiser up to `head`, in as much as no version may change it. What comes after it
/// the clock does.
async fn known(api: &Api, advertiser: &str, members: &[String], head: u64) -> Value {
    let mut holdings = BTreeMap::new();
    for id in members {
        let request = v1::GetMemberRequest { member_id: id.clone() };
        let member = api.members().get_member(request).await.expect("the member is there").into_inner().member;
        let identifiers = member.expect("a member").identifiers.into_iter().map(|one| one.value);
        let punchcards = api.punchcards(id).await.into_iter().map(|(id, (stamps, rows))| json!([id, stamps, rows]));
        holdings.insert(
            id,
            json!({
                "identifiers": identifiers.collect::<Vec<_>>(),
                "balances": api.balances(id).await,
                "punchcards": punchcards.collect::<Vec<_>>(),
            }),
        );
    }
    let (mut events, _) = api.events_from(1, &[]).await;
    events.retain(|event| event.sequence <= head);
    let mut digest = Sha256::new();
    for event in &events {
        let at = event.time.as_ref().map(|time| (time.seconds, time.nanos));
        digest.update(format!("{} {at:?} {}\n", event.sequence, event.r#type));
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let events = json!({ "head": head, "count": events.len(), "sha256": digest });
    json!({ "advertiser": advertiser, "members": holdings, "events": events })
}

/// Serves `data_dir` and compares; then verifies it.
async fn check(data_dir: &Path, expected: &Value) {
    let mut server = Server::setup().with("storage.data_dir", data_dir.display()).start().await;
    let advertiser = expected["advertiser"].as_str().expect("a text");
    let api = server.operator().advertiser(advertiser);
    let members: Vec<String> = expected["members"].as_object().expect("an object").keys().cloned().collect();
    let head = expected["events"]["head"].as_u64().expect("a number");
    assert_eq!(known(&api, advertiser, &members, head).await, *expected, "{}", data_dir.display());
    let refused = api.record(consumption("a-1", PHONE, &[("article", 1)])).await.expect_err("its id is used up");
    assert!(refused.reason.starts_with("CONSUMPTION_EXISTS"), "{refused:?}");
    api.record(consumption("new", PHONE, &[("article", 1)])).await.expect("it goes on");
    assert!(server.stop().await.success());
    let verified = server.command().arg("verify").arg("--data-dir").arg(data_dir).output().expect("it runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_version_wrote_is_opened() {
    let mut versions: Vec<PathBuf> =
        fs::read_dir(golden()).expect("there are versions").map(|entry| entry.expect("readable").path()).collect();
    versions.sort();
    assert!(!versions.is_empty());
    for version in versions {
        let dir = TempDir::new().expect("a directory");
        let expected = fs::read_to_string(version.join("expected.json")).expect("there");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        let unpacked =
            Command::new("tar").arg("-xzf").arg(version.join("data.tar.gz")).current_dir(dir.path()).status();
        assert!(unpacked.expect("there is a tar").success());
        let key = dir.path().join("key");
        fs::copy(dir.path().join("data/master.key"), &key).expect("copied");
        check(&dir.path().join("data"), &expected).await;

        let restored = dir.path().join("restored");
        let mut command = Command::new(punchline_tests::server::binary());
        command.args(["restore", "--from"]).arg(version.join("backup")).arg("--data-dir").arg(&restored);
        let output = command.arg("--master-key-file").arg(&key).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check(&restored, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_version_is_refused_and_left_alone() {
    let mut server = Server::start().await;
    assert!(server.stop().await.success());
    let format = server.data_dir().join("FORMAT");
    fs::write(&format, "punchline data directory, format 2\n").expect("written");
    for command in [&["serve"][..], &["verify"], &["log", "cat"], &["backup", "--to", "elsewhere"]] {
        let refused = server.run(command);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("has format \"2\", this program knows 1"), "{told}");
    }
    assert_eq!(server.run(&["serve"]).status.code(), Some(70));
    fs::write(&format, "punchline data directory, format 1\n").expect("written");
    assert!(server.verify().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes tests/golden/new: for a new version of the format"]
async fn write_what_this_version_writes() {
    let into = golden().join("new");
    fs::create_dir_all(&into).expect("made");
    let backup = into.join("backup");
    let mut world = World::start(Server::setup().with("backup.directory", backup.display())).await;
    let api = &world.api;
    let admin = world.server.operator();
    let back_up = async || admin.admin().create_backup(v1::CreateBackupRequest {}).await.expect("it is backed up");
    let other = api.new_member("40720005124", &[CAMPAIGN]).await;
    let erased = api.new_member("40720005125", &[CAMPAIGN]).await;
    api.new_subscription(v1::Subscription {
        url: "http://127.0.0.1:9/".into(),
        event_types: vec!["points.*".into()],
        retry_delays_ms: vec![3_600_000],
        ..Default::default()
    })
    .await;
    let lines: [&[(&str, u64)]; 4] =
        [&[("article", 1)], &[("coffee_small", 9), ("kit", 2)], &[("can_mango", 3)], &[("coffee_large", 2)]];
    for n in 0..40 {
        let phone = if n % 3 == 0 { "40720005124" } else { PHONE };
        api.record(consumption(&format!("a-{n}"), phone, lines[n % lines.len()])).await.expect("accepted");
    }
    back_up().await;
    api.members().erase_member(v1::EraseMemberRequest { member_id: erased.clone() }).await.expect("it is erased");
    for n in 40..60 {
        api.record(consumption(&format!("a-{n}"), PHONE, lines[n % lines.len()])).await.expect("accepted");
    }
    let members = [world.member_id.clone(), other, erased];
    let request = v1::PauseSubscriptionRequest { subscription_id: subscription(api).await, ..Default::default() };
    api.subscriptions().pause_subscription(request).await.expect("nothing is told any more");
    assert!(world.server.stop().await.success());
    world.server.restart().await;
    let expected = known(api, &world.advertiser_id, &members, admin.head().await).await;
    back_up().await;
    assert!(world.server.stop().await.success());
    fs::remove_file(backup.join("LOCK")).expect("removed");
    fs::write(into.join("expected.json"), format!("{expected:#}\n")).expect("written");
    let data = world.server.data_dir();
    let archive = into.join("data.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--exclude=attempts", "--exclude=LOCK", "-czf"]).arg(archive);
    let packed = tar.arg("data").current_dir(data.parent().expect("it is in a directory")).status();
    assert!(packed.expect("there is a tar").success());
}

async fn subscription(api: &Api) -> String {
    let listed = api.subscriptions().list_subscriptions(v1::ListSubscriptionsRequest::default()).await;
    listed.expect("listed").into_inner().subscriptions[0].subscription_id.clone()
}
