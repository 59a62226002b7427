//! `google.rpc` details of a refusal.

use prost::Message;
use prost_types::Any;
use tonic::Code;
use tonic_types::pb;

use super::{DOMAIN, Refused};

/// Largest receipt that goes with an error as it is: details travel in a header, and clients bound
/// those to 8 KiB in all (gRPC's own default), a third of it lost to base64.
const RECEIPT_BYTES_MAX: usize = 3 * 1024;

/// The details as gRPC's `grpc-status-details-bin` wants them.
pub(super) fn encode(refused: &Refused) -> Vec<u8> {
    rpc_status(refused).encode_to_vec()
}

/// The whole refusal as `google.rpc.Status`.
pub(super) fn rpc_status(refused: &Refused) -> pb::Status {
    let metadata = refused.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let info = pb::ErrorInfo { reason: refused.reason.into(), domain: DOMAIN.into(), metadata };
    let mut details = vec![any("google.rpc.ErrorInfo", &info)];
    if let Some(field) = &refused.field {
        let violation = pb::bad_request::FieldViolation {
            field: field.path.clone(),
            description: field.rule.clone(),
            reason: refused.reason.into(),
            ..Default::default()
        };
        details.push(any("google.rpc.BadRequest", &pb::BadRequest { field_violations: vec![violation] }));
    }
    let subject = refused.resource.as_ref().map(|r| format!("{}/{}", r.kind, r.name)).unwrap_or_default();
    match refused.code {
        Code::FailedPrecondition => {
            let (r#type, description) = (refused.reason.to_owned(), refused.message.clone());
            let violation = pb::precondition_failure::Violation { r#type, subject, description };
            details
                .push(any("google.rpc.PreconditionFailure", &pb::PreconditionFailure { violations: vec![violation] }));
        }
        Code::ResourceExhausted => {
            let description = refused.message.clone();
            let violation = pb::quota_failure::Violation { subject, description, ..Default::default() };
            details.push(any("google.rpc.QuotaFailure", &pb::QuotaFailure { violations: vec![violation] }));
        }
        _ => {
            if let Some(resource) = &refused.resource {
                let resource = pb::ResourceInfo {
                    resource_type: resource.kind.into(),
                    resource_name: resource.name.clone(),
                    owner: String::new(),
                    description: refused.message.clone(),
                };
                details.push(any("google.rpc.ResourceInfo", &resource));
            }
        }
    }
    if let Some(ms) = refused.retry_after_ms {
        let (seconds, nanos) = ((ms / 1_000) as i64, (ms % 1_000) as i32 * 1_000_000);
        let retry = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos }) };
        details.push(any("google.rpc.RetryInfo", &retry));
    }
    if let Some(receipt) = &refused.receipt {
        let name = "punchline.v1.Receipt";
        if receipt.encoded_len() <= RECEIPT_BYTES_MAX {
            details.push(any(name, &**receipt));
        } else {
            let mut sums = (**receipt).clone();
            sums.matched_lines.clear();
            sums.new_balances.clear();
            sums.new_punchcards.clear();
            details.push(any(name, &sums));
        }
    }
    pb::Status { code: refused.code as i32, message: refused.message.clone(), details }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}
