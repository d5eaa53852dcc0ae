//! The routes of one family in the order of their prefixes, in chunks that sets share.
//!
//! ```text
//!  old  ┌─ a ─┬─ b ─┬─ c ─┬─ d ─┐      a route of b changed: b is copied, the list of chunks is copied,
//!       └──┬──┴─────┴──┬──┴──┬──┘      a, c and d are the very same
//!  new  ┌──┴──┬─ b'─┬──┴──┬──┴──┐      both walked side by side: chunks that are the same are stepped over, and
//!       │  a  │     │  c  │  d  │      b costs one comparison for each route
//!       └─────┴─────┴─────┴─────┘
//! ```
//!
//! What must hold: no chunk is empty, prefixes ascend within a chunk and from one to the next, host bits are 0, and all
//! paths to one prefix stand in one chunk. Where the bounds of chunks lie says nothing: equal sets may be cut in
//! different places.

use std::{borrow::Cow, cmp::Ordering, sync::Arc};

use super::Attributes;
use crate::wire::nlri::Prefix;

/// Routes in a chunk of a set that was made at once: copying one costs about as much as copying the list of the chunks
/// of 10,000 to 100,000 routes.
const SIZE: usize = 256;
/// Changes let a chunk grow to this before it is cut in two …
const MOST: usize = 2 * SIZE;
/// … and shrink to this before it is joined with its neighbour.
const LEAST: usize = SIZE / 4;

/// One path to a prefix; 16 octets for IPv4, 32 for IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<P> {
    pub(super) prefix: P,
    pub(super) attributes: Arc<Attributes>,
}

type Chunk<P> = Arc<[Entry<P>]>;

/// The routes of one family.
#[derive(Debug, Clone)]
pub(super) struct Chunks<P>(Vec<Chunk<P>>);

impl<P> Default for Chunks<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P: Prefix> PartialEq for Chunks<P> {
    fn eq(&self, other: &Self) -> bool {
        self.beside(other, false).all(|(ours, theirs)| ours == theirs)
    }
}

impl<P: Prefix> Chunks<P> {
    /// How many routes there are.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|chunk| chunk.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every chunk is the very same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<P>> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }

    /// The paths to each prefix.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &[Entry<P>]> {
        self.0.iter().flat_map(|chunk| chunk.chunk_by(|a, b| a.prefix == b.prefix))
    }

    /// The paths to each prefix in both sets, `self` first; without those that are the same at a glance, unless `all`.
    pub(super) fn beside<'a>(&'a self, other: &'a Self, all: bool) -> Beside<'a, P> {
        Beside { ours: Cursor { chunks: &self.0, at: 0 }, theirs: Cursor { chunks: &other.0, at: 0 }, all }
    }

    /// The paths to a prefix.
    pub(super) fn paths(&self, prefix: &P) -> &[Entry<P>] {
        let chunk = self.0.get(self.chunk_of(prefix));
        chunk.map_or(&[], |chunk| &chunk[paths_to(chunk, prefix)])
    }

    /// Whether the only path to the prefix has these attributes.
    pub(super) fn says(&self, prefix: &P, attributes: &Arc<Attributes>) -> bool {
        matches!(self.paths(prefix), [only] if Arc::ptr_eq(&only.attributes, attributes) || only.attributes == *attributes)
    }

    /// Puts one path in place of all paths to its prefix.
    pub(super) fn insert(&mut self, entry: Entry<P>) {
        let at = self.chunk_of(&entry.prefix);
        let Some(chunk) = self.0.get(at).cloned() else {
            self.0.push([entry].into());
            return;
        };
        let paths = paths_to(&chunk, &entry.prefix);
        let (before, after) = (&chunk[..paths.start], &chunk[paths.end..]);
        let whole = before.iter().cloned().chain([entry]).chain(after.iter().cloned());
        self.replace(at, before.len() + 1 + after.len(), whole);
    }

    /// Takes out every path to a prefix; whether there was one.
    pub(super) fn remove(&mut self, prefix: &P) -> bool {
        let at = self.chunk_of(prefix);
        let Some(chunk) = self.0.get(at).cloned() else { return false };
        let paths = paths_to(&chunk, prefix);
        if paths.is_empty() {
            return false;
        }
        let (before, after) = (&chunk[..paths.start], &chunk[paths.end..]);
        self.replace(at, before.len() + after.len(), before.iter().chain(after).cloned());
        true
    }

    /// The chunk that holds or would hold the prefix.
    fn chunk_of(&self, prefix: &P) -> usize {
        self.0.partition_point(|chunk| chunk[0].prefix <= *prefix).saturating_sub(1)
    }

    /// Puts a changed chunk of so many routes in its place.
    fn replace(&mut self, at: usize, length: usize, routes: impl Iterator<Item = Entry<P>>) {
        let fits = (LEAST..=MOST).contains(&length) || (1..LEAST).contains(&length) && self.0.len() == 1;
        match fits {
            // Each route is copied once, and each copy counts its attributes.
            true => self.0[at] = routes.collect(),
            false => self.fit(at, routes.collect()),
        }
    }

    /// Cuts a changed chunk in two or joins it with the next or the last, as its size asks for.
    fn fit(&mut self, mut at: usize, mut chunk: Vec<Entry<P>>) {
        let mut end = at + 1;
        if chunk.len() < LEAST && end < self.0.len() {
            chunk.extend(self.0[end].iter().cloned());
            end += 1;
        } else if chunk.len() < LEAST && at > 0 {
            at -= 1;
            chunk.splice(..0, self.0[at].iter().cloned());
        }
        let middle = Some(chunk.len() / 2).filter(|_| chunk.len() > MOST);
        let cut = middle.map_or(chunk.len(), |middle| paths_to(&chunk, &chunk[middle].prefix).start);
        let parts = [&chunk[..cut], &chunk[cut..]].into_iter().filter(|part| !part.is_empty());
        self.0.splice(at..end, parts.map(Into::into));
    }
}

