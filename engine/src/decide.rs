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
//! - Loading. The caller brings what the command names, in a [`WorkingSet`].

mod delivery;
mod member;

use crate::command::{Action, Command};
use crate::event::*;
use crate::id::{AdvertiserId, CampaignId, MemberId, Sequence, Tenant};
use crate::loyalty::campaign::{Campaign, EarningRule};
use crate::loyalty::consumption::{self, Consumption, Line, Receipt};
use crate::loyalty::fact::{self, Fact, FactReceipt};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::{CARDS_MAX, CapUse, Card, Identifier, MEMBER_IDENTIFIERS_MAX, Member, Profile};
use crate::loyalty::punchcard;
use crate::loyalty::tenant::{ADVERTISERS_MAX, CAMPAIGNS_MAX, CREDENTIALS_MAX, Credential, Directory, TenantConfig};
use crate::quantity::{Coins, Points, Stamps};
use crate::rejection::{InvalidField, Rejection};
use crate::time::UnixMillis;

/// Most sequences in one redrive command.
pub const REDRIVE_MAX: usize = 1_000;
/// Most bytes of a record: what a block of the journal holds, which the sequencer checks to the byte. Here it
/// bounds what is worked out for nothing: 200 lines by 500 rules by 100 cards are ten million events.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// What an event that a rule gives takes in a record at the least; a test in `storage` holds it.
pub const EARNED_EVENT_BYTES_MIN: usize = 12;

/// What a command is decided against.
#[derive(Debug)]
pub struct WorkingSet<'a> {
    /// The time of the decision.
    pub now: UnixMillis,
    /// Everything that is configured.
    pub directory: &'a Directory,
    /// The record that used the command's key first, with the position of its first event.
    pub seen: Option<(Sequence, &'a Record)>,
    /// Owners of [`Command::identifiers`], in their order.
    pub owners: &'a [Option<MemberId>],
    /// The member that the command names, by id or by its identifiers; absent where there is none.
    pub member: Option<&'a Member>,
    /// What digests of identifiers are made with.
    pub digest_key: &'a [u8],
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
        return decide_consumption(set, command, consumption).map(Decision::Events);
    }
    if let Action::PublishFact(fact) = &command.action {
        return decide_fact(set, command, fact).map(one);
    }
    if let (Some((sequence, record)), Some(request_id)) = (set.seen, &command.request_id) {
        return repeated_request(record, &command.action, request_id).map(|()| Decision::Already(sequence));
    }
    if let Action::CreateAdvertiser { advertiser_id, name } = &command.action {
        return create_advertiser(set.directory, *advertiser_id, name).map(one);
    }
    let config = tenant_config(set, command)?;
    let member = |id: MemberId| match set.member {
        Some(member) if member.erased_at.is_some() => Err(Rejection::MemberErased(id)),
        found => found.ok_or(Rejection::MemberNotFound(id)),
    };
    let events = match &command.action {
        Action::RecordConsumption(_) | Action::PublishFact(_) | Action::CreateAdvertiser { .. } => {
            unreachable!("handled above")
        }
        Action::RegisterMember { member_id, identifiers, profile, registration_source, join } => {
            return member::register(set, config, *member_id, identifiers, profile, registration_source, join)
                .map(Decision::Events);
        }
        Action::UpdateMember { member_id, identifiers, profile, etag } => {
            let member = member(*member_id)?;
            return update_member(set, member, identifiers.as_deref(), profile.as_ref(), etag.as_deref());
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
            let found = set.member.ok_or(Rejection::MemberNotFound(*member_id))?;
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
            vec![MemberJoinedCampaign { member_id: *member_id, campaign_id: campaign_id.clone() }.into()]
        }
        Action::AdjustBalance { member_id, currency, amount, reason } => {
            vec![adjust(member(*member_id)?, currency, *amount, reason)?]
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
            campaign.validate()?;
            vec![CampaignCreated { campaign: Campaign { version: 1, ..campaign.clone() } }.into()]
        }
        Action::UpdateCampaign { campaign, etag } => {
            let current = config.campaigns.get(&campaign.id);
            let current = current.ok_or_else(|| Rejection::CampaignNotFound(campaign.id.clone()))?;
            check_etag(etag.as_deref(), current.version)?;
            campaign.validate()?;
            let campaign = Campaign { version: current.version + 1, ..campaign.clone() };
            vec![CampaignUpdated { campaign }.into()]
        }
        action => return delivery::decide(set.directory, config, action),
    };
    Ok(Decision::Events(events))
}

