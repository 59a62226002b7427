//! Two members become one: identifiers, cards, balances and stamps go to the one that stays.
//!
//! # Invariants
//!
//! - Nothing is made and nothing lost: each account of the other is emptied into the same account here, lot by
//!   lot. Stamps of a punchcard that does not carry over are lost as they would be by stamping.
//! - What is open stays open: a member with holds or a debt is not merged.

use super::draft::Draft;
use super::{Decision, WorkingSet, follow, live};
use crate::event::*;
use crate::id::MemberId;
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::{CARDS_MAX, MEMBER_IDENTIFIERS_MAX, Member};
use crate::loyalty::punchcard;
use crate::loyalty::tenant::TenantConfig;
use crate::quantity::Stamps;
use crate::rejection::{InvalidField, Rejection};

pub(super) fn merge(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    into: &Member,
    from_id: MemberId,
) -> Result<Decision, Rejection> {
    if from_id == into.id {
        return Err(InvalidField::new("from_member_id", from_id.to_string(), "is the member itself").into());
    }
    let mut draft = Draft::new(set, config, into);
    let from = draft.invite(from_id).ok_or(Rejection::MemberNotFound(from_id))?.clone();
    if from.merged_into == Some(into.id) {
        return Ok(Decision::Already(into.as_of));
    }
    live(&from)?;
    for (_, account) in from.accounts() {
        if let Some(hold) = account.holds.first() {
            return Err(Rejection::MemberBusy { member: from_id, what: format!("the hold {}", hold.id) });
        }
        if account.balance < 0 {
            return Err(Rejection::MemberBusy { member: from_id, what: "a balance below zero".into() });
        }
    }
    let mut identifiers = into.identifiers.clone();
    identifiers.extend(from.identifiers.iter().cloned());
    if identifiers.len() > MEMBER_IDENTIFIERS_MAX {
        let rule = "would be more than the member's 20";
        return Err(InvalidField::new("identifiers", identifiers.len().to_string(), rule).into());
    }
    let new_cards = from.cards.iter().filter(|card| into.card(&card.campaign_id).is_none());
    super::limit("cards of this member", into.cards.len() + new_cards.clone().count(), CARDS_MAX + 1)?;
    draft.push(MemberMerged { member_id: into.id, from_member_id: from_id })?;
    for card in new_cards {
        draft.push(MemberJoinedCampaign { member_id: into.id, campaign_id: card.campaign_id.clone() })?;
    }
    for (campaign, account) in from.accounts() {
        let currency = campaign.map_or(Currency::Coins, |id| Currency::Points(id.clone()));
        let origin = |other_member_id| Origin::Merge { other_member_id };
        draft.debit(from_id, &currency, account.balance, None, origin(into.id))?;
        for lot in &account.lots {
            draft.credit(into.id, &currency, lot.amount, lot.expires_at, origin(from_id))?;
        }
    }
    stamps(&mut draft, config, &from)?;
    draft.push(MemberMergedInto { member_id: from_id, into_member_id: into.id })?;
    let profile = super::member::lay(&into.profile, &from.profile);
    let mut changed = vec!["identifiers".to_owned()];
    changed.extend((profile != into.profile).then(|| "profile".to_owned()));
    draft.push(MemberUpdated { member_id: into.id, identifiers, profile, changed })?;
    follow::up(draft)
}

fn stamps(draft: &mut Draft<'_>, config: &TenantConfig, from: &Member) -> Result<(), Rejection> {
    let member_id = draft.member().id;
    for card in &from.cards {
        let campaign = config.campaigns.get(&card.campaign_id).expect("campaigns are never removed");
        for progress in &card.punchcards {
            let Some(definition) = campaign.punchcard(&progress.punchcard_id) else { continue };
            let more = progress.stamps.0 + progress.rows_completed * u64::from(definition.row_length);
            let row = draft.member().card(&card.campaign_id).expect("joined above").row(&definition.id);
            let added = punchcard::add(definition, row, more);
            if added.kept == 0 {
                continue;
            }
            draft.push(PunchcardStampsReceived {
                member_id,
                campaign_id: card.campaign_id.clone(),
                punchcard_id: definition.id.clone(),
                stamps: Stamps(added.kept),
                row_length: definition.row_length,
                previous: RowState { stamps: row.0, rows_completed: row.1 },
                new: RowState { stamps: Stamps(added.stamps), rows_completed: added.rows_completed },
                origin: Origin::Merge { other_member_id: from.id },
            })?;
        }
    }
    Ok(())
}
