//! Every call there is, with another advertiser's ids in every field that takes one.

use prost_reflect::FieldDescriptor;
use punchline_proto::v1;
use punchline_tests::api::{Api, consumption, identifier};
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::server::{OPERATOR_TOKEN, Server};
use punchline_tests::world::{World, populate};
use tonic::Code;

use super::reflected::{call, filled, methods};

/// In every text of B's that A could be shown.
const MARK: &str = "bmark7391";
const PHONE: &str = "40788888888";

/// What B has, by the names that fields have for it.
struct Theirs {
    advertiser_id: String,
    api: Api,
    member_id: String,
    subscription_id: String,
    sequence: u64,
}

impl Theirs {
    async fn make(world: &World) -> Theirs {
        let (advertiser_id, api) = world.server.operator().new_advertiser(MARK).await;
        populate(&api).await;
        let profile = v1::Profile { first_name: MARK.into(), ..Default::default() };
        let request = v1::RegisterMemberRequest {
            identifiers: vec![identifier("phoneNumber", PHONE), identifier("email", &format!("{MARK}@example.com"))],
            profile: Some(profile),
            join_campaign_ids: vec![CAMPAIGN.into()],
            ..Default::default()
        };
        let member = api.members().register_member(request).await.expect("registered").into_inner().member;
        let member_id = member.expect("a member").member_id;
        let campaign = v1::Campaign { campaign_id: "only-b".into(), name: MARK.into(), ..Default::default() };
        let request = v1::CreateCampaignRequest { campaign: Some(campaign), ..Default::default() };
        api.campaigns().create_campaign(request).await.expect("a campaign");
        let subscription = v1::Subscription {
            url: world.receiver.url(&format!("/{MARK}")),
            description: MARK.into(),
            event_types: vec!["*".into()],
            ..Default::default()
        };
        let (subscription_id, secret) = api.new_subscription(subscription).await;
        world.receiver.secret(&format!("/{MARK}"), &secret);
        let segment = v1::Segment {
            segment_id: "only-b".into(),
            condition: "true".into(),
            name: MARK.into(),
            ..Default::default()
        };
        let request = v1::CreateSegmentRequest { segment: Some(segment), ..Default::default() };
        api.campaigns().create_segment(request).await.expect("a segment");
        let codes = v1::ListedCodes { codes: vec![format!("{MARK}-code"), "B-2".into()] };
        let book = v1::CouponBook { coupon_book_id: "only-b".into(), name: MARK.into(), ..Default::default() };
        let request = v1::CreateCouponBookRequest {
            coupon_book: Some(book),
            codes: Some(v1::CouponCodes { kind: Some(v1::coupon_codes::Kind::Listed(codes)) }),
            ..Default::default()
        };
        api.rewards().create_coupon_book(request).await.expect("a book");
        let reward = v1::Reward {
            reward_id: "only-b".into(),
            campaign_id: CAMPAIGN.into(),
            reward_name: MARK.into(),
            cost: Some(v1::Cost { kind: Some(v1::cost::Kind::Points(1)) }),
            ..Default::default()
        };
        let request = v1::CreateRewardRequest { reward: Some(reward), ..Default::default() };
        api.rewards().create_reward(request).await.expect("a reward");
        let receipt = api.record(consumption(MARK, PHONE, &[("article", 1)])).await.expect("accepted");
        let redemption = v1::StartRedemptionRequest {
            member_id: member_id.clone(),
            redemption_id: "only-b".into(),
            reward_id: "only-b".into(),
        };
        api.rewards().start_redemption(redemption).await.expect("a redemption");
        let request = v1::ListEntriesRequest { member_id: member_id.clone(), ..Default::default() };
        let entries = api.ledger().list_entries(request).await.expect("entries").into_inner().entries;
        let sequence = entries.first().map_or(receipt.sequence, |entry| entry.sequence);
        Theirs { advertiser_id, api, member_id, subscription_id, sequence }
    }

