//! Guarded watches on the API server.
