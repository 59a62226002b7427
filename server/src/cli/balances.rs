//! `balances`: what changes them besides consumptions and redemptions.

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::ledger_service_client::LedgerServiceClient;
use punchline_proto::v1::member_service_client::MemberServiceClient;

use super::client::Client;
use super::failure::Failure;
use super::input;
use super::members::{ENTRY_COLUMNS, MemberRef, entry_rows};
use super::message::json_of;
use super::output::{self, Answer};

#[derive(Debug, Subcommand)]
pub(super) enum BalancesCommand {
    /// Correct a balance
    Adjust {
        #[command(flatten)]
        member: MemberRef,
        #[command(flatten)]
        currency: CurrencyArgs,
        /// Signed, as --amount=-5
        #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
        amount: i64,
        /// Why
        #[arg(long)]
        reason: String,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID", default_value = "")]
        request_id: String,
    },
    /// Set an amount aside
    Hold {
        #[command(flatten)]
        member: MemberRef,
        /// An id of your own, used up for ever: makes a repeated call harmless
        #[arg(long, value_name = "ID")]
        hold_id: String,
        #[command(flatten)]
        currency: CurrencyArgs,
        /// More than 0
        #[arg(long, value_name = "NUMBER")]
        amount: i64,
        /// When it is free again by itself (RFC 3339)
        #[arg(long, value_name = "TIME", value_parser = input::time)]
        expires_at: Timestamp,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take what is set aside, or a part of it; the rest is free again
    Post {
        #[command(flatten)]
        member: MemberRef,
        /// As `members holds` shows it
        #[arg(long, value_name = "ID")]
        hold_id: String,
        /// All of it if absent
        #[arg(long, value_name = "NUMBER")]
        amount: Option<i64>,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID", default_value = "")]
        request_id: String,
    },
    /// Give free what is set aside
    Void {
        #[command(flatten)]
        member: MemberRef,
        /// As `members holds` shows it
        #[arg(long, value_name = "ID")]
        hold_id: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID", default_value = "")]
        request_id: String,
    },
    /// Move an amount to another member
    Transfer {
        #[command(flatten)]
        member: MemberRef,
        /// To whom
        #[arg(long, value_name = "MEMBER_ID")]
        to: String,
        #[command(flatten)]
        currency: CurrencyArgs,
        /// More than 0
        #[arg(long, value_name = "NUMBER")]
        amount: i64,
        /// Why
        #[arg(long)]
        reason: String,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID", default_value = "")]
        request_id: String,
    },
    /// Take an entry back by its opposite
    Reverse {
        #[command(flatten)]
        member: MemberRef,
        /// The entry: the sequence that `members entries` shows
        #[arg(long, value_name = "SEQUENCE")]
        entry: u64,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

/// Of what.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct CurrencyArgs {
    /// Points of this campaign
    #[arg(long, value_name = "CAMPAIGN_ID")]
    points_of: Option<String>,
    /// The advertiser's coins
    #[arg(long)]
    coins: bool,
}

impl CurrencyArgs {
    fn wire(self) -> v1::Currency {
        use v1::currency::Kind;
        v1::Currency { kind: Some(self.points_of.map_or(Kind::Coins(true), Kind::PointsOfCampaignId)) }
    }
}

pub(super) async fn run(command: BalancesCommand, client: &Client) -> Result<Answer, Failure> {
    let mut members = MemberServiceClient::new(client.service());
    let mut ledger = LedgerServiceClient::new(client.service());
    let entries = match command {
        BalancesCommand::Adjust { member, currency, amount, reason, request_id } => {
            use v1::adjust_balance_request::Currency;
            let member_id = member.resolve(&mut members).await?.id();
            let currency = Some(currency.points_of.map_or(Currency::Coins(true), Currency::PointsOfCampaignId));
            let request = v1::AdjustBalanceRequest { member_id, currency, amount, reason, request_id };
            Vec::from_iter(ledger.adjust_balance(request).await?.into_inner().entry)
        }
        BalancesCommand::Hold { member, hold_id, currency, amount, expires_at, reason } => {
            let member_id = member.resolve(&mut members).await?.id();
            let (currency, expires_at) = (Some(currency.wire()), Some(expires_at));
            let request = v1::PlaceHoldRequest { member_id, hold_id, currency, amount, expires_at, reason };
            return Ok(Answer::One(json_of(&ledger.place_hold(request).await?.into_inner().hold)));
        }
        BalancesCommand::Post { member, hold_id, amount, reason, request_id } => {
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::PostHoldRequest { member_id, hold_id, amount, reason, request_id };
            Vec::from_iter(ledger.post_hold(request).await?.into_inner().entry)
        }
        BalancesCommand::Void { member, hold_id, reason, request_id } => {
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::VoidHoldRequest { member_id, hold_id: hold_id.clone(), reason, request_id };
            ledger.void_hold(request).await?;
            output::note(&format!("gave {hold_id} free"));
            return Ok(Answer::Nothing);
        }
        BalancesCommand::Transfer { member, to, currency, amount, reason, request_id } => {
            let member_id = member.resolve(&mut members).await?.id();
            let currency = Some(currency.wire());
            let request =
                v1::TransferBalanceRequest { member_id, to_member_id: to, currency, amount, reason, request_id };
            ledger.transfer_balance(request).await?.into_inner().entries
        }
        BalancesCommand::Reverse { member, entry, reason } => {
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::ReverseEntryRequest { member_id, sequence: entry, reason };
            Vec::from_iter(ledger.reverse_entry(request).await?.into_inner().entry)
        }
    };
    Ok(Answer::Rows(ENTRY_COLUMNS, entry_rows(&entries)))
}
