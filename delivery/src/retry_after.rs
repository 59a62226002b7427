//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

/// Returns how long the receiver wants to be left alone, counted from `now_unix_s`.
///
/// A date in the past is no wait at all (0). `None` if the value is neither form. There is no upper
/// bound here: the retry policy has one.
#[must_use]
pub fn parse_ms(value: &HeaderValue, now_unix_s: i64) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit is a very long wait, not a malformed header.
        let seconds: u64 = text.parse().unwrap_or(u64::MAX);
        return Some(seconds.saturating_mul(1000));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = Duration::from_secs(now_unix_s.try_into().unwrap_or(0));
    let wait = since_epoch.saturating_sub(now);
    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood() {
        let now_unix_s = 784_111_717; // Sun, 06 Nov 1994 08:48:37 GMT
        let cases = [
            ("120", Some(120_000)),
            ("0", Some(0)),
            (" 7 ", Some(7_000)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(60_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(60_000)),
            ("Sun Nov  6 08:49:37 1994", Some(60_000)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("Sun, 06 Nov 1983 08:48:37 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (text, expected) in cases {
            let value = HeaderValue::try_from(text).expect("test value");
            assert_eq!(parse_ms(&value, now_unix_s), expected, "{text:?}");
        }
    }
}
