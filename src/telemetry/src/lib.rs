//! The metric table, health facts and log set-up.
