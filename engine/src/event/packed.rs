//! Events that have a message of their own in the journal: those there are many of, and those with fields that
//! are not told.

/// Hands the events below to the macro `$next`.
macro_rules! packed_events {
    ($next:ident) => {
        $next! { {
            /// A company was taken on, with both its environments.
            AdvertiserCreated = "advertiser.created" {
                /// Its id. Told under a name of its own: `advertiser_id` is the tenant's.
                #[serde(rename = "new_advertiser_id")]
                advertiser_id: AdvertiserId,
                /// Its name, for people.
                name: String,
            }
            /// A key pair was issued.
            CredentialIssued = "credential.issued" {
                /// The key and what it may do. Never the secret: only its hash is kept, and that is not told.
                credential: Credential,
            }
            /// A key pair stopped working.
            CredentialRevoked = "credential.revoked" {
                /// The key.
                credential_id: CredentialId,
            }
            /// A campaign came into being.
            CampaignCreated = "campaign.created" {
                /// All of it.
                campaign: Box<Campaign>,
            }
            /// A campaign was changed; what was earned stays as it was earned.
            CampaignUpdated = "campaign.updated" {
                /// All of it, as it is now.
                campaign: Box<Campaign>,
            }
            /// A person joined the programme.
            MemberCreated = "member.created" {
                /// The member.
                member_id: MemberId,
                /// What upstream systems know the member by; never empty.
                identifiers: Vec<Identifier>,
                /// What is known about the person.
                profile: Profile,
                /// Where the registration came from, as `campaign_link`; may be empty.
                registration_source: String,
            }
            /// A member's identifiers or profile changed.
            MemberUpdated = "member.updated" {
                /// The member.
                member_id: MemberId,
                /// All of them, as they are now.
                identifiers: Vec<Identifier>,
                /// All of it, as it is now.
                profile: Profile,
                /// Paths that changed, as `profile.locale`.
                changed: Vec<String>,
            }
            /// A member earns nothing until unblocked.
            MemberBlocked = "member.blocked" {
                /// The member.
                member_id: MemberId,
                /// Why, as given.
                reason: String,
            }
            /// A member earns again.
            MemberUnblocked = "member.unblocked" {
                /// The member.
                member_id: MemberId,
            }
            /// A member's personal fields were erased, here and in all that was written before.
            MemberErased = "member.erased" {
                /// The member: the id stays, as whose the balances are.
                member_id: MemberId,
            }
            /// A member got a card: takes part in a campaign.
            MemberJoinedCampaign = "member.joined_campaign" {
                /// The member.
                member_id: MemberId,
                /// The campaign.
                campaign_id: CampaignId,
            }
            /// An upstream system's report was taken in: the cause of everything it earns.
            ConsumptionRecorded = "consumption.recorded" {
                /// The upstream id.
                consumption_id: String,
                /// Who.
                member_id: MemberId,
                /// When it happened, as reported.
                consumed_at: UnixMillis,
                /// What.
                lines: Vec<Line>,
                /// Digest of the identifiers as sent, to tell a repeat from a contradiction.
                #[serde(skip)]
                identifiers_digest: u64,
            }
            /// The member's first consumption that a rule of this campaign matched.
            ConsumptionFirst = "consumption.first" {
                /// The upstream id.
                consumption_id: String,
                /// Who.
                member_id: MemberId,
                /// In which campaign.
                campaign_id: CampaignId,
            }
            /// A rule matched a line.
            ConsumptionMatched = "consumption.matched" {
                /// The upstream id.
                consumption_id: String,
                /// Who.
                member_id: MemberId,
                /// Whose rule.
                campaign_id: CampaignId,
                /// The rule.
                rule_id: RuleId,
                /// Index of the line, from 0.
                line: u32,
                /// Its SKU.
                sku: String,
                /// Units that earn: the line's, less what a cap leaves out.
                units: u64,
            }
            /// A consumption counted on a card: bookkeeping of the card, told to nobody.
            ConsumptionCounted = "consumption.counted" {
                /// Which card.
                campaign_id: CampaignId,
                /// Units that count against caps.
                #[serde(skip)]
                cap_uses: Vec<CapUse>,
            }
            /// Units of a line earned nothing, and why.
            ConsumptionRejected = "consumption.rejected" {
                /// The upstream id.
                consumption_id: String,
                /// Who.
                member_id: MemberId,
                /// Why.
                reason: Unrewarded,
                /// Index of the line, from 0.
                line: u32,
                /// Its SKU.
                sku: String,
                /// Units that earn nothing.
                units: u64,
                /// Whose cap, where one was reached.
                campaign_id: Option<CampaignId>,
                /// Which rule's cap, where one was reached.
                rule_id: Option<RuleId>,
            }
            /// Points came to a card.
            PointsCredited = "points.credited" {
                /// Whose.
                member_id: MemberId,
                /// On which card.
                campaign_id: CampaignId,
                /// How many; more than 0.
                amount: Points,
                /// Before.
                previous_balance: Points,
                /// After.
                new_balance: Points,
                /// When they expire; never where absent.
                #[serde(skip_serializing_if = "Option::is_none")]
                expires_at: Option<UnixMillis>,
                /// From where.
                origin: Origin,
            }
            /// Points left a card.
            PointsDebited = "points.debited" {
                /// Whose.
                member_id: MemberId,
                /// From which card.
                campaign_id: CampaignId,
                /// How many; more than 0.
                amount: Points,
                /// Before.
                previous_balance: Points,
                /// After.
                new_balance: Points,
                /// The hold that they were taken from, if from one.
                #[serde(skip_serializing_if = "Option::is_none")]
                hold_id: Option<String>,
                /// For what.
                origin: Origin,
            }
            /// A member's coins changed.
            CoinsChanged = "coins.changed" {
                /// Whose.
                member_id: MemberId,
                /// By how much; negative where coins left.
                amount: Coins,
                /// Before.
                previous_balance: Coins,
                /// After.
                new_balance: Coins,
                /// When what came expires; never where absent.
                #[serde(skip_serializing_if = "Option::is_none")]
                expires_at: Option<UnixMillis>,
                /// The hold that they were taken from, if from one.
                #[serde(skip_serializing_if = "Option::is_none")]
                hold_id: Option<String>,
                /// From where, or for what.
                origin: Origin,
            }
            /// Stamps came to a punchcard.
            PunchcardStampsReceived = "punchcard.stamps_received" {
                /// Whose.
                member_id: MemberId,
                /// In which campaign.
                campaign_id: CampaignId,
                /// On which punchcard.
                punchcard_id: PunchcardId,
                /// How many; more than 0.
                stamps: Stamps,
                /// Stamps a full row has.
                row_length: u32,
                /// Before.
                previous: RowState,
                /// After.
                new: RowState,
                /// From where.
                origin: Origin,
            }
            /// Stamps had no place: the row was full and does not carry over, or the punchcard is done.
            PunchcardStampsDiscarded = "punchcard.stamps_discarded" {
                /// Whose.
                member_id: MemberId,
                /// In which campaign.
                campaign_id: CampaignId,
                /// On which punchcard.
                punchcard_id: PunchcardId,
                /// How many; more than 0.
                stamps: Stamps,
                /// From where.
                origin: Origin,
            }
            /// A milestone in a row was reached.
            PunchcardStepCompleted = "punchcard.step_completed" {
                /// Whose.
                member_id: MemberId,
                /// In which campaign.
                campaign_id: CampaignId,
                /// On which punchcard.
                punchcard_id: PunchcardId,
                /// The milestone: stamps in the row at which it is reached.
                step: u32,
                /// How many rows reached it in this decision; more than 1 where one decision fills several rows.
                times: u64,
            }
            /// Rows were filled.
            PunchcardCompleted = "punchcard.completed" {
                /// Whose.
                member_id: MemberId,
                /// In which campaign.
                campaign_id: CampaignId,
                /// Which punchcard.
                punchcard_id: PunchcardId,
                /// Rows filled in this decision.
                rows: u64,
                /// Rows filled in all.
                rows_completed: u64,
            }
            /// A standing order was placed.
            SubscriptionCreated = "subscription.created" {
                /// All of it but the secrets.
                subscription: Box<Subscription>,
                /// The first signing secret, sealed.
                #[serde(skip)]
                secret: SealedSecret,
                /// Owed what comes after this position; after the event itself where absent.
                #[serde(skip)]
                owed_after: Option<Sequence>,
            }
            /// A standing order was changed.
            SubscriptionUpdated = "subscription.updated" {
                /// All of it but the secrets, as it is now.
                subscription: Box<Subscription>,
            }
            /// A standing order was withdrawn.
            SubscriptionDeleted = "subscription.deleted" {
                /// Which.
                subscription_id: SubscriptionId,
            }
            /// Somebody stopped a subscription; its backlog is kept.
            SubscriptionPaused = "subscription.paused" {
                /// Which.
                subscription_id: SubscriptionId,
                /// Why.
                reason: String,
            }
            /// A subscription goes on where it stopped.
            SubscriptionResumed = "subscription.resumed" {
                /// Which.
                subscription_id: SubscriptionId,
                /// Why.
                reason: String,
            }
            /// The server stopped a subscription: its receiver asked for it, or failed for too long. Its backlog is kept.
            SubscriptionDisabled = "subscription.disabled" {
                /// Which.
                subscription_id: SubscriptionId,
                /// Why.
                reason: String,
            }
            /// An endpoint failed so often in a row that it is left in peace for a while.
            BreakerOpened = "breaker.opened" {
                /// Whose.
                subscription_id: SubscriptionId,
                /// Since when, until when, and how often in a row.
                breaker: BreakerState,
            }
            /// One event is sent, to see whether the endpoint is back.
            BreakerHalfOpened = "breaker.half_opened" {
                /// Whose.
                subscription_id: SubscriptionId,
                /// How it stands.
                breaker: BreakerState,
            }
            /// The endpoint is back.
            BreakerClosed = "breaker.closed" {
                /// Whose.
                subscription_id: SubscriptionId,
            }
            /// A replay or a redrive was asked for.
            DeliveryJobStarted = "delivery_job.started" {
                /// On what.
                subscription_id: SubscriptionId,
                /// What.
                #[serde(flatten)]
                job: DeliveryJob,
            }
            /// A job has come further: bookkeeping, told to nobody.
            DeliveryJobAdvanced = "delivery_job.advanced" {
                /// On what.
                subscription_id: SubscriptionId,
                /// Which.
                job_id: JobId,
                /// Everything before was looked at.
                next_sequence: Sequence,
                /// Deliveries put back: they wait for their attempt from now on.
                #[serde(skip)]
                put_back: Vec<PutBack>,
            }
            /// A job is at its end.
            DeliveryJobEnded = "delivery_job.ended" {
                /// On what.
                subscription_id: SubscriptionId,
                /// Which.
                job_id: JobId,
                /// What it did.
                kind: JobKind,
                /// Whether somebody stopped it.
                cancelled: bool,
            }
            /// Dead letters were given up: they are not tried again.
            DeadLettersDropped = "delivery.dropped" {
                /// Whose.
                subscription_id: SubscriptionId,
                /// Which.
                sequences: Vec<Sequence>,
                /// Why.
                reason: String,
            }
            /// An upstream system told of something. Its type is the one that it gave.
            FactPublished = "fact.published" {
                /// The system.
                source: String,
                /// Its id there.
                fact_id: String,
                /// As `wallet_pass.installed`.
                #[serde(skip)]
                fact_type: String,
                /// About whom.
                #[serde(skip_serializing_if = "Option::is_none")]
                member_id: Option<MemberId>,
                /// When it happened, as reported.
                occurred_at: UnixMillis,
                /// What it says, but for what is personal.
                #[serde(flatten)]
                properties: Json,
                /// What it says that is personal, by its type's schema: told with the rest, kept apart from it.
                #[serde(flatten)]
                personal: Json,
            }
            /// A new signing secret; the one before stays valid until `previous_until`.
            SubscriptionSecretRotated = "subscription.secret_rotated" {
                /// Which.
                subscription_id: SubscriptionId,
                /// The new one, sealed.
                #[serde(skip)]
                secret: SealedSecret,
                /// Until when both sign.
                previous_until: UnixMillis,
            }
            /// How far deliveries have come: the durable part of the dispatcher's state. Told to nobody.
            DeliveryProgressed = "delivery.progressed" {
                /// Whose.
                subscription_id: SubscriptionId,
                /// What changed.
                #[serde(skip)]
                progress: DeliveryProgress,
            }
            /// The last attempt failed; the delivery is kept, listed and can be redriven.
            DeliveryDeadLettered = "delivery.dead_lettered" {
                /// Whose.
                subscription_id: SubscriptionId,
                /// The event that was not delivered. Told under a name of its own: `sequence` is this event's.
                #[serde(rename = "delivery_sequence")]
                sequence: Sequence,
                /// Its type.
                event_type: String,
                /// Attempts made.
                attempts: u32,
                /// Why, as `http_500`, `timeout`, `gone`, `refused`.
                reason: String,
            }
            /// Dead letters were put back to be attempted again.
            DeadLettersRedriven = "delivery.redriven" {
                /// Whose.
                subscription_id: SubscriptionId,
                /// Which.
                sequences: Vec<Sequence>,
            }
            /// A type of facts was registered, or registered anew.
            FactTypeRegistered = "fact_type.registered" {
                /// All of it, as it is now.
                fact_type: FactType,
            }
        } }
    };
}
