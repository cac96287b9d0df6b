//! CLI verbs, configuration, admin socket, status, demo.
