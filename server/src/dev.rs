//! `punchline serve --dev`: the newcomer's server, with known credentials and something to try.
//!
//! # Invariants
//!
//! - It listens on loopback only: everybody knows its credentials.
//! - Loading is idempotent: a second start finds everything there and writes nothing.
//! - The known keys are in force in no journal that is served without `--dev`, and `--dev` brings them
//!   into none that it did not begin: both have the same data directory by default.

use std::io::Write as _;

use punchline_engine::command::{Action, Command};
use punchline_engine::id::{AdvertiserId, CredentialId, Environment, Tenant};
use punchline_engine::loyalty::member::{Identifier, IdentifierKind, Profile};
use punchline_engine::loyalty::tenant::{Credential, Directory, NO_SECRET, Scope, TenantConfig};
use punchline_engine::rejection::Rejection;
use punchline_runtime::committer::{Outcome, Refusal};
use punchline_runtime::ids;
use punchline_runtime::node::Node;

use crate::config::{Config, Secret};
use crate::refuse::Refused;
use crate::serve::{Running, StartError};
use crate::{auth, campaign_file, convert};

/// The advertiser.
pub const ADVERTISER: AdvertiserId = AdvertiserId::FIRST;
/// The `apiKey` of its pair, in both environments.
pub const API_KEY: &str = "dev-key";
/// Its `apiSecret`.
pub const API_SECRET: &str = "dev-secret";
/// The write key of Segment's clients, for production.
pub const WRITE_KEY: &str = "dev-write-key";
/// The operator token; `config/dev.toml` sets it.
pub const OPERATOR_TOKEN: &str = "dev-operator";
/// The member's phone number.
pub const PHONE: &str = "40720005123";
/// The member's e-mail address.
pub const EMAIL: &str = "user@example.com";

/// The demo campaign.
const CAMPAIGN: &str = include_str!("../../deploy/demo/campaign.toml");

/// Refuses what others could reach.
///
/// # Errors
///
/// [`StartError::NotLoopback`], with the setting.
pub fn check(config: &Config) -> Result<(), StartError> {
    let server = &config.server;
    let binds = [
        ("server.grpc_bind", server.grpc_bind),
        ("server.http_bind", server.http_bind),
        ("server.metrics_bind", server.metrics_bind),
    ];
    match binds.into_iter().find(|(_, address)| !address.ip().is_loopback()) {
        Some((key, address)) => Err(StartError::NotLoopback { key, address }),
        None => Ok(()),
    }
}

/// Refuses real data with `--dev`, and the known key pair without.
///
/// # Errors
///
/// [`StartError::NotDevData`]; [`StartError::KnownCredentials`], with whose they are.
pub fn check_journal(directory: &Directory, is_dev: bool) -> Result<(), StartError> {
    let known = known_credentials(directory);
    match (known, is_dev) {
        (None, true) if !directory.advertisers.is_empty() => Err(StartError::NotDevData),
        (Some(tenant), false) => Err(StartError::KnownCredentials { tenant }),
        _ => Ok(()),
    }
}

/// Where the known key pair or the known write key is in force.
fn known_credentials(directory: &Directory) -> Option<Tenant> {
    let key: CredentialId = API_KEY.parse().expect("a valid api key");
    let secret_hash = auth::hash(API_SECRET);
    let write_key: CredentialId = WRITE_KEY.parse().expect("a valid write key");
    let is_known = |config: &TenantConfig| {
        let in_force = |id| config.credentials.get(id).filter(|c| c.revoked_at.is_none());
        in_force(&key).is_some_and(|c| c.secret_hash == secret_hash)
            || in_force(&write_key).is_some_and(|c| c.write_key)
    };
    directory.tenants.iter().find(|(_, config)| is_known(config)).map(|(tenant, _)| *tenant)
}

/// Makes sure that advertiser, keys, campaign and member are there, in both environments.
///
/// # Errors
///
/// [`StartError::Dev`], with the part that could not be loaded.
pub async fn load(node: &Node) -> Result<(), StartError> {
    if !node.directory().advertisers.contains_key(&ADVERTISER) {
        let tenant = Tenant { advertiser: ADVERTISER, environment: Environment::Production };
        let action = Action::CreateAdvertiser { advertiser_id: Some(ADVERTISER), name: "Development".into() };
        ensure(node, tenant, "the advertiser", action).await?;
    }
    for environment in Environment::ALL {
        let tenant = Tenant { advertiser: ADVERTISER, environment };
        load_tenant(node, tenant).await?;
    }
    Ok(())
}

