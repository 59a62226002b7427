//! The one decision: a command against what is, giving events or a rejection.
//!
//! # Invariants
//!
//! - Nothing is changed here, so a rejection leaves no trace.
//! - Everything a consumption earns is decided at once and stands in one record with it.
//! - The checks of a consumption stand in API.md's order; the first that fails answers.
//!
//! # What is absent on purpose
//!
//! - Loading. The caller brings what the command names, in a [`WorkingSet`], and what else is there, behind
//!   [`World`].

mod consumption;
mod coupon;
mod delivery;
mod draft;
mod follow;
mod jobs;
mod ledger;
mod member;
mod merge;
mod programme;
mod referral;
mod reward;
pub mod simulate;

pub use draft::EARNED_EVENT_BYTES_MIN;

use crate::command::{Action, Command};
use crate::event::*;
use crate::id::{AdvertiserId, CampaignId, MemberId, Sequence, Tenant};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::coupon::CouponBook;
use crate::loyalty::fact::{self, Fact, FactReceipt};
use crate::loyalty::fact_type::{FACT_TYPES_MAX, FactType};
use crate::loyalty::item::{Item, ItemKey};
use crate::loyalty::ledger::{Currency, Entry, House};
use crate::loyalty::member::{CARDS_MAX, Identifier, MEMBER_IDENTIFIERS_MAX, Member, Profile};
use crate::loyalty::programme::Segment;
use crate::loyalty::reward::Reward;
use crate::loyalty::tenant::{ADVERTISERS_MAX, CAMPAIGNS_MAX, CREDENTIALS_MAX, Credential, Directory, TenantConfig};
use crate::rejection::{InvalidField, Rejection};
use crate::time::UnixMillis;

/// Most sequences in one redrive command.
pub const REDRIVE_MAX: usize = 1_000;
/// Most bytes of a record: what a block of the journal holds, which the sequencer checks to the byte. Here it
/// bounds what is worked out for nothing: 200 lines by 500 rules by 100 cards are ten million events.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// What a command is decided against.
#[derive(Debug)]
pub struct WorkingSet<'a> {
    /// Whose.
    pub tenant: Tenant,
    /// The time of the decision.
    pub now: UnixMillis,
    /// Everything that is configured.
    pub directory: &'a Directory,
    /// The record that used the command's key first, with the position of its first event.
    pub seen: Option<(Sequence, &'a Record)>,
    /// Owners of [`Command::identifiers`], in their order.
    pub owners: &'a [Option<MemberId>],
    /// The member that the command names, by id, by its identifiers or by an item; absent where there is none.
    pub member: Option<&'a Member>,
    /// The tenant's sums and counts.
    pub house: &'a House,
    /// Position that the first event will have.
    pub next: Sequence,
    /// What digests of identifiers are made with.
    pub digest_key: &'a [u8],
    /// Everything else of the tenant.
    pub world: &'a dyn World,
}

/// What is there of one tenant, as of the decision: what the caller cannot know beforehand to be needed.
pub trait World: std::fmt::Debug {
    /// A member.
    fn member(&self, id: MemberId) -> Option<Member>;
    /// A redemption, a coupon, an obligation.
    fn item(&self, key: &ItemKey) -> Option<Item>;
    /// The ledger entry at a position.
    fn entry(&self, at: Sequence) -> Option<Entry>;
}

/// A world with nothing in it.
#[derive(Debug)]
pub struct EmptyWorld;

impl World for EmptyWorld {
    fn member(&self, _: MemberId) -> Option<Member> {
        None
    }

    fn item(&self, _: &ItemKey) -> Option<Item> {
        None
    }

    fn entry(&self, _: Sequence) -> Option<Entry> {
        None
    }
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// To be written down.
    Events(Vec<Event>),
    /// Nothing changes: it is so already, since the position given.
    Already(Sequence),
}

