//! `members import`: a file of them, in batches.
//!
//! # Invariants
//!
//! - Every line ends in exactly one row of the summary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use futures_util::StreamExt as _;
use prost::Message as _;
use punchline_proto::v1;
use punchline_proto::v1::member_service_client::MemberServiceClient;
use punchline_proto::v1::register_member_result::Outcome;
use serde::Deserialize;
use serde_json::json;
use tonic::{Code, Status};

use super::super::client::Service;
use super::super::failure::{Failure, reason_of};
use super::super::input;
use super::super::lines::{self, Item, Line};
use super::super::output::{self, Answer};
use super::super::progress::Progress;

/// Members sent at once: the server takes so many.
const BATCH: usize = 1_000;
/// Bytes of lines sent at once: well below what the server takes as one message.
const BATCH_BYTES: u64 = 2 << 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct ImportArgs {
    /// The file; standard input if absent or `-`
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Tell no subscriber: they know these members already
    #[arg(long)]
    suppress_events: bool,
    /// Campaign that all of them join; may be repeated
    #[arg(long, value_name = "CAMPAIGN_ID")]
    join: Vec<String>,
    /// Where the registrations come from, where a line does not say it
    #[arg(long, value_name = "NAME", default_value = "import")]
    source: String,
}

/// A member as a line has it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Body {
    identifiers: Vec<lines::Identifier>,
    first_name: String,
    last_name: String,
    birth_date: String,
    locale: String,
    marketing_consent: Option<bool>,
    attributes: BTreeMap<String, String>,
    registration_source: String,
    join_campaign_ids: Vec<String>,
    request_id: String,
}

fn parse(text: &[u8]) -> Result<v1::RegisterMemberRequest, String> {
    let body: Body = lines::json(text)?;
    let profile = v1::Profile {
        first_name: body.first_name,
        last_name: body.last_name,
        birth_date: body.birth_date,
        locale: body.locale,
        marketing_consent: body.marketing_consent,
        attributes: body.attributes,
    };
    Ok(v1::RegisterMemberRequest {
        identifiers: body.identifiers.into_iter().map(Into::into).collect(),
        profile: Some(profile),
        registration_source: body.registration_source,
        join_campaign_ids: body.join_campaign_ids,
        request_id: body.request_id,
        suppress_events: false,
    })
}

pub(super) async fn run(args: ImportArgs, members: &mut MemberServiceClient<Service>) -> Result<Answer, Failure> {
    let (reader, size_bytes) = input::open(args.file.as_deref())?;
    let mut lines = lines::read(reader, parse).boxed();
    let mut import = Import { members, progress: Progress::over(size_bytes), registered: 0, refused: BTreeMap::new() };
    let outcome = import.all(&mut lines, &args).await;
    let Import { progress, registered, refused, .. } = import;
    progress.finish();
    let mut rows = vec![json!({ "outcome": "registered", "members": registered })];
    rows.extend(refused.iter().map(|(reason, count)| json!({ "outcome": reason, "members": count })));
    let answer = Answer::Rows(&["outcome", "members"], rows);
    match outcome {
        Err(failure) => Ok(Answer::Although(Box::new(answer), failure)),
        Ok(()) if !refused.is_empty() => Ok(Answer::Although(Box::new(answer), Failure::Reported)),
        Ok(()) => Ok(answer),
    }
}

/// One file's way in.
struct Import<'a> {
    members: &'a mut MemberServiceClient<Service>,
    progress: Progress,
    registered: u64,
    refused: BTreeMap<String, u64>,
}

type Request = v1::RegisterMemberRequest;

impl Import<'_> {
    async fn all(
        &mut self,
        lines: &mut (impl futures_util::Stream<Item = Line<Request>> + Unpin),
        args: &ImportArgs,
    ) -> Result<(), Failure> {
        let mut batch: Vec<Item<Request>> = Vec::new();
        let mut sent_bytes = 0;
        while let Some(line) = lines.next().await {
            match line {
                Line::Item(mut item) => {
                    item.what.suppress_events = args.suppress_events;
                    item.what.join_campaign_ids.extend(args.join.iter().cloned());
                    if item.what.registration_source.is_empty() {
                        item.what.registration_source.clone_from(&args.source);
                    }
                    let bytes = item.end_bytes - sent_bytes;
                    batch.push(item);
                    if batch.len() == BATCH || bytes >= BATCH_BYTES {
                        sent_bytes += bytes;
                        self.send(std::mem::take(&mut batch)).await?;
                    }
                }
                Line::Malformed { line, message } => self.refuse(line, "MALFORMED_LINE", &message),
                Line::Unreadable(source) => {
                    return Err(Failure::Unreadable { path: "the rest of the input".into(), source });
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { self.send(batch).await }
    }

    async fn send(&mut self, batch: Vec<Item<Request>>) -> Result<(), Failure> {
        let requests = batch.iter().map(|item| item.what.clone()).collect();
        let sent = self.members.batch_register_members(v1::BatchRegisterMembersRequest { requests }).await;
        let results = match sent {
            Ok(answer) => answer.into_inner().results,
            Err(status) => {
                let (first, count) = (batch[0].line, batch.len());
                self.progress.note(&format!("no answer from line {first} on ({count} sent)"));
                *self.refused.entry("unanswered".into()).or_default() += count as u64;
                return Err(status.into());
            }
        };
        for (i, item) in batch.iter().enumerate() {
            match results.get(i).and_then(|result| result.outcome.as_ref()) {
                Some(Outcome::MemberId(_)) => self.registered += 1,
                Some(Outcome::Error(error)) => {
                    let details = error.encode_to_vec().into();
                    let status = Status::with_details(Code::from_i32(error.code), error.message.clone(), details);
                    self.refuse(item.line, &reason_of(&status), status.message());
                }
                None => self.refuse(item.line, "NO_OUTCOME", "the answer is empty"),
            }
            self.progress.at(item.end_bytes);
        }
        Ok(())
    }

    fn refuse(&mut self, line: usize, reason: &str, message: &str) {
        *self.refused.entry(reason.to_owned()).or_default() += 1;
        self.progress.note(&output::harmless(&format!("line {line}: {reason}: {message}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_members() {
        let text =
            br#"{"identifiers":[{"key":"externalId","value":"u-1"}],"firstName":"Ana","joinCampaignIds":["velo"]}"#;
        let read = parse(text).expect("a member");
        assert_eq!((read.identifiers[0].value.as_str(), read.join_campaign_ids.len()), ("u-1", 1));
        assert_eq!(read.profile.expect("there").first_name, "Ana");
        let refused = parse(br#"{"identifiers":[],"frstName":"Ana"}"#).expect_err("a key that is not known");
        assert!(refused.contains("frstName"), "{refused}");
    }
}
