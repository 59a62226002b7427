//! The auditor: what should come of each command, worked out in plain maps from the documents alone.
//!
//! It is told every command, says whether it is to be accepted, and keeps its own books. Of answers it uses only
//! what it cannot know: positions in the journal, and the codes and ends of coupons given by rules.

use std::collections::{BTreeMap, BTreeSet};

use punchline_engine::command::Action;
use punchline_engine::event::{Event, Origin};
use punchline_engine::id::{CampaignId, LeaderboardId, MemberId, PunchcardId, RewardId, RuleId, Sequence, TierId};
use punchline_engine::loyalty::campaign::{Campaign, Overflow};
use punchline_engine::loyalty::consumption::Consumption;
use punchline_engine::loyalty::job::{Job, Run};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::Identifier;
use punchline_engine::loyalty::programme::{Bonus, TierBasis};
use punchline_engine::loyalty::reward::Reward;
use punchline_engine::time::Period;

use super::book::{Book, Lots, NEVER};
use super::programme::{self, DAY_MS, ZONE};

/// What is to come of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Accepted, with events.
    Yes,
    /// Accepted; whether there is anything to tell is not the auditor's.
    Fine,
    /// Done before: accepted, and nothing happens.
    Again,
    /// Refused for one of these reasons.
    No(Vec<&'static str>),
}

