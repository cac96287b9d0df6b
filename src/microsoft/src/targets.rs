//! Section `[[microsoft.target]]`: where mission activity goes in Microsoft 365, and what of it.

use std::fmt;

use model::{Label, Precedence};
use serde::{Deserialize, Serialize};

use crate::cloud::Cloud;

/// One `[[microsoft.target]]`: one destination. Nothing goes there but what its labels, teams and channels name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// Names it in the ledger, in status and in metrics: 1 to 32 of a-z, 0-9 and -. Renamed, it is another target.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// Release labels that it may carry. None: nothing is released.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// Team names; `*` stands for any characters. None: nothing is released.
    #[serde(default)]
    pub teams: Vec<String>,
    /// Channel names (as in the URL); `*` stands for any characters. Direct and group messages go to no target.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Classes that go; all when empty.
    #[serde(default)]
    pub precedences: Vec<Precedence>,
    /// Whether the journal keeps what this target has not finished with.
    #[serde(default = "yes")]
    pub required: bool,
    /// Id of the drive, for `sharepoint-archive`.
    pub drive: Option<String>,
    /// Folder in the drive, for `sharepoint-archive`; folder at the top of the mailbox, for `mail-import`, made where it is missing.
    pub folder: Option<String>,
    /// Id of the team, for the kinds that write to Teams.
    pub team: Option<String>,
    /// Id of the channel, for the kinds that write to Teams.
    pub channel: Option<String>,
    /// Object id of the user who posts, for `teams-delegated` and the posts of `teams-digest`; who signed in for it. For
    /// `teams-import` the user to whom is attributed what people wrote whom Entra does not know; nobody signs in.
    pub account: Option<String>,
    /// Mailbox that sends, for `mail`, or that is written to, for `mail-import`: its address or the object id of its user.
    pub mailbox: Option<String>,
    /// Whom it goes to: addresses for `mail`, object ids of users for the notices of `teams-digest`.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Where a click on a notice of `teams-digest` leads: a deep link of Teams, `https://teams.microsoft.com/l/entity/...`.
    pub link: Option<String>,
    /// Seconds for which changes of a record or digest are gathered before it is written, at most a day.
    #[serde(default = "gather_seconds")]
    pub gather_seconds: u32,
    /// Minutes for which `teams-import` keeps the channel open at most: for so long people cannot post in it.
    #[serde(default = "open_minutes")]
    pub open_minutes: u32,
    /// Minutes for which `teams-import` leaves the channel to people before it opens it again.
    #[serde(default = "closed_minutes")]
    pub closed_minutes: u32,
}

fn yes() -> bool {
    true
}

/// Longest time for which changes are gathered: a day.
const GATHER_SECONDS_MAX: u32 = 86_400;

fn gather_seconds() -> u32 {
    60
}

fn open_minutes() -> u32 {
    30
}

fn closed_minutes() -> u32 {
    15
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Files, and a record for each channel and day. Needs no user, works in every cloud that has SharePoint.
    SharepointArchive,
    /// Posts of one service account, with the author and the time in the text.
    TeamsDelegated,
    /// One post that sums up, by the service account where there is one, and a notice to those it concerns.
    TeamsDigest,
    /// Posts in migration mode, with their own authors and times.
    TeamsImport,
    /// A letter that sums up.
    Mail,
    /// Messages in a folder of a mailbox, with their own authors and dates.
    MailImport,
}

