//! Kubernetes objects to `types`, or a `Problem` that names object, field and next step.
