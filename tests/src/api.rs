//! Calls over gRPC, and what their refusals say.

use std::time::Duration;

use prost::Message;
use punchline_proto::v1;
use punchline_proto::v1::admin_service_client::AdminServiceClient;
use punchline_proto::v1::campaign_service_client::CampaignServiceClient;
use punchline_proto::v1::delivery_service_client::DeliveryServiceClient;
use punchline_proto::v1::event_service_client::EventServiceClient;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use punchline_proto::v1::ledger_service_client::LedgerServiceClient;
use punchline_proto::v1::member_service_client::MemberServiceClient;
use punchline_proto::v1::reward_service_client::RewardServiceClient;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_types::pb;

/// A channel that says who calls.
pub type Line = InterceptedService<Channel, Caller>;

/// Longest that a call may take: no answer at all is a finding too.
const CALL_MAX: Duration = Duration::from_secs(300);
/// Largest answer that is read, and largest request that is sent: larger than what a server should take.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Puts the caller's metadata on each call.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    metadata: Vec<(&'static str, String)>,
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.metadata {
            let value = MetadataValue::try_from(value).map_err(|e| Status::internal(e.to_string()))?;
            request.metadata_mut().insert(*name, value);
        }
        Ok(request)
    }
}

/// Somebody's way to a server.
#[derive(Clone, Debug)]
pub struct Api {
    channel: Channel,
    caller: Caller,
}

