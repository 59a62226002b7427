//! Filters of subscriptions and readers: one CEL expression over `event`.
//!
//! ```text
//! event.type == 'points.credited' && event.data.amount >= 100
//! ```
//!
//! `event` has `type`, `sequence`, `time_ms`, `member_id` (absent where it is about nobody) and `data`, the
//! event's own fields.
//!
//! # Invariants
//!
//! - An evaluation ends: an expression is short, and may walk a list but not a list for each of a list.
//! - An expression that fails on an event, as for a field that it does not have, does not let it through.

use cel::common::ast::Expr;
use cel::{Context, IdedExpr, Program, Value};
use serde::Serialize;

use crate::dispatch::subscription::FILTER_LEN_MAX;
use crate::event::{Event, Recorded};
use crate::id::MemberId;
use crate::rejection::InvalidField;

/// Most lists that one expression may walk.
const WALKS_MAX: usize = 8;
/// Most regular expressions of one expression.
const PATTERNS_MAX: usize = 4;

/// A checked expression.
#[derive(Debug)]
pub struct Filter {
    program: Program,
}

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
        let refused = |rule: String| InvalidField::with_reason("INVALID_FILTER", "filter", text, rule);
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > FILTER_LEN_MAX {
            return Err(refused("must be at most 2000 bytes".into()));
        }
        // The parser is not ours: should it fail on some text, that text is refused.
        let compiled = std::panic::catch_unwind(|| Program::compile(text));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(errors)) => {
                let why: Vec<String> =
                    errors.errors.iter().map(|e| format!("line {}, column {}: {}", e.pos.0, e.pos.1, e.msg)).collect();
                return Err(refused(format!("is no CEL expression: {}", why.join("; "))));
            }
            Err(_) => return Err(refused("is no CEL expression".into())),
        };
        let (mut walks, mut patterns) = (0, 0);
        check(program.expression(), &mut Vec::new(), (&mut walks, &mut patterns)).map_err(&refused)?;
        if walks > WALKS_MAX {
            return Err(refused(format!("walks {walks} lists, at most {WALKS_MAX} are allowed")));
        }
        Ok(Some(Filter { program }))
    }

    /// Whether the expression holds for an event.
    pub fn passes(&self, recorded: &Recorded<'_>) -> bool {
        let seen = Seen {
            r#type: recorded.event.type_name(),
            sequence: recorded.sequence.0,
            time_ms: recorded.time.0,
            member_id: recorded.member,
            data: recorded.event,
        };
        // Through JSON, since a fact's properties are JSON text.
        let Ok(Ok(event)) = serde_json::to_value(seen).map(cel::to_value) else { return false };
        let mut context = Context::default();
        context.add_variable_from_value("event", event);
        matches!(self.program.execute(&context), Ok(Value::Bool(true)))
    }
}

/// Refuses names that are not there, and a walk within a walk.
fn check<'a>(
    expression: &'a IdedExpr,
    walked: &mut Vec<&'a str>,
    (walks, patterns): (&mut usize, &mut usize),
) -> Result<(), String> {
    match &expression.expr {
        Expr::Ident(name) if name == "event" || walked.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => Err(format!("names {name:?}, which is not there: only event is")),
        Expr::Select(select) => check(&select.operand, walked, (walks, patterns)),
        Expr::Call(call) => {
            // Each use compiles its pattern.
            if call.func_name == "matches" {
                *patterns += 1;
                if !walked.is_empty() || *patterns > PATTERNS_MAX {
                    return Err(format!("uses matches within a walk over a list, or more than {PATTERNS_MAX} times"));
                }
            }
            if let Some(target) = &call.target {
                check(target, walked, (walks, patterns))?;
            }
            call.args.iter().try_for_each(|argument| check(argument, walked, (walks, patterns)))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| check(element, walked, (walks, patterns))),
        Expr::Comprehension(walk) => {
            if !walked.is_empty() {
                return Err("walks a list within a list".into());
            }
            *walks += 1;
            check(&walk.iter_range, walked, (walks, patterns))?;
            walked.extend([walk.iter_var.as_str(), walk.accu_var.as_str()]);
            walked.extend(walk.iter_var2.as_deref());
            for part in [&walk.accu_init, &walk.loop_cond, &walk.loop_step, &walk.result] {
                check(part, walked, (walks, patterns))?;
            }
            walked.clear();
            Ok(())
        }
        Expr::Map(_) | Expr::Struct(_) => Err("makes a map, which a filter has no use for".into()),
        Expr::Literal(_) | Expr::Unspecified => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;
    use crate::event::{FactPublished, Json, PointsCredited};
    use crate::id::{AdvertiserId, Environment, Sequence, Tenant};
    use crate::quantity::Points;
    use crate::time::UnixMillis;

    const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production };

    fn passes(filter: &str, event: &Event) -> bool {
        let (sequence, time) = (Sequence(42), UnixMillis(1_000));
        let member = Some("01966cf2-3c40-7000-8000-000000000001".parse().expect("a UUID"));
        let recorded = Recorded { sequence, cause: sequence, time, tenant: TENANT, member, event };
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
