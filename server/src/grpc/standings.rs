//! Ranks of a leaderboard's round.

use punchline_engine::id::{CampaignId, LeaderboardId, Tenant};
use punchline_engine::loyalty::programme::WINNERS_MAX;
use punchline_proto::v1;

use super::Api;
use crate::convert::{id, timestamp};
use crate::refuse::Refused;

/// Ranks answered where the caller names no number.
const RANKS_DEFAULT: usize = 50;

impl Api {
    pub(super) async fn standings(
        &self,
        tenant: Tenant,
        request: v1::ListLeaderboardStandingsRequest,
    ) -> Result<v1::ListLeaderboardStandingsResponse, Refused> {
        let ranks = match usize::try_from(request.page_size) {
            Ok(0) => RANKS_DEFAULT,
            Ok(size) => size.min(WINNERS_MAX as usize),
            Err(_) => {
                return Err(Refused::field("page_size", request.page_size.to_string(), "must not be negative"));
            }
        };
        let campaign_id: CampaignId = id("campaign_id", &request.campaign_id)?;
        let board_id: LeaderboardId = id("leaderboard_id", &request.leaderboard_id)?;
        let campaign = self.campaign(tenant, &campaign_id)?;
        let board = campaign.programme.leaderboards.iter().find(|board| board.id == board_id);
        let not_found = || Refused::not_found("LEADERBOARD_NOT_FOUND", "leaderboard", &board_id);
        let period = board.ok_or_else(not_found)?.period;
        let node = &self.state.node;
        let round = period.number(node.clock().now()) - i32::from(request.previous_round);
        let found = node.standings(tenant, &campaign_id, &board_id, round, ranks).await?;
        let standings = found.into_iter().zip(1..).map(|(standing, rank)| v1::Standing {
            rank,
            member_id: standing.member_id.to_string(),
            points: standing.score,
        });
        Ok(v1::ListLeaderboardStandingsResponse {
            standings: standings.collect(),
            round_started_at: Some(timestamp(period.start(round))),
            round_ends_at: Some(timestamp(period.start(round + 1))),
        })
    }
}
