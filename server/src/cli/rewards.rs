//! `rewards`, `redemptions`, `obligations`, `gift-cards`: what members get for what they have.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use punchline_proto::v1;
use punchline_proto::v1::member_service_client::MemberServiceClient;
use punchline_proto::v1::reward_service_client::RewardServiceClient;
use serde::Deserialize;
use tonic::Code;

use super::client::{Client, ListOptions, Service};
use super::failure::Failure;
use super::input;
use super::members::MemberRef;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};
use crate::campaign_file;

#[derive(Debug, Subcommand)]
pub(super) enum RewardsCommand {
    /// Create the rewards that a TOML file describes, or replace them
    ///
    /// The file has a table [[rewards]] for each: id, campaign, name, points = … or coins = …, and where wanted
    /// description, picture_url, link, value, stock, per_member_max, coupon_book, valid_from, valid_to, hold = "15m",
    /// cool_down = "24h", inactive = true.
    Apply {
        /// The file; standard input if absent or `-`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// One reward
    Get {
        /// As `rewards list` shows it
        reward_id: String,
    },
    /// The catalogue
    List(ListOptions),
}

#[derive(Debug, Subcommand)]
pub(super) enum RedemptionsCommand {
    /// Ask for a reward: holds its cost
    Start {
        #[command(flatten)]
        member: MemberRef,
        /// For what
        #[arg(long, value_name = "ID")]
        reward: String,
        /// An id of your own, used up for ever: makes a repeated call harmless
        #[arg(long, value_name = "ID")]
        redemption_id: String,
    },
    /// Give the reward
    Complete {
        /// As it was started
        redemption_id: String,
        /// What the member shows; from the reward's coupon book if absent
        #[arg(long, value_name = "CODE", default_value = "")]
        voucher_code: String,
    },
    /// Do not give the reward: its cost is free again
    Fail(Because),
    /// Take the reward back: its cost is given back
    Refund(Because),
    /// One redemption
    Get {
        /// As it was started
        redemption_id: String,
    },
    /// Redemptions, by their ids
    List(OfMember),
}

#[derive(Args, Debug)]
pub(super) struct Because {
    /// As it was started
    redemption_id: String,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args, Debug)]
pub(super) struct OfMember {
    /// Only this member's
    #[arg(long = "member", value_name = "MEMBER_ID", default_value = "")]
    member_id: String,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Debug, Subcommand)]