macro_rules! clients {
    ($($name:ident: $client:ident,)*) => {
        impl Api {
            $(
                #[doc = concat!("`", stringify!($client), "` of this caller.")]
                pub fn $name(&self) -> $client<Line> {
                    $client::with_interceptor(self.channel.clone(), self.caller.clone())
                        .max_decoding_message_size(MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(MESSAGE_BYTES_MAX)
                }
            )*
        }
    };
}

clients! {
    admin: AdminServiceClient,
    campaigns: CampaignServiceClient,
    deliveries: DeliveryServiceClient,
    events: EventServiceClient,
    ingest: IngestServiceClient,
    ledger: LedgerServiceClient,
    members: MemberServiceClient,
    rewards: RewardServiceClient,
    subscriptions: SubscriptionServiceClient,
}

impl Api {
    /// Nobody's way to the server at `address`; over TLS for (domain, trusted certificate as PEM).
    ///
    /// # Panics
    ///
    /// If `address` is none.
    pub fn new(address: &str, tls: Option<(&str, &str)>) -> Api {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .expect("an address")
            .timeout(CALL_MAX)
            .connect_timeout(Duration::from_secs(5))
            .http2_max_header_list_size(1 << 20);
        if let Some((domain, pem)) = tls {
            let config = ClientTlsConfig::new().domain_name(domain).ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint.tls_config(config).expect("a certificate");
        }
        Api { channel: endpoint.connect_lazy(), caller: Caller::default() }
    }

    /// The bare channel.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The same way, with this token.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Api {
        self.metadata("authorization", format!("Bearer {token}"))
    }

    /// The same way, about this advertiser (for operators).
    #[must_use]
    pub fn advertiser(&self, advertiser_id: &str) -> Api {
        self.metadata("punchline-advertiser", advertiser_id.into())
    }

    /// The same way, about this environment.
    #[must_use]
    pub fn environment(&self, environment: &str) -> Api {
        self.metadata("punchline-environment", environment.into())
    }

    fn metadata(&self, name: &'static str, value: String) -> Api {
        let mut caller = self.caller.clone();
        caller.metadata.retain(|(old, _)| *old != name);
        caller.metadata.push((name, value));
        Api { channel: self.channel.clone(), caller }
    }

    /// Sends one consumption.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn record(&self, consumption: v1::Consumption) -> Result<v1::Receipt, Refused> {
        let request = v1::RecordConsumptionRequest { consumption: Some(consumption) };
        let answer = self.ingest().record_consumption(request).await.map_err(|status| Refused::of(&status))?;
        Ok(answer.into_inner().receipt.expect("an accepted consumption has a receipt"))
    }

    /// Takes an advertiser on, and returns the same way, about it.
    pub async fn new_advertiser(&self, name: &str) -> (String, Api) {
        let request = v1::CreateAdvertiserRequest { name: name.into(), ..Default::default() };
        let created = self.admin().create_advertiser(request).await.expect("an operator may create advertisers");
        let id = created.into_inner().advertiser.expect("an advertiser").advertiser_id;
        let api = self.advertiser(&id);
        (id, api)
    }

    /// Registers a member with one phone number, who joins the campaigns; returns its id.
    pub async fn new_member(&self, phone: &str, campaign_ids: &[&str]) -> String {
        let request = v1::RegisterMemberRequest {
            identifiers: vec![identifier("phoneNumber", phone)],
            join_campaign_ids: campaign_ids.iter().map(|&id| id.into()).collect(),
            ..Default::default()
        };
        let answer = self.members().register_member(request).await.expect("a new number is taken in");
        answer.into_inner().member.expect("a member").member_id
    }

    /// Subscribes; returns the subscription's id and secret.
    pub async fn new_subscription(&self, subscription: v1::Subscription) -> (String, String) {
        let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), ..Default::default() };
        let answer = self.subscriptions().create_subscription(request).await.expect("a subscription is taken in");
        let answer = answer.into_inner();
        (answer.subscription.expect("a subscription").subscription_id, answer.secret)
    }

    /// A subscription as it stands.
    pub async fn subscription(&self, subscription_id: &str) -> v1::Subscription {
        let request = v1::GetSubscriptionRequest { subscription_id: subscription_id.into() };
        let answer = self.subscriptions().get_subscription(request).await.expect("it exists");
        answer.into_inner().subscription.expect("a subscription")
    }

    /// Points of each campaign, under its id, and coins under `coins`.
    pub async fn balances(&self, member_id: &str) -> std::collections::BTreeMap<String, i64> {
        let request = v1::GetBalancesRequest { member_id: member_id.into(), ..Default::default() };
        let answer = self.ledger().get_balances(request).await.expect("the member exists").into_inner();
        answer.balances.into_iter().map(|balance| (currency(&balance), balance.amount)).collect()
    }

    /// A member's punchcards: (stamps, rows completed) by id.
    pub async fn punchcards(&self, member_id: &str) -> std::collections::BTreeMap<String, (u64, u64)> {
        let request = v1::ListPunchcardsRequest { member_id: member_id.into() };
        let answer = self.ledger().list_punchcards(request).await.expect("the member exists").into_inner();
        answer.punchcards.into_iter().map(|card| (card.punchcard_id, (card.stamps, card.rows_completed))).collect()
    }

    /// All events of these types from `from_sequence` on, and where to go on.
    pub async fn events_from(&self, mut from_sequence: u64, types: &[&str]) -> (Vec<v1::Event>, u64) {
        let event_types: Vec<String> = types.iter().map(|&name| name.into()).collect();
        let mut events = Vec::new();
        loop {
            let filter = v1::EventFilter { event_types: event_types.clone(), ..Default::default() };
            let request = v1::ReadEventsRequest { from_sequence, filter: Some(filter), page_size: 500 };
            let page = self.events().read_events(request).await.expect("events can be read").into_inner();
            assert!(page.next_sequence >= from_sequence, "reading goes forward");
            events.extend(page.events);
            from_sequence = page.next_sequence;
            if page.next_sequence > page.head_sequence {
                return (events, from_sequence);
            }
        }
    }

    /// The journal's head.
    pub async fn head(&self) -> u64 {
        self.status().await.head_sequence
    }

    /// How the server is; for operators.
    pub async fn status(&self) -> v1::GetStatusResponse {
        self.admin().get_status(v1::GetStatusRequest {}).await.expect("an operator may ask").into_inner()
    }
}

