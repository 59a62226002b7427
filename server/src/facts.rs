//! Facts on their way in: which types there are, what they must look like, and the way to the disk that gRPC
//! and HTTP share.
//!
//! ```text
//! RawFact ──shape──▶ type known? ──schema──▶ personal part split off ──submit──▶ on disk ──▶ FactReceipt | Refusal
//! ```
//!
//! # Invariants
//!
//! - A fact is checked by the newest version of its type that is on disk when it comes in.
//! - A type is compiled once for each version; what was compiled is forgotten before it takes much memory.
//!
//! # What is absent on purpose
//!
//! - Checking what comes through Segment's API: its senders name their events as they please, and nobody
//!   there would read the refusal. Only what is personal is set apart.

mod schema;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use punchline_delivery::dialect::catalogue;
use punchline_engine::command::{Action, Command};
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::fact::{Fact, FactReceipt, RawFact};
use punchline_engine::loyalty::fact_type::FactType;
use punchline_engine::loyalty::tenant::TenantConfig;
use punchline_engine::rejection::{InvalidField, Rejection};
use punchline_runtime::committer::{Answer, Outcome, Refusal, Unavailable};
use quick_cache::sync::Cache;

use self::schema::Schema;
use crate::ingest;
use crate::state::State;

/// Most facts of one batch, whichever door it comes through.
pub const BATCH_MAX: usize = 1_000;
/// Compiled schemas of registered types that are remembered; one compilation each is all that forgetting costs.
/// At their worst they take 4 MiB each.
const SCHEMAS_CACHED: usize = 100;

/// The types that are built in, each with its description and schema.
static BUILT_IN: LazyLock<BTreeMap<&'static str, BuiltIn>> = LazyLock::new(|| {
    let built_in = |(name, description)| {
        let schema = catalogue::publishable_schema(name).expect("it was just named");
        let compiled = Schema::of(&schema).expect("schemas made of examples compile, as the tests know");
        (name, BuiltIn { description, schema: schema.to_string(), compiled: Arc::new(compiled) })
    };
    catalogue::publishable().map(built_in).collect()
});

struct BuiltIn {
    description: &'static str,
    schema: String,
    compiled: Arc<Schema>,
}

/// Knows the schemas of all types.
pub struct FactTypes {
    compiled: Cache<(Tenant, String, u64), Arc<Schema>>,
}

impl Default for FactTypes {
    fn default() -> FactTypes {
        FactTypes { compiled: Cache::new(SCHEMAS_CACHED) }
    }
}

impl FactTypes {
    /// The schema of a type, if it is known.
    fn schema(&self, tenant: Tenant, config: &TenantConfig, name: &str) -> Result<Option<Arc<Schema>>, InvalidField> {
        let Some(registered) = config.fact_types.get(name) else {
            return Ok(BUILT_IN.get(name).map(|built_in| built_in.compiled.clone()));
        };
        let key = (tenant, name.to_owned(), registered.version);
        self.compiled.get_or_insert_with(&key, || Schema::compile(&registered.schema).map(Arc::new)).map(Some)
    }

    /// Checks a fact by its type, and sets apart what is personal of it.
    fn checked(&self, tenant: Tenant, config: &TenantConfig, fact: Fact) -> Result<Fact, InvalidField> {
        let schema = self.schema(tenant, config, &fact.fact_type)?.ok_or_else(|| unknown(config, &fact.fact_type))?;
        let properties = serde_json::from_str(&fact.properties.0).expect("the shape check parsed it");
        schema.check(&properties)?;
        let personal: Vec<&str> = schema.personal().iter().map(String::as_str).collect();
        Ok(fact.split(&personal))
    }

    /// Sets apart what is personal of a fact that is not checked: of a type that nobody registered, the fields
    /// that are personal in any.
    pub fn split(&self, tenant: Tenant, config: &TenantConfig, fact: Fact) -> Fact {
        match self.schema(tenant, config, &fact.fact_type) {
            Ok(Some(schema)) => fact.split(&schema.personal().iter().map(String::as_str).collect::<Vec<_>>()),
            Ok(None) | Err(_) => fact.split(&catalogue::personal_fields().collect::<Vec<_>>()),
        }
    }
}

