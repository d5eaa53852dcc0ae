//! Maps and sets that copies share: what there is one of for every Service, and what a change touches little of.
//!
//! ```text
//!  old  ┌─ a ─┬─ b ─┬─ c ─┬─ d ─┐      an entry of b changed: b is copied, the list of chunks is copied,
//!       └──┬──┴─────┴──┬──┴──┬──┘      a, c and d are the very same
//!  new  ┌──┴──┬─ b'─┬──┴──┬──┴──┐      what differs is found in b and b' alone
//!       │  a  │     │  c  │  d  │
//!       └─────┴─────┴─────┴─────┘
//! ```
//!
//! A copy is one reference. A change costs one chunk and the list of chunks where a copy is held, and less where none
//! is; to compare two that came of one another costs as much as lies between them. Both levels are vectors, so that an
//! entry takes its own size and nothing around it. What must hold: no chunk is empty, and keys ascend within a chunk and
//! from one to the next. Where the bounds of chunks lie says nothing.

use std::{cmp::Ordering, fmt, mem, ops::Index, sync::Arc};

/// Entries in a chunk of a map that was made at once: with some thousands of them, copying a chunk and copying the list
/// of chunks cost about the same.
const SIZE: usize = 64;
/// Changes let a chunk grow to this before it is cut in two …
const MOST: usize = 2 * SIZE;
/// … and shrink to this before it is joined with the next or the last.
const LEAST: usize = SIZE / 4;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A map in the order of its keys. See the module.
pub struct Map<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Map<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// Whether the two are one map in memory, and so equal at a glance.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (chunk, place) = self.find(key);
        let place = place.ok()?; // in an empty map there is no chunk either
        Some(&self.chunks[chunk][place].1)
    }

    /// Whether there is a value of the key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).1.is_ok()
    }

    /// The chunk that holds or would hold the key, and where in it.
    fn find(&self, key: &K) -> (usize, Result<usize, usize>) {
        let at = self.chunks.partition_point(|chunk| chunk[0].0 <= *key).saturating_sub(1);
        let place = self.chunks.get(at).map_or(Err(0), |chunk| chunk.binary_search_by(|(other, _)| other.cmp(key)));
        (at, place)
    }
}

impl<K: Ord, V: PartialEq> Map<K, V> {
    /// The keys whose values are not the same in both, each with its value here and there.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Differences<'a, K, V> {
        Differences { ours: Cursor { chunks: &self.chunks, at: 0 }, theirs: Cursor { chunks: &other.chunks, at: 0 } }
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Sets the value of a key; the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, place) = self.find(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let entries = Arc::make_mut(chunk);
        match place {
            Ok(place) => return Some(mem::replace(&mut entries[place].1, value)),
            Err(place) => entries.insert(place, (key, value)),
        }
        self.len += 1;
        if entries.len() > MOST {
            let second = entries.split_off(entries.len() / 2);
            chunks.insert(at + 1, Arc::new(second));
        }
        None
    }

    /// Takes a key out; its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (at, place) = self.find(key);
        let place = place.ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(&mut chunks[at]);
        let (_, value) = entries.remove(place);
        self.len -= 1;
        if entries.len() < LEAST {
            join(chunks, at);
        }
        Some(value)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (at, place) = self.find(key);
        let place = place.ok()?;
        Some(&mut Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at])[place].1)
    }

    /// The values in the order of their keys, to change them. Copies everything that is shared.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = Arc::make_mut(&mut self.chunks).iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut()).map(|(_, value)| value)
    }
}

/// Joins a small chunk with its neighbour, and cuts what became of it where that is too large.
fn join<K: Clone, V: Clone>(chunks: &mut Vec<Chunk<K, V>>, at: usize) {
    if chunks.len() == 1 {
        chunks.retain(|chunk| !chunk.is_empty());
        return;
    }
    let first = at.min(chunks.len() - 2);
    let second = Arc::unwrap_or_clone(chunks.remove(first + 1));
    let entries = Arc::make_mut(&mut chunks[first]);
    entries.extend(second);
    if entries.len() > MOST {
        let second = entries.split_off(entries.len() / 2);
        chunks.insert(first + 1, Arc::new(second));
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.len == other.len && self.differences(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for Map<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> Index<&K> for Map<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is there")
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    /// Of several values of a key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            entries.reverse();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.dedup_by(|again, first| again.0 == first.0);
        }
        let len = entries.len();
        let mut entries = entries.into_iter();
        let chunks = (0..len.div_ceil(SIZE)).map(|_| Arc::new(entries.by_ref().take(SIZE).collect()));
        Self { chunks: Arc::new(chunks.collect()), len }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

/// See [`Map::differences`].
pub struct Differences<'a, K, V> {
    ours: Cursor<'a, K, V>,
    theirs: Cursor<'a, K, V>,
}

/// A place in a list of chunks: an entry of the first of those that are left.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn entry(&self) -> Option<&'a (K, V)> {
        self.chunks.first().map(|chunk| &chunk[self.at])
    }

    fn step(&mut self) {
        self.at += 1;
        if self.chunks.first().is_some_and(|chunk| chunk.len() == self.at) {
            self.step_over();
        }
    }

    fn step_over(&mut self) {
        (self.chunks, self.at) = (&self.chunks[1..], 0);
    }
}

impl<'a, K: Ord, V: PartialEq> Iterator for Differences<'a, K, V> {
    type Item = (&'a K, Option<&'a V>, Option<&'a V>);

    fn next(&mut self) -> Option<Self::Item> {
        let (ours, theirs) = (&mut self.ours, &mut self.theirs);
        loop {
            if (ours.at, theirs.at) == (0, 0)
                && let ([a, ..], [b, ..]) = (ours.chunks, theirs.chunks)
                && Arc::ptr_eq(a, b)
            {
                ours.step_over();
                theirs.step_over();
                continue;
            }
            let (a, b) = (ours.entry(), theirs.entry());
            let order = match (a, b) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.0.cmp(&b.0),
            };
            let (a, b) = (a.filter(|_| order.is_le()), b.filter(|_| order.is_ge()));
            a.iter().for_each(|_| ours.step());
            b.iter().for_each(|_| theirs.step());
            let (one, other) = (a.map(|(_, value)| value), b.map(|(_, value)| value));
            if one != other {
                return a.or(b).map(|(key, _)| (key, one, other));
            }
        }
    }
}

/// A set in order. See the module.
#[derive(PartialEq, Eq)]
pub struct Set<T: Ord>(Map<T, ()>);

impl<T: Ord> Set<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.keys()
    }

    /// Whether it is among them.
    pub fn contains(&self, item: &T) -> bool {
        self.0.contains_key(item)
    }
}

impl<T: Ord + Clone> Set<T> {
    /// Adds one; whether it is new.
    pub fn insert(&mut self, item: T) -> bool {
        let new = !self.contains(&item);
        if new {
            self.0.insert(item, ());
        }
        new
    }

    /// Takes one out; whether it was there.
    pub fn remove(&mut self, item: &T) -> bool {
        self.0.remove(item).is_some()
    }
}

impl<T: Ord> Clone for Set<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Ord> Default for Set<T> {
    fn default() -> Self {
        Self(Map::default())
    }
}

impl<T: Ord + fmt::Debug> fmt::Debug for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: Ord> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().map(|item| (item, ())).collect())
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Set<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
