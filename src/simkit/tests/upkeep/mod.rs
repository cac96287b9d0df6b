//! The power is cut at every call of what writes segments anew or keeps damaged places aside. Each part counts the states that
//! it looked at, and panics at the first one that is not as it must be.

pub(crate) mod purge;
pub(crate) mod quarantine;
pub(crate) mod real_disk;
pub(crate) mod rotation;
