//! Pages of lists (AIP-158): sizes, and tokens that say where to go on.
//!
//! A token is opaque: base64 of a letter for the list and the key of the last element that was answered.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::refuse::Refused;

/// Elements of a page where the caller names no number.
const SIZE_DEFAULT: usize = 50;
/// Most elements of a page; who asks for more gets as many (AIP-158).
pub const SIZE_MAX: usize = 500;

/// The elements of a page.
///
/// # Errors
///
/// `INVALID_FIELD` where negative.
pub fn size(given: i32) -> Result<usize, Refused> {
    match usize::try_from(given) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
        Err(_) => Err(Refused::field("page_size", given.to_string(), "must not be negative")),
    }
}

/// A list, so that a token of one is refused by the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum List {
    /// Members, by id.
    Members = b'm',
    /// Ledger entries, by sequence.
    Entries = b'e',
    /// Campaigns, by id.
    Campaigns = b'c',
    /// Subscriptions, by id.
    Subscriptions = b's',
    /// Deliveries, by sequence.
    Deliveries = b'd',
    /// Attempts, by their place in the delivery log.
    Attempts = b't',
    /// Types of facts, by name.
    FactTypes = b'f',
    /// Advertisers, by id.
    Advertisers = b'a',
    /// Segments, by id.
    Segments = b'g',
    /// Rewards, by id.
    Rewards = b'r',
    /// Coupon books, by id.
    CouponBooks = b'b',
    /// Redemptions, by id.
    Redemptions = b'x',
    /// Obligations, by id.
    Obligations = b'o',
}

/// The token that goes on after `last`.
pub fn token(list: List, last: impl ToString) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{}", list as u8 as char, last.to_string()))
}

/// The key after which to go on; `None` for the first page.
///
/// # Errors
///
/// `INVALID_PAGE_TOKEN` for what no earlier page answered.
pub fn after<K: std::str::FromStr>(list: List, token: &str) -> Result<Option<K>, Refused> {
    if token.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let key =
        decoded.as_deref().and_then(|text| text.strip_prefix(list as u8 as char)).and_then(|key| key.parse().ok());
    key.map(Some).ok_or_else(|| {
        let rule = "must be the next_page_token of an earlier page";
        punchline_engine::rejection::InvalidField::with_reason("INVALID_PAGE_TOKEN", "page_token", token, rule).into()
    })
}

/// Cuts a list that was read one element too long, and gives the token of the next page: empty on the last.
pub fn cut<T, K: ToString>(list: List, found: &mut Vec<T>, size: usize, key: impl Fn(&T) -> K) -> String {
    if found.len() <= size {
        return String::new();
    }
    found.truncate(size);
    found.last().map(|last| token(list, key(last))).unwrap_or_default()
}
