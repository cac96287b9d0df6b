//! What is known, which accounts came of it, and what shall become of them.

use std::collections::{BTreeMap, BTreeSet};

use model::{EntraKey, Guid, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::item::{PageError, bad};
pub use super::round::Gone;
use super::round::{First, Generation, Keep, Person, Round, What};
use super::rules::{People, Rules};

/// Delta links of directory objects live for 7 days.
const LINK_LIFE_MS: i64 = 7 * 24 * 3_600_000;
/// So long an end counts when the next ones are looked at.
const RECENT_MS: i64 = 24 * 3_600_000;
/// People of one transaction: some 100 ms of the store's one writer.
const BATCH: usize = 50;

/// What asks for people: exactly the properties that are read, since others that change would surface, too.
const PEOPLE_QUERY: &str = "/users/delta?$select=id,accountEnabled,userPrincipalName,mailNickname,mail,givenName,surname,\
                            displayName,jobTitle,preferredLanguage,userType";
/// What asks for one of them.
const PERSON_SELECT: &str = "?$select=id,accountEnabled,userPrincipalName,mailNickname,mail,givenName,surname,displayName,jobTitle,\
                             preferredLanguage,userType";
const GROUPS_QUERY: &str = "/groups/delta?$select=id,displayName,members";
/// Groups that one filter can name.
const FILTER_IDS_MAX: usize = 50;

/// Where a group leads, by names as in URLs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The team.
    pub team: String,
    /// A channel of it; `None` for the team with its standard channels.
    pub channel: Option<String>,
}

/// Mapped places where nobody can be brought at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// They are not here, or archived.
    pub absent: BTreeSet<Place>,
    /// Teams that take nobody more.
    pub full: BTreeSet<Place>,
}

impl Closed {
    /// Can somebody who is in `had` not be brought to `place`?
    fn shuts(&self, place: &Place, had: &BTreeSet<Place>) -> bool {
        let team = Place { team: place.team.clone(), channel: None };
        self.absent.contains(place) || self.full.contains(&team) && !had.contains(&team)
    }
}

/// What shall be of one person's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the mission core takes it")]
pub struct Wanted {
    pub alias: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub position: String,
    pub locale: String,
    pub active: bool,
    pub places: BTreeSet<Place>,
}

impl Wanted {
    /// Is anything else but the places different?
    fn has_other_profile(&self, other: &Self) -> bool {
        let Self { alias, email, first_name, last_name, position, locale, active, places: _ } = self;
        (alias, email, first_name, last_name, position, locale, active)
            != (
                &other.alias,
                &other.email,
                &other.first_name,
                &other.last_name,
                &other.position,
                &other.locale,
                &other.active,
            )
    }
}

/// What the store carries out in one transaction, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Accounts, in this order.
    pub people: Vec<(EntraKey, Wanted)>,
    /// Records of the book; `None` forgets one.
    pub keep: Vec<(String, Option<Vec<u8>>)>,
}

/// Why somebody has no account, or loses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Sign-in is blocked in Entra.
    Disabled,
    /// Whether sign-in is allowed was never told: nobody gets an account by that, and nobody loses one.
    Untold,
    /// Not in the directory.
    Gone(Gone),
    /// In no group that is followed.
    InNoGroup,
    /// Of another organisation.
    Guest,
}

/// The end of an account that is due, or comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ends {
    why: Why,
    since: UnixMillis,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    /// As it was made, with the places where the person was brought.
    applied: Wanted,
    ends: Option<Ends>,
}

/// People who are too many at once. Those who are held already hold up nobody who comes later: a single revocation must not wait
/// for an operator's word on a hundred others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    /// Of which directory they are; nobody is let go by what was said of another one.
    #[serde(default)]
    source: Option<Source>,
    /// They would lose their accounts.
    #[serde(with = "super::round::guids")]
    accounts: BTreeSet<Guid>,
    /// They would lose places.
    #[serde(with = "super::round::guids")]
    places: BTreeSet<Guid>,
    /// They would get accounts.
    #[serde(default, with = "super::round::guids")]
    new: BTreeSet<Guid>,
    /// What happened without an operator, and counts for a day: an unusual number is one however many rounds it comes in.
    #[serde(default)]
    recent: Recent,
}

/// To whom something happened, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recent {
    /// They lost their accounts.
    #[serde(with = "super::round::times")]
    accounts: BTreeMap<Guid, UnixMillis>,
    /// They lost places.
    #[serde(with = "super::round::times")]
    places: BTreeMap<Guid, UnixMillis>,
    /// They got accounts.
    #[serde(default, with = "super::round::times")]
    new: BTreeMap<Guid, UnixMillis>,
}

