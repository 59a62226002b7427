//! `coupons`: books of codes, and what becomes of each code.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::member_service_client::MemberServiceClient;
use punchline_proto::v1::reward_service_client::RewardServiceClient;

use super::client::{Client, ListOptions};
use super::failure::Failure;
use super::input;
use super::members::MemberRef;
use super::message::{json, json_all, json_of};
use super::output::Answer;

#[derive(Debug, Subcommand)]
pub(super) enum CouponsCommand {
    /// Create a book of codes
    CreateBook(Box<CreateBookArgs>),
    /// Add codes to a book
    Add {
        /// As `coupons books` shows it
        book: String,
        #[command(flatten)]
        codes: CodesArgs,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID", default_value = "")]
        request_id: String,
    },
    /// All books, with how far they are used up
    Books(ListOptions),
    /// One book
    Book {
        /// As `coupons books` shows it
        book: String,
    },
    /// One code
    Get(CodeRef),
    /// Give a member a code
    Assign {
        #[command(flatten)]
        member: MemberRef,
        /// Of which book
        #[arg(long, value_name = "ID")]
        book: String,
        /// The next free one if absent
        #[arg(long, value_name = "CODE", default_value = "")]
        code: String,
        /// An id of your own, used up for ever: makes a repeated call harmless
        #[arg(long, value_name = "ID")]
        usage_id: String,
    },
    /// Use a code
    Use {
        #[command(flatten)]
        coupon: CodeRef,
        /// An id of your own, used up for ever: makes a repeated call harmless
        #[arg(long, value_name = "ID")]
        usage_id: String,
        /// For what order
        #[arg(long, value_name = "ID", default_value = "")]
        order_id: String,
        /// What it was worth there
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        discount_amount: i64,
    },
    /// Undo a use
    RollBack {
        #[command(flatten)]
        coupon: CodeRef,
        /// The id of the use
        #[arg(long, value_name = "ID")]
        usage_id: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct CreateBookArgs {
    /// 1 to 64 characters of a-z 0-9 _ - .
    book: String,
    /// For people
    #[arg(long, default_value = "")]
    name: String,
    /// In which campaign, if in one
    #[arg(long, value_name = "ID", default_value = "")]
    campaign: String,
    /// For people
    #[arg(long, default_value = "")]
    description: String,
    /// A picture of it
    #[arg(long, value_name = "URL", default_value = "")]
    picture_url: String,
    /// What it is called elsewhere
    #[arg(long, value_name = "ID", default_value = "")]
    external_id: String,
    /// As percentage
    #[arg(long, value_name = "NAME", default_value = "")]
    discount_type: String,
    /// How much of it
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    discount_amount: i64,
    /// Its codes may be used from this instant on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    valid_from: Option<Timestamp>,
    /// Its codes may be used before this instant (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    valid_to: Option<Timestamp>,
    /// Days after which a code that a member was given ends
    #[arg(long, value_name = "DAYS", default_value_t = 0, hide_default_value = true)]
    expire_after_days: u32,
    /// How often each code may be used
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    uses_max: u32,
    #[command(flatten)]
    codes: CodesArgs,
    /// Makes a repeated call harmless
    #[arg(long, value_name = "ID", default_value = "")]
    request_id: String,
}

/// Codes: from a file, or made by the server.
#[derive(Args, Debug)]
pub(super) struct CodesArgs {
    /// A file with one code a line
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    codes_file: Option<PathBuf>,
    /// Let the server make so many
    #[arg(long, value_name = "COUNT")]
    generate: Option<u32>,
    /// What stands before each of them
    #[arg(long, value_name = "TEXT", default_value = "", requires = "generate")]
    prefix: String,
}

#[derive(Args, Debug)]
pub(super) struct CodeRef {
    /// Of which book
    book: String,
    /// Which
    code: String,
}

const BOOK_COLUMNS: &[&str] =
    &["coupon_book_id", "name", "campaign_id", "generated", "codes", "assigned", "used", "valid_to"];

impl CodesArgs {
    fn read(self) -> Result<Option<v1::CouponCodes>, Failure> {
        use v1::coupon_codes::Kind;
        let kind = match (self.codes_file, self.generate) {
            (Some(file), _) => Some(Kind::Listed(v1::ListedCodes { codes: codes_of(&file)? })),
            (None, Some(count)) => Some(Kind::Generated(v1::GeneratedCodes { count, prefix: self.prefix })),
            (None, None) => None,
        };
        Ok(kind.map(|kind| v1::CouponCodes { kind: Some(kind) }))
    }
}

fn codes_of(file: &Path) -> Result<Vec<String>, Failure> {
    let text = input::read_text(Some(file))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

pub(super) async fn run(command: CouponsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = RewardServiceClient::new(client.service());
    let coupon = match command {
        CouponsCommand::CreateBook(args) => {
            let book = v1::CouponBook {
                coupon_book_id: args.book,
                campaign_id: args.campaign,
                name: args.name,
                external_id: args.external_id,
                description: args.description,
                picture_url: args.picture_url,
                discount_type: args.discount_type,
                discount_amount: args.discount_amount,
                valid_from: args.valid_from,
                valid_to: args.valid_to,
                expire_after_days: args.expire_after_days,
                uses_max: args.uses_max,
                ..Default::default()
            };
            let (codes, request_id) = (args.codes.read()?, args.request_id);
            let request = v1::CreateCouponBookRequest { coupon_book: Some(book), codes, request_id };
            return Ok(Answer::One(json(&service.create_coupon_book(request).await?.into_inner())));
        }
        CouponsCommand::Add { book, codes, request_id } => {
            let request = v1::AddCouponsRequest { coupon_book_id: book, codes: codes.read()?, request_id };
            return Ok(Answer::One(json(&service.add_coupons(request).await?.into_inner())));
        }
        CouponsCommand::Books(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListCouponBooksRequest { page_size, page_token };
                    let page = service.list_coupon_books(request).await?.into_inner();
                    Ok((page.coupon_books, page.next_page_token))
                })
                .await?;
            return Ok(Answer::Rows(BOOK_COLUMNS, json_all(&all)));
        }
        CouponsCommand::Book { book } => {
            let request = v1::GetCouponBookRequest { coupon_book_id: book };
            return Ok(Answer::One(json_of(&service.get_coupon_book(request).await?.into_inner().coupon_book)));
        }
        CouponsCommand::Get(CodeRef { book, code }) => {
            let request = v1::GetCouponRequest { coupon_book_id: book, code };
            service.get_coupon(request).await?.into_inner().coupon
        }
        CouponsCommand::Assign { member, book, code, usage_id } => {
            let mut members = MemberServiceClient::new(client.service());
            let member_id = member.resolve(&mut members).await?.id();
            let request = v1::AssignCouponRequest { member_id, coupon_book_id: book, code, usage_id };
            service.assign_coupon(request).await?.into_inner().coupon
        }
        CouponsCommand::Use { coupon: CodeRef { book, code }, usage_id, order_id, discount_amount } => {
            let request = v1::UseCouponRequest { coupon_book_id: book, code, usage_id, order_id, discount_amount };
            service.use_coupon(request).await?.into_inner().coupon
        }
        CouponsCommand::RollBack { coupon: CodeRef { book, code }, usage_id, reason } => {
            let request = v1::RollBackCouponRequest { coupon_book_id: book, code, reverted_usage_id: usage_id, reason };
            service.roll_back_coupon(request).await?.into_inner().coupon
        }
    };
    Ok(Answer::One(json_of(&coupon)))
}