#[derive(Debug, Clone)]
pub struct Person {
    /// In order of joining.
    pub cards: Vec<CampaignId>,
    pub blocked: bool,
    /// Into whom.
    pub merged: Option<MemberId>,
    /// Month and day.
    pub born: Option<(i64, i64)>,
    pub created: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Redemption {
    pub who: MemberId,
    pub reward: RewardId,
    pub state: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Coupon {
    pub place: usize,
    pub owner: Option<MemberId>,
    pub expires: Option<i64>,
    pub uses: Vec<String>,
}

/// A ledger entry, as it was told.
#[derive(Debug, Clone)]
pub struct Entry {
    pub sequence: Sequence,
    pub who: MemberId,
    pub currency: Currency,
    pub amount: i64,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub struct Auditor {
    pub now: i64,
    pub campaigns: BTreeMap<CampaignId, Campaign>,
    pub rewards: BTreeMap<RewardId, Reward>,
    pub people: BTreeMap<MemberId, Person>,
    pub emails: BTreeMap<Identifier, MemberId>,
    pub books: BTreeMap<(MemberId, Currency), Book>,
    /// Stamps in the row, and rows.
    pub rows: BTreeMap<(MemberId, CampaignId, PunchcardId), (u64, u64)>,
    pub tiers: BTreeMap<(MemberId, CampaignId), Option<TierId>>,
    pub rich: BTreeSet<MemberId>,
    /// By the number of the month.
    pub earned: BTreeMap<(MemberId, CampaignId, i64), i64>,
    /// By the number of the round.
    pub scores: BTreeMap<(MemberId, CampaignId, LeaderboardId, i64), i64>,
    pub caps: BTreeMap<(MemberId, CampaignId, RuleId, Period, i64), u64>,
    /// Who had a first consumption, where.
    pub began: BTreeSet<(MemberId, CampaignId)>,
    pub consumptions: BTreeMap<String, Consumption>,
    /// What may happen once, by kind and id.
    pub once: BTreeMap<(&'static str, String), Action>,
    pub redemptions: BTreeMap<String, Redemption>,
    pub had: BTreeMap<(MemberId, RewardId), u32>,
    pub coupons: BTreeMap<(String, String), Coupon>,
    /// By friend and campaign: the advocate, and whether it was rewarded.
    pub referrals: BTreeMap<(MemberId, CampaignId), (MemberId, bool)>,
    /// What subscribers owe.
    pub owed: BTreeMap<(MemberId, CampaignId, RewardId), i64>,
    pub done: BTreeSet<(Job, MemberId, i64)>,
    /// The run of each job that was taken to its end.
    pub completed: BTreeMap<Job, Run>,
    pub awarded: BTreeSet<(MemberId, CampaignId, LeaderboardId, i64)>,
    pub entries: Vec<Entry>,
    /// Whose balances the command at hand changed.
    pub touched: BTreeSet<MemberId>,
    /// The time that tiers were looked at: a job's own, where it was one.
    pub tiers_at: i64,
}

/// Days since 1970 → year, month, day; month and year as one number.
pub fn month(ms: i64) -> i64 {
    let (year, month, _) = civil(ms.div_euclid(DAY_MS));
    year * 12 + month - 1
}

/// Howard Hinnant's `civil_from_days`.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

pub fn number(period: Period, ms: i64) -> i64 {
    match period {
        Period::Day => ms.div_euclid(DAY_MS),
        Period::Week => (ms.div_euclid(DAY_MS) + 3).div_euclid(7),
        Period::Month => month(ms),
        Period::Campaign => 0,
    }
}

/// When what comes in now ends.
fn expiry(days: u32, now: i64) -> i64 {
    if days == 0 {
        return NEVER;
    }
    ((now + ZONE.1).div_euclid(DAY_MS) + i64::from(days) + 1) * DAY_MS - ZONE.1
}

/// What moves balances: whether it counts as earned.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Earned,
    Other,
}

impl Auditor {
    pub fn new(now: i64) -> Auditor {
        let mut coupons = BTreeMap::new();
        for (book, codes) in programme::books() {
            for place in 0..codes {
                let id = book.coupon_book_id.to_string();
                let coupon = Coupon { place, owner: None, expires: None, uses: Vec::new() };
                coupons.insert((id.clone(), programme::code(&id, place)), coupon);
            }
        }
        Auditor {
            now,
            campaigns: [programme::alpha(), programme::beta()].map(|c| (c.id.clone(), c)).into(),
            rewards: programme::rewards().map(|r| (r.reward_id.clone(), r)).into(),
            people: BTreeMap::new(),
            emails: BTreeMap::new(),
            books: BTreeMap::new(),
            rows: BTreeMap::new(),
            tiers: BTreeMap::new(),
            rich: BTreeSet::new(),
            earned: BTreeMap::new(),
            scores: BTreeMap::new(),
            caps: BTreeMap::new(),
            began: BTreeSet::new(),
            consumptions: BTreeMap::new(),
            once: BTreeMap::new(),
            redemptions: BTreeMap::new(),
            had: BTreeMap::new(),
            coupons,
            referrals: BTreeMap::new(),
            owed: BTreeMap::new(),
            done: BTreeSet::new(),
            completed: BTreeMap::new(),
            awarded: BTreeSet::new(),
            entries: Vec::new(),
            touched: BTreeSet::new(),
            tiers_at: now,
        }
    }

    pub fn book(&mut self, who: MemberId, currency: &Currency) -> &mut Book {
        self.touched.insert(who);
        self.books.entry((who, currency.clone())).or_default()
    }

    /// For what changes no balance: nobody looks at tiers then.
    pub fn quietly(&mut self, who: MemberId, currency: &Currency) -> &mut Book {
        self.books.entry((who, currency.clone())).or_default()
    }

    /// Looks without touching.
    pub fn read(&self, who: MemberId, currency: &Currency) -> Book {
        self.books.get(&(who, currency.clone())).cloned().unwrap_or_default()
    }

    pub fn has_card(&self, who: MemberId, currency: &Currency) -> bool {
        match currency {
            Currency::Points(campaign) => self.people[&who].cards.contains(campaign),
            Currency::Coins => true,
        }
    }

    fn end(&self, currency: &Currency) -> i64 {
        let days = match currency {
            Currency::Points(campaign) => self.campaigns[campaign].programme.points.expire_after_days,
            Currency::Coins => programme::settings().coins.expire_after_days,
        };
        expiry(days, self.now)
    }

    pub fn overdraft(&self, currency: &Currency) -> i64 {
        match currency {
            Currency::Points(campaign) => self.campaigns[campaign].programme.points.overdraft,
            Currency::Coins => programme::settings().coins.overdraft,
        }
    }

    /// Something new comes in.
    pub fn credit(&mut self, who: MemberId, currency: &Currency, amount: i64, kind: Kind) {
        if amount == 0 {
            return;
        }
        let lots = Lots::from([(self.end(currency), amount)]);
        self.book(who, currency).credit(lots);
        if kind == Kind::Earned {
            self.earn(who, currency, amount);
        }
    }

    /// Counts for tiers and leaderboards.
    pub fn earn(&mut self, who: MemberId, currency: &Currency, amount: i64) {
        let Currency::Points(campaign) = currency else { return };
        *self.earned.entry((who, campaign.clone(), month(self.now))).or_default() += amount;
        for board in self.campaigns[campaign].programme.leaderboards.clone() {
            let round = number(board.period, self.now);
            *self.scores.entry((who, campaign.clone(), board.id, round)).or_default() += amount;
        }
    }

    pub fn give(&mut self, who: MemberId, campaign: &CampaignId, bonus: Bonus) {
        self.credit(who, &Currency::Points(campaign.clone()), bonus.points.0, Kind::Earned);
        self.credit(who, &Currency::Coins, bonus.coins.0, Kind::Earned);
    }

    pub fn owe(&mut self, who: MemberId, campaign: &CampaignId, reward: &RewardId, amount: i64) {
        *self.owed.entry((who, campaign.clone(), reward.clone())).or_default() += amount;
    }

    /// One after the other.
    pub fn stamp(&mut self, who: MemberId, campaign: &CampaignId, card: &PunchcardId, stamps: u64) {
        let campaigns = &self.campaigns[campaign];
        let card = campaigns.punchcards.iter().find(|p| p.id == *card).expect("it is one of the campaign's");
        let (in_row, rows) = self.rows.entry((who, campaign.clone(), card.id.clone())).or_default();
        let mut lost = false;
        for _ in 0..stamps {
            if lost || (*rows > 0 && !card.repeatable) {
                return;
            }
            *in_row += 1;
            if *in_row == u64::from(card.row_length) {
                (*in_row, *rows) = (0, *rows + 1);
                lost = card.overflow == Overflow::Discard;
            }
        }
    }

    /// The tier that a card should have by now.
    pub fn tier(&self, who: MemberId, campaign: &CampaignId) -> Option<TierId> {
        let programme = &self.campaigns[campaign].programme;
        let value = match programme.tier_basis {
            TierBasis::Balance => self.read(who, &Currency::Points(campaign.clone())).balance(),
            TierBasis::Earned { months } => {
                let from = month(self.tiers_at) - i64::from(months);
                let of_card = self.earned.iter().filter(|((w, c, m), _)| (w, c) == (&who, campaign) && *m > from);
                of_card.map(|(_, amount)| amount).sum()
            }
        };
        let reached = programme.tiers.iter().filter(|tier| tier.threshold <= value);
        reached.max_by_key(|tier| tier.threshold).map(|tier| tier.id.clone())
    }

    /// The free code that comes next.
    pub fn next_code(&self, book: &str) -> Option<String> {
        let is_free = |coupon: &Coupon| coupon.owner.is_none() && coupon.uses.is_empty();
        let free = self.coupons.iter().filter(|((b, _), coupon)| b == book && is_free(coupon));
        free.min_by_key(|(_, coupon)| coupon.place).map(|((_, code), _)| code.clone())
    }

    pub fn assign(&mut self, who: MemberId, book: &str, code: &str) {
        let coupon = self.coupons.get_mut(&(book.to_owned(), code.to_owned())).expect("it was looked up");
        coupon.owner = Some(who);
    }

    /// What only the engine knows.
    pub fn answered(&mut self, action: &Action, first: Sequence, events: &[Event]) {
        for (i, event) in events.iter().enumerate() {
            let (who, currency, amount, origin) = match event {
                Event::PointsCredited(e) => {
                    (e.member_id, Currency::Points(e.campaign_id.clone()), e.amount.0, &e.origin)
                }
                Event::PointsDebited(e) => {
                    (e.member_id, Currency::Points(e.campaign_id.clone()), -e.amount.0, &e.origin)
                }
                Event::CoinsChanged(e) => (e.member_id, Currency::Coins, e.amount.0, &e.origin),
                Event::CouponAssigned(e) => {
                    let key = (e.coupon_book.coupon_book_id.to_string(), e.code.clone());
                    let coupon = self.coupons.get_mut(&key).expect("a code of the book");
                    coupon.expires = e.expires_at.map(|at| at.0);
                    continue;
                }
                _ => continue,
            };
            let sequence = Sequence(first.0 + i as u64);
            self.entries.push(Entry { sequence, who, currency, amount, origin: origin.clone() });
        }
        if let (Action::RunJob { job, member_id, run, .. }, false) = (action, events.is_empty()) {
            self.done.insert((*job, *member_id, run.period));
        }
    }
}