/// Of these times, those that still count.
fn counting(times: &BTreeMap<Guid, UnixMillis>, now: UnixMillis) -> BTreeMap<Guid, UnixMillis> {
    let counts = |at: &UnixMillis| *at <= now && now.0 - at.0 < RECENT_MS;
    times.iter().filter(|(_, at)| counts(at)).map(|(id, at)| (*id, *at)).collect()
}

/// What happens to some of `due`.
struct Watched<'a> {
    due: &'a BTreeSet<Guid>,
    /// Who waited before.
    before: &'a BTreeSet<Guid>,
    /// To whom it happened of late.
    recent: &'a mut BTreeMap<Guid, UnixMillis>,
}

impl Watched<'_> {
    /// Who waits for an operator: those who waited before, and all others if these are more than `most` with those of the last day.
    fn wait(self, now: UnixMillis, accepted: bool, most: usize) -> BTreeSet<Guid> {
        let fresh: BTreeSet<Guid> = self.due.difference(self.before).copied().collect();
        let count = fresh.iter().filter(|id| !self.recent.contains_key(id)).count() + self.recent.len();
        let mut waiting: BTreeSet<Guid> = self.due.intersection(self.before).filter(|_| !accepted).copied().collect();
        if !fresh.is_empty() && count > most {
            waiting.extend(fresh);
        } else {
            self.recent.extend(fresh.into_iter().map(|id| (id, now)));
        }
        waiting
    }
}

impl Held {
    fn len(&self) -> usize {
        self.accounts.union(&self.places).count()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonRecord {
    person: Person,
    account: Option<Account>,
}

/// Which directory a book is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The tenant.
    #[serde(with = "super::round::guid")]
    pub tenant: Guid,
    /// Scheme, host and port of the Graph that was asked.
    pub graph: String,
}

/// Where the next round begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaLink {
    url: String,
    /// Who gave it: with another one it is of no use. `None` in what older versions kept.
    #[serde(default)]
    source: Option<Source>,
    /// What it was made for: with another question it is of no use.
    query: String,
    at: UnixMillis,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Links {
    people: Option<DeltaLink>,
    groups: Option<DeltaLink>,
    /// Were only those people kept who are in a followed group or have an account?
    #[serde(default)]
    is_partial: bool,
}

/// What the store has of the book.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// What batches kept.
    pub records: Vec<(String, Vec<u8>)>,
    /// The accounts that the sync made or took over, by object id, with the places that it sent them to.
    pub accounts: Vec<(Guid, Wanted)>,
}

/// A record of the book that does not read. The next round reads everything again.
#[derive(Debug, thiserror::Error)]
#[error(
    "the record `{key}` of the directory does not read: {problem}; everything is read again, accounts are as they were"
)]
pub struct BadRecord {
    key: String,
    problem: String,
}

/// What happens next to accounts. Nothing of it was done yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// New accounts.
    pub create: Vec<Planned>,
    /// Accounts with another profile or other places.
    pub change: Vec<Planned>,
    /// Accounts that can sign in again.
    pub restore: Vec<Planned>,
    /// Accounts that end now.
    pub disable: Vec<Planned>,
    /// Accounts that end when their grace is over.
    pub waiting: Vec<Planned>,
    /// People whose accounts or memberships would end and who are too many at once: an operator decides.
    pub held: Vec<Planned>,
    /// New accounts that are too many at once, as on the first day: an operator decides.
    #[serde(default)]
    pub create_held: Vec<Planned>,
}

/// One person in a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// `entra:{tid}:{oid}`.
    pub key: String,
    /// User principal name, as far as it is known.
    pub name: String,
    /// Why, for what ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// When, for what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<UnixMillis>,
}

impl Plan {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        [&self.create, &self.change, &self.restore, &self.disable].iter().all(|list| list.is_empty())
    }
}

/// What is known of one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonView {
    /// `entra:{tid}:{oid}`.
    pub key: String,
    /// User principal name.
    pub user_principal_name: String,
    /// As shown to people.
    pub display_name: String,
    /// Is sign-in allowed in Entra?
    pub enabled: bool,
    /// Names of the followed groups that the person is in, nested ones included.
    pub groups: Vec<String>,
    /// Where these lead.
    pub places: Vec<Place>,
    /// Is there an account that the sync made, and can it sign in?
    pub account: Option<bool>,
    /// Why there is none, or why it ends.
    pub why_not: Option<Why>,
}

