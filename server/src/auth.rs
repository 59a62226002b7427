//! Who calls, for whom, and what they may do.
//!
//! ```text
//! operator token ───────────────┐
//! apiKey + apiSecret ──authorize──▶ access token ──caller_of──▶ Caller ──require──▶ Tenant
//! write key ─────────────────────────────────────────reports_for────────────────────▶ Tenant
//! ```
//!
//! # Invariants
//!
//! - Secrets and the operator token are compared in constant time; a key that does not exist takes the
//!   same path as a wrong secret.
//! - A token is worth nothing once its credential is revoked: the directory is asked at every call.
//! - A [`Tenant`] comes out of [`Caller::require`] and [`Auth::reports_for`] only, so no call reaches
//!   another tenant's data.
//! - A write key opens Segment's routes and nothing else; a pair's key does not open those.
//!
//! # What is absent on purpose
//!
//! - Sessions: an access token carries all there is to know, and survives a restart.

use std::sync::{Arc, PoisonError, RwLock};

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use punchline_engine::id::{AdvertiserId, CredentialId, Environment, Tenant};
use punchline_engine::loyalty::tenant::{Credential, Directory, Scope};
use punchline_engine::time::UnixMillis;
use punchline_runtime::node::Node;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::limits::RateLimiter;
use crate::refuse::{Refused, invalid_id};

/// Metadata that names the advertiser, with an operator token.
pub const ADVERTISER_METADATA: &str = "punchline-advertiser";
/// Metadata that names the environment, with an operator token; production where absent.
pub const ENVIRONMENT_METADATA: &str = "punchline-environment";

/// How long an access token is valid.
const TOKEN_VALID_MS: i64 = 3_600_000;
/// Verified tokens that are remembered; one more verification each is all that forgetting costs.
const TOKENS_CACHED: usize = 10_000;
/// Write keys whose tenant is remembered; a look through all tenants each is all that forgetting costs.
const WRITE_KEYS_CACHED: usize = 10_000;
/// Longest `authorization` value that is looked at: ours have some 300 bytes.
const AUTHORIZATION_BYTES_MAX: usize = 4_096;
/// Wrong secrets a minute for a tenant's keys, until none is looked at: a secret may have been chosen by a
/// person. Only keys that exist are counted: who knows but an advertiser's id locks nobody out.
const WRONG_SECRETS_PER_MINUTE: u32 = 30;
/// What the signing key is derived for.
const SIGNING_LABEL: &[u8] = b"punchline access token v1";

/// Hands out access tokens and knows callers by them.
pub struct Auth {
    node: Arc<Node>,
    operator: RwLock<Option<[u8; 32]>>,
    tokens: Tokens,
    wrong_secrets: RateLimiter,
    /// Where a write key was found last: to be looked at again, since it may have been revoked.
    write_keys: Cache<CredentialId, Tenant>,
}

/// What `authorize` hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// A JWT.
    pub token: String,
    /// For whose data.
    pub advertiser: AdvertiserId,
    /// Until when.
    pub expires_at: UnixMillis,
}

/// Somebody who is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Whose data the call is about; an operator may have named nobody's.
    pub tenant: Option<Tenant>,
    /// Whether it is an operator.
    pub operator: bool,
    /// What may be done.
    pub scopes: Scopes,
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(u8);

impl Scopes {
    /// All there are.
    pub const ALL: Scopes = Scopes(0b111);

    /// A set of these.
    pub fn of(scopes: &[Scope]) -> Scopes {
        Scopes(scopes.iter().fold(0, |set, scope| set | 1 << *scope as u8))
    }

    /// Whether `scope` is in it.
    pub fn holds(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }
}

