//! Erasure: what is known about a person cannot be read anywhere, before it by who has the files alone, after
//! it by anybody; and all the rest is as it was.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::scripted::{ScriptedCourier, Step};
use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::RowState;
use punchline_engine::event::{Event, MemberCreated, MemberJoinedCampaign, Record};
use punchline_engine::id::{KeySlot, MemberId, Sequence};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::{Identifier, Member, Profile};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_runtime::committer::{Outcome, Refusal};
use punchline_runtime::node::{Node, NodeOptions, OpenError};
use punchline_runtime::verify::verify;
use punchline_storage::attempts::{AttemptLimits, Scan};
use punchline_storage::block::BlockBuilder;
use punchline_storage::codec;
use punchline_storage::journal::Journal;
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::{Faults, MemoryDisk};
use punchline_storage::rows::Rows;
use punchline_storage::views::Views;
use support::*;

const MASTER_KEY: [u8; 32] = [7; 32];
/// What nobody may find; the last is in what a subscriber answered.
const WORDS: [&str; 4] = ["m1@example.com", "40720005123", "Anamaria", "no room for"];

fn open(path: &Path, courier: &Arc<ScriptedCourier>) -> Result<Node, OpenError> {
    let delivery_log = AttemptLimits { bytes_max: 1 << 20, keep_ms: 3_600_000 };
    Node::open(path.to_owned(), &MASTER_KEY, NodeOptions { delivery_log, ..options(courier) })
}

/// Runs it to its end, and that of every task it started: those have the data directory open.
fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

fn profile() -> Profile {
    Profile { first_name: "Anamaria".into(), ..Profile::default() }
}

fn register_person() -> Action {
    let phone = Identifier::parse("identifiers[1]", "phoneNumber", "40720005123").unwrap();
    let Action::RegisterMember { member_id, registration_source, join, .. } = register(1) else { unreachable!() };
    let (identifiers, profile) = (vec![email(1), phone], profile());
    Action::RegisterMember { member_id, identifiers, profile, registration_source, join, quiet: false }
}

fn update_person(last_name: &str) -> Action {
    let profile = Profile { last_name: last_name.into(), ..profile() };
    Action::UpdateMember { member_id: member_id(1), identifiers: None, profile: Some(profile), etag: None }
}

fn erase(n: u128) -> Action {
    Action::EraseMember { member_id: member_id(n) }
}

async fn member(node: &Node, id: MemberId) -> Member {
    let read = move |views: &mut Views| views.member(TENANT, id).unwrap().unwrap().clone();
    node.submitter().read(read).await.unwrap()
}

/// Everything that a reader can get at: the member, its events, what a subscriber answered.
async fn all_read(node: &Node) -> String {
    let mut all = format!("{:?}", member(node, member_id(1)).await);
    let mut at = Sequence(1);
    while let Some(stored) = node.feed().record_at(at).unwrap() {
        all += &format!("{:?}", stored.record.events);
        at = stored.last().next();
    }
    let scan = Scan {
        subscription_id: subscription_id(9),
        sequence: None,
        before: None,
        attempts_max: usize::MAX,
        bytes_max: u64::MAX,
    };
    let logged = node.delivery_log().scan(&scan, |_| true).attempts;
    assert!(!logged.is_empty());
    let rows = move |views: &mut Views| views.delivery_rows(subscription_id(9), Sequence(0), 100).unwrap();
    let rows = node.submitter().read(rows).await.unwrap();
    let remembered = rows.into_iter().flat_map(|row| row.log).map(|log| (log.key_slot, log.response));
    for (slot, response) in logged.iter().map(|one| (one.key_slot, one.response.to_vec())).chain(remembered) {
        all += &String::from_utf8(node.member_keys().open_response(slot, &response)).unwrap();
    }
    all
}

/// How many bytes the files in `path` have, none of which says one of the words.
fn bytes_without_words(path: &Path) -> usize {
    let mut bytes = 0;
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes += bytes_without_words(&path);
            continue;
        }
        let content = fs::read(&path).unwrap();
        for word in WORDS {
            let found = content.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{} says {word}", path.display());
        }
        bytes += content.len();
    }
    bytes
}

