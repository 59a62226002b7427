//! What an advertiser configures: campaigns, segments, settings.
//!
//! # Invariants
//!
//! - What is written refers to what is there: a contradiction is refused now, not when it is used.

use super::{Decision, check_etag, limit, one};
use crate::event::{SegmentCreated, SegmentUpdated, SettingsUpdated};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::programme::{SEGMENTS_MAX, Segment, Settings};
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::{InvalidField, Rejection};

/// Checks a campaign by itself and against what it names.
pub(super) fn check(config: &TenantConfig, campaign: &Campaign) -> Result<(), Rejection> {
    campaign.validate()?;
    for (i, rule) in campaign.rules.iter().enumerate() {
        if let Some(book) = rule.coupon_book.as_ref().filter(|book| !config.coupon_books.contains_key(*book)) {
            let field = format!("rules[{i}].coupon_book");
            return Err(InvalidField::new(field, book.as_str(), "names no coupon book").into());
        }
    }
    for (i, multiplier) in campaign.programme.multipliers.iter().enumerate() {
        if let Some(segment) = multiplier.segment.as_ref().filter(|id| !config.segments.contains_key(*id)) {
            let field = format!("multipliers[{i}].segment");
            return Err(InvalidField::new(field, segment.as_str(), "names no segment").into());
        }
    }
    Ok(())
}

pub(super) fn settings(config: &TenantConfig, settings: &Settings, etag: Option<&str>) -> Result<Decision, Rejection> {
    check_etag(etag, config.settings.version)?;
    settings.validate()?;
    let settings = Settings { version: config.settings.version + 1, ..settings.clone() };
    Ok(one(SettingsUpdated { settings }.into()))
}

pub(super) fn create_segment(config: &TenantConfig, segment: &Segment) -> Result<Decision, Rejection> {
    if config.segments.contains_key(&segment.id) {
        return Err(Rejection::SegmentExists(segment.id.clone()));
    }
    limit("segments", config.segments.len(), SEGMENTS_MAX)?;
    segment.validate()?;
    Ok(one(SegmentCreated { segment: Segment { version: 1, ..segment.clone() } }.into()))
}

pub(super) fn update_segment(
    config: &TenantConfig,
    segment: &Segment,
    etag: Option<&str>,
) -> Result<Decision, Rejection> {
    let current = config.segments.get(&segment.id);
    let current = current.ok_or_else(|| Rejection::SegmentNotFound(segment.id.clone()))?;
    check_etag(etag, current.version)?;
    segment.validate()?;
    Ok(one(SegmentUpdated { segment: Segment { version: current.version + 1, ..segment.clone() } }.into()))
}