pub(super) enum ObligationsCommand {
    /// What is to be paid out by subscribers
    List {
        #[command(flatten)]
        of: OfMember,
        /// Only what was not paid out yet
        #[arg(long)]
        open: bool,
    },
    /// Take down that one was paid out
    Confirm {
        /// As `obligations list` shows it
        obligation_id: String,
        /// What the payout is called elsewhere
        #[arg(long, default_value = "")]
        reference: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GiftCardsCommand {
    /// Tell that a member was sent a gift card
    Send {
        #[command(flatten)]
        member: MemberRef,
        /// An id of your own, used up for ever: makes a repeated call harmless
        #[arg(long, value_name = "ID")]
        gift_card_id: String,
        #[arg(long, value_name = "CODE")]
        code: String,
        /// What it is worth, as `10 EUR`
        #[arg(long)]
        value: String,
        #[arg(long, default_value = "")]
        header: String,
        #[arg(long, default_value = "")]
        body: String,
        /// What kind, as gift-10
        #[arg(long, default_value = "")]
        slug: String,
        /// Where it is put into a wallet
        #[arg(long, value_name = "URL", default_value = "")]
        install_url: String,
        /// A mail went out
        #[arg(long)]
        mail_sent: bool,
    },
}

const REWARD_COLUMNS: &[&str] =
    &["reward_id", "name:reward_name", "campaign_id", "cost", "stock", "redeemed", "coupon_book_id", "inactive"];
const REDEMPTION_COLUMNS: &[&str] =
    &["redemption_id", "state", "reward_id", "member_id", "cost", "voucher_code", "started_at", "reason"];
const OBLIGATION_COLUMNS: &[&str] =
    &["obligation_id", "reward_id", "amount", "member_id", "created_at", "confirmed_at", "reference"];

pub(super) async fn rewards(command: RewardsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = RewardServiceClient::new(client.service());
    match command {
        RewardsCommand::Apply { file } => apply(file.as_deref(), &mut service).await,
        RewardsCommand::Get { reward_id } => {
            let got = service.get_reward(v1::GetRewardRequest { reward_id }).await?.into_inner();
            Ok(Answer::One(json_of(&got.reward)))
        }
        RewardsCommand::List(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListRewardsRequest { page_size, page_token };
                    let page = service.list_rewards(request).await?.into_inner();
                    Ok((page.rewards, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(REWARD_COLUMNS, json_all(&all)))
        }
    }
}

/// Rewards as people write them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewardsFile {
    #[serde(default)]
    rewards: Vec<RewardEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewardEntry {
    id: String,
    campaign: String,
    name: String,
    points: Option<i64>,
    coins: Option<i64>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    picture_url: String,
    #[serde(default)]
    link: String,
    #[serde(default)]
    value: String,
    stock: Option<u64>,
    per_member_max: Option<u32>,
    #[serde(default)]
    coupon_book: String,
    valid_from: Option<toml::Value>,
    valid_to: Option<toml::Value>,
    hold: Option<String>,
    cool_down: Option<String>,
    #[serde(default)]
    inactive: bool,
}

impl RewardEntry {
    fn into_proto(self) -> Result<v1::Reward, String> {
        use v1::cost::Kind;
        let at = |what: String| format!("reward {}: {what}", self.id);
        let kind = match (self.points, self.coins) {
            (Some(points), None) => Kind::Points(points),
            (None, Some(coins)) => Kind::Coins(coins),
            _ => return Err(at("needs exactly one of points and coins".into())),
        };
        let time = |value: &Option<toml::Value>| {
            let text = value.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let read = |text: String| {
                let not = || at(format!("{text} is neither a time, as 2025-01-31T12:00:00Z, nor a date"));
                campaign_file::timestamp(&text).ok_or_else(not)
            };
            text.map(read).transpose()
        };
        let span = |text: &Option<String>| {
            let ms = text.as_deref().map(|text| input::duration_ms(text).map_err(at)).transpose()?;
            Ok::<_, String>(ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)))
        };
        let (valid_from, valid_to) = (time(&self.valid_from)?, time(&self.valid_to)?);
        let (hold_ms, cool_down_ms) = (span(&self.hold)?.unwrap_or(0), span(&self.cool_down)?);
        Ok(v1::Reward {
            reward_id: self.id,
            campaign_id: self.campaign,
            reward_name: self.name,
            description: self.description,
            picture_url: self.picture_url,
            reward_link: self.link,
            reward_value: self.value,
            cost: Some(v1::Cost { kind: Some(kind) }),
            stock: self.stock,
            per_member_max: self.per_member_max,
            coupon_book_id: self.coupon_book,
            valid_from,
            valid_to,
            hold_ms,
            cool_down_ms,
            inactive: self.inactive,
            redeemed: 0,
            etag: String::new(),
        })
    }
}

fn parse(text: &str) -> Result<Vec<v1::Reward>, String> {
    let file: RewardsFile = toml::from_str(text).map_err(|error| error.to_string())?;
    file.rewards.into_iter().map(RewardEntry::into_proto).collect()
}

async fn apply(file: Option<&Path>, service: &mut RewardServiceClient<Service>) -> Result<Answer, Failure> {
    let rewards = parse(&input::read_text(file)?)
        .map_err(|message| Failure::Malformed { path: input::name_of(file), message })?;
    let mut applied = Vec::new();
    for reward in rewards {
        let create = v1::CreateRewardRequest { reward: Some(reward.clone()), request_id: String::new() };
        let (done, written) = match service.create_reward(create).await {
            Ok(created) => ("created", created.into_inner().reward),
            Err(status) if status.code() == Code::AlreadyExists => {
                let update = v1::UpdateRewardRequest { reward: Some(reward) };
                ("replaced", service.update_reward(update).await?.into_inner().reward)
            }
            Err(status) => return Err(status.into()),
        };
        applied.extend(written.inspect(|reward| output::note(&format!("{done} {}", reward.reward_id))));
    }
    Ok(Answer::Rows(REWARD_COLUMNS, json_all(&applied)))
}

pub(super) async fn redemptions(command: RedemptionsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = RewardServiceClient::new(client.service());
    let redemption = match command {
        RedemptionsCommand::Start { member, reward, redemption_id } => {
            let mut members = MemberServiceClient::new(client.service());
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::StartRedemptionRequest { member_id, redemption_id, reward_id: reward };
            service.start_redemption(request).await?.into_inner().redemption
        }
        RedemptionsCommand::Complete { redemption_id, voucher_code } => {
            let request = v1::CompleteRedemptionRequest { redemption_id, voucher_code };
            service.complete_redemption(request).await?.into_inner().redemption
        }
        RedemptionsCommand::Fail(Because { redemption_id, reason }) => {
            let request = v1::FailRedemptionRequest { redemption_id, reason };
            service.fail_redemption(request).await?.into_inner().redemption
        }
        RedemptionsCommand::Refund(Because { redemption_id, reason }) => {
            let request = v1::RefundRedemptionRequest { redemption_id, reason };
            service.refund_redemption(request).await?.into_inner().redemption
        }
        RedemptionsCommand::Get { redemption_id } => {
            service.get_redemption(v1::GetRedemptionRequest { redemption_id }).await?.into_inner().redemption
        }
        RedemptionsCommand::List(OfMember { member_id, list }) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListRedemptionsRequest { member_id: member_id.clone(), page_size, page_token };
                    let page = service.list_redemptions(request).await?.into_inner();
                    Ok((page.redemptions, page.next_page_token))
                })
                .await?;
            return Ok(Answer::Rows(REDEMPTION_COLUMNS, json_all(&all)));
        }
    };
    Ok(Answer::One(json_of(&redemption)))
}

