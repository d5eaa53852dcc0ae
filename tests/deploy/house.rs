//! The page about the architecture says what the source has: who uses whom, and how long files are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::tools::{path, text};

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Source files of a folder, tests apart.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("readable").path();
        let name = entry.file_name().and_then(|n| n.to_str()).expect("UTF-8");
        if entry.is_dir() {
            if name != "tests" {
                sources(&entry, found);
            }
        } else if name.ends_with(".rs") && !["tests.rs", "fixture.rs"].contains(&name) {
            found.push(entry);
        }
    }
}

/// The text of a file up to its own tests.
fn program(file: &Path) -> String {
    let whole = fs::read_to_string(file).expect("UTF-8");
    whole.split("\nmod tests {").next().unwrap_or_default().to_owned()
}

/// The modules that stand behind a `crate::`, which may be several in braces.
fn named(after: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = after.strip_prefix('{') else { return vec![word(after)] };
    let (mut depth, mut names, mut current) = (0, vec![], String::new());
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut current)),
            _ if depth == 0 => current.push(letter),
            _ => {}
        }
    }
    names.push(current);
    names.iter().map(|name| word(name)).filter(|name| !name.is_empty()).collect()
}

fn arrows() -> Arrows {
    let (root, mut files, mut arrows) = (path("src"), vec![], Arrows::new());
    sources(&root, &mut files);
    for file in &files {
        let inside = file.strip_prefix(&root).expect("below it");
        let module = inside.iter().next().and_then(|part| part.to_str()).expect("UTF-8").trim_end_matches(".rs");
        let text = program(file);
        let uses = text.split("crate::").skip(1).flat_map(named).filter(|name| name != module);
        arrows.entry(module.into()).or_default().extend(uses);
    }
    arrows.retain(|module, uses| !uses.is_empty() && !["lib", "main"].contains(&module.as_str()));
    arrows
}

#[test]
fn arrows_are_those_of_the_architecture_page() {
    let page = text("docs/architecture.md");
    let section = page.split("## Who uses whom").nth(1).and_then(|rest| rest.split("```").nth(1)).expect("a list");
    let mut listed = Arrows::new();
    // These use nothing.
    let mut known = BTreeSet::from(["types".to_owned(), "term".to_owned()]);
    for line in section.trim().lines() {
        let (module, uses) = line.split_once('→').unwrap_or_else(|| panic!("{line}"));
        let (module, uses) =
            (module.trim().to_owned(), uses.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>());
        // From the bottom up: whoever stands above is used by nobody below, so there are no circles.
        assert!(uses.is_subset(&known), "{module} uses what stands below it on the page: {uses:?}");
        known.insert(module.clone());
        listed.insert(module, uses);
    }
    assert_eq!(arrows(), listed, "docs/architecture.md, Who uses whom");
}

#[test]
fn no_file_of_the_program_has_more_than_500_lines() {
    let mut files = vec![];
    ["src", "bgp/src", "emulator"].iter().for_each(|folder| sources(&path(folder), &mut files));
    let lengths = files.iter().map(|file| (program(file).lines().count(), file));
    let long: Vec<_> = lengths.filter(|(lines, _)| *lines > 500).collect();
    assert!(files.len() > 300 && long.is_empty(), "{long:?}");
}
