use super::*;
use prost::Message;
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine, Receipt};
use punchline_engine::quantity::{Coins, Points, Stamps};
use punchline_engine::time::UnixMillis;
use tonic_types::StatusExt;

fn receipt() -> Receipt {
    Receipt {
        sequence: Sequence(42),
        recorded_at: UnixMillis(0),
        member_id: MemberId(Default::default()),
        matched: Vec::new(),
        points: Points(150),
        coins: Coins(3),
        stamps: Stamps(1),
        rows_completed: 0,
        points_balances: Vec::new(),
        coins_balance: Some(Coins(7)),
        punchcards: Vec::new(),
    }
}

#[test]
fn rejections_are_told_as_the_table_has_them() {
    use Rejection as R;
    let first = || Box::new(receipt());
    let other = Rejection::ConsumptionExistsWithDifferentContent { field: "consumptionDate", first: first() };
    for (rejection, code, http, reason, message) in [
        (
            R::ConsumptionExists { first: first() },
            Code::AlreadyExists,
            409,
            "CONSUMPTION_EXISTS",
            "Consumption already processed",
        ),
        (
            other,
            Code::AlreadyExists,
            409,
            "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT",
            "Consumption already processed, with another consumptionDate",
        ),
        (R::AccountNotFound, Code::NotFound, 404, "ACCOUNT_NOT_FOUND", "Account not found (user not registered)"),
        (R::UserBlocked, Code::FailedPrecondition, 403, "USER_BLOCKED", "User is blocked"),
        (
            R::MemberErased(MemberId(Default::default())),
            Code::FailedPrecondition,
            409,
            "MEMBER_ERASED",
            "member 00000000-0000-0000-0000-000000000000 is erased",
        ),
        (R::UserHasNoCards, Code::NotFound, 404, "USER_HAS_NO_CARDS", "User has no cards (user did not join campaign)"),
        (
            R::EtagMismatch { given: "1".into(), current: "2".into() },
            Code::Aborted,
            409,
            "ETAG_MISMATCH",
            "etag \"1\" is out of date, the current one is \"2\"",
        ),
    ] {
        let refused = Refused::from(rejection);
        let got = (refused.code, refused.http_status, refused.reason, refused.message.as_str());
        assert_eq!(got, (code, http, reason, message));
        let status = refused.into_status();
        let info = status.get_details_error_info().expect("every error has one");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
    }
}

