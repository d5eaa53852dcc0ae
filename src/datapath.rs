//! The packet path: Maglev tables, XDP programs and their maps.