/// The book. Pure: pages and time come from outside, changes go out as batches.
#[derive(Clone, Debug)]
pub struct Book {
    rules: Rules,
    source: Source,
    known: Generation,
    accounts: BTreeMap<Guid, Account>,
    links: Links,
    /// Whom an operator was told of and may let go.
    held: Held,
    /// Nobody is sent there, and nobody taken away.
    closed: Closed,
    /// Where people could not be brought when it was last tried.
    unserved: BTreeMap<Guid, BTreeSet<Place>>,
    /// Full places where somebody waits for room.
    full: BTreeSet<Place>,
    /// Members of followed groups who were looked for and are no people: devices, contacts.
    strangers: BTreeSet<Guid>,
    /// People whom the list has told of, so that they are no strangers if asking for them finds nobody yet.
    told_of: BTreeSet<Guid>,
}

impl Book {
    /// The book from its records, and those that do not read.
    ///
    /// What these would have said is read from Entra again; which accounts there are, and where they were sent, the store says. So a
    /// record that is lost never makes anybody's account one that nobody ends.
    pub fn load(rules: Rules, source: Source, stored: Stored) -> (Self, Vec<BadRecord>) {
        let mut book = Self {
            rules,
            source,
            known: Generation::default(),
            accounts: BTreeMap::new(),
            links: Links::default(),
            held: Held::default(),
            closed: Closed::default(),
            unserved: BTreeMap::new(),
            full: BTreeSet::new(),
            strangers: BTreeSet::new(),
            told_of: BTreeSet::new(),
        };
        let mut bad = Vec::new();
        for (key, value) in stored.records {
            if let Err(problem) = book.record(&key, &value) {
                bad.push(BadRecord { key, problem });
            }
        }
        for (id, wanted) in stored.accounts {
            match book.accounts.get_mut(&id) {
                Some(account) => account.applied.places.retain(|place| wanted.places.contains(place)),
                None => {
                    book.accounts.insert(id, Account { applied: wanted, ends: None });
                }
            }
        }
        let is_unknown = |id: &Guid| !book.known.people.contains_key(id);
        if !bad.is_empty() || book.accounts.keys().any(is_unknown) {
            book.links = Links::default();
        }
        (book, bad)
    }

    fn record(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        fn read<'v, T: Deserialize<'v>>(value: &'v [u8]) -> Result<T, String> {
            serde_json::from_slice(value).map_err(|e| e.to_string())
        }
        match key.split_once('/') {
            None if key == "links" => {
                let Links { people, groups, is_partial } = read(value)?;
                let own = |link: &DeltaLink| link.source.as_ref() == Some(&self.source);
                self.links = Links { people: people.filter(own), groups: groups.filter(own), is_partial };
            }
            None if key == "held" => {
                let held: Held = read(value)?;
                if held.source.as_ref() == Some(&self.source) {
                    self.held = held;
                }
            }
            Some((kind, id)) => {
                let (tenant, id) = id.split_once('/').ok_or("no tenant")?;
                let id = id.parse().map_err(|_| "no id".to_owned())?;
                // Of another tenant that this node followed before: those accounts are not this one's to end.
                if tenant.parse() != Ok(self.source.tenant) {
                    return Ok(());
                }
                match kind {
                    "person" => {
                        let PersonRecord { person, account } = read(value)?;
                        self.known.people.insert(id, person);
                        if let Some(account) = account {
                            self.accounts.insert(id, account);
                        }
                    }
                    "group" => {
                        self.known.groups.insert(id, read(value)?);
                    }
                    _ => return Err("an unknown kind".to_owned()),
                }
            }
            None => return Err("an unknown name".to_owned()),
        }
        Ok(())
    }

    /// Which lists are read, in this order: the groups say who of a large tenant is needed.
    pub fn lists(&self) -> Vec<What> {
        if self.rules.groups.is_empty() { vec![What::People] } else { vec![What::Groups, What::People] }
    }

    /// A round over `what`: what changed since the last one, or everything.
    pub fn begin(&self, what: What, now: UnixMillis, whole: bool) -> Round {
        let query = self.query(what);
        let keep = self.keep();
        // Who was left out has to be read when everybody is to have an account.
        let is_enough = what == What::Groups || !self.links.is_partial || keep.is_partial;
        let link = self.link(what).as_ref().filter(|link| {
            !whole
                && is_enough
                && link.query == query
                && link.at <= now
                && now.0.saturating_sub(link.at.0) < LINK_LIFE_MS
        });
        let first = link.map_or_else(|| First::Query(query.clone()), |link| First::Link(link.url.clone()));
        Round::new(what, first, &self.known, keep, now)
    }

    fn keep(&self) -> Keep {
        let needed = match self.rules.people {
            People::OfGroups => Some(self.needed()),
            People::All => None,
        };
        Keep {
            people_max: self.rules.people_max,
            is_partial: self.links.is_partial && needed.is_some(),
            needed,
            groups: (!self.asks_for_all_groups()).then(|| self.rules.groups.keys().copied().collect()),
        }
    }

