//! No call reaches another advertiser's data, whatever ids it names; and none does what its key has no scope for.

use punchline_proto::v1;
use punchline_tests::api::{Api, Refused, consumption, identifier};
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::receiver::unix_seconds;
use punchline_tests::server::Server;
use punchline_tests::world::{World, populate};
use tonic::{Code, Response, Status};

/// B's own things, and how they stand.
struct Theirs {
    api: Api,
    member_id: String,
    subscription_id: String,
    entry: u64,
    campaign_id: String,
}

const THEIR_PHONE: &str = "40799999999";

async fn theirs(world: &World) -> (String, Theirs) {
    let (advertiser_id, api) = world.server.operator().new_advertiser("B").await;
    populate(&api).await;
    let member_id = api.new_member(THEIR_PHONE, &[CAMPAIGN]).await;
    let campaign_id = "only-b".to_owned();
    let campaign = v1::Campaign { campaign_id: campaign_id.clone(), name: "B".into(), ..Default::default() };
    let request = v1::CreateCampaignRequest { campaign: Some(campaign), ..Default::default() };
    api.campaigns().create_campaign(request).await.expect("a campaign without rules is one");
    let (subscription_id, secret) = api
        .new_subscription(v1::Subscription {
            url: world.receiver.url("/b"),
            event_types: vec!["points.credited".into()],
            ..Default::default()
        })
        .await;
    world.receiver.secret("/b", &secret);
    api.record(consumption("b-1", THEIR_PHONE, &[("article", 1)])).await.expect("accepted");
    world.delivered("/b", 1).await;
    let request = v1::ListEntriesRequest { member_id: member_id.clone(), ..Default::default() };
    let entries = api.ledger().list_entries(request).await.expect("the member exists").into_inner().entries;
    loyalty(&api, &member_id, &campaign_id).await;
    (advertiser_id, Theirs { api, member_id, subscription_id, entry: entries[0].sequence, campaign_id })
}

/// A segment, a reward, a coupon book, a redemption and a hold, all of B alone.
async fn loyalty(api: &Api, member_id: &str, campaign_id: &str) {
    let segment = v1::Segment { segment_id: "b".into(), condition: "true".into(), ..Default::default() };
    let request = v1::CreateSegmentRequest { segment: Some(segment), ..Default::default() };
    api.campaigns().create_segment(request).await.expect("a segment");
    let codes = v1::ListedCodes { codes: vec!["B-1".into(), "B-2".into()] };
    let request = v1::CreateCouponBookRequest {
        coupon_book: Some(v1::CouponBook { coupon_book_id: "b".into(), ..Default::default() }),
        codes: Some(v1::CouponCodes { kind: Some(v1::coupon_codes::Kind::Listed(codes)) }),
        ..Default::default()
    };
    api.rewards().create_coupon_book(request).await.expect("a coupon book");
    let reward = v1::Reward {
        reward_id: "b".into(),
        campaign_id: CAMPAIGN.into(),
        cost: Some(v1::Cost { kind: Some(v1::cost::Kind::Points(1)) }),
        ..Default::default()
    };
    let request = v1::CreateRewardRequest { reward: Some(reward), ..Default::default() };
    api.rewards().create_reward(request).await.expect("a reward");
    let member_id = member_id.to_owned();
    let request =
        v1::StartRedemptionRequest { member_id: member_id.clone(), redemption_id: "b".into(), reward_id: "b".into() };
    api.rewards().start_redemption(request).await.expect("a redemption");
    api.ledger().place_hold(hold(&member_id)).await.expect("a hold");
    let join = v1::JoinCampaignRequest { member_id, campaign_id: campaign_id.into() };
    api.members().join_campaign(join).await.expect("a card");
}

