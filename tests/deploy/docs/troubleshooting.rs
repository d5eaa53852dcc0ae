//! docs/troubleshooting.md quotes what the program says: every quotation is in a string of the source, every reason that the
//! source knows has an entry.

use std::{collections::BTreeSet, fs, path::Path};

use super::blocks::spans;
use crate::tools::{path, text};

const PAGE: &str = "docs/troubleshooting.md";
/// Code that quotes nobody.
const COMMANDS: [&str; 4] = ["kubectl ", "ironcast ", "nstat ", "make "];

#[test]
fn every_quotation_is_in_a_string_of_the_program() {
    let literals = literals();
    let mut seen = 0;
    for (place, code) in spans().into_iter().filter(|(place, _)| place.starts_with(PAGE)) {
        let is_field = code.split_once(": ").is_some_and(|(name, _)| name.chars().all(char::is_alphanumeric));
        if !code.contains(' ') || COMMANDS.iter().any(|word| code.starts_with(word)) || is_field && !code.contains('…')
        {
            continue;
        }
        assert!(literals.iter().any(|literal| holds(literal, &code)), "{place}: the program does not say {code:?}");
        seen += 1;
    }
    assert!(seen > 60, "{seen} quotations");
}

#[test]
fn every_reason_of_the_program_has_an_entry_and_no_other_has() {
    let entries = entries(&text(PAGE));
    let words = text("src/plan/words.rs");
    let mut known: BTreeSet<String> =
        ["PendingReason", "Withhold", "GaveUp"].iter().flat_map(|name| words_of(&words, name)).collect();
    assert!(known.len() >= 30 && known.contains("noEndpoints") && known.contains("NoPool"), "{known:?}");
    let counters = text("src/datapath/types.rs");
    let counters =
        counters.split("reasons! {\n").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the counters");
    let counters = counters.lines().filter_map(|line| line.split('"').nth(1));
    known.extend(counters.filter(|word| word.starts_with("pass_") || word.starts_with("drop_")).map(str::to_owned));
    assert_eq!(entries, known);
}

/// The words of an enumeration's `as_str`.
fn words_of(source: &str, name: &str) -> Vec<String> {
    let body = source.split(&format!("impl {name} {{")).nth(1).expect("it is there");
    let body =
        body.split("pub const fn as_str").nth(1).and_then(|rest| rest.split("\n    }\n").next()).expect("its words");
    body.lines().filter_map(|line| Some(line.split_once("=> \"")?.1.split('"').next()?.to_owned())).collect()
}

/// First cells of the tables that are about reasons and counters.
fn entries(page: &str) -> BTreeSet<String> {
    let (mut all, mut inside) = (BTreeSet::new(), false);
    for line in page.lines() {
        let first = line.split('|').nth(1).map(str::trim).unwrap_or_default();
        inside = line.starts_with('|') && (inside || ["reason", "counter"].contains(&first));
        all.extend(
            first.strip_prefix('`').and_then(|word| word.strip_suffix('`')).filter(|_| inside).map(str::to_owned),
        );
    }
    all
}

/// Whether the parts of a quotation between `…` are in the literal, in this order.
fn holds(literal: &str, quotation: &str) -> bool {
    let mut rest = literal;
    quotation.split('…').filter(|part| !part.trim().is_empty()).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// What the program may print: the strings of its source, without those of tests and of the lab.
fn literals() -> Vec<String> {
    let mut all = Vec::new();
    for folder in ["src", "bgp/src"] {
        collect(&path(folder), &mut all);
    }
    assert!(all.len() > 2000, "{} strings", all.len());
    all
}

fn collect(folder: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let file = entry.expect("readable").path();
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        if ["lab", "tests"].contains(&&*name) {
            continue;
        }
        if file.is_dir() {
            collect(&file, all);
        } else if file.extension().is_some_and(|ending| ending == "rs") {
            strings(&fs::read_to_string(&file).expect("UTF-8"), all);
        }
    }
}

/// The strings of a Rust file; `` ` `` becomes `'`, which a quotation can have.
fn strings(source: &str, all: &mut Vec<String>) {
    let source = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = source.replace("'\"'", "' '").replace('`', "'");
    let mut characters = code.chars();
    while let Some(c) = characters.next() {
        match c {
            '/' if characters.as_str().starts_with('/') => _ = characters.find(|c| *c == '\n'),
            '"' => all.push(string(&mut characters)),
            _ => {}
        }
    }
}

/// The rest of a string that has begun.
fn string(characters: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(c) = characters.next().filter(|c| *c != '"') {
        match c {
            '\\' => match characters.next() {
                Some('\n') => *characters = characters.as_str().trim_start().chars(),
                Some('n') => text.push('\n'),
                escaped => text.extend(escaped),
            },
            c => text.push(c),
        }
    }
    text
}

#[test]
fn quotations_are_found_across_lines_and_names() {
    let mut all = Vec::new();
    strings("let a = '\"'; // \"x\nsay(\"no \\\"way\\\" to {at}: \\\n     check {x}\");\n// \"y\"\n", &mut all);
    let joined = all.iter().find(|literal| literal.contains("way")).expect("found");
    assert_eq!(joined, "no \"way\" to {at}: check {x}");
    assert!(holds(joined, "no \"way\" to …: check …") && !holds(joined, "check … no"));
}