    /// Members of followed groups, and who has an account.
    fn needed(&self) -> BTreeSet<Guid> {
        let members = self.groups_of_people().into_keys();
        members.chain(self.accounts.keys().copied()).collect()
    }

    /// Who came into a followed group after their record had been left out: each is asked for by their id.
    pub fn unread(&self) -> Vec<Guid> {
        if !self.links.is_partial || self.rules.people == People::All {
            return Vec::new();
        }
        let is_unread = |id: &Guid| !self.known.people.contains_key(id) && !self.strangers.contains(id);
        self.needed().into_iter().filter(is_unread).collect()
    }

    /// Would so many more be too many? Then a whole list says who is not needed any longer.
    pub fn is_crowded(&self, unread: usize) -> bool {
        self.known.people.len() + unread > self.rules.people_max
    }

    /// Is there room for everybody who is needed? Asked before a whole list is read, which may cost hours of a thin link.
    ///
    /// # Errors
    /// When there is not.
    pub fn room(&self) -> Result<(), PageError> {
        let (most, needed) = (self.rules.people_max, self.needed().len());
        if self.rules.people == People::All || needed <= most {
            return Ok(());
        }
        bad(format!("{needed} are in a followed group or have an account, more than {most}; the list is not read"))
    }

    /// What asks for one of [`Self::unread`].
    pub fn query_of(id: Guid) -> String {
        format!("/users/{id}{PERSON_SELECT}")
    }

    /// Takes what was answered for one of [`Self::unread`]; `None` for who is no person.
    ///
    /// # Errors
    /// When the answer is not understood; nothing was taken.
    pub fn take_one(&mut self, id: Guid, object: Option<&Value>) -> Result<Batch, PageError> {
        let Some(object) = object else {
            if !self.told_of.contains(&id) {
                self.strangers.insert(id);
            }
            return Ok(Batch::default());
        };
        let keep = Keep { people_max: 1, needed: None, is_partial: false, groups: None };
        let mut round =
            Round::new(What::People, First::Query(String::new()), &Generation::default(), keep, UnixMillis(0));
        round.take_one(id, object)?;
        self.told_of.remove(&id);
        self.known.people.append(&mut round.found.people);
        Ok(Batch { people: Vec::new(), keep: vec![self.person_record(id)] })
    }

    fn link(&self, what: What) -> &Option<DeltaLink> {
        match what {
            What::People => &self.links.people,
            What::Groups => &self.links.groups,
        }
    }

    /// More than a filter can name: then all are asked for, which also finds groups within groups.
    fn asks_for_all_groups(&self) -> bool {
        self.rules.groups.len() > FILTER_IDS_MAX
    }

    fn query(&self, what: What) -> String {
        match what {
            What::People => PEOPLE_QUERY.to_owned(),
            What::Groups if self.asks_for_all_groups() => GROUPS_QUERY.to_owned(),
            What::Groups => {
                let ids: Vec<String> = self.rules.groups.keys().map(|id| format!("id%20eq%20%27{id}%27")).collect();
                format!("{GROUPS_QUERY}&$filter={}", ids.join("%20or%20"))
            }
        }
    }

