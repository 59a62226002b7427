//! The fast lane against a server that answers as the ids tell it to.

use super::*;
use crate::cli::scripted::{lines_of, send_text};

#[tokio::test]
async fn every_line_is_in_the_summary_once() {
    let many: Vec<String> = (0..5_000).map(|n| format!("ok{n}")).collect();
    let cases: &[(&str, bool, &str, bool)] = &[
        ("", false, "accepted 0", false),
        (&many.join(" "), false, "accepted 5000", false),
        ("ok1 ok2 ok1", false, "accepted 2, CONSUMPTION_EXISTS 1", false),
        ("ok1 stranger ! ok2", false, "accepted 2, ACCOUNT_NOT_FOUND 1, MALFORMED_LINE 1", true),
        ("! ok1 ok2", true, "accepted 0, MALFORMED_LINE 1", true),
        ("ok1 busy ok2", false, "accepted 3", false),
        ("cut", false, "accepted 0, unanswered 1", true),
    ];
    for (ids, stop_on_error, expected, fails) in cases {
        let send = async |file: &Path, client: &Client| record(Some(file), *stop_on_error, client).await;
        let (shown, failed, _) = send_text(&lines_of(ids, "consumptionId"), "consumptions", send).await;
        assert_eq!((shown.as_str(), failed), (*expected, *fails), "{} bytes of lines", ids.len());
    }
}
