//! A file against a server that answers as the ids tell it to.

use super::*;
use crate::cli::scripted::{lines_of, send_text};

/// Publishes a file, and shows the summary, whether it failed, and what came.
async fn publish_text(text: &str, stop_on_error: bool) -> (String, bool, Vec<v1::Fact>) {
    let send = async |file: &Path, client: &Client| publish(Some(file), "shop".into(), stop_on_error, client).await;
    send_text(text, "facts", send).await
}

#[tokio::test]
async fn every_line_is_in_the_summary_once() {
    let many: Vec<String> = (0..1_000).map(|n| format!("ok{n}")).collect();
    let cases: &[(&str, bool, &str, bool)] = &[
        ("", false, "published 0", false),
        (&many.join(" "), false, "published 1000", false),
        ("ok1 ok2 ok1", false, "published 2, FACT_EXISTS 1", false),
        ("ok1 stranger ! ok2", false, "published 2, ACCOUNT_NOT_FOUND 1, MALFORMED_LINE 1", true),
        ("! ok1 ok2", true, "published 0, MALFORMED_LINE 1", true),
        ("ok1 busy ok2", false, "published 3", false),
        ("cut", false, "published 0, unanswered 1", true),
    ];
    for (ids, stop_on_error, expected, fails) in cases {
        let (shown, failed, _) = publish_text(&lines_of(ids, "factId"), *stop_on_error).await;
        assert_eq!((shown.as_str(), failed), (*expected, *fails), "{} bytes of lines", ids.len());
    }
}

#[tokio::test]
async fn a_members_facts_are_told_in_order() {
    let line = |n: usize| {
        let member = n % 3;
        format!(r#"{{"factId":"ok{n}","identifiers":[{{"key":"email","value":"{member}@x"}}]}}"#)
    };
    let text: Vec<String> = (0..60).map(line).collect();
    let (shown, _, came) = publish_text(&text.join("\n"), false).await;
    assert_eq!(shown, "published 60");
    for member in 0..3 {
        let email = format!("{member}@x");
        let of_member = came.iter().filter(|fact| fact.identifiers[0].value == email);
        let ids: Vec<&str> = of_member.map(|fact| fact.fact_id.as_str()).collect();
        let expected: Vec<String> = (0..60).filter(|n| n % 3 == member).map(|n| format!("ok{n}")).collect();
        assert_eq!(ids, expected, "{email}");
    }
}

#[test]
fn a_line_is_a_fact() {
    let line = r#"{"source":"shop","factId":"f1","type":"wallet_pass.installed","identifiers":[{"key":"email","value":"a@b"}],"occurredAt":"2025-04-25T12:34:00Z","properties":{"n":1.50}}"#;
    let fact = parse(line.as_bytes()).expect("a fact");
    let expected = v1::Fact {
        source: "shop".into(),
        fact_id: "f1".into(),
        r#type: "wallet_pass.installed".into(),
        identifiers: vec![v1::Identifier { key: "email".into(), value: "a@b".into() }],
        occurred_at: "2025-04-25T12:34:00Z".into(),
        properties_json: r#"{"n":1.50}"#.into(),
    };
    assert_eq!(fact, expected);
    let told = parse(br#"{"factId":"f1","propertys":{}}"#).expect_err("a word that is not known");
    assert!(told.contains("propertys"), "{told}");
}
