//! Where each command line of the documents is run. A line that has no stage and no excuse fails
//! `every_command_line_is_run_or_excused`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::blocks::{Block, blocks, spans};
use crate::tools::path;

/// What a line is run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// A cluster that gets the daemon by manifests.
    Manifests,
    /// A cluster that gets it by helm, and whatever else needs a cluster.
    Chart,
    /// A host with a daemon and a router beside it.
    Host,
    /// An account at an emulated provider.
    Provider,
    /// This machine, as `ironcast lab` uses it.
    Lab,
    /// Nowhere: [`EXCUSED`] says why.
    Nowhere,
}

/// A cluster as its operator sees it from elsewhere.
const FROM_OUTSIDE: &str = "from_outside";

/// How a line begins, why it is not run here, and the test (or file) that has what it does.
const EXCUSED: &[(&str, &str, &str)] = &[
    ("make test", "it is CI itself", ".ci/run"),
    ("make build", "the program of all these tests, optimised", "Makefile"),
    ("ssh-keygen -Y verify", "needs a release", "release_is_complete_signed_and_the_same_octets_twice"),
    ("sha256sum --check", "needs a release", "release_is_complete_signed_and_the_same_octets_twice"),
    ("cargo bench", "minutes on an idle machine; `make lint` compiles each", "Makefile"),
    ("skopeo copy", "needs a registry", "image_of_two_platforms_holds_one_program_each_and_the_same_octets_twice"),
    ("digest=$(skopeo", "needs a registry", "image_of_two_platforms_holds_one_program_each_and_the_same_octets_twice"),
    ("cosign ", "needs a key and a registry", "deploy/image"),
    ("install -D", "would change this machine", "tests/confined.rs"),
    ("ctr ", "needs containerd", "image_without_a_registry_has_the_name_that_the_chart_asks_for"),
    ("ironcast status --watch", "it ends with q", "src/cli/live.rs"),
    ("ironcast status --page", "it ends with Ctrl-C", "page_tells_bad_news_legibly_and_runs_nothing_that_it_shows"),
    ("ironcast status --cluster", "needs a cluster", FROM_OUTSIDE),
    ("ironcast explain service default/web --cluster", "needs a cluster", FROM_OUTSIDE),
    ("ironcast status --node", "needs a cluster with that node", FROM_OUTSIDE),
    ("ironcast explain node --node", "needs a cluster with that node", FROM_OUTSIDE),
    ("kubectl ironcast", "needs the program under that name", FROM_OUTSIDE),
    ("ln -s", "would change this machine", FROM_OUTSIDE),
    ("make lab ARGS=\"--scenario chaos", "minutes; its schedule and its books have tests", "src/lab/scenario/chaos.rs"),
    ("make lab ARGS=\"--scenario soak", "an hour; how it judges has tests", "src/lab/scenario/soak/flat.rs"),
    ("make simulate", "an optimised build; `cargo test` tries 1,000 seeds", "src/simulation"),
    ("IRONCAST_SIMULATION_SEED=", "CI tries 10,000 seeds, this one among them", "src/simulation"),
    ("make lab ARGS=\"--scenario ecmp-rehash\"", "half a minute", "rehash_breaks_no_connection_with_xdp"),
];

