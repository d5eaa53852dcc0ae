//! What the documents hold: fenced blocks, code in running text, command lines.

use crate::tools::{path, text};

/// A fenced block.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) place: String,
    pub(super) language: String,
    pub(super) text: String,
}

impl Block {
    pub(super) fn file(&self) -> &str {
        self.place.split(':').next().unwrap_or_default()
    }

    pub(super) fn is_shell(&self) -> bool {
        ["sh", "console", "bash"].contains(&&*self.language)
    }

    /// Its command lines as a person types them: continuations joined, comments off.
    pub(super) fn lines(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or_default().trim_start_matches("$ "));
        lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// One for each command of a pipe.
    fn commands(&self) -> Vec<String> {
        let commands = self.lines();
        let commands = commands.iter().flat_map(|line| line.split(['|', ';'])).flat_map(|c| c.split("&&"));
        commands.map(|command| command.split(['>', '<']).next().unwrap_or_default().trim().to_owned()).collect()
    }
}

pub(super) fn files() -> Vec<String> {
    let mut all = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for file in std::fs::read_dir(path("docs")).expect("a folder") {
        let name = file.expect("readable").file_name().into_string().expect("UTF-8");
        all.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    for example in std::fs::read_dir(path("deploy/examples")).expect("a folder") {
        let name = example.expect("readable").file_name().into_string().expect("UTF-8");
        all.push(format!("deploy/examples/{name}/README.md"));
    }
    all.sort();
    all
}

pub(super) fn blocks() -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    for file in files() {
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in text(&file).lines().enumerate() {
            match (line.trim().strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    let place = format!("{file}:{}", number + 1);
                    let block = Block { place, language: language.into(), text: String::new() };
                    open = Some((block, line.len() - line.trim_start().len()));
                }
                (Some(_), Some((block, _))) => all.push(block),
                (None, Some((mut block, indent))) => {
                    block.text.extend([line.get(indent..).unwrap_or_default(), "\n"]);
                    open = Some((block, indent));
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{file}: a block has no end");
    }
    all
}

/// `code` between single backticks, with its place.
pub(super) fn spans() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for file in files() {
        let mut fenced = false;
        for (number, line) in text(&file).lines().enumerate() {
            fenced ^= line.trim().starts_with("```");
            if !fenced {
                let odd = line.split('`').skip(1).step_by(2);
                all.extend(odd.map(|code| (format!("{file}:{}", number + 1), code.to_owned())));
            }
        }
    }
    all
}

/// Every command of every shell block, with its place.
pub(super) fn shell() -> Vec<(String, String)> {
    let all = blocks().into_iter().filter(Block::is_shell);
    all.flat_map(|block| block.commands().into_iter().map(move |c| (block.place.clone(), c)).collect::<Vec<_>>())
        .collect()
}
