//! From a ledger entry back to what caused it, in one sentence.

use punchline_engine::event::{Event, Origin};
use punchline_engine::loyalty::ledger::{Currency, Entry};
use punchline_engine::loyalty::tenant::TenantConfig;

/// Why an entry is there.
pub(super) struct Explained {
    /// The rule as it is written now; empty where there is none.
    pub(super) rule_json: String,
    /// For people.
    pub(super) sentence: String,
}

/// Explains `entry`; `before` are the events of its record that stand before it.
///
/// What a unit gave is worked out from the entry itself: the rule may have changed since.
pub(super) fn explain(before: &[Event], entry: &Entry, config: &TenantConfig) -> Explained {
    let what = match &entry.currency {
        Currency::Points(_) => "points",
        Currency::Coins => "coins",
    };
    let amount = entry.amount;
    let (consumption_id, line, sku, rule_id) = match &entry.origin {
        Origin::Adjustment { reason } => {
            let sentence = format!("{amount} {what} because somebody corrected the balance: {reason}");
            return Explained { rule_json: String::new(), sentence };
        }
        Origin::Consumption { consumption_id, line, sku, rule_id } => (consumption_id, *line, sku, rule_id),
    };
    // The match that the entry pays for is the nearest one before it.
    let matched = before.iter().rev().find_map(|event| match event {
        Event::ConsumptionMatched(matched) if matched.line == line && matched.rule_id == *rule_id => Some(matched),
        _ => None,
    });
    let Some(matched) = matched else {
        let sentence = format!("{amount} {what} by rule '{rule_id}', line {line} of consumption {consumption_id}");
        return Explained { rule_json: String::new(), sentence };
    };
    let (campaign_id, units) = (&matched.campaign_id, matched.units);
    let each = amount / i64::try_from(units.max(1)).unwrap_or(i64::MAX);
    let rules = config.campaigns.get(campaign_id).map(|campaign| campaign.rules.as_slice()).unwrap_or_default();
    let rule = rules.iter().find(|rule| rule.id == *rule_id);
    let rule_json = rule.and_then(|rule| serde_json::to_string(rule).ok()).unwrap_or_default();
    let sentence = format!(
        "{amount} {what} because rule '{rule_id}' of campaign '{campaign_id}' gives {each} a unit of '{sku}', \
         line {line} × {units} of consumption {consumption_id}"
    );
    Explained { rule_json, sentence }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::event::ConsumptionMatched;
    use punchline_engine::id::{MemberId, Sequence};
    use punchline_engine::time::UnixMillis;

    fn entry(currency: Currency, amount: i64, origin: Origin) -> Entry {
        let member_id = MemberId(Default::default());
        let (sequence, cause) = (Sequence(9), Sequence(7));
        Entry { sequence, cause, time: UnixMillis(0), member_id, currency, amount, balance: amount, origin }
    }

    #[test]
    fn entries_are_explained() {
        let matched = |rule: &str, line, units| {
            Event::from(ConsumptionMatched {
                consumption_id: "I198".into(),
                member_id: MemberId(Default::default()),
                campaign_id: "velo-club".parse().expect("a slug"),
                rule_id: rule.parse().expect("a slug"),
                line,
                sku: "review".into(),
                units,
            })
        };
        let origin = |rule: &str| Origin::Consumption {
            consumption_id: "I198".into(),
            line: 0,
            sku: "review".into(),
            rule_id: rule.parse().expect("a slug"),
        };
        let points = Currency::Points("velo-club".parse().expect("a slug"));
        let before = [matched("review", 0, 2), matched("other", 0, 1), matched("review", 1, 5)];
        for (entry, sentence) in [
            (
                entry(points, 300, origin("review")),
                "300 points because rule 'review' of campaign 'velo-club' gives 150 a unit of 'review', \
                 line 0 × 2 of consumption I198",
            ),
            (
                entry(Currency::Coins, 3, origin("other")),
                "3 coins because rule 'other' of campaign 'velo-club' gives 3 a unit of 'review', \
                 line 0 × 1 of consumption I198",
            ),
            (
                entry(Currency::Coins, -3, Origin::Adjustment { reason: "a mistake".into() }),
                "-3 coins because somebody corrected the balance: a mistake",
            ),
        ] {
            let explained = explain(&before, &entry, &TenantConfig::default());
            assert_eq!((explained.sentence.as_str(), explained.rule_json.as_str()), (sentence, ""));
        }
    }
}
