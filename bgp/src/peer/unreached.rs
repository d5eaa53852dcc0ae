//! Why there is no connection, for an operator.

use super::retry::Failure;
use crate::speaker::{PeerConfig, Ttl, Unreached};

/// What the attempt counts as.
pub(super) fn failure(why: &Unreached) -> Failure {
    match why {
        Unreached::Refused | Unreached::NoRoute(_) => Failure::Refused,
        Unreached::TimedOut => Failure::TimedOut,
        Unreached::Local(_) => Failure::Local,
    }
}

/// One line that says what to look at.
pub(super) fn words(why: &Unreached, config: &PeerConfig) -> String {
    let (address, port) = (config.address, config.port);
    match why {
        Unreached::Refused => {
            format!("{address} port {port} refuses connections: is BGP running there, and does it know this node?")
        }
        Unreached::NoRoute(e) => format!("no way to {address}: {e}; check the route to the peer"),
        Unreached::TimedOut => format!("{address} port {port} does not answer{}", silence(config)),
        Unreached::Local(e) => {
            format!("this node cannot dial {address}: {e}; check sourceAddress, interface and password")
        }
    }
}

/// What a silent peer means. Signed segments are dropped without an answer by whoever has another key or none, so
/// keys come first. On a link nobody is silent who is not there: the kernel says that there is no way.
fn silence(config: &PeerConfig) -> &'static str {
    let near = matches!(config.ttl, Ttl::Security { hops: 0 | 1 });
    let direct = near || config.ttl == Ttl::Direct;
    let signed = config.password.is_some() || !config.ao_keys.is_empty();
    match (direct, signed) {
        // Its SYN/ACK is dropped by our kernel (RFC 5082).
        (true, _) if near => {
            ", though on a link a router that is away would be unreachable: it does not send with TTL 255 (ttlSecurity is \
             set here, and must be there), passwords differ, or a firewall drops what we send"
        }
        (true, true) => {
            ", though on a link a router that is away would be unreachable: its password is not ours, it has none, or a \
             firewall drops what we send"
        }
        (true, false) => {
            ", though on a link a router that is away would be unreachable: it expects a password or TTL \
             security and none is set here, or a firewall drops what we send"
        }
        (false, true) => ": check the password on both ends, the route and firewalls",
        (false, false) => ": check the route, firewalls, and whether it expects a password",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Asn,
        speaker::{Md5Key, PeerAs},
    };

    #[test]
    fn silence_is_told_by_what_can_cause_it() {
        let mut config = PeerConfig::new([10, 0, 0, 2].into(), Asn::new(64601).expect("valid"), PeerAs::External);
        let told = |config: &PeerConfig| words(&Unreached::TimedOut, config);
        assert!(told(&config).contains("it expects a password or TTL security"), "{}", told(&config));
        config.ttl = Ttl::Security { hops: 1 };
        assert!(told(&config).contains("it does not send with TTL 255"), "{}", told(&config));
        config.ttl = Ttl::Direct;
        config.password = Some(Md5Key(b"secret".as_slice().into()));
        assert!(told(&config).contains("its password is not ours, it has none"), "{}", told(&config));
        config.ttl = Ttl::MultiHop(3);
        assert!(told(&config).contains("check the password on both ends, the route"), "{}", told(&config));
        config.password = None;
        assert!(told(&config).ends_with("whether it expects a password"), "{}", told(&config));
    }
}