    /// What stands in a field of a request that names something of theirs; and what else it takes to get there.
    fn value(&self, field: &FieldDescriptor, own_member: Option<&str>) -> String {
        match field.name() {
            "member_id" if own_member.is_some() => own_member.expect("just asked").into(),
            "member_id" | "to_member_id" | "from_member_id" | "member_ids" | "referrer_id" => self.member_id.clone(),
            "subscription_id" | "job_id" => self.subscription_id.clone(),
            "advertiser_id" => self.advertiser_id.clone(),
            name if name.ends_with("_id") || name.ends_with("_ids") => "only-b".into(),
            "code" | "codes" => "B-2".into(),
            "key" => "phoneNumber".into(),
            "value" => PHONE.into(),
            "url" => "http://127.0.0.1:9/".into(),
            "event_types" => "points.*".into(),
            "consumption_date" | "occurred_at" => "2026-09-15T12:34:00Z".into(),
            "condition" => "true".into(),
            "etag" | "page_token" | "filter" | "expression" | "dialect" | "properties_json" => String::new(),
            "consumer" | "sku" | "source" | "name" | "reason" | "reference" | "voucher_code" => "a-word".into(),
            _ => String::new(),
        }
    }

    /// Everything of theirs, as their operator sees it.
    async fn seen(&self) -> String {
        let member = v1::GetMemberRequest { member_id: self.member_id.clone() };
        let mut text = format!("{:?}", self.api.members().get_member(member).await.expect("there").into_inner());
        text += &format!("{:?}", self.api.balances(&self.member_id).await);
        let subscription = self.api.subscription(&self.subscription_id).await;
        text += &format!("{} {:?} {}", subscription.url, subscription.event_types, subscription.state);
        let events = self.api.events_from(1, &["*"]).await.0;
        let redemptions = v1::ListRedemptionsRequest::default();
        text += &format!("{:?}", self.api.rewards().list_redemptions(redemptions).await.expect("there").into_inner());
        let books = v1::ListCouponBooksRequest::default();
        text += &format!("{:?}", self.api.rewards().list_coupon_books(books).await.expect("there").into_inner());
        text + &format!("{events:?}")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_reaches_what_is_anothers() {
    let world = World::start(Server::setup()).await;
    let theirs = Theirs::make(&world).await;
    world.article("own").await;
    world.delivered(&format!("/{MARK}"), 1).await;
    let all = [v1::Scope::Ingest, v1::Scope::Read, v1::Scope::Manage];
    let token = world.token(&world.advertiser_id, &all).await;
    let own = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let mut as_operator = own(OPERATOR_TOKEN);
    as_operator.push(("punchline-advertiser", world.advertiser_id.clone()));
    let mut outright = own(&token);
    outright.push(("punchline-advertiser", theirs.advertiser_id.clone()));
    let before = theirs.seen().await;
    let nobody = Api::new(&world.server.grpc_address(), None);
    let methods = methods(nobody.channel()).await;
    assert!(methods.len() >= 100, "{} calls are described", methods.len());
    let mut not_theirs = Vec::new();
    for method in &methods {
        let name = method.name();
        for own_member in [None, Some(world.member_id.as_str())] {
            if name == "EraseMember" && own_member.is_some() {
                continue;
            }
            // What A makes is A's own, under ids of its own.
            let text = |field: &FieldDescriptor| match theirs.value(field, own_member) {
                id if id == "only-b" && name.starts_with("Create") => "own-a".into(),
                value => value,
            };
            let request = filled(&method.input(), &text, theirs.sequence as i64);
            // A's key, and an operator who speaks for A.
            for metadata in [&own(&token), &as_operator] {
                // An operator's backup is of everybody.
                if matches!(name, "CreateAdvertiser" | "Verify") || name == "StreamBackup" && metadata == &as_operator {
                    continue;
                }
                let answered = call(&nobody, method, &request, metadata).await;
                // No request of A's says it.
                assert!(!answered.holds(MARK), "{name} tells of B: {:?}", answered.status);
                let code = answered.status.as_ref().map_or(Code::Ok, tonic::Status::code);
                assert!(
                    !matches!(code, Code::Internal | Code::Unknown | Code::DataLoss),
                    "{name}: {:?}",
                    answered.status
                );
                if matches!(code, Code::NotFound | Code::PermissionDenied) {
                    not_theirs.push(name.to_owned());
                }
            }
            let answered = call(&nobody, method, &request, &outright).await;
            let code = answered.status.as_ref().map_or(Code::Ok, tonic::Status::code);
            assert_eq!(code, Code::PermissionDenied, "{name} as B outright: {:?}", answered.status);
        }
        assert_eq!(theirs.seen().await, before, "{name} changed what is B's");
    }
    not_theirs.sort();
    not_theirs.dedup();
    println!("{} of {} calls said NOT_FOUND or PERMISSION_DENIED: {not_theirs:?}", not_theirs.len(), methods.len());
    assert!(not_theirs.len() >= 60, "few requests got as far as to look for anything: {not_theirs:?}");
}