/// Member 1, who has points and whose webhooks came to a dead letter and deliveries.
async fn some_person(node: &Node, courier: &ScriptedCourier) {
    set_up(node).await;
    accepted(node, subscribe(node, 9, HOOK, &["member.*"], &[])).await;
    courier.next(HOOK, [Step::Body(500, "no room for Anamaria".into())]);
    courier.always(HOOK, Step::Body(200, "welcome, Anamaria".into()));
    accepted(node, register_person()).await;
    accepted(node, update_person("Popescu")).await;
    accepted(node, consume("c1", 1, "coffee", 3)).await;
    until("three webhooks", || (courier.received_count() >= 3).then_some(())).await;
    loop {
        let read = |views: &mut Views| views.delivery_rows(subscription_id(9), Sequence(0), 10).unwrap();
        if node.submitter().read(read).await.unwrap().iter().any(|row| row.state == RowState::Dead) {
            return;
        }
    }
}

async fn check_erased(node: &Node, words: &[&str], what: &str) {
    let read = all_read(node).await;
    words.iter().for_each(|word| assert!(!read.contains(word), "{what}: {word} in {read}"));
    let erased = member(node, member_id(1)).await;
    assert!(erased.erased_at.is_some() && node.member_keys().is_destroyed(erased.key_slot).unwrap(), "{what}");
    assert_eq!(balances(node, 1).await, (30, 0, 3, 0), "{what}");
    assert_eq!(node.verify().unwrap().difference, None, "{what}");
}

#[test]
fn a_person_is_nowhere_in_plain_text_and_after_the_erasure_nowhere_at_all() {
    let (dir, courier) = (tempfile::tempdir().unwrap(), Arc::new(ScriptedCourier::new()));
    run(async {
        let node = open(dir.path(), &courier).unwrap();
        some_person(&node, &courier).await;
        node.close().await;
    });
    assert!(bytes_without_words(dir.path()) > 10_000);
    run(async {
        let node = open(dir.path(), &courier).unwrap();
        let read = all_read(&node).await;
        WORDS.iter().for_each(|word| assert!(read.contains(word), "{word} in {read}"));
        accepted(&node, update_person("Ionescu")).await;
        let again = |n| Action::RegisterMember {
            member_id: member_id(n),
            identifiers: vec![email(1)],
            profile: Profile::default(),
            registration_source: String::new(),
            join: Vec::new(),
            quiet: false,
        };
        let taken = submit(&node, again(2)).await;
        assert!(matches!(taken, Err(Refusal::Rejected(Rejection::IdentifierTaken { .. }))), "{taken:?}");
        courier.always(HOOK, Step::Status(200));
        let erased = accepted(&node, erase(1)).await;
        check_erased(&node, &WORDS, "at once").await;
        assert!(matches!(submit(&node, erase(1)).await, Ok(Outcome::Already(at)) if at == erased));
        let adjust = Action::AdjustBalance {
            member_id: member_id(1),
            currency: Currency::Coins,
            amount: 1,
            reason: "late".into(),
        };
        let (id, reason) = (member_id(1), String::new());
        for refused in [update_person("x"), adjust, Action::BlockMember { member_id: id, reason }] {
            let answer = submit(&node, refused).await;
            assert!(matches!(answer, Err(Refusal::Rejected(Rejection::MemberErased(_)))), "{answer:?}");
        }
        let nobody = submit(&node, consume("c2", 1, "coffee", 1)).await;
        assert!(matches!(nobody, Err(Refusal::Rejected(Rejection::AccountNotFound))), "{nobody:?}");
        until("the last webhook", || {
            let last = courier.received().pop()?;
            last.body.starts_with(br#"{"type":"member.erased""#).then_some(())
        })
        .await;
        accepted(&node, again(3)).await;
        check_erased(&node, &WORDS[1..], "with the address in other hands").await;
        node.close().await;
    });
    fs::remove_dir_all(dir.path().join("views")).unwrap();
    run(async {
        let node = open(dir.path(), &courier).unwrap();
        check_erased(&node, &WORDS[1..], "with rebuilt views").await;
        let owner = |views: &mut Views| views.owner(TENANT, &email(1)).unwrap();
        assert_eq!(node.submitter().read(owner).await.unwrap(), Some(member_id(3)));
        node.close().await;
    });
    run(async {
        let refused = Node::open(dir.path().to_owned(), &[8; 32], options(&courier)).map(drop).unwrap_err();
        assert!(refused.to_string().contains("master key"), "{refused}");
    });
    fs::remove_file(dir.path().join("keys/members.keys")).unwrap();
    run(async {
        let refused = open(dir.path(), &courier).map(drop).unwrap_err();
        assert!(refused.to_string().contains("members.keys"), "{refused}");
    });
}

#[tokio::test]
async fn an_erasure_among_others_is_answered_once_its_key_is_destroyed() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register_person()).await;
    let command = |action| Command { tenant: TENANT, request_id: None, action };
    accepted(&node, consume("c1", 1, "coffee", 3)).await;
    let commands = [register(2), erase(1), register(3)].map(command).to_vec();
    let answers = node.submitter().submit_all(commands, true).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let erased = member(&node, member_id(1)).await;
    assert!(erased.erased_at.is_some() && node.member_keys().is_destroyed(erased.key_slot).unwrap());
    node.close().await;
}

