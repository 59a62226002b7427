//! Random steps, small enough to be read in a failure's list. Numbers name members, rewards, ids in turn; what
//! they stand for is looked up when the step is taken.

use proptest::prelude::*;
use punchline_engine::command::Action;
use punchline_engine::id::{CampaignId, MemberId};
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
use punchline_engine::loyalty::fact::RawFact;
use punchline_engine::loyalty::job::Job;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::Profile;
use punchline_engine::time::UnixMillis;

use super::model::{Auditor, number};
use super::programme::{self, HOUR_MS, slug};
use crate::support::{NOW, email, member_id};

/// Members there may be, from 1.
pub const PEOPLE: u8 = 5;
const SKUS: [&str; 9] = ["coffee", "coffee", "tea_green", "tea", "review", "gift", "partner", "bread", "unknown"];
const BOOKS: [&str; 3] = ["small", "vouchers", "codes"];

#[derive(Debug, Clone)]
pub enum Step {
    Register { who: u8, cards: u8 },
    Join { who: u8, beta: bool },
    Consume { id: u8, who: u8, other: Option<u8>, hours_ago: u8, lines: Vec<(u8, u8)> },
    Adjust { who: u8, of: u8, amount: i16 },
    Place { id: u8, who: u8, of: u8, amount: u8, hours: u8 },
    Post { id: u8, stranger: Option<u8>, amount: Option<u8> },
    Void { id: u8, stranger: Option<u8> },
    TimeOut { id: u8 },
    Transfer { who: u8, to: u8, of: u8, amount: u8 },
    Reverse { nth: u8, stranger: Option<u8> },
    Start { id: u8, who: u8, reward: u8 },
    Complete { id: u8, code: bool },
    Fail { id: u8 },
    Refund { id: u8 },
    TimeOutRedemption { id: u8 },
    Assign { id: u8, who: u8, book: u8, code: Option<u8> },
    Use { id: u8, book: u8, code: u8 },
    RollBack { id: u8, book: u8, code: u8 },
    Merge { who: u8, from: u8 },
    Block { who: u8, block: bool },
    Attribute { id: u8, friend: u8, advocate: u8, beta: bool },
    Run { job: u8 },
    Award { again: bool },
    Wait { minutes: u16 },
}

