//! `AdminService`: operators only.

use std::io::{self, BufWriter, Write};
use std::ops::Bound;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use punchline_engine::command::Action;
use punchline_engine::event::Event;
use punchline_engine::id::{AdvertiserId, CredentialId, Environment, Sequence, Tenant};
use punchline_engine::loyalty::job::Job;
use punchline_engine::loyalty::tenant::{Credential, NO_SECRET, Scope};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_proto::v1::admin_service_server::AdminService;
use punchline_runtime::backup::Target;
use punchline_runtime::ids;
use punchline_runtime::trim::Held;
use punchline_storage::backup::{BackupError, Summary, manifest_in};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::event::first_at;
use super::{Answer, Api, audit};
use crate::auth;
use crate::convert::admin::{advertiser, backup, credential, job, scopes};
use crate::convert::page::{self, List};
use crate::convert::{id, instant, optional_id, timestamp};
use crate::refuse::Refused;

/// Random bytes of an `apiSecret`.
const SECRET_BYTES: usize = 32;
/// Shortest `apiSecret` that may be given, in bytes.
const SECRET_LEN_MIN: usize = 8;
/// Longest, in bytes: it travels in a header.
const SECRET_LEN_MAX: usize = 256;
/// Random bytes of an `apiKey`.
const KEY_BYTES: usize = 12;
/// Bytes of a backup in one message.
const CHUNK_BYTES: usize = 64 * 1024;
/// What holds up trimming, told at once.
const HOLDS_TOLD_MAX: usize = 20;
/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Such messages that wait for a slow reader; then the backup waits.
const CHUNKS_WAITING_MAX: usize = 16;

impl Api {
    /// The tenant that an operator names, for what concerns one.
    fn operators_tenant<T>(&self, request: Request<T>) -> Result<(Tenant, T), Refused> {
        let (caller, request) = self.operator(request)?;
        Ok((caller.require(Scope::Manage)?, request))
    }

    fn credential_now(&self, tenant: Tenant, id: &CredentialId) -> Result<v1::Credential, Refused> {
        let config = self.config(tenant)?;
        let found = config.credentials.get(id).map(credential);
        found.ok_or_else(|| Rejection::CredentialNotFound(id.clone()).into())
    }
}

/// What a write key may do, if that is what was asked for.
fn write_key_scopes(request: &v1::IssueCredentialRequest) -> Result<Vec<Scope>, Refused> {
    if !request.api_secret.is_empty() {
        return Err(Refused::field("api_secret", "***", "must be empty: a write key has none"));
    }
    match scopes(&request.scopes)?.as_slice() {
        _ if request.scopes.is_empty() => Ok(vec![Scope::Ingest]),
        [Scope::Ingest] => Ok(vec![Scope::Ingest]),
        _ => Err(Refused::field("scopes", "", "must be to ingest: a write key can do nothing else")),
    }
}

#[tonic::async_trait]
impl AdminService for Api {
    async fn create_advertiser(
        &self,
        request: Request<v1::CreateAdvertiserRequest>,
    ) -> Answer<v1::CreateAdvertiserResponse> {
        let (_, request) = self.operator(request)?;
        let advertiser_id: Option<AdvertiserId> = optional_id("advertiser_id", &request.advertiser_id)?;
        // A placeholder: whoever is taken on has no tenant yet.
        let advertiser = advertiser_id.unwrap_or(AdvertiserId::FIRST);
        let tenant = Tenant { advertiser, environment: Environment::Production };
        let action = Action::CreateAdvertiser { advertiser_id, name: request.name };
        let stored = self.create(tenant, &request.request_id, action).await?;
        let Some(Event::AdvertiserCreated(created)) = stored.record.events.first() else {
            return Err(Refused::internal("find the advertiser that was created", &stored.first).into());
        };
        let created = v1::Advertiser {
            advertiser_id: created.advertiser_id.to_string(),
            name: created.name.clone(),
            created_at: Some(timestamp(stored.record.time)),
        };
        Ok(Response::new(v1::CreateAdvertiserResponse { advertiser: Some(created) }))
    }

    async fn list_advertisers(
        &self,
        request: Request<v1::ListAdvertisersRequest>,
    ) -> Answer<v1::ListAdvertisersResponse> {
        let (_, request) = self.operator(request)?;
        let size = page::size(request.page_size)?;
        let after: Option<AdvertiserId> = page::after(List::Advertisers, &request.page_token)?;
        let directory = self.state.node.directory();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = directory.advertisers.range((from, Bound::Unbounded)).take(size + 1).collect();
        let next_page_token = page::cut(List::Advertisers, &mut found, size, |(id, _)| **id);
        let advertisers = found.into_iter().map(|(id, found)| advertiser(*id, found)).collect();
        Ok(Response::new(v1::ListAdvertisersResponse { advertisers, next_page_token }))
    }

