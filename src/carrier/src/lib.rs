//! Moves link frames over QUIC; owns sockets and timers.
