//! Examples of the events that the journal keeps as they are told.

use punchline_engine::event::EventType as T;

const MEMBER: &str = "01966cf2-3c40-7000-8000-000000000001";
const OTHER: &str = "01966cf2-3c40-7000-8000-000000000004";
const COST: &str = r#""cost":{"points":150}"#;
const REWARD: &str = r#""campaign_id":"velo-club","reward_id":"free-coffee","reward_name":"A coffee""#;
const BOOK: &str = r#"{"coupon_book_id":"birthday-10","campaign_id":"velo-club","name":"10 % off","type":"generated",
    "external_id":"","description":"","picture_url":"","discount_type":"percentage","discount_amount":10,
    "valid_from":null,"valid_to":null,"expire_after_days":30,"uses_max":1,"version":1}"#;
const COUPON: &str = r#""campaign_id":"velo-club","code":"VELO-7Q2F","coupon_id":"birthday-10/17","#;
const COUPON_LIFE: &str = r#""coupon_created_at":"2025-01-02T08:00:00.000Z","expires_at":"2025-05-26T00:00:00.000Z""#;
const SEGMENT: &str = r#"{"id":"regulars","name":"Regulars","condition":"member.consumptions > 10","version":1}"#;
const REFERRAL: &str = r#""campaign_id":"velo-club","campaign_name":"VELO Club","campaign_type":"referral",
    "code":"ANA-7","amount":100,"reward_type":"wallet""#;