    async fn issue_credential(
        &self,
        request: Request<v1::IssueCredentialRequest>,
    ) -> Answer<v1::IssueCredentialResponse> {
        let (tenant, request) = self.operators_tenant(request)?;
        let id: CredentialId = match optional_id("api_key", &request.api_key)? {
            Some(id) => id,
            None => {
                let name: String = ids::random_bytes::<KEY_BYTES>().iter().map(|b| format!("{b:02x}")).collect();
                let kind = if request.write_key { "wk" } else { "pk" };
                id("api_key", &format!("{kind}-{name}"))?
            }
        };
        let scopes = match request.write_key {
            true => write_key_scopes(&request)?,
            false => scopes(&request.scopes)?,
        };
        let api_secret = match request.api_secret.as_str() {
            "" if request.write_key => String::new(),
            "" => URL_SAFE_NO_PAD.encode(ids::random_bytes::<SECRET_BYTES>()),
            given if (SECRET_LEN_MIN..=SECRET_LEN_MAX).contains(&given.len()) => given.to_owned(),
            _ => return Err(Refused::field("api_secret", "***", "must be 8 to 256 bytes").into()),
        };
        let credential = Credential {
            id: id.clone(),
            secret_hash: if request.write_key { NO_SECRET } else { auth::hash(&api_secret) },
            scopes,
            description: request.description,
            created_at: self.state.node.clock().now(),
            revoked_at: None,
            write_key: request.write_key,
        };
        self.submit(tenant, "", Action::IssueCredential { credential }).await?;
        let credential = Some(self.credential_now(tenant, &id)?);
        Ok(Response::new(v1::IssueCredentialResponse { credential, api_secret }))
    }

    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Answer<v1::ListCredentialsResponse> {
        let (tenant, _) = self.operators_tenant(request)?;
        let credentials = self.config(tenant)?.credentials.values().map(credential).collect();
        Ok(Response::new(v1::ListCredentialsResponse { credentials }))
    }

