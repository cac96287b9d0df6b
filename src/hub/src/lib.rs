//! Composition of a hub: a site that listens for edges and enrols them.