/// Where the paths to a prefix stand, or would stand.
fn paths_to<P: Ord>(chunk: &[Entry<P>], prefix: &P) -> std::ops::Range<usize> {
    let start = chunk.partition_point(|entry| entry.prefix < *prefix);
    let count = chunk[start..].iter().take_while(|entry| entry.prefix == *prefix).count();
    start..start + count
}

/// Two sets side by side; see [`Chunks::beside`].
pub(super) struct Beside<'a, P> {
    ours: Cursor<'a, P>,
    theirs: Cursor<'a, P>,
    all: bool,
}

/// A place in a list of chunks: a route of the first of those that are left.
struct Cursor<'a, P> {
    chunks: &'a [Chunk<P>],
    at: usize,
}

impl<'a, P: Prefix> Cursor<'a, P> {
    fn prefix(&self) -> Option<P> {
        self.chunks.first().map(|chunk| chunk[self.at].prefix)
    }

    /// Takes all paths to the prefix at hand.
    fn paths(&mut self, prefix: P) -> &'a [Entry<P>] {
        let Some(chunk) = self.chunks.first() else { return &[] };
        let rest = &chunk[self.at..];
        let count = rest.iter().take_while(|entry| entry.prefix == prefix).count();
        self.at += count;
        if self.at == chunk.len() {
            self.step();
        }
        &rest[..count]
    }

    fn step(&mut self) {
        (self.chunks, self.at) = (&self.chunks[1..], 0);
    }

    /// What is left of the chunk at hand.
    fn rest(&self) -> &'a [Entry<P>] {
        self.chunks.first().map_or(&[], |chunk| &chunk[self.at..])
    }

    fn skip(&mut self, count: usize) {
        self.at += count;
        if self.chunks.first().is_some_and(|chunk| chunk.len() == self.at) {
            self.step();
        }
    }
}

impl<P: Prefix> Beside<'_, P> {
    /// Steps over chunks that are the very same, and over routes that say the same in chunks that are not.
    #[inline]
    fn skip_same(&mut self) {
        let (ours, theirs) = (&mut self.ours, &mut self.theirs);
        loop {
            if (ours.at, theirs.at) == (0, 0)
                && let ([a, ..], [b, ..]) = (ours.chunks, theirs.chunks)
                && Arc::ptr_eq(a, b)
            {
                ours.step();
                theirs.step();
                continue;
            }
            match same_at_start(ours.rest(), theirs.rest()) {
                0 => return,
                count => {
                    ours.skip(count);
                    theirs.skip(count);
                }
            }
        }
    }
}

/// How many routes at the start of both are the same at a glance; all paths to a prefix are, or none.
#[inline]
fn same_at_start<P: Prefix>(ours: &[Entry<P>], theirs: &[Entry<P>]) -> usize {
    let is_same = |(a, b): &(&Entry<P>, &Entry<P>)| a.prefix == b.prefix && Arc::ptr_eq(&a.attributes, &b.attributes);
    let mut count = ours.iter().zip(theirs).take_while(is_same).count();
    let next = [ours.get(count), theirs.get(count)];
    while let Some(last) = count.checked_sub(1)
        && next.iter().flatten().any(|next| next.prefix == ours[last].prefix)
    {
        count = last;
    }
    count
}

impl<'a, P: Prefix> Iterator for Beside<'a, P> {
    type Item = (&'a [Entry<P>], &'a [Entry<P>]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if !self.all {
            self.skip_same();
        }
        let (ours, theirs) = (&mut self.ours, &mut self.theirs);
        Some(match (ours.prefix(), theirs.prefix()) {
            (None, None) => return None,
            (Some(prefix), None) => (ours.paths(prefix), &[]),
            (None, Some(prefix)) => (&[], theirs.paths(prefix)),
            (Some(a), Some(b)) => match a.cmp(&b) {
                Ordering::Less => (ours.paths(a), &[]),
                Ordering::Greater => (&[], theirs.paths(b)),
                Ordering::Equal => (ours.paths(a), theirs.paths(b)),
            },
        })
    }
}