/// Decides `command`.
///
/// # Errors
///
/// The [`Rejection`] of the first check that fails.
pub fn decide(set: &WorkingSet<'_>, command: &Command) -> Result<Decision, Rejection> {
    if let Action::RecordConsumption(consumption) = &command.action {
        return consumption::decide(set, command, consumption);
    }
    if let Action::PublishFact(fact) = &command.action {
        return decide_fact(set, command, fact);
    }
    if let (Some((sequence, record)), Some(CommandKey::Job { .. })) = (set.seen, command.key()) {
        return once_before(sequence, record, &command.action);
    }
    if let (Some((sequence, record)), Some(request_id)) = (set.seen, &command.request_id) {
        return repeated_request(record, &command.action, request_id).map(|()| Decision::Already(sequence));
    }
    if let Action::CreateAdvertiser { advertiser_id, name } = &command.action {
        return create_advertiser(set.directory, *advertiser_id, name).map(one);
    }
    let config = tenant_config(set, command)?;
    let anybody = |id: MemberId| set.member.ok_or(Rejection::MemberNotFound(id));
    let member = |id: MemberId| anybody(id).and_then(|member| live(member).map(|()| member));
    let events = match &command.action {
        Action::RecordConsumption(_) | Action::PublishFact(_) | Action::CreateAdvertiser { .. } => {
            unreachable!("handled above")
        }
        Action::RegisterMember { member_id, identifiers, profile, registration_source, join, .. } => {
            return member::register(set, config, *member_id, identifiers, profile, registration_source, join);
        }
        Action::UpdateMember { member_id, identifiers, profile, etag } => {
            let member = member(*member_id)?;
            return update_member(set, config, member, identifiers.as_deref(), profile.as_ref(), etag.as_deref());
        }
        Action::IdentifyMember { member_id, identifiers, profile, registration_source } => {
            return member::identify(set, config, *member_id, identifiers, profile, registration_source);
        }
        Action::BlockMember { member_id, reason } => {
            if let Some(blocked) = &member(*member_id)?.blocked
                && blocked == reason
            {
                return Ok(Decision::Already(set.member.expect("found above").as_of));
            }
            text("reason", reason, 500)?;
            vec![MemberBlocked { member_id: *member_id, reason: reason.clone() }.into()]
        }
        Action::UnblockMember { member_id } => {
            let member = member(*member_id)?;
            if member.blocked.is_none() {
                return Ok(Decision::Already(member.as_of));
            }
            vec![MemberUnblocked { member_id: *member_id }.into()]
        }
        Action::EraseMember { member_id } => {
            let found = anybody(*member_id)?;
            if found.erased_at.is_some() {
                return Ok(Decision::Already(found.as_of));
            }
            vec![MemberErased { member_id: *member_id }.into()]
        }
        Action::JoinCampaign { member_id, campaign_id } => {
            let member = member(*member_id)?;
            if member.card(campaign_id).is_some() {
                return Ok(Decision::Already(member.as_of));
            }
            check_joinable(config, campaign_id, set.now, member.cards.len())?;
            let mut draft = draft::Draft::new(set, config, member);
            draft.push(MemberJoinedCampaign { member_id: *member_id, campaign_id: campaign_id.clone() })?;
            return follow::up(draft);
        }
        Action::AdjustBalance { member_id, currency, amount, reason } => {
            return follow::up(ledger::adjust(set, config, member(*member_id)?, (currency, *amount, reason))?);
        }
        Action::PlaceHold { member_id, hold_id, currency, amount, until, reason } => {
            let (member_id, hold_id, amount, until, reason) =
                (*member_id, hold_id.clone(), *amount, *until, reason.clone());
            let placed = HoldPlaced { member_id, hold_id, currency: currency.clone(), amount, until, reason };
            return ledger::place_hold(set, member(member_id)?, currency, placed);
        }
        Action::PostHold { member_id, hold_id, amount, reason } => {
            return follow::up(ledger::post_hold(set, config, member(*member_id)?, (hold_id, *amount, reason))?);
        }
        Action::VoidHold { member_id, hold_id, reason } => {
            return ledger::void_hold(member(*member_id)?, hold_id, reason);
        }
        Action::TimeOutHold { member_id, hold_id } => {
            return ledger::time_out_hold(set, config, anybody(*member_id)?, hold_id);
        }
        Action::Transfer { member_id, to_member_id, currency, amount, reason } => {
            let wanted = (*to_member_id, currency, *amount, reason.as_str());
            return follow::up(ledger::transfer(set, config, member(*member_id)?, wanted)?);
        }
        Action::ReverseEntry { member_id, entry, reason } => {
            return follow::up(ledger::reverse(set, config, member(*member_id)?, (*entry, reason))?);
        }
        Action::MergeMembers { member_id, from_member_id } => {
            return merge::merge(set, config, member(*member_id)?, *from_member_id);
        }
        Action::UpdateSettings { settings, etag } => return programme::settings(config, settings, etag.as_deref()),
        Action::CreateSegment { segment } => return programme::create_segment(config, segment),
        Action::UpdateSegment { segment, etag } => return programme::update_segment(config, segment, etag.as_deref()),
        Action::CreateReward { reward } => return reward::create(config, reward),
        Action::UpdateReward { reward, etag } => return reward::update(config, reward, etag.as_deref()),
        Action::StartRedemption { member_id, redemption_id, reward_id } => {
            return reward::start(set, config, member(*member_id)?, redemption_id, reward_id);
        }
        Action::CompleteRedemption { redemption_id, voucher_code } => {
            let not_found = || Rejection::RedemptionNotFound(redemption_id.clone());
            let member = set.member.ok_or_else(not_found)?;
            return reward::complete(set, config, member, redemption_id, voucher_code.as_deref());
        }
        Action::FailRedemption { redemption_id, reason } => {
            return reward::fail(set, config, redemption_id, reason);
        }
        Action::RefundRedemption { redemption_id, reason } => {
            let not_found = || Rejection::RedemptionNotFound(redemption_id.clone());
            return reward::refund(set, config, set.member.ok_or_else(not_found)?, redemption_id, reason);
        }
        Action::ConfirmObligation { obligation_id, reference } => {
            return reward::confirm(set, obligation_id, reference);
        }
        Action::CreateCouponBook { coupon_book, codes } => return coupon::create(set, config, coupon_book, codes),
        Action::AddCoupons { coupon_book_id, codes, .. } => return coupon::add(set, config, coupon_book_id, codes),
        Action::AssignCoupon { member_id, coupon_book_id, code, usage_id } => {
            let what = (coupon_book_id, code.as_deref(), usage_id.as_str());
            return coupon::assign(set, config, member(*member_id)?, what);
        }
        Action::UseCoupon { coupon_book_id, code, usage_id, order_id, discount_amount } => {
            let used = (usage_id.as_str(), order_id.as_str(), *discount_amount);
            return coupon::use_(set, config, (coupon_book_id, code), used);
        }
        Action::RollBackCoupon { coupon_book_id, code, reverted_usage_id, reason } => {
            return coupon::roll_back(set, config, (coupon_book_id, code), (reverted_usage_id, reason));
        }
        Action::SendGiftCard { gift_card } => {
            member(gift_card.member_id)?;
            return coupon::send_gift_card(gift_card);
        }
        Action::RunJob { job, member_id, run, last } => {
            return jobs::run(set, config, anybody(*member_id)?, (*job, *run, *last));
        }
        Action::AwardLeaderboard { member_id, campaign_id, leaderboard_id, round, rank, score } => {
            let board = (campaign_id, leaderboard_id);
            return jobs::award(set, config, anybody(*member_id)?, board, (*round, *rank, *score));
        }
        Action::CompleteJob { job, run, concerned } => {
            vec![JobCompleted { job: *job, run: *run, concerned: *concerned }.into()]
        }
        Action::IssueCredential { credential } => {
            limit("api keys", config.credentials.len(), CREDENTIALS_MAX)?;
            if config.credentials.contains_key(&credential.id) {
                return Err(Rejection::CredentialExists(credential.id.clone()));
            }
            if let Some(other) = other_owner(set.directory, command.tenant, credential) {
                let rule = format!("belongs to advertiser {other} already");
                return Err(InvalidField::new("api_key", credential.id.as_str(), rule).into());
            }
            text("description", &credential.description, 500)?;
            vec![CredentialIssued { credential: credential.clone() }.into()]
        }
        Action::RevokeCredential { credential_id } => {
            let credential = config.credentials.get(credential_id);
            let credential = credential.ok_or_else(|| Rejection::CredentialNotFound(credential_id.clone()))?;
            if credential.revoked_at.is_some() {
                return Ok(Decision::Already(Sequence(0)));
            }
            vec![CredentialRevoked { credential_id: credential_id.clone() }.into()]
        }
        Action::CreateCampaign { campaign } => {
            if config.campaigns.contains_key(&campaign.id) {
                return Err(Rejection::CampaignExists(campaign.id.clone()));
            }
            limit("campaigns", config.campaigns.len(), CAMPAIGNS_MAX)?;
            programme::check(config, campaign)?;
            vec![CampaignCreated { campaign: Box::new(Campaign { version: 1, ..campaign.clone() }) }.into()]
        }
        Action::UpdateCampaign { campaign, etag } => {
            let current = config.campaigns.get(&campaign.id);
            let current = current.ok_or_else(|| Rejection::CampaignNotFound(campaign.id.clone()))?;
            check_etag(etag.as_deref(), current.version)?;
            programme::check(config, campaign)?;
            let campaign = Box::new(Campaign { version: current.version + 1, ..campaign.clone() });
            vec![CampaignUpdated { campaign }.into()]
        }
        Action::RegisterFactType { fact_type, etag } => {
            let current = config.fact_types.get(&fact_type.name);
            let version = current.map_or(0, |current| current.version);
            check_etag(etag.as_deref(), version)?;
            fact_type.validate()?;
            let FactType { description, schema, .. } = fact_type;
            match current {
                Some(current) if (&current.description, &current.schema) == (description, schema) => {
                    return Ok(Decision::Already(Sequence(0)));
                }
                Some(_) => {}
                None => limit("fact types", config.fact_types.len(), FACT_TYPES_MAX)?,
            }
            vec![FactTypeRegistered { fact_type: FactType { version: version + 1, ..fact_type.clone() } }.into()]
        }
        action => return delivery::decide(set.directory, config, action),
    };
    Ok(Decision::Events(events))
}

