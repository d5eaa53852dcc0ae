//! Files that people write.

use std::path::Path;

use serde_json::Value;

use super::{SAMPLES, each, objects::Reader, of_file, samples, whole};
use crate::{
    plan::Settings,
    source::{
        import::{Predecessor, import},
        manifests::{Decoded, decode, documents},
    },
};

#[test]
fn every_sample_is_read_without_a_word() {
    for document in samples() {
        let name = document.to_string();
        match decode(document) {
            Decoded::Object(_, problems) if problems.is_empty() => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Every document of a file, whatever it is.
fn take(reader: &mut Reader, text: &str, json: bool) {
    for value in documents(text, json).into_iter().flatten() {
        match decode(value) {
            Decoded::Object(object, _) => reader.apply(&object),
            Decoded::Rejected(kind, key, problem) => reader.reject(kind, key, problem),
            Decoded::Other(_) => {}
        }
    }
}

#[test]
fn no_damage_to_the_text_of_a_manifest_is_too_much() {
    let mut reader = Reader::default();
    let parts: Vec<&str> = SAMPLES.split("---\n").collect();
    each(1, |damage| {
        let (one, other) = (*damage.pick(&parts), *damage.pick(&parts));
        let text = damage.octets(format!("{one}---\n{other}").as_bytes());
        take(&mut reader, &String::from_utf8_lossy(&text), damage.below(4) == 0);
        reader.act(damage.below(8) == 0);
    });
    assert!(reader.plans > 0 && reader.objects > 0, "{} objects, {} plans", reader.objects, reader.plans);
}

#[test]
fn no_value_in_a_manifest_is_too_odd() {
    let (mut reader, samples) = (Reader::default(), samples());
    each(1, |damage| {
        let document = damage.pick(&samples).clone();
        let value = damage.value(&document);
        take(&mut reader, &value.to_string(), true);
        reader.act(damage.below(8) == 0);
    });
    assert!(reader.plans > 0 && reader.objects > 0, "{} objects, {} plans", reader.objects, reader.plans);
}

#[test]
fn no_value_of_a_predecessor_is_too_odd_and_what_is_made_of_it_can_be_read() {
    let (samples, settings) = (of_file("tests/deploy/docs/predecessors.yaml"), Settings::new("node-1"));
    let mut made = 0;
    each(2, |damage| {
        let mut documents = samples.clone();
        let at = damage.below(documents.len());
        documents[at] = damage.value(&documents[at]);
        for from in [Predecessor::MetalLb, Predecessor::KubeVip, Predecessor::Cpem] {
            let imported = import(from, &documents, "ironcast-system", &settings);
            let again: Vec<Value> = whole(Path::new("imported"), &imported.yaml());
            assert_eq!(again, imported.objects, "{}", imported.yaml());
            made += again.len();
        }
    });
    assert!(made > 0);
}

/// Octets that a document means once it is read.
fn meant(documents: &[Result<Value, impl Sized>]) -> usize {
    documents.iter().flatten().map(|value| value.to_string().len()).sum()
}

#[test]
fn document_that_is_small_and_means_very_much_is_refused() {
    // Each line says the one before ten times.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", before.trim_end_matches(", ")));
    }
    assert!(matches!(&documents(&bomb, false)[..], [Err(_)]));
    // Half of it is allowed by the parser, and is not much.
    for lines in 1..12 {
        let text: String = bomb.split_inclusive('\n').take(lines).collect();
        assert!(meant(&documents(&text, false)) < 1 << 20, "{lines} lines");
    }
}

#[test]
fn document_that_is_too_deep_is_refused_and_costs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\": ", "}"), ("{\"kind\": \"List\", \"items\": [", "]}")] {
        let deep = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        for json in [false, true] {
            assert!(documents(&deep, json).iter().all(Result::is_err), "{open} {json}");
        }
    }
    let steps: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(matches!(&documents(&steps, false)[..], [Err(_)]));
    assert!(matches!(&documents(&"- ".repeat(20_000), false)[..], [Err(_)]));
}
