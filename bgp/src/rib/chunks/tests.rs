use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

/// Prefix and MED: what a route is in these tests.
type Path = (u16, u8);

fn prefix(n: u16) -> Ipv4Net {
    Ipv4Net::new((0x0A00_0000 + u32::from(n)).into(), 32).expect("valid")
}

fn attributes(med: u8) -> Arc<Attributes> {
    Arc::new(Attributes { med: Some(med.into()), ..Attributes::default() })
}

/// A set made anew, every route with attributes of its own.
fn made(former: &Chunks<Ipv4Net>, paths: &[Path]) -> Chunks<Ipv4Net> {
    let mut builder = Builder::new(former);
    paths.iter().for_each(|(n, med)| builder.push(prefix(*n), Cow::Owned(attributes(*med))));
    let chunks = builder.finish();
    check(&chunks);
    chunks
}

fn check(chunks: &Chunks<Ipv4Net>) {
    assert!(chunks.0.iter().all(|chunk| chunk.is_sorted_by(|a, b| a.prefix <= b.prefix)));
    let ends = chunks.0.iter().map(|chunk| (chunk[0].prefix, chunk[chunk.len() - 1].prefix));
    assert!(ends.collect::<Vec<_>>().is_sorted_by(|a, b| a.1 < b.0), "no chunk is empty or reaches into the next");
}

fn paths(chunks: &Chunks<Ipv4Net>) -> Vec<Path> {
    let number = |p: Ipv4Net| u16::try_from(p.addr().to_bits() - 0x0A00_0000).expect("made of one");
    let med = |a: &Attributes| u8::try_from(a.med.expect("there is one")).expect("made of one");
    chunks.iter().map(|e| (number(e.prefix), med(&e.attributes))).collect()
}

/// What a plain list makes of the same.
fn expected(list: &[Path]) -> Vec<Path> {
    let mut list = list.to_vec();
    list.sort_by_key(|(n, _)| *n);
    list.dedup();
    list
}

fn many(count: u16) -> Vec<Path> {
    (0..count).map(|n| (2 * n, 1)).collect()
}

/// How many chunks of the second set are not of the first.
fn own(old: &Chunks<Ipv4Net>, new: &Chunks<Ipv4Net>) -> usize {
    new.0.iter().filter(|chunk| !old.0.iter().any(|o| Arc::ptr_eq(o, chunk))).count()
}

#[test]
fn equal_set_that_is_made_anew_is_the_former_one() {
    let twice = [many(1000), vec![(1998, 2)], vec![(2500, 1), (2500, 2), (2501, 1)]].concat();
    for list in [many(1000), twice, vec![]] {
        let former = made(&Chunks::default(), &list);
        assert!(made(&former, &list).is(&former));
        let backwards: Vec<Path> = list.iter().rev().copied().collect();
        assert_eq!(own(&former, &made(&former, &backwards)), usize::from(list.len() > 1000), "two paths change places");
    }
}

#[test]
fn set_that_is_made_anew_has_few_chunks_of_its_own() {
    let former = made(&Chunks::default(), &many(10_000));
    let mut list = many(10_000);
    list[5_000].1 = 2;
    assert_eq!(own(&former, &made(&former, &list)), 1, "changed");
    for (what, at) in [("first", 0), ("amid a chunk", 5_000), ("at the end of a chunk", SIZE - 1), ("last", 9_999)] {
        let mut list = many(10_000);
        list.remove(at);
        assert!(own(&former, &made(&former, &list)) <= 1, "without the {what}");
        let mut list = many(10_000);
        list.insert(at, (list[at].0 - u16::from(at > 0), 1));
        assert!(own(&former, &made(&former, &list)) <= 1, "one more, {what}");
    }
    let fewer: Vec<Path> = many(10_000).into_iter().filter(|(n, _)| !(600..9_000).contains(n)).collect();
    assert!(own(&former, &made(&former, &fewer)) <= 2, "most of them gone");
    let more: Vec<Path> =
        (0..10_000).flat_map(|n| if n < 500 { vec![(2 * n, 1), (2 * n + 1, 1)] } else { vec![(2 * n, 1)] }).collect();
    assert!(own(&former, &made(&former, &more)) <= 4, "twice as many at the start");
}

#[test]
fn one_change_copies_one_chunk_and_leaves_the_former_set_alone() {
    let former = made(&Chunks::default(), &many(10_000));
    let before = paths(&former);
    let mut set = former.clone();
    set.insert(Entry { prefix: prefix(777), attributes: attributes(9) });
    assert!(set.remove(&prefix(9_000)) && !set.remove(&prefix(9_001)));
    assert_eq!((own(&former, &set), paths(&former) == before), (2, true));
}

#[test]
fn sets_side_by_side_are_walked_where_they_differ() {
    let old = made(&Chunks::default(), &many(10_000));
    let mut new = old.clone();
    new.insert(Entry { prefix: prefix(777), attributes: attributes(9) });
    let looked_at = old.beside(&new, false).count();
    assert!(looked_at <= MOST, "{looked_at} prefixes");
    let differs = old.beside(&new, false).filter(|(a, b)| a != b).collect::<Vec<_>>();
    let [(&[], [entry])] = differs[..] else { panic!("{differs:?}") };
    assert_eq!(entry.prefix, prefix(777));
    assert_eq!(old.beside(&new, true).count(), 10_001);
}

#[derive(Debug, Clone)]
enum Change {
    Insert(Path),
    Remove(u16),
    Anew(Vec<Path>),
}

/// Prefixes of a narrow and of a wide range: several paths to one, and chunks that grow and shrink.
fn change() -> impl Strategy<Value = Change> {
    let path = prop_oneof![(0..40u16, 0..3u8), (0..3_000u16, 0..2u8)];
    let run = (0..3_000u16, 0..1_500u16, 1..3u16).prop_map(|(start, count, step)| {
        (start..start + count).step_by(step.into()).map(|n| (n, 1)).collect::<Vec<Path>>()
    });
    let anew = (run, prop::collection::vec(path.clone(), 0..30)).prop_map(|(run, more)| [run, more].concat());
    prop_oneof![
        5 => path.prop_map(Change::Insert),
        3 => (0..3_000u16).prop_map(Change::Remove),
        2 => anew.prop_map(Change::Anew),
    ]
}

proptest! {
    #[test]
    fn set_is_what_a_plain_list_would_be(changes in prop::collection::vec(change(), 1..40)) {
        let (mut set, mut list) = (Chunks::default(), Vec::<Path>::new());
        for change in changes {
            let before = (set.clone(), list.clone());
            match change {
                Change::Insert((n, med)) => {
                    set.insert(Entry { prefix: prefix(n), attributes: attributes(med) });
                    list.retain(|(m, _)| *m != n);
                    list.push((n, med));
                }
                Change::Remove(n) => {
                    prop_assert_eq!(set.remove(&prefix(n)), list.iter().any(|(m, _)| *m == n));
                    list.retain(|(m, _)| *m != n);
                }
                Change::Anew(anew) => {
                    set = made(&set, &anew);
                    list = anew;
                }
            }
            list = expected(&list);
            check(&set);
            prop_assert_eq!(&paths(&set), &list);
            prop_assert_eq!(set.len(), list.len());
            prop_assert_eq!(set == before.0, list == before.1);
            let both = set.beside(&before.0, true).fold([0, 0], |n, (a, b)| [n[0] + a.len(), n[1] + b.len()]);
            prop_assert_eq!(both, [list.len(), before.1.len()]);
        }
    }
}
