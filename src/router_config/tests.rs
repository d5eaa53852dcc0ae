use std::path::PathBuf;

use super::*;
use crate::source::manifests::Folder;

fn site(peers: &[&str]) -> Result<Site, SiteError> {
    let mut folder = Folder::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/router_config/sample"));
    folder.scan().expect("the sample");
    folder.forget_record();
    let snapshot = folder.snapshot().expect("complete");
    let peers: Vec<String> = peers.iter().map(|peer| (*peer).to_owned()).collect();
    Site::new(&snapshot, &peers)
}

/// One language, with everything that a session may have.
macro_rules! golden {
    ($($name:ident: $language:ident;)*) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(render(&site(&["tor-v4", "tor-v6"]).expect("one router"), Language::$language));
        })*
    };
}

golden! {
    frr: Frr;
    bird: Bird;
    gobgp: Gobgp;
    openbgpd: Openbgpd;
    eos: Eos;
    junos: Junos;
    nxos: Nxos;
    ios_xr: IosXr;
    sonic: Sonic;
    cumulus: Cumulus;
    routeros: Routeros;
    vyos: Vyos;
}

#[test]
fn unnumbered() {
    insta::assert_snapshot!(render(&site(&["leaf"]).expect("one router"), Language::Frr));
}

#[test]
fn only_what_advertisements_make_of_pools_is_accepted() {
    let site = site(&["tor-v4", "tor-v6"]).expect("one router");
    let all: Vec<String> =
        site.accept.iter().map(|accept| format!("{} as /{}", accept.network, accept.length)).collect();
    // A range becomes networks; an aggregate around a smaller range is itself; the pool of nobody's advertisement is not
    // there.
    assert_eq!(
        all,
        [
            "192.0.2.10/31 as /32",
            "192.0.2.12/30 as /32",
            "192.0.2.16/30 as /32",
            "192.0.2.20/32 as /32",
            "198.51.100.0/24 as /24",
            "198.51.100.0/24 as /32",
            "2001:db8:10::/112 as /128",
            "2001:db8:10::/112 as /124",
        ]
        .map(str::to_owned)
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
}

#[test]
fn peers_that_are_no_one_router_are_refused_with_the_flag_to_give() {
    assert_eq!(site(&["nobody"]), Err(SiteError::UnknownPeer("nobody".into())));
    let error = site(&[]).expect_err("two AS").to_string();
    assert!(error.contains("64513, 64999") && error.contains("--peer"), "{error}");
}
