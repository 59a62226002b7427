//! A changed campaign against the past.

use super::*;

/// The progress that was told, and the result.
async fn simulated(
    caller: &As,
    request: v1::SimulateCampaignRequest,
) -> Result<(Vec<v1::SimulationProgress>, v1::SimulationResult), Status> {
    use v1::simulate_campaign_response::Kind;
    let mut messages = CampaignServiceClient::new(caller.clone()).simulate_campaign(request).await?.into_inner();
    let mut progress = Vec::new();
    while let Some(message) = messages.message().await? {
        match message.kind.expect("has one") {
            Kind::Progress(at) => progress.push(at),
            Kind::Result(result) => return Ok((progress, result)),
        }
    }
    panic!("no result");
}

fn shown(totals: &Option<v1::SimulationTotals>) -> [i64; 5] {
    let totals = totals.expect("told");
    [totals.members as i64, totals.units as i64, totals.points, totals.coins, totals.stamps as i64]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_campaign_is_simulated_against_the_past() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    register(&caller, "b@example.com").await;
    let mut ingest = IngestServiceClient::new(caller.clone());
    let theirs = |id: &str| v1::Consumption {
        identifiers: vec![v1::Identifier { key: "email".into(), value: "b@example.com".into() }],
        ..consumption(id, 1.0)
    };
    let mut firsts = Vec::new();
    for (id, quantity) in [("A1", 1.0), ("A2", 2.0), ("A3", 3.0)] {
        firsts.push(reviews(&caller, id, quantity).await.sequence);
    }
    for id in ["B1", "B2"] {
        let request = v1::RecordConsumptionRequest { consumption: Some(theirs(id)) };
        ingest.record_consumption(request).await.expect("accepted");
    }
    let request =
        |campaign: v1::Campaign| v1::SimulateCampaignRequest { campaign: Some(campaign), ..Default::default() };
    let head = running.state.node.feed().head();
    // Unchanged, it would give what it gave: the engine is its own second opinion.
    let (progress, same) = simulated(&caller, request(campaign())).await.expect("simulated");
    assert_eq!((shown(&same.given), &same.given), ([2, 8, 1_200, 24, 8], &same.would_give));
    assert_eq!((same.consumptions, same.members, same.consumptions_left_out), (5, 2, 0));
    assert_eq!((progress[0].next_sequence, progress[0].to_sequence), (1, head.0));

    // 20 points, double from the second consumption on, and one unit a day: all are dated the same day.
    let mut changed = campaign();
    changed.rules[0].points = 20;
    changed.rules[0].coins = 0;
    changed.rules[0].stamps = None;
    changed.multipliers = vec![v1::Multiplier {
        multiplier_id: "again".into(),
        percent: 200,
        condition: "card.consumptions >= 1".into(),
        ..Default::default()
    }];
    changed.first_bonus = Some(v1::Bonus { points: 5, coins: 1 });
    let (_, result) = simulated(&caller, request(changed.clone())).await.expect("simulated");
    // A: 20 + 2·40 + 3·40, B: 20 + 40, and the bonus for each.
    assert_eq!(shown(&result.would_give), [2, 8, 220 + 60 + 10, 2, 0]);
    assert_eq!(shown(&result.given), shown(&same.given));
    let rule = &result.rules[0];
    assert_eq!((rule.rule_id.as_str(), shown(&rule.would_give)), ("review", [2, 8, 280, 0, 0]));
    changed.rules[0].caps = vec![v1::Cap { period: v1::Period::Day.into(), units_max: 2 }];
    let (_, capped) = simulated(&caller, request(changed.clone())).await.expect("simulated");
    // A: 20 + 40, then nothing; B: 20 + 40.
    assert_eq!(shown(&capped.would_give), [2, 4, 60 + 60 + 10, 2, 0]);

    // A part of the past: members begin with nothing there.
    let part =
        v1::SimulateCampaignRequest { from_sequence: firsts[1], to_sequence: firsts[2] - 1, ..request(campaign()) };
    let (_, second) = simulated(&caller, part).await.expect("simulated");
    assert_eq!((second.consumptions, shown(&second.given)), (1, [1, 2, 300, 6, 2]));
    // One that does not exist yet: everybody takes part, and it gave nothing.
    let new = v1::Campaign { campaign_id: "new".into(), ..campaign() };
    let (_, new) = simulated(&caller, request(new)).await.expect("simulated");
    assert_eq!((shown(&new.given), shown(&new.would_give)), ([0; 5], [2, 8, 1_200, 24, 8]));
    assert_eq!(running.state.node.feed().head(), head, "nothing was written");

    let mut bad = campaign();
    bad.rules[0].points = -1;
    let refused = simulated(&caller, request(bad)).await.expect_err("a contradiction");
    assert_eq!(told(&refused), "InvalidArgument INVALID_FIELD: rules[0].points \"-1\" must be from 0 to 1000000");
    let late = v1::SimulateCampaignRequest { from_sequence: head.0 + 1, ..request(campaign()) };
    let refused = simulated(&caller, late).await.expect_err("nothing there");
    assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "from_sequence"));
    let manage = running.advertiser("2", vec![v1::Scope::Manage.into()]).await;
    let refused = simulated(&manage, request(campaign())).await.expect_err("it is reading");
    assert_eq!(reason(&refused), "SCOPE_MISSING");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_what_would_be_told() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    let mut rewards = RewardServiceClient::new(caller.clone());
    let book = v1::CreateCouponBookRequest {
        coupon_book: Some(v1::CouponBook { coupon_book_id: "summer".into(), ..Default::default() }),
        codes: Some(v1::CouponCodes {
            kind: Some(v1::coupon_codes::Kind::Listed(v1::ListedCodes { codes: vec!["A".into()] })),
        }),
        ..Default::default()
    };
    rewards.create_coupon_book(book).await.expect("created");
    let mut changed = campaign();
    changed.rules[0].coupon_book_id = "summer".into();
    let mut campaigns = CampaignServiceClient::new(caller.clone());
    let update = v1::UpdateCampaignRequest { campaign: Some(changed), validate_only: false };
    campaigns.update_campaign(update).await.expect("updated");
    let simulate = || v1::SimulateConsumptionRequest { consumption: Some(consumption("I1", 1.0)) };
    let mut types = Vec::new();
    for _ in 0..2 {
        let answer = campaigns.simulate_consumption(simulate()).await.expect("simulated").into_inner();
        assert!(answer.events.iter().all(|event| event.sequence == 0 && event.cause_sequence == 0));
        types.push(answer.events.into_iter().map(|event| event.r#type).collect::<Vec<_>>());
    }
    assert_eq!(types[0], types[1], "the code is not used up");
    assert!(types[0].iter().any(|told| told == "coupon.assigned"), "{types:?}");
    let receipt = reviews(&caller, "I1", 1.0).await;
    let read = v1::ReadEventsRequest { from_sequence: receipt.sequence, ..Default::default() };
    let events = EventServiceClient::new(caller.clone()).read_events(read).await.expect("read").into_inner().events;
    assert_eq!(events.into_iter().map(|event| event.r#type).collect::<Vec<_>>(), types[0]);
    running.end().await;
}
