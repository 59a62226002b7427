//! The members' keys: what their personal fields are sealed under, and what is destroyed to erase them.
//!
//! ```text
//! master key ──▶ secret ──┐
//!                         ├─HMAC-SHA256─▶ a member's key ──AES-256-GCM-SIV──▶ sealed fields
//! keys/members.keys[slot] ┘
//! ```
//!
//! # Invariants
//!
//! - Master key and slot are both needed: neither a copy of the file nor the master key alone opens anything.
//! - A slot is on disk before it is used: slots are made many at a time, so that a registration needs no sync
//!   of its own.
//! - A slot of zeros is destroyed, and stays so. It is zeroed and synced before anyone is told.
//! - The same content under the same key gives the same bytes, so that a fold gives the same rows. The nonce
//!   is fixed: GCM-SIV then tells who has the bytes that two contents are equal, and nothing else.
//!
//! # What is absent on purpose
//!
//! - Which slot is free: the journal says it, and what lies after the last used one is made anew by each
//!   process that registers somebody.
//! - Checksums of slots: what a wrong one would open does not open. A slot never crosses a sector, so that a
//!   power cut leaves it whole or zeroed.
//! - Randomness: it comes from whoever opens the file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aes_gcm_siv::aead::{Aead, Payload};
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce};
use hmac::{Hmac, Mac};
use punchline_engine::id::KeySlot;
use sha2::Sha256;

use crate::sync::sync_dir;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 32;
/// Bytes that sealing adds.
pub const SEALED_EXTRA_BYTES: usize = 16;
/// Slots made at once: one sync for as many registrations, and 128 KiB.
const SLOTS_MADE_AT_ONCE: u64 = 4_096;
/// Stands where slot 0, which is none, would be; what follows tells whose master key it is.
const MAGIC: &[u8; 16] = b"punchline keys 1";

/// What a slot holds.
pub type Slot = [u8; SLOT_BYTES];

/// Fills bytes from a source of randomness.
pub type Randomness = fn(&mut [u8]);

/// What is sealed: bytes sealed as one thing do not open as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// Identifiers and profile.
    Person,
    /// What is personal of a fact.
    Fact,
    /// The body that a subscriber answered with.
    Response,
}

impl Sealed {
    fn associated_data(self) -> &'static [u8] {
        match self {
            Sealed::Person => b"person",
            Sealed::Fact => b"fact",
            Sealed::Response => b"response",
        }
    }
}

/// How a key failed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file system.
    #[error("member keys {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is data, but not the key that belongs to it.
    #[error("{path} has no slot {slot}: put the file back that belongs to the journal", path = path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which slot.
        slot: u64,
    },
    /// Another master key: under it nothing opens, and nobody is found by an identifier.
    #[error("{path} does not belong to this master key: put back the one that it was made with", path = path.display())]
    MasterKey {
        /// Which file.
        path: PathBuf,
    },
    /// Something is to be sealed under a key that is destroyed.
    #[error("the key in slot {slot} is destroyed")]
    Destroyed {
        /// Which slot.
        slot: u64,
    },
    /// What was sealed does not open.
    #[error("it does not open under the key in slot {slot}: is the master key the one it was sealed with?")]
    Unreadable {
        /// Which slot.
        slot: u64,
    },
}

/// Where slots are kept.
pub trait Slots: Send + Sync {
    /// What a slot holds; zeros where it was destroyed.
    ///
    /// # Errors
    ///
    /// [`KeysError::Missing`] where there is none, and what the system says.
    fn read(&self, slot: u64) -> Result<Slot, KeysError>;

    /// Makes sure that `slot`, which nothing was sealed under yet, is on disk.
    ///
    /// # Errors
    ///
    /// [`KeysError::Missing`] where those before it are not there, and what the system says.
    fn prepare(&self, slot: u64) -> Result<(), KeysError>;

    /// Overwrites a slot with zeros, on disk.
    ///
    /// # Errors
    ///
    /// What the system says; the slot may hold what it did.
    fn zero(&self, slot: u64) -> Result<(), KeysError>;

    /// All of it as it is now, to be read while it changes.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn copy(&self) -> Result<Box<dyn Read + Send>, KeysError>;
}

/// The keys of all members.
pub struct MemberKeys {
    slots: Box<dyn Slots>,
    keys: Hmac<Sha256>,
    digests: Hmac<Sha256>,
    digest_key: [u8; 32],
}

impl fmt::Debug for MemberKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberKeys").finish_non_exhaustive()
    }
}

impl MemberKeys {
    /// Keys of `slots`, under a master key.
    pub fn new(slots: impl Slots + 'static, master_key: &[u8; 32]) -> MemberKeys {
        let hmac = |purpose| hmac(&derived(master_key, purpose));
        let digest_key = derived(master_key, b"consumption identifiers");
        let (keys, digests) = (hmac(b"member key"), hmac(b"identifier digest"));
        MemberKeys { slots: Box::new(slots), keys, digests, digest_key }
    }

