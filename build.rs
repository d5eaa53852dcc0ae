//! Compiles the programs of the packet path with clang, when the feature `xdp` is on.

fn main() {
    println!("cargo::rerun-if-changed=src/datapath/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    if std::env::var_os("CARGO_FEATURE_XDP").is_some() {
        compile();
    }
}

/// Says what to do, and ends the build.
fn give_up(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}

fn compile() {
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    let clang = clang();
    for source in ["ironcast", "tcx", "bench"] {
        compile_one(&clang, source, &out);
    }
}

fn compile_one(clang: &str, source: &str, out: &str) {
    // x86 shows others what it wrote in the order of writing; elsewhere the programs use atomic operations.
    let ordered = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let status = std::process::Command::new(clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-nostdinc"])
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"])
        .args(["-Wno-sign-compare", "-Wno-missing-field-initializers"])
        .args(ordered.then_some("-DSTORES_IN_ORDER"))
        // No path of this machine in the program: the same source gives the same octets everywhere.
        .args(["-ffile-prefix-map=src/datapath/bpf=bpf", "-ffile-compilation-dir=.", "-c"])
        .arg(format!("src/datapath/bpf/{source}.bpf.c"))
        .arg("-o")
        .arg(format!("{out}/{source}.bpf.o"))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => give_up(&format!("{clang} could not compile src/datapath/bpf/{source}.bpf.c ({status})")),
        Err(e) => give_up(&format!("could not run {clang}: {e}")),
    }
}

/// `$CLANG`, or the first of the usual names that runs.
fn clang() -> String {
    if let Ok(chosen) = std::env::var("CLANG") {
        return chosen;
    }
    let runs =
        |name: &&str| std::process::Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    match ["clang", "clang-19", "clang-14"].into_iter().find(runs) {
        Some(name) => name.to_string(),
        None => give_up(
            "the feature `xdp` needs clang to compile the packet path: apt-get install clang-19 (or set CLANG), \
             or build with --no-default-features",
        ),
    }
}
