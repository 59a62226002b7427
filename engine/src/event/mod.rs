//! What has happened. Events are the only thing that changes state, and the only thing told to anyone.
//!
//! The fields' names are what subscribers read: [`Event`] serialises to the `data` of a webhook.
//!
//! # Invariants
//!
//! - An event carries everything that [`apply`](crate::loyalty) needs: it never looks anything up.
//! - A balance event carries the balance before and after, and they differ by its amount.
//! - Names are dotted, lower case, past tense (contracts/catalogue.md), and are never changed.
//!
//! # What is absent on purpose
//!
//! - Sequence, time, tenant: the [`Record`] around the events has them once.

#[macro_use]
mod packed;
#[macro_use]
mod plain;

use serde::{Deserialize, Serialize};

use crate::dispatch::{BreakerState, DeliveryJob, DeliveryProgress, JobKind, PutBack, Subscription};
use crate::id::{
    AdvertiserId, CampaignId, CouponBookId, CredentialId, JobId, KeySlot, LeaderboardId, MemberId, MultiplierId,
    PunchcardId, RewardId, RuleId, SegmentId, Sequence, SubscriptionId, Tenant, TierId,
};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::consumption::Line;
use crate::loyalty::coupon::CouponBook;
use crate::loyalty::fact_type::FactType;
use crate::loyalty::job::{Job, Run};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::{CapUse, Identifier, Profile};
use crate::loyalty::programme::{Segment, Settings};
use crate::loyalty::reward::{Cost, Reward};
use crate::loyalty::tenant::{Credential, SealedSecret};
use crate::quantity::{Coins, Points, Stamps};
use crate::time::UnixMillis;

/// One command's outcome, as the journal keeps it: all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Whose.
    pub tenant: Tenant,
    /// When the command was decided.
    pub time: UnixMillis,
    /// The member it is about: the key that orders its deliveries.
    pub member: Option<MemberId>,
    /// Under which key the personal fields in it are sealed.
    pub key_slot: KeySlot,
    /// The exactly-once key it uses up, if any.
    pub key: Option<CommandKey>,
    /// Told to nobody: an import of what subscribers know already.
    pub quiet: bool,
    /// At least one. The first is the cause of the others.
    pub events: Vec<Event>,
}

/// What may happen at most once per tenant, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CommandKey {
    /// An upstream system's `consumptionId`.
    Consumption(String),
    /// A create verb's `request_id` (AIP-155).
    Request(String),
    /// An upstream system's name and its `fact_id`.
    Fact {
        /// The system.
        source: String,
        /// Its id.
        fact_id: String,
    },
    /// Something that the clock or a caller asks for once for each subject and period.
    Job {
        /// What, as `birthdays`.
        job: String,
        /// For whom or what.
        subject: String,
        /// Which time.
        period: i64,
    },
}

/// An event with its place in the journal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recorded<'a> {
    /// Its own position.
    pub sequence: Sequence,
    /// The position of the event that caused it; its own where it is the cause.
    pub cause: Sequence,
    /// When it was decided.
    pub time: UnixMillis,
    /// Whose.
    pub tenant: Tenant,
    /// The member it is about.
    pub member: Option<MemberId>,
    /// Under which key the personal fields in it are sealed.
    pub key_slot: KeySlot,
    /// Whether its record is told to nobody.
    pub quiet: bool,
    /// What happened.
    pub event: &'a Event,
}

impl Recorded<'_> {
    /// False for bookkeeping and for what was imported quietly: neither delivered nor listed.
    pub fn is_told(&self) -> bool {
        !self.quiet && self.event.event_type().is_public()
    }
}

impl Record {
    /// The event at index `i`, where the first has the position `first`.
    ///
    /// # Panics
    ///
    /// If there is no such event.
    pub fn recorded(&self, first: Sequence, i: usize) -> Recorded<'_> {
        let sequence = Sequence(first.0 + i as u64);
        let Record { tenant, time, key_slot, quiet, .. } = *self;
        let event = &self.events[i];
        // One that is about another than its record is in that one's order, and that one has another key.
        let member = event.other_member().or(self.member);
        let key_slot = if member == self.member { key_slot } else { KeySlot::NONE };
        Recorded { sequence, cause: first, time, tenant, member, key_slot, quiet, event }
    }

    /// The same without its personal fields: what it reads as once the member is erased. `None` where it
    /// has none.
    pub fn impersonal(&self) -> Option<Record> {
        if !self.events.iter().any(Event::is_personal) {
            return None;
        }
        let mut record = self.clone();
        record.events.iter_mut().for_each(Event::forget_person);
        Some(record)
    }

    /// All events with their places.
    pub fn all_recorded(&self, first: Sequence) -> impl Iterator<Item = Recorded<'_>> {
        (0..self.events.len()).map(move |i| self.recorded(first, i))
    }
}

