//! What comes from outside, damaged by a seed: whatever is read, nothing may panic, go on for ever or take memory
//! without bound.
//!
//! | from | begins with | then |
//! |---|---|---|
//! | people: manifests (`manifests`) | one of each kind, `deploy/examples` | index, plan, orders to the speaker, tables of the packet path |
//! | the API server: objects (`objects`) | the same | the same |
//! | providers: every answer (`answers`) | the emulators' | every call of every vendor's client, over HTTP |
//! | disk: every file of ours | what the daemon writes | beside each file's code, by [`damaged`] |
//!
//! libFuzzer (`bgp/fuzz`) looks for new paths and would do better, but this crate instrumented takes longer to build
//! than all else in CI; here a good sample and its grammar stand for coverage. `IRONCAST_MUTATIONS` says how many are tried
//! of each, `IRONCAST_MUTATIONS_SEED` is the first seed: with the one that a failure prints and a count of 1 it is repeated.

mod answers;
mod manifests;
mod objects;

use std::path::Path;

use serde_json::{Value, json};

use crate::{provider::claims::patience::Random, source::manifests::documents};

/// Inputs of each test where nobody says how many.
const INPUTS: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().expect("a number"))
}

/// Prints the seed of an input that made its reader panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat it with IRONCAST_MUTATIONS=1 IRONCAST_MUTATIONS_SEED={}", self.0);
        }
    }
}

/// The seeds to try; one in so many where an input takes long.
pub(crate) fn seeds(one_in: u64) -> std::ops::Range<u64> {
    let first = number("IRONCAST_MUTATIONS_SEED").unwrap_or(0);
    let inputs = number("IRONCAST_MUTATIONS").map_or(INPUTS / one_in, |n| n.div_ceil(one_in));
    first..first + inputs
}

/// Runs with the damage of every seed.
pub(crate) fn each(one_in: u64, mut run: impl FnMut(&mut Damage)) {
    for seed in seeds(one_in) {
        let _printed = Seed(seed);
        run(&mut Damage::new(seed));
    }
}

/// Everything that may have become of a file on a disk that fails: cut off anywhere, any octet another.
pub(crate) fn damaged(whole: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    let flipped = (0..whole.len()).flat_map(move |at| {
        [1, 0x20, 0x80, 0xff].into_iter().map(move |bits| {
            let mut text = whole.to_vec();
            text[at] ^= bits;
            text
        })
    });
    cut.chain(flipped)
}

/// Texts that a parser of addresses, times, numbers or names may stumble on.
const TEXTS: [&str; 44] = [
    "",
    " ",
    "-",
    "/",
    ",",
    "\0",
    "é",
    "0",
    "-1",
    "1e9",
    "65536",
    "4294967296",
    "18446744073709551615",
    "99999999999999999999999",
    "0.0.0.0",
    "0.0.0.0/0",
    "255.255.255.255",
    "255.255.255.255/32",
    "192.0.2.255-192.0.2.0",
    "0.0.0.0-255.255.255.255",
    "10.0.0.0/33",
    "::",
    "::/0",
    "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "::ffff:192.0.2.1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
    "fe80::1%eth0",
    "0s",
    "-1s",
    "1ns",
    "9223372036854775807s",
    "18446744073709551615h",
    "0.0000000001s",
    "1h1h1h",
    "1970-01-01T00:00:00Z",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "65535:65535",
    "large:4294967295:4294967295:4294967295",
    "web",
    "default",
    "IPv6",
    "True",
    "null",
];

/// Damages inputs.
#[derive(Debug)]
pub(crate) struct Damage(Random);

