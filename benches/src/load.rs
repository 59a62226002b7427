//! What every scenario needs: a server with a campaign and members, and consumptions for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use punchline_proto::v1;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use punchline_tests::api::{Api, Line};
use punchline_tests::server::Server;
use tokio::task::JoinSet;

const CAMPAIGN: &str = "bench";
/// Members are registered by so many at once, so many in a call.
const WORKERS: u64 = 4;
const BATCH: usize = 250;

/// A server under load, and who calls it.
pub struct Load {
    pub server: Server,
    pub api: Api,
    members: u64,
    next: Arc<AtomicU64>,
}

impl Load {
    /// A server with `members` members who have joined a campaign of two rules and a punchcard.
    pub async fn start(members: u64) -> Load {
        let server = Server::setup().with("log.filter", "warn").start().await;
        let (_, api) = server.operator().new_advertiser("Bench").await;
        let campaign = v1::CreateCampaignRequest { campaign: Some(campaign()), ..Default::default() };
        api.campaigns().create_campaign(campaign).await.expect("the campaign is accepted");
        let next = Arc::new(AtomicU64::new(0));
        let mut registering = JoinSet::new();
        for worker in 0..WORKERS {
            let api = api.clone();
            registering.spawn(async move {
                let ids: Vec<u64> = (worker..members).step_by(WORKERS as usize).collect();
                for ids in ids.chunks(BATCH) {
                    let one = |n: &u64| v1::RegisterMemberRequest {
                        identifiers: vec![phone(*n)],
                        join_campaign_ids: vec![CAMPAIGN.into()],
                        suppress_events: true,
                        ..Default::default()
                    };
                    let request = v1::BatchRegisterMembersRequest { requests: ids.iter().map(one).collect() };
                    let answer = api.members().batch_register_members(request).await.expect("members are registered");
                    let registered = |r: &v1::RegisterMemberResult| {
                        matches!(r.outcome, Some(v1::register_member_result::Outcome::MemberId(_)))
                    };
                    assert!(answer.into_inner().results.iter().all(registered), "all of them");
                }
            });
        }
        while let Some(registered) = registering.join_next().await {
            registered.expect("registering does not fail");
        }
        Load { server, api, members, next }
    }

    /// A client of its own connection.
    pub fn client(&self) -> IngestServiceClient<Line> {
        self.api.ingest()
    }

    /// Makes consumptions, each with an id of its own.
    pub fn source(&self) -> Source {
        Source { members: self.members, next: self.next.clone() }
    }
}

/// Makes consumptions, each with an id of its own.
#[derive(Clone)]
pub struct Source {
    members: u64,
    next: Arc<AtomicU64>,
}

impl Source {
    /// The next one: 10 points and a stamp, one in eight also a coin; members in a scattered order.
    pub fn next(&self) -> v1::Consumption {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let member = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.members;
        let sku = if n.is_multiple_of(8) { "coffee_and_tea" } else { "coffee" };
        v1::Consumption {
            consumption_id: format!("B{n:015}"),
            consumption_date: "2026-09-01T10:00:00Z".into(),
            identifiers: vec![phone(member)],
            lines: vec![v1::ConsumptionLine { sku: sku.into(), product_name: String::new(), quantity: 1.0 }],
        }
    }
}

fn phone(n: u64) -> v1::Identifier {
    v1::Identifier { key: "phoneNumber".into(), value: format!("407{n:08}") }
}

fn campaign() -> v1::Campaign {
    let stamps = || Some(v1::StampReward { punchcard_id: "card".into(), per_unit: 1 });
    let rule = |id: &str, sku: &str, coins| v1::EarningRule {
        rule_id: id.into(),
        skus: Some(v1::earning_rule::Skus::SkuExact(sku.into())),
        points: 10,
        coins,
        stamps: stamps(),
        ..Default::default()
    };
    v1::Campaign {
        campaign_id: CAMPAIGN.into(),
        rules: vec![rule("coffee", "coffee", 0), rule("both", "coffee_and_tea", 1)],
        punchcards: vec![v1::Punchcard { punchcard_id: "card".into(), row_length: 10, ..Default::default() }],
        ..Default::default()
    }
}