    /// Takes over a round that is over. Whatever a whole list lacks is gone from the directory.
    pub fn take_over(&mut self, round: Round) -> Batch {
        let Some(delta) = round.is_over() else { return Batch::default() };
        let source = Some(self.source.clone());
        let link = DeltaLink { url: delta.to_owned(), source, query: self.query(round.what()), at: round.began() };
        let (is_whole, is_partial) = (round.is_whole(), round.is_partial());
        let mut batch = Batch::default();
        match round.what() {
            What::People => {
                for (id, is_there) in round.left_out {
                    self.strangers.remove(&id);
                    match is_there {
                        true => self.told_of.insert(id),
                        false => self.told_of.remove(&id),
                    };
                }
                let mut people = round.found.people;
                if is_whole {
                    // Unsaid is not blocked: with a permission missing Graph leaves it out.
                    for (id, person) in people.iter_mut().filter(|(_, person)| person.enabled.is_none()) {
                        person.enabled = self.known.people.get(id).and_then(|known| known.enabled);
                    }
                    let absent: Vec<Guid> =
                        self.accounts.keys().filter(|id| !people.contains_key(id)).copied().collect();
                    for id in absent {
                        let person = self.known.people.get(&id).cloned().unwrap_or_default();
                        people.insert(id, Person { gone: Some(person.gone.unwrap_or(Gone::Absent)), ..person });
                    }
                }
                let forgotten: Vec<Guid> =
                    self.known.people.keys().filter(|id| !people.contains_key(id)).copied().collect();
                batch.keep.extend(forgotten.into_iter().map(|id| (self.name("person", id), None)));
                let changed: Vec<Guid> =
                    people.iter().filter(|(id, p)| self.known.people.get(id) != Some(p)).map(|(id, _)| *id).collect();
                self.known.people = people;
                self.links.is_partial = is_partial;
                batch.keep.extend(changed.into_iter().map(|id| self.person_record(id)));
                self.links.people = Some(link);
                if is_whole {
                    self.strangers = self.unread().into_iter().collect();
                }
            }
            What::Groups => {
                let groups = round.found.groups;
                let forgotten = self.known.groups.keys().filter(|id| !groups.contains_key(id));
                batch.keep.extend(forgotten.map(|id| (self.name("group", *id), None)));
                let changed = groups.iter().filter(|(id, group)| self.known.groups.get(id) != Some(group));
                batch.keep.extend(changed.map(|(id, group)| (self.name("group", *id), Some(json(group)))));
                self.known.groups = groups;
                // Who left and came again may have been restored meanwhile, which was left out.
                if !self.strangers.is_empty() {
                    let needed = self.needed();
                    self.strangers.retain(|id| needed.contains(id));
                }
                self.links.groups = Some(link);
            }
        }
        batch.keep.push(("links".to_owned(), Some(json(&self.links))));
        batch
    }

    fn name(&self, kind: &str, id: Guid) -> String {
        format!("{kind}/{}/{id}", self.source.tenant)
    }

    fn person_record(&self, id: Guid) -> (String, Option<Vec<u8>>) {
        let person = self.known.people.get(&id).cloned();
        let account = self.accounts.get(&id).cloned();
        (self.name("person", id), person.map(|person| json(&PersonRecord { person, account })))
    }

    /// Has every list been read whole once? Before that nobody can be said to be gone.
    pub fn is_complete(&self) -> bool {
        self.lists().into_iter().all(|what| self.link(what).as_ref().is_some_and(|link| link.query == self.query(what)))
    }

    /// Members of the group that are no groups, those of groups within it included.
    fn members(&self, id: Guid, seen: &mut BTreeSet<Guid>, found: &mut BTreeSet<Guid>) {
        if !seen.insert(id) {
            return;
        }
        let Some(group) = self.known.groups.get(&id).filter(|group| !group.is_gone) else { return };
        for member in &group.members {
            match self.known.groups.contains_key(member) {
                true => self.members(*member, seen, found),
                false => {
                    found.insert(*member);
                }
            }
        }
    }

    /// Which followed groups each person is in.
    fn groups_of_people(&self) -> BTreeMap<Guid, BTreeSet<Guid>> {
        let mut found: BTreeMap<Guid, BTreeSet<Guid>> = BTreeMap::new();
        for group in self.rules.groups.keys() {
            let mut members = BTreeSet::new();
            self.members(*group, &mut BTreeSet::new(), &mut members);
            for member in members {
                found.entry(member).or_default().insert(*group);
            }
        }
        found
    }

    /// Every place that a followed group leads to.
    pub fn mapped(&self) -> BTreeSet<Place> {
        self.rules.groups.values().flat_map(|rule| rule.places.iter().cloned()).collect()
    }

    /// Mapped places that are not here, as was noted last.
    pub fn absent(&self) -> &BTreeSet<Place> {
        &self.closed.absent
    }

    /// Full places where somebody waits for room, as was found last.
    pub fn full(&self) -> &BTreeSet<Place> {
        &self.full
    }

    /// Which of the mapped places are closed at present.
    pub fn note_closed(&mut self, closed: Closed) {
        self.closed = closed;
    }

    /// What came of a batch: where people were not brought it is tried again in each round. After a restart the store tells the same.
    pub fn note_unserved(&mut self, unserved: BTreeMap<Guid, BTreeSet<Place>>, full: BTreeSet<Place>) {
        for (id, places) in unserved {
            if let Some(account) = self.accounts.get_mut(&id) {
                account.applied.places.retain(|place| !places.contains(place));
                let had = &account.applied.places;
                // Where it was known before that nobody comes, nothing was tried.
                let tried = places.into_iter().filter(|place| !self.closed.shuts(place, had));
                self.unserved.insert(id, tried.collect());
            }
        }
        self.full.extend(full);
    }