/// Every reason that is new with holds, rewards, coupons and merges: its code, its status, its message, and what
/// it blames.
#[test]
fn rejections_name_what_is_to_blame() {
    use Rejection as R;
    let member = MemberId(Default::default());
    let nobody = "00000000-0000-0000-0000-000000000000";
    let (exists, not_found, state) = (Code::AlreadyExists, Code::NotFound, Code::FailedPrecondition);
    let cases: [(Rejection, Code, &str, &str, &str); 22] = [
        (
            R::IdReused { what: "hold_id", id: "h".into() },
            exists,
            "ID_REUSED",
            "hold_id \"h\" was used before, with other content",
            "hold_id/h",
        ),
        (
            R::MemberMerged { member, into: member },
            state,
            "MEMBER_MERGED",
            &format!("member {nobody} was merged into {nobody}"),
            &format!("member/{nobody}"),
        ),
        (
            R::MemberBusy { member, what: "the hold h".into() },
            state,
            "MEMBER_BUSY",
            &format!("member {nobody} has the hold h: finish it before merging"),
            &format!("member/{nobody}"),
        ),
        (
            R::HoldNotFound("h".into()),
            not_found,
            "HOLD_NOT_FOUND",
            "hold \"h\" not found, or finished already",
            "hold/h",
        ),
        (R::EntryNotFound(Sequence(7)), not_found, "ENTRY_NOT_FOUND", "ledger entry 7 not found", "entry/7"),
        (
            R::EntryNotReversible { entry: Sequence(7), why: "so it is" },
            state,
            "ENTRY_NOT_REVERSIBLE",
            "ledger entry 7 cannot be reversed: so it is",
            "entry/7",
        ),
        (R::SegmentNotFound(slug("s")), not_found, "SEGMENT_NOT_FOUND", "segment s not found", "segment/s"),
        (R::SegmentExists(slug("s")), exists, "SEGMENT_EXISTS", "segment s exists already", "segment/s"),
        (R::RewardNotFound(slug("r")), not_found, "REWARD_NOT_FOUND", "reward r not found", "reward/r"),
        (R::RewardExists(slug("r")), exists, "REWARD_EXISTS", "reward r exists already", "reward/r"),
        (
            R::RewardNotOffered(slug("r")),
            state,
            "REWARD_NOT_OFFERED",
            "reward r is not on offer at this time",
            "reward/r",
        ),
        (R::OutOfStock(slug("r")), state, "OUT_OF_STOCK", "reward r is out of stock", "reward/r"),
        (
            R::RewardLimitReached { member, reward: slug("r"), max: 2 },
            state,
            "REWARD_LIMIT_REACHED",
            &format!("member {nobody} had reward r 2 times already, which is the limit"),
            "reward/r",
        ),
        (
            R::RedemptionNotFound("x".into()),
            not_found,
            "REDEMPTION_NOT_FOUND",
            "redemption \"x\" not found",
            "redemption/x",
        ),
        (
            R::RedemptionState { redemption_id: "x".into(), state: "failed", wanted: "started" },
            state,
            "REDEMPTION_STATE",
            "redemption \"x\" is failed, it must be started",
            "redemption/x",
        ),
        (
            R::ObligationNotFound("o".into()),
            not_found,
            "OBLIGATION_NOT_FOUND",
            "obligation \"o\" not found",
            "obligation/o",
        ),
        (
            R::CouponBookNotFound(slug("b")),
            not_found,
            "COUPON_BOOK_NOT_FOUND",
            "coupon book b not found",
            "coupon_book/b",
        ),
        (R::CouponBookExists(slug("b")), exists, "COUPON_BOOK_EXISTS", "coupon book b exists already", "coupon_book/b"),
        (R::NoCouponsLeft(slug("b")), state, "NO_COUPONS_LEFT", "coupon book b has no code left", "coupon_book/b"),
        (
            R::CouponNotFound { coupon_book: slug("b"), code: "C".into() },
            not_found,
            "COUPON_NOT_FOUND",
            "coupon \"C\" of book b not found",
            "coupon/C",
        ),
        (
            R::CouponState { code: "C".into(), why: "has no such use" },
            state,
            "COUPON_STATE",
            "coupon \"C\" has no such use",
            "coupon/C",
        ),
        (
            R::LimitReached { what: "rewards", max: 500 },
            Code::ResourceExhausted,
            "LIMIT_REACHED",
            "there are 500 rewards already, which is the limit",
            "limit/rewards",
        ),
    ];
    for (rejection, code, reason, message, blamed) in cases {
        let refused = Refused::from(rejection);
        let http = match code {
            Code::NotFound => 404,
            Code::ResourceExhausted => 429,
            _ => 409,
        };
        let got = (refused.code, refused.http_status, refused.reason, refused.message.as_str());
        assert_eq!(got, (code, http, reason, message));
        let status = refused.into_status();
        let resource = |r: tonic_types::ResourceInfo| format!("{}/{}", r.resource_type, r.resource_name);
        let subject = match code {
            Code::FailedPrecondition => {
                status.get_details_precondition_failure().map(|p| p.violations[0].subject.clone())
            }
            Code::ResourceExhausted => status.get_details_quota_failure().map(|q| q.violations[0].subject.clone()),
            _ => status.get_details_resource_info().map(resource),
        };
        assert_eq!(subject.as_deref(), Some(blamed), "{reason}");
    }
}

fn slug<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a slug")
}