impl Event {
    /// Whether it holds personal fields: those that are sealed under the member's key.
    pub fn is_personal(&self) -> bool {
        match self {
            Event::MemberCreated(e) => !e.identifiers.is_empty() || e.profile != Profile::default(),
            Event::MemberUpdated(e) => !e.identifiers.is_empty() || e.profile != Profile::default(),
            Event::FactPublished(e) => !e.personal.is_empty(),
            _ => false,
        }
    }

    /// Makes it what it reads as once the member is erased.
    pub fn forget_person(&mut self) {
        let (identifiers, profile) = match self {
            Event::MemberCreated(e) => (&mut e.identifiers, &mut e.profile),
            Event::MemberUpdated(e) => (&mut e.identifiers, &mut e.profile),
            Event::FactPublished(e) => return e.personal = Json::empty(),
            _ => return,
        };
        (*identifiers, *profile) = (Vec::new(), Profile::default());
    }
}

/// Where an amount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// A rule matched a line of a consumption.
    Consumption {
        /// The upstream id.
        consumption_id: String,
        /// Index of the line, from 0.
        line: u32,
        /// The SKU of that line.
        sku: String,
        /// The rule that matched.
        rule_id: RuleId,
        /// The multipliers that made more of it, with their percentages.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        multipliers: Vec<(MultiplierId, u32)>,
    },
    /// Somebody corrected a balance.
    Adjustment {
        /// Why, as given.
        reason: String,
    },
    /// The bonus for the first consumption.
    FirstConsumption {
        /// Which.
        consumption_id: String,
    },
    /// It was a birthday.
    Birthday,
    /// A friend was brought, or was one.
    Referral {
        /// Who brought.
        advocate_id: MemberId,
        /// Who came.
        friend_id: MemberId,
    },
    /// A round of a leaderboard ended.
    Leaderboard {
        /// Which.
        leaderboard_id: LeaderboardId,
        /// The rank, from 1.
        rank: u32,
    },
    /// A reward was paid for.
    Redemption {
        /// Which exchange.
        redemption_id: String,
        /// For what.
        reward_id: RewardId,
    },
    /// What a reward cost was given back.
    Refund {
        /// Which exchange.
        redemption_id: String,
        /// For what.
        reward_id: RewardId,
    },
    /// A hold was posted.
    Hold {
        /// Which.
        hold_id: String,
        /// Why, as given.
        reason: String,
    },
    /// It was not spent in time.
    Expiry {
        /// When it expired.
        expired_at: UnixMillis,
    },
    /// From one member to another.
    Transfer {
        /// The other one.
        other_member_id: MemberId,
        /// Why, as given.
        reason: String,
    },
    /// An entry was taken back.
    Reversal {
        /// Which.
        reversed_sequence: Sequence,
        /// Why, as given.
        reason: String,
        /// Whether that one counted as earned: then this one takes it back from tiers and leaderboards.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        earned: bool,
    },
    /// Two members became one.
    Merge {
        /// The other one.
        other_member_id: MemberId,
    },
}

impl Origin {
    /// Whether it counts as earned: for tiers and leaderboards. A prize does not: who won a round would win the next
    /// by it.
    pub fn is_earned(&self) -> bool {
        use Origin::{Birthday, Consumption, FirstConsumption, Referral};
        matches!(self, Consumption { .. } | FirstConsumption { .. } | Birthday | Referral { .. })
    }
}

/// Why a line earned nothing (or less than its quantity).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Unrewarded {
    /// No rule of a campaign the member has joined matches the SKU at the consumption's date.
    NoRuleMatched,
    /// The rule matched, but its cap for this member and period is used up.
    CapReached,
    /// The rule matched, but its condition does not hold.
    ConditionNotMet,
    /// The rule gives a coupon, and its book has none left: the rest is given.
    NoCouponsLeft,
}

/// How far a punchcard has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RowState {
    /// Stamps in the row that is being filled.
    pub stamps: Stamps,
    /// Rows filled so far.
    pub rows_completed: u64,
}

/// The text of a JSON object, checked when it came in. Told beside the fields of its event: where it has
/// one of the same name, ours is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(pub std::sync::Arc<str>);

impl Json {
    /// `{}`.
    pub fn empty() -> Json {
        Json("{}".into())
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        &*self.0 == "{}"
    }
}

/// Names of fields that are told beside a fact's own.
const TOLD_BESIDE: [&str; 8] =
    ["advertiser_id", "cause_sequence", "environment", "fact_id", "member_id", "occurred_at", "sequence", "source"];

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        s.collect_map(fields.iter().filter(|(name, _)| !TOLD_BESIDE.contains(&name.as_str())))
    }
}

/// Whether a word of a type's name: `a-z`, `0-9` and `_`, beginning with a letter.
pub fn is_type_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether the name of a type: two words or more with dots between, at most 100 bytes.
pub fn is_type_name(name: &str) -> bool {
    name.len() <= 100 && name.contains('.') && name.split('.').all(is_type_word)
}

