//! The delivery log and filters of lists, as a client sees them.

use bytes::Bytes;
use punchline_delivery::outcome::ErrorCode;

use super::*;

type Deliveries = DeliveryServiceClient<As>;

/// Three deliveries: one is refused with 500, one times out, one arrives.
async fn three(running: &Running, caller: &As) -> (String, String) {
    let member = set_up(caller).await;
    let answers = [
        Step::Body(500, Bytes::from(vec![b'x'; 5_000])),
        Step::Fail(ErrorCode::Timeout),
        Step::Body(200, Bytes::from_static(b"thanks")),
    ];
    running.courier.next(URL, answers);
    let given = v1::Subscription {
        url: URL.into(),
        event_types: vec!["points.*".into()],
        no_retries: true,
        ..Default::default()
    };
    let create = v1::CreateSubscriptionRequest { subscription: Some(given), ..Default::default() };
    let made = SubscriptionServiceClient::new(caller.clone()).create_subscription(create).await.expect("created");
    let mut ingest = IngestServiceClient::new(caller.clone());
    for (id, quantity) in [("I1", 1.0), ("I2", 2.0), ("I3", 3.0)] {
        let request = v1::RecordConsumptionRequest { consumption: Some(consumption(id, quantity)) };
        ingest.record_consumption(request).await.expect("accepted");
    }
    (made.into_inner().subscription.expect("answered").subscription_id, member.member_id)
}

async fn recent(deliveries: &mut Deliveries, id: &str, filter: &str) -> Vec<v1::Attempt> {
    let request =
        v1::ListRecentAttemptsRequest { subscription_id: id.into(), filter: filter.into(), ..Default::default() };
    let listed = deliveries.list_recent_attempts(request).await.unwrap_or_else(|refused| panic!("{filter}: {refused}"));
    listed.into_inner().attempts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_is_logged_and_found_by_a_filter() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let other = running.advertiser("2", vec![]).await;
    let (id, member_id) = three(&running, &caller).await;
    let mut deliveries = DeliveryServiceClient::new(caller);
    let all = loop {
        let all = recent(&mut deliveries, &id, "").await;
        if all.len() == 3 {
            break all;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let outcomes: Vec<_> =
        all.iter().map(|a| (a.outcome(), a.status, a.error.as_str(), a.response_body.len())).collect();
    use v1::AttemptOutcome::{Delivered, Retry};
    assert_eq!(outcomes, [(Delivered, 200, "", 6), (Retry, 0, "timeout", 0), (Retry, 500, "", 4_096)]);
    assert!(all.iter().all(|a| a.number == 1 && a.event_type == "points.credited" && a.at.is_some()));
    let sequence = |i: usize| all[i].sequence;
    for (filter, expected) in [
        ("status_code >= 500", vec![2]),
        ("status_code = 0 AND error = time*", vec![1]),
        ("outcome != DELIVERED", vec![1, 2]),
        (&format!("sequence > {}", sequence(2)), vec![0, 1]),
        ("number = 1 AND latency_ms >= 0 AND event_type = points.*", vec![0, 1, 2]),
        ("event_type = coins.* OR number > 1", vec![]),
        ("time > 2026-01-01T00:00:00Z AND NOT outcome = RETRY", vec![0]),
        ("time < 2026-01-01T00:00:00Z", vec![]),
    ] {
        let found: Vec<u64> = recent(&mut deliveries, &id, filter).await.iter().map(|a| a.sequence).collect();
        assert_eq!(found, expected.into_iter().map(sequence).collect::<Vec<_>>(), "{filter}");
    }
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListRecentAttemptsRequest {
            subscription_id: id.clone(),
            page_size: 1,
            page_token: token,
            ..Default::default()
        };
        let page = deliveries.list_recent_attempts(request).await.expect("a page").into_inner();
        pages.extend(page.attempts);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, all);

    // One delivery's attempts: from the log where it went well, from the log and its row where it did not.
    for (i, status, kept) in [(0, 200, 6), (2, 500, 4_096)] {
        let request = v1::ListAttemptsRequest { subscription_id: id.clone(), sequence: sequence(i) };
        let attempts = deliveries.list_attempts(request).await.expect("listed").into_inner().attempts;
        let found: Vec<_> = attempts.iter().map(|a| (a.status, a.response_body.len(), a.sequence)).collect();
        assert_eq!(found, [(status, kept, sequence(i))]);
    }

    // Attempts are logged at once; what came of them is reported a little later.
    loop {
        let request = v1::ListDeadLettersRequest { subscription_id: id.clone(), ..Default::default() };
        let dead = deliveries.list_dead_letters(request).await.expect("listed").into_inner().dead_letters;
        if dead.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (filter, expected) in [
        ("", vec![2, 1]),
        ("status = DEAD_LETTERED AND last_status_code >= 500", vec![2]),
        ("last_error = timeout AND event_type = points.credited", vec![1]),
        ("event_type != points.*", vec![]),
        (&format!("member_id = {member_id} AND attempts = 1"), vec![2, 1]),
        (&format!("sequence >= {} AND status != WAITING", sequence(1)), vec![1]),
        ("attempts > 1 OR member_id = ''", vec![]),
    ] {
        let filter = filter.to_owned();
        let subscription_id = id.clone();
        let request = v1::ListDeliveriesRequest { subscription_id, filter: filter.clone(), ..Default::default() };
        let listed = deliveries.list_deliveries(request).await.expect("listed").into_inner().deliveries;
        let subscription_id = id.clone();
        let request = v1::ListDeadLettersRequest { subscription_id, filter: filter.clone(), ..Default::default() };
        let dead = deliveries.list_dead_letters(request).await.expect("listed").into_inner().dead_letters;
        assert_eq!(listed, dead);
        let found: Vec<u64> = listed.iter().map(|d| d.sequence).collect();
        assert_eq!(found, expected.into_iter().map(sequence).collect::<Vec<_>>(), "{filter}");
    }

    let wrong = v1::ListDeadLettersRequest {
        subscription_id: id.clone(),
        filter: "last_status > 1".into(),
        ..Default::default()
    };
    let refused = deliveries.list_dead_letters(wrong).await.expect_err("no such field");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    assert!(refused.message().contains("known are status, sequence"), "{}", refused.message());
    let token = crate::convert::page::token(crate::convert::page::List::Deliveries, 1);
    let request =
        v1::ListRecentAttemptsRequest { subscription_id: id.clone(), page_token: token, ..Default::default() };
    let refused = deliveries.list_recent_attempts(request).await.expect_err("another list's token");
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");

    let mut others = DeliveryServiceClient::new(other);
    let request = || v1::ListRecentAttemptsRequest { subscription_id: id.clone(), ..Default::default() };
    let refused = others.list_recent_attempts(request()).await.expect_err("another's");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "SUBSCRIPTION_NOT_FOUND"));
    let ingest_only = running.advertiser("3", vec![v1::Scope::Ingest.into()]).await;
    let refused = DeliveryServiceClient::new(ingest_only).list_recent_attempts(request()).await.expect_err("no scope");
    assert_eq!(reason(&refused), "SCOPE_MISSING");
    running.end().await;
}
