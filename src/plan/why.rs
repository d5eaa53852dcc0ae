//! Why a Service has its address from this pool, in words for `explain`.

use crate::types::{Pool, Service};

/// The reason, as it follows "of pool NAME: ".
pub fn why_pool(service: &Service, pool: &Pool) -> String {
    if service.requested_addresses.iter().any(|address| service.assigned.contains(address)) {
        return "the Service asks for this address".into();
    }
    if service.requested_pool.as_ref() == Some(&pool.name) {
        return "the Service asks for this pool".into();
    }
    if pool.disabled {
        return "it had the address before the pool was disabled, and keeps it".into();
    }
    if !pool.auto_assign {
        return "it had the address before the pool was for requests only, and keeps it".into();
    }
    let Some(allocation) = &pool.allocation else { return "the pool is for every Service".into() };
    let namespace = &service.key.namespace;
    let mut reasons = Vec::new();
    if allocation.namespaces.iter().any(|name| **name == **namespace) {
        reasons.push(format!("the pool is for namespace {namespace}"));
    } else if !allocation.namespace_selectors.is_empty() {
        reasons.push(format!("the pool selects namespace {namespace} by its labels"));
    }
    if !allocation.service_selectors.is_empty() {
        reasons.push("the pool selects the Service by its labels".into());
    }
    if allocation.priority > 0 {
        reasons.push(format!("priority {}", allocation.priority));
    }
    match reasons.is_empty() {
        true => "the pool is for every Service".into(),
        false => reasons.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{pool, service};
    use super::*;
    use crate::types::Allocation;

    #[test]
    fn reason_is_the_request_before_the_rules_of_the_pool() {
        let mut pool = pool("edge", &["192.0.2.0/24"]);
        let mut service = service("web", 1);
        assert_eq!(why_pool(&service, &pool), "the pool is for every Service");
        pool.allocation = Some(Allocation {
            priority: 10,
            namespaces: vec!["default".into()],
            namespace_selectors: vec![],
            service_selectors: vec![],
        });
        assert_eq!(why_pool(&service, &pool), "the pool is for namespace default, priority 10");
        service.requested_pool = Some("edge".into());
        assert_eq!(why_pool(&service, &pool), "the Service asks for this pool");
        service.requested_addresses = vec!["192.0.2.7".parse().expect("valid")];
        service.assigned.clone_from(&service.requested_addresses);
        assert_eq!(why_pool(&service, &pool), "the Service asks for this address");
    }
}
