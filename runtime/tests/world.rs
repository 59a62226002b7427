//! What a command needs beside the member that it names: other members, items, entries; and what is told to nobody.

mod support;

use std::sync::Arc;

use punchline_delivery::scripted::ScriptedCourier;
use punchline_engine::command::{Action, Command};
use punchline_engine::decide::Decision;
use punchline_engine::event::EventType;
use punchline_engine::id::Sequence;
use punchline_engine::loyalty::coupon::{BookKind, CouponBook};
use punchline_engine::loyalty::item::ItemKey;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::Member;
use punchline_engine::loyalty::reward::{Cost, HOLD_MS_DEFAULT, Offered, RedemptionState, Reward};
use punchline_engine::rejection::Rejection;
use punchline_runtime::node::Node;
use punchline_storage::memory::MemoryDisk;
use punchline_storage::views::{ItemList, Views};
use support::*;

async fn read<T: Send + 'static>(node: &Node, read: impl FnOnce(&mut Views) -> T + Send + 'static) -> T {
    node.submitter().read(read).await.expect("reads are served")
}

async fn member(node: &Node, n: u128) -> Member {
    let read_member = move |views: &mut Views| views.member(TENANT, member_id(n)).expect("readable").cloned();
    read(node, read_member).await.expect("registered")
}

fn points() -> Currency {
    Currency::Points("club".parse().expect("a slug"))
}

fn book() -> CouponBook {
    CouponBook {
        coupon_book_id: "book".parse().expect("a slug"),
        campaign_id: Some("club".parse().expect("a slug")),
        name: "Book".into(),
        kind: BookKind::Listed,
        external_id: String::new(),
        description: String::new(),
        picture_url: String::new(),
        discount_type: String::new(),
        discount_amount: 0,
        offered: Offered::default(),
        expire_after_days: 0,
        uses_max: 1,
        version: 1,
    }
}

fn reward() -> Reward {
    Reward {
        reward_id: "mug".parse().expect("a slug"),
        campaign_id: "club".parse().expect("a slug"),
        reward_name: "Mug".into(),
        description: String::new(),
        picture_url: String::new(),
        reward_link: String::new(),
        reward_value: String::new(),
        cost: Cost::Points(30),
        stock: Some(2),
        per_member_max: None,
        coupon_book_id: Some("book".parse().expect("a slug")),
        offered: Offered::default(),
        hold_ms: HOLD_MS_DEFAULT,
        cool_down_ms: 0,
        active: true,
        version: 1,
    }
}

