//! The campaign of the tests, as the API takes it. What it comes to, [`model`](crate::model) says in its own words.

use punchline_proto::v1;
use punchline_proto::v1::earning_rule::Skus;

/// Its id.
pub const CAMPAIGN: &str = "tests";
/// Its punchcard.
pub const PUNCHCARD: &str = "coffee-card";
/// SKUs of the campaign, and one that no rule matches.
pub const SKUS: [&str; 7] =
    ["article", "coffee_small", "coffee_large", "can_mango", "can_yuzu", "kit", "nobody_asked_for_this"];

/// Articles 50 points; coffees 5 points and a stamp; two cans 3 points and 2 coins; kits 100 points, for
/// 40 of them at most. Ten stamps fill a row, four are a milestone.
pub fn campaign() -> v1::Campaign {
    let rule =
        |rule_id: &str, skus| v1::EarningRule { rule_id: rule_id.into(), skus: Some(skus), ..Default::default() };
    let cans = v1::SkuList { skus: vec!["can_mango".into(), "can_yuzu".into()] };
    let stamps = v1::StampReward { punchcard_id: PUNCHCARD.into(), per_unit: 1 };
    let cap = v1::Cap { period: v1::Period::Campaign.into(), units_max: 40 };
    v1::Campaign {
        campaign_id: CAMPAIGN.into(),
        name: "Tests".into(),
        rules: vec![
            v1::EarningRule { points: 50, ..rule("articles", Skus::SkuExact("article".into())) },
            v1::EarningRule { points: 5, stamps: Some(stamps), ..rule("coffees", Skus::SkuPrefix("coffee_".into())) },
            v1::EarningRule { points: 3, coins: 2, ..rule("cans", Skus::SkuList(cans)) },
            v1::EarningRule { points: 100, caps: vec![cap], ..rule("kits", Skus::SkuExact("kit".into())) },
        ],
        punchcards: vec![v1::Punchcard {
            punchcard_id: PUNCHCARD.into(),
            name: "Coffee card".into(),
            row_length: 10,
            steps: vec![4],
            ..Default::default()
        }],
        ..Default::default()
    }
}
