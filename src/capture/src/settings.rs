//! Configuration of capture: what may leave, and how urgent it is.

use model::{Label, Precedence};

/// Section `[capture]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureSettings {
    /// Release rules in order; the first that fits gives the entry its label. What no rule covers gets the label
    /// `local` and leaves over no link.
    pub release: Vec<ReleaseRule>,
    /// Whether users' profiles (names, never credentials) get the label `directory`; else they stay local.
    pub directory: bool,
    /// Precedence of ordinary posts by team and channel, in order; a post's own priority counts where it is higher.
    pub precedence: Vec<PrecedenceRule>,
}

impl Default for CaptureSettings {
    /// Nothing is released until somebody says so.
    fn default() -> Self {
        Self { release: Vec::new(), directory: false, precedence: Vec::new() }
    }
}

/// One `[[capture.release]]`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRule {
    /// Label for what fits, e.g. `mission`. A peer gets what carries one of its `labels`.
    pub label: Label,
    /// Team names; `*` stands for any characters. Does not concern direct and group messages.
    #[serde(default = "any")]
    pub teams: Vec<String>,
    /// Channel names (as in the URL); `*` stands for any characters. Does not concern direct and group messages.
    #[serde(default = "any")]
    pub channels: Vec<String>,
    /// Kinds of channels: `open`, `private`, `direct`, `group`.
    #[serde(default = "open_and_private")]
    pub kinds: Vec<ChannelKind>,
}

/// One `[[capture.precedence]]`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecedenceRule {
    /// Class for posts that fit.
    pub class: Precedence,
    /// Team names; `*` stands for any characters.
    #[serde(default = "any")]
    pub teams: Vec<String>,
    /// Channel names; `*` stands for any characters.
    #[serde(default = "any")]
    pub channels: Vec<String>,
}

/// Kind of a channel, Mattermost's O, P, D and G.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named after Mattermost's types")]
pub enum ChannelKind {
    Open,
    Private,
    Direct,
    Group,
}

fn any() -> Vec<String> {
    vec!["*".to_owned()]
}

fn open_and_private() -> Vec<ChannelKind> {
    vec![ChannelKind::Open, ChannelKind::Private]
}
