//! What the lab needs of the machine: root, and a few programs. What is missing is said with its package.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::args::DatapathKind;

/// Folders beyond `PATH` where distributions put routing daemons and network tools.
const MORE_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// FRR's own folders; OpenBGPD has a `bgpd` too, and stands in `PATH`.
const FRR_FOLDERS: [&str; 3] = ["/usr/lib/frr", "/usr/libexec/frr", "/usr/local/lib/frr"];

/// Programs that every lab needs, with the Debian package that has them.
const ALWAYS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("chrt", "util-linux"),
    ("nft", "nftables"),
];

/// What the packet path needs beyond that.
const FOR_XDP: [(&str, &str); 2] = [("ethtool", "ethtool"), ("mount", "mount")];

/// Looks a program up in `PATH` and where routing daemons live.
///
/// # Errors
/// It is nowhere; the text names the package.
pub(crate) fn find(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    first(program, std::env::split_paths(&path).chain(MORE_FOLDERS.iter().map(PathBuf::from)))
        .with_context(|| missing(program, package))
}

/// Looks for a daemon of FRR.
///
/// # Errors
/// As [`find`].
pub(crate) fn find_frr(program: &str) -> anyhow::Result<PathBuf> {
    first(program, FRR_FOLDERS.iter().map(PathBuf::from)).with_context(|| missing(program, "frr"))
}

fn first(program: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.map(|folder| folder.join(program)).find(|candidate| is_executable(candidate))
}

fn missing(program: &str, package: &str) -> String {
    format!("{program} is not installed; install the package {package} (apt-get install {package})")
}

/// Checks everything that does not depend on the router.
///
/// # Errors
/// Not root, or programs are missing; all of them are named at once.
pub(crate) fn check(datapath: DatapathKind) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes network namespaces and must be root: run it with sudo");
    }
    let xdp: &[_] = if datapath.is_ours() { &FOR_XDP } else { &[] };
    let missing: Vec<String> = ALWAYS
        .iter()
        .chain(xdp)
        .filter(|(program, package)| find(program, package).is_err())
        .map(|(program, package)| format!("{program} (package {package})"))
        .collect();
    if !missing.is_empty() {
        bail!("not installed: {}; install them, then run the lab again", missing.join(", "));
    }
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_named_with_its_package() {
        let error = find("no-such-program", "no-such-package").expect_err("missing");
        assert!(error.to_string().contains("no-such-program") && error.to_string().contains("no-such-package"));
        assert!(find("sh", "dash").is_ok());
    }
}