/// Makes a set of routes that come one by one, of the chunks of a former set where those say the same. Routes that
/// come in the order of their prefixes are not looked at twice; all others are sorted at the end.
pub(super) struct Builder<'f, P> {
    done: Vec<Chunk<P>>,
    /// The chunk at work, but what `same` counts.
    open: Vec<Entry<P>>,
    /// Chunks of the former set that may come next.
    former: &'f [Chunk<P>],
    /// The whole of them.
    all: &'f Chunks<P>,
    /// So many routes at the start of the first of them have come.
    same: usize,
    last: Option<P>,
    sorted: bool,
    equal: Equal,
}

impl<'f, P: Prefix> Builder<'f, P> {
    pub(super) fn new(former: &'f Chunks<P>) -> Self {
        Self {
            done: Vec::with_capacity(former.0.len()),
            open: Vec::new(),
            former: &former.0,
            all: former,
            same: 0,
            last: None,
            sorted: true,
            equal: Equal::default(),
        }
    }

    /// Adds a path to a prefix, behind those that it has already. The same route twice in a row counts once.
    #[inline]
    pub(super) fn push(&mut self, prefix: P, attributes: Cow<'_, Arc<Attributes>>) {
        if self.same > 0 && self.is_next(prefix, &attributes) {
            return self.take(prefix);
        }
        if self.last == Some(prefix) {
            return self.push_again(prefix, attributes);
        }
        self.sorted &= self.last.is_none_or(|last| last < prefix);
        self.unsame();
        self.meet(prefix);
        if self.open.is_empty() && self.is_next(prefix, &attributes) {
            return self.take(prefix);
        }
        self.last = Some(prefix);
        self.open.push(Entry { prefix, attributes: attributes.into_owned() });
    }

    /// Whether the route is the one that the former set has at this place.
    #[inline]
    fn is_next(&mut self, prefix: P, attributes: &Arc<Attributes>) -> bool {
        let next = self.former.first().and_then(|chunk| chunk.get(self.same));
        next.is_some_and(|next| next.prefix == prefix && self.equal.are(&next.attributes, attributes))
    }

    #[inline]
    fn take(&mut self, prefix: P) {
        self.last = Some(prefix);
        self.same += 1;
        if self.same == self.former[0].len() {
            self.done.push(self.former[0].clone());
            (self.former, self.same) = (&self.former[1..], 0);
        }
    }

    /// Adds a further path to the last prefix, in the same chunk.
    #[cold]
    fn push_again(&mut self, prefix: P, attributes: Cow<'_, Arc<Attributes>>) {
        self.unsame();
        if self.open.is_empty()
            && let Some(chunk) = self.done.pop()
        {
            self.open.extend(chunk.iter().cloned());
        }
        if self.open.last().is_none_or(|last| !self.equal.are(&last.attributes, &attributes)) {
            self.open.push(Entry { prefix, attributes: attributes.into_owned() });
        }
    }

    /// The chunk of the former set is not the same after all.
    fn unsame(&mut self) {
        if self.same > 0 {
            self.open.extend(self.former[0][..self.same].iter().cloned());
            (self.former, self.same) = (&self.former[1..], 0);
        }
    }

    /// Ends the chunk at work before another prefix if it is full, or if a chunk of the former set begins there.
    fn meet(&mut self, prefix: P) {
        while let [chunk, rest @ ..] = self.former
            && chunk[0].prefix < prefix
        {
            self.former = rest;
        }
        let enough = match self.former.first() {
            Some(chunk) if chunk[0].prefix == prefix => LEAST,
            Some(_) => MOST,
            None => SIZE,
        };
        if self.open.len() >= enough {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(self.open.drain(..).collect());
        }
    }

    pub(super) fn finish(mut self) -> Chunks<P> {
        self.unsame();
        if self.sorted {
            self.close();
            return Chunks(self.done);
        }
        let mut entries: Vec<Entry<P>> = self.done.iter().flat_map(|chunk| chunk.iter().cloned()).collect();
        entries.append(&mut self.open);
        // Stable, so that paths to one prefix keep their order.
        entries.sort_by_key(|entry| entry.prefix);
        let mut again = Builder::new(self.all);
        entries.into_iter().for_each(|entry| again.push(entry.prefix, Cow::Owned(entry.attributes)));
        again.finish()
    }
}

/// Compares attributes, the same two as before at a glance: sets that were made one after the other have one `Arc`
/// each for what many routes share.
#[derive(Default)]
struct Equal {
    /// Held, so that their addresses are nobody else's meanwhile.
    last: Option<[Arc<Attributes>; 2]>,
}

impl Equal {
    #[inline]
    fn are(&mut self, one: &Arc<Attributes>, other: &Arc<Attributes>) -> bool {
        Arc::ptr_eq(one, other)
            || self.last.as_ref().is_some_and(|[a, b]| Arc::ptr_eq(a, one) && Arc::ptr_eq(b, other))
            || self.are_by_value(one, other)
    }

    fn are_by_value(&mut self, one: &Arc<Attributes>, other: &Arc<Attributes>) -> bool {
        let equal = one == other;
        if equal {
            self.last = Some([one.clone(), other.clone()]);
        }
        equal
    }
}

#[cfg(test)]
mod tests;
