//! `campaigns`: written as TOML, applied, read back.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use punchline_proto::v1;
use punchline_proto::v1::campaign_service_client::CampaignServiceClient;
use tonic::Code;

use super::client::{Client, ListOptions, Service};
use super::failure::Failure;
use super::input;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};
use crate::campaign_file;

mod simulate;

#[derive(Debug, Subcommand)]
pub(super) enum CampaignsCommand {
    /// Create the campaign that a TOML file describes, or replace it
    Apply {
        /// The file; standard input if absent or `-`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Check only
        #[arg(long)]
        validate_only: bool,
    },
    /// One campaign
    Get {
        /// As velo-club
        campaign_id: String,
    },
    /// All campaigns
    List(ListOptions),
    /// What the campaign of a TOML file would have given for consumptions of the past, beside what it gave
    Simulate(simulate::SimulateArgs),
    /// Ranks of a leaderboard
    Standings {
        /// As velo-club
        campaign_id: String,
        /// As the campaign names it
        leaderboard_id: String,
        /// Of the round before the one that runs now
        #[arg(long)]
        previous_round: bool,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: i32,
    },
}

pub(super) async fn run(command: CampaignsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut campaigns = CampaignServiceClient::new(client.service());
    match command {
        CampaignsCommand::Simulate(args) => simulate::run(args, &mut campaigns).await,
        CampaignsCommand::Standings { campaign_id, leaderboard_id, previous_round, limit } => {
            let request =
                v1::ListLeaderboardStandingsRequest { campaign_id, leaderboard_id, previous_round, page_size: limit };
            let got = campaigns.list_leaderboard_standings(request).await?.into_inner();
            Ok(Answer::Rows(&["rank", "member_id", "points"], json_all(&got.standings)))
        }
        CampaignsCommand::Apply { file, validate_only } => apply(file.as_deref(), validate_only, &mut campaigns).await,
        CampaignsCommand::Get { campaign_id } => {
            let got = campaigns.get_campaign(v1::GetCampaignRequest { campaign_id }).await?.into_inner();
            Ok(Answer::One(json_of(&got.campaign)))
        }
        CampaignsCommand::List(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListCampaignsRequest { page_size, page_token };
                    let page = campaigns.list_campaigns(request).await?.into_inner();
                    Ok((page.campaigns, page.next_page_token))
                })
                .await?;
            let rows = all.iter().map(|campaign| {
                let mut row = json(campaign);
                row["rule_count"] = campaign.rules.len().into();
                row["punchcard_ids"] = campaign.punchcards.iter().map(|p| p.punchcard_id.as_str()).collect();
                row
            });
            let columns =
                &["campaign_id", "name", "starts_at", "ends_at", "rules:rule_count", "punchcards:punchcard_ids"];
            Ok(Answer::Rows(columns, rows.collect()))
        }
    }
}

fn read(file: Option<&Path>) -> Result<v1::Campaign, Failure> {
    campaign_file::parse(&input::read_text(file)?).map_err(|error| Failure::Malformed {
        path: format!("{}:{}", input::name_of(file), error.line),
        message: error.message,
    })
}

async fn apply(
    file: Option<&Path>,
    validate_only: bool,
    campaigns: &mut CampaignServiceClient<Service>,
) -> Result<Answer, Failure> {
    let campaign = Some(read(file)?);
    let create = v1::CreateCampaignRequest { campaign: campaign.clone(), validate_only, request_id: String::new() };
    let (done, applied) = match campaigns.create_campaign(create).await {
        Ok(created) => ("created", created.into_inner().campaign),
        Err(status) if status.code() == Code::AlreadyExists => {
            let update = v1::UpdateCampaignRequest { campaign, validate_only };
            ("replaced", campaigns.update_campaign(update).await?.into_inner().campaign)
        }
        Err(status) => return Err(status.into()),
    };
    output::note(if validate_only { "valid; nothing was changed" } else { done });
    Ok(Answer::One(json_of(&applied)))
}
