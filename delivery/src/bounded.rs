//! A map of bounded size that forgets what was not asked for longest.

use std::collections::HashMap;
use std::hash::Hash;

/// A least-recently-used map. A full one looks at every entry when it takes another, which is cheap
/// beside what its values cost to make (a TLS configuration, a request).
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, (V, u64)>,
    entries_max: usize,
    uses: u64,
}

impl<K: Eq + Hash + Clone, V> Lru<K, V> {
    /// An empty map of at most `entries_max` entries, and at least one.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), entries_max: entries_max.max(1), uses: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        self.uses += 1;
        let (value, last_use) = self.entries.get_mut(key)?;
        *last_use = self.uses;
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, (_, last_use))| *last_use);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&oldest);
            }
        }
        self.uses += 1;
        self.entries.insert(key, (value, self.uses));
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_longest_goes() {
        let mut map = Lru::new(2);
        map.insert("a", 1);
        map.insert("b", 2);
        assert_eq!(map.get(&"a"), Some(&1));
        map.insert("c", 3);
        assert_eq!(map.get(&"a"), Some(&1));
        assert_eq!(map.get(&"c"), Some(&3));
        assert_eq!(map.get(&"b"), None);
        map.insert("a", 4);
        map.remove(&"c");
        assert_eq!((map.get(&"a").copied(), map.entries.len()), (Some(4), 1));
    }
}
