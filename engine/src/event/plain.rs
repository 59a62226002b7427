//! Events that the journal keeps as they are told, as JSON: there are few of them, so that a message of their own
//! would be worth nothing.
//!
//! # Invariants
//!
//! - No personal data: that is kept in packed events only.
//! - A field that is added later has a default.

/// Defines the events handed over by [`packed_events`], and those below.
macro_rules! plain_events {
    ({ $($packed:tt)* }) => {
        events! {
            packed: { $($packed)* }
            plain: {
                /// What holds for all campaigns of an advertiser was set.
                SettingsUpdated = "settings.updated" {
                    /// All of it, as it is now.
                    settings: Settings,
                }
                /// A segment came into being; members enter it as they change, and with the next recalculation.
                SegmentCreated = "segment.created" {
                    /// All of it.
                    segment: Segment,
                }
                /// A segment was changed.
                SegmentUpdated = "segment.updated" {
                    /// All of it, as it is now.
                    segment: Segment,
                }
                /// A reward came into the catalogue.
                RewardCatalogueCreated = "reward.catalogue_created" {
                    /// All of it.
                    #[serde(flatten)]
                    reward: Box<Reward>,
                }
                /// A reward was changed.
                RewardCatalogueUpdated = "reward.catalogue_updated" {
                    /// All of it, as it is now.
                    #[serde(flatten)]
                    reward: Box<Reward>,
                }
                /// A coupon book came into being.
                CouponBookCreated = "coupon_book.created" {
                    /// All of it but the codes.
                    coupon_book: Box<CouponBook>,
                }
                /// Codes came into a book. Told to nobody: whoever knows a code can use it.
                CouponsAdded = "coupon_book.filled" {
                    /// Which book.
                    coupon_book_id: CouponBookId,
                    /// Place of the first of them.
                    first_place: u64,
                    /// The codes.
                    codes: Vec<String>,
                }
                /// A member got a coupon's code.
                CouponAssigned = "coupon.assigned" {
                    /// Who.
                    member_id: MemberId,
                    /// In which campaign, if in one.
                    campaign_id: Option<CampaignId>,
                    /// The code.
                    code: String,
                    /// Its book and place.
                    coupon_id: String,
                    /// `rule`, `redemption` or `admin`.
                    assigned_from: String,
                    /// Whether this very code was asked for, rather than the next free one.
                    chosen: bool,
                    /// When the code came into the book.
                    coupon_created_at: UnixMillis,
                    /// Until when it may be used; for ever where absent.
                    expires_at: Option<UnixMillis>,
                    /// The id of this assignment.
                    usage_id: String,
                    /// Always 0: it is not used yet.
                    amount_used: u32,
                    /// Always 1.
                    amount_assigned: u32,
                    /// Uses before: always 0.
                    usages_before: u32,
                    /// Assignments before: always 0.
                    assigned_before: u32,
                    /// Uses now: always 0.
                    usages: u32,
                    /// Assignments now: always 1.
                    assigned: u32,
                    /// Its book.
                    coupon_book: Box<CouponBook>,
                }
                /// A coupon's code was used.
                CouponUsed = "coupon.used" {
                    /// Whose code; absent where it was given to nobody.
                    member_id: Option<MemberId>,
                    /// In which campaign, if in one.
                    campaign_id: Option<CampaignId>,
                    /// The code.
                    code: String,
                    /// Its book and place.
                    coupon_id: String,
                    /// The order that it was used for; empty if unknown.
                    order_id: String,
                    /// What it was worth there.
                    discount_amount: i64,
                    /// When the code came into the book.
                    coupon_created_at: UnixMillis,
                    /// Until when it may be used; for ever where absent.
                    expires_at: Option<UnixMillis>,
                    /// The id of this use.
                    usage_id: String,
                    /// Always 1.
                    amount_used: u32,
                    /// 1 where the code was given to somebody.
                    #[serde(default)]
                    amount_assigned: u32,
                    /// Uses before.
                    usages_before: u32,
                    /// 1 where the code was given to somebody.
                    #[serde(default)]
                    assigned_before: u32,
                    /// Uses now.
                    usages: u32,
                    /// 1 where the code was given to somebody.
                    #[serde(default)]
                    assigned: u32,
                    /// Its book.
                    coupon_book: Box<CouponBook>,
                }
                /// A coupon's use was undone.
                RedemptionRolledBack = "redemption.rolled_back" {
                    /// Whose code; absent where it was given to nobody.
                    member_id: Option<MemberId>,
                    /// The use that was undone.
                    redemption_id: String,
                    /// Its book.
                    coupon_book_id: CouponBookId,
                    /// The code.
                    code: String,
                    /// Its book and place.
                    coupon_id: String,
                    /// The use that was undone.
                    reverted_usage_id: String,
                    /// Why, as given.
                    reason: String,
                }
                /// A member was sent a gift card.
                GiftCardSent = "giftcard.sent" {
                    /// Who.
                    member_id: MemberId,
                    /// The caller's id of it.
                    gift_card_id: String,
                    /// The code.
                    code: String,
                    /// What it is worth, as `10 EUR`.
                    value: String,
                    /// For people.
                    header: String,
                    /// For people.
                    body: String,
                    /// What kind, as `gift-10`.
                    slug: String,
                    /// Always `admin`.
                    assigned_from: String,
                    /// Where it is put into a wallet.
                    install_url: String,
                    /// Whether a mail went out.
                    mail_sent: bool,
                }
                /// A member asked for a reward; what it costs is held.
                RedemptionStarted = "redemption.started" {
                    /// Who.
                    member_id: MemberId,
                    /// The caller's id of it.
                    redemption_id: String,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// For what.
                    reward_id: RewardId,
                    /// For people.
                    reward_name: String,
                    /// What is held.
                    cost: Cost,
                    /// Until when.
                    until: UnixMillis,
                }
                /// A member got a reward.
                RedemptionCompleted = "redemption.completed" {
                    /// Who.
                    member_id: MemberId,
                    /// Which.
                    redemption_id: String,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// What.
                    reward_id: RewardId,
                    /// For people.
                    reward_name: String,
                    /// What was paid.
                    cost: Cost,
                    /// What the member shows.
                    voucher_code: String,
                    /// Where it is got; empty for none.
                    reward_link: String,
                }
                /// A reward was not given; what was held is free again.
                RedemptionFailed = "redemption.failed" {
                    /// Who.
                    member_id: MemberId,
                    /// Which.
                    redemption_id: String,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// What.
                    reward_id: RewardId,
                    /// For people.
                    reward_name: String,
                    /// What was held.
                    cost: Cost,
                    /// Why; `timed_out` where nobody finished it.
                    reason: String,
                }
                /// A reward was taken back, and its cost given back.
                RedemptionRefunded = "redemption.refunded" {
                    /// Who.
                    member_id: MemberId,
                    /// Which.
                    redemption_id: String,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// What.
                    reward_id: RewardId,
                    /// For people.
                    reward_name: String,
                    /// What was given back.
                    cost: Cost,
                    /// What the member showed.
                    voucher_code: String,
                    /// Why.
                    reason: String,
                }
                /// A balance came to reach what a reward costs.
                RewardRedeemable = "reward.redeemable" {
                    /// Whose.
                    member_id: MemberId,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// What.
                    reward_id: RewardId,
                    /// For people.
                    reward_name: String,
                    /// Where it is got; empty for none.
                    reward_link: String,
                    /// What it is worth; empty for none.
                    reward_value: String,
                    /// What it costs.
                    cost: Cost,
                    /// What may be spent.
                    balance: i64,
                }
                /// A member is to be rewarded by the subscriber: the payout is not ours.
                ObligationCreated = "reward.obligation_created" {
                    /// Who.
                    member_id: MemberId,
                    /// To be named when it was paid out.
                    obligation_id: String,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// `loyalty`, `referral` or `leaderboard`.
                    campaign_type: String,
                    /// What it is called there.
                    reward_id: RewardId,
                    /// For people.
                    reward_name: String,
                    /// How much of it.
                    amount: i64,
                    /// From where.
                    origin: Origin,
                }
                /// The subscriber paid out.
                ObligationConfirmed = "reward.obligation_confirmed" {
                    /// To whom.
                    member_id: MemberId,
                    /// Which.
                    obligation_id: String,
                    /// What the subscriber calls the payout.
                    reference: String,
                }
                /// An amount was set aside.
                HoldPlaced = "hold.placed" {
                    /// Whose.
                    member_id: MemberId,
                    /// The caller's id of it.
                    hold_id: String,
                    /// Of what.
                    currency: Currency,
                    /// How much.
                    amount: i64,
                    /// Until when.
                    until: UnixMillis,
                    /// Why, as given.
                    reason: String,
                }
                /// What was set aside is free again.
                HoldVoided = "hold.voided" {
                    /// Whose.
                    member_id: MemberId,
                    /// Which.
                    hold_id: String,
                    /// Of what.
                    currency: Currency,
                    /// How much.
                    amount: i64,
                    /// Why; `timed_out` where nobody posted it.
                    reason: String,
                }
                /// Points were not spent in time.
                PointsExpired = "points.expired" {
                    /// Whose.
                    member_id: MemberId,
                    /// On which card.
                    campaign_id: CampaignId,
                    /// How many.
                    amount: i64,
                    /// When.
                    expired_at: UnixMillis,
                }
                /// Points are about to expire.
                PointsExpiringSoon = "points.expiring_soon" {
                    /// Whose.
                    member_id: MemberId,
                    /// On which card.
                    campaign_id: CampaignId,
                    /// How many.
                    amount: i64,
                    /// When.
                    expires_at: UnixMillis,
                }
                /// Coins were not spent in time.
                CoinsExpired = "coins.expired" {
                    /// Whose.
                    member_id: MemberId,
                    /// How many.
                    amount: i64,
                    /// When.
                    expired_at: UnixMillis,
                }
                /// Coins are about to expire.
                CoinsExpiringSoon = "coins.expiring_soon" {
                    /// Whose.
                    member_id: MemberId,
                    /// How many.
                    amount: i64,
                    /// When.
                    expires_at: UnixMillis,
                }
                /// A member's tier changed.
                TierChanged = "tier.changed" {
                    /// Whose.
                    member_id: MemberId,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// The name of the one before; absent where there was none.
                    previous: Option<String>,
                    /// The name of the one now; absent where there is none.
                    current: Option<String>,
                    /// The id of the one before.
                    previous_tier_id: Option<TierId>,
                    /// The id of the one now.
                    current_tier_id: Option<TierId>,
                }
                /// A member came to belong to a segment.
                SegmentEntered = "segment.entered" {
                    /// Who.
                    member_id: MemberId,
                    /// Which.
                    segment_id: SegmentId,
                    /// For people.
                    segment_name: String,
                }
                /// A member no longer belongs to a segment.
                SegmentLeft = "segment.left" {
                    /// Who.
                    member_id: MemberId,
                    /// Which.
                    segment_id: SegmentId,
                    /// For people.
                    segment_name: String,
                }
                /// It is a member's birthday.
                MemberBirthday = "member.birthday" {
                    /// Whose.
                    member_id: MemberId,
                    /// Years.
                    age: i16,
                }
                /// Points counted for a round: bookkeeping of the card, told to nobody.
                LeaderboardScored = "leaderboard.scored" {
                    /// Whose.
                    member_id: MemberId,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// Which.
                    leaderboard_id: LeaderboardId,
                    /// The number of the round.
                    round: i32,
                    /// How many; below 0 where some were taken back.
                    points: i64,
                }
                /// A leaderboard's round ended and a participant is rewarded.
                LeaderboardAwarded = "leaderboard.awarded" {
                    /// Who.
                    member_id: MemberId,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// Which.
                    leaderboard_id: LeaderboardId,
                    /// From 1.
                    rank: u32,
                    /// Points in the round.
                    score: i64,
                    /// Points that this gives.
                    amount: i64,
                    /// When the round began.
                    round_started_at: UnixMillis,
                    /// When it ended.
                    round_ended_at: UnixMillis,
                }
                /// Who brought a friend: bookkeeping of the friend, told to nobody.
                ReferralLinked = "referral.linked" {
                    /// The friend.
                    member_id: MemberId,
                    /// Who brought.
                    advocate_id: MemberId,
                    /// To which campaign.
                    campaign_id: CampaignId,
                    /// By which code; empty if unknown.
                    code: String,
                }
                /// A friend did what earns the advocate a reward.
                ReferralSucceededAdvocate = "referral.succeeded.advocate" {
                    /// The advocate.
                    member_id: MemberId,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// For people.
                    campaign_name: String,
                    /// Always `referral`.
                    campaign_type: String,
                    /// By which code; empty if unknown.
                    code: String,
                    /// The advocate.
                    advocate_id: MemberId,
                    /// The friend.
                    friend_id: MemberId,
                    /// Points that this gives.
                    amount: i64,
                    /// `wallet` where we book it, `webhook` where the subscriber pays it out.
                    reward_type: String,
                    /// What the subscriber pays out.
                    #[serde(default, skip_serializing_if = "Option::is_none")]
                    reward_id: Option<RewardId>,
                }
                /// A friend earned the friend's reward.
                ReferralSucceededFriend = "referral.succeeded.friend" {
                    /// The friend.
                    member_id: MemberId,
                    /// In which campaign.
                    campaign_id: CampaignId,
                    /// For people.
                    campaign_name: String,
                    /// Always `referral`.
                    campaign_type: String,
                    /// By which code; empty if unknown.
                    code: String,
                    /// The advocate.
                    advocate_id: MemberId,
                    /// The friend.
                    friend_id: MemberId,
                    /// Points that this gives.
                    amount: i64,
                    /// `wallet` where we book it, `webhook` where the subscriber pays it out.
                    reward_type: String,
                    /// What the subscriber pays out.
                    #[serde(default, skip_serializing_if = "Option::is_none")]
                    reward_id: Option<RewardId>,
                }
                /// A member wants to hear from a channel, or no more: bookkeeping of the member, told to nobody, since
                /// the fact that says so is.
                MemberChannelSet = "member.channel_set" {
                    /// Who.
                    member_id: MemberId,
                    /// As `email`.
                    channel: String,
                    /// Whether wanted.
                    subscribed: bool,
                }
                /// Another member's identifiers, cards and balances came to this one.
                MemberMerged = "member.merged" {
                    /// This one.
                    member_id: MemberId,
                    /// The other one.
                    from_member_id: MemberId,
                }
                /// A member is another one from now on.
                MemberMergedInto = "member.merged_into" {
                    /// Who is no more.
                    member_id: MemberId,
                    /// Who it is now.
                    into_member_id: MemberId,
                }
                /// A job's run is at its end.
                JobCompleted = "job.completed" {
                    /// Which.
                    job: Job,
                    /// Which run.
                    run: Run,
                    /// Members it concerned.
                    concerned: u64,
                }
            }
        }
    };
}
