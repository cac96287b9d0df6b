//! Section `[microsoft.directory]`, and what it becomes once read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Guid, UnixMillis};
use serde::{Deserialize, Serialize};

use super::book::{Place, Why};
use super::round::PEOPLE_MAX;
use crate::settings::SettingsError;

/// Section `[microsoft.directory]`. Off unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectorySettings {
    /// Does the sync run?
    pub enabled: bool,
    /// Who gets an account.
    pub people: People,
    /// Do people of other organisations get one?
    pub guests: bool,
    /// Minutes between two rounds.
    pub interval_minutes: u32,
    /// Minutes after which a blocked sign-in ends the account here.
    pub disabled_grace_minutes: u32,
    /// Hours after which somebody who is deleted, or in no followed group any longer, loses the account.
    pub gone_grace_hours: u32,
    /// What becomes of their accounts then.
    pub gone: GoneRule,
    /// More than so many percent of the accounts never end, or lose places, within a day without an operator.
    pub most_at_once_percent: u32,
    /// So many may, whatever the percentage says.
    pub most_at_once_least: u32,
    /// So many accounts are made in a day without an operator, or as many as there are.
    pub new_at_once_least: u32,
    /// So many people are kept. Where the tenant has more, only those who are in a followed group or have an account.
    pub people_kept_max: u32,
    /// Groups that are followed, and where they lead.
    pub groups: Vec<GroupSettings>,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self {
            enabled: false,
            people: People::OfGroups,
            guests: false,
            interval_minutes: 15,
            disabled_grace_minutes: 0,
            gone_grace_hours: 24,
            gone: GoneRule::Disable,
            most_at_once_percent: 10,
            most_at_once_least: 5,
            new_at_once_least: 100,
            people_kept_max: PEOPLE_MAX,
            groups: Vec::new(),
        }
    }
}

/// Who gets an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum People {
    /// Members of the groups that are followed.
    OfGroups,
    /// Everybody in the tenant.
    All,
}

/// What becomes of the accounts of those who are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoneRule {
    /// They cannot sign in any longer. What they wrote stays: it is part of the record.
    Disable,
    /// Nothing.
    Keep,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSettings {
    /// Object id of the group.
    pub id: String,
    /// Team that its members join, by its name in URLs; none where the group only says who gets an account.
    #[serde(default)]
    pub team: Option<String>,
    /// Channels of the team that they join besides its standard ones.
    #[serde(default)]
    pub channels: Vec<String>,
}

/// The section once read.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(crate) people: People,
    pub(crate) guests: bool,
    pub(crate) gone: GoneRule,
    pub(crate) disabled_grace_ms: i64,
    pub(crate) gone_grace_ms: i64,
    most_percent: usize,
    most_least: usize,
    new_least: usize,
    pub(crate) people_max: usize,
    /// Between two rounds.
    pub interval: Duration,
    pub(crate) groups: BTreeMap<Guid, GroupRule>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct GroupRule {
    pub(crate) places: BTreeSet<Place>,
}

/// Groups that may be followed; each is looked at in each round.
const GROUPS_FOLLOWED_MAX: usize = 2_000;
/// Thinner links should not be asked more often, and Entra itself takes minutes to replicate.
const INTERVAL_MINUTES_MIN: u32 = 1;

fn wrong<T>(problem: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { key: "directory", problem: problem.into() })
}

impl DirectorySettings {
    /// Checks the section.
    ///
    /// # Errors
    /// When a value is of no use.
    pub fn read(&self) -> Result<Rules, SettingsError> {
        if self.interval_minutes < INTERVAL_MINUTES_MIN {
            return wrong("interval_minutes is at least 1");
        }
        if self.most_at_once_percent > 100 {
            return wrong("most_at_once_percent is at most 100");
        }
        if !(1..=PEOPLE_MAX).contains(&self.people_kept_max) {
            return wrong(format!("people_kept_max is at least 1 and at most {PEOPLE_MAX}"));
        }
        if self.groups.len() > GROUPS_FOLLOWED_MAX {
            return wrong(format!("at most {GROUPS_FOLLOWED_MAX} groups are followed"));
        }
        if self.enabled && self.people == People::OfGroups && self.groups.is_empty() {
            return wrong("people = \"of-groups\" needs [[microsoft.directory.groups]]; nobody would get an account");
        }
        let mut groups: BTreeMap<Guid, GroupRule> = BTreeMap::new();
        for group in &self.groups {
            let Ok(id) = group.id.parse() else {
                return wrong(format!("`{}` is no object id of a group; the Entra portal shows it", group.id));
            };
            let rule = groups.entry(id).or_default();
            let Some(team) = &group.team else {
                if group.channels.is_empty() {
                    continue;
                }
                return wrong(format!("the group {id} has channels and no team"));
            };
            rule.places.insert(Place { team: team.clone(), channel: None });
            let channels = group.channels.iter().map(|name| Place { team: team.clone(), channel: Some(name.clone()) });
            rule.places.extend(channels);
        }
        Ok(Rules {
            people: self.people,
            guests: self.guests,
            gone: self.gone,
            disabled_grace_ms: i64::from(self.disabled_grace_minutes) * 60_000,
            gone_grace_ms: i64::from(self.gone_grace_hours) * 3_600_000,
            most_percent: self.most_at_once_percent as usize,
            most_least: self.most_at_once_least as usize,
            new_least: self.new_at_once_least as usize,
            people_max: self.people_kept_max as usize,
            interval: Duration::from_secs(u64::from(self.interval_minutes) * 60),
            groups,
        })
    }
}

impl Rules {
    /// How many accounts may be made in a day without an operator, where there are so many.
    pub(crate) fn most_new_at_once(&self, accounts: usize) -> usize {
        accounts.max(self.new_least)
    }

    /// How many of `accounts` may end, or lose places, in a day without an operator.
    pub(crate) fn most_at_once(&self, accounts: usize) -> usize {
        (accounts * self.most_percent / 100).max(self.most_least)
    }

    /// When an account ends for this reason; `None`: never.
    pub(crate) fn due(&self, why: Why, since: UnixMillis) -> Option<UnixMillis> {
        let grace_ms = match (why, self.gone) {
            (Why::Disabled, GoneRule::Disable | GoneRule::Keep) => self.disabled_grace_ms,
            (Why::Gone(_) | Why::InNoGroup | Why::Guest, GoneRule::Disable) => self.gone_grace_ms,
            (Why::Gone(_) | Why::InNoGroup | Why::Guest, GoneRule::Keep)
            | (Why::Untold, GoneRule::Disable | GoneRule::Keep) => return None,
        };
        Some(UnixMillis(since.0.saturating_add(grace_ms)))
    }
}