fn one(event: Event) -> Decision {
    Decision::Events(vec![event])
}

fn decide_fact(set: &WorkingSet<'_>, command: &Command, fact: &Fact) -> Result<Event, Rejection> {
    let conflict = |(first, second)| Rejection::IdentifiersConflict { first, second };
    let found = resolve(&fact.identifiers, set.owners).map_err(conflict);
    if let Some((sequence, record)) = set.seen {
        let Some(Event::FactPublished(recorded)) = record.events.first() else {
            unreachable!("a fact's key leads to a fact's record")
        };
        let first = FactReceipt { sequence, time: record.time, member_id: recorded.member_id };
        return Err(match fact::difference(recorded, found.ok().flatten(), fact) {
            None => Rejection::FactExists { first },
            Some(field) => Rejection::FactExistsWithDifferentContent { field, first },
        });
    }
    tenant_config(set, command)?;
    let member_id = found?;
    if member_id.is_none() && !fact.identifiers.is_empty() {
        return Err(Rejection::AccountNotFound);
    }
    let Fact { source, fact_id, fact_type, occurred_at, properties, .. } = fact.clone();
    let occurred_at = occurred_at.unwrap_or(set.now);
    Ok(FactPublished { source, fact_id, fact_type, member_id, occurred_at, properties }.into())
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
        (Event::MemberCreated(e), Action::RegisterMember { .. } | Action::IdentifyMember { .. })
            if e.identifiers.is_empty() =>
        {
            return Err(Rejection::MemberErased(e.member_id));
        }
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
            e.campaign == Campaign { version: e.campaign.version, ..campaign.clone() }
        }
        (Event::SubscriptionCreated(e), Action::CreateSubscription { subscription, owed_after, .. }) => {
            e.owed_after == *owed_after && delivery::same_subscription(&e.subscription, subscription)
        }
        (Event::AdvertiserCreated(e), Action::CreateAdvertiser { advertiser_id, name }) => {
            e.name == *name && advertiser_id.is_none_or(|id| id == e.advertiser_id)
        }
        (event, Action::AdjustBalance { member_id, currency, amount, reason }) => {
            let origin = Origin::Adjustment { reason: reason.clone() };
            let first = match event {
                Event::PointsCredited(e) => Some((e.member_id, Some(&e.campaign_id), e.amount.0, &e.origin)),
                Event::PointsDebited(e) => Some((e.member_id, Some(&e.campaign_id), -e.amount.0, &e.origin)),
                Event::CoinsChanged(e) => Some((e.member_id, None, e.amount.0, &e.origin)),
                _ => None,
            };
            let campaign_id = match currency {
                Currency::Points(campaign_id) => Some(campaign_id),
                Currency::Coins => None,
            };
            first == Some((*member_id, campaign_id, *amount, &origin))
        }
        _ => false,
    };
    if same { Ok(()) } else { Err(Rejection::RequestIdReused { request_id: request_id.into() }) }
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
    Ok(member::updated(member, identifiers, profile))
}

