use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

/// A change: `None` takes the key out.
type Change = (u16, Option<u8>);

fn apply(map: &mut Map<u16, u8>, model: &mut BTreeMap<u16, u8>, change: Change) {
    match change {
        (key, Some(value)) => assert_eq!(map.insert(key, value), model.insert(key, value)),
        (key, None) => assert_eq!(map.remove(&key), model.remove(&key)),
    }
}

/// What must hold of any map.
fn check(map: &Map<u16, u8>, model: &BTreeMap<u16, u8>) {
    assert_eq!(map.len(), model.len());
    assert!(map.iter().eq(model.iter()), "{map:?} is not {model:?}");
    assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= MOST));
    let small = map.chunks.iter().filter(|chunk| chunk.len() < LEAST).count();
    assert!(map.chunks.len() <= 1 || small <= 1, "at most the last chunk of a map made at once is small");
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Few keys at first, so that chunks fill up, and more goes than comes in the end.
    let grow = vec((0u16..2000, (0u8..4).prop_map(Some)), 0..600);
    let shrink = vec((0u16..2000, prop_oneof![1 => (0u8..4).prop_map(Some), 4 => Just(None)]), 0..600);
    (grow, shrink).prop_map(|(grow, shrink)| [grow, shrink].concat())
}

proptest! {
    #[test]
    fn map_is_as_the_one_of_the_library_and_its_copies_stay_as_they_were(
        first in vec((0u16..2000, 0u8..4), 0..1500), changes in changes(),
    ) {
        let mut model: BTreeMap<u16, u8> = first.iter().copied().collect();
        let mut map: Map<u16, u8> = first.into_iter().collect();
        check(&map, &model);
        let mut copies = Vec::new();
        for (n, change) in changes.into_iter().enumerate() {
            if n % 100 == 0 {
                copies.push((map.clone(), model.clone()));
            }
            apply(&mut map, &mut model, change);
            prop_assert_eq!(map.get(&change.0), model.get(&change.0));
        }
        check(&map, &model);
        for (copy, was) in &copies {
            check(copy, was);
            let told: Vec<_> = copy.differences(&map).map(|(key, one, other)| (*key, one.copied(), other.copied())).collect();
            let keys: BTreeSet<u16> = was.keys().chain(model.keys()).copied().collect();
            let differ = keys.into_iter().map(|key| (key, was.get(&key).copied(), model.get(&key).copied()));
            prop_assert_eq!(told, differ.filter(|(_, one, other)| one != other).collect::<Vec<_>>());
            prop_assert_eq!(*copy == map, *was == model);
        }
        let again: Map<u16, u8> = model.clone().into_iter().collect();
        prop_assert_eq!(&again, &map, "chunks lie elsewhere");
    }
}

#[test]
fn change_copies_its_own_chunk_alone() {
    let before: Map<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
    let mut after = before.clone();
    assert!(after.is(&before));
    after.insert(5_000, 0);
    let shared = before.chunks.iter().zip(&*after.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!(shared, before.chunks.len() - 1);
    assert_eq!(before.differences(&after).collect::<Vec<_>>(), [(&5_000, Some(&5_000), Some(&0))]);
}

#[test]
fn nothing_is_compared_but_what_was_copied() {
    use std::cell::Cell;
    thread_local!(static COMPARED: Cell<usize> = const { Cell::new(0) });
    #[derive(Clone)]
    struct Counted;
    impl PartialEq for Counted {
        fn eq(&self, _: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            true
        }
    }
    let before: Map<u32, Counted> = (0..10_000).map(|n| (n, Counted)).collect();
    let mut after = before.clone();
    after.insert(5_000, Counted);
    assert!(before == after);
    assert_eq!(COMPARED.get(), SIZE);
}