async fn load_tenant(node: &Node, tenant: Tenant) -> Result<(), StartError> {
    let campaign = campaign_file::parse(CAMPAIGN).expect("the embedded campaign is valid: a test parses it");
    let campaign = convert::campaign::campaign(campaign).expect("the embedded campaign is valid: a test converts it");
    let now = node.clock().now();
    let directory = node.directory();
    let config = directory.tenant(tenant).cloned().unwrap_or_default();
    let key = API_KEY.parse().expect("a valid api key");
    if !config.credentials.contains_key(&key) {
        let credential = Credential {
            id: key,
            secret_hash: auth::hash(API_SECRET),
            scopes: vec![Scope::Ingest, Scope::Read, Scope::Manage],
            description: "made by serve --dev".into(),
            created_at: now,
            revoked_at: None,
            write_key: false,
        };
        ensure(node, tenant, "the api key", Action::IssueCredential { credential }).await?;
    }
    let write_key = WRITE_KEY.parse().expect("a valid write key");
    // A write key names one tenant.
    if tenant.environment == Environment::Production && !config.credentials.contains_key(&write_key) {
        let credential = Credential {
            id: write_key,
            secret_hash: NO_SECRET,
            scopes: vec![Scope::Ingest],
            description: "made by serve --dev".into(),
            created_at: now,
            revoked_at: None,
            write_key: true,
        };
        ensure(node, tenant, "the write key", Action::IssueCredential { credential }).await?;
    }
    let campaign_id = campaign.id.clone();
    if !config.campaigns.contains_key(&campaign_id) {
        ensure(node, tenant, "the campaign", Action::CreateCampaign { campaign }).await?;
    }
    let identifiers = [(IdentifierKind::PhoneNumber, PHONE), (IdentifierKind::Email, EMAIL)];
    let identifiers = identifiers.into_iter().map(|(kind, value)| Identifier { kind, value: value.into() });
    let register = Action::RegisterMember {
        member_id: ids::member_id(now),
        identifiers: identifiers.collect(),
        profile: Profile { first_name: "Dev".into(), ..Profile::default() },
        registration_source: "serve --dev".into(),
        join: vec![campaign_id.clone()],
        quiet: false,
    };
    let command = |action| Command { tenant, request_id: None, action };
    match node.submitter().submit(command(register)).await {
        Ok(_) => Ok(()),
        Err(Refusal::Rejected(Rejection::IdentifierTaken { owner, .. })) => {
            let join = Action::JoinCampaign { member_id: owner, campaign_id };
            ensure(node, tenant, "the member's card", join).await
        }
        Err(refusal) => Err(failed("the member", refusal)),
    }
}

async fn ensure(node: &Node, tenant: Tenant, what: &'static str, action: Action) -> Result<(), StartError> {
    match node.submitter().submit(Command { tenant, request_id: None, action }).await {
        Ok(Outcome::Accepted(_) | Outcome::Already(_)) => Ok(()),
        Err(refusal) => Err(failed(what, refusal)),
    }
}

fn failed(what: &'static str, refusal: Refusal) -> StartError {
    StartError::Dev { what, refused: Box::new(Refused::from(refusal)) }
}