    /// Keys in the file at `path`, whose slots `random` fills. It is made when the first slot is.
    ///
    /// # Errors
    ///
    /// [`KeysError::MasterKey`] where the file is another's, and what the system says.
    pub fn in_file(path: PathBuf, master_key: &[u8; 32], random: Randomness) -> Result<MemberKeys, KeysError> {
        let mut header = [0; SLOT_BYTES];
        header[..16].copy_from_slice(MAGIC);
        header[16..].copy_from_slice(&derived(master_key, b"member keys file")[..16]);
        let slots = SlotFile { path, random, header, state: Mutex::default() };
        match slots.read(KeySlot::NONE.0) {
            Ok(found) if found != header => Err(KeysError::MasterKey { path: slots.path }),
            Err(error @ KeysError::Io { .. }) => Err(error),
            _ => Ok(MemberKeys::new(slots, master_key)),
        }
    }

    fn cipher(&self, slot: KeySlot) -> Result<Option<Aes256GcmSiv>, KeysError> {
        let bytes = self.slots.read(slot.0)?;
        if bytes == [0; SLOT_BYTES] {
            return Ok(None);
        }
        let key = self.keys.clone().chain_update(bytes).finalize().into_bytes();
        Ok(Some(Aes256GcmSiv::new_from_slice(&key).expect("a SHA-256 digest has 32 bytes")))
    }

    /// Seals `plain` under the key in `slot`.
    ///
    /// # Errors
    ///
    /// [`KeysError::Destroyed`] where there is none any more, and what the system says.
    pub fn seal(&self, slot: KeySlot, kind: Sealed, plain: &[u8]) -> Result<Vec<u8>, KeysError> {
        let cipher = self.cipher(slot)?.ok_or(KeysError::Destroyed { slot: slot.0 })?;
        let payload = Payload { msg: plain, aad: kind.associated_data() };
        Ok(cipher.encrypt(&Nonce::default(), payload).expect("short messages can be encrypted"))
    }

    /// Opens what was sealed as `kind` under the key in `slot`; `None` where that is destroyed.
    ///
    /// # Errors
    ///
    /// [`KeysError::Unreadable`] under another key, as another kind or when damaged, and what the system says.
    pub fn open(&self, slot: KeySlot, kind: Sealed, sealed: &[u8]) -> Result<Option<Vec<u8>>, KeysError> {
        let Some(cipher) = self.cipher(slot)? else { return Ok(None) };
        let payload = Payload { msg: sealed, aad: kind.associated_data() };
        let opened = cipher.decrypt(&Nonce::default(), payload);
        opened.map(Some).map_err(|_| KeysError::Unreadable { slot: slot.0 })
    }

    /// Seals what a subscriber answered; where that cannot be done, it is not kept.
    pub fn seal_response(&self, slot: KeySlot, response: &[u8]) -> Vec<u8> {
        if slot == KeySlot::NONE || response.is_empty() {
            return response.to_vec();
        }
        self.seal(slot, Sealed::Response, response).unwrap_or_default()
    }

    /// What a subscriber answered; empty where it cannot be read any more.
    pub fn open_response(&self, slot: KeySlot, response: &[u8]) -> Vec<u8> {
        if slot == KeySlot::NONE || response.is_empty() {
            return response.to_vec();
        }
        self.open(slot, Sealed::Response, response).ok().flatten().unwrap_or_default()
    }

    /// Makes sure that there is a key in `slot`, which nothing was sealed under yet.
    ///
    /// # Errors
    ///
    /// [`KeysError::Missing`] where those before it are not there, and what the system says.
    pub fn prepare(&self, slot: KeySlot) -> Result<(), KeysError> {
        self.slots.prepare(slot.0)
    }

    /// Destroys the key in `slot`, on disk. Does nothing where it is destroyed.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn destroy(&self, slot: KeySlot) -> Result<(), KeysError> {
        if self.is_destroyed(slot)? { Ok(()) } else { self.slots.zero(slot.0) }
    }

    /// Whether the key in `slot` is destroyed.
    ///
    /// # Errors
    ///
    /// [`KeysError::Missing`], and what the system says.
    pub fn is_destroyed(&self, slot: KeySlot) -> Result<bool, KeysError> {
        Ok(self.slots.read(slot.0)? == [0; SLOT_BYTES])
    }

    /// The file as it is now, for a backup: nobody may destroy a key meanwhile.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn copy(&self) -> Result<Box<dyn Read + Send>, KeysError> {
        self.slots.copy()
    }

    /// What the engine makes its digests of identifiers with.
    pub fn digest_key(&self) -> &[u8] {
        &self.digest_key
    }

    /// A digest that nobody can look for without the master key.
    pub fn digest<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
        let mut mac = self.digests.clone();
        parts.into_iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

