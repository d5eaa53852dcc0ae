//! A release, put together from stand-ins of the programs by a copy of the tree with a changelog of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    image::{AMD64, ARM64, pack, put, tools},
    tools::{documents, helm, kind_and_name, path, program, run},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const NOTES: &str = "### Added\n- What this version is about.\n";

/// The tree, and where a release of it would lie.
fn tree(folder: &Path) -> PathBuf {
    run(Command::new("cp").arg("-a").args([path("deploy"), path("Cargo.toml")]).arg(folder)).expect("copied");
    let log =
        format!("# Changelog\n\n## Unreleased\n- Later.\n\n## {VERSION} (2026-01-01)\n{NOTES}\n## 0.0.1\n- Before.\n");
    fs::write(folder.join("CHANGELOG.md"), log).expect("written");
    folder.join("target").join(format!("ironcast-{VERSION}"))
}

fn release(folder: &Path, key: Option<&Path>) -> Result<String, String> {
    let mut command = Command::new(folder.join("deploy/release"));
    command.env("CARGO_TARGET_DIR", folder.join("target")).env_remove("SIGNING_KEY").args(["amd64", "arm64"]);
    key.map(|key| command.env("SIGNING_KEY", key));
    run(&mut command)
}

/// Programs and image of two platforms.
fn build(folder: &Path) {
    let target = folder.join("target");
    put(&target, AMD64, false);
    put(&target, ARM64, false);
    pack(&target, "", &["amd64", "arm64"]).expect("packed");
}

#[test]
fn release_is_complete_signed_and_the_same_octets_twice() {
    let Some(helm) = helm() else { return };
    if !tools() || program("ssh-keygen", "openssh-client").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let key = folder.path().join("key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).expect("a key");
    let out = [&first, &second].map(|folder| {
        fs::create_dir(folder).expect("a folder");
        let out = tree(folder);
        build(folder);
        release(folder, Some(&key)).expect("released");
        std::thread::sleep(std::time::Duration::from_millis(1100)); // another second for whatever writes the time
        out
    });
    let sums = out.each_ref().map(|out| fs::read_to_string(out.join("SHA256SUMS")).expect("there"));
    assert_eq!(sums[0], sums[1], "another file each time");
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&out[0]))
        .expect("they are right");
    let named = |name: &str| sums[0].lines().any(|line| line.ends_with(&format!("  {name}")));
    let files = ["-linux-amd64", "-linux-arm64", ".tar", ".cdx.json", ".tgz", ".yaml"];
    assert!(named("NOTES.md") && files.iter().all(|end| named(&format!("ironcast-{VERSION}{end}"))), "{}", sums[0]);

    let public = fs::read_to_string(key.with_extension("pub")).expect("there");
    let signers = folder.path().join("signers");
    fs::write(&signers, format!("release {public}")).expect("written");
    let mut verify = Command::new("ssh-keygen");
    verify.args(["-Y", "verify", "-n", "ironcast-release", "-I", "release", "-f"]).arg(&signers);
    verify.arg("-s").arg(out[0].join("SHA256SUMS.sig"));
    run(verify.stdin(fs::File::open(out[0].join("SHA256SUMS")).expect("there"))).expect("the signature is right");

    let notes = fs::read_to_string(out[0].join("NOTES.md")).expect("there");
    assert_eq!(notes.trim_end(), format!("## {VERSION} (2026-01-01)\n{NOTES}").trim_end());
    let chart = out[0].join(format!("ironcast-{VERSION}.tgz"));
    let packed = run(Command::new(&helm).args(["template", "x", "--include-crds"]).arg(&chart)).expect("helm takes it");
    let loose = run(Command::new(&helm).args(["template", "x", "--include-crds"]).arg(path("deploy/chart")));
    assert_eq!(Ok(&packed), loose.as_ref(), "the packed chart is the chart");
    let manifests = fs::read_to_string(out[0].join(format!("ironcast-{VERSION}.yaml"))).expect("there");
    let objects: Vec<_> = documents(&manifests).expect("YAML").iter().map(kind_and_name).collect();
    let kinds = |kind: &str| objects.iter().filter(|(k, _)| k == kind).count();
    let definitions = fs::read_dir(path("deploy/crds")).expect("there").count() - 1;
    assert_eq!((kinds("CustomResourceDefinition"), kinds("DaemonSet")), (definitions, 1), "{objects:?}");
}

#[test]
fn release_of_what_does_not_fit_together_is_refused() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = tree(folder.path());
    let refused = release(folder.path(), None).expect_err("nothing is built");
    assert!(refused.contains("no program for amd64; run: make release ARCHS=\"amd64 arm64\""), "{refused}");
    build(folder.path());
    for (file, from) in [
        ("CHANGELOG.md", format!("## {VERSION}")),
        ("deploy/chart/Chart.yaml", format!("appVersion: {VERSION}")),
        ("deploy/manifests/ironcast.yaml", format!("ironcast:{VERSION}")),
    ] {
        let whole = fs::read_to_string(folder.path().join(file)).expect("there");
        fs::write(folder.path().join(file), whole.replace(&from, &from.replace(VERSION, "9.9.9"))).expect("written");
        let refused = release(folder.path(), None).expect_err("another version");
        assert!(refused.contains(&format!("{file} is not of version {VERSION}")), "{refused}");
        fs::write(folder.path().join(file), whole).expect("written");
    }
    release(folder.path(), None).expect("as it was");
    assert!(out.join("SHA256SUMS").is_file() && !out.join("SHA256SUMS.sig").exists());
}
