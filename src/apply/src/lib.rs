//! Entries in, effects out.
