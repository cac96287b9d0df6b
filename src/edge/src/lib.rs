//! Composition of one site: the rooms of an edge, wired together in start and stop order.
