//! Referrals: a friend comes by an advocate's code, and does what earns both a reward.

use super::draft::{Draft, Owed};
use crate::event::*;
use crate::id::{CampaignId, MemberId, RuleId};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::fact::Fact;
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::Member;
use crate::loyalty::programme::ReferralReward;
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::{InvalidField, Rejection};

/// The fact by which an upstream system tells who brought whom.
pub const ATTRIBUTED: &str = "referral.attributed";

/// What a fact says of who brought the member to which campaign: bookkeeping, where `advocate_id` names a
/// member of ours and `campaign_id` a campaign with a referral programme. Others are told and no more.
pub(super) fn link(
    set: &super::WorkingSet<'_>,
    config: &TenantConfig,
    friend: &Member,
    fact: &Fact,
) -> Result<Option<Event>, Rejection> {
    let properties: serde_json::Value = serde_json::from_str(&fact.properties.0).unwrap_or_default();
    let text = |field: &str| properties[field].as_str().unwrap_or_default();
    let (Ok(advocate_id), Ok(campaign_id)) =
        (text("advocate_id").parse::<MemberId>(), text("campaign_id").parse::<CampaignId>())
    else {
        return Ok(None);
    };
    let programme = config.campaigns.get(&campaign_id).and_then(|campaign| campaign.programme.referral.as_ref());
    if programme.is_none() || set.world.member(advocate_id).is_none() {
        return Ok(None);
    }
    if advocate_id == friend.id {
        return Err(InvalidField::new("properties.advocate_id", advocate_id.to_string(), "is the friend").into());
    }
    // The first who brought somebody did; and whoever bought before was brought by nobody.
    let known = friend.referrals.iter().any(|referred| referred.campaign_id == campaign_id);
    let bought = friend.card(&campaign_id).is_some_and(|card| card.consumptions > 0);
    if known || bought || friend.referrals.len() >= crate::loyalty::member::CARDS_MAX {
        return Ok(None);
    }
    Ok(Some(ReferralLinked { member_id: friend.id, advocate_id, campaign_id, code: text("code").into() }.into()))
}

/// Rewards both where one of the rules that matched qualifies.
pub(super) fn succeed(draft: &mut Draft<'_>, campaign: &Campaign, matched: &[RuleId]) -> Result<(), Rejection> {
    let Some(referral) = &campaign.programme.referral else { return Ok(()) };
    let friend = draft.member();
    let friend_id = friend.id;
    let open = friend.referrals.iter().find(|r| r.campaign_id == campaign.id && !r.succeeded);
    let Some(referred) = open.cloned() else { return Ok(()) };
    let qualifies = |id: &RuleId| referral.rule_ids.is_empty() || referral.rule_ids.contains(id);
    if !matched.iter().any(qualifies) {
        return Ok(());
    }
    let advocate_id = referred.advocate_id;
    let kind = |reward: &ReferralReward| if reward.reward_id.is_some() { "webhook" } else { "wallet" };
    draft.push(ReferralSucceededFriend {
        member_id: friend_id,
        campaign_id: campaign.id.clone(),
        campaign_name: campaign.name.clone(),
        campaign_type: "referral".into(),
        code: referred.code.clone(),
        advocate_id,
        friend_id,
        amount: referral.friend.bonus.points.0,
        reward_type: kind(&referral.friend).into(),
        reward_id: referral.friend.reward_id.clone(),
    })?;
    pay(draft, campaign, friend_id, &referral.friend, (advocate_id, friend_id))?;
    // An advocate who is gone, blocked or has left no card gets nothing; the friend did nothing wrong.
    let Some(advocate) = draft.invite(advocate_id) else { return Ok(()) };
    if advocate.is_gone() || advocate.blocked.is_some() || advocate.card(&campaign.id).is_none() {
        return Ok(());
    }
    draft.push(ReferralSucceededAdvocate {
        member_id: advocate_id,
        campaign_id: campaign.id.clone(),
        campaign_name: campaign.name.clone(),
        campaign_type: "referral".into(),
        code: referred.code,
        advocate_id,
        friend_id,
        amount: referral.advocate.bonus.points.0,
        reward_type: kind(&referral.advocate).into(),
        reward_id: referral.advocate.reward_id.clone(),
    })?;
    pay(draft, campaign, advocate_id, &referral.advocate, (advocate_id, friend_id))
}

fn pay(
    draft: &mut Draft<'_>,
    campaign: &Campaign,
    to: MemberId,
    reward: &ReferralReward,
    (advocate_id, friend_id): (MemberId, MemberId),
) -> Result<(), Rejection> {
    let origin = Origin::Referral { advocate_id, friend_id };
    draft.earn(to, &Currency::Points(campaign.id.clone()), reward.bonus.points.0, origin.clone())?;
    draft.earn(to, &Currency::Coins, reward.bonus.coins.0, origin.clone())?;
    if let Some(reward_id) = &reward.reward_id {
        let owed = Owed { campaign_id: &campaign.id, campaign_type: "referral", reward_id, reward_name: "", amount: 1 };
        draft.owe(to, owed, origin)?;
    }
    Ok(())
}