    fn planned(&self, id: Guid, why: Option<Why>, due: Option<UnixMillis>) -> Planned {
        let person = self.known.people.get(&id);
        let name = person.and_then(|p| p.user_principal_name.clone().or_else(|| p.display_name.clone()));
        let key = EntraKey { tenant: self.source.tenant, object: id }.to_string();
        Planned { key, name: name.unwrap_or_default(), why, due }
    }

    /// What would happen now.
    pub fn plan(&self, now: UnixMillis) -> Plan {
        self.decide(now, Known::All, false).plan
    }

    /// Decides on every account and gives what is to be carried out: what ends first. `accept` lets those go who are held.
    ///
    /// Before every list was read whole once, only blocked sign-ins end accounts: what else there is to know is not known yet.
    pub fn settle(&mut self, now: UnixMillis, known: Known, accept: bool) -> (Plan, Vec<Batch>) {
        let Decided { plan, work, people, held, full } = self.decide(now, known, accept);
        for (id, ends) in &work.ends {
            if let Some(account) = self.accounts.get_mut(id) {
                account.ends = *ends;
            }
        }
        self.full = full;
        let batches = self.carry_out(people, work.ends.into_keys().collect(), held);
        (plan, batches)
    }

    fn decide(&self, now: UnixMillis, known: Known, accept: bool) -> Decided {
        let mut plan = Plan::default();
        let work = self.work(now, known, &mut plan);
        let held = self.held(&work, now, accept);
        let mut people: Vec<(Guid, Wanted)> = Vec::new();
        let mut full = BTreeSet::new();
        for (id, why) in &work.ending {
            if held.accounts.contains(id) {
                plan.held.push(self.planned(*id, Some(*why), None));
            } else if let Some(account) = self.accounts.get(id) {
                plan.disable.push(self.planned(*id, Some(*why), None));
                people.push((*id, Wanted { active: false, ..account.applied.clone() }));
            }
        }
        for (id, wanted) in &work.wanted {
            let (id, mut wanted) = (*id, wanted.clone());
            if held.new.contains(&id) {
                plan.create_held.push(self.planned(id, None, None));
                continue;
            }
            let applied = self.accounts.get(&id).map(|account| &account.applied);
            if let Some(applied) = applied.filter(|_| held.places.contains(&id)) {
                wanted.places.extend(applied.places.iter().cloned());
                plan.held.push(self.planned(id, None, None));
            }
            let none = BTreeSet::new();
            let had = applied.map_or(&none, |applied| &applied.places);
            let waits = wanted.places.difference(had);
            let (shut, open): (Vec<&Place>, Vec<&Place>) = waits.partition(|place| self.closed.shuts(place, had));
            full.extend(shut.into_iter().filter(|place| self.closed.full.contains(place)).cloned());
            let tried = self.unserved.get(&id).unwrap_or(&none);
            let list = match applied {
                None => Some(&mut plan.create),
                Some(applied) if !applied.active => Some(&mut plan.restore),
                Some(applied) if applied.has_other_profile(&wanted) || !applied.places.is_subset(&wanted.places) => {
                    Some(&mut plan.change)
                }
                Some(_) if open.is_empty() => continue,
                // Tried before: nobody need be told in each round.
                Some(_) if open.iter().all(|place| tried.contains(place)) => None,
                Some(_) => Some(&mut plan.change),
            };
            if let Some(list) = list {
                list.push(self.planned(id, None, None));
            }
            people.push((id, wanted));
        }
        Decided { plan, work, people, held, full }
    }

    /// Looks at everybody. Who waits for the end of a grace goes into `plan`.
    fn work(&self, now: UnixMillis, known: Known, plan: &mut Plan) -> Work {
        let is_complete = self.is_complete();
        let groups = self.groups_of_people();
        let mut work = Work::default();
        for (id, person) in &self.known.people {
            if !is_complete && person.enabled != Some(false) {
                work.undecided.insert(*id);
                continue;
            }
            let in_groups = groups.get(id);
            let account = self.accounts.get(id);
            let is_active = account.map(|account| account.applied.active);
            let Some(why) = why_not(&self.rules, person, in_groups, is_active) else {
                work.stays(*id, profile(person, places_of(&self.rules, in_groups)), account);
                continue;
            };
            let Some(account) = account.filter(|account| account.applied.active) else { continue };
            let ends = Ends { why, since: account.ends.map_or(now, |ends| ends.since) };
            if account.ends != Some(ends) {
                work.ends.insert(*id, Some(ends));
            }
            // Who is in a group again may only not have been read.
            let may_end = why != Why::InNoGroup || known == Known::All;
            match self.rules.due(ends.why, ends.since) {
                Some(due) if due <= now && may_end => work.ending.push((*id, why)),
                Some(due) if due <= now => {
                    work.undecided.insert(*id);
                }
                due => plan.waiting.push(self.planned(*id, Some(why), due)),
            }
        }
        work
    }