pub fn step() -> impl Strategy<Value = Step> {
    let who = || 1..=PEOPLE;
    // One more than there are, now and then.
    let anyone = || prop_oneof![20 => 1..=PEOPLE, 1 => Just(PEOPLE + 1)];
    let rarely = |of| prop_oneof![9 => Just(None), 1 => of];
    let lines = prop::collection::vec((0..SKUS.len() as u8, 1..7u8), 1..4);
    let other = rarely(who().prop_map(Some).boxed());
    let stranger = || rarely(who().prop_map(Some).boxed());
    let code = || 0..5u8;
    prop_oneof![
        6 => (who(), 0..8u8).prop_map(|(who, cards)| Step::Register { who, cards }),
        2 => (anyone(), any::<bool>()).prop_map(|(who, beta)| Step::Join { who, beta }),
        24 => (any::<u8>(), anyone(), other, 0..60u8, lines).prop_map(|(id, who, other, hours_ago, lines)| {
            Step::Consume { id, who, other, hours_ago, lines }
        }),
        8 => (anyone(), 0..3u8, -150..150i16).prop_map(|(who, of, amount)| Step::Adjust { who, of, amount }),
        5 => (0..12u8, anyone(), 0..3u8, 0..40u8, 1..50u8)
            .prop_map(|(id, who, of, amount, hours)| Step::Place { id, who, of, amount, hours }),
        3 => (0..12u8, stranger(), prop::option::of(0..30u8))
            .prop_map(|(id, stranger, amount)| Step::Post { id, stranger, amount }),
        2 => (0..12u8, stranger()).prop_map(|(id, stranger)| Step::Void { id, stranger }),
        2 => (0..12u8).prop_map(|id| Step::TimeOut { id }),
        4 => (anyone(), anyone(), 0..3u8, 0..60u8)
            .prop_map(|(who, to, of, amount)| Step::Transfer { who, to, of, amount }),
        5 => (any::<u8>(), stranger()).prop_map(|(nth, stranger)| Step::Reverse { nth, stranger }),
        6 => (0..14u8, anyone(), 0..5u8).prop_map(|(id, who, reward)| Step::Start { id, who, reward }),
        4 => (0..14u8, prop::bool::weighted(0.8)).prop_map(|(id, code)| Step::Complete { id, code }),
        2 => (0..14u8).prop_map(|id| Step::Fail { id }),
        2 => (0..14u8).prop_map(|id| Step::Refund { id }),
        2 => (0..14u8).prop_map(|id| Step::TimeOutRedemption { id }),
        4 => (0..12u8, anyone(), 0..3u8, prop::option::of(code()))
            .prop_map(|(id, who, book, code)| Step::Assign { id, who, book, code }),
        4 => (0..12u8, 0..3u8, code()).prop_map(|(id, book, code)| Step::Use { id, book, code }),
        2 => (0..12u8, 0..3u8, code()).prop_map(|(id, book, code)| Step::RollBack { id, book, code }),
        1 => (who(), who()).prop_map(|(who, from)| Step::Merge { who, from }),
        2 => (anyone(), prop::bool::weighted(0.3)).prop_map(|(who, block)| Step::Block { who, block }),
        3 => (0..12u8, who(), anyone(), prop::bool::weighted(0.1))
            .prop_map(|(id, friend, advocate, beta)| Step::Attribute { id, friend, advocate, beta }),
        6 => (0..4u8).prop_map(|job| Step::Run { job }),
        3 => any::<bool>().prop_map(|again| Step::Award { again }),
        9 => prop_oneof![0..180u16, 0..2880u16, 0..14400u16].prop_map(|minutes| Step::Wait { minutes }),
    ]
}

fn who(n: u8) -> MemberId {
    member_id(u128::from(n))
}

fn currency(of: u8) -> Currency {
    [Currency::Points(slug("alpha")), Currency::Points(slug("beta")), Currency::Coins][usize::from(of) % 3].clone()
}

fn campaign(beta: bool) -> CampaignId {
    slug(if beta { "beta" } else { "alpha" })
}

