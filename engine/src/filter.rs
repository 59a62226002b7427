//! Filters of subscriptions and readers: one CEL expression over `event`.
//!
//! ```text
//! event.type == 'points.credited' && event.data.amount >= 100
//! ```
//!
//! `event` has `type`, `sequence`, `time_ms`, `member_id` (absent where it is about nobody) and `data`, the
//! event's own fields.

use cel::Value;
use serde::Serialize;

use crate::event::{Event, Recorded};
use crate::expression::{Expression, variable};
use crate::id::MemberId;
use crate::rejection::InvalidField;

/// A checked expression.
#[derive(Debug)]
pub struct Filter(Expression);

#[derive(Serialize)]
struct Seen<'a> {
    r#type: &'a str,
    sequence: u64,
    time_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    member_id: Option<MemberId>,
    data: &'a Event,
}

impl Filter {
    /// Checks an expression; `None` where it is empty and lets everything through.
    ///
    /// # Errors
    ///
    /// The field `filter`, with what is wrong and where.
    pub fn parse(text: &str) -> Result<Option<Filter>, InvalidField> {
        if text.is_empty() {
            return Ok(None);
        }
        Expression::parse_with_reason("INVALID_FILTER", "filter", text, &["event"]).map(|e| Some(Filter(e)))
    }

    /// Whether the expression holds for an event.
    pub fn passes(&self, recorded: &Recorded<'_>) -> bool {
        self.passes_seen(&EventSeen::of(recorded))
    }

    /// The same, of what was made of an event once for many filters.
    pub fn passes_seen(&self, seen: &EventSeen) -> bool {
        self.0.holds(&[("event", seen.0.clone())])
    }
}

/// What filters see of an event. Making it costs more than most filters do.
#[derive(Debug)]
pub struct EventSeen(Value);

impl EventSeen {
    /// What filters see of this one.
    pub fn of(recorded: &Recorded<'_>) -> EventSeen {
        EventSeen(variable(&Seen {
            r#type: recorded.event.type_name(),
            sequence: recorded.sequence.0,
            time_ms: recorded.time.0,
            member_id: recorded.member,
            data: recorded.event,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;
    use crate::event::{FactPublished, Json, PointsCredited};
    use crate::id::{AdvertiserId, Environment, KeySlot, Sequence, Tenant};
    use crate::quantity::Points;
    use crate::time::UnixMillis;

    const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production };

    fn passes(filter: &str, event: &Event) -> bool {
        let (sequence, time) = (Sequence(42), UnixMillis(1_000));
        let member = Some("01966cf2-3c40-7000-8000-000000000001".parse().expect("a UUID"));
        let key_slot = KeySlot::NONE;
        let recorded =
            Recorded { sequence, cause: sequence, time, tenant: TENANT, member, key_slot, quiet: false, event };
        Filter::parse(filter).expect(filter).is_none_or(|f| f.passes(&recorded))
    }

    #[test]
    fn looks_into_events() {
        let credited: Event = PointsCredited {
            member_id: "01966cf2-3c40-7000-8000-000000000001".parse().expect("a UUID"),
            campaign_id: "velo-club".parse().expect("a slug"),
            amount: Points(150),
            previous_balance: Points(0),
            new_balance: Points(150),
            expires_at: None,
            origin: Origin::Adjustment { reason: "sorry".into() },
        }
        .into();
        let fact: Event = FactPublished {
            source: "wallet".into(),
            fact_id: "1".into(),
            fact_type: "wallet_pass.installed".into(),
            member_id: None,
            occurred_at: UnixMillis(0),
            personal: Json(r#"{"email":"a@b"}"#.into()),
            properties: Json(r#"{"platform":"ios","tags":["a","b"],"n":2.5}"#.into()),
        }
        .into();
        for (filter, on_points, on_fact) in [
            ("", true, true),
            ("event.type == 'points.credited'", true, false),
            ("event.type.startsWith('wallet_pass.')", false, true),
            ("event.data.amount >= 100", true, false),
            ("event.data.amount > 150 || event.sequence == 42", true, true),
            ("event.data.campaign_id in ['velo-club', 'other']", true, false),
            ("event.data.origin.kind == 'adjustment' && event.data.origin.reason.contains('orr')", true, false),
            ("has(event.data.platform) && event.data.platform == 'ios'", false, true),
            ("event.data.tags.exists(t, t == 'b')", false, true),
            ("event.data.n > 2.0", false, true),
            ("event.data.email == 'a@b'", false, true),
            ("event.member_id != ''", true, true),
            ("event.time_ms < 2000", true, true),
            ("event.type.matches('^points[.]')", true, false),
            ("event.data.amount", false, false),
        ] {
            assert_eq!(passes(filter, &credited), on_points, "{filter} on points");
            assert_eq!(passes(filter, &fact), on_fact, "{filter} on a fact");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let nested = "event.data.a.exists(x, event.data.b.exists(y, x == y))";
        let walks = ["event.data.a.exists(x, x == 1)"; 9].join(" && ");
        let deep = "(".repeat(900) + "true" + &")".repeat(900);
        let long = "true && ".repeat(300) + "true";
        for (filter, why) in [
            ("event.type ==", "line 1"),
            ("event.type = 'a'", "line 1"),
            ("amount > 3", "\"amount\""),
            ("event.data.a.exists(x, y == 1)", "\"y\""),
            (nested, "within a list"),
            (&walks, "walks 9 lists"),
            ("{'a': 1}.a == 1", "makes a map"),
            (&long, "2000 bytes"),
            (&deep, "CEL"),
            ("event.data.a.exists(x, x.matches('a{900}'))", "within a walk"),
        ] {
            let error = Filter::parse(filter).expect_err(filter);
            assert!(error.rule.contains(why), "{filter}: {error}");
            assert_eq!(error.reason, "INVALID_FILTER");
        }
    }
}