impl Caller {
    /// The tenant, if `scope` is held.
    ///
    /// # Errors
    ///
    /// `SCOPE_MISSING`; `ADVERTISER_REQUIRED` where an operator named none.
    pub fn require(&self, scope: Scope) -> Result<Tenant, Refused> {
        if !self.scopes.holds(scope) {
            let name = match scope {
                Scope::Ingest => "ingest",
                Scope::Read => "read",
                Scope::Manage => "manage",
            };
            return Err(Refused::denied("SCOPE_MISSING", format!("the api key has no scope {name:?}")));
        }
        self.tenant.ok_or_else(|| {
            let invalid = punchline_engine::rejection::InvalidField::with_reason(
                "ADVERTISER_REQUIRED",
                ADVERTISER_METADATA,
                "",
                format!("metadata {ADVERTISER_METADATA} is required with an operator token"),
            );
            invalid.into()
        })
    }

    /// Lets operators pass.
    ///
    /// # Errors
    ///
    /// `OPERATOR_REQUIRED`.
    pub fn require_operator(&self) -> Result<(), Refused> {
        if self.operator {
            return Ok(());
        }
        Err(Refused::denied("OPERATOR_REQUIRED", "an operator token is required"))
    }
}

impl Auth {
    /// An empty operator token lets nobody in as operator.
    pub fn new(node: Arc<Node>, operator_token: &str, master_key: &[u8; 32]) -> Auth {
        let wrong_secrets = RateLimiter::new(WRONG_SECRETS_PER_MINUTE);
        let write_keys = Cache::new(WRITE_KEYS_CACHED);
        let operator = RwLock::new(hash_of_operator(operator_token));
        Auth { node, operator, tokens: Tokens::new(master_key), wrong_secrets, write_keys }
    }

    /// From now on this is the operator token, and none that was before.
    pub fn set_operator_token(&self, token: &str) {
        *self.operator.write().unwrap_or_else(PoisonError::into_inner) = hash_of_operator(token);
    }

    /// Hands out an access token for a key pair.
    ///
    /// # Errors
    ///
    /// `INVALID_CREDENTIALS`, whatever is wrong; `RATE_LIMIT_EXCEEDED` after too many wrong secrets.
    pub fn authorize(
        &self,
        api_key: &str,
        api_secret: &str,
        environment: Environment,
        advertiser_id: Option<&str>,
    ) -> Result<AccessToken, Refused> {
        let directory = self.node.directory();
        let found = find_credential(&directory, api_key, environment);
        let now = self.node.clock().now();
        if let Some(retry_after_ms) = found.and_then(|(tenant, _)| self.wrong_secrets.closed_for_ms(tenant, now)) {
            return Err(Refused::rate_limited(retry_after_ms));
        }
        let expected = found.map_or([0; 32], |(_, credential)| credential.secret_hash);
        let right = hash(api_secret).ct_eq(&expected);
        let wrong = || {
            found.map(|(tenant, _)| self.wrong_secrets.take(tenant, 1, now));
            Refused::invalid_credentials()
        };
        let (tenant, credential) = found.filter(|_| right.into()).ok_or_else(wrong)?;
        let own = advertiser_id.is_none_or(|id| id.parse() == Ok(tenant.advertiser));
        if !own || credential.revoked_at.is_some() {
            return Err(Refused::invalid_credentials());
        }
        let token = self.tokens.issue(tenant, credential, now)?;
        let expires_at = UnixMillis((now.0 + TOKEN_VALID_MS).div_euclid(1_000) * 1_000);
        Ok(AccessToken { token, advertiser: tenant.advertiser, expires_at })
    }

    /// The tenant that a write key reports for.
    ///
    /// # Errors
    ///
    /// `INVALID_CREDENTIALS`, whatever is wrong.
    pub fn reports_for(&self, write_key: &str) -> Result<Tenant, Refused> {
        let id: CredentialId = write_key.parse().map_err(|_| Refused::invalid_credentials())?;
        let directory = self.node.directory();
        let known = self.write_keys.get(&id).filter(|tenant| holds_write_key(&directory, *tenant, &id));
        if let Some(tenant) = known {
            return Ok(tenant);
        }
        let mut tenants = directory.tenants.keys().copied();
        let found = tenants.find(|tenant| holds_write_key(&directory, *tenant, &id));
        let tenant = found.ok_or_else(Refused::invalid_credentials)?;
        self.write_keys.insert(id, tenant);
        Ok(tenant)
    }