#[tokio::test]
async fn what_waits_for_delivery_goes_out_without_personal_fields() {
    let time = StillTime::hold();
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, subscribe(&node, 9, HOOK, &["member.*"], &[60_000, 60_000])).await;
    courier.next(HOOK, [Step::Status(503)]);
    accepted(&node, register_person()).await;
    accepted(&node, update_person("Popescu")).await;
    until("the first attempt", || (courier.received_count() == 1).then_some(())).await;
    accepted(&node, erase(1)).await;
    let received = || courier.received();
    let all = || (received().len() >= 5).then(received);
    let received = time.pass_until("the others", Duration::from_secs(10), Duration::from_secs(600), all).await;
    let said = |i: usize| String::from_utf8(received[i].body.to_vec()).unwrap();
    assert!(said(0).contains("Anamaria"));
    for i in 1..received.len() {
        WORDS.iter().for_each(|word| assert!(!said(i).contains(word), "{}", said(i)));
    }
    assert!(said(1).contains("member.created") && said(1).contains(&member_id(1).to_string()), "{}", said(1));
    node.close().await;
}

/// Appends a record as the first versions wrote it: with its personal fields in plain text.
fn append_unsealed(disk: &MemoryDisk, member: MemberId, events: Vec<Event>) {
    let (journal, report) = disk.journal(0).unwrap();
    let (time, key_slot, member) = (UnixMillis(0), KeySlot::NONE, Some(member));
    let count = events.len() as u32;
    let record = Record { tenant: TENANT, time, member, key_slot, key: None, quiet: false, events };
    let mut block = BlockBuilder::new();
    block.push(&codec::encode_record(&record, &disk.member_keys()).unwrap(), count).unwrap();
    journal.append(report.head + 1, &[block.finish(report.head + 1, report.head, journal.head_hash())]).unwrap();
}

#[tokio::test]
async fn a_member_of_the_first_versions_gets_a_key_with_its_next_change() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    node.close().await;
    for n in [1, 2] {
        let (member_id, identifiers, campaign_id) = (member_id(n), vec![email(n)], "club".parse().unwrap());
        let registration_source = String::new();
        let created = MemberCreated { member_id, identifiers, profile: profile(), registration_source };
        let joined = MemberJoinedCampaign { member_id, campaign_id };
        append_unsealed(&disk, member_id, vec![created.into(), joined.into()]);
    }
    let disk = disk.after_kill();
    let node = start(&disk, &courier);
    assert_eq!(member(&node, member_id(1)).await.key_slot, KeySlot::NONE);
    accepted(&node, consume("c1", 1, "coffee", 3)).await;
    let changed = member(&node, member_id(1)).await;
    assert_eq!((changed.key_slot, changed.profile), (KeySlot(1), profile()));
    accepted(&node, register(3)).await;
    accepted(&node, erase(2)).await;
    accepted(&node, erase(1)).await;
    let slots = [1, 2, 3].map(|n| node.member_keys().is_destroyed(KeySlot(n)).unwrap());
    assert_eq!(slots, [true, false, true], "2 is the third member's");
    assert_eq!(member(&node, member_id(1)).await.profile, Profile::default());
    assert_eq!(balances(&node, 1).await, (30, 0, 3, 0));
    assert_eq!(node.verify().unwrap().difference, None);
    for n in [1, 2] {
        let owner = move |views: &mut Views| views.owner(TENANT, &email(n)).unwrap();
        assert_eq!(node.submitter().read(owner).await.unwrap(), None);
    }
    node.close().await;
}

