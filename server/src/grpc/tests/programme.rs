//! Segments, settings, tiers, leaderboards, jobs, and campaigns that contradict themselves.

use super::*;

/// A campaign with everything.
fn programme() -> v1::Campaign {
    v1::Campaign {
        tiers: vec![
            v1::Tier { tier_id: "silver".into(), name: "Silver".into(), threshold: 100 },
            v1::Tier { tier_id: "gold".into(), name: "Gold".into(), threshold: 300 },
        ],
        multipliers: vec![v1::Multiplier {
            multiplier_id: "gold-doubles".into(),
            percent: 200,
            tier_id: "gold".into(),
            ..Default::default()
        }],
        leaderboards: vec![v1::Leaderboard {
            leaderboard_id: "monthly".into(),
            name: "Of the month".into(),
            period: v1::Period::Month.into(),
            prizes: vec![v1::Prize { from_rank: 1, to_rank: 3, ..Default::default() }],
        }],
        ..campaign()
    }
}

fn segment(condition: &str) -> v1::Segment {
    v1::Segment { segment_id: "rich".into(), name: "Rich".into(), condition: condition.into(), etag: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_segments_and_standings() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member_id = set_up(&caller).await.member_id;
    let mut campaigns = CampaignServiceClient::new(caller.clone());
    let update = v1::UpdateCampaignRequest { campaign: Some(programme()), validate_only: false };
    let written = campaigns.update_campaign(update).await.expect("updated").into_inner().campaign.expect("told");
    assert_eq!((written.tiers.len(), written.stacking()), (2, v1::Stacking::Best));
    let create = |condition: &str, request_id: &str| v1::CreateSegmentRequest {
        segment: Some(segment(condition)),
        request_id: request_id.into(),
    };
    let made = campaigns.create_segment(create("member.points >= 200", "s-1")).await.expect("created").into_inner();
    let again = campaigns.create_segment(create("member.points >= 200", "s-1")).await.expect("the same").into_inner();
    assert_eq!(made, again);
    let update = |segment| v1::UpdateSegmentRequest { segment: Some(segment) };
    let updated = campaigns.update_segment(update(segment("member.points >= 300"))).await.expect("updated");
    let updated = updated.into_inner().segment.expect("told");
    assert_eq!(updated.etag, "2");
    let get = |id: &str| v1::GetSegmentRequest { segment_id: id.into() };
    assert_eq!(campaigns.get_segment(get("rich")).await.expect("there").into_inner().segment, Some(updated));
    let listed = campaigns.list_segments(v1::ListSegmentsRequest::default()).await.expect("listed").into_inner();
    assert_eq!((listed.segments.len(), listed.next_page_token.as_str()), (1, ""));
    all_refused(
        &[],
        [
            (
                outcome(campaigns.create_segment(create("true", "")).await),
                "AlreadyExists SEGMENT_EXISTS: segment rich exists already",
            ),
            (outcome(campaigns.get_segment(get("nix")).await), "NotFound SEGMENT_NOT_FOUND: segment nix not found"),
            (
                outcome(
                    campaigns.update_segment(update(v1::Segment { segment_id: "nix".into(), ..segment("true") })).await,
                ),
                "NotFound SEGMENT_NOT_FOUND: segment nix not found",
            ),
            (
                outcome(campaigns.update_segment(update(v1::Segment { etag: "1".into(), ..segment("true") })).await),
                "Aborted ETAG_MISMATCH: etag \"1\" is out of date, the current one is \"2\"",
            ),
            (
                outcome(campaigns.update_segment(update(segment("card.points > 1"))).await),
                "InvalidArgument INVALID_EXPRESSION: condition \"card.points > 1\" names \"card\", which is not there: \
                 only member is",
            ),
        ],
    );

    reviews(&caller, "I1", 2.0).await;
    reviews(&caller, "I2", 1.0).await;
    let get = v1::GetMemberRequest { member_id: member_id.clone() };
    let member = MemberServiceClient::new(caller.clone()).get_member(get).await.expect("there").into_inner();
    let member = member.member.expect("told");
    // The multiplier goes by the tier that the first one led to.
    assert_eq!((member.cards[0].tier_id.as_str(), member.cards[0].points), ("gold", 300 + 300));
    assert_eq!((member.cards[0].points_earned, &member.segment_ids), (600, &vec!["rich".to_owned()]));

    let standings = |leaderboard_id: &str, previous_round| v1::ListLeaderboardStandingsRequest {
        campaign_id: "velo-club".into(),
        leaderboard_id: leaderboard_id.into(),
        previous_round,
        page_size: 0,
    };
    register(&caller, "b@example.com").await;
    let now = campaigns.list_leaderboard_standings(standings("monthly", false)).await.expect("told").into_inner();
    let ranks: Vec<_> = now.standings.iter().map(|s| (s.rank, s.member_id.as_str(), s.points)).collect();
    assert_eq!(ranks, [(1, member_id.as_str(), 600)]);
    let last = campaigns.list_leaderboard_standings(standings("monthly", true)).await.expect("told").into_inner();
    assert_eq!((last.standings.len(), last.round_ends_at), (0, now.round_started_at));
    let no_board = campaigns.list_leaderboard_standings(standings("nix", false)).await.expect_err("none");
    assert_eq!(told(&no_board), "NotFound LEADERBOARD_NOT_FOUND: leaderboard nix not found");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_jobs() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    let mut campaigns = CampaignServiceClient::new(caller.clone());
    let get = campaigns.get_settings(v1::GetSettingsRequest {}).await.expect("there").into_inner().settings;
    let settings = get.expect("told");
    assert_eq!((settings.time_zone.as_str(), settings.etag.as_str()), ("UTC", "0"));
    let update = |settings| v1::UpdateSettingsRequest { settings: Some(settings) };
    let coins = v1::PointsPolicy { expire_after_days: 30, expiring_soon_days: 7, overdraft: 5 };
    let changed = v1::Settings { time_zone: "Europe/Bucharest".into(), coins: Some(coins), ..settings.clone() };
    let changed = campaigns.update_settings(update(changed)).await.expect("updated").into_inner().settings;
    let changed = changed.expect("told");
    assert_eq!((changed.coins, changed.etag.as_str()), (Some(coins), "1"));
    let soon = v1::PointsPolicy { expiring_soon_days: 30, ..coins };
    all_refused(
        &[],
        [
            (
                outcome(campaigns.update_settings(update(settings)).await),
                "Aborted ETAG_MISMATCH: etag \"0\" is out of date, the current one is \"1\"",
            ),
            (
                outcome(
                    campaigns
                        .update_settings(update(v1::Settings { time_zone: "Mars".into(), ..Default::default() }))
                        .await,
                ),
                "InvalidArgument INVALID_FIELD: time_zone \"Mars\" must be an IANA name, as Europe/Bucharest",
            ),
            (
                outcome(
                    campaigns.update_settings(update(v1::Settings { coins: Some(soon), ..Default::default() })).await,
                ),
                "InvalidArgument INVALID_FIELD: coins.expiring_soon_days \"30\" must be less than expire_after_days",
            ),
        ],
    );

    let mut admin = AdminServiceClient::new(running.operator_for("1000000001"));
    let jobs = admin.list_jobs(v1::ListJobsRequest {}).await.expect("listed").into_inner().jobs;
    let names: Vec<_> = jobs.iter().map(|job| job.job.as_str()).collect();
    assert_eq!(names, ["recalculation", "expiry", "birthdays", "leaderboards"]);
    let later = jobs.iter().all(|job| job.next_run_at.expect("told").seconds >= in_ms(0).seconds);
    assert!(later, "{jobs:?}");
    let run = |job: &str| v1::RunJobRequest { job: job.into() };
    let ran = admin.run_job(run("birthdays")).await.expect("ran").into_inner().job.expect("told");
    assert!(ran.last_run_at.is_some() && ran.last_completed_at.is_some() && !ran.running, "{ran:?}");
    let unknown = admin.run_job(run("dishes")).await.expect_err("no such job");
    assert_eq!(told(&unknown), "NotFound JOB_NOT_FOUND: job dishes not found");
    let denied = AdminServiceClient::new(caller).list_jobs(v1::ListJobsRequest {}).await.expect_err("operators only");
    assert_eq!(reason(&denied), "OPERATOR_REQUIRED");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contradictions_are_refused_when_they_are_written() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    let mut campaigns = CampaignServiceClient::new(caller.clone());
    type Spoil = fn(&mut v1::Campaign);
    let cases: [(Spoil, &str, &str); 14] = [
        (|c| c.tiers[1].threshold = 100, "tiers[1].threshold \"100\" must be more than the tier's before", ""),
        (|c| c.tiers[1].tier_id = "silver".into(), "tiers[1].tier_id \"silver\" stands twice", ""),
        (|c| c.multipliers[0].percent = 99, "multipliers[0].percent \"99\" must be from 100 to 10000", ""),
        (
            |c| c.multipliers[0].tier_id = "nix".into(),
            "multipliers[0].tier_id \"nix\" names no tier of this campaign",
            "",
        ),
        (|c| c.multipliers[0].segment_id = "nix".into(), "multipliers[0].segment_id \"nix\" names no segment", ""),
        (
            |c| c.leaderboards[0].period = v1::Period::Campaign.into(),
            "leaderboards[0].period \"campaign\" must be day, week or month: a round must end",
            "",
        ),
        (
            |c| c.leaderboards[0].period = 0,
            "leaderboards[0].period \"0\" must be a day, a week, a month or the campaign",
            "",
        ),
        (
            |c| c.leaderboards[0].prizes[0].to_rank = 1_001,
            "leaderboards[0].prizes[0].to_rank \"1001\" must be from from_rank to 1000",
            "",
        ),
        (|c| c.rules[0].condition = "nobody".into(), "rules[0].condition \"nobody\" names", "INVALID_EXPRESSION"),
        (|c| c.rules[0].coupon_book_id = "nix".into(), "rules[0].coupon_book_id \"nix\" names no coupon book", ""),
        (
            |c| c.rules[0].external = Some(v1::ExternalReward { reward_id: "x".into(), ..Default::default() }),
            "rules[0].external.amount \"0\" must be from 1 to 1000000",
            "",
        ),
        (
            |c| c.tier_basis = Some(v1::TierBasis { kind: v1::TierBasisKind::Balance.into(), months: 3 }),
            "tier_basis.months \"3\" must be 0 where tiers go by the balance",
            "",
        ),
        (
            |c| c.first_bonus = Some(v1::Bonus { points: -1, coins: 0 }),
            "first_bonus.points \"-1\" must be from 0 to 1000000",
            "",
        ),
        (
            |c| c.referral = Some(v1::Referral { rule_ids: vec!["nix".into()], ..Default::default() }),
            "referral.rule_ids[0] \"nix\" names no rule of this campaign",
            "",
        ),
    ];
    for (spoil, message, code) in cases {
        let mut bad = programme();
        spoil(&mut bad);
        for validate_only in [true, false] {
            let request = v1::UpdateCampaignRequest { campaign: Some(bad.clone()), validate_only };
            let refused = campaigns.update_campaign(request).await.expect_err(message);
            assert!(refused.message().starts_with(message), "{message}: {}", refused.message());
            let code = if code.is_empty() { "INVALID_FIELD" } else { code };
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, code));
            assert!(message.starts_with(&field(&refused)), "{}", field(&refused));
        }
    }
    let fine = v1::UpdateCampaignRequest { campaign: Some(programme()), validate_only: true };
    campaigns.update_campaign(fine).await.expect("nothing else is wrong with it");
    running.end().await;
}