/// Checks a type that is to be registered.
///
/// # Errors
///
/// Where it is built in, out of bounds, or its schema is of no use.
pub fn check_type(fact_type: &FactType) -> Result<(), InvalidField> {
    if BUILT_IN.contains_key(fact_type.name.as_str()) {
        return Err(InvalidField::new("name", &fact_type.name, "is built in, and what it looks like is fixed"));
    }
    fact_type.validate()?;
    Schema::compile(&fact_type.schema).map(drop)
}

/// The types that are built in, by name; with version 0.
pub fn built_in() -> impl Iterator<Item = FactType> {
    let types = BUILT_IN.iter();
    types.map(|(name, BuiltIn { description, schema, .. })| FactType {
        name: (*name).into(),
        description: (*description).into(),
        schema: schema.clone(),
        version: 0,
    })
}

fn unknown(config: &TenantConfig, name: &str) -> InvalidField {
    let known = BUILT_IN.keys().copied().chain(config.fact_types.keys().map(String::as_str));
    let nearest = known.map(|known| (strsim::osa_distance(name, known), known)).min();
    let hint = nearest.map(|(_, nearest)| format!(": the nearest is {nearest}")).unwrap_or_default();
    let rule = format!("is neither built in nor registered{hint}");
    InvalidField::with_reason("UNKNOWN_FACT_TYPE", "type", name, rule)
}

/// Takes a fact in; answers once it is on disk.
///
/// # Errors
///
/// The first check that fails, or why nothing is taken in now.
pub async fn publish(state: &State, tenant: Tenant, raw: RawFact) -> Result<FactReceipt, Refusal> {
    let command = command_of(state, tenant, raw).map_err(counted)?;
    receipt(state.node.submitter().submit(command).await)
}

/// Takes facts in, each on its own and in their order; gives their results in that order once all are on disk.
pub async fn publish_all(
    state: &State,
    tenant: Tenant,
    raw: Vec<Result<RawFact, InvalidField>>,
) -> Vec<Result<FactReceipt, Refusal>> {
    let mut refused: Vec<Option<Refusal>> = Vec::with_capacity(raw.len());
    let mut commands = Vec::with_capacity(raw.len());
    for raw in raw {
        let command = raw.map_err(|invalid| Rejection::Invalid(invalid).into());
        let command = command.and_then(|raw| command_of(state, tenant, raw));
        refused.push(command.map(|command| commands.push(command)).map_err(counted).err());
    }
    let mut answers = ingest::carry_out(&state.node, commands, false).await.into_iter();
    let stopped = || Err(Unavailable::ShuttingDown.into());
    let result = |refused: Option<Refusal>| match refused {
        Some(refusal) => Err(refusal),
        None => receipt(answers.next().unwrap_or_else(stopped)),
    };
    refused.into_iter().map(result).collect()
}

fn command_of(state: &State, tenant: Tenant, raw: RawFact) -> Result<Command, Refusal> {
    let directory = state.node.directory();
    let Some(config) = directory.tenant(tenant) else {
        return Err(Rejection::AdvertiserNotFound(tenant.advertiser).into());
    };
    let known = |name: &str| catalogue::is_publishable(name) || config.fact_types.contains_key(name);
    let fact = raw.check(state.node.clock().now(), known);
    let fact = fact.and_then(|fact| state.fact_types.checked(tenant, config, fact)).map_err(Rejection::Invalid)?;
    Ok(Command { tenant, request_id: None, action: Action::PublishFact(fact) })
}

fn receipt(answer: Answer) -> Result<FactReceipt, Refusal> {
    match answer.map_err(counted)? {
        Outcome::Accepted(stored) => {
            let (sequence, time, member_id) = (stored.first, stored.record.time, stored.record.member);
            Ok(FactReceipt { sequence, time, member_id })
        }
        Outcome::Already(_) => unreachable!("a repeated fact is rejected with the first one's receipt"),
    }
}