fn hold(member_id: &str) -> v1::PlaceHoldRequest {
    let soon = prost_types::Timestamp { seconds: unix_seconds() as i64 + 3_600, nanos: 0 };
    v1::PlaceHoldRequest {
        member_id: member_id.into(),
        hold_id: "b".into(),
        currency: Some(v1::Currency { kind: Some(v1::currency::Kind::PointsOfCampaignId(CAMPAIGN.into())) }),
        amount: 1,
        expires_at: Some(soon),
        reason: String::new(),
    }
}

/// What a call came to: nothing, or its refusal.
fn came_to<T>(result: Result<Response<T>, Status>) -> Option<Refused> {
    result.err().map(|status| Refused::of(&status))
}

#[tokio::test]
async fn what_is_anothers_is_not_found() {
    let world = World::start(Server::setup()).await;
    let (b, theirs) = theirs(&world).await;
    let all = [v1::Scope::Ingest, v1::Scope::Read, v1::Scope::Manage];
    let a = Api::new(&world.server.grpc_address(), None).bearer(&world.token(&world.advertiser_id, &all).await);
    // A has something to give away, so that a transfer is refused for whom it is to.
    world.article("a-0").await;
    let balances = theirs.api.balances(&theirs.member_id).await;
    let subscription = theirs.api.subscription(&theirs.subscription_id).await;
    let member = || theirs.member_id.clone();
    let subscription_id = || theirs.subscription_id.clone();
    let head = world.server.operator().head().await;

    let campaign = v1::Campaign { campaign_id: theirs.campaign_id.clone(), name: "A".into(), ..Default::default() };
    let settings =
        v1::Subscription { subscription_id: subscription_id(), url: world.receiver.url("/a"), ..Default::default() };
    let coins = Some(v1::adjust_balance_request::Currency::Coins(true));
    let adjustment = v1::AdjustBalanceRequest {
        member_id: member(),
        currency: coins,
        amount: 5,
        reason: "x".into(),
        ..Default::default()
    };
    let mask = Some(prost_types::FieldMask { paths: vec!["profile.first_name".into()] });
    let update = v1::UpdateMemberRequest { member_id: member(), update_mask: mask, ..Default::default() };
    let join = v1::JoinCampaignRequest { member_id: member(), campaign_id: CAMPAIGN.into() };
    let look_up = v1::LookupMemberRequest { identifier: Some(identifier("phoneNumber", THEIR_PHONE)) };
    let pause = v1::PauseSubscriptionRequest { subscription_id: subscription_id(), ..Default::default() };
    let rotate = v1::RotateSecretRequest { subscription_id: subscription_id(), ..Default::default() };
    let test = v1::TestSubscriptionRequest { subscription_id: subscription_id(), ..Default::default() };
    let list = v1::ListDeliveriesRequest { subscription_id: subscription_id(), ..Default::default() };
    let dead = v1::ListDeadLettersRequest { subscription_id: subscription_id(), ..Default::default() };
    let redrive = v1::RedriveDeadLettersRequest { subscription_id: subscription_id(), ..Default::default() };
    let drop =
        v1::DropDeadLettersRequest { subscription_id: subscription_id(), sequences: vec![1], reason: String::new() };
    let replay = v1::ReplayEventsRequest { subscription_id: subscription_id(), ..Default::default() };
    let jobs = v1::ListDeliveryJobsRequest { subscription_id: subscription_id() };
    let job = v1::GetDeliveryJobRequest { subscription_id: subscription_id(), job_id: subscription_id() };
    let cancel = v1::CancelDeliveryJobRequest { subscription_id: subscription_id(), job_id: subscription_id() };
    let delivery = v1::GetDeliveryRequest { subscription_id: subscription_id(), sequence: theirs.entry };
    let attempts = v1::ListAttemptsRequest { subscription_id: subscription_id(), sequence: theirs.entry };
    let retry = v1::RetryDeliveryRequest { subscription_id: subscription_id(), sequence: theirs.entry };
    let entries = v1::ListEntriesRequest { member_id: member(), ..Default::default() };
    let erase = v1::EraseMemberRequest { member_id: member() };
    let block = v1::BlockMemberRequest { member_id: member(), reason: "x".into() };
    let resume = v1::ResumeSubscriptionRequest { subscription_id: subscription_id() };
    let delete = v1::DeleteSubscriptionRequest { subscription_id: subscription_id() };
    let b_id = || "b".to_owned();
    let merge = |member_id: &str, from: &str| v1::MergeMembersRequest {
        member_id: member_id.into(),
        from_member_id: from.into(),
    };
    let post = v1::PostHoldRequest { member_id: member(), hold_id: b_id(), ..Default::default() };
    let post_own = v1::PostHoldRequest { member_id: world.member_id.clone(), ..post.clone() };
    let void = v1::VoidHoldRequest { member_id: member(), hold_id: b_id(), ..Default::default() };
    let transfer = |from: &str, to: &str| v1::TransferBalanceRequest {
        member_id: from.into(),
        to_member_id: to.into(),
        currency: hold(from).currency,
        amount: 1,
        reason: "x".into(),
        request_id: String::new(),
    };
    let reverse = |member_id: &str| v1::ReverseEntryRequest {
        member_id: member_id.into(),
        sequence: theirs.entry,
        reason: "x".into(),
    };
    let segment = v1::Segment { segment_id: b_id(), condition: "true".into(), ..Default::default() };
    let segment = v1::UpdateSegmentRequest { segment: Some(segment) };
    let standings = v1::ListLeaderboardStandingsRequest {
        campaign_id: theirs.campaign_id.clone(),
        leaderboard_id: b_id(),
        ..Default::default()
    };
    let reward = v1::Reward {
        reward_id: b_id(),
        campaign_id: CAMPAIGN.into(),
        cost: Some(v1::Cost { kind: Some(v1::cost::Kind::Points(1)) }),
        ..Default::default()
    };
    let reward = v1::UpdateRewardRequest { reward: Some(reward) };
    let start = |member_id: &str| v1::StartRedemptionRequest {
        member_id: member_id.into(),
        redemption_id: "a".into(),
        reward_id: b_id(),
    };
    let complete = v1::CompleteRedemptionRequest { redemption_id: b_id(), voucher_code: "X".into() };
    let fail = v1::FailRedemptionRequest { redemption_id: b_id(), reason: "x".into() };
    let refund = v1::RefundRedemptionRequest { redemption_id: b_id(), reason: "x".into() };
    let confirm = v1::ConfirmObligationRequest { obligation_id: "ob-1-1".into(), reference: "x".into() };
    let more = v1::coupon_codes::Kind::Listed(v1::ListedCodes { codes: vec!["A-1".into()] });
    let add = v1::AddCouponsRequest {
        coupon_book_id: b_id(),
        codes: Some(v1::CouponCodes { kind: Some(more) }),
        ..Default::default()
    };
    let assign = v1::AssignCouponRequest {
        member_id: world.member_id.clone(),
        coupon_book_id: b_id(),
        usage_id: "a".into(),
        ..Default::default()
    };
    let coupon = v1::GetCouponRequest { coupon_book_id: b_id(), code: "B-1".into() };
    let use_ =
        v1::UseCouponRequest { coupon_book_id: b_id(), code: "B-1".into(), usage_id: "a".into(), ..Default::default() };
    let roll_back = v1::RollBackCouponRequest {
        coupon_book_id: b_id(),
        code: "B-1".into(),
        reverted_usage_id: "a".into(),
        ..Default::default()
    };
    let gift_card =
        v1::GiftCard { gift_card_id: "a".into(), member_id: member(), code: "A-1".into(), ..Default::default() };
    let gift_card = v1::SendGiftCardRequest { gift_card: Some(gift_card) };
    let mut rewards = a.rewards();
    let (mut members, mut ledger, mut subscriptions) = (a.members(), a.ledger(), a.subscriptions());
    let (mut deliveries, mut campaigns) = (a.deliveries(), a.campaigns());
    for (what, refused) in [
        ("get member", came_to(members.get_member(v1::GetMemberRequest { member_id: member() }).await)),
        ("look up", came_to(members.lookup_member(look_up).await)),
        ("update member", came_to(members.update_member(update).await)),
        ("block", came_to(members.block_member(block).await)),
        ("erase", came_to(members.erase_member(erase).await)),
        ("unblock", came_to(members.unblock_member(v1::UnblockMemberRequest { member_id: member() }).await)),
        ("join", came_to(members.join_campaign(join).await)),
        ("balances", came_to(ledger.get_balances(v1::GetBalancesRequest { member_id: member(), at: None }).await)),
        ("entries", came_to(ledger.list_entries(entries).await)),
        ("adjust", came_to(ledger.adjust_balance(adjustment).await)),
        ("punchcards", came_to(ledger.list_punchcards(v1::ListPunchcardsRequest { member_id: member() }).await)),
        ("explain", came_to(ledger.explain_entry(v1::ExplainEntryRequest { sequence: theirs.entry }).await)),
        (
            "get subscription",
            came_to(
                subscriptions.get_subscription(v1::GetSubscriptionRequest { subscription_id: subscription_id() }).await,
            ),
        ),
        (
            "update subscription",
            came_to(
                subscriptions.update_subscription(v1::UpdateSubscriptionRequest { subscription: Some(settings) }).await,
            ),
        ),
        ("pause", came_to(subscriptions.pause_subscription(pause).await)),
        ("resume", came_to(subscriptions.resume_subscription(resume).await)),
        ("rotate", came_to(subscriptions.rotate_secret(rotate).await)),
        ("test", came_to(subscriptions.test_subscription(test).await)),
        ("delete", came_to(subscriptions.delete_subscription(delete).await)),
        ("list deliveries", came_to(deliveries.list_deliveries(list).await)),
        ("get delivery", came_to(deliveries.get_delivery(delivery).await)),
        ("list attempts", came_to(deliveries.list_attempts(attempts).await)),
        ("retry", came_to(deliveries.retry_delivery(retry).await)),
        ("list dead letters", came_to(deliveries.list_dead_letters(dead).await)),
        ("redrive", came_to(deliveries.redrive_dead_letters(redrive).await)),
        ("drop", came_to(deliveries.drop_dead_letters(drop).await)),
        ("replay", came_to(deliveries.replay_events(replay).await)),
        ("list jobs", came_to(deliveries.list_delivery_jobs(jobs).await)),
        ("get job", came_to(deliveries.get_delivery_job(job).await)),
        ("cancel job", came_to(deliveries.cancel_delivery_job(cancel).await)),
        (
            "get campaign",
            came_to(campaigns.get_campaign(v1::GetCampaignRequest { campaign_id: theirs.campaign_id.clone() }).await),
        ),
        (
            "update campaign",
            came_to(
                campaigns
                    .update_campaign(v1::UpdateCampaignRequest { campaign: Some(campaign), validate_only: false })
                    .await,
            ),
        ),
        ("merge into", came_to(members.merge_members(merge(&theirs.member_id, &world.member_id)).await)),
        ("merge from", came_to(members.merge_members(merge(&world.member_id, &theirs.member_id)).await)),
        ("hold", came_to(ledger.place_hold(hold(&theirs.member_id)).await)),
        ("holds", came_to(ledger.list_holds(v1::ListHoldsRequest { member_id: member() }).await)),
        ("post", came_to(ledger.post_hold(post).await)),
        ("void", came_to(ledger.void_hold(void).await)),
        ("post as one's own", came_to(ledger.post_hold(post_own).await)),
        ("transfer from", came_to(ledger.transfer_balance(transfer(&theirs.member_id, &world.member_id)).await)),
        ("transfer to", came_to(ledger.transfer_balance(transfer(&world.member_id, &theirs.member_id)).await)),
        ("reverse", came_to(ledger.reverse_entry(reverse(&theirs.member_id)).await)),
        ("reverse as one's own", came_to(ledger.reverse_entry(reverse(&world.member_id)).await)),
        ("get segment", came_to(campaigns.get_segment(v1::GetSegmentRequest { segment_id: b_id() }).await)),
        ("update segment", came_to(campaigns.update_segment(segment).await)),
        ("standings", came_to(campaigns.list_leaderboard_standings(standings).await)),
        ("get reward", came_to(rewards.get_reward(v1::GetRewardRequest { reward_id: b_id() }).await)),
        ("update reward", came_to(rewards.update_reward(reward).await)),
        ("start", came_to(rewards.start_redemption(start(&world.member_id)).await)),
        ("start for them", came_to(rewards.start_redemption(start(&theirs.member_id)).await)),
        ("complete", came_to(rewards.complete_redemption(complete).await)),
        ("fail", came_to(rewards.fail_redemption(fail).await)),
        ("refund", came_to(rewards.refund_redemption(refund).await)),
        ("get redemption", came_to(rewards.get_redemption(v1::GetRedemptionRequest { redemption_id: b_id() }).await)),
        ("confirm", came_to(rewards.confirm_obligation(confirm).await)),
        ("get book", came_to(rewards.get_coupon_book(v1::GetCouponBookRequest { coupon_book_id: b_id() }).await)),
        ("add coupons", came_to(rewards.add_coupons(add).await)),
        ("assign", came_to(rewards.assign_coupon(assign).await)),
        ("get coupon", came_to(rewards.get_coupon(coupon).await)),
        ("use", came_to(rewards.use_coupon(use_).await)),
        ("roll back", came_to(rewards.roll_back_coupon(roll_back).await)),
        ("gift card", came_to(rewards.send_gift_card(gift_card).await)),
        ("record", a.record(consumption("a-1", THEIR_PHONE, &[("article", 1)])).await.err()),
    ] {
        let refused = refused.unwrap_or_else(|| panic!("{what} reached another advertiser's data"));
        assert_eq!(refused.code, Code::NotFound, "{what}: {refused:?}");
        assert!(refused.reason.ends_with("_NOT_FOUND"), "{what}: {refused:?}");
    }
    // Whoever names the other advertiser outright is told that this is not theirs.
    let outright = a.advertiser(&b).members().list_members(v1::ListMembersRequest::default()).await;
    let refused = came_to(outright).expect("a token is for one advertiser");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "TENANT_MISMATCH"));
    let (events, _) = a.events_from(1, &["*"]).await;
    assert!(!events.is_empty() && events.iter().all(|event| event.member_id != theirs.member_id), "{events:?}");
    let segments = a.campaigns().list_segments(v1::ListSegmentsRequest::default()).await.expect("one's own");
    let listed_rewards = a.rewards().list_rewards(v1::ListRewardsRequest::default()).await.expect("one's own");
    let books = a.rewards().list_coupon_books(v1::ListCouponBooksRequest::default()).await.expect("one's own");
    let redemptions = a.rewards().list_redemptions(v1::ListRedemptionsRequest::default()).await.expect("one's own");
    let (segments, listed_rewards) = (segments.into_inner().segments, listed_rewards.into_inner().rewards);
    assert!(segments.is_empty() && listed_rewards.is_empty(), "{segments:?} {listed_rewards:?}");
    assert!(books.into_inner().coupon_books.is_empty() && redemptions.into_inner().redemptions.is_empty());
    let listed = a.members().list_members(v1::ListMembersRequest::default()).await.expect("one's own").into_inner();
    assert_eq!(listed.members.iter().map(|m| &m.member_id).collect::<Vec<_>>(), [&world.member_id]);

    assert_eq!(world.server.operator().head().await, head, "nothing was written");
    assert_eq!(theirs.api.balances(&theirs.member_id).await, balances);
    assert_eq!(theirs.api.subscription(&theirs.subscription_id).await, subscription);
    // The same ids do work for their owner: the refusals were about who asked.
    theirs.api.record(consumption("a-1", THEIR_PHONE, &[("article", 1)])).await.expect("accepted");
    world.delivered("/b", 2).await;
}

