//! Members.

use punchline_engine::loyalty::campaign::Campaign;
use punchline_engine::loyalty::member::{Card, Identifier, Member, Profile};
use punchline_proto::v1;

use super::ledger::{account, accounts_of, balance};
use super::timestamp;
use crate::refuse::Refused;

/// A member, for the wire.
pub fn member(member: &Member) -> v1::Member {
    let card = |card: &Card| v1::Card {
        campaign_id: card.campaign_id.to_string(),
        joined_at: Some(timestamp(card.joined_at)),
        points: card.points.balance,
        consumptions: card.consumptions,
        tier_id: card.tier.as_ref().map(ToString::to_string).unwrap_or_default(),
        points_earned: card.earned.iter().map(|(_, points)| points).sum(),
    };
    v1::Member {
        member_id: member.id.to_string(),
        identifiers: member.identifiers.iter().map(identifier).collect(),
        profile: Some(profile(&member.profile)),
        blocked: member.blocked.is_some(),
        blocked_reason: member.blocked.clone().unwrap_or_default(),
        cards: member.cards.iter().map(card).collect(),
        coins: member.coins.balance,
        created_at: Some(timestamp(member.created_at)),
        updated_at: Some(timestamp(member.updated_at)),
        etag: member.as_of.to_string(),
        segment_ids: member.segments.iter().map(ToString::to_string).collect(),
        channels: member.channels.clone(),
        merged_into: member.merged_into.map(|id| id.to_string()).unwrap_or_default(),
        erased_at: member.erased_at.map(timestamp),
    }
}

fn identifier(identifier: &Identifier) -> v1::Identifier {
    v1::Identifier { key: identifier.kind.as_str().into(), value: identifier.value.clone() }
}

fn profile(profile: &Profile) -> v1::Profile {
    v1::Profile {
        first_name: profile.first_name.clone(),
        last_name: profile.last_name.clone(),
        birth_date: profile.birth_date.clone(),
        locale: profile.locale.clone(),
        marketing_consent: profile.marketing_consent,
        attributes: profile.attributes.clone().into_iter().collect(),
    }
}

/// A profile as it came in.
pub fn profile_of(given: Option<v1::Profile>) -> Profile {
    let given = given.unwrap_or_default();
    Profile {
        first_name: given.first_name,
        last_name: given.last_name,
        birth_date: given.birth_date,
        locale: given.locale,
        marketing_consent: given.marketing_consent,
        attributes: given.attributes.into_iter().collect(),
    }
}

/// What an update names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberMask {
    /// All identifiers.
    pub identifiers: bool,
    /// All of the profile.
    pub profile: bool,
    /// Single fields of the profile.
    pub fields: Vec<ProfileField>,
}

/// A field of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileField {
    /// `first_name`.
    FirstName,
    /// `last_name`.
    LastName,
    /// `birth_date`.
    BirthDate,
    /// `locale`.
    Locale,
    /// `marketing_consent`.
    MarketingConsent,
    /// `attributes`, all of them.
    Attributes,
}

impl MemberMask {
    /// Reads a mask. Without one, what the request fills in is named (AIP-134).
    ///
    /// # Errors
    ///
    /// `INVALID_FIELD` with the first unknown path, and where nothing is named at all.
    pub fn parse(request: &v1::UpdateMemberRequest) -> Result<MemberMask, Refused> {
        let mut mask = MemberMask::default();
        let paths = request.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            mask.identifiers = !request.identifiers.is_empty();
            mask.profile = request.profile.is_some();
        }
        for path in paths {
            match path.as_str() {
                "*" => (mask.identifiers, mask.profile) = (true, true),
                "identifiers" => mask.identifiers = true,
                "profile" => mask.profile = true,
                "profile.first_name" => mask.fields.push(ProfileField::FirstName),
                "profile.last_name" => mask.fields.push(ProfileField::LastName),
                "profile.birth_date" => mask.fields.push(ProfileField::BirthDate),
                "profile.locale" => mask.fields.push(ProfileField::Locale),
                "profile.marketing_consent" => mask.fields.push(ProfileField::MarketingConsent),
                "profile.attributes" => mask.fields.push(ProfileField::Attributes),
                unknown => {
                    let rule = "must be identifiers, profile or profile.<field>";
                    return Err(Refused::field("update_mask", unknown, rule));
                }
            }
        }
        if mask == MemberMask::default() {
            return Err(Refused::field("update_mask", "", "must name what is to change"));
        }
        Ok(mask)
    }

    /// The profile that comes of laying `given` over `current`; `None` where the profile stays.
    pub fn lay(&self, given: &Profile, current: &Profile) -> Option<Profile> {
        if self.profile {
            return Some(given.clone());
        }
        if self.fields.is_empty() {
            return None;
        }
        let mut laid = current.clone();
        for field in &self.fields {
            match field {
                ProfileField::FirstName => laid.first_name.clone_from(&given.first_name),
                ProfileField::LastName => laid.last_name.clone_from(&given.last_name),
                ProfileField::BirthDate => laid.birth_date.clone_from(&given.birth_date),
                ProfileField::Locale => laid.locale.clone_from(&given.locale),
                ProfileField::MarketingConsent => laid.marketing_consent = given.marketing_consent,
                ProfileField::Attributes => laid.attributes.clone_from(&given.attributes),
            }
        }
        Some(laid)
    }
}

/// All balances of a member: points for each card, then coins.
pub fn balances(member: &Member) -> Vec<v1::Balance> {
    accounts_of(member).map(|(currency, account)| balance(&currency, account.balance)).collect()
}

/// The same, with what they are made of.
pub fn accounts(member: &Member) -> Vec<v1::Account> {
    accounts_of(member).map(|(currency, of)| account(&currency, of)).collect()
}

/// The punchcards of one card: all that the campaign has, and those with stamps that it has no more.
pub fn punchcards(card: &Card, campaign: Option<&Campaign>) -> Vec<v1::PunchcardState> {
    let defined = campaign.map(|campaign| campaign.punchcards.as_slice()).unwrap_or_default();
    let state = |id: &punchline_engine::id::PunchcardId, name: &str| {
        let (stamps, rows_completed) = card.row(id);
        v1::PunchcardState {
            campaign_id: card.campaign_id.to_string(),
            punchcard_id: id.to_string(),
            name: name.into(),
            stamps: stamps.0,
            row_length: 0,
            rows_completed,
            next_step: 0,
        }
    };
    let now = defined.iter().map(|punchcard| {
        let mut state = state(&punchcard.id, &punchcard.name);
        state.row_length = punchcard.row_length;
        let done = !punchcard.repeatable && state.rows_completed > 0;
        let next = punchcard.steps.iter().find(|step| u64::from(**step) > state.stamps);
        state.next_step = if done { 0 } else { *next.unwrap_or(&punchcard.row_length) };
        state
    });
    let removed = card.punchcards.iter().filter(|p| !defined.iter().any(|d| d.id == p.punchcard_id));
    now.chain(removed.map(|p| state(&p.punchcard_id, ""))).collect()
}
