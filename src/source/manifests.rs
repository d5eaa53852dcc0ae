//! A folder of ordinary Kubernetes YAML, watched.
