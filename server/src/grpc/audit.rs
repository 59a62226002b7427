//! The audit trail: who asked for what, read from the journal.
//!
//! # What is absent on purpose
//!
//! - What was said in a call: the events have it, and some of it is personal. Here are ids only.
//! - An index: it is asked for seldom, and passes over records without an actor undecoded.

use std::collections::BTreeSet;

use punchline_engine::command::Actor;
use punchline_engine::event::CommandKey;
use punchline_engine::id::{CredentialId, Sequence, Tenant};
use punchline_proto::v1;
use punchline_runtime::feed::{Feed, ReadError, Stored};
use serde_json::Value;

use crate::convert::{self, timestamp};
use crate::refuse::Refused;

/// What an operator's token is called.
const OPERATOR: &str = "operator";
/// Blocks of the journal looked at for one page.
const BLOCKS_A_PAGE_MAX: usize = 1_024;
/// How deep in an event ids are looked for: a subscription's stands in its definition.
const DEPTH_MAX: usize = 3;

/// Which entries are wanted.
pub(super) struct Selected {
    tenant: Option<Tenant>,
    /// `Some(None)`: an operator.
    actor: Option<Option<CredentialId>>,
    resource_id: String,
}

impl Selected {
    pub(super) fn of(tenant: Option<Tenant>, request: &v1::ReadAuditTrailRequest) -> Result<Selected, Refused> {
        let actor = match request.actor.as_str() {
            "" => None,
            OPERATOR => Some(None),
            key => Some(Some(convert::id("actor", key)?)),
        };
        Ok(Selected { tenant, actor, resource_id: request.resource_id.clone() })
    }

    fn entry(&self, actor: &Actor, stored: &Stored) -> Option<v1::AuditEntry> {
        let record = &stored.record;
        let is_wanted = self.tenant.is_none_or(|tenant| tenant == record.tenant)
            && self.actor.as_ref().is_none_or(|wanted| *wanted == actor.credential);
        if !is_wanted {
            return None;
        }
        let resource_ids = ids(stored);
        if !self.resource_id.is_empty() && !resource_ids.contains(&self.resource_id) {
            return None;
        }
        Some(v1::AuditEntry {
            sequence: stored.first.0,
            time: Some(timestamp(record.time)),
            advertiser_id: record.tenant.advertiser.to_string(),
            environment: record.tenant.environment.to_string(),
            actor: actor.credential.as_ref().map_or_else(|| OPERATOR.into(), CredentialId::to_string),
            method: actor.method.clone(),
            request_id: match &record.key {
                Some(CommandKey::Request(id)) => id.clone(),
                _ => String::new(),
            },
            event_types: record.events.iter().map(|event| event.type_name().into()).collect(),
            resource_ids: resource_ids.into_iter().collect(),
        })
    }
}

/// A page of entries, and where to go on.
pub(super) fn read(
    feed: &Feed,
    selected: &Selected,
    from: Sequence,
    size: usize,
) -> Result<(Vec<v1::AuditEntry>, Sequence), ReadError> {
    let (mut entries, mut next) = (Vec::new(), from);
    for _ in 0..BLOCKS_A_PAGE_MAX {
        let (asked, after) = feed.read_asked(next)?;
        for (actor, stored) in &asked {
            if entries.len() == size {
                return Ok((entries, stored.first));
            }
            entries.extend(selected.entry(actor, stored));
        }
        if after <= next {
            break;
        }
        next = after;
    }
    Ok((entries, next))
}

/// The ids that a record's events name.
fn ids(stored: &Stored) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(stored.record.member.map(|id| id.to_string()));
    for recorded in stored.record.all_recorded(stored.first) {
        let event = convert::event(&recorded);
        // What cannot be read as JSON has no ids.
        let data = serde_json::from_str(&event.data_json).unwrap_or_default();
        collect(&data, DEPTH_MAX, &mut found);
    }
    found
}

fn collect(value: &Value, depth: usize, found: &mut BTreeSet<String>) {
    let Some(fields) = value.as_object().filter(|_| depth > 0) else { return };
    for (name, value) in fields {
        match value {
            Value::String(id) if name == "id" || name.ends_with("_id") => drop(found.insert(id.clone())),
            other => collect(other, depth - 1, found),
        }
    }
}