fn counted(refusal: Refusal) -> Refusal {
    ingest::count_rejection(match &refusal {
        Refusal::Rejected(rejection) => rejection.reason(),
        Refusal::Unavailable(why) => ingest::unavailable_reason(why),
    });
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::event::Json;
    use punchline_engine::id::{AdvertiserId, Environment};

    const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1), environment: Environment::Production };

    fn fact(fact_type: &str, properties: &str) -> Fact {
        Fact {
            source: "shop".into(),
            fact_id: "1".into(),
            fact_type: fact_type.into(),
            identifiers: Vec::new(),
            occurred_at: None,
            properties: Json(properties.into()),
            personal: Json::empty(),
        }
    }

    fn registered(schema: &str, version: u64) -> TenantConfig {
        let name = "fitting.booked".to_owned();
        let fact_type = FactType { name: name.clone(), description: String::new(), schema: schema.into(), version };
        TenantConfig { fact_types: BTreeMap::from([(name, Arc::new(fact_type))]), ..TenantConfig::default() }
    }

    #[test]
    fn every_built_in_type_takes_its_example() {
        let (types, config) = (FactTypes::default(), TenantConfig::default());
        let mut names = Vec::new();
        for (name, description) in catalogue::publishable() {
            let example = catalogue::example_data(name).expect(name);
            types.checked(TENANT, &config, fact(name, &example.to_string())).expect(name);
            assert!(!description.is_empty(), "{name}");
            names.push(name);
        }
        assert!(names.contains(&"wallet_pass.installed") && names.contains(&"redemption.started"), "{names:?}");
        assert!(!names.contains(&"points.credited") && !names.contains(&"consumption.recorded"), "{names:?}");
    }

    #[test]
    fn facts_are_checked_by_their_type() {
        let types = FactTypes::default();
        let config = registered(r#"{"required":["shop"],"properties":{"shop":{"type":"string"}}}"#, 1);
        for (name, properties, expected) in [
            ("fitting.booked", r#"{"shop":"a"}"#, "ok"),
            ("fitting.booked", r#"{"shop":1}"#, r#"FACT_SCHEMA_MISMATCH: properties.shop "1" is not of type "string""#),
            ("fitting.booked", "{}", r#"FACT_SCHEMA_MISMATCH: properties.shop "" is required"#),
            ("redemption.started", r#"{"cost":{"points":500,"own":"x"},"more":[1]}"#, "ok"),
            ("redemption.started", r#"{"cost":null,"reward_id":null}"#, "ok"),
            (
                "redemption.started",
                r#"{"cost":{"points":"x"}}"#,
                r#"FACT_SCHEMA_MISMATCH: properties.cost.points "x" is not of types "null", "integer""#,
            ),
            (
                "redemption.started",
                r#"{"campaign_id":7}"#,
                r#"FACT_SCHEMA_MISMATCH: properties.campaign_id "7" is not of types "null", "string""#,
            ),
            (
                "fiting.booked",
                "{}",
                r#"UNKNOWN_FACT_TYPE: type "fiting.booked" is neither built in nor registered: the nearest is fitting.booked"#,
            ),
            (
                "wallet_pas.installed",
                "{}",
                r#"UNKNOWN_FACT_TYPE: type "wallet_pas.installed" is neither built in nor registered: the nearest is wallet_pass.installed"#,
            ),
        ] {
            let told = match types.checked(TENANT, &config, fact(name, properties)) {
                Ok(_) => "ok".to_owned(),
                Err(invalid) => format!("{}: {invalid}", invalid.reason),
            };
            assert_eq!(told, expected, "{name} {properties}");
        }
        // The next version counts at once, and for this tenant alone.
        let next = registered(r#"{"properties":{"shop":{"type":"integer"}}}"#, 2);
        assert!(types.checked(TENANT, &next, fact("fitting.booked", r#"{"shop":1}"#)).is_ok());
        let other = Tenant { environment: Environment::Staging, ..TENANT };
        let own = registered("{}", 1);
        assert!(types.checked(other, &own, fact("fitting.booked", r#"{"shop":true}"#)).is_ok());
    }

    #[test]
    fn what_is_personal_is_set_apart() {
        let types = FactTypes::default();
        let config = registered(r#"{"properties":{"name":{"x-personal":true}}}"#, 1);
        let given = r#"{"name":"Ana","email":"a@b","n":1}"#;
        for (name, personal) in [
            ("fitting.booked", r#"{"name":"Ana"}"#),
            ("engagement.visit", r#"{"email":"a@b"}"#),
            ("segment.order_completed", r#"{"email":"a@b"}"#),
        ] {
            assert_eq!(&*types.split(TENANT, &config, fact(name, given)).personal.0, personal, "{name}");
        }
        let checked = types.checked(TENANT, &config, fact("fitting.booked", given)).expect("fits");
        assert_eq!(&*checked.personal.0, r#"{"name":"Ana"}"#);
        assert_eq!(&*checked.properties.0, r#"{"email":"a@b","n":1}"#);
    }
}