pub(super) async fn obligations(command: ObligationsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = RewardServiceClient::new(client.service());
    match command {
        ObligationsCommand::List { of: OfMember { member_id, list }, open } => {
            let all = list
                .collect(async |page_size, page_token| {
                    let member_id = member_id.clone();
                    let request = v1::ListObligationsRequest { member_id, open_only: open, page_size, page_token };
                    let page = service.list_obligations(request).await?.into_inner();
                    Ok((page.obligations, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(OBLIGATION_COLUMNS, json_all(&all)))
        }
        ObligationsCommand::Confirm { obligation_id, reference } => {
            let request = v1::ConfirmObligationRequest { obligation_id, reference };
            Ok(Answer::One(json_of(&service.confirm_obligation(request).await?.into_inner().obligation)))
        }
    }
}

pub(super) async fn gift_cards(command: GiftCardsCommand, client: &Client) -> Result<Answer, Failure> {
    let GiftCardsCommand::Send { member, gift_card_id, code, value, header, body, slug, install_url, mail_sent } =
        command;
    let mut members = MemberServiceClient::new(client.service());
    let member_id = member.resolve(&mut members).await?.id();
    let gift_card = v1::GiftCard { gift_card_id, member_id, code, value, header, body, slug, install_url, mail_sent };
    let request = v1::SendGiftCardRequest { gift_card: Some(gift_card) };
    let sent = RewardServiceClient::new(client.service()).send_gift_card(request).await?.into_inner();
    Ok(Answer::One(json(&sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_are_read() {
        let head = "[[rewards]]\nid = \"mug\"\ncampaign = \"velo\"\nname = \"Mug\"\n";
        let read = parse(&format!("{head}points = 5\nhold = \"5m\"\nvalid_from = 2025-01-01\nstock = 3")).expect("one");
        assert_eq!((read[0].hold_ms, read[0].cool_down_ms, read[0].stock), (300_000, None, Some(3)));
        assert_eq!(read[0].valid_from.expect("set").seconds, 1_735_689_600);
        for (rest, message) in [
            ("", "needs exactly one of points and coins"),
            ("points = 5\ncoins = 1", "needs exactly one of points and coins"),
            ("points = 5\nhold = \"soon\"", "reward mug: soon is no duration"),
            ("points = 5\nvalid_to = \"soon\"", "reward mug: soon is neither a time"),
            ("piots = 5", "unknown field `piots`"),
        ] {
            let refused = parse(&format!("{head}{rest}")).expect_err(rest);
            assert!(refused.contains(message), "{rest}: {refused}");
        }
    }
}
