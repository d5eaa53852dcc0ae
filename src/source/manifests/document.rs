//! A file to its documents, each by itself: what is wrong with one does not touch the others.

use std::ops::Range;

use serde_json::Value;

/// A document that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Line of the file, from 1.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// Every document of a file; `List`s are taken apart, empty documents are left out.
pub(crate) fn documents(text: &str, json: bool) -> Vec<Result<Value, Malformed>> {
    let mut values = Vec::new();
    match json {
        true => read_json(text, &mut values),
        false => parts(text).into_iter().for_each(|(lines, range)| read_yaml(&text[range], lines, &mut values)),
    }
    values
}

/// The texts between lines that are `---`, with the number of lines before each.
fn parts(text: &str) -> Vec<(usize, Range<usize>)> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 0, 0);
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            parts.push((first, start..at));
            // What stands behind the mark belongs to the document.
            (start, first) = (at + 3, i);
        }
        at += line.len();
    }
    parts.push((first, start..text.len()));
    parts
}

/// Brackets that may be open at one time. At each word the parser looks at all of them: a file of a few hundred kilobytes
/// of them would take it hours.
const DEEPEST: usize = 500;

/// The line where more are open.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let line = text.lines().position(|line| {
        line.bytes().any(|byte| {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            open > DEEPEST
        })
    });
    line.map(|before| before + 1)
}

fn read_yaml(text: &str, lines: usize, values: &mut Vec<Result<Value, Malformed>>) {
    if let Some(line) = too_deep(text) {
        let message = format!("more than {DEEPEST} brackets are open");
        return values.push(Err(Malformed { line: lines + line, message }));
    }
    let text = text.trim_end().strip_suffix("\n...").unwrap_or(text);
    match serde_norway::from_str::<Value>(text) {
        Ok(value) => add(value, lines + 1, values),
        Err(error) => {
            let line = lines + error.location().map_or(1, |location| location.line());
            let message = error.to_string();
            // The parser counts from the document's first line.
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            values.push(Err(Malformed { line, message }));
        }
    }
}

fn read_json(text: &str, values: &mut Vec<Result<Value, Malformed>>) {
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value {
            Ok(value) => add(value, 1, values),
            Err(error) => values.push(Err(Malformed { line: error.line(), message: error.to_string() })),
        }
    }
}

fn add(value: Value, line: usize, values: &mut Vec<Result<Value, Malformed>>) {
    match value {
        Value::Null => {}
        Value::Object(mut fields) if is_list(&fields) => {
            if let Some(Value::Array(items)) = fields.remove("items") {
                items.into_iter().for_each(|item| add(item, line, values));
            }
        }
        Value::Object(fields) => values.push(Ok(Value::Object(fields))),
        other => {
            let message = format!("{} is no object with apiVersion, kind and metadata", brief(&other));
            values.push(Err(Malformed { line, message }));
        }
    }
}

fn is_list(fields: &serde_json::Map<String, Value>) -> bool {
    let kind = fields.get("kind").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("List")) && fields.get("items").is_some_and(Value::is_array)
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<String> {
        let word = |document: Result<Value, Malformed>| match document {
            Ok(value) => value["kind"].as_str().unwrap_or("?").to_owned(),
            Err(malformed) => format!("line {}", malformed.line),
        };
        documents(text, false).into_iter().map(word).collect()
    }

    #[test]
    fn a_broken_document_leaves_the_others_and_names_its_line() {
        let text = "# head\n---\nkind: A\n---\nkind: B\nbad: [\n---\nkind: C\n";
        let found = kinds(text);
        assert_eq!((&found[0][..], &found[2][..]), ("A", "C"));
        assert!(["line 6", "line 7"].contains(&&found[1][..]), "{found:?}");
    }

    #[test]
    fn marks_comments_and_lists_are_understood() {
        assert_eq!(kinds("kind: A\n--- # next\nkind: B\n...\n---\n# nothing\n---\n"), ["A", "B"]);
        assert_eq!(kinds("{\"kind\": \"List\", \"items\": [{\"kind\": \"A\"}, {\"kind\": \"B\"}]}"), ["A", "B"]);
        assert_eq!(kinds("kind: A\ntext: |\n  ---\n  not a mark\n"), ["A"]);
        assert_eq!(kinds("--- {kind: A}\n"), ["A"]);
        assert_eq!(kinds(""), Vec::<String>::new());
        assert_eq!(kinds("just text"), ["line 1"]);
    }

    #[test]
    fn json_has_documents_too() {
        let all = documents("{\"kind\": \"A\"}\n{\"kind\": \"B\"}\n{", true);
        assert!(matches!(&all[..], [Ok(_), Ok(_), Err(Malformed { line: 3, .. })]), "{all:?}");
    }
}