fn adjust(member: &Member, currency: &Currency, amount: i64, reason: &str) -> Result<Event, Rejection> {
    text("reason", reason, 500)?;
    if amount == 0 || reason.trim().is_empty() {
        let (field, value) = if amount == 0 { ("amount", "0") } else { ("reason", reason) };
        return Err(InvalidField::new(field, value, "is required").into());
    }
    let balance = match currency {
        Currency::Coins => member.coins.0,
        Currency::Points(campaign) => {
            let not_joined = || Rejection::NotJoined { member: member.id, campaign: campaign.clone() };
            member.card(campaign).ok_or_else(not_joined)?.points.0
        }
    };
    let overflow = || Rejection::BalanceOverflow { currency: currency.to_string() };
    let new = balance.checked_add(amount).ok_or_else(overflow)?;
    if new < 0 {
        let wanted = amount.checked_neg().ok_or_else(overflow)?;
        return Err(Rejection::InsufficientBalance { currency: currency.to_string(), balance, wanted });
    }
    let origin = Origin::Adjustment { reason: reason.into() };
    let member_id = member.id;
    Ok(match currency {
        Currency::Coins => CoinsChanged {
            member_id,
            amount: Coins(amount),
            previous_balance: Coins(balance),
            new_balance: Coins(new),
            origin,
        }
        .into(),
        Currency::Points(campaign) => {
            let (campaign_id, previous_balance, new_balance) = (campaign.clone(), Points(balance), Points(new));
            let amount = Points(amount);
            if amount > Points::ZERO {
                PointsCredited { member_id, campaign_id, amount, previous_balance, new_balance, origin }.into()
            } else {
                let amount = Points(-amount.0);
                PointsDebited { member_id, campaign_id, amount, previous_balance, new_balance, origin }.into()
            }
        }
    })
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

fn decide_consumption(
    set: &WorkingSet<'_>,
    command: &Command,
    consumption: &Consumption,
) -> Result<Vec<Event>, Rejection> {
    if let Some((sequence, record)) = set.seen {
        return Err(seen_before(set, sequence, record, consumption));
    }
    let config = tenant_config(set, command)?;
    let conflict = |(first, second)| Rejection::IdentifiersConflict { first, second };
    let found = resolve(&consumption.identifiers, set.owners).map_err(conflict)?;
    let member = found.and(set.member).ok_or(Rejection::AccountNotFound)?;
    if member.blocked.is_some() {
        return Err(Rejection::UserBlocked);
    }
    if member.cards.is_empty() {
        return Err(Rejection::UserHasNoCards);
    }
    let recorded = ConsumptionRecorded {
        consumption_id: consumption.consumption_id.clone(),
        member_id: member.id,
        consumed_at: consumption.consumed_at,
        lines: consumption.lines.clone(),
        identifiers_digest: consumption.identifiers_digest(set.digest_key),
    };
    let mut earning = Earning {
        consumption,
        member_id: member.id,
        events: vec![recorded.into()],
        coins: member.coins,
        matched: vec![false; consumption.lines.len()],
    };
    for card in &member.cards {
        let campaign = config.campaigns.get(&card.campaign_id).expect("campaigns are never removed");
        if campaign.validity.contains(consumption.consumed_at) {
            earning.campaign(campaign, card)?;
        }
    }
    earning.unmatched();
    Ok(earning.events)
}

fn seen_before(set: &WorkingSet<'_>, sequence: Sequence, record: &Record, consumption: &Consumption) -> Rejection {
    let receipt = Receipt::of(sequence, record.time, &record.events);
    let first = Box::new(receipt.expect("a consumption's key leads to a consumption's record"));
    let Some(Event::ConsumptionRecorded(recorded)) = record.events.first() else {
        unreachable!("the receipt was made from it")
    };
    match consumption::difference(recorded, consumption, set.digest_key) {
        None => Rejection::ConsumptionExists { first },
        Some(field) => Rejection::ConsumptionExistsWithDifferentContent { field, first },
    }
}

/// What one consumption earns, while it is being worked out.
struct Earning<'a> {
    consumption: &'a Consumption,
    member_id: MemberId,
    events: Vec<Event>,
    coins: Coins,
    /// By line.
    matched: Vec<bool>,
}