impl Step {
    /// The commands that it stands for, in a world as the auditor knows it.
    pub fn actions(&self, auditor: &Auditor) -> Vec<Action> {
        let reason = || "because".to_owned();
        let hold = |id: &u8| format!("h{id}");
        let redemption = |id: &u8| format!("r{id}");
        let holder = |id: &str, stranger: &Option<u8>| {
            let owner =
                auditor.books.iter().find(|(_, book)| book.holds.contains_key(id)).map(|((owner, _), _)| *owner);
            stranger.map(who).or(owner).unwrap_or(who(1))
        };
        let book_code = |book: &u8, code: &u8| {
            let book = BOOKS[usize::from(*book) % 3];
            (slug(book), programme::code(book, usize::from(*code)))
        };
        let action = match self {
            Step::Register { who: n, cards } => {
                if auditor.people.contains_key(&who(*n)) {
                    return Vec::new();
                }
                let birth_date =
                    ["", "1990-09-22", "1985-09-25", "2000-02-29", "1999-10-02", "1970-10-01"][usize::from(*n)].into();
                let cards = [("alpha", 3), ("beta", 5)].into_iter().filter(|(_, mask)| cards & mask != 0);
                Action::RegisterMember {
                    member_id: who(*n),
                    identifiers: vec![email(u128::from(*n))],
                    profile: Profile { birth_date, ..Profile::default() },
                    registration_source: String::new(),
                    join: cards.map(|(id, _)| slug(id)).collect(),
                    quiet: false,
                }
            }
            Step::Join { who: n, beta } => Action::JoinCampaign { member_id: who(*n), campaign_id: campaign(*beta) },
            Step::Consume { id, who, other, hours_ago, lines } => {
                let known_by = [Some(who), other.as_ref().filter(|_| id % 4 != 0)];
                // A quarter of the ids stand for their content, so that a repeat is one.
                let again = id % 4 == 0;
                let (date, id, lines) = if again {
                    let content = id / 4 % 4;
                    (NOW, format!("again-{who}-{content}"), vec![(content, 1 + content)])
                } else {
                    let ago = i64::from(*hours_ago) * HOUR_MS;
                    (UnixMillis(auditor.now - ago), format!("c{id}"), lines.clone())
                };
                let line = |(sku, quantity): &(u8, u8)| RawLine {
                    sku: SKUS[usize::from(*sku)].into(),
                    product_name: String::new(),
                    quantity: f64::from(*quantity),
                };
                let raw = RawConsumption {
                    consumption_id: id,
                    consumed_at: date.to_string(),
                    identifiers: known_by
                        .into_iter()
                        .flatten()
                        .map(|n| ("email".into(), format!("m{n}@example.com")))
                        .collect(),
                    lines: lines.iter().map(line).collect(),
                };
                Action::RecordConsumption(raw.check(UnixMillis(auditor.now)).expect("well-formed"))
            }
            Step::Adjust { who: n, of, amount } => Action::AdjustBalance {
                member_id: who(*n),
                currency: currency(*of),
                amount: i64::from(*amount),
                reason: reason(),
            },
            Step::Place { id, who: n, of, amount, hours } => Action::PlaceHold {
                member_id: who(*n),
                hold_id: hold(id),
                currency: currency(if id % 2 == 0 { *id } else { *of }),
                amount: if id % 2 == 0 { 5 } else { i64::from(*amount) },
                // Some ask for the same again later.
                until: match id % 2 {
                    0 => UnixMillis(NOW.0 + 300 * 24 * HOUR_MS),
                    _ => UnixMillis(auditor.now + i64::from(*hours) * HOUR_MS),
                },
                reason: reason(),
            },
            Step::Post { id, stranger, amount } => Action::PostHold {
                member_id: holder(&hold(id), stranger),
                hold_id: hold(id),
                amount: amount.map(i64::from),
                reason: reason(),
            },
            Step::Void { id, stranger } => {
                Action::VoidHold { member_id: holder(&hold(id), stranger), hold_id: hold(id), reason: reason() }
            }
            Step::TimeOut { id } => Action::TimeOutHold { member_id: holder(&hold(id), &None), hold_id: hold(id) },
            Step::TimeOutRedemption { id } => {
                let id = format!("redemption/{}", redemption(id));
                Action::TimeOutHold { member_id: holder(&id, &None), hold_id: id }
            }
            Step::Transfer { who: n, to, of, amount } => Action::Transfer {
                member_id: who(*n),
                to_member_id: who(*to),
                currency: currency(*of),
                amount: i64::from(*amount),
                reason: reason(),
            },
            Step::Reverse { nth, stranger } => {
                let entries = &auditor.entries;
                if entries.is_empty() {
                    return Vec::new();
                }
                // The newest are the most likely to be there still.
                let entry = &entries[entries.len() - 1 - usize::from(*nth) % entries.len().min(20)];
                let member_id = stranger.map_or(entry.who, who);
                Action::ReverseEntry { member_id, entry: entry.sequence, reason: reason() }
            }
            Step::Start { id, who: n, reward } => Action::StartRedemption {
                member_id: who(*n),
                redemption_id: redemption(id),
                reward_id: programme::rewards()
                    .get(usize::from(*reward))
                    .map_or(slug("nothing"), |reward| reward.reward_id.clone()),
            },
            Step::Complete { id, code } => {
                let of =
                    auditor.redemptions.get(&redemption(id)).map(|redemption| &auditor.rewards[&redemption.reward]);
                let from_book = of.is_some_and(|reward| reward.coupon_book_id.is_some());
                let voucher_code = (*code && !from_book).then(|| "V-1".to_owned());
                Action::CompleteRedemption { redemption_id: redemption(id), voucher_code }
            }
            Step::Fail { id } => Action::FailRedemption { redemption_id: redemption(id), reason: reason() },
            Step::Refund { id } => Action::RefundRedemption { redemption_id: redemption(id), reason: reason() },
            Step::Assign { id, who: n, book, code } => {
                let (coupon_book_id, code) = (book_code(book, &0).0, code.map(|code| book_code(book, &code).1));
                Action::AssignCoupon { member_id: who(*n), coupon_book_id, code, usage_id: format!("a{id}") }
            }
            Step::Use { id, book, code } => {
                let (coupon_book_id, code) = book_code(book, code);
                let usage_id = format!("u{id}");
                Action::UseCoupon { coupon_book_id, code, usage_id, order_id: String::new(), discount_amount: 0 }
            }
            Step::RollBack { id, book, code } => {
                let (coupon_book_id, code) = book_code(book, code);
                let reverted_usage_id = format!("u{id}");
                Action::RollBackCoupon { coupon_book_id, code, reverted_usage_id, reason: reason() }
            }
            Step::Merge { who: n, from } => Action::MergeMembers { member_id: who(*n), from_member_id: who(*from) },
            Step::Block { who: n, block: true } => Action::BlockMember { member_id: who(*n), reason: reason() },
            Step::Block { who: n, block: false } => Action::UnblockMember { member_id: who(*n) },
            Step::Attribute { id, friend, advocate, beta } => {
                let properties = serde_json::json!({
                    "advocate_id": who(*advocate).to_string(), "campaign_id": campaign(*beta).as_str(), "code": "c",
                });
                let raw = RawFact {
                    source: "shop".into(),
                    fact_id: format!("f{id}"),
                    fact_type: "referral.attributed".into(),
                    identifiers: vec![("email".into(), format!("m{friend}@example.com"))],
                    occurred_at: NOW.to_string(),
                    properties: properties.to_string(),
                };
                Action::PublishFact(raw.check(UnixMillis(auditor.now), |_| false).expect("well-formed"))
            }
            Step::Run { job } => {
                let job = Job::ALL[usize::from(*job) % 3];
                let run = auditor.due(job);
                let last = auditor.completed.get(&job).copied();
                let members = auditor.people.iter().filter(|(_, person)| person.created <= run.at.0);
                return members.map(|(who, _)| Action::RunJob { job, member_id: *who, run, last }).collect();
            }
            Step::Award { again } => return auditor.awards(*again),
            Step::Wait { .. } => return Vec::new(),
        };
        vec![action]
    }
}

impl Auditor {
    /// The prizes of the rounds before the current ones; those that were given only if `again`.
    fn awards(&self, again: bool) -> Vec<Action> {
        let mut awards = Vec::new();
        for (id, campaign) in &self.campaigns {
            for board in &campaign.programme.leaderboards {
                let round = number(board.period, self.now) - 1;
                let mut ranking: Vec<_> = (self.scores.iter())
                    .filter(|((_, c, b, r), score)| (c, b, r) == (id, &board.id, &round) && **score > 0)
                    .map(|((who, ..), score)| (-score, self.people[who].created, *who))
                    .collect();
                ranking.sort();
                let winners = board.prizes.iter().map(|p| p.to_rank).max().expect("there are prizes");
                for (rank, (score, _, who)) in (1u32..=winners).zip(ranking) {
                    let given = self.awarded.contains(&(who, id.clone(), board.id.clone(), round));
                    if self.people[&who].merged.is_none() && (again || !given) {
                        awards.push(Action::AwardLeaderboard {
                            member_id: who,
                            campaign_id: id.clone(),
                            leaderboard_id: board.id.clone(),
                            round: round as i32,
                            rank,
                            score: -score,
                        });
                    }
                }
            }
        }
        awards
    }
}
