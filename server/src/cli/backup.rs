//! `backup`, `restore`, `log trim`: copies of a data directory, back, and what need not be kept beside them.
//!
//! A backup is made here where no server has the data directory, and by the server where one has. Restoring is
//! done here always: nothing serves what is not whole.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use punchline_proto::v1;
use punchline_proto::v1::admin_service_client::AdminServiceClient;
use punchline_runtime::backup::{Target, back_up_offline};
use punchline_runtime::clock::{Clock as _, SystemClock};
use punchline_storage::backup::{Directory, Manifest, Source, Summary, check};
use punchline_storage::data_dir::{DataDir, DataDirError, DataDirOptions};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::ConfigFlags;
use super::client::{Client, ClientOptions};
use super::failure::Failure;
use super::message::json;
use super::output::{self, Answer};
use super::progress::Progress;
use crate::config::Config;
use crate::master_key;

/// Stands for standard output and input.
const STREAM: &str = "-";
/// Longest that a server may take for it, in seconds: a day.
const PATIENCE_S: u64 = 24 * 60 * 60;

/// `backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupArgs {
    /// Directory to bring up to date, or `-` for a whole backup on standard output; `backup.directory` if absent.
    /// A server that runs writes to its own `backup.directory` only, or to `-`
    #[arg(long, value_name = "DIR")]
    to: Option<String>,
    #[command(flatten)]
    pub(super) config: ConfigFlags,
}

/// `restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// Directory of a backup, or `-` for one on standard input
    #[arg(long, value_name = "DIR")]
    from: String,
    /// The master key that the data was sealed under, as the old data directory's `master.key`: it is put into the
    /// new one. Not needed where `security.master_key` is set, or it is there already
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// Read and check the whole backup, and restore nothing
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    pub(super) config: ConfigFlags,
}

fn failed(error: impl std::error::Error) -> Failure {
    Failure::Negative(error.to_string())
}

/// `punchline backup`.
pub(super) fn backup(config: &Config, args: &BackupArgs, client: &ClientOptions) -> Result<Answer, Failure> {
    let to = args.to.as_deref().map(Path::new);
    if to == Some(Path::new(STREAM)) && io::stdout().is_terminal() {
        return Err(Failure::Usage("--to - writes the backup to standard output, which is a terminal".into()));
    }
    let options = DataDirOptions { create: false, ..DataDirOptions::default() };
    match DataDir::open(&config.storage.data_dir, options) {
        Ok(data_dir) => offline(config, &data_dir, to.or(config.backup.configured())),
        Err(DataDirError::InUse { .. }) => by_server(to, client),
        // It is another machine's.
        Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let (data_dir, endpoint) = (config.storage.data_dir.display(), &client.endpoint);
            output::note(&format!("there is no data directory {data_dir} here: asking the server at {endpoint}"));
            by_server(to, client)
        }
        Err(error) => Err(failed(error)),
    }
}

fn offline(config: &Config, data_dir: &DataDir, to: Option<&Path>) -> Result<Answer, Failure> {
    let to =
        to.ok_or_else(|| Failure::Usage("where to? Name a directory with --to, or set backup.directory".into()))?;
    let master_key = master_key::load(data_dir, config.security.master_key_bytes()).map_err(failed)?;
    let bar = Progress::of_job();
    let mut progress = |at: u64, upto: u64| bar.at_part(at as f64 / upto as f64, format!("{at} of {upto}"));
    let now = SystemClock.now();
    let made = if to == Path::new(STREAM) {
        let mut out = BufWriter::new(output::stdout());
        back_up_offline(data_dir, &master_key, now, Target::Stream(&mut out), &mut progress)
    } else {
        back_up_offline(data_dir, &master_key, now, Target::Directory(to), &mut progress)
    };
    bar.finish();
    let Summary { manifest, events_added, bytes_written } = made.map_err(failed)?;
    if to == Path::new(STREAM) {
        output::note(&format!("backed up {} bytes, up to sequence {}", bytes_written, manifest.last));
        return Ok(Answer::Nothing);
    }
    Ok(Answer::One(json!({
        "backup": told(&manifest, &to.display().to_string()),
        "events_added": events_added,
        "bytes_written": bytes_written,
    })))
}

