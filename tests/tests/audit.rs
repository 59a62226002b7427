//! Who asked for what: answered from the journal, after a restart too.

use punchline_proto::v1;
use punchline_tests::api::{Refused, consumption};
use punchline_tests::server::{OPERATOR_TOKEN, Server};
use punchline_tests::world::{PHONE, World, authorize};
use serde_json::Value;

/// What nobody finds in the trail: it stands in calls.
const NAME: &str = "Ioana-Personal";
const HEADER: &str = "a-header-that-is-a-secret";

async fn trail(world: &World, request: v1::ReadAuditTrailRequest) -> Vec<v1::AuditEntry> {
    let (mut entries, mut from_sequence) = (Vec::new(), request.from_sequence);
    loop {
        let request = v1::ReadAuditTrailRequest { from_sequence, ..request.clone() };
        let page = world.api.admin().read_audit_trail(request).await.expect("an operator may ask").into_inner();
        entries.extend(page.entries);
        if page.next_sequence > page.head_sequence {
            return entries;
        }
        from_sequence = page.next_sequence;
    }
}

fn told(entries: &[v1::AuditEntry]) -> Vec<(&str, &str, &str)> {
    entries
        .iter()
        .map(|e| (e.actor.as_str(), e.method.as_str(), e.event_types.first().map_or("", String::as_str)))
        .collect()
}

#[tokio::test]
async fn who_paused_this_subscription_and_when() {
    let mut world = World::start(Server::setup()).await;
    let request = v1::IssueCredentialRequest {
        api_key: "pk-ops".into(),
        scopes: vec![v1::Scope::Manage.into(), v1::Scope::Read.into()],
        ..Default::default()
    };
    let issued = world.api.admin().issue_credential(request).await.expect("issued").into_inner();
    let token = authorize(&world.server, &world.advertiser_id, "pk-ops", &issued.api_secret).await;
    let by_key = world.api.bearer(&token);
    let subscription = v1::Subscription {
        url: world.receiver.url("/a"),
        event_types: vec!["points.*".into()],
        headers: [("x-key".to_owned(), HEADER.to_owned())].into(),
        ..Default::default()
    };
    let (id, secret) = by_key.new_subscription(subscription).await;
    let pause = v1::PauseSubscriptionRequest { subscription_id: id.clone(), ..Default::default() };
    let resume = v1::ResumeSubscriptionRequest { subscription_id: id.clone() };
    by_key.subscriptions().pause_subscription(pause.clone()).await.expect("paused");
    world.api.subscriptions().resume_subscription(resume).await.expect("resumed");
    // Reading, taking in and being refused leave nothing.
    world.api.subscription(&id).await;
    world.api.record(consumption("c-1", PHONE, &[("article", 1)])).await.expect("accepted");
    let unknown = "0192f0c1-7c3a-7cc2-8000-000000000000".into();
    let unknown = v1::PauseSubscriptionRequest { subscription_id: unknown, ..Default::default() };
    let refused = by_key.subscriptions().pause_subscription(unknown).await.expect_err("there is none");
    assert_eq!(Refused::of(&refused).reason, "SUBSCRIPTION_NOT_FOUND");
    assert!(world.server.log().lines().any(|line| {
        line.contains("a change was refused") && line.contains("pk-ops") && line.contains("PauseSubscription")
    }));
    let profile = v1::Profile { first_name: NAME.into(), ..Default::default() };
    let member_id = world.member_id.clone();
    let request = v1::UpdateMemberRequest {
        member_id: member_id.clone(),
        profile: Some(profile),
        update_mask: Some(prost_types::FieldMask { paths: vec!["profile.first_name".into()] }),
        ..Default::default()
    };
    world.api.members().update_member(request).await.expect("changed");

    let about = |resource_id: &str| v1::ReadAuditTrailRequest { resource_id: resource_id.into(), ..Default::default() };
    let entries = trail(&world, about(&id)).await;
    assert_eq!(
        told(&entries),
        [
            ("pk-ops", "SubscriptionService/CreateSubscription", "subscription.created"),
            ("pk-ops", "SubscriptionService/PauseSubscription", "subscription.paused"),
            ("operator", "SubscriptionService/ResumeSubscription", "subscription.resumed"),
        ]
    );
    assert!(entries.iter().all(|e| e.advertiser_id == world.advertiser_id && e.environment == "production"));
    assert!(entries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence && pair[1].time.is_some()));
    let member = trail(&world, about(&member_id)).await;
    let methods: Vec<&str> = member.iter().map(|e| e.method.as_str()).collect();
    assert_eq!(methods, ["MemberService/RegisterMember", "MemberService/UpdateMember"]);
    let by_operator = v1::ReadAuditTrailRequest { actor: "operator".into(), page_size: 1, ..Default::default() };
    let all = trail(&world, by_operator).await;
    assert!(all.iter().all(|e| e.actor == "operator") && all.len() >= 4, "{all:?}");
    let later = v1::ReadAuditTrailRequest { from_time: entries[2].time, ..Default::default() };
    let seconds = |e: &v1::AuditEntry| e.time.as_ref().map(|time| (time.seconds, time.nanos));
    assert!(trail(&world, later).await.iter().all(|e| seconds(e) >= seconds(&entries[2])), "from a time on");

    // Another advertiser's operator view, and who is no operator.
    let (_, other) = world.server.operator().new_advertiser("B").await;
    let page = other.admin().read_audit_trail(about(&id)).await.expect("an operator may ask").into_inner();
    assert!(page.entries.is_empty(), "{page:?}");
    let refused = by_key.admin().read_audit_trail(about(&id)).await.expect_err("operators only");
    assert_eq!(Refused::of(&refused).reason, "OPERATOR_REQUIRED");

    // After a crash, by the command line; and no secret in any of it.
    world.server.kill();
    world.server.restart().await;
    assert_eq!(trail(&world, about(&id)).await, entries);
    let endpoint = format!("http://{}", world.server.grpc_address());
    let arguments = ["--endpoint", &endpoint, "--token", OPERATOR_TOKEN, "--output", "json", "audit"];
    let shown = world.server.run(&arguments);
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).expect("text");
    for hidden in [NAME, HEADER, PHONE, &secret, &issued.api_secret, OPERATOR_TOKEN, &token] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let rows: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
    let paused: Vec<&Value> = rows.iter().filter(|row| row["event_types"][0] == "subscription.paused").collect();
    assert_eq!(paused.len(), 1, "{text}");
    assert_eq!(paused[0]["actor"], "pk-ops");
}
