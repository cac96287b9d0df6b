//! The session with a peer, without I/O.
