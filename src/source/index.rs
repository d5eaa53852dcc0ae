//! A plain cache of what was seen; knows no client.
