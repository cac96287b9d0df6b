//! The durable ordered log of entries and chunks.
