//! Reading the delivery log, newest first, a bounded piece at a time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use punchline_engine::id::{Sequence, SubscriptionId};

use super::block::{self, HEADER_BYTES};
use super::{Attempts, Holds, LoggedAttempt, Page, Segment};

/// Where an attempt stands: whoever was told it goes on with older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    segment: u64,
    offset: u64,
    index: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.segment, self.offset, self.index)
    }
}

/// A text that is no [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no place in the delivery log")]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Place, NoPlace> {
        let mut parts = text.split('.').map(|part| part.parse().map_err(|_| NoPlace));
        let mut part = || parts.next().unwrap_or(Err(NoPlace));
        let place = Place { segment: part()?, offset: part()?, index: part()? };
        if parts.next().is_none() { Ok(place) } else { Err(NoPlace) }
    }
}

/// What is looked for, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// Whose attempts.
    pub subscription_id: SubscriptionId,
    /// Only this event's.
    pub sequence: Option<Sequence>,
    /// Only those that stand before this place.
    pub before: Option<Place>,
    /// Most attempts.
    pub attempts_max: usize,
    /// Bytes of the log to read; a page more at the most.
    pub bytes_max: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// The newest first.
    pub attempts: Vec<LoggedAttempt>,
    /// Where to go on, before this place; `None`: there is nothing older.
    pub next: Option<Place>,
}

impl Scan {
    fn may_be_in(&self, holds: &Holds) -> bool {
        let sequence = |s: Sequence| (holds.sequences.0..=holds.sequences.1).contains(&s.0);
        holds.subscriptions & Holds::subscription_bit(self.subscription_id) != 0 && self.sequence.is_none_or(sequence)
    }

    /// Whether something that begins there stands before the place to go on from.
    fn is_reached(&self, segment: u64, offset: u64) -> bool {
        self.before.is_none_or(|before| Place { segment, offset, index: 0 } < before)
    }
}

impl Attempts {
    /// Looks for attempts, newest first. Reads files: not for async tasks.
    ///
    /// What is damaged, and segments that are dropped meanwhile, are passed over.
    pub fn scan(&self, scan: &Scan, mut wanted: impl FnMut(&LoggedAttempt) -> bool) -> Scanned {
        let segments: Vec<Arc<Segment>> = self.state().segments.clone();
        let mut found = Scanned::default();
        let mut bytes_read = 0;
        for segment in segments.iter().rev().filter(|segment| scan.is_reached(segment.number, 0)) {
            for page in segment.pages.iter().rev().filter(|page| scan.is_reached(segment.number, page.start)) {
                if !scan.may_be_in(&page.holds) {
                    continue;
                }
                if bytes_read >= scan.bytes_max {
                    // Before the page's end, that is: at the page's blocks.
                    found.next = Some(Place { segment: segment.number, offset: page.end, index: 0 });
                    return found;
                }
                bytes_read += page.end - page.start;
                if self.scan_page(scan, segment.number, page, &mut wanted, &mut found) {
                    return found;
                }
            }
        }
        found
    }

    /// Looks through a page; says whether there is enough.
    fn scan_page(
        &self,
        scan: &Scan,
        number: u64,
        page: &Page,
        wanted: &mut impl FnMut(&LoggedAttempt) -> bool,
        found: &mut Scanned,
    ) -> bool {
        let bytes = match self.read(number, page) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(path = %self.path(number).display(), %error, "part of the delivery log is skipped");
                return false;
            }
        };
        let mut blocks = Vec::new();
        let (mut rest, mut offset) = (bytes.as_slice(), page.start);
        while let Some((header, body, after)) = block::split(rest) {
            blocks.extend(body.filter(|_| scan.may_be_in(&header.holds)).map(|body| (offset, header, body)));
            offset += (HEADER_BYTES + header.body_bytes as usize) as u64;
            rest = after;
        }
        for (offset, header, body) in blocks.into_iter().rev().filter(|(at, ..)| scan.is_reached(number, *at)) {
            let Some(attempts) = block::decode(&header, body) else { continue };
            for (index, attempt) in attempts.into_iter().enumerate().rev() {
                let place = Place { segment: number, offset, index: index as u64 };
                let Some(attempt) = attempt.filter(|_| scan.before.is_none_or(|before| place < before)) else {
                    continue;
                };
                let is_it = attempt.subscription_id == scan.subscription_id
                    && scan.sequence.is_none_or(|sequence| attempt.sequence == sequence);
                if is_it && wanted(&attempt) {
                    found.attempts.push(attempt);
                    if found.attempts.len() >= scan.attempts_max {
                        found.next = Some(place);
                        return true;
                    }
                }
            }
        }
        false
    }
}