fn derived(master_key: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    hmac(master_key).chain_update(purpose).finalize().into_bytes().into()
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    hmac::KeyInit::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Slots in a file: a header, then slot by slot.
#[derive(Debug)]
struct SlotFile {
    path: PathBuf,
    random: Randomness,
    header: Slot,
    state: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    file: Option<File>,
    /// Made by this process, and on disk.
    made: std::ops::Range<u64>,
}

impl SlotFile {
    fn io(&self) -> impl FnOnce(io::Error) -> KeysError {
        let path = self.path.clone();
        move |source| KeysError::Io { path, source }
    }

    /// Does something with the file, `None` where there is none yet.
    fn with<T>(&self, slot: u64, act: impl FnOnce(&File) -> io::Result<T>) -> Result<T, KeysError> {
        let missing = || KeysError::Missing { path: self.path.clone(), slot };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.file.is_none() {
            match OpenOptions::new().read(true).write(true).open(&self.path) {
                Ok(file) => state.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                Err(error) => return Err(self.io()(error)),
            }
        }
        let file = state.file.as_ref().expect("opened above");
        act(file).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => missing(),
            _ => self.io()(error),
        })
    }

    /// Makes the slots from `first` on. What lay there was never used.
    fn make(&self, first: u64) -> io::Result<File> {
        let mut bytes = vec![0; SLOTS_MADE_AT_ONCE as usize * SLOT_BYTES];
        (self.random)(&mut bytes);
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        file.write_all_at(&self.header, 0)?;
        file.write_all_at(&bytes, first * SLOT_BYTES as u64)?;
        file.sync_all()?;
        sync_dir(directory)?;
        directory.parent().map_or(Ok(()), sync_dir)?;
        Ok(file)
    }
}

impl Slots for SlotFile {
    fn read(&self, slot: u64) -> Result<Slot, KeysError> {
        self.with(slot, |file| {
            let mut bytes = [0; SLOT_BYTES];
            file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64)?;
            Ok(bytes)
        })
    }

    fn prepare(&self, slot: u64) -> Result<(), KeysError> {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).made.contains(&slot) {
            return Ok(());
        }
        // Members have those before it. Made anew, they would open nothing.
        if slot > 1 {
            self.read(slot - 1)?;
        }
        let file = self.make(slot).map_err(self.io())?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = FileState { file: Some(file), made: slot..slot + SLOTS_MADE_AT_ONCE };
        Ok(())
    }

    fn zero(&self, slot: u64) -> Result<(), KeysError> {
        self.with(slot, |file| {
            file.write_all_at(&[0; SLOT_BYTES], slot * SLOT_BYTES as u64)?;
            file.sync_data()
        })
    }

    fn copy(&self) -> Result<Box<dyn Read + Send>, KeysError> {
        let path = self.path.with_extension("copy");
        let copied = || -> io::Result<File> {
            let mut from = File::open(&self.path)?;
            let mut copy =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            // Without a name, no crash can leave it behind: keys in it may be destroyed later.
            fs::remove_file(&path)?;
            io::copy(&mut from, &mut copy)?;
            copy.rewind()?;
            Ok(copy)
        };
        match copied() {
            Ok(copy) => Ok(Box::new(copy)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(io::empty())),
            Err(error) => Err(self.io()(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(bytes: &mut [u8]) {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        for eight in bytes.chunks_mut(8) {
            eight.copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        }
    }

    fn keys(dir: &Path, master: u8) -> Result<MemberKeys, KeysError> {
        MemberKeys::in_file(dir.join("keys/members.keys"), &[master; 32], random)
    }

    #[test]
    fn a_key_is_of_its_slot_its_kind_and_its_master_key_until_it_is_destroyed() {
        let dir = tempfile::tempdir().expect("a directory");
        let ours = keys(dir.path(), 1).expect("no file");
        let (one, two) = (KeySlot(1), KeySlot(5_000));
        assert!(matches!(ours.seal(one, Sealed::Person, b"Ana"), Err(KeysError::Missing { slot: 1, .. })));
        ours.prepare(one).expect("made");
        assert!(matches!(ours.prepare(two), Err(KeysError::Missing { slot: 4_999, .. })), "those before are lost");
        let sealed = ours.seal(one, Sealed::Person, b"Ana").expect("sealed");
        assert_eq!(sealed.len(), 3 + SEALED_EXTRA_BYTES);
        assert_eq!(sealed, ours.seal(one, Sealed::Person, b"Ana").expect("sealed"));
        assert!(matches!(ours.open(one, Sealed::Response, &sealed), Err(KeysError::Unreadable { .. })));
        assert!(matches!(ours.open(KeySlot(2), Sealed::Person, &sealed), Err(KeysError::Unreadable { .. })));
        assert!(matches!(keys(dir.path(), 2), Err(KeysError::MasterKey { .. })));
        let again = keys(dir.path(), 1).expect("opens");
        assert_eq!(again.open(one, Sealed::Person, &sealed).expect("opens").as_deref(), Some(&b"Ana"[..]));
        again.prepare(KeySlot(2)).expect("made");
        assert_eq!(again.open(one, Sealed::Person, &sealed).expect("opens").as_deref(), Some(&b"Ana"[..]));
        again.destroy(one).expect("zeroed");
        for keys in [&ours, &again, &keys(dir.path(), 1).expect("opens")] {
            assert_eq!(keys.open(one, Sealed::Person, &sealed).expect("known"), None);
            assert!(matches!(keys.seal(one, Sealed::Person, b"Ana"), Err(KeysError::Destroyed { slot: 1 })));
        }
        assert!(!again.is_destroyed(KeySlot(2)).expect("read"));
    }
}
