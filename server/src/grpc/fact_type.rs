//! The types of facts, for `IngestService`.

use std::collections::BTreeMap;
use std::ops::Bound;

use punchline_engine::command::Action;
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::fact_type::FactType;
use punchline_proto::v1;

use super::Api;
use crate::convert::fact::{fact_type, type_to_wire};
use crate::convert::page::{self, List};
use crate::facts;
use crate::refuse::Refused;

impl Api {
    /// Registers a type; gives it as it is now.
    pub(super) async fn register_type(&self, tenant: Tenant, given: v1::FactType) -> Result<v1::FactType, Refused> {
        let etag = Some(given.etag.clone()).filter(|etag| !etag.is_empty());
        let fact_type = fact_type(given);
        facts::check_type(&fact_type)?;
        let name = fact_type.name.clone();
        self.submit(tenant, "", Action::RegisterFactType { fact_type, etag }).await?;
        self.fact_type(tenant, &name)
    }

    /// One type, built in or registered.
    pub(super) fn fact_type(&self, tenant: Tenant, name: &str) -> Result<v1::FactType, Refused> {
        let config = self.config(tenant)?;
        let registered = config.fact_types.get(name).map(|fact_type| type_to_wire(fact_type));
        let found = registered.or_else(|| facts::built_in().find(|t| t.name == name).as_ref().map(type_to_wire));
        found.ok_or_else(|| Refused::not_found("FACT_TYPE_NOT_FOUND", "fact type", name))
    }

    /// A page of all types.
    pub(super) fn fact_types(
        &self,
        tenant: Tenant,
        request: &v1::ListFactTypesRequest,
    ) -> Result<v1::ListFactTypesResponse, Refused> {
        let size = page::size(request.page_size)?;
        let after: Option<String> = page::after(List::FactTypes, &request.page_token)?;
        let config = self.config(tenant)?;
        let mut types: BTreeMap<String, FactType> = facts::built_in().map(|t| (t.name.clone(), t)).collect();
        types.extend(config.fact_types.iter().map(|(name, t)| (name.clone(), (**t).clone())));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = types.range((from, Bound::Unbounded)).take(size + 1).collect();
        let next_page_token = page::cut(List::FactTypes, &mut found, size, |(name, _)| (*name).clone());
        let fact_types = found.into_iter().map(|(_, t)| type_to_wire(t)).collect();
        Ok(v1::ListFactTypesResponse { fact_types, next_page_token })
    }
}
