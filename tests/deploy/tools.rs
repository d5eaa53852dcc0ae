//! Programs that judge, and documents of YAML.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde::Deserialize;
use serde_json::Value;

use crate::support::skip;

/// A file of the repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The text of a file of the repository.
pub(crate) fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

/// Helm, or a line that says why not.
pub(crate) fn helm() -> Option<PathBuf> {
    let output = Command::new(path("tests/helm/build")).arg("--find").output().expect("tests/helm/build runs");
    match output.status.code() {
        Some(0) => Some(String::from_utf8(output.stdout).expect("UTF-8").trim().into()),
        Some(3) => {
            skip("no helm: run tests/helm/build once, or set HELM");
            None
        }
        _ => panic!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// A program of the path, or a line that says why not.
pub(crate) fn program(name: &str, package: &str) -> Option<Command> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).any(|folder| folder.join(name).is_file());
    if !found {
        skip(&format!("no {name}: apt-get install {package}"));
    }
    found.then(|| Command::new(name))
}

/// Standard output, or standard error where it failed.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}

/// The documents of a stream that are not empty. `1.0` is `1`: programs differ in how they write it.
pub(crate) fn documents(yaml: &str) -> Result<Vec<Value>, String> {
    let parsed = serde_norway::Deserializer::from_str(yaml).map(Value::deserialize);
    let all: Result<Vec<Value>, _> = parsed.collect();
    let mut all: Vec<Value> = all.map_err(|e| e.to_string())?.into_iter().filter(|value| !value.is_null()).collect();
    all.iter_mut().for_each(whole_numbers);
    Ok(all)
}

fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15) {
                *value = (float as i64).into();
            }
        }
        _ => {}
    }
}

/// Kind and name of an object.
pub(crate) fn kind_and_name(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}
