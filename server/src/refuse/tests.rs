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