impl Earning<'_> {
    /// Every rule of the campaign against every line, in the order they are written: all that match, earn.
    fn campaign(&mut self, campaign: &Campaign, card: &Card) -> Result<(), Rejection> {
        let before = self.events.len();
        let mut card_after = card.clone();
        let mut cap_uses: Vec<CapUse> = Vec::new();
        for line in 0..self.consumption.lines.len() {
            for rule in &campaign.rules {
                let sku = &self.consumption.lines[line].sku;
                if rule.skus.matches(sku) && rule.validity.contains(self.consumption.consumed_at) {
                    self.matched[line] = true;
                    self.rule(campaign, rule, line as u32, &mut card_after, &mut cap_uses)?;
                }
            }
        }
        let matched = self.events[before..].iter().any(|e| matches!(e, Event::ConsumptionMatched(_)));
        if matched {
            if card.consumptions == 0 {
                let first = ConsumptionFirst {
                    consumption_id: self.consumption.consumption_id.clone(),
                    member_id: self.member_id,
                    campaign_id: campaign.id.clone(),
                };
                self.events.insert(before, first.into());
            }
            self.events.push(ConsumptionCounted { campaign_id: campaign.id.clone(), cap_uses }.into());
        }
        Ok(())
    }

    fn rule(
        &mut self,
        campaign: &Campaign,
        rule: &EarningRule,
        line: u32,
        card: &mut Card,
        cap_uses: &mut Vec<CapUse>,
    ) -> Result<(), Rejection> {
        let bytes = self.events.len() * EARNED_EVENT_BYTES_MIN;
        if bytes > RECORD_BYTES_MAX {
            return Err(Rejection::RecordTooLarge { bytes, max: RECORD_BYTES_MAX });
        }
        let at = self.consumption.consumed_at;
        let quantity = self.consumption.lines[line as usize].quantity.units();
        let mut units = quantity;
        for cap in &rule.caps {
            let number = cap.period.number(at);
            let now_used: u64 = (cap_uses.iter())
                .filter(|u| u.rule_id == rule.id && u.period == cap.period && u.number == number)
                .map(|u| u.units)
                .sum();
            let left = card.cap_left(&rule.id, cap.period, cap.units_max, at);
            units = units.min(left.saturating_sub(now_used));
        }
        if units < quantity {
            self.events.push(
                ConsumptionRejected {
                    consumption_id: self.consumption.consumption_id.clone(),
                    member_id: self.member_id,
                    reason: Unrewarded::CapReached,
                    line,
                    sku: self.consumption.lines[line as usize].sku.clone(),
                    units: quantity - units,
                    campaign_id: Some(campaign.id.clone()),
                    rule_id: Some(rule.id.clone()),
                }
                .into(),
            );
        }
        if units == 0 {
            return Ok(());
        }
        for cap in &rule.caps {
            let (period, number) = (cap.period, cap.period.number(at));
            let same = |u: &&mut CapUse| u.rule_id == rule.id && u.period == period && u.number == number;
            match cap_uses.iter_mut().find(same) {
                Some(used) => used.units += units,
                None => cap_uses.push(CapUse { rule_id: rule.id.clone(), period, number, units }),
            }
        }
        self.events.push(
            ConsumptionMatched {
                consumption_id: self.consumption.consumption_id.clone(),
                member_id: self.member_id,
                campaign_id: campaign.id.clone(),
                rule_id: rule.id.clone(),
                line,
                sku: self.consumption.lines[line as usize].sku.clone(),
                units,
            }
            .into(),
        );
        self.points(campaign, rule, line, units, card)?;
        self.coins(rule, line, units)?;
        self.stamps(campaign, rule, line, units, card);
        Ok(())
    }

    fn points(
        &mut self,
        campaign: &Campaign,
        rule: &EarningRule,
        line: u32,
        units: u64,
        card: &mut Card,
    ) -> Result<(), Rejection> {
        if rule.points == Points::ZERO {
            return Ok(());
        }
        let sum = |amount: Points| card.points.checked_add(amount).map(|new| (amount, new));
        let currency = Currency::Points(campaign.id.clone());
        let (amount, new_balance) = (rule.points.checked_mul(units).and_then(sum))
            .ok_or_else(|| Rejection::BalanceOverflow { currency: currency.to_string() })?;
        let previous_balance = std::mem::replace(&mut card.points, new_balance);
        let (member_id, campaign_id) = (self.member_id, campaign.id.clone());
        let origin = consumption::origin(self.consumption, line, &rule.id);
        self.events
            .push(PointsCredited { member_id, campaign_id, amount, previous_balance, new_balance, origin }.into());
        Ok(())
    }

    fn coins(&mut self, rule: &EarningRule, line: u32, units: u64) -> Result<(), Rejection> {
        if rule.coins == Coins::ZERO {
            return Ok(());
        }
        let sum = |amount: Coins| self.coins.checked_add(amount).map(|new| (amount, new));
        let (amount, new_balance) = (rule.coins.checked_mul(units).and_then(sum))
            .ok_or_else(|| Rejection::BalanceOverflow { currency: Currency::Coins.to_string() })?;
        let previous_balance = std::mem::replace(&mut self.coins, new_balance);
        let origin = consumption::origin(self.consumption, line, &rule.id);
        let member_id = self.member_id;
        self.events.push(CoinsChanged { member_id, amount, previous_balance, new_balance, origin }.into());
        Ok(())
    }

    fn stamps(&mut self, campaign: &Campaign, rule: &EarningRule, line: u32, units: u64, card: &mut Card) {
        let Some(reward) = &rule.stamps else { return };
        let definition = campaign.punchcard(&reward.punchcard_id).expect("checked when the campaign was written");
        let (stamps, rows) = card.row(&definition.id);
        let added = punchcard::add(definition, (stamps, rows), units * u64::from(reward.per_unit));
        let (member_id, campaign_id) = (self.member_id, campaign.id.clone());
        let punchcard_id = definition.id.clone();
        let origin = consumption::origin(self.consumption, line, &rule.id);
        if added.kept > 0 {
            let new = RowState { stamps: Stamps(added.stamps), rows_completed: added.rows_completed };
            card.set_row(&definition.id, new);
            self.events.push(
                PunchcardStampsReceived {
                    member_id,
                    campaign_id: campaign_id.clone(),
                    punchcard_id: punchcard_id.clone(),
                    stamps: Stamps(added.kept),
                    row_length: definition.row_length,
                    previous: RowState { stamps, rows_completed: rows },
                    new,
                    origin: origin.clone(),
                }
                .into(),
            );
        }
        for (step, times) in added.steps {
            let (campaign_id, punchcard_id) = (campaign_id.clone(), punchcard_id.clone());
            self.events.push(PunchcardStepCompleted { member_id, campaign_id, punchcard_id, step, times }.into());
        }
        if added.rows_completed > rows {
            let (campaign_id, punchcard_id) = (campaign_id.clone(), punchcard_id.clone());
            let (rows, rows_completed) = (added.rows_completed - rows, added.rows_completed);
            self.events.push(PunchcardCompleted { member_id, campaign_id, punchcard_id, rows, rows_completed }.into());
        }
        if added.discarded > 0 {
            let stamps = Stamps(added.discarded);
            self.events.push(PunchcardStampsDiscarded { member_id, campaign_id, punchcard_id, stamps, origin }.into());
        }
    }

    fn unmatched(&mut self) {
        for (line, matched) in self.matched.iter().enumerate() {
            if *matched {
                continue;
            }
            let Line { sku, quantity, .. } = &self.consumption.lines[line];
            self.events.push(
                ConsumptionRejected {
                    consumption_id: self.consumption.consumption_id.clone(),
                    member_id: self.member_id,
                    reason: Unrewarded::NoRuleMatched,
                    line: line as u32,
                    sku: sku.clone(),
                    units: quantity.units(),
                    campaign_id: None,
                    rule_id: None,
                }
                .into(),
            );
        }
    }
}
