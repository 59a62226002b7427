//! Facts and their types, over a real connection.

use v1::fact_result::Outcome;

use super::*;

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "shop": {"type": "string"},
        "email": {"type": "string", "x-personal": true},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "integer"}}}}
    },
    "required": ["shop"]
}"#;

fn fact(id: &str, fact_type: &str, properties: &str) -> v1::Fact {
    v1::Fact {
        source: "till".into(),
        fact_id: id.into(),
        r#type: fact_type.into(),
        identifiers: Vec::new(),
        occurred_at: "2026-01-02T03:04:05Z".into(),
        properties_json: properties.into(),
    }
}

fn fact_type(schema: &str, etag: &str) -> v1::RegisterFactTypeRequest {
    let fact_type = v1::FactType {
        name: "fitting.booked".into(),
        description: "A fitting was booked.".into(),
        schema_json: schema.into(),
        etag: etag.into(),
        built_in: false,
    };
    v1::RegisterFactTypeRequest { fact_type: Some(fact_type) }
}

fn field(status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    violations.into_iter().next().map(|violation| violation.field).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_registered_and_facts_checked_by_them() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let mut ingest = IngestServiceClient::new(caller.clone());
    let publish = |id: &str, fact_type: &str, properties: &str| v1::PublishFactRequest {
        fact: Some(fact(id, fact_type, properties)),
    };

    let unknown = ingest.publish_fact(publish("1", "fitting.booked", "{}")).await.expect_err("unknown");
    assert_eq!((reason(&unknown).as_str(), field(&unknown).as_str()), ("UNKNOWN_FACT_TYPE", "type"));
    for (request, expected, at) in [
        (fact_type("{\"type\":\"objekt\"}", ""), "INVALID_SCHEMA", "schema.type"),
        (fact_type("{\"$ref\":\"https://example.com/a\"}", ""), "INVALID_SCHEMA", "schema.$ref"),
        (fact_type(&format!("{{\"title\":\"{}\"}}", "x".repeat(16 * 1024)), ""), "INVALID_SCHEMA", "schema"),
        (fact_type("[", ""), "INVALID_SCHEMA", "schema"),
        (fact_type(SCHEMA, "4"), "ETAG_MISMATCH", ""),
    ] {
        let refused = ingest.register_fact_type(request).await.expect_err(expected);
        assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), (expected, at), "{}", refused.message());
    }
    for name in ["points.credited", "campaign.viewed", "wallet_pass.installed", "Fitting"] {
        let mut request = fact_type(SCHEMA, "");
        request.fact_type.as_mut().expect("given").name = name.into();
        let refused = ingest.register_fact_type(request).await.expect_err(name);
        assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("INVALID_FIELD", "name"), "{name}");
    }
    let registered = ingest.register_fact_type(fact_type(SCHEMA, "0")).await.expect("registered").into_inner();
    let registered = registered.fact_type.expect("answered");
    assert_eq!((registered.etag.as_str(), registered.built_in), ("1", false));
    let again = ingest.register_fact_type(fact_type(SCHEMA, "")).await.expect("is so").into_inner();
    assert_eq!(again.fact_type.as_ref(), Some(&registered), "what it is already changes nothing");

    let properties = r#"{"shop":"a","email":"ana@example.com","lines":[{"size":38}]}"#;
    let first = ingest.publish_fact(publish("1", "fitting.booked", properties)).await.expect("fits").into_inner();
    for (properties, at) in [
        ("{}", "properties.shop"),
        (r#"{"shop":"a","lines":[{},{"size":"L"}]}"#, "properties.lines[1].size"),
        (r#"{"shop":"a","email":1}"#, "properties.email"),
    ] {
        let refused = ingest.publish_fact(publish("2", "fitting.booked", properties)).await.expect_err(at);
        assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("FACT_SCHEMA_MISMATCH", at));
    }
    // What is personal is told with the rest, and stands apart in the journal.
    let mut events = EventServiceClient::new(caller.clone());
    let request = v1::ReadEventsRequest { from_sequence: first.sequence, page_size: 1, ..Default::default() };
    let read = events.read_events(request).await.expect("read").into_inner().events;
    let data: serde_json::Value = serde_json::from_str(&read[0].data_json).expect("JSON");
    assert_eq!((&data["email"], &data["shop"]), (&"ana@example.com".into(), &"a".into()));
    let stored = running.state.node.feed().record_at(punchline_engine::id::Sequence(first.sequence));
    let stored = stored.expect("read").expect("there");
    let Some(punchline_engine::event::Event::FactPublished(event)) = stored.record.events.first() else {
        panic!("another event: {:?}", stored.record.events)
    };
    assert_eq!(&*event.personal.0, r#"{"email":"ana@example.com"}"#);
    assert!(!event.properties.0.contains("email"), "{}", event.properties.0);

    // The next version counts at once; a repeat of what came in before is still one.
    let looser = r#"{"properties":{"shop":{"type":"string","x-personal":true}}}"#;
    let stale = ingest.register_fact_type(fact_type(looser, "0")).await.expect_err("there is one");
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    let second = ingest.register_fact_type(fact_type(looser, "1")).await.expect("registered").into_inner();
    assert_eq!(second.fact_type.expect("answered").etag, "2");
    ingest.publish_fact(publish("2", "fitting.booked", "{}")).await.expect("fits now");
    let repeated = ingest.publish_fact(publish("1", "fitting.booked", properties)).await.expect_err("a repeat");
    assert_eq!(reason(&repeated), "FACT_EXISTS");
    let told = repeated.get_details_error_info().expect("there").metadata;
    assert_eq!(told["sequence"], first.sequence.to_string());

    // All types by name, page by page; others have none of ours.
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListFactTypesRequest { page_size: 7, page_token };
        let page = ingest.list_fact_types(request).await.expect("listed").into_inner();
        names.extend(page.fact_types.into_iter().map(|t| (t.name, t.built_in)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(names.is_sorted() && names.contains(&("fitting.booked".into(), false)), "{names:?}");
    assert!(names.contains(&("wallet_pass.installed".into(), true)), "{names:?}");
    let mut subscriptions = SubscriptionServiceClient::new(caller.clone());
    let listed = subscriptions.list_event_types(v1::ListEventTypesRequest::default()).await.expect("listed");
    let listed = listed.into_inner().event_types;
    let own = listed.iter().find(|event_type| event_type.name == "fitting.booked").expect("one can subscribe to it");
    assert_eq!(own.description, "A fitting was booked.");
    let other = running.advertiser("1000000002", vec![]).await;
    let mut other = IngestServiceClient::new(other);
    let get = |name: &str| v1::GetFactTypeRequest { name: name.into() };
    let missing = other.get_fact_type(get("fitting.booked")).await.expect_err("not theirs");
    assert_eq!(reason(&missing), "FACT_TYPE_NOT_FOUND");
    let built_in = other.get_fact_type(get("redemption.started")).await.expect("everybody's").into_inner();
    let built_in = built_in.fact_type.expect("answered");
    assert!(built_in.built_in && built_in.schema_json.contains("\"cost\""), "{built_in:?}");
    let refused = other.publish_fact(publish("1", "fitting.booked", "{}")).await.expect_err("not theirs");
    assert_eq!(reason(&refused), "UNKNOWN_FACT_TYPE");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_result_for_each() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![v1::Scope::Ingest.into()]).await;
    let mut ingest = IngestServiceClient::new(caller);
    let batch = |facts: Vec<v1::Fact>| v1::BatchPublishFactsRequest { facts };
    let pass = |id: &str| fact(id, "wallet_pass.installed", r#"{"platform":"apple"}"#);
    let stranger = v1::Fact {
        identifiers: vec![v1::Identifier { key: "email".into(), value: "nobody@example.com".into() }],
        ..pass("4")
    };
    let facts = vec![
        pass("1"),
        fact("2", "wallet_pass.installed", r#"{"platform":1}"#),
        pass("1"),
        stranger,
        fact("1", "wallet_pass.installed", "{}"),
        pass("3"),
    ];
    let results = ingest.batch_publish_facts(batch(facts)).await.expect("answered").into_inner().results;
    let told: Vec<String> = results
        .iter()
        .map(|result| match result.outcome.as_ref().expect("one") {
            Outcome::Receipt(receipt) => format!("ok {}", receipt.sequence),
            Outcome::Error(error) => {
                let at = error.get_details_bad_request().and_then(|b| Some(b.field_violations.first()?.field.clone()));
                let reason = error.get_details_error_info().expect("every error has one").reason;
                format!("{reason} {}", at.unwrap_or_default()).trim().to_owned()
            }
        })
        .collect();
    let Some(Outcome::Receipt(first)) = &results[0].outcome else { panic!("{told:?}") };
    let expected = [
        format!("ok {}", first.sequence),
        "FACT_SCHEMA_MISMATCH facts[1].properties.platform".into(),
        "FACT_EXISTS".into(),
        "ACCOUNT_NOT_FOUND".into(),
        "FACT_EXISTS_WITH_DIFFERENT_CONTENT".into(),
        format!("ok {}", first.sequence + 1),
    ];
    assert_eq!(told, expected);
    for count in [0, 1_001] {
        let facts = (0..count).map(|n| pass(&n.to_string())).collect();
        let refused = ingest.batch_publish_facts(batch(facts)).await.expect_err("out of bounds");
        assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("INVALID_FIELD", "facts"), "{count}");
    }
    let refused = ingest.register_fact_type(fact_type(SCHEMA, "")).await.expect_err("may only ingest");
    assert_eq!(reason(&refused), "SCOPE_MISSING");
    running.end().await;
}