/// What a command comes to whose key was used up by the record at `first`, which was trimmed: used up it stays,
/// and whether the content was the same nobody can tell any more.
///
/// # Errors
///
/// [`Rejection::UsedUp`], but for what the clock does once for each period.
pub fn used_up(command: &Command, first: Sequence) -> Result<Decision, Rejection> {
    let reason = match &command.action {
        Action::RecordConsumption(_) => "CONSUMPTION_EXISTS",
        Action::PublishFact(_) => "FACT_EXISTS",
        Action::RunJob { .. } | Action::AwardLeaderboard { .. } | Action::CompleteJob { .. } => {
            return Ok(Decision::Already(first));
        }
        _ if matches!(command.key(), Some(CommandKey::Job { .. })) => "ID_REUSED",
        _ => "REQUEST_ID_REUSED",
    };
    Err(Rejection::UsedUp { reason, first })
}

fn one(event: Event) -> Decision {
    Decision::Events(vec![event])
}

fn decide_fact(set: &WorkingSet<'_>, command: &Command, fact: &Fact) -> Result<Decision, Rejection> {
    let conflict = |(first, second)| Rejection::IdentifiersConflict { first, second };
    let found = resolve(&fact.identifiers, set.owners).map_err(conflict);
    if let Some((sequence, record)) = set.seen {
        let Some(Event::FactPublished(recorded)) = record.events.first() else {
            unreachable!("a fact's key leads to a fact's record")
        };
        let first = FactReceipt { sequence, time: record.time, member_id: recorded.member_id };
        // Whom it was about may be another by now.
        let about = recorded.member_id.map(|id| now_is(set, id));
        return Err(match fact::difference(recorded, about, found.ok().flatten(), fact) {
            None => Rejection::FactExists { first },
            Some(field) => Rejection::FactExistsWithDifferentContent { field, first },
        });
    }
    let config = tenant_config(set, command)?;
    let member_id = found?;
    if member_id.is_none() && !fact.identifiers.is_empty() {
        return Err(Rejection::AccountNotFound);
    }
    let Fact { source, fact_id, fact_type, occurred_at, properties, personal, .. } = fact.clone();
    let occurred_at = occurred_at.unwrap_or(set.now);
    let published = FactPublished { source, fact_id, fact_type, member_id, occurred_at, properties, personal };
    let mut events = vec![published.into()];
    if let Some(member) = member_id.and(set.member) {
        live(member)?;
        events.extend(match fact.fact_type.as_str() {
            referral::ATTRIBUTED => referral::link(set, config, member, fact)?,
            member::CHANNEL_CHANGED => member::channel(member, fact)?,
            _ => None,
        });
    }
    Ok(Decision::Events(events))
}

