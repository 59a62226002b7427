//! The views: what the journal comes to, kept in memory while it is new and written behind.
//!
//! ```text
//!            apply                   freeze                  write_behind
//! record ───────────▶ active overlay ───────▶ frozen overlay ─────────────▶ rows … checkpoint
//! look up:            active → frozen → clean members → rows
//! ```
//!
//! # Invariants
//!
//! - A view is a pure fold of records: applying the same records gives the same rows, byte for byte.
//! - Applying a record that a row already holds changes nothing, since every aggregate knows the last
//!   event it holds. So rows may be newer than the checkpoint after a crash, and recovery applies
//!   everything after the checkpoint again.
//! - A member is erased from the rows first, then its key is destroyed, then the checkpoint passes: so what is
//!   sealed in a row opens, and a key that is destroyed takes nothing from a fold that goes on from the rows.
//! - Rows that an aggregate refers to (ledger chunks, identifiers, delivery rows) are written before it.
//!
//! # What is absent on purpose
//!
//! - Threads and locks: one owner, the sequencer; the frozen overlay is shared, but never changed.
//! - Positions of entries beyond the newest are in chunk rows; the entries themselves in the journal.

mod base;
mod items;
mod keys;
mod overlay;
mod scan;
mod seen;
mod verify;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use punchline_engine::dispatch::{
    BreakerState, DeliveryProgress, DeliveryRow, DeliveryState, JobState, PutBack, RowState,
};
use punchline_engine::event::{CommandKey, DeliveryJobAdvanced, Event, Record, Recorded};
use punchline_engine::id::{KeySlot, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::ledger::House;
use punchline_engine::loyalty::member::{Identifier, Member};
use punchline_engine::loyalty::tenant::Directory;
use punchline_engine::planted::{Bug, is_planted};

use crate::codec::{self, CodecError};
use crate::layout::Table;
use crate::member_keys::{KeysError, MemberKeys};
use crate::rows::{Rows, RowsError};

pub use base::{BaseError, load_base, write_base};
pub use items::{DueHold, ItemList};
pub use overlay::{Overlay, write_behind};
pub use verify::{Difference, compare};

use keys::{Hash, MemberKey};
use seen::{Runs, SeenIndex};

/// Version of the rows' format; rows of another version are set aside and rebuilt.
const FORMAT_VERSION: u32 = 3;

/// Ledger positions in one chunk row.
const ENTRIES_PER_CHUNK: usize = 64;

/// How the views failed.
#[derive(Debug, thiserror::Error)]
pub enum ViewsError {
    /// The store below failed.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// There is no key to seal with.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A row is not what was written.
    #[error("row {key} of view {table} is damaged: {source}", table = table.name())]
    Damaged {
        /// Which view.
        table: Table,
        /// Which row, in hex.
        key: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The rows are of a version that this program does not write.
    #[error("the views have format version {found}, this program has {FORMAT_VERSION}")]
    Version {
        /// What they have.
        found: u32,
    },
}

impl ViewsError {
    /// Whether the views are to be set aside, rather than that the disk fails.
    pub fn is_damage(&self) -> bool {
        match self {
            ViewsError::Rows(error) => error.is_damage(),
            ViewsError::Keys(_) => false,
            ViewsError::Damaged { .. } | ViewsError::Version { .. } => true,
        }
    }
}

/// Position that the rows are folded to.
///
/// # Errors
///
/// [`ViewsError`] where they cannot be read, or are of another version.
pub fn checkpoint(rows: &dyn Rows) -> Result<Sequence, ViewsError> {
    let version = rows.get(Table::Meta, keys::FORMAT)?;
    let version = version.map(|v| v.try_into().map_or(0, u32::from_be_bytes));
    match version.filter(|v| *v != FORMAT_VERSION) {
        Some(found) => Err(ViewsError::Version { found }),
        None => Ok(Sequence(keys::read_u64(rows.get(Table::Meta, keys::CHECKPOINT)?))),
    }
}

/// The views of all tenants.
pub struct Views {
    rows: Arc<dyn Rows>,
    keys: Arc<MemberKeys>,
    active: Overlay,
    frozen: Option<Arc<Overlay>>,
    /// The ids on disk: as whoever writes them knows them, and as they are looked up.
    index: Arc<SeenIndex>,
    runs: Runs,
    clean: quick_cache::unsync::Cache<MemberKey, Box<Member>>,
    owners: quick_cache::unsync::Cache<Hash, MemberId>,
    directory: Arc<Directory>,
    houses: BTreeMap<Tenant, House>,
    deliveries: BTreeMap<SubscriptionId, DeliveryState>,
    checkpoint: Sequence,
    applied: Sequence,
    key_slot: KeySlot,
}

impl Views {
    /// Opens the views as of their checkpoint; `members_cached` bounds the members kept in memory
    /// beyond those that wait to be written.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] where a row cannot be read: the views are to be set aside then.
    pub fn open(rows: Arc<dyn Rows>, keys: Arc<MemberKeys>, members_cached: usize) -> Result<Views, ViewsError> {
        let checkpoint = checkpoint(&*rows)?;
        let key_slot = KeySlot(keys::read_u64(rows.get(Table::Meta, keys::KEY_SLOT)?));
        let index = Arc::new(SeenIndex::open(&*rows)?);
        let mut views = Views {
            keys,
            runs: index.runs(),
            index,
            key_slot,
            active: Overlay::default(),
            frozen: None,
            clean: quick_cache::unsync::Cache::new(members_cached),
            owners: quick_cache::unsync::Cache::new(members_cached * 2),
            directory: Arc::default(),
            houses: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            checkpoint,
            applied: checkpoint,
            rows,
        };
        views.load_small()?;
        Ok(views)
    }

    /// Loads what is always in memory: the directory, from its own events, and the small aggregates.
    fn load_small(&mut self) -> Result<(), ViewsError> {
        let mut directory = Directory::default();
        for (key, value) in scan::all(&*self.rows, Table::Config)? {
            let record = codec::decode_record(&value, &self.keys).map_err(damaged(Table::Config, &key))?;
            let first = Sequence(keys::read_u64(Some(key)));
            // Rows beyond the checkpoint are applied again by recovery.
            if first <= self.checkpoint {
                record.all_recorded(first).for_each(|r| {
                    directory.apply(&r);
                });
            }
        }
        self.directory = Arc::new(directory);
        for (key, value) in scan::all(&*self.rows, Table::Houses)? {
            let house = codec::decode_house(&value).map_err(damaged(Table::Houses, &key))?;
            self.houses.extend(keys::parse_tenant(&key).map(|tenant| (tenant, house)));
        }
        for (key, value) in scan::all(&*self.rows, Table::Cursors)? {
            let state = codec::decode_delivery_state(&value).map_err(damaged(Table::Cursors, &key))?;
            self.deliveries.extend(keys::parse_subscription(&key).map(|id| (id, state)));
        }
        Ok(())
    }

    /// Everything that is configured.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The house's accounts, by tenant.
    pub fn houses(&self) -> &BTreeMap<Tenant, House> {
        &self.houses
    }

    /// How far the deliveries of a subscription have come.
    pub fn delivery_state(&self, subscription: SubscriptionId) -> Option<&DeliveryState> {
        self.deliveries.get(&subscription)
    }

    /// Position of the last event applied.
    pub fn applied(&self) -> Sequence {
        self.applied
    }

    /// Position that the rows on disk are folded to.
    pub fn checkpoint(&self) -> Sequence {
        self.checkpoint
    }

    /// The last slot that a member's key has.
    pub fn key_slot(&self) -> KeySlot {
        self.key_slot
    }

    /// A member, if there is one.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if its row cannot be read.
    pub fn member(&mut self, tenant: Tenant, id: MemberId) -> Result<Option<&Member>, ViewsError> {
        let key = (tenant, id);
        if self.in_memory(&key).is_none() {
            match self.load_member(&key)? {
                Some(member) => self.clean.insert(key, Box::new(member)),
                None => return Ok(None),
            }
        }
        // A cache may refuse what was put in, so a look-up may miss right after.
        Ok(self.in_memory(&key))
    }

    /// A member, if there is one, for whoever cannot let the cache change: one that [`member`](Self::member)
    /// gave just before is there without a copy.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if its row cannot be read.
    pub fn peek_member(&self, tenant: Tenant, id: MemberId) -> Result<Option<Cow<'_, Member>>, ViewsError> {
        let key = (tenant, id);
        match self.in_memory(&key) {
            Some(member) => Ok(Some(Cow::Borrowed(member))),
            None => Ok(self.load_member(&key)?.map(Cow::Owned)),
        }
    }

    fn in_memory(&self, key: &MemberKey) -> Option<&Member> {
        let frozen = || self.frozen.as_ref().and_then(|f| f.members.get(key));
        self.active.members.get(key).or_else(frozen).or_else(|| self.clean.get(key)).map(|member| &**member)
    }

    fn load_member(&self, (tenant, id): &MemberKey) -> Result<Option<Member>, ViewsError> {
        let key = keys::member(*tenant, *id);
        let Some(row) = self.rows.get(Table::Members, &key)? else { return Ok(None) };
        codec::decode_member(&row, &self.keys).map(Some).map_err(damaged(Table::Members, &key))
    }

    /// The member, taken to the active overlay in order to be changed.
    fn member_mut(&mut self, key: MemberKey) -> Result<&mut Member, ViewsError> {
        if !self.active.members.contains_key(&key) {
            let frozen = self.frozen.as_ref().and_then(|f| f.members.get(&key).cloned());
            let member = match frozen.or_else(|| self.clean.remove(&key).map(|(_, member)| member)) {
                Some(member) => member,
                None => Box::new(self.load_member(&key)?.expect("decide checked that the member exists")),
            };
            self.active.put_member(key, member);
        }
        Ok(self.active.members.get_mut(&key).expect("put there above"))
    }

    /// The member known by an identifier, if there is one.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if the row cannot be read.
    pub fn owner(&mut self, tenant: Tenant, identifier: &Identifier) -> Result<Option<MemberId>, ViewsError> {
        let key = keys::identifier(&self.keys, tenant, identifier);
        let frozen = || self.frozen.as_ref().and_then(|f| f.identifiers.get(&key));
        if let Some(owner) = self.active.identifiers.get(&key).or_else(frozen) {
            return Ok(*owner);
        }
        if let Some(owner) = self.owners.get(&key) {
            return Ok(Some(*owner));
        }
        let owner = self.rows.get(Table::Identifiers, &key)?.and_then(|row| keys::parse_member_id(&row));
        if let Some(owner) = owner {
            self.owners.insert(key, owner);
        }
        Ok(owner)
    }

    /// Where a command's key was used up, if it was.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if the row cannot be read.
    pub fn seen(&self, tenant: Tenant, key: &CommandKey) -> Result<Option<Sequence>, ViewsError> {
        let key = keys::command(tenant, key);
        let frozen = || self.frozen.as_ref().and_then(|f| f.seen.get(&key));
        if let Some(sequence) = self.active.seen.get(&key).or_else(frozen) {
            return Ok(Some(*sequence));
        }
        Ok(self.runs.find(&*self.rows, &key)?)
    }

    /// Folds a record in, whose first event has the position `first`.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if a row cannot be read; the record may be half applied then, so the views are to
    /// be opened anew.
    pub fn apply(&mut self, first: Sequence, record: &Record) -> Result<(), ViewsError> {
        let is_forgotten = is_planted(Bug::ForgottenIndexRow) && first.0.is_multiple_of(5);
        if let Some(key) = record.key.as_ref().filter(|_| !is_forgotten) {
            self.active.seen.insert(keys::command(record.tenant, key), first);
        }
        let mut configured = false;
        for recorded in record.all_recorded(first) {
            configured |= self.apply_event(&recorded)?;
        }
        if configured {
            let key = first.0.to_be_bytes().to_vec();
            self.active.put(Table::Config, key, codec::encode_record(record, &self.keys)?);
        }
        self.applied = Sequence(first.0 + record.events.len() as u64 - 1);
        self.key_slot = self.key_slot.max(record.key_slot);
        (self.active.upto, self.active.key_slot) = (self.applied, self.key_slot);
        Ok(())
    }

    fn apply_event(&mut self, recorded: &Recorded<'_>) -> Result<bool, ViewsError> {
        match recorded.event {
            Event::MemberCreated(event) => {
                let key = (recorded.tenant, event.member_id);
                if self.member(key.0, key.1)?.is_none() {
                    for identifier in &event.identifiers {
                        self.set_owner(recorded.tenant, identifier, Some(event.member_id));
                    }
                    let member = Member::created_by(recorded).expect("the event creates a member");
                    self.active.put_member(key, Box::new(member));
                } else {
                    self.own_again(key)?;
                }
            }
            Event::MemberUpdated(event) => {
                let tenant = recorded.tenant;
                let member = self.member_mut((tenant, event.member_id))?;
                if recorded.sequence > member.as_of {
                    let before = std::mem::take(&mut member.identifiers);
                    before.iter().for_each(|i| self.set_owner(tenant, i, None));
                    event.identifiers.iter().for_each(|i| self.set_owner(tenant, i, Some(event.member_id)));
                } else {
                    self.own_again((tenant, event.member_id))?;
                }
                self.member_mut((tenant, event.member_id))?.apply(recorded);
            }
            Event::MemberErased(event) => {
                let tenant = recorded.tenant;
                let member = self.member_mut((tenant, event.member_id))?;
                let before = std::mem::take(&mut member.identifiers);
                member.apply(recorded);
                before.iter().for_each(|i| self.set_owner(tenant, i, None));
                // None where nobody sealed anything.
                self.active.to_destroy.extend(Some(recorded.key_slot).filter(|slot| *slot != KeySlot::NONE));
            }
            Event::MemberMergedInto(event) => {
                let tenant = recorded.tenant;
                let member = self.member_mut((tenant, event.member_id))?;
                if recorded.sequence > member.as_of {
                    // Whoever gets them is told to have them after this.
                    let before = std::mem::take(&mut member.identifiers);
                    before.iter().for_each(|i| self.set_owner(tenant, i, None));
                }
                let member = self.member_mut((tenant, event.member_id))?;
                member.apply(recorded);
                // What is known of the member stands under the other's key from now on.
                let slot = Some(member.key_slot).filter(|slot| *slot != KeySlot::NONE);
                self.active.to_destroy.extend(slot);
            }
            Event::DeliveryProgressed(event) => self.apply_progress(recorded, event.subscription_id, &event.progress),
            Event::DeadLettersRedriven(event) => {
                let again = RowState::Waiting { step: 0, due: recorded.time };
                self.change_dead(recorded, event.subscription_id, &event.sequences, again)?;
            }
            Event::DeadLettersDropped(event) => {
                self.change_dead(recorded, event.subscription_id, &event.sequences, RowState::Dropped)?;
            }
            Event::BreakerOpened(event) => self.turn_breaker(recorded, event.subscription_id, event.breaker),
            Event::BreakerHalfOpened(event) => self.turn_breaker(recorded, event.subscription_id, event.breaker),
            Event::BreakerClosed(event) => {
                self.turn_breaker(recorded, event.subscription_id, BreakerState::Closed);
            }
            Event::DeliveryJobStarted(event) => {
                if let Some(state) = self.newer_state(recorded, event.subscription_id) {
                    state.start_job(event.job.clone());
                }
            }
            Event::DeliveryJobAdvanced(event) => self.advance_job(recorded, event)?,
            Event::DeliveryJobEnded(event) => {
                if let Some(state) = self.newer_state(recorded, event.subscription_id) {
                    let how = if event.cancelled { JobState::Cancelled } else { JobState::Completed };
                    state.apply_job(event.job_id, |job| job.state = how);
                }
            }
            Event::SubscriptionDeleted(event) => {
                self.deliveries.remove(&event.subscription_id);
                self.active.cursors.insert(event.subscription_id);
            }
            Event::AdvertiserCreated(_)
            | Event::CampaignCreated(_)
            | Event::CampaignUpdated(_)
            | Event::FactTypeRegistered(_)
            | Event::FactPublished(_) => {}
            _ => {
                if let Some(id) = recorded.member {
                    let key = (recorded.tenant, id);
                    let hold = items::hold_of(recorded.event);
                    let member = self.member_mut(key)?;
                    let until = |member: &Member| hold.as_ref().and_then(|id| items::hold_until(member, id));
                    let before = until(member);
                    member.apply(recorded);
                    let after = until(member);
                    if member.entries_tail.len() > ENTRIES_PER_CHUNK {
                        let chunk: Vec<u8> =
                            member.entries_tail.drain(..ENTRIES_PER_CHUNK).flat_map(|s| s.0.to_be_bytes()).collect();
                        let number = (member.entries as usize - 1) / ENTRIES_PER_CHUNK - 1;
                        self.active.put(Table::Ledger, keys::chunk(key.0, key.1, number as u32), chunk);
                    }
                    if let Some(hold) = hold {
                        self.move_deadline(key, hold, before, after);
                    }
                }
            }
        }
        self.apply_items(recorded)?;
        let house = self.houses.entry(recorded.tenant).or_default();
        let before = house.as_of;
        house.apply(recorded);
        if house.as_of != before {
            self.active.houses.insert(recorded.tenant);
        }
        // Only what concerns the directory copies it.
        let concerns = punchline_engine::loyalty::tenant::concerns_directory(recorded.event);
        Ok(concerns && Arc::make_mut(&mut self.directory).apply(recorded))
    }

    /// Applied again after a crash, the member's row may be newer than the event, which changes nothing then.
    /// But the row of the member that an identifier was taken over from may be older, and applying its part
    /// once more leaves the identifier without an owner.
    fn own_again(&mut self, (tenant, id): MemberKey) -> Result<(), ViewsError> {
        let member = self.member(tenant, id)?.expect("the caller looked it up");
        for identifier in member.identifiers.clone() {
            self.set_owner(tenant, &identifier, Some(id));
        }
        Ok(())
    }

    fn set_owner(&mut self, tenant: Tenant, identifier: &Identifier, owner: Option<MemberId>) {
        let key = keys::identifier(&self.keys, tenant, identifier);
        self.owners.remove(&key);
        self.active.identifiers.insert(key, owner);
    }

    fn apply_progress(&mut self, recorded: &Recorded<'_>, id: SubscriptionId, progress: &DeliveryProgress) {
        let Some(state) = self.newer_state(recorded, id) else { return };
        // Applied again after a crash, a drop takes a death that comes after it for one that came before.
        for row in progress.rows.iter().filter(|row| !row.state.is_settled()) {
            state.finished.retain(|finished| *finished != row.sequence);
        }
        let forgotten = state.apply(progress);
        for row in &progress.rows {
            let key = keys::delivery(id, row.sequence);
            self.active.put(Table::Deliveries, key, codec::encode_delivery_row(row));
        }
        for sequence in forgotten {
            self.active.delete(Table::Deliveries, keys::delivery(id, sequence));
        }
    }

    /// The state of a subscription's deliveries, taken down as changed by this event; `None` where it was
    /// applied before a crash.
    fn newer_state(&mut self, recorded: &Recorded<'_>, id: SubscriptionId) -> Option<&mut DeliveryState> {
        let state = self.deliveries.entry(id).or_default();
        if recorded.sequence <= state.as_of {
            return None;
        }
        state.as_of = recorded.sequence;
        self.active.cursors.insert(id);
        Some(state)
    }

    fn turn_breaker(&mut self, recorded: &Recorded<'_>, id: SubscriptionId, breaker: BreakerState) {
        if let Some(state) = self.newer_state(recorded, id) {
            state.breaker = breaker;
        }
    }

    fn put_row(&mut self, id: SubscriptionId, row: &DeliveryRow) {
        self.active.put(Table::Deliveries, keys::delivery(id, row.sequence), codec::encode_delivery_row(row));
    }

    fn change_dead(
        &mut self,
        recorded: &Recorded<'_>,
        id: SubscriptionId,
        sequences: &[Sequence],
        to: RowState,
    ) -> Result<(), ViewsError> {
        if self.newer_state(recorded, id).is_none() {
            return Ok(());
        }
        for sequence in sequences {
            let Some(mut row) = self.delivery_row(id, *sequence)? else { continue };
            // Applied again after a crash, the row may say so already, and the state of the deliveries not yet.
            if row.state == RowState::Dead || row.state == to && to.is_settled() {
                row.state = to;
                self.put_row(id, &row);
                let state = self.deliveries.entry(id).or_default();
                if to.is_settled() && !state.finished.contains(sequence) {
                    let rows = vec![row];
                    for forgotten in state.apply(&DeliveryProgress { cursor: Sequence(0), rows }) {
                        self.active.delete(Table::Deliveries, keys::delivery(id, forgotten));
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts deliveries back: what waits or is held already is left alone.
    fn advance_job(&mut self, recorded: &Recorded<'_>, event: &DeliveryJobAdvanced) -> Result<(), ViewsError> {
        let id = event.subscription_id;
        let Some(state) = self.newer_state(recorded, id) else { return Ok(()) };
        state.apply_job(event.job_id, |job| {
            job.next_sequence = event.next_sequence;
            job.put_back += event.put_back.len() as u64;
        });
        for PutBack { sequence, member } in &event.put_back {
            // Before the row is looked at: applied again after a crash, it may be newer than the state.
            self.deliveries.entry(id).or_default().finished.retain(|finished| finished != sequence);
            let new = DeliveryRow {
                sequence: *sequence,
                member: *member,
                state: RowState::Held,
                attempts: 0,
                log: Vec::new(),
            };
            let mut row = match self.delivery_row(id, *sequence)? {
                Some(row) if matches!(row.state, RowState::Waiting { .. } | RowState::Held) => continue,
                Some(row) => row,
                None => new,
            };
            row.state = RowState::Waiting { step: 0, due: recorded.time };
            self.put_row(id, &row);
        }
        Ok(())
    }

    /// Rows that wait to be written: what the memory of the active overlay goes by.
    pub fn waiting_rows(&self) -> usize {
        self.active.len()
    }

    /// Freezes what waits to be written, to be handed to [`write_behind`]. `None` while an earlier
    /// freeze is not [`written`](Self::written), and where there is nothing to write.
    pub fn freeze(&mut self) -> Option<Arc<Overlay>> {
        if self.frozen.is_some() || self.active.upto <= self.checkpoint {
            return None;
        }
        let mut overlay = std::mem::take(&mut self.active);
        overlay.capture(&self.houses, &self.deliveries);
        overlay.index = self.index.clone();
        let overlay = Arc::new(overlay);
        self.frozen = Some(overlay.clone());
        Some(overlay)
    }

    /// Takes note that the frozen overlay is on disk, checkpoint included.
    pub fn written(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        self.checkpoint = frozen.upto;
        self.runs = self.index.runs();
        let members = Arc::try_unwrap(frozen).map(|f| f.members).unwrap_or_default();
        for (key, member) in members {
            if !self.active.members.contains_key(&key) {
                self.clean.insert(key, member);
            }
        }
    }
}

fn damaged(table: Table, key: &[u8]) -> impl FnOnce(CodecError) -> ViewsError {
    let key = key.iter().map(|b| format!("{b:02x}")).collect();
    move |source| ViewsError::Damaged { table, key, source }
}
