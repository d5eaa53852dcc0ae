//! The one-machine demonstration: network namespaces, a router, nodes, clients, traffic, scenarios.
