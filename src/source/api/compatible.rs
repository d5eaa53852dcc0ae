//! Tests alone: one version of our resources is kept compatible, so that objects need no conversion. `v1alpha1.txt` has
//! a line for each field that objects may have; a line that is there stays as it is.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{VERSION, crds};

/// A line for each field below: its path, its type, what it may be, and whether it must be there.
fn fields(path: &str, schema: &Value, lines: &mut BTreeSet<String>) {
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let must = if required.contains(&**name) { " required" } else { "" };
        lines.insert(format!("{path} {}{must}", field["type"].as_str().unwrap_or("any")));
        for value in field["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .chain(field["items"]["enum"].as_array().into_iter().flatten())
        {
            lines.insert(format!("{path} = {value}"));
        }
        fields(&path, field, lines);
        fields(&format!("{path}[]"), &field["items"], lines);
        fields(&format!("{path}{{}}"), &field["additionalProperties"], lines);
    }
}

/// `UPDATE_FIELDS=1 cargo test --lib objects_that_were_valid` adds the lines of new fields.
#[test]
fn objects_that_were_valid_are_valid_and_mean_the_same() {
    let mut now = BTreeSet::new();
    for crd in crds() {
        let versions = &crd.spec.versions;
        let only = versions.iter().all(|version| version.served && version.storage && version.name == VERSION);
        assert!(
            only && versions.len() == 1 && crd.spec.conversion.is_none(),
            "docs/operations.md says what more it takes"
        );
        let schema = versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let schema = serde_json::to_value(schema).expect("plain data");
        fields(&crd.spec.names.kind, &schema, &mut now);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/api/v1alpha1.txt");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let before: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let gone: Vec<&String> = before.difference(&now).collect();
    assert!(gone.is_empty(), "a field is gone, has another type, or may be less: {gone:#?}");
    let new: Vec<&String> = now.difference(&before).collect();
    let parent = |line: &str| {
        line.split(' ')
            .next()
            .and_then(|path| path.rsplit_once('.'))
            .map(|(parent, _)| parent.trim_end_matches(['[', ']', '{', '}']).to_owned())
    };
    let known = |line: &&String| {
        parent(line).is_some_and(|parent| before.iter().any(|field| field.split(' ').next() == Some(&*parent)))
    };
    let must: Vec<&&String> =
        new.iter().filter(|line| line.ends_with(" required")).filter(|line| known(line)).collect();
    assert!(must.is_empty(), "a new field that must be there refuses objects that were valid: {must:#?}");
    if std::env::var_os("UPDATE_FIELDS").is_some() {
        let lines: Vec<&str> = now.iter().map(String::as_str).collect();
        return fs::write(&path, lines.join("\n") + "\n").expect("written");
    }
    assert!(new.is_empty(), "UPDATE_FIELDS=1 adds these to v1alpha1.txt: {new:#?}");
}