    async fn revoke_credential(
        &self,
        request: Request<v1::RevokeCredentialRequest>,
    ) -> Answer<v1::RevokeCredentialResponse> {
        let (tenant, request) = self.operators_tenant(request)?;
        let credential_id = id("api_key", &request.api_key)?;
        self.submit(tenant, "", Action::RevokeCredential { credential_id }).await?;
        Ok(Response::new(v1::RevokeCredentialResponse {}))
    }

    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        self.operator(request)?;
        let node = &self.state.node;
        let stopped = node.stopped();
        // Where nothing is taken in, the views may not answer either: the rest is told all the same.
        let counted = self.read(|views| {
            let houses = views.houses().values();
            let sums = houses.fold((0, 0), |(m, c), house| (m + house.members, c + house.consumptions));
            Ok((views.checkpoint(), sums))
        });
        let (checkpoint, (members, consumptions)) = counted.await.unwrap_or_default();
        let (journal_bytes, views_bytes) = node.size_bytes();
        let (deliveries_pending, dead_letters) = node.dispatcher().totals();
        let subscriptions = node.directory().tenants.values().map(|config| config.subscriptions.len() as u64).sum();
        let disk_free_bytes = self.state.data_dir.as_deref().map(punchline_storage::sync::free_bytes);
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Some(timestamp(self.state.started_at)),
            head_sequence: self.head().0,
            checkpoint_sequence: checkpoint.0,
            writable: stopped.is_none(),
            stopped_reason: stopped.map(|why| why.to_string()).unwrap_or_default(),
            journal_bytes,
            views_bytes,
            disk_free_bytes: disk_free_bytes.and_then(Result::ok).unwrap_or_default(),
            members,
            consumptions,
            subscriptions,
            deliveries_pending,
            dead_letters,
            recovery: self.recovery(),
            backup: self.last_backup().await,
            first_sequence: node.feed().first().0,
        }))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answer<v1::VerifyResponse> {
        self.operator(request)?;
        let node = self.state.node.clone();
        let verified = tokio::task::spawn_blocking(move || node.verify()).await;
        let verified = verified.map_err(|error| Refused::internal("verify", &error))?;
        let verified = verified.map_err(|error| Refused::internal("verify", &error))?;
        Ok(Response::new(v1::VerifyResponse {
            ok: verified.difference.is_none(),
            events: verified.events,
            blocks: verified.blocks,
            rows: verified.rows,
            difference: verified.difference.unwrap_or_default(),
        }))
    }

    async fn create_backup(&self, request: Request<v1::CreateBackupRequest>) -> Answer<v1::CreateBackupResponse> {
        self.operator(request)?;
        let directory = self.backup_dir()?;
        let node = self.state.node.clone();
        let made = tokio::task::spawn_blocking(move || {
            let summary = node.back_up(Target::Directory(&directory))?;
            Ok((backup(&directory, &summary.manifest), summary))
        });
        let made: Result<_, BackupError> = made.await.map_err(|error| Refused::internal("back up", &error))?;
        let (backup, summary) = made.map_err(Refused::from)?;
        let Summary { events_added, bytes_written, .. } = summary;
        Ok(Response::new(v1::CreateBackupResponse { backup: Some(backup), events_added, bytes_written }))
    }

    type StreamBackupStream = ReceiverStream<Result<v1::StreamBackupResponse, Status>>;

    async fn stream_backup(&self, request: Request<v1::StreamBackupRequest>) -> Answer<Self::StreamBackupStream> {
        self.operator(request)?;
        let (chunks, sent) = mpsc::channel(CHUNKS_WAITING_MAX);
        let node = self.state.node.clone();
        tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(CHUNK_BYTES, Chunks(chunks.clone()));
            if let Err(error) = node.back_up(Target::Stream(&mut out)) {
                // Where the caller has gone, nobody wants to know.
                drop(chunks.blocking_send(Err(Refused::from(error).into())));
            }
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    async fn trim_journal(&self, request: Request<v1::TrimJournalRequest>) -> Answer<v1::TrimJournalResponse> {
        let (_, request) = self.operator(request)?;
        let (directory, node) = (self.backup_dir()?, &self.state.node);
        let keep_ms = self.state.journal_keep_days as i64 * DAY_MS;
        let keep_from = UnixMillis(node.clock().now().0 - keep_ms);
        let keep_from = self.journal(move |feed| first_at(feed, keep_from)).await?;
        let trimmed = node.trim(&directory, keep_from, request.validate_only).await.map_err(Refused::from)?;
        let hold = |held: &Held| v1::JournalHold {
            what: held.what.into(),
            name: held.name.clone(),
            from_sequence: held.from.0,
        };
        Ok(Response::new(v1::TrimJournalResponse {
            first_sequence: trimmed.first.0,
            kept_from_sequence: trimmed.kept_from.0,
            held_by: trimmed.held.iter().take(HOLDS_TOLD_MAX).map(hold).collect(),
        }))
    }

    async fn read_audit_trail(
        &self,
        request: Request<v1::ReadAuditTrailRequest>,
    ) -> Answer<v1::ReadAuditTrailResponse> {
        let (caller, request) = self.operator(request)?;
        let selected = audit::Selected::of(caller.tenant, &request)?;
        let size = page::size(request.page_size)?;
        let time = request.from_time.map(|time| instant("from_time", time)).transpose()?;
        let from = Sequence(request.from_sequence.max(1));
        let read = self.journal(move |feed| {
            let from = match time {
                Some(time) => from.max(first_at(feed, time)?),
                None => from,
            };
            audit::read(feed, &selected, from, size)
        });
        let (entries, next) = read.await?;
        let (next_sequence, head_sequence) = (next.0, self.head().0);
        Ok(Response::new(v1::ReadAuditTrailResponse { entries, next_sequence, head_sequence }))
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        let (tenant, _) = self.operators_tenant(request)?;
        let jobs = self.state.node.jobs(Some(tenant)).await.map_err(Refused::from)?;
        Ok(Response::new(v1::ListJobsResponse { jobs: jobs.iter().map(job).collect() }))
    }

    async fn run_job(&self, request: Request<v1::RunJobRequest>) -> Answer<v1::RunJobResponse> {
        let (tenant, request) = self.operators_tenant(request)?;
        let which = Job::parse(&request.job);
        let which = which.ok_or_else(|| Refused::not_found("JOB_NOT_FOUND", "job", &request.job))?;
        let node = &self.state.node;
        node.run_job(tenant, which).await.map_err(Refused::from)?;
        let jobs = node.jobs(Some(tenant)).await.map_err(Refused::from)?;
        let found = jobs.iter().find(|status| status.job == which).map(job);
        Ok(Response::new(v1::RunJobResponse { job: found }))
    }
}

/// Sends what is written to it as chunks.
struct Chunks(mpsc::Sender<Result<v1::StreamBackupResponse, Status>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let sent = self.0.blocking_send(Ok(v1::StreamBackupResponse { chunk: chunk.to_vec() }));
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Api {
    fn backup_dir(&self) -> Result<PathBuf, Refused> {
        let message = "the server has no backup.directory: set one, or take the backup as a stream";
        let refused = || Refused::new(Code::FailedPrecondition, 409, "BACKUP_NOT_CONFIGURED", message);
        self.state.backup_dir.clone().ok_or_else(refused)
    }

    /// The backup that there is, if it can be read.
    async fn last_backup(&self) -> Option<v1::Backup> {
        let directory = self.state.backup_dir.clone()?;
        let read = move || manifest_in(&directory).ok().flatten().map(|manifest| backup(&directory, &manifest));
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// What opening the data directory found, for people.
    fn recovery(&self) -> String {
        let found = self.state.node.recovery();
        let (head, applied, ms) = (found.head, found.events_applied, found.took.as_millis());
        let mut text = format!("opened at sequence {head} in {ms} ms, {applied} events applied after the checkpoint");
        if found.views_rebuilt {
            text.push_str("; the views did not open and were folded anew");
        }
        if let Some(cut_off) = &found.cut_off {
            text.push_str("; a tail that was never acknowledged was cut off: ");
            text.push_str(cut_off);
        }
        text
    }
}
