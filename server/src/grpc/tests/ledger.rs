//! Holds, transfers, reversals, and balances of the past.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member_id = set_up(&caller).await.member_id;
    reviews(&caller, "I1", 1.0).await;
    let mut ledger = LedgerServiceClient::new(caller.clone());
    let place = |hold_id: &str, amount| v1::PlaceHoldRequest {
        member_id: member_id.clone(),
        hold_id: hold_id.into(),
        currency: points(),
        amount,
        expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        reason: "a table".into(),
    };
    let in_time = |request| v1::PlaceHoldRequest { expires_at: Some(in_an_hour()), ..request };
    let first = in_time(place("h-1", 100));
    let placed = ledger.place_hold(first.clone()).await.expect("placed").into_inner().hold.expect("answered");
    assert_eq!((placed.hold_id.as_str(), placed.amount), ("h-1", 100));
    let again = ledger.place_hold(first.clone()).await.expect("the same").into_inner().hold;
    assert_eq!(again.as_ref(), Some(&placed));
    let listed = ledger.list_holds(v1::ListHoldsRequest { member_id: member_id.clone() }).await.expect("listed");
    assert_eq!(listed.into_inner().holds, [placed]);
    let balances = || v1::GetBalancesRequest { member_id: member_id.clone(), at: None };
    let accounts = ledger.get_balances(balances()).await.expect("answered").into_inner().accounts;
    assert_eq!(accounts.iter().map(|a| (a.available, a.held)).collect::<Vec<_>>(), [(50, 100), (3, 0)]);
    assert_eq!(accounts[0].lots, [v1::Lot { amount: 50, expires_at: None }]);

    let post = |hold_id: &str, amount, request_id: &str| v1::PostHoldRequest {
        member_id: member_id.clone(),
        hold_id: hold_id.into(),
        amount,
        reason: String::new(),
        request_id: request_id.into(),
    };
    let void = |hold_id: &str| v1::VoidHoldRequest {
        member_id: member_id.clone(),
        hold_id: hold_id.into(),
        ..Default::default()
    };
    let elsewhere = v1::Currency { kind: Some(v1::currency::Kind::PointsOfCampaignId("other".into())) };
    let past = prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 };
    all_refused(
        &[(&member_id, "M")],
        [
            (
                outcome(ledger.place_hold(in_time(place("h-1", 99))).await),
                "AlreadyExists ID_REUSED: hold_id \"h-1\" was used before, with other content",
            ),
            (
                outcome(ledger.place_hold(in_time(place("h-2", 51))).await),
                "FailedPrecondition INSUFFICIENT_BALANCE: balance of points of campaign velo-club is 50, 51 are needed",
            ),
            (
                outcome(ledger.place_hold(in_time(place("h-2", 0))).await),
                "InvalidArgument INVALID_FIELD: amount \"0\" must be more than 0",
            ),
            (
                outcome(ledger.place_hold(in_time(place(" ", 1))).await),
                "InvalidArgument INVALID_FIELD: hold_id \" \" must be 1 to 128 bytes without control characters",
            ),
            (
                outcome(ledger.place_hold(in_time(place("redemption/r", 1))).await),
                "InvalidArgument INVALID_FIELD: hold_id \"redemption/r\" must not begin with redemption/",
            ),
            (
                outcome(ledger.place_hold(v1::PlaceHoldRequest { expires_at: Some(past), ..place("h-2", 1) }).await),
                "InvalidArgument INVALID_FIELD: expires_at \"2001-09-09T01:46:40.000Z\" must be in the future, at most \
                 366 days",
            ),
            (
                outcome(ledger.place_hold(in_time(v1::PlaceHoldRequest { currency: None, ..place("h-2", 1) })).await),
                "InvalidArgument INVALID_FIELD: currency \"\" must be points_of_campaign_id or coins",
            ),
            (
                outcome(
                    ledger
                        .place_hold(in_time(v1::PlaceHoldRequest { currency: Some(elsewhere), ..place("h-2", 1) }))
                        .await,
                ),
                "FailedPrecondition NOT_JOINED: member M has not joined campaign other",
            ),
            (
                outcome(ledger.post_hold(post("h-9", None, "")).await),
                "NotFound HOLD_NOT_FOUND: hold \"h-9\" not found, or finished already",
            ),
            (
                outcome(ledger.post_hold(post("h-1", Some(101), "")).await),
                "InvalidArgument INVALID_FIELD: amount \"101\" is more than the 100 held",
            ),
            (
                outcome(ledger.void_hold(void("h-9")).await),
                "NotFound HOLD_NOT_FOUND: hold \"h-9\" not found, or finished already",
            ),
        ],
    );

    let posted = ledger.post_hold(post("h-1", Some(60), "p-1")).await.expect("posted").into_inner().entry;
    let again = ledger.post_hold(post("h-1", Some(60), "p-1")).await.expect("the same").into_inner().entry;
    assert_eq!(posted, again);
    let posted = posted.expect("answered");
    assert_eq!((posted.amount, posted.new_balance.expect("told").amount), (-60, 90));
    let reused = ledger.post_hold(post("h-1", Some(61), "p-1")).await.expect_err("other content");
    assert_eq!((reused.code(), reason(&reused).as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    let explained = ledger.explain_entry(v1::ExplainEntryRequest { sequence: posted.sequence }).await;
    let explained = explained.expect("explained").into_inner();
    assert_eq!(explained.origin_event.expect("the hold").r#type, "hold.placed");
    let accounts = ledger.get_balances(balances()).await.expect("answered").into_inner().accounts;
    assert_eq!((accounts[0].available, accounts[0].held), (90, 0), "the rest is free again");

    ledger.place_hold(in_time(place("h-3", 90))).await.expect("placed");
    ledger.void_hold(void("h-3")).await.expect("voided");
    let gone = ledger.void_hold(void("h-3")).await.expect_err("finished");
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::NotFound, "HOLD_NOT_FOUND"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_and_reversals() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member_id = set_up(&caller).await.member_id;
    let other_id = register(&caller, "b@example.com").await;
    let receipt = reviews(&caller, "I1", 1.0).await;
    let mut ledger = LedgerServiceClient::new(caller.clone());
    let transfer = |to: &str, amount, reason: &str| v1::TransferBalanceRequest {
        member_id: member_id.clone(),
        to_member_id: to.into(),
        currency: points(),
        amount,
        reason: reason.into(),
        request_id: String::new(),
    };
    let first = v1::TransferBalanceRequest { request_id: "t-1".into(), ..transfer(&other_id, 40, "a present") };
    let moved = ledger.transfer_balance(first.clone()).await.expect("moved").into_inner().entries;
    let shown: Vec<_> = moved.iter().map(|entry| (entry.member_id.as_str(), entry.amount)).collect();
    assert_eq!(shown, [(member_id.as_str(), -40), (other_id.as_str(), 40)]);
    assert_eq!(ledger.transfer_balance(first).await.expect("the same").into_inner().entries, moved);

    let reverse = |sequence, reason: &str| v1::ReverseEntryRequest {
        member_id: member_id.clone(),
        sequence,
        reason: reason.into(),
    };
    let list = v1::ListEntriesRequest { member_id: member_id.clone(), ..Default::default() };
    let entries = ledger.list_entries(list).await.expect("listed").into_inner().entries;
    let coins = entries.iter().find(|entry| entry.amount == 3).expect("earned").sequence;
    let earned = entries.iter().find(|entry| entry.amount == 150).expect("earned").sequence;
    let nobody = "00000000-0000-0000-0000-000000000009";
    all_refused(
        &[(&member_id, "M"), (&format!("entry {}", moved[0].sequence), "entry T")],
        [
            (
                outcome(ledger.transfer_balance(transfer(&member_id, 1, "x")).await),
                "InvalidArgument INVALID_FIELD: to_member_id \"M\" is the member itself",
            ),
            (
                outcome(ledger.transfer_balance(transfer(nobody, 1, "x")).await),
                "NotFound MEMBER_NOT_FOUND: member 00000000-0000-0000-0000-000000000009 not found",
            ),
            (
                outcome(ledger.transfer_balance(transfer(&other_id, 1, " ")).await),
                "InvalidArgument INVALID_FIELD: reason \" \" is required",
            ),
            (
                outcome(ledger.transfer_balance(transfer(&other_id, 111, "x")).await),
                "FailedPrecondition INSUFFICIENT_BALANCE: balance of points of campaign velo-club is 110, 111 are needed",
            ),
            (
                outcome(ledger.reverse_entry(reverse(earned, "x")).await),
                "FailedPrecondition INSUFFICIENT_BALANCE: balance of points of campaign velo-club is 110, 150 are needed",
            ),
            (
                outcome(ledger.reverse_entry(reverse(moved[0].sequence, "x")).await),
                "FailedPrecondition ENTRY_NOT_REVERSIBLE: ledger entry T cannot be reversed: transfer it back instead",
            ),
            (
                outcome(ledger.reverse_entry(reverse(1, "x")).await),
                "NotFound ENTRY_NOT_FOUND: ledger entry 1 not found",
            ),
            (
                outcome(ledger.reverse_entry(reverse(coins, "")).await),
                "InvalidArgument INVALID_FIELD: reason \"\" is required",
            ),
        ],
    );
    let reversed = ledger.reverse_entry(reverse(coins, "not theirs")).await.expect("reversed").into_inner().entry;
    let again = ledger.reverse_entry(reverse(coins, "not theirs")).await.expect("the same").into_inner().entry;
    assert_eq!(reversed, again);
    let reversed = reversed.expect("answered");
    assert_eq!((reversed.amount, reversed.new_balance.expect("told").amount), (-3, 0));
    let explained = ledger.explain_entry(v1::ExplainEntryRequest { sequence: reversed.sequence }).await;
    let explained = explained.expect("explained").into_inner();
    assert_eq!(explained.origin_event.expect("what was reversed").sequence, coins);
    assert!(explained.explanation.ends_with(&format!("because entry {coins} was taken back: not theirs")));

    // As it was: before anything, after the consumption, after the transfer.
    use v1::get_balances_request::At;
    let at = |at| v1::GetBalancesRequest { member_id: member_id.clone(), at: Some(at) };
    for (sequence, expected) in
        [(0, [0, 0]), (moved[0].sequence - 1, [150, 3]), (moved[0].sequence, [110, 3]), (reversed.sequence, [110, 0])]
    {
        let then = ledger.get_balances(at(At::AtSequence(sequence))).await.expect("answered").into_inner();
        assert_eq!(then.balances.iter().map(|b| b.amount).collect::<Vec<_>>(), expected, "{sequence}");
        assert_eq!(then.as_of_sequence, sequence);
    }
    let recorded_at = receipt.recorded_at.expect("told");
    let before = prost_types::Timestamp { seconds: recorded_at.seconds - 60, ..recorded_at };
    let then = ledger.get_balances(at(At::AtTime(before))).await.expect("answered").into_inner();
    assert_eq!(then.balances.iter().map(|b| b.amount).collect::<Vec<_>>(), [0, 0]);
    let then = ledger.get_balances(at(At::AtTime(in_ms(0)))).await.expect("answered");
    assert_eq!(then.into_inner().balances.iter().map(|b| b.amount).collect::<Vec<_>>(), [110, 0]);
    for (yet_to_come, named) in [(At::AtSequence(u64::MAX), "at_sequence"), (At::AtTime(in_an_hour()), "at_time")] {
        let refused = ledger.get_balances(at(yet_to_come)).await.expect_err(named);
        assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, named));
    }
    running.end().await;
}
