//! Which bytes next on which link, without I/O.
