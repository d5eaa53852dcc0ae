//! The image as skopeo reads it. The binaries are stand-ins, an ELF head and nothing else: what is tried is the packing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::tools::{path, program, run, text};

pub(crate) const AMD64: (&str, u16) = ("x86_64-unknown-linux-musl", 62);
pub(crate) const ARM64: (&str, u16) = ("aarch64-unknown-linux-musl", 183);

/// A static ELF program of a machine; with an interpreter it would be a dynamic one.
fn elf(machine: u16, interpreter: bool) -> Vec<u8> {
    let mut all = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    all.extend([2, 0]);
    all.extend(machine.to_le_bytes());
    all.extend(1u32.to_le_bytes());
    for offset in [0u64, 64, 0] {
        all.extend(offset.to_le_bytes()); // entry, program headers, section headers
    }
    all.extend(0u32.to_le_bytes());
    for size in [64u16, 56, 1, 64, 0, 0] {
        all.extend(size.to_le_bytes());
    }
    all.extend(if interpreter { 3u32 } else { 1 }.to_le_bytes());
    all.extend(5u32.to_le_bytes());
    for field in [0u64, 0, 0, 64, 64, 4096] {
        all.extend(field.to_le_bytes());
    }
    all
}

pub(crate) fn put(target: &Path, (triple, machine): (&str, u16), interpreter: bool) {
    let folder = target.join(triple).join("release");
    fs::create_dir_all(&folder).expect("a folder");
    let binary = folder.join("ironcast");
    fs::write(&binary, elf(machine, interpreter)).expect("written");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("set");
}

pub(crate) fn pack(target: &Path, tag: &str, archs: &[&str]) -> Result<String, String> {
    let mut command = Command::new(path("deploy/image"));
    command.env("CARGO_TARGET_DIR", target).env_remove("CA_BUNDLE").env_remove("TAG").args(archs);
    if !tag.is_empty() {
        command.env("TAG", tag);
    }
    run(&mut command)
}

fn archive(target: &Path) -> PathBuf {
    target.join("image").join(format!("ironcast-{}.tar", env!("CARGO_PKG_VERSION")))
}

pub(crate) fn tools() -> bool {
    ["jq", "readelf", "skopeo"]
        .iter()
        .zip(["jq", "binutils", "skopeo"])
        .all(|(name, from)| program(name, from).is_some())
}

#[test]
fn image_of_two_platforms_holds_one_program_each_and_the_same_octets_twice() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    for target in [&first, &second] {
        put(target, AMD64, false);
        put(target, ARM64, false);
        pack(target, "registry.example/ironcast:1.2.3", &["amd64", "arm64"]).expect("packed");
        std::thread::sleep(std::time::Duration::from_millis(1100)); // another second for whatever writes the time
    }
    let octets = [&first, &second].map(|target| fs::read(archive(target)).expect("there"));
    assert!(octets[0] == octets[1], "the archives differ");

    for (arch, machine) in [("amd64", AMD64.1), ("arm64", ARM64.1)] {
        let image = format!("oci-archive:{}:1.2.3", archive(&first).display());
        let copy = folder.path().join(arch);
        // Every digest and size is checked on the way.
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "--override-os", "linux", "--override-arch", arch, "copy", &image]);
        run(skopeo.arg(format!("dir:{}", copy.display()))).expect("skopeo takes it");
        let manifest: Value =
            serde_json::from_slice(&fs::read(copy.join("manifest.json")).expect("there")).expect("JSON");
        let blob = |digest: &Value| copy.join(digest.as_str().expect("a digest").trim_start_matches("sha256:"));
        let config = fs::read(blob(&manifest["config"]["digest"])).expect("there");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["architecture"], arch);
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/ironcast"]));
        let layer = blob(&manifest["layers"][0]["digest"]);
        let names = run(Command::new("tar").arg("-tvf").arg(&layer)).expect("a tar");
        assert!(names.contains("-rwxr-xr-x 0/0"), "{names}");
        assert_eq!(names.lines().count(), 2, "a folder and the program:\n{names}");
        let program = Command::new("tar").args(["-xOf"]).arg(&layer).arg("./ironcast").output().expect("it runs");
        assert_eq!(program.stdout, elf(machine, false));
    }
}

#[test]
fn image_without_a_registry_has_the_name_that_the_chart_asks_for() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), AMD64, false);
    pack(folder.path(), "", &["amd64"]).expect("packed");
    let index = run(Command::new("tar").arg("-xOf").arg(archive(folder.path())).arg("./index.json")).expect("there");
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let name = index["manifests"][0]["annotations"]["io.containerd.image.name"].as_str().expect("a name");
    let chart = text("deploy/manifests/ironcast.yaml");
    let asked = chart.lines().find_map(|line| line.trim().strip_prefix("image: ")).expect("an image");
    assert_eq!(name, format!("docker.io/library/{}", asked.trim_matches('"')));
}

#[test]
fn what_is_no_static_program_of_the_platform_is_refused() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), AMD64, true);
    put(folder.path(), (ARM64.0, AMD64.1), false);
    for (arch, word) in [("amd64", "is not static"), ("arm64", "is no program for AArch64"), ("riscv64", "unknown")] {
        let refused = pack(folder.path(), "", &[arch]).expect_err("refused");
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn bill_of_materials_names_what_the_lock_file_pins() {
    if program("jq", "jq").is_none() {
        return;
    }
    let bill = run(&mut Command::new(path("deploy/sbom"))).expect("it runs");
    assert_eq!(Ok(&bill), run(&mut Command::new(path("deploy/sbom"))).as_ref());
    let bill: Value = serde_json::from_str(&bill).expect("JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let lock = text("Cargo.lock");
    let components = bill["components"].as_array().expect("components");
    let field = |component: &Value, key: &str| component[key].as_str().unwrap_or_default().to_owned();
    let mut crates = 0;
    for component in components.iter().filter(|c| c["hashes"].is_array()) {
        let (name, version) = (field(component, "name"), field(component, "version"));
        let hash = component["hashes"][0]["content"].as_str().expect("a checksum");
        let pinned = format!(
            "name = \"{name}\"\nversion = \"{version}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{hash}\""
        );
        assert!(lock.contains(&pinned), "{pinned}");
        assert_ne!(component["licenses"][0]["expression"], "NOASSERTION", "{name}");
        crates += 1;
    }
    assert!(crates > 100, "{crates} crates");
    let named = |name: &str| components.iter().any(|component| component["name"] == name);
    assert!(["kube", "aya", "rustls", "ironcast-bgp", "rust-std"].into_iter().all(named));
    let absent = ["proptest", "insta", "tempfile", "cc", "syn", "ironcast-emulator"];
    assert!(!absent.into_iter().any(named), "tests, macros and build scripts are not in the binary");
    let refs: Vec<String> = components.iter().map(|component| field(component, "bom-ref")).collect();
    for dependency in bill["dependencies"].as_array().expect("dependencies") {
        for needed in dependency["dependsOn"].as_array().expect("a list") {
            assert!(refs.iter().any(|r| needed == r), "{needed} is needed and not listed");
        }
    }
}
