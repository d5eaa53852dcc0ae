//! YAML that kubectl reads as it was meant: its parser follows YAML 1.1, where `yes` and `off` are booleans, while ours
//! writes YAML 1.2, where they are plain strings.

use serde_json::Value;

/// Stands before a string that must be quoted, until it is.
const MARK: &str = "quoted-by-import-";

/// Strings that YAML 1.1 takes for booleans, in any case.
const BOOLEANS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];

/// One object.
pub(super) fn text(object: &Value) -> String {
    let mut object = object.clone();
    mark(&mut object);
    let text = serde_norway::to_string(&object).expect("an object is plain data");
    let quoted = |line: &str| match line.split_once(MARK) {
        Some((before, word)) => format!("{before}\"{}\"\n", word.trim_end()),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(quoted).collect()
}

fn mark(value: &mut Value) {
    match value {
        Value::String(text) if misread(text) => text.insert_str(0, MARK),
        Value::Array(items) => items.iter_mut().for_each(mark),
        Value::Object(fields) => fields.values_mut().for_each(mark),
        _ => {}
    }
}

/// Booleans, and numbers to the base 60: `64512:7` is one, and a community.
fn misread(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    BOOLEANS.iter().any(|word| word.eq_ignore_ascii_case(text)) || (text.contains(':') && text.split(':').all(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_1_1_misreads_is_quoted() {
        let object = serde_json::json!({ "a": ["yes", "OFF", "65000:7", "2001:db8::1"], "b": { "n": "n" } });
        let text = text(&object);
        assert_eq!(text, "a:\n- \"yes\"\n- \"OFF\"\n- \"65000:7\"\n- 2001:db8::1\nb:\n  n: \"n\"\n");
        assert_eq!(serde_norway::from_str::<Value>(&text).expect("YAML"), object);
    }
}