/// Defines a struct for each event, and the enums over all of them.
macro_rules! events {
    (
        packed: { $(
            $(#[$doc:meta])*
            $name:ident = $type_name:literal { $( $(#[$fdoc:meta])* $field:ident : $ty:ty, )* }
        )* }
        plain: { $(
            $(#[$pdoc:meta])*
            $pname:ident = $ptype_name:literal { $( $(#[$pfdoc:meta])* $pfield:ident : $pty:ty, )* }
        )* }
    ) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize)]
            pub struct $name { $( $(#[$fdoc])* pub $field: $ty, )* }

            impl From<$name> for Event {
                fn from(event: $name) -> Event {
                    Event::$name(event)
                }
            }
        )*
        $(
            $(#[$pdoc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct $pname { $( $(#[$pfdoc])* pub $pfield: $pty, )* }

            impl From<$pname> for Event {
                fn from(event: $pname) -> Event {
                    Event::$pname(event)
                }
            }
        )*

        /// What has happened, by kind. Serialises to its fields alone.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Event {
            $( $(#[$doc])* $name($name), )*
            $( $(#[$pdoc])* $pname($pname), )*
        }

        /// The kinds of event, as small numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum EventType {
            $( $(#[$doc])* $name, )*
            $( $(#[$pdoc])* $pname, )*
        }

        impl EventType {
            /// Every kind.
            pub const ALL: &'static [EventType] = &[ $( EventType::$name, )* $( EventType::$pname, )* ];

            /// The canonical name, as `points.credited`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( EventType::$name => $type_name, )*
                    $( EventType::$pname => $ptype_name, )*
                }
            }
        }

        impl Event {
            /// Its kind.
            pub fn event_type(&self) -> EventType {
                match self {
                    $( Event::$name(_) => EventType::$name, )*
                    $( Event::$pname(_) => EventType::$pname, )*
                }
            }

            /// The name it is told under: a fact's is the one that its publisher gave it.
            pub fn type_name(&self) -> &str {
                match self {
                    Event::FactPublished(fact) => &fact.fact_type,
                    _ => self.event_type().as_str(),
                }
            }

            /// The fields of a plain event, as the journal keeps them; `None` for those that it packs.
            pub fn to_plain(&self) -> Option<String> {
                match self {
                    $( Event::$pname(event) => {
                        Some(serde_json::to_string(event).expect("its fields are numbers, texts and lists of them"))
                    } )*
                    _ => None,
                }
            }

            /// Reads what [`to_plain`](Self::to_plain) wrote; `None` for a type that is not plain.
            pub fn from_plain(event_type: &str, fields: &str) -> Option<serde_json::Result<Event>> {
                match event_type {
                    $( $ptype_name => Some(serde_json::from_str(fields).map(Event::$pname)), )*
                    _ => None,
                }
            }
        }
    };
}

packed_events!(plain_events);

impl EventType {
    /// The kind of that name.
    pub fn parse(name: &str) -> Option<EventType> {
        EventType::ALL.iter().copied().find(|t| t.as_str() == name)
    }

    /// False for bookkeeping, which is neither delivered nor listed.
    pub fn is_public(self) -> bool {
        use EventType as T;
        !matches!(
            self,
            T::DeliveryProgressed
                | T::ConsumptionCounted
                | T::DeliveryJobAdvanced
                | T::CouponsAdded
                | T::LeaderboardScored
                | T::ReferralLinked
                | T::MemberChannelSet
        )
    }

    /// True for events about deliveries. One that dies is not told about in its turn, else two dead
    /// receivers would keep each other busy for ever.
    pub fn is_about_delivery(self) -> bool {
        matches!(
            self,
            EventType::DeliveryProgressed
                | EventType::DeliveryDeadLettered
                | EventType::DeadLettersRedriven
                | EventType::DeadLettersDropped
                | EventType::DeliveryJobStarted
                | EventType::DeliveryJobAdvanced
                | EventType::DeliveryJobEnded
                | EventType::SubscriptionPaused
                | EventType::SubscriptionResumed
                | EventType::SubscriptionDisabled
                | EventType::BreakerOpened
                | EventType::BreakerHalfOpened
                | EventType::BreakerClosed
        )
    }
}

impl Event {
    /// The member it is about, for those that may stand in another member's record.
    pub(crate) fn other_member(&self) -> Option<MemberId> {
        match self {
            Event::PointsCredited(e) => Some(e.member_id),
            Event::PointsDebited(e) => Some(e.member_id),
            Event::CoinsChanged(e) => Some(e.member_id),
            Event::ObligationCreated(e) => Some(e.member_id),
            Event::RewardRedeemable(e) => Some(e.member_id),
            Event::TierChanged(e) => Some(e.member_id),
            Event::SegmentEntered(e) => Some(e.member_id),
            Event::SegmentLeft(e) => Some(e.member_id),
            Event::LeaderboardScored(e) => Some(e.member_id),
            Event::ReferralSucceededAdvocate(e) => Some(e.member_id),
            Event::MemberMergedInto(e) => Some(e.member_id),
            _ => None,
        }
    }
}