/// An identifier.
pub fn identifier(key: &str, value: &str) -> v1::Identifier {
    v1::Identifier { key: key.into(), value: value.into() }
}

/// A consumption of the member with this phone number, of (SKU, quantity) each.
pub fn consumption(id: &str, phone: &str, lines: &[(&str, u64)]) -> v1::Consumption {
    let line = |&(sku, quantity): &(&str, u64)| v1::ConsumptionLine {
        sku: sku.into(),
        product_name: String::new(),
        quantity: quantity as f64,
    };
    v1::Consumption {
        consumption_id: id.into(),
        consumption_date: "20260915T12:34:00Z".into(),
        identifiers: vec![identifier("phoneNumber", phone)],
        lines: lines.iter().map(line).collect(),
    }
}

/// The campaign's id, or `coins`.
pub fn currency(balance: &v1::Balance) -> String {
    match &balance.currency {
        Some(v1::balance::Currency::PointsOfCampaignId(id)) => id.clone(),
        Some(v1::balance::Currency::Coins(_)) => "coins".into(),
        None => panic!("a balance is of some currency"),
    }
}

/// A refusal, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Its code.
    pub code: tonic::Code,
    /// For people.
    pub message: String,
    /// `ErrorInfo.reason`; empty: the error came without.
    pub reason: String,
    /// The first field that `BadRequest` names; empty: none.
    pub field: String,
    /// What the first of two equal consumptions was answered.
    pub receipt: Option<Box<v1::Receipt>>,
    /// Whether `RetryInfo` says when to come back.
    pub retry_info: bool,
}

impl Refused {
    /// The refusal of a call.
    pub fn of(status: &Status) -> Refused {
        let details = pb::Status::decode(status.details()).unwrap_or_default();
        let mut refused = Refused::of_message(&details);
        refused.code = status.code();
        refused.message = status.message().into();
        refused
    }

    /// The refusal of one item of a batch.
    pub fn of_message(status: &pb::Status) -> Refused {
        let mut refused = Refused {
            code: tonic::Code::from_i32(status.code),
            message: status.message.clone(),
            reason: String::new(),
            field: String::new(),
            receipt: None,
            retry_info: false,
        };
        for any in &status.details {
            let value = any.value.as_slice();
            match any.type_url.rsplit('/').next().unwrap_or_default() {
                "google.rpc.ErrorInfo" => {
                    let info = pb::ErrorInfo::decode(value).expect("an ErrorInfo");
                    assert_eq!(info.domain, "punchline", "every error is of this domain");
                    refused.reason = info.reason;
                }
                "google.rpc.BadRequest" => {
                    let bad = pb::BadRequest::decode(value).expect("a BadRequest");
                    refused.field = bad.field_violations.first().map(|v| v.field.clone()).unwrap_or_default();
                }
                "google.rpc.RetryInfo" => refused.retry_info = true,
                "punchline.v1.Receipt" => {
                    refused.receipt = Some(Box::new(v1::Receipt::decode(value).expect("a Receipt")))
                }
                _ => {}
            }
        }
        refused
    }

    /// Whether the call may have been carried out all the same: the connection broke, or nobody answered.
    pub fn is_unknown_outcome(&self) -> bool {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
        self.reason.is_empty() && matches!(self.code, Cancelled | DeadlineExceeded | Unavailable | Unknown)
            || matches!(self.code, Unavailable)
    }
}

/// What came of one item of a batch or stream.
pub fn outcome(result: v1::ConsumptionResult) -> Result<v1::Receipt, Refused> {
    match result.outcome.expect("a result says what came of it") {
        v1::consumption_result::Outcome::Receipt(receipt) => Ok(receipt),
        v1::consumption_result::Outcome::Error(status) => Err(Refused::of_message(&status)),
    }
}
