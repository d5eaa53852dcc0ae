//! Who allocates: a Lease, taken and renewed.