impl Damage {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random(seed))
    }

    /// Less than `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.0.next() % n as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Some octets cut out, doubled, overwritten, or from a word that means something.
    pub(crate) fn octets(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut text = whole.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len() + 1);
            let end = (at + self.below(40)).min(text.len());
            match self.below(6) {
                0 => text.truncate(at),
                1 => drop(text.drain(at..end)),
                2 => {
                    let part = text[at..end].repeat(1 + self.below(20));
                    text.splice(at..at, part);
                }
                3 => {
                    let word = self.pick(&TEXTS).as_bytes().to_vec();
                    text.splice(at..end, word);
                }
                4 => {
                    let sign = *self.pick(b"{}[]\"':,-&*!|>#%\n \t\\\x00\xff0");
                    text.splice(at..at, vec![sign; 1 + self.below(3) * self.below(200)]);
                }
                _ => {
                    if let Some(octet) = text.get_mut(at) {
                        *octet = self.0.next() as u8;
                    }
                }
            }
        }
        text
    }

    /// Some parts of a value replaced, removed, renamed, repeated or put elsewhere.
    pub(crate) fn value(&mut self, whole: &Value) -> Value {
        let mut value = whole.clone();
        for _ in 0..=self.below(3) {
            let from = self.below(nodes(whole));
            let donor = node(whole, from).clone();
            let at = self.below(nodes(&value));
            let place = node_mut(&mut value, at);
            *place = self.other(place, donor);
        }
        value
    }

    fn other(&mut self, old: &mut Value, donor: Value) -> Value {
        match (self.below(8), &mut *old) {
            (0..=2, Value::Object(fields)) if !fields.is_empty() => {
                let n = self.below(fields.len());
                let name = fields.keys().nth(n).cloned().unwrap_or_default();
                let field = fields.remove(&name);
                if self.below(3) == 0 {
                    fields.insert((*self.pick(&TEXTS)).into(), field.unwrap_or_default());
                }
                old.take()
            }
            (0..=2, Value::Array(items)) if !items.is_empty() => {
                let item = self.pick(items).clone();
                let times = 1 + self.below(2) * self.below(300);
                items.extend(std::iter::repeat_n(item, times));
                old.take()
            }
            (3, _) => donor,
            (4, _) => (0..1 + self.below(3) * self.below(60)).fold(old.take(), |inner, _| json!([inner])),
            (5, Value::String(text)) => {
                let text = self.octets(text.as_bytes());
                String::from_utf8_lossy(&text).into_owned().into()
            }
            (6, _) => json!(null),
            _ => self.odd(),
        }
    }

    fn odd(&mut self) -> Value {
        let numbers = [
            json!(0),
            json!(-1),
            json!(1),
            json!(32),
            json!(129),
            json!(255),
            json!(65_535),
            json!(65_536),
            json!(u32::MAX),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(1e308),
            json!(0.5),
            json!(true),
            json!({}),
            json!([]),
        ];
        match self.below(3) {
            0 => self.pick(&numbers).clone(),
            1 => (*self.pick(&TEXTS)).into(),
            _ => self.pick(&TEXTS).repeat(1 + self.below(2) * self.below(4000)).into(),
        }
    }
}

/// How many values are in a value, itself among them.
fn nodes(value: &Value) -> usize {
    1 + children(value).map(nodes).sum::<usize>()
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The n-th of them, from the outside in.
fn node(value: &Value, n: usize) -> &Value {
    let mut before = 1;
    for child in children(value) {
        let inside = nodes(child);
        if (before..before + inside).contains(&n) {
            return node(child, n - before);
        }
        before += inside;
    }
    value
}

fn node_mut(value: &mut Value, n: usize) -> &mut Value {
    let mut before = 1;
    let mut inside = None;
    for (at, child) in children(value).enumerate() {
        let size = nodes(child);
        if (before..before + size).contains(&n) {
            inside = Some((at, n - before));
            break;
        }
        before += size;
    }
    let Some((at, n)) = inside else { return value };
    let child = match value {
        Value::Array(items) => items.get_mut(at),
        Value::Object(fields) => fields.values_mut().nth(at),
        _ => None,
    };
    node_mut(child.expect("it was counted"), n)
}

/// Every document of a text that is whole.
fn whole(path: &Path, text: &str) -> Vec<Value> {
    let read = |document: Result<Value, _>| document.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    documents(text, false).into_iter().map(read).collect()
}

/// The same of a file of the repository.
fn of_file(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    whole(&path, &std::fs::read_to_string(&path).expect("readable"))
}

/// One of each kind with every field, and what `deploy/examples` has.
fn samples() -> Vec<Value> {
    let mut all = whole(Path::new("samples.yaml"), SAMPLES);
    for example in ["dual-stack/services", "dual-stack/routers", "dual-stack/advertisements", "first-light/web"] {
        all.extend(of_file(&format!("deploy/examples/{example}.yaml")));
    }
    all
}

const SAMPLES: &str = include_str!("mutated/samples.yaml");
