//! The journal's beginning removed, behind a backup: what stays used up, what is still told, what comes back.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::api::{Api, Refused, consumption};
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::receiver::Script;
use punchline_tests::server::Server;
use punchline_tests::wait::until;
use punchline_tests::world::{PHONE, World};
use tempfile::TempDir;

const FORGETFUL: &str = "40799999999";

async fn back_up(api: &Api) -> v1::Backup {
    let made = api.admin().create_backup(v1::CreateBackupRequest {}).await.expect("it is backed up");
    made.into_inner().backup.expect("a backup")
}

async fn trim(api: &Api, validate_only: bool) -> Result<v1::TrimJournalResponse, Refused> {
    let request = v1::TrimJournalRequest { validate_only };
    let trimmed = api.admin().trim_journal(request).await;
    trimmed.map(tonic::Response::into_inner).map_err(|status| Refused::of(&status))
}

/// Three hundred articles, from `from` on, in batches.
async fn articles(api: &Api, from: usize) {
    for batch in 0..3 {
        let one = |n| consumption(&format!("a-{}", from + 100 * batch + n), PHONE, &[("article", 1)]);
        let request = v1::BatchRecordConsumptionsRequest { consumptions: (0..100).map(one).collect() };
        let results = api.ingest().batch_record_consumptions(request).await.expect("taken in").into_inner().results;
        assert_eq!(results.len(), 100);
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A repeat of what was trimmed is refused, as is one of what is kept.
async fn ids_stay_used_up(api: &Api, trimmed: (&str, u64), kept: &str) {
    let (id, sequence) = trimmed;
    let refused = api.record(consumption(id, PHONE, &[("article", 1)])).await.expect_err("its id stays used up");
    assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::AlreadyExists, "CONSUMPTION_EXISTS"));
    assert_eq!(refused.receipt.map(|receipt| receipt.sequence), Some(sequence), "with the position at least");
    let refused = api.record(consumption(kept, PHONE, &[("article", 1)])).await.expect_err("so does this one's");
    assert_eq!(refused.reason, "CONSUMPTION_EXISTS");
    assert!(!refused.receipt.expect("the first receipt").member_id.is_empty(), "with all that it said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_trimmed_stays_used_up_and_everything_else_goes_on() {
    let dir = TempDir::new().expect("a directory");
    let backup = dir.path().join("backup");
    let setup = Server::setup()
        .with("backup.directory", backup.display())
        .with("retention.journal_keep_days", 0)
        .with("storage.checkpoint_interval_ms", 250);
    let mut world = World::start(setup).await;
    let api = world.api.clone();
    let refused = trim(&api, false).await.expect_err("there is no backup");
    assert_eq!(refused.reason, "BACKUP_FAILED", "{refused:?}");

    let forgetful = api.new_member(FORGETFUL, &[CAMPAIGN]).await;
    let first = world.article("first").await.sequence;
    world.receiver.script("/down", Script::Status(500));
    let steady = world.subscribe("/steady", &["points.*"], &[]).await;
    let (down, secret) = api
        .new_subscription(v1::Subscription {
            url: world.receiver.url("/down"),
            event_types: vec!["points.*".into()],
            no_retries: true,
            ..Default::default()
        })
        .await;
    world.receiver.secret("/down", &secret);
    articles(&api, 0).await;
    world.delivered("/steady", 300).await;
    let middle = world.server.operator().head().await;
    back_up(&api).await;

    // Dead letters can be redriven, so they hold it up.
    let held = until("a dead letter holds it up", Duration::from_secs(60), async || {
        let held = trim(&api, true).await.expect("it can be told").held_by;
        if held[0].what == "dead letter" { Ok(held) } else { Err(held) }
    })
    .await;
    assert!(held[0].name.starts_with(&down) && held[0].from_sequence > first, "{held:?}");
    let request = v1::DeleteSubscriptionRequest { subscription_id: down };
    api.subscriptions().delete_subscription(request).await.expect("it is deleted");

    articles(&api, 300).await;
    world.delivered("/steady", 600).await;
    let balances = api.balances(&world.member_id).await;
    let could = trim(&api, true).await.expect("it can be told");
    assert!(could.first_sequence == 1 && could.kept_from_sequence <= middle + 1, "the backup ends there: {could:?}");
    back_up(&api).await;
    let trimmed = until("the cursor is written down", Duration::from_secs(30), async || {
        match trim(&api, false).await.expect("it is trimmed") {
            trimmed if trimmed.kept_from_sequence > middle => Ok(trimmed),
            trimmed => Err(trimmed),
        }
    })
    .await;
    assert!(trimmed.held_by.iter().any(|held| held.what == "subscription" && held.name == steady), "{trimmed:?}");

    let check = async |server: &Server, at_least: u64| {
        let api = server.operator().advertiser(&world.advertiser_id);
        ids_stay_used_up(&api, ("first", first), "a-599").await;
        assert_eq!(api.balances(&world.member_id).await, balances);
        let (events, _) = api.events_from(1, &[]).await;
        assert!(events[0].sequence >= at_least, "the journal begins later: {}", events[0].sequence);
        // By then it had points.
        let at = Some(v1::get_balances_request::At::AtSequence(first + 3));
        let request = v1::GetBalancesRequest { member_id: world.member_id.clone(), at };
        let refused = Refused::of(&api.ledger().get_balances(request).await.expect_err("nobody knows any more"));
        assert_eq!(refused.reason, "TRIMMED");
    };
    check(&world.server, trimmed.kept_from_sequence).await;
    // The member is erased after the base was made.
    let request = v1::EraseMemberRequest { member_id: forgetful.clone() };
    api.members().erase_member(request).await.expect("it is erased");

    world.server.kill();
    world.server.restart().await;
    check(&world.server, trimmed.kept_from_sequence).await;
    let verified = api.admin().verify(v1::VerifyRequest {}).await.expect("it is verified").into_inner();
    assert!(verified.ok, "{verified:?}");
    assert!(world.server.stop().await.success());
    assert!(world.server.verify().is_ok());

    // Views are folded from the base.
    fs::remove_dir_all(world.server.data_dir().join("views")).expect("removed");
    world.server.restart().await;
    check(&world.server, trimmed.kept_from_sequence).await;
    let member = api.new_member(FORGETFUL, &[CAMPAIGN]).await;
    assert_ne!(member, forgetful, "the number is free again");
    back_up(&api).await;
    assert!(world.server.stop().await.success());
    let verified = world.server.verify();
    assert!(verified.is_ok(), "{verified:?}");

    // The backup goes back to the beginning; one that begins now does not, and holds the base.
    let late = dir.path().join("late");
    let made = world.server.command().args(["backup", "--to"]).arg(&late).output().expect("it runs");
    assert!(made.status.success(), "{}", said(&made));
    for (from, begins_at) in [(&backup, 1), (&late, trimmed.kept_from_sequence)] {
        let data = dir.path().join(format!("restored-{begins_at}"));
        restore(&world.server, from, &data);
        let restored = Server::setup().with("storage.data_dir", data.display()).start().await;
        let api = restored.operator().advertiser(&world.advertiser_id);
        assert_eq!(api.balances(&world.member_id).await, balances);
        assert!(api.events_from(1, &[]).await.0[0].sequence >= begins_at);
        let refused = api.record(consumption("first", PHONE, &[("article", 1)])).await.expect_err("used up");
        assert_eq!(refused.reason, "CONSUMPTION_EXISTS");
    }

    // Without base and views nothing is guessed.
    fs::remove_dir_all(world.server.data_dir().join("views")).expect("removed");
    fs::remove_dir_all(world.server.data_dir().join("base")).expect("removed");
    let refused = world.server.run(&["serve"]);
    assert!(!refused.status.success() && said(&refused).contains("restore a backup"), "{}", said(&refused));
}

fn restore(server: &Server, from: &Path, to: &Path) {
    let mut command = server.command();
    command.args(["restore", "--from"]).arg(from).arg("--data-dir").arg(to).arg("--master-key-file");
    let restored = command.arg(server.data_dir().join("master.key")).output().expect("it runs");
    assert!(restored.status.success(), "{}", said(&restored));
}