/// What is asked for once for each subject and period was done before.
fn once_before(sequence: Sequence, record: &Record, action: &Action) -> Result<Decision, Rejection> {
    let (same, what, id) = match (&record.events[0], action) {
        (Event::HoldPlaced(e), Action::PlaceHold { member_id, hold_id, currency, amount, until, .. }) => {
            let same = e.member_id == *member_id && e.currency == *currency && e.amount == *amount && e.until == *until;
            (same, "hold_id", hold_id)
        }
        (Event::CouponAssigned(e), Action::AssignCoupon { member_id, coupon_book_id, code, usage_id }) => {
            let same_code = code.as_ref().is_none_or(|code| e.code == *code);
            let same = e.member_id == *member_id && e.coupon_book.coupon_book_id == *coupon_book_id && same_code;
            (same, "usage_id", usage_id)
        }
        (Event::CouponUsed(e), Action::UseCoupon { coupon_book_id, code, usage_id, order_id, .. }) => {
            let same = e.coupon_book.coupon_book_id == *coupon_book_id && e.code == *code && e.order_id == *order_id;
            (same, "usage_id", usage_id)
        }
        (Event::RedemptionRolledBack(e), Action::RollBackCoupon { coupon_book_id, code, reverted_usage_id, .. }) => {
            let same = e.coupon_book_id == *coupon_book_id && e.code == *code;
            (same, "reverted_usage_id", reverted_usage_id)
        }
        (event, Action::ReverseEntry { member_id, entry, .. }) if event.other_member() != Some(*member_id) => {
            return Err(Rejection::EntryNotFound(*entry));
        }
        (Event::GiftCardSent(e), Action::SendGiftCard { gift_card }) => {
            (e == gift_card, "gift_card_id", &gift_card.gift_card_id)
        }
        _ => return Ok(Decision::Already(sequence)),
    };
    if same { Ok(Decision::Already(sequence)) } else { Err(Rejection::IdReused { what, id: id.clone() }) }
}