/// Runs a story with an erasure in it until a sync fails; gives whether that was acknowledged.
async fn run_story(disk: &MemoryDisk, courier: &Arc<ScriptedCourier>) -> bool {
    let Ok(node) = try_start(disk, courier) else { return false };
    let mut erased = false;
    let story = [
        Action::CreateAdvertiser { advertiser_id: Some(TENANT.advertiser), name: "Acme".into() },
        Action::CreateCampaign { campaign: campaign() },
        register_person(),
        register(2),
        consume("c1", 1, "coffee", 3),
        update_person("Popescu"),
        erase(1),
        consume("c2", 2, "coffee", 1),
        Action::UpdateMember {
            member_id: member_id(2),
            identifiers: Some(vec![email(2), email(1)]),
            profile: None,
            etag: None,
        },
        consume("c3", 1, "coffee", 1),
    ];
    for action in story {
        let erases = matches!(action, Action::EraseMember { .. });
        if submit(&node, action).await.is_err() {
            break;
        }
        erased |= erases;
    }
    node.close().await;
    erased
}

#[tokio::test]
async fn a_power_cut_at_any_sync_leaves_the_erasure_whole_or_undone() {
    let courier = Arc::new(ScriptedCourier::new());
    let whole = MemoryDisk::new();
    assert!(run_story(&whole, &courier).await);
    let (mut done, mut undone) = (0, 0);
    for cut in 1..=whole.sync_count() {
        let disk = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(cut), ..Faults::default() });
        let acknowledged = run_story(&disk, &courier).await;
        for seed in 0..3 {
            let what = format!("cut at {cut}, seed {seed}");
            let after = disk.after_power_cut(seed);
            let node = try_start(&after, &courier).unwrap_or_else(|error| panic!("{what}: {error}"));
            let read = |views: &mut Views| views.member(TENANT, member_id(1)).unwrap().cloned();
            let found = node.submitter().read(read).await.unwrap();
            let is_erased = found.as_ref().is_some_and(|member| member.erased_at.is_some());
            assert!(is_erased || !acknowledged, "{what}");
            // As soon as the views are written behind, which a verification waits for.
            assert_eq!(node.verify().unwrap().difference, None, "{what}");
            let is_destroyed = node.member_keys().is_destroyed(KeySlot(1)).unwrap();
            assert_eq!(is_destroyed, is_erased, "{what}");
            if let Some(member) = found {
                assert_eq!(member.identifiers.is_empty(), is_erased, "{what}");
            }
            if is_erased {
                done += 1
            } else {
                undone += 1
            }
            node.close().await;
            check_events(&after, &node, is_erased, &what);
        }
    }
    assert!(done > 10 && undone > 10, "{done} and {undone}");
}

/// What the journal says about the person, and that a fold of it from the beginning is what is stored.
fn check_events(disk: &MemoryDisk, node: &Node, is_erased: bool, what: &str) {
    let (journal, _) = disk.journal(0).unwrap();
    let keys: Arc<MemberKeys> = Arc::new(disk.member_keys());
    let (rows, fresh): (Arc<dyn Rows>, Arc<dyn Rows>) = (Arc::new(disk.rows()), Arc::new(MemoryDisk::new().rows()));
    assert_eq!(verify(&journal, &rows, &keys, &fresh, &mut |_, _| {}).unwrap().difference, None, "{what}");
    let mut at = Sequence(1);
    while let Some(stored) = node.feed().record_at(at).unwrap() {
        for event in &stored.record.events {
            if let Event::MemberCreated(created) = event
                && created.member_id == member_id(1)
            {
                assert_eq!(created.identifiers.is_empty(), is_erased, "{what}");
            }
        }
        at = stored.last().next();
    }
}
