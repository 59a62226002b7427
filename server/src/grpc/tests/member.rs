//! Imports and merges.

use super::*;

fn request(email: &str, request_id: &str) -> v1::RegisterMemberRequest {
    v1::RegisterMemberRequest {
        identifiers: vec![v1::Identifier { key: "email".into(), value: email.into() }],
        join_campaign_ids: vec!["velo-club".into()],
        request_id: request_id.into(),
        suppress_events: true,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_imported_in_silence() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    let mut members = MemberServiceClient::new(caller.clone());
    let requests = vec![request("a@example.com", "a"), request("user@example.com", "b"), request("no address", "c")];
    let batch = v1::BatchRegisterMembersRequest { requests };
    let results = members.batch_register_members(batch.clone()).await.expect("answered").into_inner().results;
    use v1::register_member_result::Outcome;
    let shown = |results: &[v1::RegisterMemberResult]| -> Vec<String> {
        let one = |result: &v1::RegisterMemberResult| match result.outcome.as_ref().expect("told") {
            Outcome::MemberId(id) => id.clone(),
            Outcome::Error(error) => error.get_details_error_info().expect("every error has one").reason,
        };
        results.iter().map(one).collect()
    };
    let shown_first = shown(&results);
    assert_eq!(shown_first[1..], ["IDENTIFIER_TAKEN", "INVALID_IDENTIFIER"]);
    let again = members.batch_register_members(batch).await.expect("answered").into_inner().results;
    assert_eq!(shown(&again), shown_first, "a repeat is answered as the first was");
    let got = members.get_member(v1::GetMemberRequest { member_id: shown_first[0].clone() }).await.expect("there");
    assert_eq!(got.into_inner().member.expect("answered").cards.len(), 1);
    let filter = Some(v1::EventFilter { event_types: vec!["member.*".into()], ..Default::default() });
    let read = v1::ReadEventsRequest { filter, ..Default::default() };
    let events = EventServiceClient::new(caller.clone()).read_events(read).await.expect("read").into_inner().events;
    assert!(!events.is_empty() && events.iter().all(|event| event.member_id != shown_first[0]), "{events:?}");
    for count in [0, 1_001] {
        let requests = vec![request("x@example.com", ""); count];
        let refused = members.batch_register_members(v1::BatchRegisterMembersRequest { requests }).await;
        let expected = format!("InvalidArgument INVALID_FIELD: requests \"{count}\" must be from 1 to 1000");
        assert_eq!(told(&refused.expect_err("refused")), expected);
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_become_one() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let from = set_up(&caller).await.member_id;
    let into = register(&caller, "b@example.com").await;
    reviews(&caller, "I1", 2.0).await;
    let mut members = MemberServiceClient::new(caller.clone());
    let mut ledger = LedgerServiceClient::new(caller.clone());
    let merge = |member_id: &str, from: &str| v1::MergeMembersRequest {
        member_id: member_id.into(),
        from_member_id: from.into(),
    };
    let hold = v1::PlaceHoldRequest {
        member_id: from.clone(),
        hold_id: "h-1".into(),
        currency: points(),
        amount: 5,
        expires_at: Some(in_an_hour()),
        reason: String::new(),
    };
    ledger.place_hold(hold).await.expect("placed");
    let nobody = "00000000-0000-0000-0000-000000000009";
    all_refused(
        &[(&from, "FROM"), (&into, "INTO")],
        [
            (
                outcome(members.merge_members(merge(&into, &from)).await),
                "FailedPrecondition MEMBER_BUSY: member FROM has the hold h-1: finish it before merging",
            ),
            (
                outcome(members.merge_members(merge(&into, &into)).await),
                "InvalidArgument INVALID_FIELD: from_member_id \"INTO\" is the member itself",
            ),
            (
                outcome(members.merge_members(merge(&into, nobody)).await),
                "NotFound MEMBER_NOT_FOUND: member 00000000-0000-0000-0000-000000000009 not found",
            ),
        ],
    );
    let void = v1::VoidHoldRequest { member_id: from.clone(), hold_id: "h-1".into(), ..Default::default() };
    ledger.void_hold(void).await.expect("voided");
    let merged = members.merge_members(merge(&into, &from)).await.expect("merged").into_inner().member;
    let merged = merged.expect("answered");
    assert_eq!((merged.coins, merged.cards[0].points, merged.identifiers.len()), (6, 300, 2));
    members.merge_members(merge(&into, &from)).await.expect("is so already");
    let gone = members.get_member(v1::GetMemberRequest { member_id: from.clone() }).await.expect("there");
    let gone = gone.into_inner().member.expect("answered");
    assert_eq!((gone.merged_into.as_str(), gone.coins, gone.identifiers.len()), (into.as_str(), 0, 0));
    let block = v1::BlockMemberRequest { member_id: from.clone(), reason: "x".into() };
    all_refused(
        &[(&from, "FROM"), (&into, "INTO")],
        [(
            outcome(members.block_member(block).await),
            "FailedPrecondition MEMBER_MERGED: member FROM was merged into INTO",
        )],
    );
    // Whoever reports with the identifier reaches the one that stays.
    assert_eq!(reviews(&caller, "I2", 1.0).await.member_id, into);
    running.end().await;
}