#[tokio::test]
async fn commands_reach_other_members_items_and_entries() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let mut node = start(&disk, &courier);
    set_up(&node).await;
    for n in 1..=2 {
        accepted(&node, register(n)).await;
    }
    accepted(&node, consume("c0", 2, "coffee", 1)).await;
    accepted(&node, consume("c1", 1, "coffee", 10)).await;
    let (member_id_1, to_member_id) = (member_id(1), member_id(2));
    let reason = || String::from("a gift");
    let transfer =
        Action::Transfer { member_id: member_id_1, to_member_id, currency: points(), amount: 40, reason: reason() };
    let sent = accepted(&node, transfer).await;
    // The other one's entry stands in the first one's record, and is the other one's all the same.
    let entries = read(&node, move |views| views.entries(TENANT, to_member_id, None, 10).expect("readable")).await;
    assert!(entries.len() == 2 && entries[0] > sent && entries[1] < sent, "{entries:?}");
    assert_eq!((balances(&node, 1).await.0, balances(&node, 2).await.0), (60, 50));

    let codes = vec!["V-1".to_owned(), "V-2".to_owned()];
    accepted(&node, Action::CreateCouponBook { coupon_book: book(), codes }).await;
    accepted(&node, Action::CreateReward { reward: reward() }).await;
    let redemption = |id: &str| Action::StartRedemption {
        member_id: member_id_1,
        redemption_id: id.into(),
        reward_id: reward().reward_id,
    };
    accepted(&node, redemption("r1")).await;
    accepted(&node, redemption("r2")).await;
    assert_eq!(member(&node, 1).await.cards[0].points.available(), 0);
    for after_restart in [false, true] {
        if after_restart {
            node.close().await;
            node = start(&disk.after_kill(), &courier);
        }
        let id = if after_restart { "r2" } else { "r1" };
        let complete = Action::CompleteRedemption { redemption_id: id.into(), voucher_code: None };
        accepted(&node, complete).await;
    }
    let (redeemed, given) = read(&node, |views| {
        let given = views.item(TENANT, &ItemKey::Coupon(book().coupon_book_id, "V-1".into())).expect("readable");
        (views.items(TENANT, &ItemList::Redemptions, None, 10).expect("readable"), given)
    })
    .await;
    let redeemed: Vec<_> = redeemed.iter().filter_map(|item| item.redemption()).collect();
    let codes: Vec<_> = redeemed.iter().map(|r| (r.redemption_id.as_str(), r.voucher_code.as_str(), r.state)).collect();
    assert_eq!(codes, [("r1", "V-1", RedemptionState::Completed), ("r2", "V-2", RedemptionState::Completed)]);
    assert_eq!(given.and_then(|item| item.member()), Some(member_id_1));
    let redemption =
        Action::StartRedemption { member_id: to_member_id, redemption_id: "r3".into(), reward_id: reward().reward_id };
    let out = submit(&node, redemption).await;
    assert!(out.is_err(), "the stock is counted: {out:?}");

    // An entry that only the journal has.
    let entries = read(&node, move |views| views.entries(TENANT, to_member_id, None, 10).expect("readable")).await;
    let reverse = Action::ReverseEntry { member_id: to_member_id, entry: entries[1], reason: reason() };
    accepted(&node, reverse).await;
    assert_eq!(balances(&node, 2).await.0, 40);
    let of_another = Action::ReverseEntry { member_id: member_id_1, entry: Sequence(1), reason: reason() };
    assert!(submit(&node, of_another).await.is_err(), "the first event is no entry of this member's");

    accepted(&node, Action::MergeMembers { member_id: to_member_id, from_member_id: member_id_1 }).await;
    // Whoever comes with the merged one's identifier is the other one now.
    accepted(&node, consume("c2", 1, "coffee", 1)).await;
    assert_eq!(member(&node, 2).await.cards[0].points.balance, 50);
    assert_eq!(member(&node, 1).await.merged_into, Some(to_member_id));
    let disk = disk.after_kill();
    node.close().await;
    let node = start(&disk, &courier);
    assert_eq!(node.verify().expect("readable").difference, None);
    node.close().await;
}

#[tokio::test]
async fn a_simulation_leaves_no_trace() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    let simulate = async |id: &str, n| {
        let command = Command { tenant: TENANT, request_id: None, action: consume(id, n, "coffee", 3) };
        node.submitter().simulate(command).await.expect("served")
    };
    let head = node.feed().head();
    let Ok(Decision::Events(events)) = simulate("c1", 1).await else { panic!("it would be taken in") };
    assert!(events.iter().any(|event| event.event_type() == EventType::PointsCredited));
    assert!(matches!(simulate("c1", 2).await, Err(Rejection::AccountNotFound)));
    assert_eq!((node.feed().head(), balances(&node, 1).await.0), (head, 0));
    let first = accepted(&node, consume("c1", 1, "coffee", 3)).await;
    assert_eq!(first, head.next());
    let stored = node.feed().record_at(first).expect("readable").expect("there");
    assert_eq!(stored.record.events, events, "what was foreseen came to be");
    assert!(matches!(simulate("c1", 1).await, Err(Rejection::ConsumptionExists { .. })));
    node.close().await;
}

#[tokio::test]
async fn what_is_imported_quietly_is_told_to_nobody() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, subscribe(&node, 9, HOOK, &["member.*"], &[])).await;
    let told = node.feed().told();
    let Action::RegisterMember { member_id, identifiers, profile, registration_source, join, .. } = register(1) else {
        panic!("another action")
    };
    let quiet = true;
    let import = Action::RegisterMember { member_id, identifiers, profile, registration_source, join, quiet };
    accepted(&node, import).await;
    assert_eq!(node.feed().told(), told);
    accepted(&node, register(2)).await;
    let received = until("the other's", || (courier.received_count() >= 2).then(|| courier.received())).await;
    assert!(received.iter().all(|r| !String::from_utf8_lossy(&r.body).contains(&member_id.to_string())));
    node.close().await;
}