/// What a newcomer is told: credentials, and lines to paste.
pub fn greeting(running: &Running, config: &Config) -> String {
    let is_tls = config.server.tls.is_some();
    let operator_token = operator_token(&config.security.operator_token);
    let scheme = if is_tls { "https" } else { "http" };
    let Running { http_addr: http, grpc_addr: grpc, metrics_addr: metrics, .. } = running;
    let http = format!("{scheme}://{http}");
    // The command line looks here by itself.
    let usual = !is_tls && grpc.port() == 50_051;
    let endpoint = if usual { String::new() } else { format!(" --endpoint {scheme}://{grpc}") };
    format!(
        r#"
Punchline {version}, development server. Known credentials, loopback only.

  HTTP     {http}      gRPC  {grpc}      metrics  http://{metrics}/metrics

  advertiser      {ADVERTISER}     (production and staging)
  apiKey          {API_KEY}
  apiSecret       {API_SECRET}
  write key       {WRITE_KEY}   (for Segment's clients; production)
  operator token  {operator_token}
  member          phone {PHONE}, e-mail {EMAIL}; has joined velo-club

Try it (staging; without the "staging-" it is production):

  TOKEN=$(curl -s -X POST {http}/staging-usermanagement/api/advertiser/v1/authorize \
    -H 'apiKey: {API_KEY}' -H 'apiSecret: {API_SECRET}' -H 'Content-Type: application/json-patch+json' \
    -d '{{"advertiserId":"{ADVERTISER}"}}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')

  curl -s -X POST {http}/staging-campaigns/api/advertiser-integration/v1/consumption \
    -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json-patch+json' \
    -d '{{"consumptionId":"I198037776491223","consumptionDate":"20250425T12:34:00Z","identifiers":[{{"key":"phoneNumber","value":"{PHONE}"}},{{"key":"email","value":"{EMAIL}"}}],"consumptionLines":[{{"sku":"velo_pk_poll_strength","quantity":1}}]}}'

  punchline{endpoint} --environment staging members lookup --phone {PHONE}
  punchline{endpoint} --environment staging events tail
"#,
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// What the greeting says: another than the known one is a secret.
fn operator_token(configured: &Secret) -> &'static str {
    match configured.expose() {
        OPERATOR_TOKEN => OPERATOR_TOKEN,
        "" => "none",
        _ => "as configured",
    }
}

/// Writes to stderr, for people: not a log line.
pub(crate) fn tell(text: &str) {
    // Where stderr is closed, nobody is there to be told.
    drop(writeln!(std::io::stderr(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::event::{AdvertiserCreated, CredentialIssued, CredentialRevoked, Event, Recorded};
    use punchline_engine::id::{KeySlot, Sequence};
    use punchline_engine::time::UnixMillis;

    fn issued(id: &str, secret: &str) -> Event {
        let credential = Credential {
            id: id.parse().expect("a slug"),
            secret_hash: auth::hash(secret),
            scopes: Vec::new(),
            description: String::new(),
            created_at: UnixMillis(0),
            revoked_at: None,
            write_key: id == WRITE_KEY,
        };
        CredentialIssued { credential }.into()
    }

    #[test]
    fn known_credentials_and_real_data_stay_apart() {
        let created = || AdvertiserCreated { advertiser_id: ADVERTISER, name: "Velo".into() }.into();
        let revoked = || CredentialRevoked { credential_id: API_KEY.parse().expect("a slug") }.into();
        for (what, events, dev_starts, plain_starts) in [
            ("nothing", vec![], true, true),
            ("real data", vec![created(), issued("key", "secret")], false, true),
            ("another secret", vec![created(), issued(API_KEY, "secret")], false, true),
            ("dev data", vec![created(), issued(API_KEY, API_SECRET)], true, false),
            ("the write key", vec![created(), issued(WRITE_KEY, "")], true, false),
            ("revoked", vec![created(), issued(API_KEY, API_SECRET), revoked()], false, true),
        ] {
            let mut directory = Directory::default();
            let tenant = Tenant { advertiser: ADVERTISER, environment: Environment::Production };
            for (event, sequence) in events.iter().zip((1..).map(Sequence)) {
                let recorded = Recorded {
                    sequence,
                    cause: sequence,
                    time: UnixMillis(0),
                    tenant,
                    member: None,
                    quiet: false,
                    key_slot: KeySlot::NONE,
                    event,
                };
                directory.apply(&recorded);
            }
            let starts = |is_dev| check_journal(&directory, is_dev).is_ok();
            assert_eq!((starts(true), starts(false)), (dev_starts, plain_starts), "{what}");
        }
    }

    #[test]
    fn the_greeting_shows_the_token_that_is_in_force() {
        for (configured, told) in [(OPERATOR_TOKEN, OPERATOR_TOKEN), ("hush-hush-hush", "as configured"), ("", "none")]
        {
            assert_eq!(operator_token(&Secret::new(configured)), told);
        }
    }

    #[test]
    fn the_embedded_campaign_is_valid() {
        let campaign = campaign_file::parse(CAMPAIGN).expect("parses");
        let campaign = convert::campaign::campaign(campaign).expect("converts");
        campaign.validate().expect("valid");
        assert_eq!(campaign.id.as_str(), "velo-club");
    }

    #[test]
    fn the_member_has_normal_identifiers() {
        for (kind, value) in [("phoneNumber", PHONE), ("email", EMAIL)] {
            assert_eq!(Identifier::parse("", kind, value).expect("valid").value, value);
        }
    }
}
