//! Names of things. Nothing here is personal data, and nothing here imports anything of ours.
//!
//! # Invariants
//!
//! - A [`Slug`] is 1 to 64 characters of `a-z 0-9 _ - .`: safe in a key, a URL, a label and a log line.
//! - Two ids that can be mixed up are two types.
//!
//! # What is absent on purpose
//!
//! - Generation. Ids are made in `runtime` and arrive with the command.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A value that is not a valid id: says which kind of id, and what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    /// What the value should have been, as in `campaign id`.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl InvalidId {
    fn new(kind: &'static str, value: &str, rule: &'static str) -> Self {
        InvalidId { kind, value: value.chars().take(80).collect(), rule }
    }
}

/// Where the key is kept under which a member's personal fields are sealed. Not a secret, and told to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeySlot(pub u64);

impl KeySlot {
    /// No key: nothing of it is sealed.
    pub const NONE: KeySlot = KeySlot(0);
}

/// The tenant's company, as `1000000001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdvertiserId(pub u64);

impl AdvertiserId {
    /// The first id handed out when the operator names none.
    pub const FIRST: AdvertiserId = AdvertiserId(1_000_000_001);
}

impl fmt::Display for AdvertiserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AdvertiserId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let digits = !s.is_empty() && s.len() <= 19 && s.bytes().all(|b| b.is_ascii_digit());
        match s.parse() {
            Ok(n) if digits && n > 0 => Ok(AdvertiserId(n)),
            _ => Err(InvalidId::new("advertiser id", s, "1 to 19 decimal digits, not zero")),
        }
    }
}

impl Serialize for AdvertiserId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Separate worlds of one advertiser: keys, data, subscriptions and limits are never shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Environment {
    /// Real customers.
    Production = 1,
    /// Trying things out.
    Staging = 2,
}

impl Environment {
    /// Both, in key order.
    pub const ALL: [Environment; 2] = [Environment::Production, Environment::Staging];

    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Production => "production",
            Environment::Staging => "staging",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Environment {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        match s {
            "production" => Ok(Environment::Production),
            "staging" => Ok(Environment::Staging),
            _ => Err(InvalidId::new("environment", s, "production or staging")),
        }
    }
}

/// One advertiser in one environment: the wall no call crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant {
    /// Whose data.
    pub advertiser: AdvertiserId,
    /// Which of the two worlds.
    pub environment: Environment,
}

impl Tenant {
    /// Bytes in a key.
    pub const KEY_BYTES: usize = 9;

    /// Big-endian, so that byte order is order.
    pub fn to_key(self) -> [u8; Self::KEY_BYTES] {
        let mut key = [0; Self::KEY_BYTES];
        key[..8].copy_from_slice(&self.advertiser.0.to_be_bytes());
        key[8] = self.environment as u8;
        key
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.advertiser, self.environment)
    }
}

/// A position in the journal: from 1, no gaps. 0 is "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(s).map($name).map_err(|_| InvalidId::new($kind, s, "a UUID"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// A person in one tenant's programme. UUIDv7: later members sort after earlier ones.
    MemberId,
    "member id"
);
uuid_id!(
    /// A standing order for events.
    SubscriptionId,
    "subscription id"
);
uuid_id!(
    /// A replay or a redrive.
    JobId,
    "job id"
);

/// 1 to 64 characters of `a-z 0-9 _ - .`, chosen by the one who writes the configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(Arc<str>);

impl Slug {
    /// Longest slug, in characters: fits keys and labels.
    pub const LEN_MAX: usize = 64;

    /// Checks and takes `value`; `kind` names it in the error.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] where a character or the length is not allowed.
    pub fn parse(kind: &'static str, value: &str) -> Result<Slug, InvalidId> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        if value.is_empty() || value.len() > Self::LEN_MAX || !value.bytes().all(allowed) {
            return Err(InvalidId::new(kind, value, "1 to 64 characters of a-z 0-9 _ - ."));
        }
        Ok(Slug(value.into()))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! slug_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Slug);

        impl $name {
            /// The characters.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Slug::parse($kind, s).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

slug_id!(
    /// Whom several connections read events for.
    ConsumerName,
    "consumer"
);
slug_id!(
    /// Rules, rewards and a period.
    CampaignId,
    "campaign id"
);
slug_id!(
    /// An earning rule within a campaign.
    RuleId,
    "rule id"
);
slug_id!(
    /// A punchcard within a campaign.
    PunchcardId,
    "punchcard id"
);
slug_id!(
    /// One `apiKey`/`apiSecret` pair. It is the `apiKey` itself: public, unlike the secret.
    CredentialId,
    "api key"
);
slug_id!(
    /// A tier within a campaign.
    TierId,
    "tier id"
);
slug_id!(
    /// A multiplier within a campaign.
    MultiplierId,
    "multiplier id"
);
slug_id!(
    /// A leaderboard within a campaign.
    LeaderboardId,
    "leaderboard id"
);
slug_id!(
    /// Members who have something in common.
    SegmentId,
    "segment id"
);
slug_id!(
    /// What points or coins are exchanged for, or what a subscriber pays out.
    RewardId,
    "reward id"
);
slug_id!(
    /// A stock of codes.
    CouponBookId,
    "coupon book id"
);
