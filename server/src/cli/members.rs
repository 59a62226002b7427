//! `members`: who they are, what they have, and why.

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::ledger_service_client::LedgerServiceClient;
use punchline_proto::v1::member_service_client::MemberServiceClient;
use serde_json::Value;

use super::client::{Client, ListOptions, Service};
use super::failure::Failure;
use super::input;
use super::message::{json, json_all, json_of};
use super::output::Answer;

mod import;

#[derive(Debug, Subcommand)]
pub(super) enum MembersCommand {
    /// Register a member
    Register(RegisterArgs),
    /// One member
    Get(MemberRef),
    /// Find a member by an identifier
    Lookup(IdentifierArgs),
    /// All members, in order of registration
    List(ListOptions),
    /// Let a member earn nothing more
    Block {
        #[command(flatten)]
        member: MemberRef,
        /// Why, for people
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a blocked member earn again
    Unblock(MemberRef),
    /// Erase a member's personal fields, for ever; id and balances stay
    Erase {
        #[command(flatten)]
        member: MemberRef,
        /// Confirms it: what is erased cannot be brought back
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Issue a card of a campaign
    Join {
        #[command(flatten)]
        member: MemberRef,
        /// The campaign
        #[arg(long, value_name = "ID")]
        campaign: String,
    },
    /// Points of each campaign, and coins
    Balances {
        #[command(flatten)]
        member: MemberRef,
        /// As they were at this position of the journal
        #[arg(long, value_name = "SEQUENCE", conflicts_with = "at_time")]
        at_sequence: Option<u64>,
        /// As they were at this instant (RFC 3339)
        #[arg(long, value_name = "TIME", value_parser = input::time)]
        at_time: Option<Timestamp>,
    },
    /// What is set aside of a member's balances
    Holds(MemberRef),
    /// Make two members one: the other one's cards, balances and identifiers come to this one
    Merge {
        /// Who it is from now on
        member_id: String,
        /// Who is no more
        #[arg(long, value_name = "MEMBER_ID")]
        from: String,
    },
    /// Register members, one JSON object a line
    ///
    /// A line is {"identifiers": [{"key", "value"}], "firstName", "lastName", "birthDate", "locale",
    /// "marketingConsent", "attributes": {…}, "registrationSource", "joinCampaignIds": […], "requestId"}. With a
    /// requestId in each line, sending a file again is harmless.
    Import(import::ImportArgs),
    /// Punchcards, and how far they have come
    Punchcards(MemberRef),
    /// Movements, newest first
    Entries {
        #[command(flatten)]
        member: MemberRef,
        #[command(flatten)]
        list: ListOptions,
    },
    /// From an entry back to the consumption line and the rule that caused it
    Explain {
        /// The entry: the sequence that `members entries` shows
        sequence: u64,
    },
}

#[derive(Args, Debug)]
pub(super) struct RegisterArgs {
    /// Digits with country code; may be repeated
    #[arg(long, value_name = "NUMBER", required_unless_present_any = ["email", "external_id"])]
    phone: Vec<String>,
    /// May be repeated
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<String>,
    /// The id in another system; may be repeated
    #[arg(long, value_name = "ID")]
    external_id: Vec<String>,
    /// Campaign to join at once; may be repeated
    #[arg(long, value_name = "CAMPAIGN_ID")]
    join: Vec<String>,
    /// Where the registration comes from, as campaign_link
    #[arg(long, value_name = "NAME", default_value = "")]
    source: String,
    #[arg(long, value_name = "NAME")]
    first_name: Option<String>,
    #[arg(long, value_name = "NAME")]
    last_name: Option<String>,
    /// YYYY-MM-DD
    #[arg(long, value_name = "DATE")]
    birth_date: Option<String>,
    /// As ro-RO
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// Whether marketing was agreed to; not asked if absent
    #[arg(long, value_name = "BOOL")]
    marketing_consent: Option<bool>,
    /// Anything else; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = input::pair)]
    attribute: Vec<(String, String)>,
    /// Makes a repeated call harmless
    #[arg(long, value_name = "ID", default_value = "")]
    request_id: String,
    /// Tell no subscriber: they know the member already
    #[arg(long)]
    suppress_events: bool,
}

/// One member: an id, or an identifier.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct MemberRef {
    /// As the server gave it
    member_id: Option<String>,
    /// Look it up by this phone number
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    /// Look it up by this e-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Look it up by its id in another system
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct IdentifierArgs {
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
}

const MEMBER_COLUMNS: &[&str] = &["member_id", "identifiers", "blocked", "cards", "coins", "created_at"];
const BALANCE_COLUMNS: &[&str] = &["currency", "amount"];
const ACCOUNT_COLUMNS: &[&str] = &["balance.currency", "amount:balance.amount", "available", "held", "lots"];
const HOLD_COLUMNS: &[&str] = &["hold_id", "currency.currency", "amount", "expires_at"];
const PUNCHCARD_COLUMNS: &[&str] =
    &["campaign_id", "punchcard_id", "name", "stamps", "row_length", "next_step", "rows_completed"];
pub(super) const ENTRY_COLUMNS: &[&str] =
    &["sequence", "time", "amount", "new_balance.currency", "new_balance:new_balance.amount", "origin"];

pub(super) async fn run(command: MembersCommand, client: &Client) -> Result<Answer, Failure> {
    let mut members = MemberServiceClient::new(client.service());
    let mut ledger = LedgerServiceClient::new(client.service());
    match command {
        MembersCommand::Register(args) => register(args, &mut members).await,
        MembersCommand::Get(member) => one(&member.resolve(&mut members).await?.fetch(&mut members).await?),
        MembersCommand::Lookup(args) => one(&lookup(args.phone, args.email, args.external_id, &mut members).await?),
        MembersCommand::List(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let page =
                        members.list_members(v1::ListMembersRequest { page_size, page_token }).await?.into_inner();
                    Ok((page.members, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(MEMBER_COLUMNS, json_all(&all)))
        }
        MembersCommand::Block { member, reason } => {
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::BlockMemberRequest { member_id, reason };
            one(&members.block_member(request).await?.into_inner().member)
        }
        MembersCommand::Unblock(member) => {
            let member_id = member.resolve(&mut members).await?.id();
            one(&members.unblock_member(v1::UnblockMemberRequest { member_id }).await?.into_inner().member)
        }
        MembersCommand::Erase { member, yes: _ } => {
            let member_id = member.resolve(&mut members).await?.id();
            one(&members.erase_member(v1::EraseMemberRequest { member_id }).await?.into_inner().member)
        }
        MembersCommand::Join { member, campaign } => {
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::JoinCampaignRequest { member_id, campaign_id: campaign };
            one(&members.join_campaign(request).await?.into_inner().member)
        }
        MembersCommand::Balances { member, at_sequence, at_time } => {
            use v1::get_balances_request::At;
            let member_id = member.resolve(&mut members).await?.id();
            let at = at_sequence.map(At::AtSequence).or(at_time.map(At::AtTime));
            let got = ledger.get_balances(v1::GetBalancesRequest { member_id, at }).await?.into_inner();
            if at.is_some() {
                let mut rows = json_all(&got.balances);
                rows.iter_mut().for_each(name_currency);
                return Ok(Answer::Rows(BALANCE_COLUMNS, rows));
            }
            let mut rows = json_all(&got.accounts);
            rows.iter_mut().filter_map(|row| row.get_mut("balance")).for_each(name_currency);
            Ok(Answer::Rows(ACCOUNT_COLUMNS, rows))
        }
        MembersCommand::Holds(member) => {
            let member_id = member.resolve(&mut members).await?.id();
            let got = ledger.list_holds(v1::ListHoldsRequest { member_id }).await?.into_inner();
            let mut rows = json_all(&got.holds);
            rows.iter_mut().filter_map(|row| row.get_mut("currency")).for_each(name_currency);
            Ok(Answer::Rows(HOLD_COLUMNS, rows))
        }
        MembersCommand::Merge { member_id, from } => {
            let request = v1::MergeMembersRequest { member_id, from_member_id: from };
            one(&members.merge_members(request).await?.into_inner().member)
        }
        MembersCommand::Import(args) => import::run(args, &mut members).await,
        MembersCommand::Punchcards(member) => {
            let member_id = member.resolve(&mut members).await?.id();
            let got = ledger.list_punchcards(v1::ListPunchcardsRequest { member_id }).await?.into_inner();
            Ok(Answer::Rows(PUNCHCARD_COLUMNS, json_all(&got.punchcards)))
        }
        MembersCommand::Entries { member, list } => {
            let member_id = member.resolve(&mut members).await?.id();
            entries(&member_id, list, &mut ledger).await
        }
        MembersCommand::Explain { sequence } => {
            let explained = ledger.explain_entry(v1::ExplainEntryRequest { sequence }).await?.into_inner();
            let mut value = json(&explained);
            if let Some(balance) = value.pointer_mut("/entry/new_balance") {
                name_currency(balance);
            }
            Ok(Answer::One(value))
        }
    }
}

async fn register(args: RegisterArgs, members: &mut MemberServiceClient<Service>) -> Result<Answer, Failure> {
    let profile = v1::Profile {
        first_name: args.first_name.unwrap_or_default(),
        last_name: args.last_name.unwrap_or_default(),
        birth_date: args.birth_date.unwrap_or_default(),
        locale: args.locale.unwrap_or_default(),
        marketing_consent: args.marketing_consent,
        attributes: args.attribute.into_iter().collect(),
    };
    let request = v1::RegisterMemberRequest {
        identifiers: input::identifiers(&args.phone, &args.email, &args.external_id),
        profile: Some(profile),
        registration_source: args.source,
        join_campaign_ids: args.join,
        request_id: args.request_id,
        suppress_events: args.suppress_events,
    };
    one(&members.register_member(request).await?.into_inner().member)
}

async fn entries(
    member_id: &str,
    list: ListOptions,
    ledger: &mut LedgerServiceClient<Service>,
) -> Result<Answer, Failure> {
    let entries = list
        .collect(async |page_size, page_token| {
            let request = v1::ListEntriesRequest { member_id: member_id.to_owned(), page_size, page_token };
            let page = ledger.list_entries(request).await?.into_inner();
            Ok((page.entries, page.next_page_token))
        })
        .await?;
    Ok(Answer::Rows(ENTRY_COLUMNS, entry_rows(&entries)))
}

/// Entries, with their currencies named.
pub(super) fn entry_rows(entries: &[v1::Entry]) -> Vec<Value> {
    let mut rows = json_all(entries);
    rows.iter_mut().filter_map(|row| row.get_mut("new_balance")).for_each(name_currency);
    rows
}

fn one(member: &Option<v1::Member>) -> Result<Answer, Failure> {
    Ok(Answer::One(json_of(member)))
}

/// Says what a balance is of in one field, beside the message's own two.
fn name_currency(balance: &mut Value) {
    let currency = match balance.get("points_of_campaign_id").and_then(Value::as_str) {
        Some(campaign_id) => format!("points of {campaign_id}"),
        None => "coins".to_owned(),
    };
    if let Value::Object(fields) = balance {
        fields.insert("currency".to_owned(), currency.into());
    }
}

/// A member that was named, or was looked up and so is known already.
pub(super) enum Resolved {
    Id(String),
    Member(Box<v1::Member>),
}

impl Resolved {
    pub(super) fn id(self) -> String {
        match self {
            Self::Id(id) => id,
            Self::Member(member) => member.member_id,
        }
    }

    async fn fetch(self, members: &mut MemberServiceClient<Service>) -> Result<Option<v1::Member>, Failure> {
        match self {
            Self::Id(member_id) => {
                Ok(members.get_member(v1::GetMemberRequest { member_id }).await?.into_inner().member)
            }
            Self::Member(member) => Ok(Some(*member)),
        }
    }
}

impl MemberRef {
    pub(super) async fn resolve(self, members: &mut MemberServiceClient<Service>) -> Result<Resolved, Failure> {
        match self.member_id {
            Some(id) => Ok(Resolved::Id(id)),
            None => {
                let found = lookup(self.phone, self.email, self.external_id, members).await?;
                Ok(Resolved::Member(Box::new(found.unwrap_or_default())))
            }
        }
    }
}

async fn lookup(
    phone: Option<String>,
    email: Option<String>,
    external_id: Option<String>,
    members: &mut MemberServiceClient<Service>,
) -> Result<Option<v1::Member>, Failure> {
    let identifier = input::identifiers(phone.as_slice(), email.as_slice(), external_id.as_slice()).pop();
    Ok(members.lookup_member(v1::LookupMemberRequest { identifier }).await?.into_inner().member)
}
