use proptest::prelude::*;

use super::*;

const FIELDS: &[Field] = &[
    Field("status", Kind::Word(&["WAITING", "DEAD_LETTERED"])),
    Field("attempts", Kind::Number),
    Field("type", Kind::Text),
    Field("time", Kind::Time),
];

/// `status` and `type` as given, 3 attempts, on the first of September 2026 at noon.
fn matches(filter: &str, status: &str, event_type: &str) -> bool {
    let filter = Filter::parse(filter, FIELDS).unwrap_or_else(|error| panic!("{filter}: {error}"));
    filter.matches(|field| match field {
        "status" => Value::Text(status),
        "attempts" => Value::Number(3),
        "type" => Value::Text(event_type),
        _ => Value::Time(UnixMillis::parse("2026-09-01T12:00:00Z").expect("a time")),
    })
}

#[test]
fn filters_let_through_what_they_say() {
    for (filter, expected) in [
        ("", true),
        ("  \n", true),
        ("status = DEAD_LETTERED", true),
        ("status=DEAD_LETTERED", true),
        ("status != DEAD_LETTERED", false),
        ("status = WAITING", false),
        (r#"status = "DEAD_LETTERED""#, true),
        ("attempts = 3 AND attempts >= 3 AND attempts <= 3", true),
        ("attempts < 3 OR attempts > 3 OR attempts != 3", false),
        ("attempts > -1", true),
        ("NOT attempts > 3", true),
        ("NOT (attempts > 2 AND status = DEAD_LETTERED)", false),
        ("NOT NOT attempts = 3", true),
        // OR binds tighter: this is (a OR b) AND c.
        ("attempts = 3 OR attempts = 4 AND status = WAITING", false),
        ("attempts = 3 OR (attempts = 4 AND status = WAITING)", true),
        ("type = points.credited", true),
        ("type = 'points.credited'", true),
        ("type = points.*", true),
        ("type != points.*", false),
        ("type = coins.*", false),
        ("type = *", true),
        ("type > points", true),
        (r#"type = "a \"quoted\" \\ one""#, false),
        ("time > 2026-09-01T11:59:59Z", true),
        ("time >= \"2026-09-01T14:00:00+02:00\"", true),
        ("time < 2026-09-01T12:00:00.000Z", false),
    ] {
        assert_eq!(matches(filter, "DEAD_LETTERED", "points.credited"), expected, "{filter}");
    }
    assert!(matches(r#"type = "a \"quoted\" \\ one""#, "WAITING", r#"a "quoted" \ one"#));
}

#[test]
fn a_filter_that_is_none_says_where() {
    let deep = format!("{}attempts = 1{}", "(".repeat(17), ")".repeat(17));
    let nots = format!("{}attempts = 1", "NOT ".repeat(17));
    let long = format!("type = {}", "x".repeat(LENGTH_MAX));
    for (filter, position, what) in [
        ("stat = WAITING", 1, r#""stat" is no field; known are status, attempts, type, time"#),
        ("attempts = 1 AND é = 2", 18, r#""é" is no field"#),
        ("type = é AND x = 2", 14, "is no field"),
        ("attempts", 9, "= != < <= > or >= expected after attempts"),
        ("attempts : 3", 10, "expected after attempts"),
        ("attempts =", 11, "a value expected for attempts"),
        ("attempts = (3)", 12, "a value expected for attempts"),
        ("attempts = three", 12, "attempts is a whole number"),
        ("attempts = 3.5", 12, "attempts is a whole number"),
        ("attempts = 99999999999999999999", 12, "attempts is a whole number"),
        ("status = GONE", 10, "status is, by = or !=, one of WAITING, DEAD_LETTERED"),
        ("status > WAITING", 10, "by = or !="),
        ("time > yesterday", 8, "time is an instant"),
        ("attempts = 1 attempts = 2", 14, "AND, OR or the end expected"),
        ("attempts = 1 and attempts = 2", 14, "AND, OR or the end expected"),
        ("attempts = 1 AND", 17, "ends where a field"),
        ("(attempts = 1", 1, "the bracket has no end"),
        ("(attempts = 1 attempts = 2)", 15, "AND, OR or ) expected"),
        ("attempts = 1)", 13, "AND, OR or the end expected"),
        ("()", 2, "a field, NOT or ( expected"),
        ("! attempts = 1", 1, "!= or NOT expected"),
        ("type = 'x", 8, "the quote has no end"),
        (r"type = 'x\n'", 10, r"\ stands before"),
        ("'type' = x", 1, "a field, NOT or ( expected"),
        (&deep, 17, "nested deeper than 16"),
        (&nots, 65, "nested deeper than 16"),
        (&long, 1, "more than 2048 bytes"),
    ] {
        let error = Filter::parse(filter, FIELDS).expect_err(filter);
        assert!(error.position == position && error.what.contains(what), "{filter}: {error}");
    }
    let refused = Filter::parse("stat = 1", FIELDS).expect_err("no field").refused("stat = 1");
    assert!(refused.reason == "INVALID_FIELD" && refused.message.contains("position 1"), "{refused:?}");
}

#[test]
fn a_filter_knows_its_fields() {
    let filter = Filter::parse("NOT (attempts = 1 OR type = x)", FIELDS).expect("a filter");
    assert!(filter.names("type") && filter.names("attempts") && !filter.names("time"));
    assert!(!Filter::default().names("type"));
}

proptest! {
    #[test]
    fn whatever_is_given_nothing_panics(text in any::<String>()) {
        drop(Filter::parse(&text, FIELDS));
    }

    /// Of pieces that mean something, so that parsing comes further than the first character.
    #[test]
    fn whatever_is_put_together_nothing_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        let text = pieces.concat();
        if let Ok(filter) = Filter::parse(&text, FIELDS) {
            filter.matches(|field| match field {
                "attempts" => Value::Number(u64::MAX),
                "time" => Value::Time(UnixMillis::MIN),
                _ => Value::Text("é"),
            });
        }
    }
}

const PIECES: &[&str] = &[
    "attempts",
    "status",
    "type",
    "time",
    " ",
    " AND ",
    " OR ",
    "NOT ",
    "(",
    ")",
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "!",
    "'",
    "\"",
    "\\",
    "*",
    "-",
    "1",
    "WAITING",
    "2026-09-01T12:00:00Z",
    "é",
    "\u{2003}",
    "\0",
];
