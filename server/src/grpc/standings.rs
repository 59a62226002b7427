//! Ranks of a leaderboard's round.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use punchline_engine::id::{CampaignId, LeaderboardId, MemberId, Tenant};
use punchline_engine::loyalty::member::Member;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;

use super::Api;
use crate::convert::{id, timestamp};
use crate::refuse::Refused;

/// Members looked at between two commands: a few milliseconds.
const MEMBERS_READ: usize = 1_000;
/// Ranks answered where the caller names no number.
const RANKS_DEFAULT: usize = 50;
/// Most ranks answered, as many as a round rewards.
const RANKS_MAX: usize = 1_000;

/// More points first; of equals, who registered first.
type Place = (i64, Reverse<MemberId>);

impl Api {
    /// The ranks of a round; memory for the ranks that are answered, whatever the number of members.
    pub(super) async fn standings(
        &self,
        tenant: Tenant,
        request: v1::ListLeaderboardStandingsRequest,
    ) -> Result<v1::ListLeaderboardStandingsResponse, Refused> {
        let ranks = match usize::try_from(request.page_size) {
            Ok(0) => RANKS_DEFAULT,
            Ok(size) => size.min(RANKS_MAX),
            Err(_) => {
                let size = request.page_size.to_string();
                return Err(Refused::field("page_size", size, "must not be negative"));
            }
        };
        let campaign_id: CampaignId = id("campaign_id", &request.campaign_id)?;
        let board_id: LeaderboardId = id("leaderboard_id", &request.leaderboard_id)?;
        let campaign = self.campaign(tenant, &campaign_id)?;
        let board = campaign.programme.leaderboards.iter().find(|board| board.id == board_id);
        let not_found = || Refused::not_found("LEADERBOARD_NOT_FOUND", "leaderboard", &board_id);
        let period = board.ok_or_else(not_found)?.period;
        let now: UnixMillis = self.state.node.clock().now();
        let round = period.number(now) - i32::from(request.previous_round);
        let mut best: BinaryHeap<Reverse<Place>> = BinaryHeap::with_capacity(ranks + 1);
        let (mut participants, mut after) = (0, None);
        loop {
            let (campaign_id, board_id) = (campaign_id.clone(), board_id.clone());
            let slice = self.read(move |views| {
                let members = views.members(tenant, after, MEMBERS_READ)?;
                let last = members.last().map(|member| member.id).filter(|_| members.len() == MEMBERS_READ);
                let points = |member: &Member| member.card(&campaign_id).map_or(0, |card| card.score(&board_id, round));
                let scored = members.iter().filter(|member| !member.is_gone());
                let scored = scored.map(|member| (points(member), Reverse(member.id)));
                Ok((scored.filter(|(points, _)| *points > 0).collect::<Vec<Place>>(), last))
            });
            let (scored, last) = slice.await?;
            participants += scored.len() as u64;
            for place in scored {
                best.push(Reverse(place));
                if best.len() > ranks {
                    best.pop();
                }
            }
            if last.is_none() {
                break;
            }
            after = last;
        }
        let places = best.into_sorted_vec().into_iter().zip(1..);
        let standing = |(Reverse((points, Reverse(member_id))), rank): (Reverse<Place>, u32)| v1::Standing {
            rank,
            member_id: member_id.to_string(),
            points,
        };
        Ok(v1::ListLeaderboardStandingsResponse {
            standings: places.map(standing).collect(),
            round_started_at: Some(timestamp(period.start(round))),
            round_ends_at: Some(timestamp(period.start(round + 1))),
            participants,
        })
    }
}
