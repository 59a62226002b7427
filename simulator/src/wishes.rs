//! What clients want: every command there is, about a small world, so that they get into each other's way.
//!
//! What is refused is as good a wish as what is accepted: the rules are not this module's.

use punchline_engine::command::{Action, Command};
use punchline_engine::event::{Event, GiftCardSent};
use punchline_engine::id::{CredentialId, MemberId, Sequence};
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
use punchline_engine::loyalty::coupon::BookKind;
use punchline_engine::loyalty::fact::RawFact;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::loyalty::reward::Cost;
use punchline_engine::loyalty::tenant::{Credential, Scope};
use punchline_engine::time::UnixMillis;
use punchline_runtime::feed::Stored;
use uuid::Uuid;

use crate::programme::{self, slug};
use crate::random::Random;
use crate::world::TENANTS;

/// Members that a tenant may come to have.
const MEMBERS: u64 = 24;

/// What wishes are made from, and what was learned from answers.
#[derive(Debug)]
pub struct Wishes {
    random: Random,
    /// Numbers things.
    next: u64,
    set_up: Vec<Wish>,
    /// Entries of members, and obligations to them, by tenant.
    entries: [Vec<(MemberId, Sequence)>; 2],
    obligations: [Vec<String>; 2],
}

/// A command that somebody wants carried out.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its number.
    pub id: u64,
    /// It.
    pub command: Command,
}

impl Wish {
    fn new(id: u64, tenant: usize, action: Action) -> Wish {
        use Action::{
            AddCoupons, AdjustBalance, CreateAdvertiser, CreateCampaign, CreateCouponBook, CreateReward, CreateSegment,
            CreateSubscription, IdentifyMember, PostHold, RegisterMember, Transfer, VoidHold,
        };
        // What would be done a second time if it were sent a second time.
        let is_once = matches!(
            action,
            AddCoupons { .. }
                | AdjustBalance { .. }
                | CreateAdvertiser { .. }
                | CreateCampaign { .. }
                | CreateCouponBook { .. }
                | CreateReward { .. }
                | CreateSegment { .. }
                | CreateSubscription { .. }
                | IdentifyMember { .. }
                | PostHold { .. }
                | RegisterMember { .. }
                | Transfer { .. }
                | VoidHold { .. }
        );
        let request_id = is_once.then(|| format!("q{id}"));
        Wish { id, command: Command { tenant: TENANTS[tenant], request_id, action } }
    }
}

/// A kind of wish.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Consume,
    Fact,
    Register,
    Update,
    Identify,
    Block,
    Unblock,
    Erase,
    Join,
    Adjust,
    PlaceHold,
    PostHold,
    VoidHold,
    Transfer,
    Reverse,
    Merge,
    Redeem,
    Complete,
    Fail,
    Refund,
    Confirm,
    AddCoupons,
    Assign,
    Use,
    RollBack,
    GiftCard,
    Configure,
}

const KINDS: [(u64, Kind); 27] = [
    (80, Kind::Consume),
    (8, Kind::Fact),
    (16, Kind::Register),
    (4, Kind::Update),
    (4, Kind::Identify),
    (2, Kind::Block),
    (3, Kind::Unblock),
    (2, Kind::Erase),
    (10, Kind::Join),
    (4, Kind::Adjust),
    (6, Kind::PlaceHold),
    (4, Kind::PostHold),
    (2, Kind::VoidHold),
    (5, Kind::Transfer),
    (3, Kind::Reverse),
    (2, Kind::Merge),
    (6, Kind::Redeem),
    (4, Kind::Complete),
    (1, Kind::Fail),
    (2, Kind::Refund),
    (2, Kind::Confirm),
    (1, Kind::AddCoupons),
    (4, Kind::Assign),
    (4, Kind::Use),
    (2, Kind::RollBack),
    (2, Kind::GiftCard),
    (5, Kind::Configure),
];

