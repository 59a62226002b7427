//! Events that the journal keeps as they are told, with every field set.

use punchline_engine::event::{Event, EventType};

const MEMBER: &str = r#""member_id":"01930000-0000-7000-8000-000000000001""#;
const CAMPAIGN: &str = r#""campaign_id":"summer-2026""#;
const TIME: &str = r#""2026-11-21T11:12:32.123Z""#;

fn fields(kind: EventType) -> String {
    use EventType as T;
    let other = r#""01930000-0000-7000-8000-000000000002""#;
    let cost = r#""cost":{"points":150}"#;
    let reward = format!(r#"{CAMPAIGN},"reward_id":"tea","reward_name":"Tea ☕""#);
    let redemption = format!(r#"{MEMBER},"redemption_id":"r-1",{reward},{cost}"#);
    let catalogue = format!(
        r#"{reward},"cost":{{"coins":7}},"description":"d","picture_url":"p","reward_link":"l","reward_value":"3 EUR",
        "stock":5,"per_member_max":2,"coupon_book_id":"book","valid_from":{TIME},"valid_to":{TIME},"hold_ms":900000,
        "cool_down_ms":1,"active":true,"version":2"#
    );
    let book = format!(
        r#"{{"coupon_book_id":"book",{CAMPAIGN},"name":"Book","type":"listed","external_id":"e","description":"d",
        "picture_url":"p","discount_type":"percentage","discount_amount":10,"valid_from":{TIME},"valid_to":null,
        "expire_after_days":30,"uses_max":2,"version":1}}"#
    );
    let coupon = format!(
        r#"{MEMBER},{CAMPAIGN},"code":"C-1","coupon_id":"book/3","coupon_created_at":{TIME},"expires_at":{TIME},
        "usage_id":"u-1","coupon_book":{book}"#
    );
    let segment = r#""segment":{"id":"regulars","name":"R","condition":"member.points > 10","version":3}"#;
    let hold = format!(r#"{MEMBER},"hold_id":"h-1","currency":{{"points":"summer-2026"}},"amount":5"#);
    let board = format!(r#"{MEMBER},{CAMPAIGN},"leaderboard_id":"weekly""#);
    let referral = format!(
        r#"{MEMBER},{CAMPAIGN},"campaign_name":"S","campaign_type":"referral","code":"C","advocate_id":{other},
        "friend_id":{other},"amount":9,"reward_type":"webhook","reward_id":"tea""#
    );
    match kind {
        T::SettingsUpdated => r#""settings":{"time_zone":"Europe/Bucharest","coins":{"expire_after_days":30,
            "expiring_soon_days":7,"overdraft":100},"version":4}"#
            .into(),
        T::SegmentCreated | T::SegmentUpdated => segment.into(),
        T::RewardCatalogueCreated | T::RewardCatalogueUpdated => catalogue,
        T::CouponBookCreated => format!(r#""coupon_book":{book}"#),
        T::CouponsAdded => r#""coupon_book_id":"book","first_place":7,"codes":["C-1","C-2"]"#.into(),
        T::CouponAssigned => format!(
            r#"{coupon},"assigned_from":"rule","chosen":true,"amount_used":0,"amount_assigned":1,"usages_before":0,
            "assigned_before":0,"usages":0,"assigned":1"#
        ),
        T::CouponUsed => {
            format!(r#"{coupon},"order_id":"o-1","discount_amount":-3,"amount_used":1,"usages_before":1,"usages":2"#)
        }
        T::RedemptionRolledBack => format!(
            r#"{MEMBER},"redemption_id":"u-1","coupon_book_id":"book","code":"C-1","coupon_id":"book/3",
            "reverted_usage_id":"u-1","reason":"because""#
        ),
        T::GiftCardSent => format!(
            r#"{MEMBER},"gift_card_id":"g-1","code":"G","value":"10 EUR","header":"h","body":"b","slug":"gift-10",
            "assigned_from":"admin","install_url":"i","mail_sent":true"#
        ),
        T::RedemptionStarted => format!(r#"{redemption},"until":{TIME}"#),
        T::RedemptionCompleted => format!(r#"{redemption},"voucher_code":"V","reward_link":"l""#),
        T::RedemptionFailed => format!(r#"{redemption},"reason":"timed_out""#),
        T::RedemptionRefunded => format!(r#"{redemption},"voucher_code":"V","reason":"because""#),
        T::RewardRedeemable => {
            format!(r#"{MEMBER},{reward},"reward_link":"l","reward_value":"v",{cost},"balance":151"#)
        }
        T::ObligationCreated => format!(
            r#"{MEMBER},"obligation_id":"ob-9-1","campaign_type":"loyalty",{reward},"amount":2,
            "origin":{{"kind":"leaderboard","leaderboard_id":"weekly","rank":1}}"#
        ),
        T::ObligationConfirmed => format!(r#"{MEMBER},"obligation_id":"ob-9-1","reference":"pay-1""#),
        T::HoldPlaced => format!(r#"{hold},"until":{TIME},"reason":"because""#),
        T::HoldVoided => format!(r#"{hold},"reason":"because""#),
        T::PointsExpired => format!(r#"{MEMBER},{CAMPAIGN},"amount":5,"expired_at":{TIME}"#),
        T::PointsExpiringSoon => format!(r#"{MEMBER},{CAMPAIGN},"amount":5,"expires_at":{TIME}"#),
        T::CoinsExpired => format!(r#"{MEMBER},"amount":5,"expired_at":{TIME}"#),
        T::CoinsExpiringSoon => format!(r#"{MEMBER},"amount":5,"expires_at":{TIME}"#),
        T::TierChanged => format!(
            r#"{MEMBER},{CAMPAIGN},"previous":"Silver","current":null,"previous_tier_id":"silver","current_tier_id":null"#
        ),
        T::SegmentEntered | T::SegmentLeft => format!(r#"{MEMBER},"segment_id":"regulars","segment_name":"R""#),
        T::MemberBirthday => format!(r#"{MEMBER},"age":35"#),
        T::LeaderboardScored => format!(r#"{board},"round":2900,"points":-5"#),
        T::LeaderboardAwarded => {
            format!(r#"{board},"rank":1,"score":99,"amount":5,"round_started_at":{TIME},"round_ended_at":{TIME}"#)
        }
        T::ReferralLinked => format!(r#"{MEMBER},"advocate_id":{other},{CAMPAIGN},"code":"C""#),
        T::ReferralSucceededAdvocate | T::ReferralSucceededFriend => referral,
        T::MemberChannelSet => format!(r#"{MEMBER},"channel":"email","subscribed":true"#),
        T::MemberMerged => format!(r#"{MEMBER},"from_member_id":{other}"#),
        T::MemberMergedInto => format!(r#"{MEMBER},"into_member_id":{other}"#),
        T::JobCompleted => format!(r#""job":"birthdays","run":{{"period":20778,"at":{TIME}}},"concerned":3"#),
        packed => panic!("{packed:?} has a sample of its own"),
    }
}

pub fn plain(kind: EventType) -> Event {
    let fields = format!("{{{}}}", fields(kind));
    let event = Event::from_plain(kind.as_str(), &fields).unwrap_or_else(|| panic!("{kind:?} is not plain"));
    event.unwrap_or_else(|why| panic!("{kind:?}: {why}"))
}
