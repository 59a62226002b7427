//! Advertisers, credentials, jobs.

use std::path::Path;

use punchline_engine::id::AdvertiserId;
use punchline_engine::loyalty::tenant::{Advertiser, Credential, Scope};
use punchline_proto::v1;
use punchline_runtime::jobs::JobStatus;
use punchline_storage::backup::Manifest;

use super::timestamp;
use crate::refuse::Refused;

/// An advertiser, for the wire.
pub fn advertiser(id: AdvertiserId, advertiser: &Advertiser) -> v1::Advertiser {
    v1::Advertiser {
        advertiser_id: id.to_string(),
        name: advertiser.name.clone(),
        created_at: Some(timestamp(advertiser.created_at)),
    }
}

/// A credential without its secret, for the wire.
pub fn credential(credential: &Credential) -> v1::Credential {
    let scope = |scope: &Scope| match scope {
        Scope::Ingest => v1::Scope::Ingest.into(),
        Scope::Read => v1::Scope::Read.into(),
        Scope::Manage => v1::Scope::Manage.into(),
    };
    v1::Credential {
        api_key: credential.id.to_string(),
        scopes: credential.scopes.iter().map(scope).collect(),
        description: credential.description.clone(),
        created_at: Some(timestamp(credential.created_at)),
        revoked_at: credential.revoked_at.map(timestamp),
        write_key: credential.write_key,
    }
}

/// How a job stands, for the wire.
pub fn job(status: &JobStatus) -> v1::Job {
    v1::Job {
        job: status.job.as_str().into(),
        last_run_at: status.last.map(|last| timestamp(last.run.at)),
        last_completed_at: status.last.map(|last| timestamp(last.completed_at)),
        last_concerned: status.last.map(|last| last.concerned).unwrap_or_default(),
        next_run_at: Some(timestamp(status.next.at)),
        running: status.running.is_some(),
    }
}

/// The backup in a directory, for the wire.
pub fn backup(directory: &Path, manifest: &Manifest) -> v1::Backup {
    v1::Backup {
        made_at: Some(timestamp(manifest.made_at())),
        first_sequence: manifest.first,
        last_sequence: manifest.last,
        size_bytes: manifest.size_bytes(),
        runs: manifest.run,
        directory: directory.display().to_string(),
    }
}

/// Scopes as they came in, each once; all of them where there are none.
///
/// # Errors
///
/// `INVALID_FIELD` with the first that is none.
pub fn scopes(given: &[i32]) -> Result<Vec<Scope>, Refused> {
    if given.is_empty() {
        return Ok(vec![Scope::Ingest, Scope::Read, Scope::Manage]);
    }
    let scope = |(i, scope): (usize, &i32)| match v1::Scope::try_from(*scope) {
        Ok(v1::Scope::Ingest) => Ok(Scope::Ingest),
        Ok(v1::Scope::Read) => Ok(Scope::Read),
        Ok(v1::Scope::Manage) => Ok(Scope::Manage),
        Ok(v1::Scope::Unspecified) | Err(_) => {
            Err(Refused::field(format!("scopes[{i}]"), scope.to_string(), "must be to ingest, to read or to manage"))
        }
    };
    let mut scopes: Vec<Scope> = given.iter().enumerate().map(scope).collect::<Result<_, _>>()?;
    scopes.sort();
    scopes.dedup();
    Ok(scopes)
}
