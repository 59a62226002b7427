//! The catalogue, redemptions, obligations, coupons, gift cards.

use super::*;

fn mug() -> v1::Reward {
    v1::Reward {
        reward_id: "mug".into(),
        campaign_id: "velo-club".into(),
        reward_name: "A mug".into(),
        cost: Some(v1::Cost { kind: Some(v1::cost::Kind::Points(100)) }),
        stock: Some(2),
        per_member_max: Some(2),
        ..Default::default()
    }
}

fn create(reward: v1::Reward) -> v1::CreateRewardRequest {
    v1::CreateRewardRequest { reward: Some(reward), request_id: String::new() }
}

fn start(member_id: &str, redemption_id: &str, reward_id: &str) -> v1::StartRedemptionRequest {
    v1::StartRedemptionRequest {
        member_id: member_id.into(),
        redemption_id: redemption_id.into(),
        reward_id: reward_id.into(),
    }
}

fn complete(redemption_id: &str, voucher_code: &str) -> v1::CompleteRedemptionRequest {
    v1::CompleteRedemptionRequest { redemption_id: redemption_id.into(), voucher_code: voucher_code.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    let mut rewards = RewardServiceClient::new(caller.clone());
    let first = v1::CreateRewardRequest { request_id: "c-1".into(), ..create(mug()) };
    let made = rewards.create_reward(first.clone()).await.expect("created").into_inner().reward.expect("answered");
    assert_eq!((made.hold_ms, made.cool_down_ms, made.etag.as_str()), (900_000, Some(86_400_000), "1"));
    assert_eq!(rewards.create_reward(first).await.expect("the same").into_inner().reward.as_ref(), Some(&made));
    let got = rewards.get_reward(v1::GetRewardRequest { reward_id: "mug".into() }).await.expect("there").into_inner();
    assert_eq!(got.reward, Some(made.clone()));
    let cup = v1::Reward { reward_id: "cup".into(), ..mug() };
    rewards.create_reward(create(cup)).await.expect("created");
    let list = |page_token: &str| v1::ListRewardsRequest { page_size: 1, page_token: page_token.into() };
    let page = rewards.list_rewards(list("")).await.expect("listed").into_inner();
    let next = rewards.list_rewards(list(&page.next_page_token)).await.expect("listed").into_inner();
    let ids: Vec<_> = page.rewards.iter().chain(&next.rewards).map(|r| r.reward_id.as_str()).collect();
    assert_eq!((ids, next.next_page_token.as_str()), (vec!["cup", "mug"], ""));
    let update = |reward| v1::UpdateRewardRequest { reward: Some(reward) };
    let updated = rewards.update_reward(update(v1::Reward { stock: None, ..made.clone() })).await.expect("updated");
    assert_eq!(updated.into_inner().reward.expect("answered").etag, "2");
    all_refused(
        &[],
        [
            (
                outcome(rewards.create_reward(create(mug())).await),
                "AlreadyExists REWARD_EXISTS: reward mug exists already",
            ),
            (
                outcome(rewards.update_reward(update(made)).await),
                "Aborted ETAG_MISMATCH: etag \"1\" is out of date, the current one is \"2\"",
            ),
            (
                outcome(rewards.update_reward(update(v1::Reward { reward_id: "nix".into(), ..mug() })).await),
                "NotFound REWARD_NOT_FOUND: reward nix not found",
            ),
            (
                outcome(rewards.get_reward(v1::GetRewardRequest { reward_id: "nix".into() }).await),
                "NotFound REWARD_NOT_FOUND: reward nix not found",
            ),
            (
                outcome(
                    rewards.create_reward(create(v1::Reward { reward_id: "new".into(), cost: None, ..mug() })).await,
                ),
                "InvalidArgument INVALID_FIELD: cost \"\" must be points or coins",
            ),
            (
                outcome(
                    rewards
                        .create_reward(create(v1::Reward {
                            reward_id: "new".into(),
                            cost: Some(v1::Cost { kind: Some(v1::cost::Kind::Coins(0)) }),
                            ..mug()
                        }))
                        .await,
                ),
                "InvalidArgument INVALID_FIELD: cost \"0\" must be from 1 to 1000000000",
            ),
            (
                outcome(
                    rewards
                        .create_reward(create(v1::Reward {
                            reward_id: "new".into(),
                            campaign_id: "nix".into(),
                            ..mug()
                        }))
                        .await,
                ),
                "InvalidArgument INVALID_FIELD: campaign_id \"nix\" names no campaign",
            ),
            (
                outcome(
                    rewards
                        .create_reward(create(v1::Reward {
                            reward_id: "new".into(),
                            coupon_book_id: "nix".into(),
                            ..mug()
                        }))
                        .await,
                ),
                "InvalidArgument INVALID_FIELD: coupon_book_id \"nix\" names no coupon book",
            ),
            (
                outcome(
                    rewards.create_reward(create(v1::Reward { reward_id: "new".into(), hold_ms: 5, ..mug() })).await,
                ),
                "InvalidArgument INVALID_FIELD: hold_ms \"5\" must be from a second to 31 days",
            ),
        ],
    );
    let empty = rewards.create_reward(v1::CreateRewardRequest::default()).await.expect_err("nothing in it");
    assert_eq!((reason(&empty).as_str(), field(&empty).as_str()), ("REQUEST_BODY_REQUIRED", "reward"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redemptions() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member_id = set_up(&caller).await.member_id;
    let poor = register(&caller, "b@example.com").await;
    reviews(&caller, "I1", 4.0).await;
    let mut rewards = RewardServiceClient::new(caller.clone());
    let mut ledger = LedgerServiceClient::new(caller.clone());
    let mut members = MemberServiceClient::new(caller.clone());
    for (reward_id, reward) in [
        ("mug", mug()),
        ("one", v1::Reward { stock: None, per_member_max: Some(1), ..mug() }),
        ("off", v1::Reward { inactive: true, ..mug() }),
    ] {
        rewards.create_reward(create(v1::Reward { reward_id: reward_id.into(), ..reward })).await.expect("created");
    }
    let balances = || v1::GetBalancesRequest { member_id: member_id.clone(), at: None };
    let mut available = async || {
        let accounts = ledger.get_balances(balances()).await.expect("answered").into_inner().accounts;
        (accounts[0].available, accounts[0].held)
    };
    let started = rewards.start_redemption(start(&member_id, "r-1", "mug")).await.expect("started").into_inner();
    let again = rewards.start_redemption(start(&member_id, "r-1", "mug")).await.expect("the same").into_inner();
    assert_eq!(started, again);
    let redemption = started.redemption.expect("answered");
    assert_eq!(redemption.state(), v1::RedemptionState::Started);
    assert_eq!(available().await, (500, 100));
    let done = rewards.complete_redemption(complete("r-1", "CODE-1")).await.expect("completed").into_inner();
    let done = done.redemption.expect("answered");
    assert_eq!((done.state(), done.voucher_code.as_str()), (v1::RedemptionState::Completed, "CODE-1"));
    rewards.complete_redemption(complete("r-1", "CODE-1")).await.expect("is so already");
    assert_eq!(available().await, (500, 0));

    rewards.start_redemption(start(&member_id, "r-2", "mug")).await.expect("started");
    rewards.start_redemption(start(&member_id, "r-3", "one")).await.expect("started");
    let fail = |redemption_id: &str| v1::FailRedemptionRequest {
        redemption_id: redemption_id.into(),
        reason: "broken".into(),
    };
    let refund = |redemption_id: &str| v1::RefundRedemptionRequest {
        redemption_id: redemption_id.into(),
        reason: "returned".into(),
    };
    let blocked = register(&caller, "c@example.com").await;
    let block = v1::BlockMemberRequest { member_id: blocked.clone(), reason: "x".into() };
    members.block_member(block).await.expect("blocked");
    let alone = v1::RegisterMemberRequest {
        identifiers: vec![v1::Identifier { key: "externalId".into(), value: "u-1".into() }],
        ..Default::default()
    };
    let alone = members.register_member(alone).await.expect("registered").into_inner().member.expect("told").member_id;
    all_refused(
        &[(&member_id, "M"), (&alone, "A")],
        [
            (
                outcome(rewards.start_redemption(start(&poor, "r-4", "mug")).await),
                "FailedPrecondition OUT_OF_STOCK: reward mug is out of stock",
            ),
            (
                outcome(rewards.start_redemption(start(&member_id, "r-4", "one")).await),
                "FailedPrecondition REWARD_LIMIT_REACHED: member M had reward one 1 times already, which is the limit",
            ),
            (
                outcome(rewards.start_redemption(start(&poor, "r-4", "one")).await),
                "FailedPrecondition INSUFFICIENT_BALANCE: balance of points of campaign velo-club is 0, 100 are needed",
            ),
            (
                outcome(rewards.start_redemption(start(&member_id, "r-4", "off")).await),
                "FailedPrecondition REWARD_NOT_OFFERED: reward off is not on offer at this time",
            ),
            (
                outcome(rewards.start_redemption(start(&member_id, "r-4", "nix")).await),
                "NotFound REWARD_NOT_FOUND: reward nix not found",
            ),
            (
                outcome(rewards.start_redemption(start(&blocked, "r-4", "one")).await),
                "FailedPrecondition USER_BLOCKED: User is blocked",
            ),
            (
                outcome(rewards.start_redemption(start(&alone, "r-4", "one")).await),
                "FailedPrecondition NOT_JOINED: member A has not joined campaign velo-club",
            ),
            (
                outcome(rewards.start_redemption(start(&member_id, "r-1", "one")).await),
                "AlreadyExists ID_REUSED: redemption_id \"r-1\" was used before, with other content",
            ),
            (
                outcome(rewards.start_redemption(start(&member_id, "", "one")).await),
                "InvalidArgument INVALID_FIELD: redemption_id \"\" must be 1 to 128 bytes without control characters",
            ),
            (
                outcome(rewards.complete_redemption(complete("r-2", "")).await),
                "InvalidArgument INVALID_FIELD: voucher_code \"\" is required: this reward has no coupon book",
            ),
            (
                outcome(rewards.complete_redemption(complete("r-2", "a b")).await),
                "InvalidArgument INVALID_FIELD: voucher_code \"a b\" must be 1 to 64 visible ASCII characters",
            ),
            (
                outcome(rewards.complete_redemption(complete("r-9", "X")).await),
                "NotFound REDEMPTION_NOT_FOUND: redemption \"r-9\" not found",
            ),
            (
                outcome(rewards.fail_redemption(fail("r-1")).await),
                "FailedPrecondition REDEMPTION_STATE: redemption \"r-1\" is completed, it must be started",
            ),
            (
                outcome(rewards.refund_redemption(refund("r-2")).await),
                "FailedPrecondition REDEMPTION_STATE: redemption \"r-2\" is started, it must be completed",
            ),
            (
                outcome(rewards.get_redemption(v1::GetRedemptionRequest { redemption_id: "r-9".into() }).await),
                "NotFound REDEMPTION_NOT_FOUND: redemption \"r-9\" not found",
            ),
        ],
    );
    let failed = rewards.fail_redemption(fail("r-2")).await.expect("failed").into_inner().redemption.expect("told");
    assert_eq!((failed.state(), failed.reason.as_str()), (v1::RedemptionState::Failed, "broken"));
    let refunded = rewards.refund_redemption(refund("r-1")).await.expect("refunded").into_inner();
    assert_eq!(refunded.redemption.expect("told").state(), v1::RedemptionState::Refunded);
    assert_eq!(available().await, (500, 100));
    let reward = rewards.get_reward(v1::GetRewardRequest { reward_id: "mug".into() }).await.expect("there");
    assert_eq!(reward.into_inner().reward.expect("told").redeemed, 0, "what failed or was refunded is there again");
    let list = |member_id: &str, page_size, page_token: &str| v1::ListRedemptionsRequest {
        member_id: member_id.into(),
        page_size,
        page_token: page_token.into(),
    };
    let page = rewards.list_redemptions(list("", 2, "")).await.expect("listed").into_inner();
    let next = rewards.list_redemptions(list("", 2, &page.next_page_token)).await.expect("listed").into_inner();
    let ids: Vec<_> = page.redemptions.iter().chain(&next.redemptions).map(|r| r.redemption_id.as_str()).collect();
    assert_eq!((ids, next.next_page_token.as_str()), (vec!["r-1", "r-2", "r-3"], ""));
    let nobodys = rewards.list_redemptions(list(&poor, 0, "")).await.expect("listed").into_inner();
    assert!(nobodys.redemptions.is_empty() && nobodys.next_page_token.is_empty());
    running.end().await;
}

fn book(codes: v1::coupon_codes::Kind) -> v1::CreateCouponBookRequest {
    v1::CreateCouponBookRequest {
        coupon_book: Some(v1::CouponBook { coupon_book_id: "summer".into(), ..Default::default() }),
        codes: Some(v1::CouponCodes { kind: Some(codes) }),
        request_id: String::new(),
    }
}

fn listed(codes: &[&str]) -> v1::coupon_codes::Kind {
    v1::coupon_codes::Kind::Listed(v1::ListedCodes { codes: codes.iter().map(|code| (*code).to_owned()).collect() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupons() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member_id = set_up(&caller).await.member_id;
    let mut rewards = RewardServiceClient::new(caller.clone());
    let made = rewards.create_coupon_book(book(listed(&["A", "B"]))).await.expect("created").into_inner();
    assert_eq!((made.coupon_book.expect("told").codes, made.generated_codes.len()), (2, 0));
    let add = |codes, request_id: &str| v1::AddCouponsRequest {
        coupon_book_id: "summer".into(),
        codes: Some(v1::CouponCodes { kind: Some(codes) }),
        request_id: request_id.into(),
    };
    let generate = || v1::coupon_codes::Kind::Generated(v1::GeneratedCodes { count: 3, prefix: "S-".into() });
    let added = rewards.add_coupons(add(generate(), "a-1")).await.expect("added").into_inner();
    assert_eq!((added.generated_codes.len(), added.coupon_book.as_ref().expect("told").codes), (3, 5));
    let again = rewards.add_coupons(add(generate(), "a-1")).await.expect("the same").into_inner();
    assert_eq!(again, added, "a repeat is told the codes of the first");

    let assign = |code: &str, usage_id: &str| v1::AssignCouponRequest {
        member_id: member_id.clone(),
        coupon_book_id: "summer".into(),
        code: code.into(),
        usage_id: usage_id.into(),
    };
    let first = rewards.assign_coupon(assign("", "u-1")).await.expect("assigned").into_inner().coupon.expect("told");
    assert_eq!((first.code.as_str(), first.member_id.as_str()), ("A", member_id.as_str()));
    let again = rewards.assign_coupon(assign("", "u-1")).await.expect("the same").into_inner().coupon;
    assert_eq!(again, Some(first));
    let chosen = rewards.assign_coupon(assign(&added.generated_codes[2], "u-2")).await.expect("assigned").into_inner();
    assert_eq!(chosen.coupon.expect("told").code, added.generated_codes[2]);
    let use_ = |code: &str, usage_id: &str| v1::UseCouponRequest {
        coupon_book_id: "summer".into(),
        code: code.into(),
        usage_id: usage_id.into(),
        order_id: "o-1".into(),
        discount_amount: 5,
    };
    let used = rewards.use_coupon(use_("A", "use-1")).await.expect("used").into_inner().coupon.expect("told");
    assert_eq!(used.usage_ids, ["use-1"]);
    let roll_back = |usage_id: &str| v1::RollBackCouponRequest {
        coupon_book_id: "summer".into(),
        code: "A".into(),
        reverted_usage_id: usage_id.into(),
        reason: "returned".into(),
    };
    let elsewhere = v1::GetCouponRequest { coupon_book_id: "nix".into(), code: "A".into() };
    let unknown = v1::GetCouponRequest { coupon_book_id: "summer".into(), code: "Z".into() };
    all_refused(
        &[],
        [
            (
                outcome(rewards.create_coupon_book(book(listed(&["A"]))).await),
                "AlreadyExists COUPON_BOOK_EXISTS: coupon book summer exists already",
            ),
            (
                outcome(rewards.add_coupons(add(listed(&["C", "A"]), "")).await),
                "InvalidArgument INVALID_FIELD: codes[1] \"A\" is in the book already",
            ),
            (
                outcome(rewards.add_coupons(add(listed(&[]), "")).await),
                "InvalidArgument INVALID_FIELD: codes \"[]\" must have at least one entry",
            ),
            (
                outcome(rewards.add_coupons(add(listed(&["a b"]), "")).await),
                "InvalidArgument INVALID_FIELD: codes[0] \"a b\" must be 1 to 64 visible ASCII characters",
            ),
            (
                outcome(rewards.assign_coupon(assign("A", "u-3")).await),
                "FailedPrecondition COUPON_STATE: coupon \"A\" was given to somebody already",
            ),
            (
                outcome(rewards.assign_coupon(assign("B", "u-1")).await),
                "AlreadyExists ID_REUSED: usage_id \"u-1\" was used before, with other content",
            ),
            (
                outcome(rewards.assign_coupon(assign("", "")).await),
                "InvalidArgument INVALID_FIELD: usage_id \"\" must be 1 to 128 bytes without control characters",
            ),
            (
                outcome(rewards.use_coupon(use_("A", "use-2")).await),
                "FailedPrecondition COUPON_STATE: coupon \"A\" was used as often as allowed",
            ),
            (
                outcome(rewards.use_coupon(use_("Z", "use-2")).await),
                "NotFound COUPON_NOT_FOUND: coupon \"Z\" of book summer not found",
            ),
            (
                outcome(rewards.use_coupon(v1::UseCouponRequest { discount_amount: -1, ..use_("B", "use-2") }).await),
                "InvalidArgument INVALID_FIELD: discount_amount \"-1\" must be at least 0",
            ),
            (
                outcome(rewards.roll_back_coupon(roll_back("use-9")).await),
                "FailedPrecondition COUPON_STATE: coupon \"A\" has no such use",
            ),
            (outcome(rewards.get_coupon(elsewhere).await), "NotFound COUPON_BOOK_NOT_FOUND: coupon book nix not found"),
            (
                outcome(rewards.get_coupon(unknown).await),
                "NotFound COUPON_NOT_FOUND: coupon \"Z\" of book summer not found",
            ),
        ],
    );
    let back = rewards.roll_back_coupon(roll_back("use-1")).await.expect("undone").into_inner().coupon.expect("told");
    assert!(back.usage_ids.is_empty());
    let books = rewards.list_coupon_books(v1::ListCouponBooksRequest::default()).await.expect("listed").into_inner();
    let counts: Vec<_> = books.coupon_books.iter().map(|b| (b.codes, b.assigned, b.used)).collect();
    assert_eq!(counts, [(5, 2, 0)]);

    // A redemption takes its code from the book, until there is none.
    reviews(&caller, "I1", 10.0).await;
    let reward = v1::Reward { coupon_book_id: "summer".into(), stock: None, per_member_max: None, ..mug() };
    rewards.create_reward(create(reward)).await.expect("created");
    for (n, code) in ["B", &added.generated_codes[0], &added.generated_codes[1]].into_iter().enumerate() {
        let id = format!("r-{n}");
        rewards.start_redemption(start(&member_id, &id, "mug")).await.expect("started");
        let done = rewards.complete_redemption(complete(&id, "")).await.expect("completed").into_inner();
        assert_eq!(done.redemption.expect("told").voucher_code, code);
    }
    rewards.start_redemption(start(&member_id, "r-9", "mug")).await.expect("started");
    all_refused(
        &[],
        [
            (
                outcome(rewards.complete_redemption(complete("r-9", "")).await),
                "FailedPrecondition NO_COUPONS_LEFT: coupon book summer has no code left",
            ),
            (
                outcome(rewards.complete_redemption(complete("r-9", "X")).await),
                "InvalidArgument INVALID_FIELD: voucher_code \"X\" must be absent: the codes of this reward come from \
                 its coupon book",
            ),
            (
                outcome(rewards.assign_coupon(assign("", "u-9")).await),
                "FailedPrecondition NO_COUPONS_LEFT: coupon book summer has no code left",
            ),
        ],
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn obligations_and_gift_cards() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member_id = set_up(&caller).await.member_id;
    let mut changed = campaign();
    changed.rules[0].external =
        Some(v1::ExternalReward { reward_id: "cash".into(), reward_name: "Cash".into(), amount: 2 });
    let update = v1::UpdateCampaignRequest { campaign: Some(changed), validate_only: false };
    CampaignServiceClient::new(caller.clone()).update_campaign(update).await.expect("updated");
    reviews(&caller, "I1", 3.0).await;
    let mut rewards = RewardServiceClient::new(caller.clone());
    let list = |open_only| v1::ListObligationsRequest { open_only, ..Default::default() };
    let owed = rewards.list_obligations(list(true)).await.expect("listed").into_inner().obligations;
    assert_eq!(owed.iter().map(|o| (o.reward_id.as_str(), o.amount)).collect::<Vec<_>>(), [("cash", 6)]);
    let confirm = |obligation_id: &str| v1::ConfirmObligationRequest {
        obligation_id: obligation_id.into(),
        reference: "bank-7".into(),
    };
    let paid = rewards.confirm_obligation(confirm(&owed[0].obligation_id)).await.expect("confirmed").into_inner();
    let again = rewards.confirm_obligation(confirm(&owed[0].obligation_id)).await.expect("so already").into_inner();
    assert_eq!((&paid, paid.obligation.as_ref().expect("told").reference.as_str()), (&again, "bank-7"));
    assert!(rewards.list_obligations(list(true)).await.expect("listed").into_inner().obligations.is_empty());
    assert_eq!(rewards.list_obligations(list(false)).await.expect("listed").into_inner().obligations.len(), 1);

    let card = |id: &str, code: &str| v1::SendGiftCardRequest {
        gift_card: Some(v1::GiftCard {
            gift_card_id: id.into(),
            member_id: member_id.clone(),
            code: code.into(),
            value: "10 EUR".into(),
            ..Default::default()
        }),
    };
    let sent = rewards.send_gift_card(card("g-1", "X")).await.expect("sent").into_inner().sequence;
    assert_eq!(rewards.send_gift_card(card("g-1", "X")).await.expect("the same").into_inner().sequence, sent);
    all_refused(
        &[],
        [
            (
                outcome(rewards.confirm_obligation(confirm("ob-0-0")).await),
                "NotFound OBLIGATION_NOT_FOUND: obligation \"ob-0-0\" not found",
            ),
            (
                outcome(rewards.send_gift_card(card("g-1", "Y")).await),
                "AlreadyExists ID_REUSED: gift_card_id \"g-1\" was used before, with other content",
            ),
            (
                outcome(rewards.send_gift_card(card("g-2", "")).await),
                "InvalidArgument INVALID_FIELD: code \"\" must be 1 to 64 visible ASCII characters",
            ),
        ],
    );
    running.end().await;
}
