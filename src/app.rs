//! Joins the modules with channels; start-up and shutdown order.
