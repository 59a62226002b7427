//! What somebody wants to happen: validated, and stamped with the time and the ids it will need.

use crate::dispatch::{
    AttemptLog, BreakerState, DeliveryJob, DeliveryProgress, PutBack, Subscription, SubscriptionState,
};
use crate::event::{CommandKey, GiftCardSent};
use crate::id::{
    AdvertiserId, CampaignId, CouponBookId, CredentialId, JobId, LeaderboardId, MemberId, RewardId, Sequence,
    SubscriptionId, Tenant,
};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::consumption::Consumption;
use crate::loyalty::coupon::{BookKind, CouponBook};
use crate::loyalty::fact::Fact;
use crate::loyalty::fact_type::FactType;
use crate::loyalty::item::ItemKey;
use crate::loyalty::job::{Job, Run};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::{Identifier, Profile};
use crate::loyalty::programme::{Segment, Settings};
use crate::loyalty::reward::Reward;
use crate::loyalty::tenant::{Credential, SealedSecret};
use crate::time::UnixMillis;

/// A command of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Whose.
    pub tenant: Tenant,
    /// Makes a create verb exactly-once (AIP-155); `None` where the verb is idempotent or the caller
    /// did not ask for it.
    pub request_id: Option<String>,
    /// What.
    pub action: Action,
}

/// Who asked for a command, where that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Whose api key; `None`: an operator's token.
    pub credential: Option<CredentialId>,
    /// The call, as `SubscriptionService/PauseSubscription`.
    pub method: String,
}

