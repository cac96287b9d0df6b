//! Virtual clock, lossy network, forgetful disk, worlds from a seed.
