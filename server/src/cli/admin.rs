//! `advertisers`, `credentials`, `status`, `audit`: what operators do.

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::admin_service_client::AdminServiceClient;

use super::client::{Client, ListOptions};
use super::failure::Failure;
use super::input;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};

#[derive(Debug, Subcommand)]
pub(super) enum AdvertisersCommand {
    /// Take an advertiser on, with both its environments
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// Digits; the next free one if absent
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// All advertisers
    List(ListOptions),
}

#[derive(Debug, Subcommand)]
pub(super) enum CredentialsCommand {
    /// Issue a key pair for the advertiser and environment; the secret is shown once. Or a write key
    Issue {
        /// Made by the server if absent
        #[arg(long, value_name = "KEY")]
        api_key: Option<String>,
        /// Made by the server if absent
        #[arg(long, value_name = "SECRET", env = "PUNCHLINE_API_SECRET", hide_env_values = true)]
        api_secret: Option<String>,
        /// What it may do; all if absent; may be repeated
        #[arg(long, value_enum)]
        scope: Vec<ScopeName>,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
        /// A write key for Segment's clients instead of a pair: without a secret, and to ingest only
        #[arg(long, conflicts_with = "api_secret")]
        write_key: bool,
    },
    /// The keys of the advertiser and environment
    List,
    /// Stop a key at once, and all access tokens that were handed out for it
    Revoke {
        /// The key
        api_key: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ScopeName {
    Ingest,
    Read,
    Manage,
}

/// Who asked for what: calls that changed something, oldest first
#[derive(Args, Debug)]
pub(super) struct AuditArgs {
    /// From this position on
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// From this time on, as 2025-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    from_time: Option<Timestamp>,
    /// Only of this api key, or of `operator`
    #[arg(long, value_name = "KEY", default_value = "")]
    actor: String,
    /// Only about this id: a subscription's, a member's, a campaign's
    #[arg(long, value_name = "ID", default_value = "")]
    resource: String,
    #[command(flatten)]
    list: ListOptions,
}

const AUDIT_COLUMNS: &[&str] = &[
    "sequence",
    "time",
    "advertiser_id",
    "environment",
    "actor",
    "method",
    "event_types",
    "resource_ids",
    "request_id",
];

pub(super) async fn audit(args: AuditArgs, client: &Client) -> Result<Answer, Failure> {
    let mut admin = AdminServiceClient::new(client.service());
    let entries = args
        .list
        .collect(async |page_size, page_token: String| {
            // The position is the token: there is no end but the head.
            let from_sequence = page_token.parse().unwrap_or(args.from);
            let request = v1::ReadAuditTrailRequest {
                from_sequence,
                from_time: args.from_time,
                page_size,
                actor: args.actor.clone(),
                resource_id: args.resource.clone(),
            };
            let page = admin.read_audit_trail(request).await?.into_inner();
            let more = page.next_sequence <= page.head_sequence && page.next_sequence > from_sequence;
            Ok((page.entries, if more { page.next_sequence.to_string() } else { String::new() }))
        })
        .await?;
    Ok(Answer::Rows(AUDIT_COLUMNS, json_all(&entries)))
}

const CREDENTIAL_COLUMNS: &[&str] = &["api_key", "scopes", "description", "write_key", "created_at", "revoked_at"];

pub(super) async fn status(client: &Client) -> Result<Answer, Failure> {
    let status = AdminServiceClient::new(client.service()).get_status(v1::GetStatusRequest {}).await?.into_inner();
    Ok(Answer::One(json(&status)))
}

pub(super) async fn advertisers(command: AdvertisersCommand, client: &Client) -> Result<Answer, Failure> {
    let mut admin = AdminServiceClient::new(client.service());
    match command {
        AdvertisersCommand::Create { name, id, request_id } => {
            let request = v1::CreateAdvertiserRequest {
                advertiser_id: id.unwrap_or_default(),
                name,
                request_id: request_id.unwrap_or_default(),
            };
            Ok(Answer::One(json_of(&admin.create_advertiser(request).await?.into_inner().advertiser)))
        }
        AdvertisersCommand::List(list) => {
            let advertisers = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListAdvertisersRequest { page_size, page_token };
                    let page = admin.list_advertisers(request).await?.into_inner();
                    Ok((page.advertisers, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(&["advertiser_id", "name", "created_at"], json_all(&advertisers)))
        }
    }
}

pub(super) async fn credentials(command: CredentialsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut admin = AdminServiceClient::new(client.service());
    match command {
        CredentialsCommand::Issue { api_key, api_secret, scope, description, write_key } => {
            let scopes = scope.into_iter().map(|name| match name {
                ScopeName::Ingest => v1::Scope::Ingest.into(),
                ScopeName::Read => v1::Scope::Read.into(),
                ScopeName::Manage => v1::Scope::Manage.into(),
            });
            let request = v1::IssueCredentialRequest {
                api_key: api_key.unwrap_or_default(),
                api_secret: api_secret.unwrap_or_default(),
                scopes: scopes.collect(),
                description,
                write_key,
            };
            let issued = admin.issue_credential(request).await?.into_inner();
            output::note(match write_key {
                true => "whoever has the write key can report: keep it on servers, never in a page or an app",
                false => "keep the secret: it is not shown again",
            });
            Ok(Answer::One(json(&issued)))
        }
        CredentialsCommand::List => {
            let listed = admin.list_credentials(v1::ListCredentialsRequest {}).await?.into_inner();
            Ok(Answer::Rows(CREDENTIAL_COLUMNS, json_all(&listed.credentials)))
        }
        CredentialsCommand::Revoke { api_key } => {
            admin.revoke_credential(v1::RevokeCredentialRequest { api_key: api_key.clone() }).await?;
            output::note(&format!("revoked {api_key}"));
            Ok(Answer::Nothing)
        }
    }
}