/// What is to happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Take a consumption in.
    RecordConsumption(Consumption),
    /// Take a fact in.
    PublishFact(Fact),
    /// Register a member under a new id.
    RegisterMember {
        /// The new id.
        member_id: MemberId,
        /// Known by; at least one.
        identifiers: Vec<Identifier>,
        /// What is known.
        profile: Profile,
        /// From where, as `campaign_link`.
        registration_source: String,
        /// Campaigns to join at once.
        join: Vec<CampaignId>,
        /// Tell nobody: subscribers know the member already.
        quiet: bool,
    },
    /// Change identifiers, profile or both.
    UpdateMember {
        /// Who.
        member_id: MemberId,
        /// The new ones, all of them.
        identifiers: Option<Vec<Identifier>>,
        /// The new one, all of it.
        profile: Option<Profile>,
        /// What the caller believes to change: the etag it read.
        etag: Option<String>,
    },
    /// Register whoever the identifiers do not name yet, add to what is known of the member that they name.
    IdentifyMember {
        /// The id of a new one.
        member_id: MemberId,
        /// Known by; at least one.
        identifiers: Vec<Identifier>,
        /// What is known; what is empty in it stays as it is.
        profile: Profile,
        /// From where, if it is a new one.
        registration_source: String,
    },
    /// Let a member earn nothing.
    BlockMember {
        /// Who.
        member_id: MemberId,
        /// Why.
        reason: String,
    },
    /// Let a member earn again.
    UnblockMember {
        /// Who.
        member_id: MemberId,
    },
    /// Erase a member's personal fields, for ever.
    EraseMember {
        /// Who.
        member_id: MemberId,
    },
    /// Issue a card.
    JoinCampaign {
        /// Who.
        member_id: MemberId,
        /// What.
        campaign_id: CampaignId,
    },
    /// Correct a balance.
    AdjustBalance {
        /// Whose.
        member_id: MemberId,
        /// Of what.
        currency: Currency,
        /// Signed.
        amount: i64,
        /// Why.
        reason: String,
    },
    /// Set an amount aside.
    PlaceHold {
        /// Whose.
        member_id: MemberId,
        /// The caller's id of it: exactly once per tenant, for ever.
        hold_id: String,
        /// Of what.
        currency: Currency,
        /// How much.
        amount: i64,
        /// Until when.
        until: UnixMillis,
        /// Why.
        reason: String,
    },
    /// Take what is set aside, or a part of it; the rest is free again.
    PostHold {
        /// Whose.
        member_id: MemberId,
        /// Which.
        hold_id: String,
        /// How much; all of it where absent.
        amount: Option<i64>,
        /// Why.
        reason: String,
    },
    /// Give free what is set aside.
    VoidHold {
        /// Whose.
        member_id: MemberId,
        /// Which.
        hold_id: String,
        /// Why.
        reason: String,
    },
    /// Give free what nobody posted in time; where it is a redemption's, that fails.
    TimeOutHold {
        /// Whose.
        member_id: MemberId,
        /// Which.
        hold_id: String,
    },
    /// Move an amount from one member to another.
    Transfer {
        /// From whom.
        member_id: MemberId,
        /// To whom.
        to_member_id: MemberId,
        /// Of what.
        currency: Currency,
        /// How much.
        amount: i64,
        /// Why.
        reason: String,
    },
    /// Take an entry back by its opposite.
    ReverseEntry {
        /// Whose.
        member_id: MemberId,
        /// Which.
        entry: Sequence,
        /// Why.
        reason: String,
    },
    /// Make two members one.
    MergeMembers {
        /// Who it is from now on.
        member_id: MemberId,
        /// Who is no more.
        from_member_id: MemberId,
    },
    /// Set what holds for all campaigns; its version is ignored.
    UpdateSettings {
        /// All of it.
        settings: Settings,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Write a new segment; its version is ignored.
    CreateSegment {
        /// All of it.
        segment: Segment,
    },
    /// Replace a segment; its version is ignored.
    UpdateSegment {
        /// All of it.
        segment: Segment,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Write a new reward; its version is ignored.
    CreateReward {
        /// All of it.
        reward: Reward,
    },
    /// Replace a reward; its version is ignored.
    UpdateReward {
        /// All of it.
        reward: Reward,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Ask for a reward: holds its cost.
    StartRedemption {
        /// Who.
        member_id: MemberId,
        /// The caller's id of it: exactly once per tenant, for ever.
        redemption_id: String,
        /// For what.
        reward_id: RewardId,
    },
    /// Give the reward.
    CompleteRedemption {
        /// Which.
        redemption_id: String,
        /// The code; absent where the reward's coupon book has them.
        voucher_code: Option<String>,
    },
    /// Do not give the reward.
    FailRedemption {
        /// Which.
        redemption_id: String,
        /// Why.
        reason: String,
    },
    /// Take the reward back.
    RefundRedemption {
        /// Which.
        redemption_id: String,
        /// Why.
        reason: String,
    },
    /// Take down that the subscriber paid out.
    ConfirmObligation {
        /// Which.
        obligation_id: String,
        /// What the subscriber calls the payout.
        reference: String,
    },
    /// Write a new coupon book, with its first codes.
    CreateCouponBook {
        /// All of it.
        coupon_book: CouponBook,
        /// Made by the runtime, or listed by the caller.
        codes: Vec<String>,
    },
    /// Add codes to a book.
    AddCoupons {
        /// Which.
        coupon_book_id: CouponBookId,
        /// Whether the codes are made by the runtime: a repeat has others.
        kind: BookKind,
        /// Made by the runtime, or listed by the caller.
        codes: Vec<String>,
    },
    /// Give a member a code.
    AssignCoupon {
        /// Who.
        member_id: MemberId,
        /// Of which book.
        coupon_book_id: CouponBookId,
        /// Which; the next free one where absent.
        code: Option<String>,
        /// The caller's id of the assignment: exactly once per tenant, for ever.
        usage_id: String,
    },
    /// Use a code.
    UseCoupon {
        /// Of which book.
        coupon_book_id: CouponBookId,
        /// Which.
        code: String,
        /// The caller's id of the use: exactly once per tenant, for ever.
        usage_id: String,
        /// For what order; empty if unknown.
        order_id: String,
        /// What it was worth there.
        discount_amount: i64,
    },
    /// Undo a use.
    RollBackCoupon {
        /// Of which book.
        coupon_book_id: CouponBookId,
        /// Which.
        code: String,
        /// Which use.
        reverted_usage_id: String,
        /// Why.
        reason: String,
    },
    /// Tell that a gift card was sent.
    SendGiftCard {
        /// All of it.
        gift_card: GiftCardSent,
    },
    /// Do what a run of a job does to one member.
    RunJob {
        /// Which job.
        job: Job,
        /// To whom.
        member_id: MemberId,
        /// Which run.
        run: Run,
        /// The run completed before.
        last: Option<Run>,
    },
    /// Reward a participant of a round.
    AwardLeaderboard {
        /// Who.
        member_id: MemberId,
        /// In which campaign.
        campaign_id: CampaignId,
        /// Which.
        leaderboard_id: LeaderboardId,
        /// The number of the round.
        round: i32,
        /// From 1.
        rank: u32,
        /// Points in the round.
        score: i64,
    },
    /// Take down that a run is at its end.
    CompleteJob {
        /// Which job.
        job: Job,
        /// Which run.
        run: Run,
        /// Members it concerned.
        concerned: u64,
    },
    /// Take an advertiser on.
    CreateAdvertiser {
        /// Its id; the next free one if absent.
        advertiser_id: Option<AdvertiserId>,
        /// Its name.
        name: String,
    },
    /// Issue a key.
    IssueCredential {
        /// All of it.
        credential: Credential,
    },
    /// Stop a key.
    RevokeCredential {
        /// Which.
        credential_id: CredentialId,
    },
    /// Write a new campaign; its version is ignored.
    CreateCampaign {
        /// All of it.
        campaign: Campaign,
    },
    /// Replace a campaign; its version is ignored.
    UpdateCampaign {
        /// All of it.
        campaign: Campaign,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Register a type of facts, or register it anew; its version is ignored.
    RegisterFactType {
        /// All of it.
        fact_type: FactType,
        /// What the caller believes to replace; `0` where it believes that there is none.
        etag: Option<String>,
    },
    /// Place a standing order.
    CreateSubscription {
        /// All of it; its version is ignored.
        subscription: Subscription,
        /// The first signing secret.
        secret: SealedSecret,
        /// Deliver what comes after this position; what comes from now on where absent.
        owed_after: Option<Sequence>,
    },
    /// Replace a standing order; its version is ignored.
    UpdateSubscription {
        /// All of it.
        subscription: Subscription,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Withdraw a standing order.
    DeleteSubscription {
        /// Which.
        subscription_id: SubscriptionId,
    },
    /// Pause, resume, disable.
    SetSubscriptionState {
        /// Which.
        subscription_id: SubscriptionId,
        /// To what.
        state: SubscriptionState,
        /// Why.
        reason: String,
    },
    /// Sign with a new secret, and with the old one for a while.
    RotateSecret {
        /// Whose.
        subscription_id: SubscriptionId,
        /// The new one.
        secret: SealedSecret,
        /// Until when the old one signs too.
        previous_until: UnixMillis,
    },
    /// Take down how far the dispatcher has come.
    ReportDeliveries {
        /// Whose.
        subscription_id: SubscriptionId,
        /// What changed.
        progress: DeliveryProgress,
        /// Deliveries that died since the last report.
        died: Vec<Died>,
        /// How the breaker turned since the last report, in order.
        breaker: Vec<BreakerState>,
        /// Why the subscription is to be disabled, if it is.
        disable: Option<String>,
    },
    /// Begin a replay or a redrive.
    StartJob {
        /// On what.
        subscription_id: SubscriptionId,
        /// All of it.
        job: DeliveryJob,
    },
    /// Take down how far a job has come.
    AdvanceJob {
        /// On what.
        subscription_id: SubscriptionId,
        /// Which.
        job_id: JobId,
        /// Everything before was looked at.
        next_sequence: Sequence,
        /// Deliveries that it puts back.
        put_back: Vec<PutBack>,
    },
    /// End a job.
    EndJob {
        /// On what.
        subscription_id: SubscriptionId,
        /// Which.
        job: DeliveryJob,
        /// Whether somebody stopped it.
        cancelled: bool,
    },
    /// Give dead letters up.
    DropDeadLetters {
        /// Whose.
        subscription_id: SubscriptionId,
        /// Which; those that are not dead are left alone.
        sequences: Vec<Sequence>,
        /// Why.
        reason: String,
    },
    /// Put dead letters back.
    Redrive {
        /// Whose.
        subscription_id: SubscriptionId,
        /// Which; those that are not dead are left alone by the dispatcher.
        sequences: Vec<Sequence>,
    },
}

/// A delivery whose last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Died {
    /// The event.
    pub sequence: Sequence,
    /// Its type.
    pub event_type: String,
    /// Attempts made.
    pub attempts: u32,
    /// Why, as `http_500`.
    pub reason: String,
}

impl Died {
    /// Names the reason of the last attempt in a row's log.
    pub fn reason_of(last: Option<&AttemptLog>) -> String {
        match last {
            Some(AttemptLog { status: Some(status), error, .. }) if error.is_empty() => format!("http_{status}"),
            Some(last) => last.error.clone(),
            None => "unknown".into(),
        }
    }
}

impl Command {
    /// The exactly-once key that it uses up if accepted.
    pub fn key(&self) -> Option<CommandKey> {
        match &self.action {
            Action::RecordConsumption(c) => Some(CommandKey::Consumption(c.consumption_id.clone())),
            Action::PublishFact(f) => Some(CommandKey::Fact { source: f.source.clone(), fact_id: f.fact_id.clone() }),
            Action::PlaceHold { hold_id, .. } => Some(once("hold", hold_id, 0)),
            Action::ReverseEntry { entry, .. } => Some(once("reversal", &entry.to_string(), 0)),
            Action::AssignCoupon { usage_id, .. } => Some(once("coupon_assignment", usage_id, 0)),
            Action::UseCoupon { usage_id, .. } => Some(once("coupon_use", usage_id, 0)),
            Action::RollBackCoupon { reverted_usage_id, .. } => Some(once("coupon_rollback", reverted_usage_id, 0)),
            Action::SendGiftCard { gift_card } => Some(once("gift_card", &gift_card.gift_card_id, 0)),
            Action::RunJob { job, member_id, run, .. } => Some(once(job.as_str(), &member_id.to_string(), run.period)),
            Action::AwardLeaderboard { member_id, campaign_id, leaderboard_id, round, .. } => {
                let subject = format!("{campaign_id}/{leaderboard_id}/{member_id}");
                Some(once(Job::Leaderboards.as_str(), &subject, i64::from(*round)))
            }
            Action::CompleteJob { job, run, .. } => Some(once(job.as_str(), "*", run.period)),
            _ => self.request_id.clone().map(CommandKey::Request),
        }
    }

    /// Identifiers whose owners `decide` must know.
    pub fn identifiers(&self) -> &[Identifier] {
        match &self.action {
            Action::RecordConsumption(c) => &c.identifiers,
            Action::PublishFact(f) => &f.identifiers,
            Action::RegisterMember { identifiers, .. } | Action::IdentifyMember { identifiers, .. } => identifiers,
            Action::UpdateMember { identifiers: Some(identifiers), .. } => identifiers,
            _ => &[],
        }
    }

    /// Whether it is about the member that its identifiers name.
    pub fn names_by_identifiers(&self) -> bool {
        use Action::{IdentifyMember, PublishFact, RecordConsumption};
        matches!(self.action, RecordConsumption(_) | PublishFact(_) | IdentifyMember { .. })
    }

    /// The member that it names by id.
    pub fn member_id(&self) -> Option<MemberId> {
        match &self.action {
            Action::UpdateMember { member_id, .. }
            | Action::BlockMember { member_id, .. }
            | Action::UnblockMember { member_id }
            | Action::EraseMember { member_id }
            | Action::JoinCampaign { member_id, .. }
            | Action::AdjustBalance { member_id, .. }
            | Action::PlaceHold { member_id, .. }
            | Action::PostHold { member_id, .. }
            | Action::VoidHold { member_id, .. }
            | Action::TimeOutHold { member_id, .. }
            | Action::Transfer { member_id, .. }
            | Action::ReverseEntry { member_id, .. }
            | Action::MergeMembers { member_id, .. }
            | Action::StartRedemption { member_id, .. }
            | Action::AssignCoupon { member_id, .. }
            | Action::RunJob { member_id, .. }
            | Action::AwardLeaderboard { member_id, .. } => Some(*member_id),
            Action::SendGiftCard { gift_card } => Some(gift_card.member_id),
            _ => None,
        }
    }

    /// The item whose member it is about, where it names that one by it.
    pub fn item(&self) -> Option<ItemKey> {
        match &self.action {
            Action::CompleteRedemption { redemption_id, .. }
            | Action::FailRedemption { redemption_id, .. }
            | Action::RefundRedemption { redemption_id, .. } => Some(ItemKey::Redemption(redemption_id.clone())),
            Action::ConfirmObligation { obligation_id, .. } => Some(ItemKey::Obligation(obligation_id.clone())),
            Action::UseCoupon { coupon_book_id, code, .. } | Action::RollBackCoupon { coupon_book_id, code, .. } => {
                Some(ItemKey::Coupon(coupon_book_id.clone(), code.clone()))
            }
            _ => None,
        }
    }

    /// Whether its record is told to nobody.
    pub fn is_quiet(&self) -> bool {
        matches!(self.action, Action::RegisterMember { quiet: true, .. })
    }
}

fn once(job: &str, subject: &str, period: i64) -> CommandKey {
    CommandKey::Job { job: job.into(), subject: subject.into(), period }
}
