//! The embedded Mattermost-compatible core.
