//! `segments` and `settings`: what holds beside campaigns.

use clap::{Args, Subcommand};
use punchline_proto::v1;
use punchline_proto::v1::campaign_service_client::CampaignServiceClient;
use tonic::Code;

use super::client::{Client, ListOptions};
use super::failure::Failure;
use super::message::{json_all, json_of};
use super::output::{self, Answer};

#[derive(Debug, Subcommand)]
pub(super) enum SegmentsCommand {
    /// Create a segment, or replace it
    Apply {
        /// 1 to 64 characters of a-z 0-9 _ - .
        segment_id: String,
        /// CEL over member, as 'member.points >= 1000'
        #[arg(long, value_name = "CEL")]
        condition: String,
        /// For people
        #[arg(long, default_value = "")]
        name: String,
    },
    /// One segment
    Get {
        /// As `segments list` shows it
        segment_id: String,
    },
    /// All segments
    List(ListOptions),
}

#[derive(Debug, Subcommand)]
pub(super) enum SettingsCommand {
    /// What holds for all campaigns
    Get,
    /// Change it; what is not named stays
    Set(SetArgs),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct SetArgs {
    /// When days begin and daily jobs run, as Europe/Bucharest
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// Days after which coins expire; 0: never
    #[arg(long, value_name = "DAYS")]
    coins_expire_after_days: Option<u32>,
    /// Days before that at which the member is told; 0: not at all
    #[arg(long, value_name = "DAYS")]
    coins_expiring_soon_days: Option<u32>,
    /// How far corrections and reversals may take coins below zero
    #[arg(long, value_name = "NUMBER")]
    coins_overdraft: Option<i64>,
}

pub(super) async fn segments(command: SegmentsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut campaigns = CampaignServiceClient::new(client.service());
    let segment = match command {
        SegmentsCommand::Apply { segment_id, condition, name } => {
            let segment = Some(v1::Segment { segment_id, name, condition, etag: String::new() });
            let create = v1::CreateSegmentRequest { segment: segment.clone(), request_id: String::new() };
            let (done, written) = match campaigns.create_segment(create).await {
                Ok(created) => ("created", created.into_inner().segment),
                Err(status) if status.code() == Code::AlreadyExists => {
                    let update = v1::UpdateSegmentRequest { segment };
                    ("replaced", campaigns.update_segment(update).await?.into_inner().segment)
                }
                Err(status) => return Err(status.into()),
            };
            output::note(&format!("{done}; members enter and leave as they change, and with the next recalculation"));
            written
        }
        SegmentsCommand::Get { segment_id } => {
            campaigns.get_segment(v1::GetSegmentRequest { segment_id }).await?.into_inner().segment
        }
        SegmentsCommand::List(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListSegmentsRequest { page_size, page_token };
                    let page = campaigns.list_segments(request).await?.into_inner();
                    Ok((page.segments, page.next_page_token))
                })
                .await?;
            return Ok(Answer::Rows(&["segment_id", "name", "condition"], json_all(&all)));
        }
    };
    Ok(Answer::One(json_of(&segment)))
}

pub(super) async fn settings(command: SettingsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut campaigns = CampaignServiceClient::new(client.service());
    let current = campaigns.get_settings(v1::GetSettingsRequest {}).await?.into_inner().settings;
    let SettingsCommand::Set(args) = command else { return Ok(Answer::One(json_of(&current))) };
    // Its etag goes with it: what somebody else set in between is not undone.
    let mut settings = current.unwrap_or_default();
    let mut coins = settings.coins.unwrap_or_default();
    settings.time_zone = args.time_zone.unwrap_or(settings.time_zone);
    coins.expire_after_days = args.coins_expire_after_days.unwrap_or(coins.expire_after_days);
    coins.expiring_soon_days = args.coins_expiring_soon_days.unwrap_or(coins.expiring_soon_days);
    coins.overdraft = args.coins_overdraft.unwrap_or(coins.overdraft);
    settings.coins = Some(coins);
    let request = v1::UpdateSettingsRequest { settings: Some(settings) };
    Ok(Answer::One(json_of(&campaigns.update_settings(request).await?.into_inner().settings)))
}
