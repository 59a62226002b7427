//! What `decide` may look up of a tenant besides what a command names.

use std::borrow::Cow;
use std::cell::RefCell;

use punchline_engine::decide::World;
use punchline_engine::id::{MemberId, Sequence, Tenant};
use punchline_engine::loyalty::item::{Item, ItemKey};
use punchline_engine::loyalty::ledger::Entry;
use punchline_engine::loyalty::member::Member;

use super::{FoldError, Sequencer};

/// What is there of a tenant besides what a command names.
pub(super) struct Around<'a> {
    pub(super) sequencer: &'a Sequencer,
    pub(super) tenant: Tenant,
    /// The first look-up that failed: the decision is void then.
    pub(super) failed: RefCell<Option<FoldError>>,
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Around({})", self.tenant)
    }
}

impl Around<'_> {
    fn found<T, E: Into<FoldError>>(&self, found: Result<Option<T>, E>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error.into());
            None
        })
    }
}

impl World for Around<'_> {
    fn member(&self, id: MemberId) -> Option<Member> {
        self.found(self.sequencer.views.peek_member(self.tenant, id)).map(Cow::into_owned)
    }

    fn item(&self, key: &ItemKey) -> Option<Item> {
        self.found(self.sequencer.views.item(self.tenant, key))
    }

    fn entry(&self, at: Sequence) -> Option<Entry> {
        let stored = self.found(self.sequencer.record_at(at)).filter(|s| s.record.tenant == self.tenant)?;
        Entry::of(&stored.record.recorded(stored.first, (at.0 - stored.first.0) as usize))
    }
}
