//! What HTTP callers are answered: one error body for every error, and receipts in camel case.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use punchline_proto::v1;
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::convert;
use crate::refuse::Refused;

/// `{"error":{"code","message","details":{}}}`, with `Retry-After` where coming back may help.
impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(json!({"error": error(&self)}))).into_response();
        if let Some(ms) = self.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        response
    }
}

/// `{"code","message","details":{}}`.
pub(super) fn error(refused: &Refused) -> Value {
    let mut details = Map::new();
    if let Some(field) = &refused.field {
        details.insert("field".into(), field.path.clone().into());
        details.insert("rule".into(), field.rule.clone().into());
    }
    if let Some(resource) = &refused.resource {
        details.insert("resource".into(), json!({"kind": resource.kind, "name": resource.name}));
    }
    match &refused.receipt {
        // The receipt says what the metadata does, with types.
        Some(first) => {
            let field = refused.metadata.iter().find(|(name, _)| *name == "field");
            details.extend(field.map(|(_, field)| ("field".into(), field.clone().into())));
            details.insert("receipt".into(), receipt(first));
        }
        None => details.extend(refused.metadata.iter().map(|(name, value)| (camel_case(name), value.clone().into()))),
    }
    json!({"code": refused.reason, "message": refused.message, "details": details})
}

/// A refusal that only HTTP knows.
pub(super) fn refuse(http_status: u16, reason: &'static str, message: impl Into<String>) -> Refused {
    let code = match http_status {
        404 | 405 => Code::Unimplemented,
        408 | 503 => Code::Unavailable,
        _ => Code::InvalidArgument,
    };
    Refused::new(code, http_status, reason, message)
}

/// A receipt as HTTP shows it.
pub(super) fn receipt(receipt: &v1::Receipt) -> Value {
    let recorded_at = receipt.recorded_at.and_then(|at| convert::instant("recorded_at", at).ok());
    let matched = |line: &v1::MatchedLine| json!({"line": line.line, "campaignId": line.campaign_id, "ruleId": line.rule_id, "units": line.units});
    let balance = |balance: &v1::Balance| match &balance.currency {
        Some(v1::balance::Currency::PointsOfCampaignId(campaign)) => {
            json!({"currency": "points", "campaignId": campaign, "amount": balance.amount})
        }
        Some(v1::balance::Currency::Coins(_)) | None => json!({"currency": "coins", "amount": balance.amount}),
    };
    let punchcard = |card: &v1::PunchcardStamps| json!({"campaignId": card.campaign_id, "punchcardId": card.punchcard_id, "stamps": card.stamps});
    json!({
        "sequence": receipt.sequence,
        "recordedAt": recorded_at,
        "memberId": receipt.member_id,
        "matchedLines": receipt.matched_lines.iter().map(matched).collect::<Vec<_>>(),
        "points": receipt.points,
        "coins": receipt.coins,
        "stamps": receipt.stamps,
        "rowsCompleted": receipt.rows_completed,
        "newBalances": receipt.new_balances.iter().map(balance).collect::<Vec<_>>(),
        "newPunchcards": receipt.new_punchcards.iter().map(punchcard).collect::<Vec<_>>(),
    })
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}
