//! From a ledger entry back to what caused it, in one sentence.

use punchline_engine::event::{CommandKey, Event, Origin};
use punchline_engine::id::Sequence;
use punchline_engine::loyalty::ledger::{Currency, Entry};
use punchline_engine::loyalty::tenant::TenantConfig;

/// Why an entry is there.
pub(super) struct Explained {
    /// The rule as it is written now; empty where there is none.
    pub(super) rule_json: String,
    /// For people.
    pub(super) sentence: String,
}

/// Where what an entry goes back to stands, where that is not its cause.
pub(super) enum Source {
    /// At this position.
    At(Sequence),
    /// Where this key was used up.
    Key(CommandKey),
}

/// Where what an entry goes back to stands, where that is not its cause.
pub(super) fn source(origin: &Origin) -> Option<Source> {
    match origin {
        Origin::Reversal { reversed_sequence, .. } => Some(Source::At(*reversed_sequence)),
        Origin::Hold { hold_id, .. } => {
            Some(Source::Key(CommandKey::Job { job: "hold".into(), subject: hold_id.clone(), period: 0 }))
        }
        _ => None,
    }
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
    let plain = |why: String| Explained { rule_json: String::new(), sentence: format!("{amount} {what} {why}") };
    let (consumption_id, line, sku, rule_id, multipliers) = match &entry.origin {
        Origin::Consumption { consumption_id, line, sku, rule_id, multipliers } => {
            (consumption_id, *line, sku, rule_id, multipliers)
        }
        other => return plain(because(other, amount)),
    };
    // The match that the entry pays for is the nearest one before it.
    let matched = before.iter().rev().find_map(|event| match event {
        Event::ConsumptionMatched(matched) if matched.line == line && matched.rule_id == *rule_id => Some(matched),
        _ => None,
    });
    let Some(matched) = matched else {
        return plain(format!("by rule '{rule_id}', line {line} of consumption {consumption_id}"));
    };
    let (campaign_id, units) = (&matched.campaign_id, matched.units);
    let rules = config.campaigns.get(campaign_id).map(|campaign| campaign.rules.as_slice()).unwrap_or_default();
    let rule = rules.iter().find(|rule| rule.id == *rule_id);
    let rule_json = rule.and_then(|rule| serde_json::to_string(rule).ok()).unwrap_or_default();
    let each = amount / i64::try_from(units.max(1)).unwrap_or(i64::MAX);
    let multiplied = multipliers.iter().map(|(id, percent)| format!("'{id}' ({percent} %)")).collect::<Vec<_>>();
    let gives = match multiplied.is_empty() {
        true => format!("gives {each} a unit of '{sku}'"),
        false => format!("and {} give {amount} for '{sku}'", multiplied.join(", ")),
    };
    let sentence = format!(
        "{amount} {what} because rule '{rule_id}' of campaign '{campaign_id}' {gives}, \
         line {line} × {units} of consumption {consumption_id}"
    );
    Explained { rule_json, sentence }
}

/// Why, where no rule was the cause.
fn because(origin: &Origin, amount: i64) -> String {
    let way = if amount < 0 { "to" } else { "from" };
    match origin {
        Origin::Consumption { consumption_id, .. } => format!("by consumption {consumption_id}"),
        Origin::Adjustment { reason } => format!("because somebody corrected the balance: {reason}"),
        Origin::FirstConsumption { consumption_id } => {
            format!("as the bonus for the first consumption, {consumption_id}")
        }
        Origin::Birthday => "as the bonus of a birthday".into(),
        Origin::Referral { advocate_id, friend_id } => {
            format!("because member {advocate_id} brought member {friend_id}")
        }
        Origin::Leaderboard { leaderboard_id, rank } => {
            format!("for rank {rank} in a round of leaderboard '{leaderboard_id}'")
        }
        Origin::Redemption { redemption_id, reward_id } => {
            format!("for reward '{reward_id}', by redemption {redemption_id}")
        }
        Origin::Refund { redemption_id, reward_id } => {
            format!("because redemption {redemption_id} of reward '{reward_id}' was refunded")
        }
        Origin::Hold { hold_id, reason } => format!("because hold {hold_id} was posted: {reason}"),
        Origin::Expiry { expired_at } => format!("because they expired at {expired_at}"),
        Origin::Transfer { other_member_id, reason } => {
            format!("because they were transferred {way} member {other_member_id}: {reason}")
        }
        Origin::Reversal { reversed_sequence, reason, .. } => {
            format!("because entry {reversed_sequence} was taken back: {reason}")
        }
        Origin::Merge { other_member_id } => format!("{way} member {other_member_id}, by a merge of the two"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::event::ConsumptionMatched;
    use punchline_engine::id::MemberId;
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
        let origin = |rule: &str, multipliers: &[(&str, u32)]| Origin::Consumption {
            consumption_id: "I198".into(),
            line: 0,
            sku: "review".into(),
            rule_id: rule.parse().expect("a slug"),
            multipliers: multipliers.iter().map(|(id, percent)| (id.parse().expect("a slug"), *percent)).collect(),
        };
        let points = || Currency::Points("velo-club".parse().expect("a slug"));
        let other = MemberId(Default::default());
        let reason = || "as asked".to_owned();
        let before = [matched("review", 0, 2), matched("other", 0, 1), matched("review", 1, 5)];
        for (entry, sentence) in [
            (
                entry(points(), 300, origin("review", &[])),
                "300 points because rule 'review' of campaign 'velo-club' gives 150 a unit of 'review', \
                 line 0 × 2 of consumption I198",
            ),
            (
                entry(points(), 750, origin("review", &[("gold", 200), ("vip", 150)])),
                "750 points because rule 'review' of campaign 'velo-club' and 'gold' (200 %), 'vip' (150 %) give 750 \
                 for 'review', line 0 × 2 of consumption I198",
            ),
            (
                entry(Currency::Coins, 3, origin("other", &[])),
                "3 coins because rule 'other' of campaign 'velo-club' gives 3 a unit of 'review', \
                 line 0 × 1 of consumption I198",
            ),
            (
                entry(Currency::Coins, -3, Origin::Adjustment { reason: "a mistake".into() }),
                "-3 coins because somebody corrected the balance: a mistake",
            ),
            (
                entry(Currency::Coins, -3, Origin::Transfer { other_member_id: other, reason: reason() }),
                "-3 coins because they were transferred to member 00000000-0000-0000-0000-000000000000: as asked",
            ),
            (
                entry(
                    Currency::Coins,
                    3,
                    Origin::Reversal { reversed_sequence: Sequence(4), reason: reason(), earned: false },
                ),
                "3 coins because entry 4 was taken back: as asked",
            ),
            (
                entry(
                    points(),
                    -5,
                    Origin::Redemption { redemption_id: "r-1".into(), reward_id: "mug".parse().expect("a slug") },
                ),
                "-5 points for reward 'mug', by redemption r-1",
            ),
        ] {
            let explained = explain(&before, &entry, &TenantConfig::default());
            assert_eq!((explained.sentence.as_str(), explained.rule_json.as_str()), (sentence, ""));
        }
    }
}