/// A line with its stage.
pub(super) struct Line {
    pub(super) place: String,
    pub(super) text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

fn excuse(line: &str) -> Option<usize> {
    EXCUSED.iter().position(|(start, ..)| line.starts_with(start))
}

/// Where the lines of a block are run; those that are excused apart.
fn stage(block: &Block) -> Option<Stage> {
    let lines: Vec<String> = block.lines().into_iter().filter(|line| excuse(line).is_none()).collect();
    let any = |word: &str| lines.iter().any(|line| line.contains(word));
    let by_manifests = |line: &String| line.contains(" -f deploy/manifests") || line.contains(" -k deploy/kustomize");
    if lines.is_empty() {
        return Some(Stage::Nowhere);
    }
    if any("kubectl ") || any("helm ") || lines.iter().any(|line| is_for_a_cluster(line)) {
        let manifests = lines.iter().any(by_manifests) || block.file() == "docs/quick-start.md";
        return Some(if manifests { Stage::Manifests } else { Stage::Chart });
    }
    let all = |word: &str| lines.iter().all(|line| line.starts_with(word));
    match () {
        () if all("make lab") || all("ironcast lab") => Some(Stage::Lab),
        () if all("ironcast sweep") => Some(Stage::Provider),
        () if lines.iter().all(|line| line.starts_with("ironcast ") || line.starts_with("cp -r ")) => Some(Stage::Host),
        () => None,
    }
}

/// `ironcast router-config` without a folder asks the cluster.
fn is_for_a_cluster(line: &str) -> bool {
    line.starts_with("ironcast router-config") && !line.contains("--manifests")
}

/// The blocks of a stage, each with the lines that are run.
pub(super) fn played(wanted: Stage) -> Vec<(Block, Vec<Line>)> {
    let all = blocks().into_iter().filter(|block| block.is_shell() && stage(block) == Some(wanted));
    let with_lines = |block: Block| {
        let lines = block.lines().into_iter().filter(|line| excuse(line).is_none());
        let lines = lines.map(|text| Line { place: block.place.clone(), text }).collect();
        (block, lines)
    };
    let mut all: Vec<_> = all.map(with_lines).collect();
    if wanted == Stage::Lab {
        // In running text too.
        let spans =
            spans().into_iter().filter(|(_, code)| code.starts_with("make lab ARGS=") && excuse(code).is_none());
        all.extend(spans.map(|(place, text)| {
            let block = Block { place: place.clone(), language: "sh".into(), text: text.clone() };
            (block, vec![Line { place, text }])
        }));
    }
    all
}

#[test]
fn every_command_line_is_run_or_excused() {
    let (mut run, mut excused) = (0, vec![0; EXCUSED.len()]);
    for block in blocks().iter().filter(|block| block.is_shell()) {
        let stage = stage(block).unwrap_or_else(|| panic!("{}: no test runs this:\n{}", block.place, block.text));
        for line in block.lines() {
            match excuse(&line) {
                Some(which) => excused[which] += 1,
                None => {
                    assert_ne!(stage, Stage::Nowhere, "{}: {line}", block.place);
                    run += 1;
                }
            }
        }
    }
    run += played(Stage::Lab).iter().filter(|(block, _)| !block.text.ends_with('\n')).count();
    let unused = EXCUSED.iter().zip(&excused).find(|(_, count)| **count == 0);
    assert!(unused.is_none(), "nobody needs the excuse {unused:?}");
    println!("{run} command lines are run, {} are excused", excused.iter().sum::<usize>());
}

#[test]
fn a_line_that_nobody_runs_has_no_stage() {
    let of =
        |text: &str| stage(&Block { place: "docs/new.md:1".into(), language: "sh".into(), text: format!("{text}\n") });
    assert_eq!(of("talosctl apply-config"), None);
    assert_eq!(of("ironcast status\nbirdc show route"), None);
    assert_eq!(of("ironcast status -o json"), Some(Stage::Host));
    assert_eq!(of("kubectl get nodes"), Some(Stage::Chart));
    assert_eq!(of("kubectl apply -k deploy/kustomize/base"), Some(Stage::Manifests));
    assert_eq!(of("make test"), Some(Stage::Nowhere));
}

/// Shell that is not called so would be looked at by nobody.
#[test]
fn every_block_of_commands_is_called_shell() {
    const PROGRAMS: [&str; 8] = ["ironcast ", "kubectl ", "helm ", "make ", "cargo ", "curl ", "$ ", "sudo "];
    for block in blocks().iter().filter(|block| ["", "text"].contains(&&*block.language)) {
        let command = block.text.lines().find(|line| PROGRAMS.iter().any(|program| line.starts_with(program)));
        assert!(command.is_none(), "{}: call the block `sh`: {command:?}", block.place);
    }
}

#[test]
fn every_excuse_names_what_is_there() {
    let mut sources = String::new();
    read(&path("tests"), &mut sources);
    for (line, _, covered) in EXCUSED {
        let there = path(covered).exists()
            || sources.contains(&format!("fn {covered}("))
            || sources.contains(&format!("{covered}: "));
        assert!(there, "{line}: there is no {covered}");
    }
}

fn read(folder: &Path, into: &mut String) {
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("readable").path()).collect();
    for file in files {
        if file.is_dir() {
            read(&file, into);
        } else if file.extension().is_some_and(|ending| ending == "rs") {
            *into += &std::fs::read_to_string(file).expect("readable");
        }
    }
}

/// Words of the documents that stand for something.
pub(super) fn filled(line: &str, words: &[(&str, &str)]) -> String {
    let mut line = line.to_owned();
    for (word, value) in words {
        let is_word = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        let mut done = String::new();
        while let Some(at) = line.find(word) {
            let (before, after) = (line[..at].to_owned(), line[at + word.len()..].to_owned());
            let alone = is_word(before.chars().next_back()) && is_word(after.chars().next());
            done += &before;
            done += if alone { value } else { word };
            line = after;
        }
        line = done + &line;
    }
    line
}

#[test]
fn words_are_filled_in_where_they_stand_alone() {
    let words = [("NODE", "node-1"), ("DIR", "a/b")];
    assert_eq!(filled("drain NODE --NODE=NODE NODES DIR/x", &words), "drain node-1 --NODE=node-1 NODES a/b/x");
}
