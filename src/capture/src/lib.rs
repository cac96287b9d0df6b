//! Events in, entries out: the only writer of local entries into the journal.
