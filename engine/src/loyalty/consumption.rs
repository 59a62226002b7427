//! A consumption: what a customer did, as an upstream system reports it.
//!
//! A [`Consumption`] has passed its shape check; whether it is accepted depends on the member and on
//! what was seen before, which [`decide`](crate::decide) knows.
//!
//! # Invariants
//!
//! - 1 to [`LINES_MAX`] lines, 1 to [`IDENTIFIERS_MAX`] identifiers, ids and SKUs within their length.
//! - A consumption is split over lines or over several consumptions without changing what it earns.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::event::Event;
use crate::id::{CampaignId, MemberId, PunchcardId, RuleId, Sequence};
use crate::loyalty::campaign::SKU_LEN_MAX;
use crate::loyalty::member::Identifier;
use crate::quantity::{Coins, Points, Quantity, Stamps};
use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Longest `consumptionId`, in bytes: it is part of a key.
pub const CONSUMPTION_ID_LEN_MAX: usize = 128;
/// Most lines: bounds what one command may write.
pub const LINES_MAX: usize = 200;
/// Most identifiers of one consumption.
pub const IDENTIFIERS_MAX: usize = 10;
/// Longest product name, in bytes.
pub const PRODUCT_NAME_LEN_MAX: usize = 256;
/// How far a consumption's date may be ahead: clocks and time zones differ.
pub const FUTURE_MAX_MS: i64 = UnixMillis::DAY_MS;

/// A reported action, shape-checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumption {
    /// The upstream id: exactly once per tenant, for ever.
    pub consumption_id: String,
    /// When it happened, as reported.
    pub consumed_at: UnixMillis,
    /// Who, as the upstream system knows them.
    pub identifiers: Vec<Identifier>,
    /// What.
    pub lines: Vec<Line>,
}

/// SKU × quantity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The product, or the dynamic event.
    pub sku: String,
    /// Its name, if it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
    /// How many.
    pub quantity: Quantity,
}

/// A consumption as it came in: nothing about it is known to be true.
#[derive(Debug, Clone, Default)]
pub struct RawConsumption {
    /// Required.
    pub consumption_id: String,
    /// Required; one of the forms of [`UnixMillis::parse`].
    pub consumed_at: String,
    /// Required, as (key, value).
    pub identifiers: Vec<(String, String)>,
    /// Required.
    pub lines: Vec<RawLine>,
}

/// A line as it came in.
#[derive(Debug, Clone, Default)]
pub struct RawLine {
    /// Required.
    pub sku: String,
    /// Empty for none.
    pub product_name: String,
    /// A whole number from 1 to [`Quantity::MAX`]; `1.0` is 1. What is not a number is a `NaN`.
    pub quantity: f64,
}

impl RawConsumption {
    /// The shape check of API.md's table, in its order.
    ///
    /// # Errors
    ///
    /// The first field that is missing or out of bounds.
    pub fn check(self, now: UnixMillis) -> Result<Consumption, InvalidField> {
        let required = |reason, field: &str, rule: &str| InvalidField::with_reason(reason, field, "", rule);
        if self.consumption_id.trim().is_empty() {
            return Err(required("CONSUMPTION_ID_REQUIRED", "consumptionId", "ConsumptionId is required"));
        }
        if self.identifiers.is_empty() {
            return Err(required("IDENTIFIERS_REQUIRED", "identifiers", "Identifiers are required"));
        }
        if self.lines.is_empty() {
            let rule = "ConsumptionLines are required";
            return Err(required("CONSUMPTION_LINES_REQUIRED", "consumptionLines", rule));
        }
        let too_long = self.consumption_id.len() > CONSUMPTION_ID_LEN_MAX;
        if too_long || self.consumption_id.chars().any(char::is_control) {
            let rule = "must be 1 to 128 bytes without control characters";
            return Err(InvalidField::new("consumptionId", self.consumption_id, rule));
        }
        let bad_date = |rule: &str| {
            InvalidField::with_reason("INVALID_CONSUMPTION_DATE", "consumptionDate", &self.consumed_at, rule)
        };
        let consumed_at = UnixMillis::parse(&self.consumed_at)
            .ok_or_else(|| bad_date("must be RFC 3339, YYYYMMDDTHH:MM:SSZ or YYYYMMDDTHHMMSSZ"))?;
        if consumed_at > now.plus_ms(FUTURE_MAX_MS) {
            return Err(bad_date("must not be more than 24 hours in the future"));
        }
        let count = |field: &str, n: usize, max: usize| {
            if n <= max {
                return Ok(());
            }
            Err(InvalidField::new(field, n.to_string(), format!("has too many entries, at most {max} are allowed")))
        };
        count("identifiers", self.identifiers.len(), IDENTIFIERS_MAX)?;
        count("consumptionLines", self.lines.len(), LINES_MAX)?;
        let identifiers = (self.identifiers.iter().enumerate())
            .map(|(i, (key, value))| Identifier::parse(&format!("identifiers[{i}]"), key, value))
            .collect::<Result<_, _>>()?;
        let lines = (self.lines.into_iter().enumerate()).map(|(i, line)| line.check(i)).collect::<Result<_, _>>()?;
        Ok(Consumption { consumption_id: self.consumption_id, consumed_at, identifiers, lines })
    }
}

