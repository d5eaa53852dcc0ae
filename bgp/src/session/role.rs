//! Roles and Only To Customer (RFC 9234): a route that came from a provider or a peer goes to customers alone.

use crate::{Asn, speaker::Role};

impl Role {
    /// What stands in the capability (RFC 9234 §4.1).
    pub(crate) const fn value(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
        }
    }

    /// The only role of the other end that fits (RFC 9234 §4.2, table 2).
    pub(super) const fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Customer => Self::Provider,
            Self::Peer => Self::Peer,
        }
    }

    /// A role of the other end in words, whatever it says.
    pub(super) fn word(value: u8) -> String {
        let every = [Self::Provider, Self::RouteServer, Self::RouteServerClient, Self::Customer, Self::Peer];
        every.into_iter().find(|r| r.value() == value).map_or_else(|| format!("role {value}"), |r| r.to_string())
    }

    /// Whether a received route is leaked (RFC 9234 §5, ingress 1 and 2): a customer has it from another provider
    /// or peer, or a peer passes on what is not its own.
    pub(super) fn is_leak(self, only_to_customer: Option<u32>, remote: Asn) -> bool {
        match self {
            Self::Provider | Self::RouteServer => only_to_customer.is_some(),
            Self::Peer => only_to_customer.is_some_and(|asn| asn != remote.value()),
            Self::Customer | Self::RouteServerClient => false,
        }
    }

    /// Whether a received route without the mark gets the peer's (RFC 9234 §5, ingress 3): it is for our customers.
    pub(super) const fn marks_received(self) -> bool {
        matches!(self, Self::Customer | Self::Peer | Self::RouteServerClient)
    }

    /// Whether a route with the mark stays here (RFC 9234 §5, egress 2): the other end is no customer.
    pub(crate) const fn keeps_marked(self) -> bool {
        matches!(self, Self::Customer | Self::Peer | Self::RouteServerClient)
    }

    /// Whether a route that we send is marked (RFC 9234 §5, egress 1): it goes to a customer, a peer or a client.
    pub(crate) const fn marks(self) -> bool {
        matches!(self, Self::Provider | Self::Peer | Self::RouteServer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: [Role; 5] = [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];

    #[test]
    fn roles_fit_both_ways() {
        for role in EVERY {
            assert_eq!(role.counterpart().counterpart(), role);
            assert_eq!(Role::word(role.value()), role.to_string());
        }
        assert_eq!(Role::word(9), "role 9");
    }

    #[test]
    fn leak_is_what_the_table_of_the_rfc_says() {
        let (remote, other) = (Asn::new(64500).expect("valid"), Some(64501));
        for role in EVERY {
            let to_customers = matches!(role, Role::Provider | Role::RouteServer);
            assert!(!role.is_leak(None, remote), "{role}");
            assert_eq!(role.is_leak(Some(64500), remote), to_customers, "{role}");
            assert_eq!(role.is_leak(other, remote), to_customers || role == Role::Peer, "{role}");
        }
    }
}