    /// Who calls, and for whom, by the headers of the call.
    ///
    /// # Errors
    ///
    /// As [`Auth::caller_of`].
    pub fn caller_by(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        // A value that is no text is as good as a wrong one.
        let text = |key: &str| headers.get(key).map(|value| value.to_str().unwrap_or(""));
        self.caller_of(text("authorization"), text(ADVERTISER_METADATA), text(ENVIRONMENT_METADATA))
    }

    /// The api key behind the access token of a call whose caller is known; `None`: it is an operator's token.
    pub fn credential_by(&self, headers: &HeaderMap) -> Option<CredentialId> {
        let token = bearer(headers.get("authorization")?.to_str().ok()?)?;
        Some(self.tokens.verify(token, self.node.clock().now()).ok()?.credential)
    }

    /// Who calls, by the value of the `authorization` header, and for whom.
    ///
    /// # Errors
    ///
    /// `CREDENTIALS_MISSING` and `INVALID_CREDENTIALS`; `ADVERTISER_NOT_FOUND` where an operator names
    /// none that exists; `TENANT_MISMATCH` where an access token's holder names another than its own.
    pub fn caller_of(
        &self,
        authorization: Option<&str>,
        advertiser: Option<&str>,
        environment: Option<&str>,
    ) -> Result<Caller, Refused> {
        let authorization = authorization.ok_or_else(Refused::credentials_missing)?;
        let token = bearer(authorization).ok_or_else(Refused::invalid_credentials)?;
        let directory = self.node.directory();
        let operator = *self.operator.read().unwrap_or_else(PoisonError::into_inner);
        if operator.is_some_and(|operator| hash(token).ct_eq(&operator).into()) {
            let tenant = named_tenant(&directory, advertiser, environment)?;
            return Ok(Caller { tenant, operator: true, scopes: Scopes::ALL });
        }
        let known = self.tokens.verify(token, self.node.clock().now())?;
        let config = directory.tenant(known.tenant);
        let credential = config.and_then(|config| config.credentials.get(&known.credential));
        if credential.is_none_or(|credential| credential.revoked_at.is_some()) {
            return Err(Refused::invalid_credentials());
        }
        let Tenant { advertiser: own, environment: own_environment } = known.tenant;
        let other_advertiser = advertiser.is_some_and(|named| named.parse() != Ok(own));
        let other_environment = environment.is_some_and(|named| named != own_environment.as_str());
        if other_advertiser || other_environment {
            let message = "the access token is for another advertiser or environment than the metadata names";
            return Err(Refused::denied("TENANT_MISMATCH", message));
        }
        Ok(Caller { tenant: Some(known.tenant), operator: false, scopes: known.scopes })
    }
}

/// Hashed, so that the comparison takes as long whatever the length.
fn hash_of_operator(token: &str) -> Option<[u8; 32]> {
    (!token.is_empty()).then(|| hash(token))
}

fn find_credential<'a>(
    directory: &'a Directory,
    api_key: &str,
    environment: Environment,
) -> Option<(Tenant, &'a Credential)> {
    let id: CredentialId = api_key.parse().ok()?;
    let mut tenants = directory.tenants.iter().filter(|(tenant, _)| tenant.environment == environment);
    // A write key is known to more people than a pair is, and must lock nobody out: to us it is no key.
    let pair = |credential: &&Credential| !credential.write_key;
    tenants.find_map(|(tenant, config)| Some((*tenant, config.credentials.get(&id).filter(pair)?)))
}

fn holds_write_key(directory: &Directory, tenant: Tenant, id: &CredentialId) -> bool {
    let credential = directory.tenant(tenant).and_then(|config| config.credentials.get(id));
    credential.is_some_and(|credential| credential.write_key && credential.revoked_at.is_none())
}

