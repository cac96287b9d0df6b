//! One round: pages until the delta link, put together beside what is known.
//!
//! A round that begins at a delta link changes a copy of what is known; one that begins anew fills a *shadow* that was empty. Nothing
//! else sees either before [`Round::is_over`].

use std::collections::{BTreeMap, BTreeSet};

use model::{Guid, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::item::{self, Item, PageError, Removed, Told, bad};
use crate::graph::Page;

/// People that are kept at most: some 700 bytes each, 140 MB.
pub(super) const PEOPLE_MAX: u32 = 200_000;
/// Groups that are kept at most.
const GROUPS_MAX: usize = 20_000;
/// Memberships of all groups that are kept at most: 16 bytes each in memory, and as many on disk.
const MEMBERS_MAX: usize = 2_000_000;
/// Items of one page that are read; Graph sends at most 999.
const ITEMS_MAX: usize = 5_000;
/// Longest delta link that is kept. Graph's are below 2 kB.
const LINK_BYTES_MAX: usize = 8 * 1024;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// `/users/delta`
    People,
    /// `/groups/delta`
    Groups,
}

/// A person as Entra describes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Person {
    /// May the person sign in? `None` was never told.
    pub(crate) enabled: Option<bool>,
    pub(crate) user_principal_name: Option<String>,
    pub(crate) mail_nickname: Option<String>,
    pub(crate) mail: Option<String>,
    pub(crate) given_name: Option<String>,
    pub(crate) surname: Option<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) job_title: Option<String>,
    pub(crate) language: Option<String>,
    /// "Member" or "Guest".
    pub(crate) kind: Option<String>,
    /// Why the person is not in the directory.
    pub(crate) gone: Option<Gone>,
}

/// Why somebody is not in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// In the recycle bin; can be restored for 30 days.
    SoftDeleted,
    /// Deleted for good.
    Deleted,
    /// A whole list did not have them.
    Absent,
}

/// A group as Entra describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) name: Option<String>,
    pub(crate) is_gone: bool,
    /// Objects of any kind; those that are not known (yet) are kept.
    #[serde(with = "guids")]
    pub(crate) members: BTreeSet<Guid>,
}

/// An id as text.
pub(super) mod guid {
    use model::Guid;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(id: &Guid, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id)
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<Guid, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Ids as one text: a group of 10,000 takes 370 kB.
pub(super) mod guids {
    use std::collections::BTreeSet;

    use model::Guid;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(ids: &BTreeSet<Guid>, s: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = ids.iter().map(Guid::to_string).collect();
        s.serialize_str(&texts.join(" "))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<BTreeSet<Guid>, D::Error> {
        let text = String::deserialize(d)?;
        text.split_whitespace().map(|id| id.parse().map_err(D::Error::custom)).collect()
    }
}

/// Ids with times as one text.
pub(super) mod times {
    use std::collections::BTreeMap;

    use model::{Guid, UnixMillis};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(times: &BTreeMap<Guid, UnixMillis>, s: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = times.iter().map(|(id, at)| format!("{id}={}", at.0)).collect();
        s.serialize_str(&texts.join(" "))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<BTreeMap<Guid, UnixMillis>, D::Error> {
        let read = |text: &str| {
            let (id, at) = text.split_once('=').ok_or_else(|| D::Error::custom("an id without a time"))?;
            Ok((id.parse().map_err(D::Error::custom)?, UnixMillis(at.parse().map_err(D::Error::custom)?)))
        };
        String::deserialize(d)?.split_whitespace().map(read).collect()
    }
}

/// What is known of the directory, or becomes known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) people: BTreeMap<Guid, Person>,
    pub(crate) groups: BTreeMap<Guid, Group>,
}

/// How a round begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Path and query for everything.
    Query(String),
    /// The delta link of the round before, as Graph gave it.
    Link(String),
}

/// Whom and what a round keeps.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    /// People at most.
    pub(crate) people_max: usize,
    /// Whom it keeps where there are more: members of followed groups, and who has an account. `None` for all, whatever their number.
    pub(crate) needed: Option<BTreeSet<Guid>>,
    /// Are these alone kept from the beginning?
    pub(crate) is_partial: bool,
    /// Only groups that are asked after, unless this is `None`.
    pub(crate) groups: Option<BTreeSet<Guid>>,
}

/// A round that is under way.
#[derive(Clone, Debug)]
pub struct Round {
    what: What,
    began: UnixMillis,
    first: First,
    members: usize,
    keep: Keep,
    pub(crate) found: Generation,
    /// Who is needed and was left out before, and are they in the directory?
    pub(crate) left_out: BTreeMap<Guid, bool>,
    over: Option<String>,
}

impl Round {
    pub(crate) fn new(what: What, first: First, known: &Generation, keep: Keep, began: UnixMillis) -> Self {
        let mut found = Generation::default();
        if let First::Link(_) = first {
            match what {
                What::People => found.people.clone_from(&known.people),
                What::Groups => found.groups.clone_from(&known.groups),
            }
        }
        let members = found.groups.values().map(|group| group.members.len()).sum();
        Self { what, began, first, members, keep, found, left_out: BTreeMap::new(), over: None }
    }

    /// Which list it reads.
    pub fn what(&self) -> What {
        self.what
    }

    /// Does it read everything, rather than what changed?
    pub fn is_whole(&self) -> bool {
        matches!(self.first, First::Query(_))
    }