    /// Who waits for an operator.
    fn held(&self, work: &Work, now: UnixMillis, accept: bool) -> Held {
        let mut recent = Recent {
            accounts: counting(&self.held.recent.accounts, now),
            places: counting(&self.held.recent.places, now),
            new: counting(&self.held.recent.new, now),
        };
        let active = self.accounts.values().filter(|account| account.applied.active).count();
        // Of those there were before the first of them ended.
        let most = self.rules.most_at_once(active + recent.accounts.len());
        let most_new = self.rules.most_new_at_once(active.saturating_sub(recent.new.len()));
        let ending: BTreeSet<Guid> = work.ending.iter().map(|(id, _)| *id).collect();
        let accounts = Watched { due: &ending, before: &self.held.accounts, recent: &mut recent.accounts };
        let places = Watched { due: &work.leaving, before: &self.held.places, recent: &mut recent.places };
        let is_new = |(id, _): &&(Guid, Wanted)| !self.accounts.contains_key(id);
        let coming: BTreeSet<Guid> = work.wanted.iter().filter(is_new).map(|(id, _)| *id).collect();
        let new = Watched { due: &coming, before: &self.held.new, recent: &mut recent.new };
        let (accounts, places) = (accounts.wait(now, accept, most), places.wait(now, accept, most));
        let new = new.wait(now, accept, most_new);
        let mut held = Held { source: Some(self.source.clone()), accounts, places, new, recent };
        held.accounts.extend(self.held.accounts.intersection(&work.undecided));
        held.places.extend(self.held.places.intersection(&work.undecided));
        held.new.extend(self.held.new.intersection(&work.undecided));
        held
    }

    fn carry_out(&mut self, people: Vec<(Guid, Wanted)>, touched: BTreeSet<Guid>, held: Held) -> Vec<Batch> {
        let done: BTreeSet<Guid> = people.iter().map(|(id, _)| *id).collect();
        let mut keep: Vec<_> = touched.difference(&done).map(|id| self.person_record(*id)).collect();
        // Before anybody's account ends: what is cut off in the middle counts whole, and once.
        if held != self.held {
            keep.push(("held".to_owned(), Some(json(&held))));
            self.held = held;
        }
        let mut batches = Vec::new();
        if !keep.is_empty() {
            batches.push(Batch { people: Vec::new(), keep });
        }
        for part in people.chunks(BATCH) {
            let mut batch = Batch::default();
            for (id, wanted) in part {
                let (before, none) = (self.accounts.get(id), BTreeSet::new());
                let ends = before.and_then(|account| account.ends).filter(|_| !wanted.active);
                let had = before.map_or(&none, |account| &account.applied.places);
                let is_open = |place: &&Place| had.contains(*place) || !self.closed.shuts(place, had);
                let places = wanted.places.iter().filter(is_open).cloned().collect();
                self.accounts.insert(*id, Account { applied: Wanted { places, ..wanted.clone() }, ends });
                self.unserved.remove(id);
                batch.keep.push(self.person_record(*id));
                batch.people.push((EntraKey { tenant: self.source.tenant, object: *id }, wanted.clone()));
            }
            batches.push(batch);
        }
        batches
    }

    /// How many people and groups are known, how many accounts the sync keeps that can sign in, and how many people are held.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            people: self.known.people.values().filter(|person| person.gone.is_none()).count(),
            groups: self.known.groups.values().filter(|group| !group.is_gone).count(),
            accounts: self.accounts.values().filter(|account| account.applied.active).count(),
            held: self.held.len(),
            held_new: self.held.new.len(),
        }
    }

    /// When what is known of `what` was true; `None` before the first round.
    pub fn as_of(&self, what: What) -> Option<UnixMillis> {
        self.link(what).as_ref().map(|link| link.at)
    }

    /// Everybody whom `text` may mean: an object id, or a user principal name, mail nickname or address in any case.
    pub fn find(&self, text: &str) -> Vec<PersonView> {
        let is = |field: &Option<String>| field.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(text));
        let groups = self.groups_of_people();
        let people = self.known.people.iter().filter(|(id, p)| {
            text.parse() == Ok(**id) || is(&p.user_principal_name) || is(&p.mail_nickname) || is(&p.mail)
        });
        people.map(|(id, person)| self.view(*id, person, groups.get(id))).collect()
    }

    /// Keys of the members of a followed group, by the group's id or name; `None` for no such group.
    pub fn members_of(&self, group: &str) -> Option<Vec<EntraKey>> {
        let named = |id: &&Guid| {
            let name = self.known.groups.get(*id).and_then(|known| known.name.as_deref());
            group.parse() == Ok(**id) || name.is_some_and(|name| name.eq_ignore_ascii_case(group))
        };
        let id = self.rules.groups.keys().find(named)?;
        let mut found = BTreeSet::new();
        self.members(*id, &mut BTreeSet::new(), &mut found);
        Some(found.into_iter().map(|object| EntraKey { tenant: self.source.tenant, object }).collect())
    }

    fn view(&self, id: Guid, person: &Person, groups: Option<&BTreeSet<Guid>>) -> PersonView {
        let name = |id: &Guid| {
            self.known.groups.get(id).and_then(|group| group.name.clone()).unwrap_or_else(|| id.to_string())
        };
        let account = self.accounts.get(&id).map(|account| account.applied.active);
        PersonView {
            key: EntraKey { tenant: self.source.tenant, object: id }.to_string(),
            user_principal_name: person.user_principal_name.clone().unwrap_or_default(),
            display_name: person.display_name.clone().unwrap_or_default(),
            enabled: person.enabled == Some(true),
            groups: groups.into_iter().flatten().map(name).collect(),
            places: places_of(&self.rules, groups).into_iter().collect(),
            account,
            why_not: why_not(&self.rules, person, groups, account),
        }
    }
}

