//! Jobs: what the clock asks for, as commands. Which member each concerns, and when it is due.
//!
//! ```text
//! recalculation  daily at 05:00, the advertiser's time    tiers and segments
//! expiry         daily at 00:00, the advertiser's time    lots that ended, lots that soon will
//! birthdays      daily at 09:00 UTC
//! leaderboards   daily at 00:00 UTC                       rounds that ended
//! holds          when one ends                            holds and redemptions that nobody finished
//! ```
//!
//! # Invariants
//!
//! - A run has a period: the number of its day. What it does to a member it does once for that period.
//! - A run that was missed is made up once, by the next: each looks at everything up to its own time.
//! - Nothing expires by being looked at.
//!
//! # What is absent on purpose
//!
//! - Walking over members, and waiting: that is the runtime's.

use jiff::civil;
use serde::{Deserialize, Serialize};

use crate::loyalty::member::Member;
use crate::loyalty::programme::Settings;
use crate::loyalty::tenant::TenantConfig;
use crate::time::{Period, UnixMillis};

/// Days that a made up run of birthdays looks back.
const BIRTHDAY_DAYS_MAX: i64 = 31;

/// What the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Tiers and segments, which may change by time alone.
    Recalculation,
    /// Lots that ended, and lots that soon will.
    Expiry,
    /// Birthdays.
    Birthdays,
    /// Rounds of leaderboards that ended.
    Leaderboards,
}

impl Job {
    /// All of them.
    pub const ALL: [Job; 4] = [Job::Recalculation, Job::Expiry, Job::Birthdays, Job::Leaderboards];

    /// As on the wire, in labels and in keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Job::Recalculation => "recalculation",
            Job::Expiry => "expiry",
            Job::Birthdays => "birthdays",
            Job::Leaderboards => "leaderboards",
        }
    }

    /// The job of that name.
    pub fn parse(name: &str) -> Option<Job> {
        Job::ALL.into_iter().find(|job| job.as_str() == name)
    }

    /// The last run that is due at `now`: its period, and when it was to be.
    pub fn last_run(self, settings: &Settings, now: UnixMillis) -> Run {
        let today = self.day(settings, now);
        let run = self.run(settings, today);
        if run.at <= now { run } else { self.run(settings, today.yesterday().unwrap_or(today)) }
    }

    /// The first run after `now`.
    pub fn next_run(self, settings: &Settings, now: UnixMillis) -> Run {
        let today = self.day(settings, now);
        let run = self.run(settings, today);
        if run.at > now { run } else { self.run(settings, today.tomorrow().unwrap_or(today)) }
    }

    fn day(self, settings: &Settings, now: UnixMillis) -> civil::Date {
        match self {
            Job::Recalculation | Job::Expiry => settings.day(now),
            Job::Birthdays | Job::Leaderboards => Settings::default().day(now),
        }
    }

    fn run(self, settings: &Settings, day: civil::Date) -> Run {
        let utc = Settings::default();
        let at = match self {
            Job::Recalculation => settings.instant(day, 5),
            Job::Expiry => settings.instant(day, 0),
            Job::Birthdays => utc.instant(day, 9),
            Job::Leaderboards => utc.instant(day, 0),
        };
        Run { period: i64::from(Period::Day.number(utc.instant(day, 0))), at }
    }
}

/// One run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The number of its day.
    pub period: i64,
    /// When it was to be.
    pub at: UnixMillis,
}

/// Whether a run has anything to do for a member; `last` is the run completed before. A quick look, by
/// which most members are passed over: the decision looks again. Leaderboards look at all members at once.
pub fn concerns(job: Job, config: &TenantConfig, member: &Member, run: Run, last: Option<Run>) -> bool {
    if member.is_gone() {
        return false;
    }
    match job {
        Job::Recalculation => crate::decide::changes_by_itself(config, member, run.at),
        Job::Expiry => {
            let soonest = member.accounts().filter_map(|(_, account)| account.lots.first()?.expires_at).min();
            soonest.is_some_and(|at| at <= run.at.plus_ms(config.expiring_soon_ms()))
        }
        Job::Birthdays => birthday(member, run, last).is_some(),
        Job::Leaderboards => false,
    }
}

/// The birthday of a member since the last run, up to this one: the day, and the age then. 29 February is kept
/// on 28 February in other years.
pub fn birthday(member: &Member, run: Run, last: Option<Run>) -> Option<(civil::Date, i16)> {
    let born: civil::Date = member.profile.birth_date.parse().ok()?;
    let utc = Settings::default();
    let today = utc.day(run.at);
    let back = last.map_or(1, |last| run.period - last.period).clamp(1, BIRTHDAY_DAYS_MAX);
    let mut day = today;
    for _ in 0..back {
        let leapling = born.month() == 2 && born.day() == 29 && !day.in_leap_year();
        let kept = if leapling { 28 } else { born.day() };
        if day.month() == born.month() && day.day() == kept && day.year() > born.year() {
            return Some((day, day.year() - born.year()));
        }
        day = day.yesterday().ok()?;
    }
    None
}