    /// When it began.
    pub fn began(&self) -> UnixMillis {
        self.began
    }

    /// What to ask for first.
    pub fn first(&self) -> &First {
        &self.first
    }

    /// Where the next round begins, once this one has read its last page.
    pub(crate) fn is_over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    /// Are only those people kept who are needed?
    pub(crate) fn is_partial(&self) -> bool {
        self.keep.is_partial
    }

    /// `false` for somebody who is not kept.
    fn makes_room_for(&mut self, id: Guid) -> Result<bool, PageError> {
        let Keep { people_max, needed, is_partial, groups: _ } = &mut self.keep;
        let is_full = self.found.people.len() >= *people_max;
        if let Some(needed) = needed.as_ref().filter(|_| is_full || *is_partial) {
            *is_partial = true;
            if !needed.contains(&id) {
                return Ok(false);
            }
            if is_full {
                self.found.people.retain(|id, _| needed.contains(id));
            }
        }
        if self.found.people.len() < *people_max {
            return Ok(true);
        }
        match needed {
            Some(_) => bad(format!("more than {people_max} people who are in a followed group or have an account")),
            None => bad(format!("more than {people_max} people")),
        }
    }

    /// One person, asked for by id.
    ///
    /// # Errors
    /// When the answer is not understood, or is somebody else.
    pub(crate) fn take_one(&mut self, id: Guid, object: &Value) -> Result<(), PageError> {
        let item = item::read(object)?;
        if item.id != id {
            return bad(format!("asked for {id}, the answer is {}", item.id));
        }
        self.person(&item)
    }

    /// Takes the next page.
    ///
    /// # Errors
    /// When it is not understood or too much; the round is worth nothing then.
    pub fn take(&mut self, page: &Page) -> Result<(), PageError> {
        if self.over.is_some() {
            return bad("a page came after the last one");
        }
        if page.value.len() > ITEMS_MAX {
            return bad(format!("a page has {} items, more than {ITEMS_MAX}", page.value.len()));
        }
        for object in &page.value {
            let item = item::read(object)?;
            match self.what {
                What::People => self.person(&item)?,
                What::Groups => self.group(&item)?,
            }
        }
        match (&page.delta_link, page.is_last) {
            (None, false) => {}
            (Some(link), true) if link.len() <= LINK_BYTES_MAX => self.over = Some(link.clone()),
            (Some(_), true) => return bad(format!("the delta link has more than {LINK_BYTES_MAX} bytes")),
            (None, true) => return bad("the last page has no delta link"),
            (Some(_), false) => return bad("a page has both a next page and a delta link"),
        }
        Ok(())
    }

    fn person(&mut self, item: &Item) -> Result<(), PageError> {
        if !self.found.people.contains_key(&item.id) {
            if self.keep.is_partial && !self.is_whole() {
                // What changed says too little of somebody who was left out.
                if self.keep.needed.as_ref().is_some_and(|needed| needed.contains(&item.id)) {
                    self.left_out.insert(item.id, item.removed.is_none());
                }
                return Ok(());
            }
            if !self.makes_room_for(item.id)? {
                return Ok(());
            }
        }
        let person = self.found.people.entry(item.id).or_default();
        let set = |field: &mut Option<String>, name| {
            match item.text(name)? {
                Told::Unchanged => {}
                Told::Cleared => *field = None,
                Told::Is(text) => *field = Some(text),
            }
            Ok::<_, PageError>(())
        };
        set(&mut person.user_principal_name, "userPrincipalName")?;
        set(&mut person.mail_nickname, "mailNickname")?;
        set(&mut person.mail, "mail")?;
        set(&mut person.given_name, "givenName")?;
        set(&mut person.surname, "surname")?;
        set(&mut person.display_name, "displayName")?;
        set(&mut person.job_title, "jobTitle")?;
        set(&mut person.language, "preferredLanguage")?;
        set(&mut person.kind, "userType")?;
        match item.flag("accountEnabled")? {
            // Nobody clears it; `null` is what a missing permission leaves of it.
            Told::Unchanged | Told::Cleared => {}
            Told::Is(is) => person.enabled = Some(is),
        }
        person.gone = item.removed.map(|removed| match removed {
            Removed::Changed => Gone::SoftDeleted,
            Removed::Deleted => Gone::Deleted,
        });
        Ok(())
    }

    fn group(&mut self, item: &Item) -> Result<(), PageError> {
        if self.keep.groups.as_ref().is_some_and(|wanted| !wanted.contains(&item.id)) {
            return Ok(());
        }
        if self.found.groups.len() >= GROUPS_MAX && !self.found.groups.contains_key(&item.id) {
            return bad(format!("more than {GROUPS_MAX} groups"));
        }
        let group = self.found.groups.entry(item.id).or_default();
        match item.text("displayName")? {
            Told::Unchanged => {}
            Told::Cleared => group.name = None,
            Told::Is(name) => group.name = Some(name),
        }
        group.is_gone = item.removed.is_some();
        for (member, is_in) in &item.members {
            if *is_in {
                self.members += usize::from(group.members.insert(*member));
            } else {
                self.members -= usize::from(group.members.remove(member));
            }
        }
        if self.members > MEMBERS_MAX {
            return bad(format!("more than {MEMBERS_MAX} memberships"));
        }
        Ok(())
    }
}
