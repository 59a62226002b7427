//! Where most stories begin: a server, an advertiser with the test campaign, one member who has joined.

use std::collections::BTreeSet;

use punchline_proto::v1;

use crate::api::{Api, consumption};
use crate::campaign::{CAMPAIGN, campaign};
use crate::http;
use crate::receiver::Receiver;
use crate::server::{Server, Setup};
use crate::wait::{SOON, until};

/// The member's phone number.
pub const PHONE: &str = "40720005123";

/// The beginning of a story.
#[derive(Debug)]
pub struct World {
    /// Running.
    pub server: Server,
    /// Listening.
    pub receiver: Receiver,
    /// An operator's calls about the advertiser.
    pub api: Api,
    /// The advertiser.
    pub advertiser_id: String,
    /// The member.
    pub member_id: String,
}

impl World {
    /// Makes one.
    pub async fn start(setup: Setup) -> World {
        let server = setup.start().await;
        let (advertiser_id, api) = server.operator().new_advertiser("Stories").await;
        let member_id = populate(&api).await;
        World { server, receiver: Receiver::start().await, api, advertiser_id, member_id }
    }

    /// Issues a key with these scopes and hands out its token, over HTTP as clients do.
    pub async fn token(&self, advertiser_id: &str, scopes: &[v1::Scope]) -> String {
        let request = v1::IssueCredentialRequest {
            scopes: scopes.iter().map(|&scope| scope.into()).collect(),
            ..Default::default()
        };
        let api = self.server.operator().advertiser(advertiser_id);
        let issued = api.admin().issue_credential(request).await.expect("an operator may issue keys").into_inner();
        let api_key = issued.credential.expect("a credential").api_key;
        authorize(&self.server, advertiser_id, &api_key, &issued.api_secret).await
    }

    /// Subscribes a path of the receiver to these types.
    pub async fn subscribe(&self, path: &str, types: &[&str], retry_delays_ms: &[u64]) -> String {
        let (id, secret) = self
            .api
            .new_subscription(v1::Subscription {
                url: self.receiver.url(path),
                event_types: types.iter().map(|&name| name.into()).collect(),
                retry_delays_ms: retry_delays_ms.to_vec(),
                ..Default::default()
            })
            .await;
        self.receiver.secret(path, &secret);
        id
    }

    /// The member has one article: a consumption that causes one `points.credited`.
    pub async fn article(&self, id: &str) -> v1::Receipt {
        self.api.record(consumption(id, PHONE, &[("article", 1)])).await.expect("an article is accepted")
    }

    /// Waits until `path` has taken `count` events, and returns their sequences.
    pub async fn delivered(&self, path: &str, count: usize) -> BTreeSet<u64> {
        let receiver = &self.receiver;
        until(&format!("{path} takes {count} events"), SOON, async || match receiver.delivered_count(path) {
            n if n >= count => Ok(receiver.delivered(path)),
            n => Err(format!("it has {n}, of {} requests", receiver.requests(path))),
        })
        .await
    }
}

/// Creates the test campaign and the member, who joins it; returns the member's id.
pub async fn populate(api: &Api) -> String {
    let request = v1::CreateCampaignRequest { campaign: Some(campaign()), ..Default::default() };
    api.campaigns().create_campaign(request).await.expect("the campaign is sound");
    api.new_member(PHONE, &[CAMPAIGN]).await
}

/// Exchanges a key pair for an access token, by Wecheer's route.
pub async fn authorize(server: &Server, advertiser_id: &str, api_key: &str, api_secret: &str) -> String {
    let headers = [("apiKey", api_key), ("apiSecret", api_secret), ("Content-Type", "application/json-patch+json")];
    let body = format!(r#"{{"advertiserId":"{advertiser_id}"}}"#);
    let path = "/usermanagement/api/advertiser/v1/authorize";
    let answer = http::post(&server.http_address(), path, &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["advertiserId"], advertiser_id);
    answer.json()["accessToken"].as_str().expect("an access token").to_owned()
}