#[test]
fn shapes_are_told_as_the_table_has_them() {
    let whole = RawConsumption {
        consumption_id: "I1".into(),
        consumed_at: "20250425T12:34:00Z".into(),
        identifiers: vec![("email".into(), "a@b.c".into())],
        lines: vec![RawLine { sku: "a".into(), product_name: String::new(), quantity: 1.0 }],
    };
    type Spoil = fn(&mut RawConsumption);
    let cases: [(Spoil, &str, &str); 6] = [
        (|c| c.consumption_id.clear(), "CONSUMPTION_ID_REQUIRED", "ConsumptionId is required"),
        (|c| c.identifiers.clear(), "IDENTIFIERS_REQUIRED", "Identifiers are required"),
        (|c| c.lines.clear(), "CONSUMPTION_LINES_REQUIRED", "ConsumptionLines are required"),
        (
            |c| c.consumed_at = "yesterday".into(),
            "INVALID_CONSUMPTION_DATE",
            "consumptionDate \"yesterday\" must be RFC 3339, YYYYMMDDTHH:MM:SSZ or YYYYMMDDTHHMMSSZ",
        ),
        (
            |c| c.lines[0].quantity = 1.5,
            "INVALID_QUANTITY",
            "consumptionLines[0].quantity \"1.5\" must be a whole number from 1 to 10000",
        ),
        (
            |c| c.identifiers[0].0 = "x".into(),
            "INVALID_IDENTIFIER",
            "identifiers[0].key \"x\" must be phoneNumber, email or externalId",
        ),
    ];
    for (spoil, reason, message) in cases {
        let mut raw = whole.clone();
        spoil(&mut raw);
        let refused = Refused::from(raw.check(UnixMillis::parse("2026-01-01T00:00:00Z").expect("a date")).unwrap_err());
        assert_eq!((refused.code, refused.http_status), (Code::InvalidArgument, 400));
        assert_eq!((refused.reason, refused.message.as_str()), (reason, message));
        let status = refused.into_status();
        assert_eq!(status.get_details_bad_request().expect("names the field").field_violations.len(), 1);
    }
    let null = Refused::body_required("consumption");
    assert_eq!((null.reason, null.message.as_str()), ("REQUEST_BODY_REQUIRED", "Request body cannot be null"));
}

#[test]
fn overload_says_when_to_come_back_and_hides_paths() {
    let what = || "/data/secret".to_owned();
    for (unavailable, reason) in [
        (Unavailable::QueueFull, "QUEUE_FULL"),
        (Unavailable::DiskFull { what: what() }, "DISK_FULL"),
        (Unavailable::Stopped { what: what() }, "JOURNAL_STOPPED"),
        (Unavailable::ShuttingDown, "SHUTTING_DOWN"),
    ] {
        let refused = Refused::from(unavailable);
        assert_eq!((refused.code, refused.http_status, refused.reason), (Code::Unavailable, 503, reason));
        assert!(!refused.message.contains("secret"));
        let status = refused.into_status();
        assert!(status.get_details_retry_info().and_then(|r| r.retry_delay).is_some(), "{reason}");
    }
}

#[test]
fn the_first_receipt_goes_with_a_repeat() {
    let refused = Refused::from(Rejection::ConsumptionExists { first: Box::new(receipt()) });
    let fact = |name: &str| refused.metadata.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
    assert_eq!(fact("sequence").as_deref(), Some("42"));
    assert_eq!(fact("points").as_deref(), Some("150"));
    let status = refused.into_rpc_status();
    let any = status.details.iter().find(|any| any.type_url.ends_with("punchline.v1.Receipt")).expect("attached");
    let attached = v1::Receipt::decode(&*any.value).expect("a receipt");
    assert_eq!((attached.sequence, attached.points, attached.new_balances.len()), (42, 150, 1));

    let mut long = receipt();
    let id: punchline_engine::id::CampaignId = "velo-club".parse().expect("a slug");
    long.points_balances = (0..1_000).map(|n| (id.clone(), Points(n))).collect();
    let details = Refused::from(Rejection::ConsumptionExists { first: Box::new(long) }).into_status().details().len();
    assert!(details < 2_048, "{details} bytes do not fit a header");
}
