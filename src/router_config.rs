//! `ironcast router-config`: the router's side of the peering, from the cluster's own objects.
//!
//! ```text
//!  Snapshot (peers, nodes, pools, advertisements) ─▶ Site ─▶ one file per router's language ─▶ text
//! ```
//!
//! Pure. A [`Site`] says what the router must be told and knows no syntax; a language knows nothing of Kubernetes.
//! The filter accepts exactly what the advertisements can make of the pools: nothing else that a node might say
//! gets into the routing table. Passwords are never printed, a placeholder stands in their place.

mod bird;
mod eos;
mod frr;
mod gobgp;
mod ios_xr;
mod junos;
mod nxos;
mod openbgpd;
mod prefixes;
mod routeros;
mod site;
mod vyos;

#[cfg(test)]
mod tests;

pub use site::{Accept, Bfd, Neighbour, Session, Site, SiteError};

use clap::ValueEnum;

/// A router's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Language {
    /// FRRouting, frr.conf.
    Frr,
    /// BIRD 2, bird.conf.
    Bird,
    /// GoBGP, YAML.
    Gobgp,
    /// OpenBGPD, bgpd.conf.
    Openbgpd,
    /// Arista EOS.
    Eos,
    /// Juniper Junos, set commands.
    Junos,
    /// Cisco NX-OS.
    Nxos,
    /// Cisco IOS XR.
    IosXr,
    /// SONiC, its FRR in split mode.
    Sonic,
    /// Cumulus Linux, frr.conf.
    Cumulus,
    /// MikroTik RouterOS 7.
    Routeros,
    /// VyOS 1.4, set commands.
    Vyos,
}

/// Name of filters, groups and profiles on the router.
const NAME: &str = "IRONCAST";

/// The text to give to the router.
pub fn render(site: &Site, language: Language) -> String {
    let head = |mark: &str, more: &[&str]| head(site, mark, more);
    match language {
        Language::Frr => head("!", &[]) + &frr::render(site),
        Language::Cumulus => {
            head("!", &["Belongs into /etc/frr/frr.conf, with bgpd and bfdd on in daemons."]) + &frr::render(site)
        }
        Language::Sonic => {
            let mode = "Give it to vtysh; docker_routing_config_mode must be split, or SONiC writes its own over it.";
            head("!", &[mode]) + &frr::render(site)
        }
        Language::Bird => {
            head("#", &["Leave out the protocols device and kernel where they are there already."])
                + &bird::render(site)
        }
        Language::Gobgp => head("#", &[]) + &gobgp::render(site),
        Language::Openbgpd => head("#", &[]) + &openbgpd::render(site),
        Language::Eos => head("!", &[]) + &eos::render(site),
        Language::Junos => head("#", &[]) + &junos::render(site),
        Language::Nxos => head("!", &[]) + &nxos::render(site),
        Language::IosXr => head("!", &[]) + &ios_xr::render(site),
        Language::Routeros => head("#", &[]) + &routeros::render(site),
        Language::Vyos => head("#", &[]) + &vyos::render(site),
    }
}

/// What a person must know before pasting.
fn head(site: &Site, mark: &str, more: &[&str]) -> String {
    let mut lines = vec![format!(
        "Ironcast: {} from {} of {}, ECMP over {}.",
        count(site.sessions.len(), "session"),
        count(site.nodes(), "node"),
        site.peers.join(", "),
        site.width()
    )];
    lines.extend(more.iter().map(|line| (*line).to_owned()));
    if site.sessions.iter().any(|session| session.password) {
        lines.push(format!("Put the password in place of {PASSWORD}."));
    }
    if site.sessions.iter().any(|session| matches!(session.neighbour, Neighbour::Interface(_))) {
        lines.push("Put the router's own interfaces in place of TO-NODE.".into());
    }
    lines.extend(site.notes.iter().cloned());
    lines.iter().map(|line| format!("{mark} {line}\n")).collect::<String>() + mark + "\n"
}

/// Stands where the password goes.
const PASSWORD: &str = "PASSWORD";

fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
