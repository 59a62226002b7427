//! Members: registered, changed, and the one command that does whichever of the two is due.
//!
//! # Invariants
//!
//! - An identification only adds: identifiers are never taken away and nothing that is known becomes
//!   empty, since its sender knows a part of the member only.
//! - Applied twice it changes nothing the second time.

use super::draft::Draft;
use super::{Decision, WorkingSet, check_identifiers, check_joinable, follow, resolve, text};
use crate::event::{Event, MemberChannelSet, MemberCreated, MemberJoinedCampaign, MemberUpdated, Recorded};
use crate::id::{CampaignId, KeySlot, MemberId};
use crate::loyalty::fact::Fact;
use crate::loyalty::member::{ATTRIBUTES_MAX, Identifier, MEMBER_IDENTIFIERS_MAX, Member, Profile};
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::{InvalidField, Rejection};

/// Registers a member under a new id.
pub(super) fn register(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member_id: MemberId,
    identifiers: &[Identifier],
    profile: &Profile,
    registration_source: &str,
    join: &[CampaignId],
) -> Result<Decision, Rejection> {
    check_identifiers(set, identifiers, member_id)?;
    profile.validate()?;
    text("registration_source", registration_source, 200)?;
    let created = MemberCreated {
        member_id,
        identifiers: identifiers.to_vec(),
        profile: profile.clone(),
        registration_source: registration_source.into(),
    };
    let created = Event::from(created);
    let tenant = set.tenant;
    let (sequence, time) = (set.next, set.now);
    let (member, key_slot, quiet, event) = (Some(member_id), KeySlot::NONE, false, &created);
    let recorded = Recorded { sequence, cause: sequence, time, tenant, member, key_slot, quiet, event };
    let member = Member::created_by(&recorded).expect("the event creates a member");
    let mut draft = Draft::new(set, config, &member);
    draft.events.push(created);
    for (i, campaign_id) in join.iter().enumerate() {
        check_joinable(config, campaign_id, set.now, i)?;
        if join[..i].contains(campaign_id) {
            let field = format!("join_campaign_ids[{i}]");
            return Err(InvalidField::new(field, campaign_id.as_str(), "stands twice").into());
        }
        draft.push(MemberJoinedCampaign { member_id, campaign_id: campaign_id.clone() })?;
    }
    follow::up(draft)
}

/// Registers or updates the member that `identifiers` name.
pub(super) fn identify(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    new_id: MemberId,
    identifiers: &[Identifier],
    profile: &Profile,
    registration_source: &str,
) -> Result<Decision, Rejection> {
    let conflict = |(first, second)| Rejection::IdentifiersConflict { first, second };
    let Some(known) = resolve(identifiers, set.owners).map_err(conflict)? else {
        let profile = lay(profile, &Profile::default());
        return register(set, config, new_id, identifiers, &profile, registration_source, &[]);
    };
    let member = set.member.ok_or(Rejection::MemberNotFound(known))?;
    let mut all = member.identifiers.clone();
    all.extend(identifiers.iter().filter(|given| !member.identifiers.contains(given)).cloned());
    if all.len() > MEMBER_IDENTIFIERS_MAX {
        let rule = "would be more than the member's 20";
        return Err(InvalidField::new("identifiers", all.len().to_string(), rule).into());
    }
    let profile = lay(profile, &member.profile);
    profile.validate()?;
    updated(set, config, member, &all, &profile)
}

/// Whether a member that was written as `known` and `profile` says all that an identification gives.
pub(super) fn says(known: &[Identifier], profile: &Profile, identifiers: &[Identifier], given: &Profile) -> bool {
    identifiers.iter().all(|identifier| known.contains(identifier)) && lay(given, profile) == *profile
}

/// `given` over `known`: what is empty in it stays as it was, attributes are laid over one by one, new ones
/// as long as there is room.
pub(super) fn lay(given: &Profile, known: &Profile) -> Profile {
    let mut laid = known.clone();
    for (given, laid) in [
        (&given.first_name, &mut laid.first_name),
        (&given.last_name, &mut laid.last_name),
        (&given.birth_date, &mut laid.birth_date),
        (&given.locale, &mut laid.locale),
    ] {
        if !given.is_empty() {
            laid.clone_from(given);
        }
    }
    laid.marketing_consent = given.marketing_consent.or(laid.marketing_consent);
    for (key, value) in &given.attributes {
        if laid.attributes.len() < ATTRIBUTES_MAX || laid.attributes.contains_key(key) {
            laid.attributes.insert(key.clone(), value.clone());
        }
    }
    laid
}

/// The fact by which an upstream system tells what a member wants to hear from.
pub(super) const CHANNEL_CHANGED: &str = "member.channel_subscription_changed";

/// Most channels of a member.
const CHANNELS_MAX: usize = 50;

/// What a fact says of a channel: bookkeeping of the member.
pub(super) fn channel(member: &Member, fact: &Fact) -> Result<Option<Event>, Rejection> {
    let properties: serde_json::Value = serde_json::from_str(&fact.properties.0).unwrap_or_default();
    let (Some(channel), Some(subscribed)) = (properties["channel"].as_str(), properties["subscribed"].as_bool()) else {
        return Ok(None);
    };
    text("properties.channel", channel, 64)?;
    if member.channels.len() >= CHANNELS_MAX && !member.channels.contains_key(channel) {
        return Err(Rejection::LimitReached { what: "channels of this member", max: CHANNELS_MAX });
    }
    let channel = channel.to_owned();
    Ok(Some(MemberChannelSet { member_id: member.id, channel, subscribed }.into()))
}

/// The event that makes `member` have these, if it has not.
pub(super) fn updated(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    identifiers: &[Identifier],
    profile: &Profile,
) -> Result<Decision, Rejection> {
    let old = &member.profile;
    let changed: Vec<String> = [
        ("identifiers", identifiers != member.identifiers),
        ("profile.first_name", profile.first_name != old.first_name),
        ("profile.last_name", profile.last_name != old.last_name),
        ("profile.birth_date", profile.birth_date != old.birth_date),
        ("profile.locale", profile.locale != old.locale),
        ("profile.marketing_consent", profile.marketing_consent != old.marketing_consent),
        ("profile.attributes", profile.attributes != old.attributes),
    ]
    .into_iter()
    .filter(|&(_, changed)| changed)
    .map(|(path, _)| path.into())
    .collect();
    if changed.is_empty() {
        return Ok(Decision::Already(member.as_of));
    }
    let (identifiers, profile) = (identifiers.to_vec(), profile.clone());
    let mut draft = Draft::new(set, config, member);
    draft.push(MemberUpdated { member_id: member.id, identifiers, profile, changed })?;
    follow::up(draft)
}