/// Who a member is by now.
fn now_is(set: &WorkingSet<'_>, mut id: MemberId) -> MemberId {
    while let Some(into) = set.world.member(id).and_then(|member| member.merged_into) {
        id = into;
    }
    id
}

/// Refuses a member who is nobody, or another one, by now.
fn live(member: &Member) -> Result<(), Rejection> {
    if member.erased_at.is_some() {
        return Err(Rejection::MemberErased(member.id));
    }
    match member.merged_into {
        Some(into) => Err(Rejection::MemberMerged { member: member.id, into }),
        None => Ok(()),
    }
}

/// Whether the tiers and segments of a member are not what they should be at `now`.
pub fn changes_by_itself(config: &TenantConfig, member: &Member, now: UnixMillis) -> bool {
    config.follows_up() && !follow::changes(config, member, now).is_empty()
}

fn tenant_config<'a>(set: &WorkingSet<'a>, command: &Command) -> Result<&'a TenantConfig, Rejection> {
    let config = set.directory.tenant(command.tenant);
    config.map(|c| &**c).ok_or(Rejection::AdvertiserNotFound(command.tenant.advertiser))
}

/// Another that has the key. One advertiser may use it in both environments: a key alone, without its
/// environment, names nobody. But a write key does.
fn other_owner(directory: &Directory, own: Tenant, key: &Credential) -> Option<AdvertiserId> {
    let is_other = |of: Tenant| of.advertiser != own.advertiser || (key.write_key && of != own);
    let mut others = directory.tenants.iter().filter(|(tenant, _)| is_other(**tenant));
    others.find(|(_, config)| config.credentials.contains_key(&key.id)).map(|(tenant, _)| tenant.advertiser)
}

fn limit(what: &'static str, count: usize, max: usize) -> Result<(), Rejection> {
    if count < max { Ok(()) } else { Err(Rejection::LimitReached { what, max }) }
}

fn text(field: &str, value: &str, max: usize) -> Result<(), InvalidField> {
    if value.len() <= max {
        return Ok(());
    }
    Err(InvalidField::new(field, value, format!("must be at most {max} bytes")))
}