impl TargetKind {
    /// Name used in configuration and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SharepointArchive => "sharepoint-archive",
            Self::TeamsDelegated => "teams-delegated",
            Self::TeamsDigest => "teams-digest",
            Self::TeamsImport => "teams-import",
            Self::Mail => "mail",
            Self::MailImport => "mail-import",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TargetSettings {
    /// The channel of Teams that it writes to.
    pub fn channel_of_teams(&self) -> Option<(&str, &str)> {
        match self.kind {
            TargetKind::TeamsDelegated | TargetKind::TeamsImport | TargetKind::TeamsDigest => {
                Some((self.team.as_deref()?, self.channel.as_deref()?))
            }
            TargetKind::SharepointArchive | TargetKind::Mail | TargetKind::MailImport => None,
        }
    }

    /// Where an archive writes its records: the drive and the folder in it, as SharePoint tells them apart.
    pub fn archive(&self) -> Option<(String, String)> {
        if self.kind != TargetKind::SharepointArchive {
            return None;
        }
        let folder = self.folder.as_deref().unwrap_or_default().to_lowercase();
        let names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
        Some((self.drive.clone().unwrap_or_default(), names.join("/")))
    }

    /// What is wrong with it: the key, and what would be right.
    pub fn problem(&self, cloud: Cloud) -> Option<(&'static str, String)> {
        let is_name = (1..=32).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_name {
            return Some(("name", format!("`{}` is no name; use 1 to 32 of a-z, 0-9 and -", self.name)));
        }
        if self.gather_seconds > GATHER_SECONDS_MAX {
            return Some(("gather_seconds", format!("at most {GATHER_SECONDS_MAX}, which is a day")));
        }
        let needs = |key, value: &Option<String>| match value.as_deref() {
            Some(text) if !text.is_empty() => None,
            Some(_) | None => Some((key, format!("needed by the target `{}` of kind {}", self.name, self.kind))),
        };
        match self.kind {
            TargetKind::SharepointArchive => needs("drive", &self.drive),
            TargetKind::TeamsDelegated | TargetKind::TeamsDigest | TargetKind::TeamsImport if cloud == Cloud::China => {
                Some(("kind", "the cloud in China offers nothing of Teams; use sharepoint-archive".to_owned()))
            }
            TargetKind::TeamsImport if cloud != Cloud::Global => Some((
                "kind",
                format!(
                    "Microsoft offers the import into existing channels in the global cloud alone, and not in `{cloud}`; \
                     use teams-delegated or sharepoint-archive"
                ),
            )),
            TargetKind::TeamsImport if self.open_minutes == 0 => {
                Some(("open_minutes", "at least 1: while the channel is open something is to be imported".to_owned()))
            }
            TargetKind::TeamsDelegated | TargetKind::TeamsImport => needs("team", &self.team)
                .or_else(|| needs("channel", &self.channel))
                .or_else(|| needs("account", &self.account)),
            TargetKind::TeamsDigest if self.account.is_none() && self.recipients.is_empty() => Some((
                "recipients",
                format!("the target `{}` needs recipients of notices, or an account that posts", self.name),
            )),
            TargetKind::TeamsDigest => {
                let post = self
                    .account
                    .as_ref()
                    .and_then(|_| needs("team", &self.team).or_else(|| needs("channel", &self.channel)));
                let link = if self.recipients.is_empty() { None } else { needs("link", &self.link) };
                post.or(link)
            }
            TargetKind::Mail if self.recipients.is_empty() => {
                Some(("recipients", format!("the target `{}` of kind mail needs somebody to write to", self.name)))
            }
            TargetKind::Mail => needs("mailbox", &self.mailbox),
            TargetKind::MailImport => needs("mailbox", &self.mailbox).or_else(|| needs("folder", &self.folder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::MicrosoftSettings;
    use serde_json::{Value, json};

    fn import() -> Value {
        json!({ "name": "history", "kind": "teams-import", "team": "t", "channel": "c", "account": "a" })
    }

    fn of(value: Value) -> TargetSettings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_import_is_refused_outside_the_global_cloud_and_says_why() {
        assert_eq!(of(import()).problem(Cloud::Global), None);
        for cloud in [Cloud::UsGovL4, Cloud::UsGovL5, Cloud::Other] {
            let (key, why) = of(import()).problem(cloud).unwrap();
            assert!(key == "kind" && why.contains("global cloud alone") && why.contains(cloud.as_str()), "{why}");
        }
        assert_eq!(of(import()).problem(Cloud::China).unwrap().0, "kind");
        for (key, value) in [("open_minutes", json!(0)), ("account", Value::Null), ("channel", json!(""))] {
            let mut changed = import();
            changed[key] = value;
            assert_eq!(of(changed).problem(Cloud::Global).unwrap().0, key);
        }
    }

    #[test]
    fn mail_is_kept_in_a_folder_of_a_mailbox_in_every_cloud() {
        let whole = json!({ "name": "mail", "kind": "mail-import", "mailbox": "m@x", "folder": "Mission" });
        for cloud in [Cloud::Global, Cloud::UsGovL4, Cloud::China, Cloud::Other] {
            assert_eq!(of(whole.clone()).problem(cloud), None);
        }
        for key in ["mailbox", "folder"] {
            let mut changed = whole.clone();
            changed[key] = Value::Null;
            assert_eq!(of(changed).problem(Cloud::Global).unwrap().0, key);
        }
    }

    #[test]
    fn nobody_else_writes_to_a_channel_that_is_opened_for_import() {
        let with = |channel: &str| {
            let posts =
                json!({ "name": "posts", "kind": "teams-delegated", "team": "t", "channel": channel, "account": "a" });
            let settings: MicrosoftSettings = serde_json::from_value(json!({
                "tenant": "11111111-2222-3333-4444-555555555555", "client": "66666666-7777-8888-9999-000000000000",
                "target": [posts, import()],
            }))
            .unwrap();
            settings.read()
        };
        assert!(with("another").is_ok());
        let refused = with("c").unwrap_err().to_string();
        assert!(refused.contains("`posts`") && refused.contains("one of its own"), "{refused}");
    }
}