/// What an event of this kind says, in one line, and the fields of an example; `None` for kinds that are packed.
pub(super) fn plain(event_type: T) -> Option<(&'static str, String)> {
    let member = format!(r#""member_id":"{MEMBER}""#);
    let redemption = format!(r#"{member},"redemption_id":"R-1001",{REWARD},{COST}"#);
    let hold = format!(r#"{member},"hold_id":"H-1001","currency":{{"points":"velo-club"}},"amount":150"#);
    let catalogue = format!(
        r#"{REWARD},{COST},"description":"Any size","picture_url":"","reward_link":"","reward_value":"3.50 EUR",
        "stock":500,"per_member_max":null,"coupon_book_id":null,"valid_from":null,"valid_to":null,
        "hold_ms":900000,"cool_down_ms":86400000,"active":true,"version":1"#
    );
    let board = format!(r#"{member},"campaign_id":"velo-club","leaderboard_id":"weekly""#);
    let parties = format!(r#""advocate_id":"{OTHER}","friend_id":"{MEMBER}""#);
    let (description, fields) = match event_type {
        T::SettingsUpdated => (
            "What holds for all campaigns of an advertiser was set.",
            r#""settings":{"time_zone":"Europe/Bucharest","coins":{"expire_after_days":0,"expiring_soon_days":0,
                "overdraft":0},"version":1}"#
                .into(),
        ),
        T::SegmentCreated => ("A segment came into being.", format!(r#""segment":{SEGMENT}"#)),
        T::SegmentUpdated => ("A segment was changed.", format!(r#""segment":{SEGMENT}"#)),
        T::RewardCatalogueCreated => ("A reward came into the catalogue.", catalogue),
        T::RewardCatalogueUpdated => ("A reward was changed.", catalogue),
        T::CouponBookCreated => ("A coupon book came into being.", format!(r#""coupon_book":{BOOK}"#)),
        T::CouponsAdded => (
            "Codes came into a coupon book.",
            r#""coupon_book_id":"birthday-10","first_place":0,"codes":["VELO-7Q2F"]"#.into(),
        ),
        T::CouponAssigned => (
            "A member got a coupon's code.",
            format!(
                r#"{member},{COUPON}{COUPON_LIFE},"assigned_from":"rule","chosen":false,"usage_id":"U-1001",
                "amount_used":0,"amount_assigned":1,"usages_before":0,"assigned_before":0,"usages":0,"assigned":1,
                "coupon_book":{BOOK}"#
            ),
        ),
        T::CouponUsed => (
            "A coupon's code was used.",
            format!(
                r#"{member},{COUPON}{COUPON_LIFE},"order_id":"O-77","discount_amount":350,"usage_id":"U-1002",
                "amount_used":1,"amount_assigned":1,"usages_before":0,"assigned_before":1,"usages":1,"assigned":1,"coupon_book":{BOOK}"#
            ),
        ),
        T::RedemptionRolledBack => (
            "A coupon's use was undone.",
            format!(
                r#"{member},"redemption_id":"U-1002","coupon_book_id":"birthday-10","code":"VELO-7Q2F",
                "coupon_id":"birthday-10/17","reverted_usage_id":"U-1002","reason":"order cancelled""#
            ),
        ),
        T::GiftCardSent => (
            "A member was sent a gift card.",
            format!(
                r#"{member},"gift_card_id":"G-1001","code":"GIFT-91","value":"10 EUR","header":"For you",
                "body":"Enjoy","slug":"gift-10","assigned_from":"admin",
                "install_url":"https://wallet.example.com/G-1001","mail_sent":true"#
            ),
        ),
        T::RedemptionStarted => (
            "A member asked for a reward; what it costs is held.",
            format!(r#"{redemption},"until":"2025-04-25T12:49:01.000Z""#),
        ),
        T::RedemptionCompleted => {
            ("A member got a reward.", format!(r#"{redemption},"voucher_code":"VELO-7Q2F","reward_link":"""#))
        }
        T::RedemptionFailed => {
            ("A reward was not given; what was held is free again.", format!(r#"{redemption},"reason":"timed_out""#))
        }
        T::RedemptionRefunded => (
            "A reward was taken back, and its cost given back.",
            format!(r#"{redemption},"voucher_code":"VELO-7Q2F","reason":"returned""#),
        ),
        T::RewardRedeemable => (
            "A balance came to reach what a reward costs.",
            format!(r#"{member},{REWARD},"reward_link":"","reward_value":"3.50 EUR",{COST},"balance":170"#),
        ),
        T::ObligationCreated => (
            "A member is to be rewarded by the subscriber.",
            format!(
                r#"{member},"obligation_id":"ob-1040-1","campaign_type":"loyalty",{REWARD},"amount":1,
                "origin":{{"kind":"birthday"}}"#
            ),
        ),
        T::ObligationConfirmed => (
            "The subscriber paid out what a member was owed.",
            format!(r#"{member},"obligation_id":"ob-1040-1","reference":"PAY-5""#),
        ),
        T::HoldPlaced => {
            ("An amount was set aside.", format!(r#"{hold},"until":"2025-04-25T12:49:01.000Z","reason":"order O-77""#))
        }
        T::HoldVoided => ("What was set aside is free again.", format!(r#"{hold},"reason":"timed_out""#)),
        T::PointsExpired => (
            "Points were not spent in time.",
            format!(r#"{member},"campaign_id":"velo-club","amount":150,"expired_at":"2025-04-25T00:00:00.000Z""#),
        ),
        T::PointsExpiringSoon => (
            "Points are about to expire.",
            format!(r#"{member},"campaign_id":"velo-club","amount":150,"expires_at":"2025-05-02T00:00:00.000Z""#),
        ),
        T::CoinsExpired => {
            ("Coins were not spent in time.", format!(r#"{member},"amount":3,"expired_at":"2025-04-25T00:00:00.000Z""#))
        }
        T::CoinsExpiringSoon => {
            ("Coins are about to expire.", format!(r#"{member},"amount":3,"expires_at":"2025-05-02T00:00:00.000Z""#))
        }
        T::TierChanged => (
            "A member's tier changed.",
            format!(
                r#"{member},"campaign_id":"velo-club","previous":"Silver","current":"Gold",
                "previous_tier_id":"silver","current_tier_id":"gold""#
            ),
        ),
        T::SegmentEntered => (
            "A member came to belong to a segment.",
            format!(r#"{member},"segment_id":"regulars","segment_name":"Regulars""#),
        ),
        T::SegmentLeft => (
            "A member no longer belongs to a segment.",
            format!(r#"{member},"segment_id":"regulars","segment_name":"Regulars""#),
        ),
        T::MemberBirthday => ("It is a member's birthday.", format!(r#"{member},"age":35"#)),
        T::LeaderboardScored => ("Points counted for a round.", format!(r#"{board},"round":2886,"points":150"#)),
        T::LeaderboardAwarded => (
            "A leaderboard's round ended and a participant is rewarded.",
            format!(
                r#"{board},"rank":1,"score":950,"amount":100,"round_started_at":"2025-04-14T00:00:00.000Z",
                "round_ended_at":"2025-04-21T00:00:00.000Z""#
            ),
        ),
        T::ReferralLinked => (
            "Who brought a friend.",
            format!(r#"{member},"advocate_id":"{OTHER}","campaign_id":"velo-club","code":"ANA-7""#),
        ),
        T::ReferralSucceededAdvocate => {
            ("A friend did what earns the advocate a reward.", format!(r#""member_id":"{OTHER}",{REFERRAL},{parties}"#))
        }
        T::ReferralSucceededFriend => {
            ("The friend earned the friend's reward.", format!(r#"{member},{REFERRAL},{parties}"#))
        }
        T::MemberChannelSet => (
            "A member wants to hear from a channel, or no more.",
            format!(r#"{member},"channel":"email","subscribed":false"#),
        ),
        T::MemberMerged => (
            "Another member's identifiers, cards and balances came to this one.",
            format!(r#"{member},"from_member_id":"{OTHER}""#),
        ),
        T::MemberMergedInto => {
            ("A member is another one from now on.", format!(r#""member_id":"{OTHER}","into_member_id":"{MEMBER}""#))
        }
        T::JobCompleted => (
            "A job's run is at its end.",
            r#""job":"birthdays","run":{"period":20203,"at":"2025-04-25T09:00:00.000Z"},"concerned":12"#.into(),
        ),
        _ => return None,
    };
    Some((description, format!("{{{fields}}}")))
}