fn check_etag(given: Option<&str>, version: u64) -> Result<(), Rejection> {
    let current = version.to_string();
    match given {
        Some(given) if given != current => Err(Rejection::EtagMismatch { given: given.into(), current }),
        _ => Ok(()),
    }
}

/// A repeat of a create verb is answered as the first was, if the caller asked for the same. What the server
/// made itself, ids and sealed secrets, differs each time and is left out.
fn repeated_request(first: &Record, action: &Action, request_id: &str) -> Result<(), Rejection> {
    let same = match (&first.events[0], action) {
        // A member has identifiers until it is erased: then what was asked for the first time is not known.
        (
            Event::MemberCreated(MemberCreated { member_id, identifiers, .. })
            | Event::MemberUpdated(MemberUpdated { member_id, identifiers, .. }),
            Action::RegisterMember { .. } | Action::IdentifyMember { .. },
        ) if identifiers.is_empty() => return Err(Rejection::MemberErased(*member_id)),
        (Event::MemberCreated(e), Action::RegisterMember { identifiers, profile, registration_source, join, .. }) => {
            let joined = first.events[1..].iter().filter_map(|event| match event {
                Event::MemberJoinedCampaign(e) => Some(&e.campaign_id),
                _ => None,
            });
            e.identifiers == *identifiers
                && e.profile == *profile
                && e.registration_source == *registration_source
                && joined.eq(join)
        }
        (
            Event::MemberCreated(MemberCreated { identifiers: known, profile: had, .. })
            | Event::MemberUpdated(MemberUpdated { identifiers: known, profile: had, .. }),
            Action::IdentifyMember { identifiers, profile, .. },
        ) => member::says(known, had, identifiers, profile),
        (Event::CampaignCreated(e), Action::CreateCampaign { campaign }) => {
            *e.campaign == Campaign { version: e.campaign.version, ..campaign.clone() }
        }
        (Event::SubscriptionCreated(e), Action::CreateSubscription { subscription, owed_after, .. }) => {
            e.owed_after == *owed_after && delivery::same_subscription(&e.subscription, subscription)
        }
        (Event::SegmentCreated(e), Action::CreateSegment { segment }) => {
            e.segment == Segment { version: e.segment.version, ..segment.clone() }
        }
        (Event::RewardCatalogueCreated(e), Action::CreateReward { reward }) => {
            *e.reward == Reward { version: e.reward.version, ..reward.clone() }
        }
        (Event::CouponBookCreated(e), Action::CreateCouponBook { coupon_book, codes }) => {
            let had = first.events.get(1).map_or(&[][..], |event| match event {
                Event::CouponsAdded(e) => &e.codes,
                _ => &[],
            });
            *e.coupon_book == CouponBook { version: e.coupon_book.version, ..coupon_book.clone() }
                && coupon::same_codes(coupon_book.kind, had, codes)
        }
        (Event::CouponsAdded(e), Action::AddCoupons { coupon_book_id, kind, codes }) => {
            e.coupon_book_id == *coupon_book_id && coupon::same_codes(*kind, &e.codes, codes)
        }
        (event, Action::Transfer { member_id, to_member_id, currency, amount, reason }) => {
            let origin = Origin::Transfer { other_member_id: *to_member_id, reason: reason.clone() };
            moved(event) == Some((*member_id, currency.clone(), -*amount, &origin))
        }
        (event, Action::PostHold { member_id, hold_id, amount, reason }) => {
            let origin = Origin::Hold { hold_id: hold_id.clone(), reason: reason.clone() };
            moved(event).is_some_and(|(member, _, posted, from)| {
                member == *member_id && amount.is_none_or(|amount| amount == -posted) && *from == origin
            })
        }
        (Event::HoldVoided(e), Action::VoidHold { member_id, hold_id, reason }) => {
            e.member_id == *member_id && e.hold_id == *hold_id && e.reason == *reason
        }
        (Event::AdvertiserCreated(e), Action::CreateAdvertiser { advertiser_id, name }) => {
            e.name == *name && advertiser_id.is_none_or(|id| id == e.advertiser_id)
        }
        (event, Action::AdjustBalance { member_id, currency, amount, reason }) => {
            let origin = Origin::Adjustment { reason: reason.clone() };
            moved(event) == Some((*member_id, currency.clone(), *amount, &origin))
        }
        _ => false,
    };
    if same { Ok(()) } else { Err(Rejection::RequestIdReused { request_id: request_id.into() }) }
}