impl Wishes {
    /// Those of a seed.
    pub fn new(random: Random) -> Wishes {
        let advertiser = Action::CreateAdvertiser { advertiser_id: Some(TENANTS[0].advertiser), name: "Acme".into() };
        let mut actions = vec![(0, advertiser)];
        for tenant in 0..TENANTS.len() {
            actions.extend(programme::set_up(tenant).into_iter().map(|action| (tenant, action)));
        }
        let mut wishes = Wishes {
            random,
            next: 0,
            set_up: Vec::new(),
            entries: Default::default(),
            obligations: Default::default(),
        };
        for (tenant, action) in actions {
            wishes.next += 1;
            wishes.set_up.push(Wish::new(wishes.next, tenant, action));
        }
        wishes.set_up.reverse();
        wishes
    }

    /// What comes before everything else, in order: for one client alone.
    pub fn set_up(&mut self) -> Option<Wish> {
        self.set_up.pop()
    }

    /// Learns of what can be referred to.
    pub fn learn(&mut self, stored: &Stored) {
        let tenant = TENANTS.iter().position(|tenant| *tenant == stored.record.tenant).unwrap_or(0);
        for recorded in stored.record.all_recorded(stored.first) {
            match recorded.event {
                Event::PointsCredited(e) => self.entries[tenant].push((e.member_id, recorded.sequence)),
                Event::CoinsChanged(e) => self.entries[tenant].push((e.member_id, recorded.sequence)),
                Event::ObligationCreated(e) => self.obligations[tenant].push(e.obligation_id.clone()),
                _ => {}
            }
        }
    }

    /// Something that somebody wants now.
    pub fn next(&mut self, now: UnixMillis) -> Wish {
        self.next += 1;
        let tenant = usize::from(self.random.chance(300));
        let action = self.action(tenant, now);
        Wish::new(self.next, tenant, action)
    }

    fn member(&mut self, tenant: usize) -> (u64, MemberId) {
        let n = self.random.below(MEMBERS);
        (n, member_id(tenant, n))
    }

    fn currency(&mut self) -> Currency {
        match self.random.below(3) {
            0 => Currency::Coins,
            1 => Currency::Points(slug("alpha")),
            _ => Currency::Points(slug("beta")),
        }
    }

    /// One of the ids given to things of this kind so far: mostly one of the last.
    fn one_of(&mut self, kind: &str) -> String {
        let back = self.random.below(self.next.min(60) + 1);
        format!("{kind}{}", self.next - back)
    }