fn named_tenant(
    directory: &Directory,
    advertiser: Option<&str>,
    environment: Option<&str>,
) -> Result<Option<Tenant>, Refused> {
    let Some(advertiser) = advertiser else { return Ok(None) };
    let advertiser: AdvertiserId = advertiser.parse().map_err(invalid_id(ADVERTISER_METADATA))?;
    let environment = environment.map_or(Ok(Environment::Production), str::parse);
    let environment = environment.map_err(invalid_id(ENVIRONMENT_METADATA))?;
    let tenant = Tenant { advertiser, environment };
    match directory.tenant(tenant) {
        Some(_) => Ok(Some(tenant)),
        None => Err(Refused::not_found("ADVERTISER_NOT_FOUND", "advertiser", advertiser)),
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    let fits = !token.is_empty() && token.len() <= AUTHORIZATION_BYTES_MAX;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}

/// SHA-256 of a secret, as credentials keep it. Secrets are random, so nothing slower is needed.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// What a JWT says.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    adv: String,
    env: String,
    scopes: Scopes,
    iat: i64,
    exp: i64,
}

/// What a verified token says.
#[derive(Clone)]
struct Known {
    tenant: Tenant,
    credential: CredentialId,
    scopes: Scopes,
    expires_at: UnixMillis,
}

/// Makes and reads access tokens.
struct Tokens {
    sign: EncodingKey,
    verify: DecodingKey,
    validation: Validation,
    cache: Cache<[u8; 32], Known>,
}

impl Tokens {
    fn new(master_key: &[u8; 32]) -> Tokens {
        let mut mac = Hmac::<Sha256>::new_from_slice(master_key).expect("HMAC takes a key of any length");
        mac.update(SIGNING_LABEL);
        let key = mac.finalize().into_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        // The library would ask the machine's clock; ours is asked in `verify`.
        validation.validate_exp = false;
        Tokens {
            sign: EncodingKey::from_secret(&key),
            verify: DecodingKey::from_secret(&key),
            validation,
            cache: Cache::new(TOKENS_CACHED),
        }
    }

