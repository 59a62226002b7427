//! What the auditor makes of every command but consumptions.

use punchline_engine::command::Action;
use punchline_engine::event::Origin;
use punchline_engine::id::{CampaignId, MemberId};
use punchline_engine::loyalty::fact::Fact;
use punchline_engine::loyalty::job::{Job, Run};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::loyalty::reward::Cost;

use super::book::total;
use super::model::{Auditor, Entry, Kind, Person, Redemption, Verdict, civil};
use super::programme::{self, DAY_MS, HOUR_MS};

/// Yes, unless there is a reason.
fn verdict(reasons: Vec<&'static str>) -> Verdict {
    if reasons.is_empty() { Verdict::Yes } else { Verdict::No(reasons) }
}

/// Reasons, each with whether it holds.
fn reasons<const N: usize>(checks: [(bool, &'static str); N]) -> Vec<&'static str> {
    checks.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect()
}

impl Auditor {
    /// Predicts and, where it is a yes, books.
    pub fn hear(&mut self, action: &Action) -> Verdict {
        self.touched.clear();
        self.tiers_at = self.now;
        match action {
            Action::RecordConsumption(consumption) => self.consume(consumption),
            Action::PublishFact(fact) => self.fact(action, fact),
            Action::RegisterMember { member_id, identifiers, profile, join, .. } => {
                self.register(*member_id, identifiers, profile, join)
            }
            Action::JoinCampaign { member_id, campaign_id } => self.join(*member_id, campaign_id),
            Action::BlockMember { member_id, .. } => self.block(*member_id, true),
            Action::UnblockMember { member_id } => self.block(*member_id, false),
            Action::AdjustBalance { member_id, currency, amount, .. } => self.adjust(*member_id, currency, *amount),
            Action::PlaceHold { member_id, hold_id, currency, amount, until, .. } => {
                let (who, amount) = (*member_id, *amount);
                if let Some(verdict) = self.again("hold", hold_id, action) {
                    return verdict;
                }
                if let Some(no) = self.nobody(who, None) {
                    return no;
                }
                let short = self.read(who, currency).available() < amount;
                let no = reasons([
                    (!self.has_card(who, currency), "NOT_JOINED"),
                    (amount < 1 || until.0 <= self.now, "INVALID_FIELD"),
                    (short, "INSUFFICIENT_BALANCE"),
                ]);
                if no.is_empty() {
                    self.once.insert(("hold", hold_id.clone()), action.clone());
                    self.quietly(who, currency).place(hold_id, amount, until.0);
                }
                verdict(no)
            }
            Action::PostHold { member_id, hold_id, amount, .. } => self.finish(*member_id, hold_id, Some(*amount)),
            Action::VoidHold { member_id, hold_id, .. } => self.finish(*member_id, hold_id, None),
            Action::TimeOutHold { member_id, hold_id } => self.time_out(*member_id, hold_id),
            Action::Transfer { member_id, to_member_id, currency, amount, .. } => {
                self.transfer(*member_id, *to_member_id, currency, *amount)
            }
            Action::ReverseEntry { member_id, entry, .. } => {
                if let Some(Action::ReverseEntry { member_id: first, .. }) =
                    self.once.get(&("reversal", entry.to_string()))
                {
                    let same = first == member_id;
                    return if same { Verdict::Again } else { Verdict::No(vec!["ENTRY_NOT_FOUND"]) };
                }
                let entry = self.entries.iter().find(|e| e.sequence == *entry && e.who == *member_id).cloned();
                let verdict = self.reverse(*member_id, entry.as_ref());
                if let (Verdict::Yes, Some(entry)) = (&verdict, entry) {
                    self.once.insert(("reversal", entry.sequence.to_string()), action.clone());
                }
                verdict
            }
            Action::StartRedemption { member_id, redemption_id, reward_id } => {
                let who = *member_id;
                let known = self.again("redemption", redemption_id, action);
                if let Some(verdict) = self.nobody(who, None).or(known) {
                    return verdict;
                }
                let Some(reward) = self.rewards.get(reward_id).cloned() else {
                    return Verdict::No(vec!["REWARD_NOT_FOUND"]);
                };
                let currency = reward.cost.currency(&reward.campaign_id);
                let given: u32 = self.had.iter().filter(|((_, id), _)| id == reward_id).map(|(_, n)| n).sum();
                let had = self.had.get(&(who, reward_id.clone())).copied().unwrap_or(0);
                let over = reward.offered.valid_to.is_some_and(|end| self.now >= end.0);
                let no = reasons([
                    (!self.people[&who].cards.contains(&reward.campaign_id), "NOT_JOINED"),
                    (!reward.active || over, "REWARD_NOT_OFFERED"),
                    (reward.stock.is_some_and(|stock| u64::from(given) >= stock), "OUT_OF_STOCK"),
                    (reward.per_member_max.is_some_and(|max| had >= max), "REWARD_LIMIT_REACHED"),
                    (self.read(who, &currency).available() < reward.cost.amount(), "INSUFFICIENT_BALANCE"),
                    (self.people[&who].blocked, "USER_BLOCKED"),
                ]);
                if no.is_empty() {
                    self.once.insert(("redemption", redemption_id.clone()), action.clone());
                    let until = self.now + reward.hold_ms;
                    self.quietly(who, &currency).place(
                        &format!("redemption/{redemption_id}"),
                        reward.cost.amount(),
                        until,
                    );
                    *self.had.entry((who, reward_id.clone())).or_default() += 1;
                    let redemption = Redemption { who, reward: reward_id.clone(), state: "started" };
                    self.redemptions.insert(redemption_id.clone(), redemption);
                }
                verdict(no)
            }
            Action::CompleteRedemption { redemption_id, voucher_code } => {
                self.complete(redemption_id, voucher_code.is_some())
            }
            Action::FailRedemption { redemption_id, .. } => {
                let redemption = match self.redemption(redemption_id, "started", "failed") {
                    Ok(redemption) => redemption,
                    Err(no) => return no,
                };
                self.fail(redemption_id, redemption);
                Verdict::Yes
            }
            Action::RefundRedemption { redemption_id, .. } => {
                let redemption = match self.redemption(redemption_id, "completed", "refunded") {
                    Ok(redemption) => redemption,
                    Err(no) => return no,
                };
                let reward = self.rewards[&redemption.reward].clone();
                let currency = reward.cost.currency(&reward.campaign_id);
                self.credit(redemption.who, &currency, reward.cost.amount(), Kind::Other);
                self.give_back(redemption_id, redemption, "refunded");
                Verdict::Yes
            }
            Action::AssignCoupon { member_id, coupon_book_id, code, usage_id } => {
                if let Some(first) = self.once.get(&("assignment", usage_id.clone())) {
                    // Whoever asks for no code in particular asked for any.
                    let Action::AssignCoupon { code: given, .. } = first else { unreachable!("of this kind") };
                    let mut again = action.clone();
                    if let Action::AssignCoupon { code: asked @ None, .. } = &mut again {
                        asked.clone_from(given);
                    }
                    return if *first == again { Verdict::Again } else { Verdict::No(vec!["ID_REUSED"]) };
                }
                if let Some(no) = self.nobody(*member_id, None) {
                    return no;
                }
                let book = coupon_book_id.as_str();
                let code = match code {
                    Some(code) => match self.coupons.get(&(book.to_owned(), code.clone())) {
                        None => return Verdict::No(vec!["COUPON_NOT_FOUND"]),
                        Some(coupon) if coupon.owner.is_some() => return Verdict::No(vec!["COUPON_STATE"]),
                        Some(_) => code.clone(),
                    },
                    None => match self.next_code(book) {
                        None => return Verdict::No(vec!["NO_COUPONS_LEFT"]),
                        Some(code) => code,
                    },
                };
                let (member_id, usage_id) = (*member_id, usage_id.clone());
                self.assign(member_id, book, &code);
                let coupon_book_id = coupon_book_id.clone();
                let given =
                    Action::AssignCoupon { member_id, coupon_book_id, code: Some(code), usage_id: usage_id.clone() };
                self.once.insert(("assignment", usage_id), given);
                Verdict::Yes
            }
            Action::UseCoupon { coupon_book_id, code, usage_id, .. } => {
                if let Some(verdict) = self.again("use", usage_id, action) {
                    return verdict;
                }
                let key = (coupon_book_id.to_string(), code.clone());
                let uses_max = programme::books().into_iter().find(|(b, _)| b.coupon_book_id == *coupon_book_id);
                let uses_max = uses_max.expect("a book").0.uses_max as usize;
                let now = self.now;
                let Some(coupon) = self.coupons.get_mut(&key) else {
                    return Verdict::No(vec!["COUPON_NOT_FOUND"]);
                };
                if coupon.uses.len() >= uses_max || coupon.expires.is_some_and(|end| now >= end) {
                    return Verdict::No(vec!["COUPON_STATE"]);
                }
                coupon.uses.push(usage_id.clone());
                self.once.insert(("use", usage_id.clone()), action.clone());
                Verdict::Yes
            }
            Action::RollBackCoupon { coupon_book_id, code, reverted_usage_id, .. } => {
                if let Some(verdict) = self.again("rollback", reverted_usage_id, action) {
                    return verdict;
                }
                let Some(coupon) = self.coupons.get_mut(&(coupon_book_id.to_string(), code.clone())) else {
                    return Verdict::No(vec!["COUPON_NOT_FOUND"]);
                };
                if !coupon.uses.contains(reverted_usage_id) {
                    return Verdict::No(vec!["COUPON_STATE"]);
                }
                coupon.uses.retain(|id| id != reverted_usage_id);
                self.once.insert(("rollback", reverted_usage_id.clone()), action.clone());
                Verdict::Yes
            }
            Action::MergeMembers { member_id, from_member_id } => self.merge(*member_id, *from_member_id),
            Action::RunJob { job, member_id, run, last } => self.run(*job, *member_id, *run, *last),
            Action::AwardLeaderboard { member_id, campaign_id, leaderboard_id, round, rank, .. } => {
                let key = (*member_id, campaign_id.clone(), leaderboard_id.clone(), i64::from(*round));
                if self.awarded.contains(&key) || !self.may_earn(*member_id) {
                    return Verdict::Again;
                }
                self.awarded.insert(key);
                let boards = &self.campaigns[campaign_id].programme.leaderboards;
                let board = boards.iter().find(|b| b.id == *leaderboard_id).expect("a board");
                let prize = board.prizes.iter().find(|p| p.from_rank <= *rank && *rank <= p.to_rank);
                let prize = prize.expect("only winners are awarded").clone();
                let points = Currency::Points(campaign_id.clone());
                self.credit(*member_id, &points, prize.bonus.points.0, Kind::Other);
                self.credit(*member_id, &Currency::Coins, prize.bonus.coins.0, Kind::Other);
                if let Some(reward) = &prize.reward_id {
                    self.owe(*member_id, campaign_id, reward, 1);
                }
                Verdict::Yes
            }
            _ => panic!("the auditor does not know {action:?}"),
        }
    }

    /// What happens once: asked again, or with other content.
    fn again(&self, kind: &'static str, id: &str, action: &Action) -> Option<Verdict> {
        let first = self.once.get(&(kind, id.to_owned()))?;
        Some(if first == action { Verdict::Again } else { Verdict::No(vec!["ID_REUSED"]) })
    }

    /// Who is not there, is no more, or has no card.
    fn nobody(&self, who: MemberId, currency: Option<&Currency>) -> Option<Verdict> {
        let reason = match self.people.get(&who) {
            None => "MEMBER_NOT_FOUND",
            Some(person) if person.merged.is_some() => "MEMBER_MERGED",
            Some(_) if currency.is_some_and(|currency| !self.has_card(who, currency)) => "NOT_JOINED",
            Some(_) => return None,
        };
        Some(Verdict::No(vec![reason]))
    }

    fn register(&mut self, who: MemberId, known_by: &[Identifier], profile: &Profile, join: &[CampaignId]) -> Verdict {
        let ended = join.iter().any(|id| !self.is_active(id));
        let no = reasons([
            (known_by.iter().any(|i| self.emails.contains_key(i)), "IDENTIFIER_TAKEN"),
            (ended, "CAMPAIGN_NOT_ACTIVE"),
        ]);
        if no.is_empty() {
            let mut date = profile.birth_date.split('-').skip(1).map(|n| n.parse().expect("a number"));
            let born = date.next().zip(date.next());
            let person = Person { cards: join.to_vec(), blocked: false, merged: None, born, created: self.now };
            self.people.insert(who, person);
            self.emails.extend(known_by.iter().map(|i| (i.clone(), who)));
            self.touched.insert(who);
        }
        verdict(no)
    }

    fn is_active(&self, campaign: &CampaignId) -> bool {
        let validity = &self.campaigns[campaign].validity;
        validity.starts_at.is_none_or(|from| from.0 <= self.now) && validity.ends_at.is_none_or(|end| self.now < end.0)
    }

    fn join(&mut self, who: MemberId, campaign: &CampaignId) -> Verdict {
        if let Some(no) = self.nobody(who, None) {
            return no;
        }
        if self.people[&who].cards.contains(campaign) {
            return Verdict::Again;
        }
        let no = reasons([(!self.is_active(campaign), "CAMPAIGN_NOT_ACTIVE")]);
        if no.is_empty() {
            self.people.get_mut(&who).expect("somebody").cards.push(campaign.clone());
            self.touched.insert(who);
        }
        verdict(no)
    }

    fn block(&mut self, who: MemberId, blocked: bool) -> Verdict {
        if let Some(no) = self.nobody(who, None) {
            return no;
        }
        let person = self.people.get_mut(&who).expect("somebody");
        let same = person.blocked == blocked;
        person.blocked = blocked;
        if same { Verdict::Fine } else { Verdict::Yes }
    }

    fn adjust(&mut self, who: MemberId, currency: &Currency, amount: i64) -> Verdict {
        if let Some(no) = self.nobody(who, None) {
            return no;
        }
        let short = amount < 0 && self.read(who, currency).available() + amount < -self.overdraft(currency);
        let no = reasons([
            (!self.has_card(who, currency), "NOT_JOINED"),
            (amount == 0, "INVALID_FIELD"),
            (short, "INSUFFICIENT_BALANCE"),
        ]);
        if no.is_empty() {
            self.move_by(who, currency, amount, Kind::Other);
        }
        verdict(no)
    }

    fn move_by(&mut self, who: MemberId, currency: &Currency, amount: i64, kind: Kind) {
        if amount > 0 {
            self.credit(who, currency, amount, kind);
        } else {
            self.book(who, currency).debit(-amount);
            if kind == Kind::Earned {
                self.earn(who, currency, amount);
            }
        }
    }

    /// Which of a member's accounts has a hold.
    fn held(&self, who: MemberId, hold: &str) -> Option<Currency> {
        let of_member = self.books.iter().filter(|((w, _), _)| *w == who);
        of_member.filter(|(_, book)| book.holds.contains_key(hold)).map(|((_, c), _)| c.clone()).next()
    }

    /// Posts, or voids where there is no amount to post.
    fn finish(&mut self, who: MemberId, hold: &str, post: Option<Option<i64>>) -> Verdict {
        if let Some(no) = self.nobody(who, None) {
            return no;
        }
        let Some(currency) = self.held(who, hold) else {
            return Verdict::No(vec!["HOLD_NOT_FOUND"]);
        };
        let held = total(&self.read(who, &currency).holds[hold].0);
        let taken = post.map_or(0, |amount| amount.unwrap_or(held));
        let wrong = post.is_some() && !(1..=held).contains(&taken);
        if !wrong {
            self.quietly(who, &currency).post(hold, taken);
            self.touched.extend(post.map(|_| who));
        }
        verdict(reasons([(wrong, "INVALID_FIELD"), (wrong, "INSUFFICIENT_BALANCE")]))
    }

    fn time_out(&mut self, who: MemberId, hold: &str) -> Verdict {
        let Some(currency) = self.held(who, hold) else {
            return if self.people.contains_key(&who) { Verdict::Again } else { Verdict::No(vec!["MEMBER_NOT_FOUND"]) };
        };
        if self.read(who, &currency).holds[hold].1 > self.now {
            return Verdict::Again;
        }
        match hold.strip_prefix("redemption/") {
            Some(id) => {
                let redemption = self.redemptions[id].clone();
                self.fail(id, redemption);
            }
            None => self.quietly(who, &currency).release(hold),
        }
        Verdict::Yes
    }

    fn transfer(&mut self, who: MemberId, to: MemberId, currency: &Currency, amount: i64) -> Verdict {
        let mut no = reasons([(who == to || amount < 1, "INVALID_FIELD")]);
        for party in [who, to] {
            if let Some(Verdict::No(reasons)) = self.nobody(party, Some(currency)) {
                no.extend(reasons);
            }
            if self.people.get(&party).is_some_and(|person| person.blocked) {
                no.push("USER_BLOCKED");
            }
        }
        if self.read(who, currency).available() < amount {
            no.push("INSUFFICIENT_BALANCE");
        }
        if no.is_empty() {
            let lots = self.book(who, currency).debit(amount);
            self.book(to, currency).credit(lots);
        }
        verdict(no)
    }

    fn reverse(&mut self, who: MemberId, entry: Option<&Entry>) -> Verdict {
        if let Some(no) = self.nobody(who, None) {
            return no;
        }
        let Some(Entry { currency, amount, origin, .. }) = entry else {
            return Verdict::No(vec!["ENTRY_NOT_FOUND"]);
        };
        use Origin::{Expiry, Merge, Redemption, Refund, Reversal, Transfer};
        let never = matches!(
            origin,
            Expiry { .. } | Merge { .. } | Redemption { .. } | Refund { .. } | Reversal { .. } | Transfer { .. }
        );
        let short = *amount > 0 && self.read(who, currency).available() - amount < -self.overdraft(currency);
        let no = reasons([(never, "ENTRY_NOT_REVERSIBLE"), (short, "INSUFFICIENT_BALANCE")]);
        if no.is_empty() {
            self.move_by(who, currency, -amount, if origin.is_earned() { Kind::Earned } else { Kind::Other });
        }
        verdict(no)
    }

    /// A redemption that is to go from one state to another.
    fn redemption(&self, id: &str, from: &str, to: &str) -> Result<Redemption, Verdict> {
        match self.redemptions.get(id) {
            None => Err(Verdict::No(vec!["REDEMPTION_NOT_FOUND"])),
            Some(redemption) if self.people[&redemption.who].merged.is_some() && to != "failed" => {
                Err(Verdict::No(vec!["MEMBER_MERGED"]))
            }
            Some(redemption) if redemption.state == from => Ok(redemption.clone()),
            Some(redemption) if redemption.state == to => Err(Verdict::Again),
            Some(_) => Err(Verdict::No(vec!["REDEMPTION_STATE"])),
        }
    }

    fn complete(&mut self, id: &str, has_code: bool) -> Verdict {
        let redemption = match self.redemption(id, "started", "completed") {
            Ok(redemption) => redemption,
            Err(no) => return no,
        };
        let reward = self.rewards[&redemption.reward].clone();
        match reward.coupon_book_id.as_ref().map(|book| self.next_code(book.as_str())) {
            Some(None) => return Verdict::No(vec!["NO_COUPONS_LEFT"]),
            Some(Some(code)) => {
                self.assign(redemption.who, reward.coupon_book_id.expect("it has one").as_str(), &code);
            }
            None if !has_code => return Verdict::No(vec!["INVALID_FIELD"]),
            None => {}
        }
        let currency = reward.cost.currency(&reward.campaign_id);
        self.book(redemption.who, &currency).post(&format!("redemption/{id}"), reward.cost.amount());
        self.redemptions.insert(id.into(), Redemption { state: "completed", ..redemption });
        Verdict::Yes
    }

    fn fail(&mut self, id: &str, redemption: Redemption) {
        let reward = &self.rewards[&redemption.reward];
        let currency = match reward.cost {
            Cost::Points(_) => Currency::Points(reward.campaign_id.clone()),
            Cost::Coins(_) => Currency::Coins,
        };
        self.quietly(redemption.who, &currency).release(&format!("redemption/{id}"));
        self.give_back(id, redemption, "failed");
    }

    fn give_back(&mut self, id: &str, redemption: Redemption, state: &'static str) {
        *self.had.get_mut(&(redemption.who, redemption.reward.clone())).expect("it was had") -= 1;
        self.redemptions.insert(id.into(), Redemption { state, ..redemption });
    }

    fn merge(&mut self, who: MemberId, from: MemberId) -> Verdict {
        if who == from {
            return Verdict::No(vec!["INVALID_FIELD", "MEMBER_NOT_FOUND", "MEMBER_MERGED"]);
        }
        if let Some(no) = self.nobody(who, None) {
            return no;
        }
        if self.people.get(&from).is_some_and(|person| person.merged == Some(who)) {
            return Verdict::Again;
        }
        if let Some(no) = self.nobody(from, None) {
            return no;
        }
        let open = self.books.iter().any(|((w, _), book)| *w == from && (!book.holds.is_empty() || book.debt > 0));
        if open {
            return Verdict::No(vec!["MEMBER_BUSY"]);
        }
        let moved: Vec<_> = self.books.iter().filter(|((w, _), _)| *w == from).map(|((_, c), _)| c.clone()).collect();
        for currency in moved {
            let lots = std::mem::take(&mut self.book(from, &currency).free);
            self.book(who, &currency).credit(lots);
        }
        for campaign in self.people[&from].cards.clone() {
            let to = self.people.get_mut(&who).expect("somebody");
            if !to.cards.contains(&campaign) {
                to.cards.push(campaign.clone());
            }
            for card in self.campaigns[&campaign].punchcards.clone() {
                let row = self.rows.remove(&(from, campaign.clone(), card.id.clone())).unwrap_or_default();
                self.stamp(who, &campaign, &card.id, row.0 + row.1 * u64::from(card.row_length));
            }
        }
        for owner in self.emails.values_mut().filter(|owner| **owner == from) {
            *owner = who;
        }
        self.people.get_mut(&from).expect("somebody").merged = Some(who);
        self.touched.extend([who, from]);
        Verdict::Yes
    }

    fn fact(&mut self, action: &Action, fact: &Fact) -> Verdict {
        if let Some(first) = self.once.get(&("fact", format!("{}/{}", fact.source, fact.fact_id))) {
            let Action::PublishFact(first) = first else { unreachable!("of this kind") };
            let owner = |fact: &Fact| self.emails.get(&fact.identifiers[0]);
            // Whom an identifier named that names nobody is not known.
            let same = first.properties == fact.properties && owner(fact).is_none_or(|who| Some(who) == owner(first));
            return Verdict::No(vec![if same { "FACT_EXISTS" } else { "FACT_EXISTS_WITH_DIFFERENT_CONTENT" }]);
        }
        let Some(friend) = self.emails.get(&fact.identifiers[0]).copied() else {
            return Verdict::No(vec!["ACCOUNT_NOT_FOUND"]);
        };
        let properties: serde_json::Value = serde_json::from_str(&fact.properties.0).expect("JSON");
        let text = |field: &str| properties[field].as_str().expect("a text").to_owned();
        let advocate: MemberId = text("advocate_id").parse().expect("a member's id");
        let campaign: CampaignId = text("campaign_id").parse().expect("a campaign's id");
        let rewarded = self.campaigns[&campaign].programme.referral.is_some() && self.people.contains_key(&advocate);
        let no = reasons([(advocate == friend && rewarded, "INVALID_FIELD")]);
        if no.is_empty() {
            self.once.insert(("fact", format!("{}/{}", fact.source, fact.fact_id)), action.clone());
            // Whoever bought before was brought by nobody.
            if rewarded && !self.began.contains(&(friend, campaign.clone())) {
                self.referrals.entry((friend, campaign)).or_insert((advocate, false));
            }
        }
        verdict(no)
    }

    fn run(&mut self, job: Job, who: MemberId, run: Run, last: Option<Run>) -> Verdict {
        let person = self.people[&who].clone();
        if person.merged.is_some() || self.done.contains(&(job, who, run.period)) {
            return Verdict::Fine;
        }
        match job {
            Job::Recalculation => {
                self.touched.insert(who);
                self.tiers_at = run.at.0;
            }
            Job::Expiry => {
                let accounts: Vec<_> = self.books.keys().filter(|(w, _)| *w == who).cloned().collect();
                for (_, currency) in accounts {
                    let expired = self.quietly(who, &currency).expire(run.at.0);
                    self.touched.extend((expired > 0).then_some(who));
                }
            }
            Job::Birthdays => {
                let back = last.map_or(1, |last| (run.period - last.period).clamp(1, 31));
                let is = |day: &i64| {
                    let (year, month, day) = civil(*day);
                    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                    let born = person.born.map(|born| if born == (2, 29) && !leap { (2, 28) } else { born });
                    born == Some((month, day))
                };
                let today = run.at.0.div_euclid(DAY_MS);
                let day = (today - back + 1..=today).rev().find(is);
                if let Some(day) = day.filter(|_| !person.blocked) {
                    let at = day * DAY_MS + 9 * HOUR_MS;
                    let over = |id: &CampaignId| self.campaigns[id].validity.ends_at.is_some_and(|end| end.0 <= at);
                    for campaign in person.cards.into_iter().filter(|id| !over(id)).collect::<Vec<_>>() {
                        self.give(who, &campaign, self.campaigns[&campaign].programme.birthday_bonus);
                    }
                }
            }
            Job::Leaderboards => {}
        }
        Verdict::Fine
    }

    /// The last run of a job that is due.
    pub fn due(&self, job: Job) -> Run {
        let (offset, hour) = match job {
            Job::Recalculation => (programme::ZONE.1, 5),
            Job::Expiry => (programme::ZONE.1, 0),
            Job::Birthdays => (0, 9),
            Job::Leaderboards => (0, 0),
        };
        let at = |day: i64| day * DAY_MS + hour * HOUR_MS - offset;
        let today = (self.now + offset).div_euclid(DAY_MS);
        let day = if at(today) <= self.now { today } else { today - 1 };
        Run { period: day, at: punchline_engine::time::UnixMillis(at(day)) }
    }
}