fn told(manifest: &Manifest, directory: &str) -> Value {
    json!({
        "directory": directory,
        "made_at": manifest.made_at().to_string(),
        "first_sequence": manifest.first,
        "last_sequence": manifest.last,
        "size_bytes": manifest.size_bytes(),
        "runs": manifest.run,
    })
}

fn by_server(to: Option<&Path>, client: &ClientOptions) -> Result<Answer, Failure> {
    let is_stream = match to {
        None => false,
        Some(to) if to == Path::new(STREAM) => true,
        Some(to) => {
            let why = "a server has the data directory, and writes to its own backup.directory: leave --to out, or \
                       take the backup as a stream with --to -";
            return Err(Failure::Usage(format!("--to {}: {why}", to.display())));
        }
    };
    let options = patient(client);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(&options).await?;
        let mut admin = AdminServiceClient::new(client.service());
        if !is_stream {
            return Ok(Answer::One(json(&admin.create_backup(v1::CreateBackupRequest {}).await?.into_inner())));
        }
        let mut chunks = admin.stream_backup(v1::StreamBackupRequest {}).await?.into_inner();
        let mut out = output::stdout();
        let mut written = 0;
        while let Some(message) = chunks.message().await? {
            out.write_all(&message.chunk)?;
            written += message.chunk.len();
        }
        out.flush()?;
        output::note(&format!("backed up {written} bytes"));
        Ok(Answer::Nothing)
    })
}

/// For calls that take long.
pub(super) fn patient(client: &ClientOptions) -> ClientOptions {
    ClientOptions { timeout_s: client.timeout_s.max(PATIENCE_S), ..client.clone() }
}

/// `punchline log trim`.
pub(super) async fn trim(dry_run: bool, client: &Client) -> Result<Answer, Failure> {
    let request = v1::TrimJournalRequest { validate_only: dry_run };
    let trimmed = AdminServiceClient::new(client.service()).trim_journal(request).await?.into_inner();
    if dry_run {
        output::note("nothing was removed: this is what would be kept, and what needs it");
    }
    Ok(Answer::One(json(&trimmed)))
}

/// `punchline restore`.
pub(super) fn restore(config: &Config, args: &RestoreArgs) -> Result<Answer, Failure> {
    let mut stdin = io::stdin().lock();
    let source = match args.from.as_str() {
        STREAM => Source::Stream(&mut stdin),
        from => Source::Directory(Directory::read(Path::new(from)).map_err(failed)?),
    };
    let size_bytes = match &source {
        Source::Directory(directory) => directory.manifest().map(Manifest::size_bytes),
        Source::Stream(_) => None,
    };
    let reading = Progress::over(size_bytes);
    if args.validate_only {
        let checked = check(source, &mut |at| reading.at(at)).map_err(failed)?;
        reading.finish();
        return Ok(Answer::One(json!({ "backup": told(&checked.manifest, &args.from), "blocks": checked.blocks })));
    }
    let path = &config.storage.data_dir;
    let configured = config.security.master_key_bytes();
    // Before anything is made: without it nothing could be verified.
    let given = args.master_key_file.as_deref().map(master_key::read).transpose().map_err(failed)?;
    let there = || master_key::read(&path.join(master_key::FILE)).ok();
    let master_key = given.or(configured).or_else(there).ok_or_else(|| {
        let why = "the master key that the data was sealed under is needed: name it with --master-key-file, or set \
                   security.master_key";
        Failure::Usage(why.into())
    })?;
    let data_dir = DataDir::begin_restore(path).map_err(failed)?;
    if given.is_some() && configured.is_none() {
        master_key::put(&data_dir, &master_key).map_err(failed)?;
    }
    let verifying = crate::offline::progress_bar();
    let restored = punchline_runtime::backup::restore(
        source,
        &data_dir,
        &master_key,
        &mut |at| reading.at(at),
        &mut |at, head| {
            verifying.set_length(head);
            verifying.set_position(at);
        },
    );
    reading.finish();
    verifying.finish_and_clear();
    let (manifest, verified) = restored.map_err(|error| {
        Failure::Negative(format!("{error}\n{} is incomplete: nothing opens it, delete it", path.display()))
    })?;
    Ok(Answer::One(json!({
        "backup": told(&manifest, &args.from),
        "data_dir": data_dir.path().display().to_string(),
        "head_sequence": manifest.last,
        "events": verified.events,
        "rows_compared": verified.rows,
    })))
}