#[tokio::test]
async fn environments_are_worlds_of_their_own() {
    let world = World::start(Server::setup()).await;
    world.article("1").await;
    let staging = world.api.environment("staging");
    let refused = staging.record(consumption("2", punchline_tests::world::PHONE, &[("article", 1)])).await;
    assert_eq!(refused.expect_err("not registered there").reason, "ACCOUNT_NOT_FOUND");
    let member_id = populate(&staging).await;
    let receipt = staging.record(consumption("1", punchline_tests::world::PHONE, &[("article", 2)])).await;
    assert_eq!(receipt.expect("its id is free there").points, 100);
    assert_eq!(staging.balances(&member_id).await[CAMPAIGN], 100);
    assert_eq!(world.api.balances(&world.member_id).await[CAMPAIGN], 50);
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let world = World::start(Server::setup()).await;
    use v1::Scope::{Ingest, Manage, Read};
    for (scope, may) in [(Ingest, [true, false, false]), (Read, [false, true, false]), (Manage, [false, false, true])] {
        let token = world.token(&world.advertiser_id, &[scope]).await;
        let api = Api::new(&world.server.grpc_address(), None).bearer(&token);
        let one = consumption(scope.as_str_name(), punchline_tests::world::PHONE, &[("article", 1)]);
        let member_id = || world.member_id.clone();
        let balances = v1::GetBalancesRequest { member_id: member_id(), at: None };
        let refusals = [
            api.record(one).await.err(),
            came_to(api.ledger().get_balances(balances).await),
            came_to(api.members().unblock_member(v1::UnblockMemberRequest { member_id: member_id() }).await),
        ];
        for (refused, may) in refusals.into_iter().zip(may) {
            match (refused, may) {
                (None, true) => {}
                (Some(refused), false) => {
                    let got = (refused.code, refused.reason.as_str());
                    assert_eq!(got, (Code::PermissionDenied, "SCOPE_MISSING"), "{scope:?}");
                }
                (refused, _) => panic!("{scope:?}: may: {may}, got {refused:?}"),
            }
        }
        let refused = came_to(api.admin().get_status(v1::GetStatusRequest {}).await).expect("operators only");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "OPERATOR_REQUIRED"));
    }
}

#[tokio::test]
async fn a_revoked_key_is_worth_nothing() {
    let world = World::start(Server::setup()).await;
    let request = v1::IssueCredentialRequest { api_key: "soon-gone".into(), ..Default::default() };
    let issued = world.api.admin().issue_credential(request).await.expect("an operator may").into_inner();
    let token =
        punchline_tests::world::authorize(&world.server, &world.advertiser_id, "soon-gone", &issued.api_secret).await;
    let api = Api::new(&world.server.grpc_address(), None).bearer(&token);
    let record = async |id| api.record(consumption(id, punchline_tests::world::PHONE, &[("article", 1)])).await;
    record("1").await.expect("it is valid");
    let request = v1::RevokeCredentialRequest { api_key: "soon-gone".into() };
    world.api.admin().revoke_credential(request).await.expect("it exists");
    let refused = record("2").await.expect_err("tokens go with their key");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "INVALID_CREDENTIALS"));
    let nobody = Api::new(&world.server.grpc_address(), None).record(v1::Consumption::default()).await;
    let refused = nobody.expect_err("no credentials");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "CREDENTIALS_MISSING"));
}
