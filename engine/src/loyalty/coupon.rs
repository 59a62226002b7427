//! Coupon books: stocks of codes, given to members one by one and used once or more often.

use serde::{Deserialize, Serialize};

use crate::id::{CampaignId, CouponBookId, MemberId};
use crate::loyalty::campaign::check_validity;
use crate::loyalty::programme::check_name;
use crate::loyalty::reward::Offered;
use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Most coupon books of a tenant.
pub const COUPON_BOOKS_MAX: usize = 500;
/// Most codes that one call adds: they are one record.
pub const CODES_MAX: usize = 10_000;
/// Longest code, in bytes.
pub const CODE_LEN_MAX: usize = 64;
/// Most uses of one code.
pub const USES_MAX: u32 = 100;
/// Longest id of a use, in bytes.
pub const USAGE_ID_LEN_MAX: usize = 128;

/// A stock of codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponBook {
    /// Unique within the tenant.
    pub coupon_book_id: CouponBookId,
    /// In which campaign, if in one.
    pub campaign_id: Option<CampaignId>,
    /// For people.
    pub name: String,
    /// Whether codes are made here or given.
    #[serde(rename = "type")]
    pub kind: BookKind,
    /// What it is called elsewhere; empty for nothing.
    pub external_id: String,
    /// For people.
    pub description: String,
    /// A picture; empty for none.
    pub picture_url: String,
    /// As `percentage`; empty where it is no discount.
    pub discount_type: String,
    /// How much of it.
    pub discount_amount: i64,
    /// When its codes may be used.
    #[serde(flatten)]
    pub offered: Offered,
    /// Days after which a code that a member was given ends; never where 0.
    pub expire_after_days: u32,
    /// How often each code may be used.
    pub uses_max: u32,
    /// Counts changes, from 1.
    pub version: u64,
}

/// Where codes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BookKind {
    /// Made here.
    Generated,
    /// Given by the caller.
    Listed,
}

impl CouponBook {
    /// Checks every bound.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        for (field, text) in
            [("name", &self.name), ("external_id", &self.external_id), ("discount_type", &self.discount_type)]
        {
            check_name(field, text)?;
        }
        for (field, text) in [("description", &self.description), ("picture_url", &self.picture_url)] {
            if text.len() > 2_000 {
                return Err(InvalidField::new(field, text, "must be at most 2000 bytes"));
            }
        }
        if !(1..=USES_MAX).contains(&self.uses_max) {
            return Err(InvalidField::new("uses_max", self.uses_max.to_string(), "must be from 1 to 100"));
        }
        if self.discount_amount < 0 {
            return Err(InvalidField::new("discount_amount", self.discount_amount.to_string(), "must be at least 0"));
        }
        if self.expire_after_days > 36_500 {
            let days = self.expire_after_days.to_string();
            return Err(InvalidField::new("expire_after_days", days, "must be from 0 to 36500"));
        }
        check_validity("valid", &self.offered.as_validity())
    }
}

/// Checks a code as given.
///
/// # Errors
///
/// The field `at`, with its value.
pub fn check_code(at: &str, code: &str) -> Result<(), InvalidField> {
    let plain = code.bytes().all(|b| b.is_ascii_graphic());
    if code.is_empty() || code.len() > CODE_LEN_MAX || !plain {
        return Err(InvalidField::new(at, code, "must be 1 to 64 visible ASCII characters"));
    }
    Ok(())
}

/// A code of a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coupon {
    /// Which book.
    pub coupon_book_id: CouponBookId,
    /// The code.
    pub code: String,
    /// Its place in the book, from 0.
    pub place: u64,
    /// Added.
    pub created_at: UnixMillis,
    /// Whose, once it was given to somebody.
    pub member_id: Option<MemberId>,
    /// Since when.
    pub assigned_at: Option<UnixMillis>,
    /// Until when it may be used; for ever where absent.
    pub expires_at: Option<UnixMillis>,
    /// Uses that were not rolled back, oldest first.
    pub usage_ids: Vec<String>,
}

impl Coupon {
    /// What events call it.
    pub fn coupon_id(&self) -> String {
        format!("{}/{}", self.coupon_book_id, self.place)
    }
}