    fn action(&mut self, tenant: usize, now: UnixMillis) -> Action {
        let (n, member_id_) = self.member(tenant);
        let member_id = member_id_;
        let (id, reason) = (self.next, "because".to_owned());
        match self.random.weighted(&KINDS) {
            Kind::Consume => self.consume(n, now),
            Kind::Fact => self.fact(tenant, n, now),
            Kind::Register => Action::RegisterMember {
                member_id,
                identifiers: vec![email(n)],
                profile: profile(n),
                registration_source: "simulator".into(),
                join: if n.is_multiple_of(2) { vec![slug("alpha"), slug("beta")] } else { vec![slug("alpha")] },
                quiet: n.is_multiple_of(7),
            },
            Kind::Update => {
                let identifiers = self.random.chance(300).then(|| vec![email(n), email(MEMBERS + n)]);
                let profile = Some(Profile { first_name: format!("Name{id}"), ..profile(n) });
                Action::UpdateMember { member_id, identifiers, profile, etag: None }
            }
            Kind::Identify => Action::IdentifyMember {
                member_id,
                identifiers: vec![
                    email(n),
                    Identifier::parse("", "email", &format!("x{id}@example.com")).expect("one"),
                ],
                profile: Profile::default(),
                registration_source: "simulator".into(),
            },
            Kind::Block => Action::BlockMember { member_id, reason },
            Kind::Unblock => Action::UnblockMember { member_id },
            Kind::Erase => Action::EraseMember { member_id },
            Kind::Join => {
                let campaign_id = self.random.pick(&["alpha", "beta"]).parse().expect("a slug");
                Action::JoinCampaign { member_id, campaign_id }
            }
            Kind::Adjust => {
                let (currency, amount) = (self.currency(), self.random.between(1, 90) as i64 - 30);
                Action::AdjustBalance { member_id, currency, amount, reason }
            }
            Kind::PlaceHold => {
                let (currency, amount) = (self.currency(), self.random.between(1, 30) as i64);
                let until = now.plus_ms(self.random.between(1_000, 4_000_000) as i64);
                Action::PlaceHold { member_id, hold_id: format!("h{id}"), currency, amount, until, reason }
            }
            Kind::PostHold => {
                let amount = self.random.chance(300).then_some(2);
                Action::PostHold { member_id, hold_id: self.one_of("h"), amount, reason }
            }
            Kind::VoidHold => Action::VoidHold { member_id, hold_id: self.one_of("h"), reason },
            Kind::Transfer => {
                let (to_member_id, currency) = (self.member(tenant).1, self.currency());
                let amount = self.random.between(1, 30) as i64;
                Action::Transfer { member_id, to_member_id, currency, amount, reason }
            }
            Kind::Reverse if !self.entries[tenant].is_empty() => {
                let (member_id, entry) = *self.random.pick(&self.entries[tenant]);
                Action::ReverseEntry { member_id, entry, reason }
            }
            Kind::Merge => Action::MergeMembers { member_id, from_member_id: self.member(tenant).1 },
            Kind::Redeem => {
                let reward_id = self.random.pick(&programme::REWARDS).parse().expect("a slug");
                Action::StartRedemption { member_id, redemption_id: format!("r{id}"), reward_id }
            }
            Kind::Complete => {
                let voucher_code = self.random.chance(700).then(|| format!("v{id}"));
                Action::CompleteRedemption { redemption_id: self.one_of("r"), voucher_code }
            }
            Kind::Fail => Action::FailRedemption { redemption_id: self.one_of("r"), reason },
            Kind::Refund => Action::RefundRedemption { redemption_id: self.one_of("r"), reason },
            Kind::Confirm if !self.obligations[tenant].is_empty() => {
                let obligation_id = self.random.pick(&self.obligations[tenant]).clone();
                Action::ConfirmObligation { obligation_id, reference: format!("p{id}") }
            }
            Kind::AddCoupons => {
                let codes = (0..3).map(|n| format!("small-{id}-{n}")).collect();
                Action::AddCoupons { coupon_book_id: slug("small"), kind: BookKind::Listed, codes }
            }
            Kind::Assign => {
                let code = self.random.chance(300).then(|| format!("small-{}", n % 12));
                Action::AssignCoupon { member_id, coupon_book_id: slug("small"), code, usage_id: format!("a{id}") }
            }
            Kind::Use => Action::UseCoupon {
                coupon_book_id: slug("small"),
                code: format!("small-{}", id % 12),
                usage_id: format!("u{id}"),
                order_id: format!("o{id}"),
                discount_amount: 1,
            },
            Kind::RollBack => {
                let used = id - self.random.below(id.min(60) + 1);
                let (code, reverted_usage_id) = (format!("small-{}", used % 12), format!("u{used}"));
                Action::RollBackCoupon { coupon_book_id: slug("small"), code, reverted_usage_id, reason }
            }
            Kind::GiftCard => Action::SendGiftCard { gift_card: gift_card(member_id, id) },
            Kind::Configure | Kind::Reverse | Kind::Confirm => self.configure(now),
        }
    }