/// What an entry moved: whose, of what, how much, from where.
fn moved(event: &Event) -> Option<(MemberId, Currency, i64, &Origin)> {
    match event {
        Event::PointsCredited(e) => Some((e.member_id, Currency::Points(e.campaign_id.clone()), e.amount.0, &e.origin)),
        Event::PointsDebited(e) => Some((e.member_id, Currency::Points(e.campaign_id.clone()), -e.amount.0, &e.origin)),
        Event::CoinsChanged(e) => Some((e.member_id, Currency::Coins, e.amount.0, &e.origin)),
        _ => None,
    }
}

fn create_advertiser(directory: &Directory, id: Option<AdvertiserId>, name: &str) -> Result<Event, Rejection> {
    limit("advertisers", directory.advertisers.len(), ADVERTISERS_MAX)?;
    text("name", name, 200)?;
    let next = || directory.advertisers.keys().next_back().map_or(AdvertiserId::FIRST, |last| AdvertiserId(last.0 + 1));
    let advertiser_id = id.unwrap_or_else(next);
    if directory.advertisers.contains_key(&advertiser_id) {
        return Err(Rejection::AdvertiserExists(advertiser_id));
    }
    Ok(AdvertiserCreated { advertiser_id, name: name.into() }.into())
}

fn check_joinable(config: &TenantConfig, id: &CampaignId, now: UnixMillis, cards: usize) -> Result<(), Rejection> {
    let campaign = config.campaigns.get(id).ok_or_else(|| Rejection::CampaignNotFound(id.clone()))?;
    if campaign.validity.ends_at.is_some_and(|end| end <= now) {
        return Err(Rejection::CampaignNotActive(id.clone()));
    }
    limit("cards of this member", cards, CARDS_MAX)
}

fn check_identifiers(set: &WorkingSet<'_>, identifiers: &[Identifier], owner: MemberId) -> Result<(), Rejection> {
    if identifiers.is_empty() || identifiers.len() > MEMBER_IDENTIFIERS_MAX {
        let count = identifiers.len().to_string();
        let rule = "must be 1 to 20";
        return Err(InvalidField::with_reason("IDENTIFIERS_REQUIRED", "identifiers", count, rule).into());
    }
    for (i, (identifier, taken_by)) in identifiers.iter().zip(set.owners).enumerate() {
        let kind = identifier.kind.as_str();
        if identifiers[..i].contains(identifier) {
            return Err(InvalidField::new(format!("identifiers[{i}]"), kind, "stands twice").into());
        }
        if let Some(other) = taken_by.filter(|other| *other != owner) {
            return Err(Rejection::IdentifierTaken { kind, owner: other });
        }
    }
    Ok(())
}

fn update_member(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    identifiers: Option<&[Identifier]>,
    profile: Option<&Profile>,
    etag: Option<&str>,
) -> Result<Decision, Rejection> {
    check_etag(etag, member.as_of.0)?;
    if let Some(identifiers) = identifiers {
        check_identifiers(set, identifiers, member.id)?;
    }
    let identifiers = identifiers.unwrap_or(&member.identifiers);
    let profile = profile.unwrap_or(&member.profile);
    profile.validate()?;
    member::updated(set, config, member, identifiers, profile)
}

/// The member that a consumption's identifiers name: `Ok(None)` where they name none.
///
/// # Errors
///
/// The kinds of two identifiers that name two members.
pub fn resolve(
    identifiers: &[Identifier],
    owners: &[Option<MemberId>],
) -> Result<Option<MemberId>, (&'static str, &'static str)> {
    let mut found: Option<(MemberId, &Identifier)> = None;
    for (identifier, owner) in identifiers.iter().zip(owners) {
        match (found, owner) {
            (Some((member, first)), Some(owner)) if member != *owner => {
                return Err((first.kind.as_str(), identifier.kind.as_str()));
            }
            (None, Some(owner)) => found = Some((*owner, identifier)),
            _ => {}
        }
    }
    Ok(found.map(|(member, _)| member))
}
