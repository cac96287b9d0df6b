//! Entries and frames as bytes: versioned layout, checksums, capped compression, chunk naming.
