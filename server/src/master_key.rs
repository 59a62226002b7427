//! The master key: configured, or a file in the data directory that the first start makes.
//!
//! # Invariants
//!
//! - A key is on disk before anything is sealed under it.
//! - Where there is a journal, no new key is made: what is sealed in it could never be opened again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use punchline_runtime::ids::random_bytes;
use punchline_storage::data_dir::DataDir;
use punchline_storage::sync::sync_dir;

/// The file's name.
pub const FILE: &str = "master.key";

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// There is data, but not the key that belongs to it.
    #[error("there is data, but no master key at {path}: put the file back, or set security.master_key", path = path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{path} is not base64 of 32 bytes: put the right file back, or set security.master_key", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The file system.
    #[error("cannot read or make the master key {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Gives the configured key, or the file's; makes the file in a directory without data.
///
/// # Errors
///
/// [`MasterKeyError`], with the path.
pub fn load(data_dir: &DataDir, configured: Option<[u8; 32]>) -> Result<[u8; 32], MasterKeyError> {
    if let Some(key) = configured {
        return Ok(key);
    }
    let path = data_dir.path().join(FILE);
    match read(&path) {
        Err(MasterKeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if data_dir.journal_path().exists() {
                return Err(MasterKeyError::Missing { path });
            }
            let key = random_bytes();
            match write(data_dir.path(), &path, &key) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "made a master key: keep a copy of it apart from the data");
                    Ok(key)
                }
                Err(source) => Err(MasterKeyError::Io { path, source }),
            }
        }
        found => found,
    }
}

/// Reads the key in a file.
///
/// # Errors
///
/// [`MasterKeyError`], with the path.
pub fn read(path: &Path) -> Result<[u8; 32], MasterKeyError> {
    let text = fs::read_to_string(path).map_err(|source| MasterKeyError::Io { path: path.to_owned(), source })?;
    warn_if_readable(path);
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| MasterKeyError::Malformed { path: path.to_owned() })
}

/// Puts a key into a data directory that has none.
///
/// # Errors
///
/// [`MasterKeyError`], with the path.
pub fn put(data_dir: &DataDir, key: &[u8; 32]) -> Result<(), MasterKeyError> {
    let path = data_dir.path().join(FILE);
    write(data_dir.path(), &path, key).map_err(|source| MasterKeyError::Io { path, source })
}

/// Under another name first, so that the file is whole or not there.
fn write(directory: &Path, path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let unfinished = path.with_extension("key.new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", STANDARD.encode(key))?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_dir(directory)
}

fn warn_if_readable(path: &Path) {
    let mode = fs::metadata(path).map(|metadata| metadata.mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others can read the master key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_storage::data_dir::DataDirOptions;

    #[test]
    fn is_made_once_and_never_beside_data() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = DataDir::open(directory.path(), DataDirOptions::default()).expect("opens");
        let path = data_dir.path().join(FILE);
        let key = load(&data_dir, None).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(load(&data_dir, None).expect("read"), key);
        assert_eq!(load(&data_dir, Some([7; 32])).expect("configured"), [7; 32]);
        fs::write(&path, "nonsense").expect("written");
        assert!(matches!(load(&data_dir, None), Err(MasterKeyError::Malformed { .. })));
        fs::remove_file(&path).expect("removed");
        fs::create_dir(data_dir.journal_path()).expect("made");
        assert!(matches!(load(&data_dir, None), Err(MasterKeyError::Missing { .. })));
    }
}