impl RawLine {
    fn check(self, i: usize) -> Result<Line, InvalidField> {
        let at = |field: &str| format!("consumptionLines[{i}].{field}");
        // Control characters would reach operators' terminals.
        let has_control = |text: &str| text.chars().any(char::is_control);
        if self.sku.trim().is_empty() || self.sku.len() > SKU_LEN_MAX || has_control(&self.sku) {
            let rule = "must be 1 to 128 bytes without control characters, not only spaces";
            return Err(InvalidField::new(at("sku"), self.sku, rule));
        }
        if self.product_name.len() > PRODUCT_NAME_LEN_MAX || has_control(&self.product_name) {
            let rule = "must be at most 256 bytes without control characters";
            return Err(InvalidField::new(at("productName"), self.product_name, rule));
        }
        let whole = self.quantity.fract() == 0.0 && self.quantity >= 0.0;
        let quantity = whole.then(|| Quantity::new(self.quantity as u64)).flatten().ok_or_else(|| {
            let rule = "must be a whole number from 1 to 10000";
            InvalidField::with_reason("INVALID_QUANTITY", at("quantity"), self.quantity.to_string(), rule)
        })?;
        let product_name = Some(self.product_name).filter(|name| !name.is_empty());
        Ok(Line { sku: self.sku, product_name, quantity })
    }
}

impl Consumption {
    /// Digest of the identifiers, whatever their order: the consumption's event must not hold them,
    /// since personal fields live in member records only. Nobody can look for them without `key`, which
    /// stands in front: that it could be gone on from is prevented by keeping a quarter of it.
    pub fn identifiers_digest(&self, key: &[u8]) -> u64 {
        let mut sorted: Vec<_> = self.identifiers.iter().collect();
        sorted.sort();
        let mut digest = Sha256::new_with_prefix(key);
        for identifier in sorted {
            digest.update([identifier.kind as u8, identifier.value.len() as u8]);
            digest.update(identifier.value.as_bytes());
        }
        let digest = digest.finalize();
        u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
    }
}

/// What a consumption came to. Made from its events alone, so that a repeat gets the first one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Position of `consumption.recorded`.
    pub sequence: Sequence,
    /// When it was taken in.
    pub recorded_at: UnixMillis,
    /// Who.
    pub member_id: MemberId,
    /// Lines that a rule matched, and which one.
    pub matched: Vec<MatchedLine>,
    /// Points earned, over all campaigns.
    pub points: Points,
    /// Coins earned.
    pub coins: Coins,
    /// Stamps earned, discarded ones left out.
    pub stamps: Stamps,
    /// Rows of punchcards filled.
    pub rows_completed: u64,
    /// Balances that changed, as they were afterwards.
    pub points_balances: Vec<(CampaignId, Points)>,
    /// The coin balance, if it changed.
    pub coins_balance: Option<Coins>,
    /// Punchcards that changed: stamps in the row, afterwards.
    pub punchcards: Vec<(CampaignId, PunchcardId, Stamps)>,
}

/// A rule matched a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedLine {
    /// Index of the line, from 0.
    pub line: u32,
    /// Whose rule.
    pub campaign_id: CampaignId,
    /// The rule.
    pub rule_id: RuleId,
    /// Units that earned.
    pub units: u64,
}

impl Receipt {
    /// Reads the receipt off a consumption's events; `None` if they do not begin with one.
    pub fn of(sequence: Sequence, recorded_at: UnixMillis, events: &[Event]) -> Option<Receipt> {
        let Some(Event::ConsumptionRecorded(recorded)) = events.first() else { return None };
        let mut receipt = Receipt {
            sequence,
            recorded_at,
            member_id: recorded.member_id,
            matched: Vec::new(),
            points: Points::ZERO,
            coins: Coins::ZERO,
            stamps: Stamps(0),
            rows_completed: 0,
            points_balances: Vec::new(),
            coins_balance: None,
            punchcards: Vec::new(),
        };
        for event in &events[1..] {
            match event {
                Event::ConsumptionMatched(e) => receipt.matched.push(MatchedLine {
                    line: e.line,
                    campaign_id: e.campaign_id.clone(),
                    rule_id: e.rule_id.clone(),
                    units: e.units,
                }),
                Event::PointsCredited(e) => {
                    receipt.points.0 += e.amount.0;
                    set(&mut receipt.points_balances, e.campaign_id.clone(), e.new_balance);
                }
                Event::CoinsChanged(e) => {
                    receipt.coins.0 += e.amount.0;
                    receipt.coins_balance = Some(e.new_balance);
                }
                Event::PunchcardStampsReceived(e) => {
                    receipt.stamps.0 += e.stamps.0;
                    receipt.rows_completed += e.new.rows_completed - e.previous.rows_completed;
                    let same = |(c, p, _): &&mut (CampaignId, PunchcardId, Stamps)| {
                        *c == e.campaign_id && *p == e.punchcard_id
                    };
                    match receipt.punchcards.iter_mut().find(same) {
                        Some(entry) => entry.2 = e.new.stamps,
                        None => {
                            let entry = (e.campaign_id.clone(), e.punchcard_id.clone(), e.new.stamps);
                            receipt.punchcards.push(entry);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(receipt)
    }
}

fn set<K: PartialEq, V>(entries: &mut Vec<(K, V)>, key: K, value: V) {
    match entries.iter_mut().find(|(k, _)| *k == key) {
        Some(entry) => entry.1 = value,
        None => entries.push((key, value)),
    }
}

/// Compares a repeat with the consumption that used its id first: the field that differs, if any.
pub(crate) fn difference(
    first: &crate::event::ConsumptionRecorded,
    again: &Consumption,
    digest_key: &[u8],
) -> Option<&'static str> {
    // The first versions had no key.
    let digests = [digest_key, &[]].map(|key| again.identifiers_digest(key));
    if first.consumed_at != again.consumed_at {
        Some("consumptionDate")
    } else if !digests.contains(&first.identifiers_digest) {
        Some("identifiers")
    } else if first.lines != again.lines {
        Some("consumptionLines")
    } else {
        None
    }
}