    fn issue(&self, tenant: Tenant, credential: &Credential, now: UnixMillis) -> Result<String, Refused> {
        let claims = Claims {
            sub: credential.id.to_string(),
            adv: tenant.advertiser.to_string(),
            env: tenant.environment.to_string(),
            scopes: Scopes::of(&credential.scopes),
            iat: now.0.div_euclid(1_000),
            exp: (now.0 + TOKEN_VALID_MS).div_euclid(1_000),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.sign);
        token.map_err(|error| Refused::internal("sign an access token", &error))
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Known, Refused> {
        let key = hash(token);
        let known = match self.cache.get(&key) {
            Some(known) => known,
            None => {
                let known = self.decode(token).ok_or_else(Refused::invalid_credentials)?;
                self.cache.insert(key, known.clone());
                known
            }
        };
        if known.expires_at <= now {
            return Err(Refused::invalid_credentials());
        }
        Ok(known)
    }

    fn decode(&self, token: &str) -> Option<Known> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verify, &self.validation).ok()?.claims;
        let tenant = Tenant { advertiser: claims.adv.parse().ok()?, environment: claims.env.parse().ok()? };
        let expires_at = UnixMillis(claims.exp.checked_mul(1_000)?);
        Some(Known { tenant, credential: claims.sub.parse().ok()?, scopes: claims.scopes, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::event::{AdvertiserCreated, CredentialIssued, Recorded};
    use punchline_engine::id::{KeySlot, Sequence};

    const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production };

    fn credential(scopes: &[Scope]) -> Credential {
        Credential {
            id: "dev-key".parse().expect("a slug"),
            secret_hash: hash("dev-secret"),
            scopes: scopes.to_vec(),
            description: String::new(),
            created_at: UnixMillis(0),
            revoked_at: None,
            write_key: false,
        }
    }

    #[test]
    fn tokens_are_known_by_their_key_and_for_an_hour() {
        let tokens = Tokens::new(&[1; 32]);
        let now = UnixMillis(1_700_000_000_000);
        let token = tokens.issue(TENANT, &credential(&[Scope::Read]), now).expect("signed");
        let hour = |ms: i64| now.plus_ms(TOKEN_VALID_MS + ms);
        for (tokens, token, at, valid) in [
            (&tokens, token.clone(), now, true),
            (&tokens, token.clone(), hour(-1), true),
            (&tokens, token.clone(), hour(0), false),
            (&Tokens::new(&[2; 32]), token.clone(), now, false),
            (&tokens, format!("{token}x"), now, false),
            (&tokens, token.replacen('.', "", 1), now, false),
            (&tokens, String::new(), now, false),
            // {"alg":"none"} with our claims.
            (&tokens, format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).expect("claims")), now, false),
        ] {
            assert_eq!(tokens.verify(&token, at).is_ok(), valid, "{token} at {at}");
        }
        let known = tokens.verify(&token, now).expect("valid");
        assert_eq!((known.tenant, known.scopes), (TENANT, Scopes::of(&[Scope::Read])));
    }

    #[test]
    fn scopes_are_required() {
        let of = |scopes: &[Scope], tenant| Caller { tenant, operator: false, scopes: Scopes::of(scopes) };
        let reader = of(&[Scope::Read], Some(TENANT));
        assert_eq!(reader.require(Scope::Read), Ok(TENANT));
        assert_eq!(reader.require(Scope::Manage).map_err(|r| r.reason), Err("SCOPE_MISSING"));
        assert_eq!(reader.require_operator().map_err(|r| r.reason), Err("OPERATOR_REQUIRED"));
        let operator = Caller { tenant: None, operator: true, scopes: Scopes::ALL };
        assert_eq!(operator.require_operator(), Ok(()));
        let refused = operator.require(Scope::Ingest).expect_err("names nobody");
        assert_eq!((refused.reason, refused.code), ("ADVERTISER_REQUIRED", tonic::Code::InvalidArgument));
    }

    #[test]
    fn bearers() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(header), token, "{header}");
        }
    }

    #[test]
    fn keys_and_tenants_are_found_in_their_environment() {
        let mut directory = Directory::default();
        let advertiser_id = TENANT.advertiser;
        let events = [
            AdvertiserCreated { advertiser_id, name: "Velo".into() }.into(),
            CredentialIssued { credential: credential(&[Scope::Read]) }.into(),
        ];
        for (i, event) in events.iter().enumerate() {
            let sequence = Sequence(i as u64 + 1);
            let recorded = Recorded {
                sequence,
                cause: sequence,
                time: UnixMillis(0),
                tenant: TENANT,
                member: None,
                quiet: false,
                key_slot: KeySlot::NONE,
                event,
            };
            directory.apply(&recorded);
        }
        let found = |key, environment| find_credential(&directory, key, environment).map(|(tenant, _)| tenant);
        assert_eq!(found("dev-key", Environment::Production), Some(TENANT));
        assert_eq!(found("dev-key", Environment::Staging), None);
        assert_eq!(found("other", Environment::Production), None);
        let staging = Tenant { environment: Environment::Staging, ..TENANT };
        for (advertiser, environment, expected) in [
            (None, None, Ok(None)),
            (Some("1000000001"), None, Ok(Some(TENANT))),
            (Some("1000000001"), Some("staging"), Ok(Some(staging))),
            (Some("1000000001"), Some("test"), Err("INVALID_FIELD")),
            (Some("1000000002"), None, Err("ADVERTISER_NOT_FOUND")),
            (Some("abc"), None, Err("INVALID_FIELD")),
        ] {
            let got = named_tenant(&directory, advertiser, environment).map_err(|refused| refused.reason);
            assert_eq!(got, expected, "{advertiser:?} {environment:?}");
        }
    }
}