    fn consume(&mut self, n: u64, now: UnixMillis) -> Action {
        let skus = ["coffee", "coffee", "tea", "bread", "review", "gift", "partner", "nothing"];
        let lines = (0..self.random.between(1, 3)).map(|_| RawLine {
            sku: (*self.random.pick(&skus)).into(),
            product_name: String::new(),
            quantity: self.random.between(1, 4) as f64,
        });
        let lines = lines.collect();
        let raw = RawConsumption {
            consumption_id: format!("c{}", self.next),
            consumed_at: "2026-09-01T10:00:00Z".into(),
            identifiers: vec![("email".into(), address(n))],
            lines,
        };
        Action::RecordConsumption(raw.check(now).expect("a valid consumption"))
    }

    fn fact(&mut self, tenant: usize, n: u64, now: UnixMillis) -> Action {
        let advocate = self.member(tenant).1;
        let (fact_type, properties) = match self.random.below(3) {
            0 => {
                let properties = format!(r#"{{"advocate_id":"{advocate}","campaign_id":"beta"}}"#);
                ("referral.attributed", properties)
            }
            _ => ("fitting.booked", format!(r#"{{"size":{n}}}"#)),
        };
        let raw = RawFact {
            source: "shop".into(),
            fact_id: format!("f{}", self.next),
            fact_type: fact_type.into(),
            identifiers: vec![("email".into(), address(n))],
            occurred_at: String::new(),
            properties,
        };
        Action::PublishFact(raw.check(now, |_| true).expect("a valid fact"))
    }

    fn configure(&mut self, now: UnixMillis) -> Action {
        let id = self.next;
        let credential_id = |n: u64| -> CredentialId { slug(&format!("key-{n}")) };
        match self.random.below(10) {
            0 => Action::UpdateSettings { settings: programme::settings(1 + (id % 3) as u32), etag: None },
            1 => Action::CreateSegment { segment: programme::segment(&format!("s{id}"), id % 50) },
            2 => Action::UpdateSegment { segment: programme::segment("rich", 10 + id % 20), etag: None },
            3 => {
                let reward = programme::reward(&format!("w{id}"), "alpha", Cost::Points(id as i64));
                Action::CreateReward { reward }
            }
            4 => Action::UpdateReward { reward: programme::reward("hat", "beta", Cost::Points(10)), etag: None },
            5 => Action::CreateCouponBook {
                coupon_book: programme::book(&format!("b{id}"), 1),
                codes: vec![format!("b{id}-0")],
            },
            6 => Action::UpdateCampaign { campaign: programme::alpha(), etag: None },
            7 => {
                let fact_type = programme::fact_type("fitting.booked", &format!("Fitting {id}"));
                Action::RegisterFactType { fact_type, etag: None }
            }
            8 => Action::IssueCredential {
                credential: Credential {
                    id: credential_id(id),
                    secret_hash: [1; 32],
                    scopes: vec![Scope::Ingest],
                    description: String::new(),
                    created_at: now,
                    revoked_at: None,
                    write_key: false,
                },
            },
            _ => Action::RevokeCredential { credential_id: credential_id(id.saturating_sub(self.random.below(40))) },
        }
    }
}

/// The id of a member of a tenant.
fn member_id(tenant: usize, n: u64) -> MemberId {
    MemberId(Uuid::from_u128(((tenant as u128 + 1) << 64) + u128::from(n)))
}

fn address(n: u64) -> String {
    format!("m{n}@example.com")
}

fn email(n: u64) -> Identifier {
    Identifier::parse("identifiers[0]", "email", &address(n)).expect("an address")
}

fn profile(n: u64) -> Profile {
    let birth_date = if n.is_multiple_of(3) { format!("1990-09-{:02}", 20 + n % 8) } else { String::new() };
    Profile { first_name: format!("Name{n}"), birth_date, ..Profile::default() }
}

fn gift_card(member_id: MemberId, id: u64) -> GiftCardSent {
    GiftCardSent {
        member_id,
        gift_card_id: format!("g{id}"),
        code: format!("code{id}"),
        value: "10 EUR".into(),
        header: String::new(),
        body: String::new(),
        slug: "gift-10".into(),
        assigned_from: "admin".into(),
        install_url: String::new(),
        mail_sent: false,
    }
}