/// What the rounds before a [`Book::settle`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Both lists are as of now.
    All,
    /// The groups were not read to their end: nobody ends for being in none.
    PeopleAlone,
}

/// How much is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// People in the directory.
    pub people: usize,
    /// Groups that are followed, or lie in such.
    pub groups: usize,
    /// Accounts that the sync keeps and that can sign in.
    pub accounts: usize,
    /// People who would lose something and are held until an operator decides.
    pub held: usize,
    /// People who would get accounts and wait for an operator.
    #[serde(default)]
    pub held_new: usize,
}

/// What shall happen, before anything of it did.
struct Decided {
    plan: Plan,
    work: Work,
    people: Vec<(Guid, Wanted)>,
    held: Held,
    full: BTreeSet<Place>,
}

#[derive(Default)]
struct Work {
    /// Whose end comes, or comes no longer.
    ends: BTreeMap<Guid, Option<Ends>>,
    wanted: Vec<(Guid, Wanted)>,
    ending: Vec<(Guid, Why)>,
    /// Who loses a place.
    leaving: BTreeSet<Guid>,
    /// Of whom too little is known at present: who is held stays so.
    undecided: BTreeSet<Guid>,
}

impl Work {
    fn stays(&mut self, id: Guid, wanted: Wanted, account: Option<&Account>) {
        if let Some(account) = account {
            if account.ends.is_some() {
                self.ends.insert(id, None);
            }
            if account.applied.active && !account.applied.places.is_subset(&wanted.places) {
                self.leaving.insert(id);
            }
        }
        self.wanted.push((id, wanted));
    }
}

/// `account`: can the person sign in here?
fn why_not(rules: &Rules, person: &Person, groups: Option<&BTreeSet<Guid>>, account: Option<bool>) -> Option<Why> {
    // Who is deleted after that is blocked all the same, and has no grace.
    if person.enabled == Some(false) {
        return Some(Why::Disabled);
    }
    if let Some(gone) = person.gone {
        return Some(Why::Gone(gone));
    }
    if person.enabled.is_none() && account != Some(true) {
        return Some(Why::Untold);
    }
    if !rules.guests && person.kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("guest")) {
        return Some(Why::Guest);
    }
    match rules.people {
        People::All => None,
        People::OfGroups => groups.is_none_or(BTreeSet::is_empty).then_some(Why::InNoGroup),
    }
}

fn places_of(rules: &Rules, groups: Option<&BTreeSet<Guid>>) -> BTreeSet<Place> {
    let of = |id: &Guid| rules.groups.get(id).into_iter().flat_map(|rule| rule.places.iter().cloned());
    groups.into_iter().flatten().flat_map(of).collect()
}

fn profile(person: &Person, places: BTreeSet<Place>) -> Wanted {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let is_nameless = person.given_name.is_none() && person.surname.is_none();
    Wanted {
        alias: person.mail_nickname.clone().unwrap_or_else(|| text(&person.user_principal_name)),
        email: person.mail.clone().unwrap_or_else(|| text(&person.user_principal_name)),
        first_name: if is_nameless { text(&person.display_name) } else { text(&person.given_name) },
        last_name: text(&person.surname),
        position: text(&person.job_title),
        locale: text(&person.language).chars().take_while(char::is_ascii_alphanumeric).collect(),
        active: true,
        places,
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists are plain JSON")
}
