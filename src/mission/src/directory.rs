//! People whom a directory (Entra ID) knows: accounts, their state, and memberships by group.
//!
//! ```text
//!  DirectoryPerson (what shall be) --compare--> account, ledger of what the sync did --one transaction--> rows + outbox rows
//! ```
//!
//! Invariants
//! - An account is found by its key and by nothing else: a name or an address never gives anybody an account.
//! - The sync undoes only what it did: who was deactivated by hand stays so, who joined by hand stays a member.
//! - What the sync keeps for its next round commits together with what it changed.
//! - A membership ends when its place is no longer the person's, never because the place is archived or called otherwise.
//! - Asking again for the same changes nothing.
//!
//! Not here: what the directory says (room `microsoft`), passwords of these people (`enrolment`).

use std::collections::{BTreeMap, BTreeSet};

use model::{EntraKey, Guid, Id};
use rusqlite::{Connection, Row, params};
use unicode_normalization::UnicodeNormalization as _;

use crate::channels::{join_among_many, leave, member};
use crate::core::{Core, StoreError, Tx};
use crate::error::{AppError, AppResult};
use crate::events::Broadcast;
use crate::rows::{UserRow, all, channel, exists, get, id, opt_id, run, team_row, user_row};
use crate::teams::{enter_team, exit_team, member_of_team, team_is_full};
use crate::users::{
    EMAIL_MAX_BYTES, NAME_MAX_RUNES, POSITION_MAX_RUNES, check_username, new_row, plausible_email, user_row_by_entra,
};

/// Where a group of the directory leads, by names as in URLs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectoryPlace {
    /// A team, with its standard channels.
    Team(String),
    /// A channel; its team comes first.
    Channel {
        /// The team.
        team: String,
        /// The channel.
        channel: String,
    },
}

impl DirectoryPlace {
    /// The team that it is or lies in.
    fn team(&self) -> Self {
        Self::Team(self.names().0.to_owned())
    }

    /// Names of the team and of the channel.
    fn names(&self) -> (&str, Option<&str>) {
        match self {
            Self::Team(team) => (team, None),
            Self::Channel { team, channel } => (team, Some(channel)),
        }
    }
}

/// What shall be of one person. Longer texts are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPerson {
    /// Who.
    pub key: EntraKey,
    /// What the username is made from: the mail nickname, or the user principal name.
    pub alias: String,
    /// Mail address; "" for none.
    pub email: String,
    /// Given name.
    pub first_name: String,
    /// Surname.
    pub last_name: String,
    /// What the person does.
    pub position: String,
    /// Language of a new account, such as "de"; people choose their own afterwards.
    pub locale: String,
    /// May the person sign in? Nobody gets an account who may not.
    pub active: bool,
    /// Where the person belongs by their groups.
    pub places: BTreeSet<DirectoryPlace>,
}

/// What is carried out in one transaction.
#[derive(Clone, Debug, Default)]
pub struct DirectoryBatch {
    /// People, in this order.
    pub people: Vec<DirectoryPerson>,
    /// What the sync keeps, by name; `None` forgets it.
    pub keep: Vec<(String, Option<Vec<u8>>)>,
}

/// What a batch changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryDone {
    /// New accounts.
    pub created: u64,
    /// Accounts with another name or profile.
    pub changed: u64,
    /// Accounts that cannot sign in any longer.
    pub disabled: u64,
    /// Accounts that the sync had disabled and that can sign in again.
    pub restored: u64,
    /// Memberships that began.
    pub joined: u64,
    /// Memberships that ended.
    pub left: u64,
    /// Where people were not brought who belong there, because the place is not here or full, or they left its team by hand.
    pub unserved: BTreeMap<EntraKey, BTreeSet<DirectoryPlace>>,
    /// Places that take nobody more.
    pub full: BTreeSet<DirectoryPlace>,
}

/// Places where nobody can be brought at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryClosed {
    /// They are not here, or archived.
    pub absent: BTreeSet<DirectoryPlace>,
    /// Teams that take nobody more.
    pub full: BTreeSet<DirectoryPlace>,
}

impl Core {
    /// Makes accounts and memberships as the directory has them.
    ///
    /// # Errors
    /// When the store fails; nothing of the batch was changed then.
    pub fn apply_directory(&self, batch: &DirectoryBatch) -> AppResult<DirectoryDone> {
        self.write(|tx| {
            let mut round = Round { done: DirectoryDone::default(), found: BTreeMap::new() };
            for person in &batch.people {
                round.person(tx, person)?;
            }
            for (key, value) in &batch.keep {
                match value {
                    Some(value) => run(
                        &tx.db,
                        "INSERT INTO directory_keep (key, value) VALUES (?1, ?2)
                         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        params![key, value],
                    )?,
                    None => run(&tx.db, "DELETE FROM directory_keep WHERE key = ?1", [key])?,
                };
            }
            Ok(round.done)
        })
    }

    /// Which of these places take nobody at present.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn directory_closed(&self, places: &BTreeSet<DirectoryPlace>) -> AppResult<DirectoryClosed> {
        self.read(|db| {
            let mut closed = DirectoryClosed::default();
            for place in places {
                match ground(db, place)? {
                    None => _ = closed.absent.insert(place.clone()),
                    Some(Ground { team, channel: None }) if team_is_full(db, self.settings(), team)? => {
                        closed.full.insert(place.clone());
                    }
                    Some(_) => {}
                }
            }
            Ok(closed)
        })
    }

    /// The accounts of a tenant that the sync looked after, as it left them. Who was deactivated by hand counts as active: the sync
    /// has not ended that account.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn directory_accounts(&self, tenant: Guid) -> Result<Vec<DirectoryPerson>, StoreError> {
        self.read(|db| {
            let found = all(db, LEDGER, [format!("entra:{tenant}:%")], |r| {
                let (row, alias, disabled): (_, String, bool) = (user_row(r)?, r.get("alias")?, r.get("disabled")?);
                Ok((row, alias, disabled))
            })?;
            let mut people = BTreeMap::new();
            for (row, alias, disabled) in found {
                let Some(key) = row.entra else { continue };
                let names = |r: &Row<'_>| Ok((r.get("team")?, r.get("channel")?));
                let places = all(db, LEDGER_PLACES, [row.user.id.as_str()], names)?;
                people.entry(key).or_insert_with(|| DirectoryPerson {
                    key,
                    alias,
                    email: row.user.email,
                    first_name: row.user.first_name,
                    last_name: row.user.last_name,
                    position: row.user.position,
                    locale: row.user.locale,
                    active: !disabled,
                    places: places.into_iter().filter_map(|(team, channel)| place(team, channel)).collect(),
                });
            }
            Ok(people.into_values().collect())
        })
    }

    /// Everything that the directory sync keeps, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn directory_kept(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|db| {
            let sql = "SELECT key, value FROM directory_keep ORDER BY key";
            Ok(all(db, sql, [], |r| Ok((r.get(0)?, r.get(1)?)))?)
        })
    }
}

/// Everybody of one tenant whose account the sync looked after, in the order in which [`Core::user_by_entra`] chooses.
const LEDGER: &str = "
    SELECT u.*, p.alias, p.disabled FROM directory_people p JOIN users u ON u.id = p.user_id
    WHERE u.entra LIKE ?1 ORDER BY u.delete_at > 0, u.create_at, u.id";

/// Where the sync made somebody a member, or found them to be one; by present names where it was not noted for what.
const LEDGER_PLACES: &str = "
    SELECT iif(m.team <> '', m.team, t.name) AS team, iif(m.team <> '', m.channel, coalesce(c.name, '')) AS channel
    FROM directory_members m JOIN teams t ON t.id = m.team_id LEFT JOIN channels c ON c.id = m.channel_id
    WHERE m.user_id = ?1";

/// A place as it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ground {
    team: Id,
    channel: Option<Id>,
}

/// What the sync noted of a place that somebody was to be in.
struct Known {
    /// Was the membership begun by the sync?
    added: bool,
    /// For what place; `None` where that was not noted.
    made_for: Option<DirectoryPlace>,
}

fn known(r: &Row<'_>) -> rusqlite::Result<Known> {
    Ok(Known { added: r.get("added")?, made_for: place(r.get("team")?, r.get("channel")?) })
}

/// `None` where nothing was noted.
fn place(team: String, channel: String) -> Option<DirectoryPlace> {
    match (team.is_empty(), channel.is_empty()) {
        (true, _) => None,
        (false, true) => Some(DirectoryPlace::Team(team)),
        (false, false) => Some(DirectoryPlace::Channel { team, channel }),
    }
}

fn note_place(tx: &Tx<'_>, user: Id, ground: Ground, place: &DirectoryPlace) -> rusqlite::Result<()> {
    let (team, channel) = place.names();
    let sql =
        "UPDATE directory_members SET team = ?4, channel = ?5 WHERE user_id = ?1 AND team_id = ?2 AND channel_id = ?3";
    let params = params![user.as_str(), ground.team.as_str(), channel_text(ground), team, channel.unwrap_or_default()];
    run(&tx.db, sql, params)?;
    Ok(())
}

struct Round {
    done: DirectoryDone,
    /// Places that were looked up; `None` for those that are not here.
    found: BTreeMap<DirectoryPlace, Option<Ground>>,
}

impl Round {
    fn person(&mut self, tx: &mut Tx<'_>, person: &DirectoryPerson) -> AppResult<()> {
        let Some(user) = self.account(tx, person)? else { return Ok(()) };
        // Where the person shall be, and by which names it was found.
        let (mut wanted, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for place in &person.places {
            match self.ground(&tx.db, place)? {
                Some(ground) => {
                    wanted.insert(Ground { channel: None, ..ground }, place.team());
                    wanted.insert(ground, place.clone());
                }
                None => {
                    missing.insert(place.clone());
                }
            }
        }
        let known: BTreeMap<Ground, Known> = all(
            &tx.db,
            "SELECT team_id, channel_id, added, team, channel FROM directory_members WHERE user_id = ?1",
            [user.as_str()],
            |r| Ok((Ground { team: id(r, "team_id")?, channel: opt_id(r, "channel_id")? }, known(r)?)),
        )?
        .into_iter()
        .collect();
        // Channels before their team, which would take them along.
        for (ground, known) in known.iter().rev() {
            match (wanted.get(ground), &known.made_for) {
                (Some(place), made_for) if made_for.as_ref() != Some(place) => note_place(tx, user, *ground, place)?,
                (Some(_), _) => {}
                // Archived, or called otherwise: that takes nobody out, only to be in its group no longer does.
                (None, Some(place)) if person.places.iter().any(|p| p == place || p.team() == *place) => {}
                // Made before places were noted: it may be one of those that are not found.
                (None, None) if !missing.is_empty() => {}
                (None, _) => {
                    if known.added {
                        self.end(tx, user, *ground)?;
                    }
                    let sql = "DELETE FROM directory_members WHERE user_id = ?1 AND team_id = ?2 AND channel_id = ?3";
                    run(&tx.db, sql, params![user.as_str(), ground.team.as_str(), channel_text(*ground)])?;
                }
            }
        }
        // Who is where it was before is where they belong.
        missing.retain(|place| !known.values().any(|known| known.made_for.as_ref() == Some(place)));
        let mut unserved = missing;
        for (ground, place) in wanted.into_iter().filter(|(ground, _)| !known.contains_key(ground)) {
            if !self.begin(tx, user, ground, &place)? {
                unserved.insert(place);
            }
        }
        if !unserved.is_empty() {
            self.done.unserved.insert(person.key, unserved);
        }
        Ok(())
    }

    /// The person's account as it shall be; `None` for who has none and gets none.
    fn account(&mut self, tx: &mut Tx<'_>, person: &DirectoryPerson) -> AppResult<Option<Id>> {
        let alias: String = person.alias.chars().take(ALIAS_MAX_RUNES).collect();
        let Some(row) = user_row_by_entra(&tx.db, person.key)? else {
            if !person.active {
                return Ok(None);
            }
            let mut row = new_row(tx.mint(), tx.now, username(&tx.db, &alias, person.key, None)?);
            row.entra = Some(person.key);
            fill(&tx.db, &mut row, person)?;
            if locale_fits(&person.locale) {
                row.user.locale.clone_from(&person.locale);
            }
            tx.save_user(&mut row, None)?;
            note(tx, row.user.id, &alias, false)?;
            tx.tell(Broadcast::to_all("new_user").with("user_id", row.user.id.as_str()));
            self.done.created += 1;
            return Ok(Some(row.user.id));
        };
        let id = row.user.id;
        let sql = "SELECT alias, disabled FROM directory_people WHERE user_id = ?1";
        let known: Option<(String, bool)> = get(&tx.db, sql, [id.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let (known_alias, by_sync) = known.unwrap_or_default();
        let is_active = row.user.delete_at == 0;
        match (person.active, is_active) {
            (false, true) => {
                tx.set_active(id, false)?;
                tx.disable_bots_of(id)?;
                tx.tell(Broadcast::to_all("user_activation_status_change"));
                note(tx, id, &known_alias, true)?;
                self.done.disabled += 1;
            }
            // What somebody is called who may not sign in matters to nobody.
            (false, false) => {}
            (true, false) if !by_sync => {}
            (true, was_active) => {
                if !was_active {
                    tx.set_active(id, true)?;
                    tx.tell(Broadcast::to_all("user_activation_status_change"));
                    self.done.restored += 1;
                }
                if self.profile(tx, id, person, (alias != known_alias).then_some(alias.as_str()))? {
                    self.done.changed += 1;
                }
                note(tx, id, &alias, false)?;
            }
        }
        Ok(Some(id))
    }

    /// Brings the profile up to date; the username too where the directory has another `alias`. `false` where nothing changed.
    fn profile(&mut self, tx: &mut Tx<'_>, id: Id, person: &DirectoryPerson, alias: Option<&str>) -> AppResult<bool> {
        let mut row = crate::users::require_user(&tx.db, id)?;
        let before = row.clone();
        if let Some(alias) = alias {
            let name = username(&tx.db, alias, person.key, Some(id))?;
            row.wanted_username.clone_from(&name);
            row.user.username = name;
        }
        fill(&tx.db, &mut row, person)?;
        if row.user == before.user {
            return Ok(false);
        }
        row.user.update_at = tx.now.max(row.user.update_at + 1);
        tx.save_user(&mut row, Some(before.version))?;
        tx.tell_user_updated(&row.user);
        Ok(true)
    }

    fn ground(&mut self, db: &Connection, place: &DirectoryPlace) -> AppResult<Option<Ground>> {
        if let Some(found) = self.found.get(place) {
            return Ok(*found);
        }
        let found = ground(db, place)?;
        self.found.insert(place.clone(), found);
        Ok(found)
    }

    /// `false` where nobody can be brought now.
    fn begin(&mut self, tx: &mut Tx<'_>, user: Id, ground: Ground, place: &DirectoryPlace) -> AppResult<bool> {
        let is_member = match ground.channel {
            None => member_of_team(&tx.db, ground.team, user)?.is_some(),
            Some(channel) => member(&tx.db, channel, user)?.is_some(),
        };
        if !is_member {
            match ground.channel {
                None if team_is_full(&tx.db, &tx.core.settings, ground.team)? => {
                    self.done.full.insert(place.clone());
                    return Ok(false);
                }
                None => _ = enter_team(tx, ground.team, user, false, join_among_many)?,
                Some(_) if member_of_team(&tx.db, ground.team, user)?.is_none() => return Ok(false),
                Some(channel_id) => {
                    let Some(c) = get(&tx.db, "SELECT * FROM channels WHERE id = ?1", [channel_id.as_str()], channel)?
                    else {
                        return Ok(false);
                    };
                    join_among_many(tx, &c, user, false)?;
                }
            }
            self.done.joined += 1;
        }
        let sql = "INSERT INTO directory_members (user_id, team_id, channel_id, added) VALUES (?1, ?2, ?3, ?4)";
        run(&tx.db, sql, params![user.as_str(), ground.team.as_str(), channel_text(ground), !is_member])?;
        note_place(tx, user, ground, place)?;
        Ok(true)
    }

    fn end(&mut self, tx: &mut Tx<'_>, user: Id, ground: Ground) -> AppResult<()> {
        match ground.channel {
            None if member_of_team(&tx.db, ground.team, user)?.is_some() => {
                exit_team(tx, ground.team, user, user, |_, _| Ok(()))?;
            }
            Some(channel_id) if member(&tx.db, channel_id, user)?.is_some() => {
                let Some(c) = get(&tx.db, "SELECT * FROM channels WHERE id = ?1", [channel_id.as_str()], channel)?
                else {
                    return Ok(());
                };
                leave(tx, &c, user, user)?;
            }
            // Left by hand before.
            None | Some(_) => return Ok(()),
        }
        self.done.left += 1;
        Ok(())
    }
}

fn ground(db: &Connection, place: &DirectoryPlace) -> AppResult<Option<Ground>> {
    let (team, name) = place.names();
    let Some(team) = get(db, "SELECT * FROM teams WHERE name = ?1 AND delete_at = 0", [team], team_row)? else {
        return Ok(None);
    };
    let team = team.team.id;
    let Some(name) = name else { return Ok(Some(Ground { team, channel: None })) };
    let sql = "SELECT * FROM channels WHERE team_id = ?1 AND name = ?2 AND delete_at = 0";
    Ok(get(db, sql, params![team.as_str(), name], channel)?.map(|c| Ground { team, channel: Some(c.id) }))
}

fn channel_text(ground: Ground) -> String {
    ground.channel.map(|id| id.to_string()).unwrap_or_default()
}

fn note(tx: &Tx<'_>, user: Id, alias: &str, disabled: bool) -> rusqlite::Result<()> {
    run(
        &tx.db,
        "INSERT INTO directory_people (user_id, alias, disabled) VALUES (?1, ?2, ?3)
         ON CONFLICT (user_id) DO UPDATE SET alias = excluded.alias, disabled = excluded.disabled",
        params![user.as_str(), alias, disabled],
    )?;
    Ok(())
}

/// Longest alias that is looked at: a user principal name has 113 characters at most.
const ALIAS_MAX_RUNES: usize = 128;

/// Room for a hyphen and the 32 digits of an object id behind the name itself.
const BASE_MAX: usize = NAME_MAX_RUNES - 33;

fn fill(db: &Connection, row: &mut UserRow, person: &DirectoryPerson) -> AppResult<()> {
    let cut = |text: &str, runes: usize| text.chars().filter(|c| !c.is_control()).take(runes).collect::<String>();
    let u = &mut row.user;
    u.first_name = cut(person.first_name.trim(), NAME_MAX_RUNES);
    u.last_name = cut(person.last_name.trim(), NAME_MAX_RUNES);
    u.position = cut(person.position.trim(), POSITION_MAX_RUNES);
    let email = person.email.trim().to_lowercase();
    let taken = "SELECT 1 FROM users WHERE email = ?1 AND id <> ?2";
    // People sign in by their address, too: it must say who they are.
    let is_good = email.len() <= EMAIL_MAX_BYTES
        && plausible_email(&email)
        && !exists(db, taken, [email.as_str(), u.id.as_str()])?;
    u.email = if is_good { email } else { format!("{}@localhost", u.username) };
    Ok(())
}

fn locale_fits(locale: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (2..=5).contains(&locale.len()) && locale.chars().all(is_plain)
}

/// A name that is valid here and that nobody else has: the alias up to its `@`, and as much of the object id as makes it unique.
fn username(db: &Connection, alias: &str, key: EntraKey, own: Option<Id>) -> AppResult<String> {
    let base = base_of(alias);
    let object: String = key.object.to_string().chars().filter(|c| *c != '-').collect();
    let own = own.map(|id| id.to_string()).unwrap_or_default();
    for digits in [0, 4, 8, 32] {
        let name = match (digits, base.is_empty()) {
            (0, _) => base.clone(),
            (_, true) => format!("user-{}", &object[..digits]),
            (_, false) => format!("{base}-{}", &object[..digits]),
        };
        let sql = "SELECT 1 FROM users WHERE username = ?1 AND id <> ?2";
        if check_username(&name).is_ok() && !exists(db, sql, [name.as_str(), own.as_str()])? {
            return Ok(name);
        }
    }
    Err(AppError::storage("username", format!("another account is called like {key}")))
}

/// `Zoë.Müller_ext#EXT#@tenant.example` becomes `zoe.muller_ext-ext`.
fn base_of(alias: &str) -> String {
    let mut base = String::new();
    let local = alias.split('@').next().unwrap_or_default();
    for c in local.nfkd().filter(|c| !unicode_normalization::char::is_combining_mark(*c)) {
        let c = c.to_ascii_lowercase();
        match c {
            'a'..='z' | '0'..='9' | '.' | '_' => base.push(c),
            _ if base.ends_with('-') => {}
            _ => base.push('-'),
        }
    }
    let base: String = base.trim_matches(['-', '.', '_']).chars().take(BASE_MAX).collect();
    base.trim_end_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::CoreSettings;
    use crate::error::AppResult;
    use crate::testkit::{Node, PASSWORD};
    use crate::types::{ChannelPatch, ClientInfo, Login, NewChannel, Session, User, UserPatch};
    use model::Guid;

    const TENANT: Guid = Guid([7; 16]);

    fn person(n: u8, alias: &str) -> DirectoryPerson {
        DirectoryPerson {
            key: EntraKey { tenant: TENANT, object: Guid([n; 16]) },
            alias: alias.to_owned(),
            email: format!("{alias}@unit.example"),
            first_name: "Ann".to_owned(),
            last_name: "Other".to_owned(),
            position: "driver".to_owned(),
            locale: "de".to_owned(),
            active: true,
            places: BTreeSet::new(),
        }
    }

    fn team(name: &str) -> DirectoryPlace {
        DirectoryPlace::Team(name.to_owned())
    }

    fn in_channel(team: &str, channel: &str) -> DirectoryPlace {
        DirectoryPlace::Channel { team: team.to_owned(), channel: channel.to_owned() }
    }

    fn apply(node: &Node, people: &[DirectoryPerson]) -> DirectoryDone {
        node.core.apply_directory(&DirectoryBatch { people: people.to_vec(), keep: Vec::new() }).unwrap()
    }

    fn account(node: &Node, person: &DirectoryPerson) -> User {
        node.core.user_by_entra(&person.key.tenant.to_string(), &person.key.object.to_string()).unwrap()
    }

    fn login(node: &Node, name: &str, password: &str) -> AppResult<Session> {
        let login = Login { login_id: name.to_owned(), password: password.to_owned(), ..Login::default() };
        node.core.login(&login, &ClientInfo::default()).map(|(_, session)| session)
    }

    fn enrolled(node: &Node, person: &DirectoryPerson) -> Session {
        let link = node.core.operator_enrols(account(node, person).id, 60_000).unwrap();
        let user = node.core.enrol(&link.token, PASSWORD, "").unwrap();
        login(node, &user.username, PASSWORD).unwrap()
    }

    #[test]
    fn names_become_usernames_that_are_valid_and_nobody_elses() {
        let node = Node::new(1);
        node.user("ann");
        let long = "x".repeat(300);
        let aliases = ["ann", "Ann@unit.example", "Zoë.Müller_ext#EXT#@t.example", "", "山田", "all", &long, "..-"];
        let people: Vec<_> = aliases.iter().zip(1..).map(|(alias, n)| person(n, alias)).collect();
        assert_eq!(apply(&node, &people).created, 8);
        let names: Vec<String> = people.iter().map(|p| account(&node, p).username).collect();
        let expected = [
            "ann-0101",
            "ann-0202",
            "zoe.muller_ext-ext",
            "user-0404",
            "user-0505",
            "all-0606",
            &long[..31],
            "user-0808",
        ];
        assert_eq!(names, expected);
        let renamed = DirectoryPerson { alias: "Zoe.Meier".to_owned(), ..people[2].clone() };
        assert_eq!(apply(&node, std::slice::from_ref(&renamed)).changed, 1);
        assert_eq!(account(&node, &renamed).username, "zoe.meier");
        assert_eq!(apply(&node, &[renamed]), DirectoryDone::default(), "asking again changes nothing");
    }

    #[test]
    fn an_address_or_a_name_gives_nobody_an_account() {
        let node = Node::new(1);
        let ann = node.user("ann");
        let mut other = person(1, "ann");
        other.email = node.core.user(ann.user_id).unwrap().email;
        apply(&node, std::slice::from_ref(&other));
        let theirs = account(&node, &other);
        assert_ne!(theirs.id, ann.user_id);
        assert_eq!(theirs.email, "ann-0101@localhost", "who signs in by the address stays who they were");
        assert!(node.core.user(ann.user_id).unwrap().auth_data.is_none());
    }

    #[test]
    fn whoever_is_disabled_is_out_at_once_and_what_was_done_by_hand_stays() {
        let node = Node::new(1);
        let admin = node.user("admin");
        let (mut ann, ben) = (person(1, "anna"), person(2, "ben"));
        apply(&node, &[ann.clone(), ben.clone()]);
        let session = enrolled(&node, &ann);
        let user = account(&node, &ann);
        assert_eq!(
            (user.auth_service.as_str(), user.locale.as_str()),
            ("", "de"),
            "who has a password here can change it"
        );
        node.drain();
        ann.active = false;
        assert_eq!(apply(&node, std::slice::from_ref(&ann)).disabled, 1);
        assert_eq!(node.core.session(&session.token).unwrap_err().status_code, 401);
        assert_eq!(login(&node, "anna", PASSWORD).unwrap_err().id, "api.user.login.inactive.app_error");
        assert_eq!(node.core.operator_enrols(user.id, 60_000).unwrap_err().status_code, 400);
        assert_eq!(apply(&node, std::slice::from_ref(&ann)), DirectoryDone::default());
        ann.active = true;
        assert_eq!(apply(&node, std::slice::from_ref(&ann)).restored, 1);
        login(&node, "anna", PASSWORD).unwrap();
        // By hand, which is somebody's decision.
        node.core.set_user_active(&admin, account(&node, &ben).id, false).unwrap();
        assert_eq!(apply(&node, std::slice::from_ref(&ben)).restored, 0);
        // Who may not sign in gets no account in the first place.
        let nobody = DirectoryPerson { active: false, ..person(3, "nobody") };
        assert_eq!(apply(&node, &[nobody]), DirectoryDone::default());
    }

    #[test]
    fn memberships_follow_the_groups_and_only_those_that_the_sync_made_end() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (mission, square) = node.team(&alice, "mission");
        let (ann, ben) = (person(1, "anna"), person(2, "ben"));
        apply(&node, &[ann.clone(), ben.clone()]);
        // Ben is there already.
        node.core.add_team_member(&alice, mission.id, account(&node, &ben).id).unwrap();
        let here = |p: &DirectoryPerson| DirectoryPerson {
            places: [team("mission"), in_channel("mission", "off-topic"), in_channel("mission", "nowhere")].into(),
            ..p.clone()
        };
        let posts_before = node.core.stats().unwrap().posts;
        let done = apply(&node, &[here(&ann), here(&ben)]);
        assert_eq!((done.joined, done.left), (1, 0), "off-topic comes with the team");
        let nowhere: BTreeSet<_> = [in_channel("mission", "nowhere")].into();
        assert_eq!(done.unserved, [(ann.key, nowhere.clone()), (ben.key, nowhere)].into());
        assert_eq!(node.core.stats().unwrap().posts, posts_before, "nobody reads thousands of words about joining");
        let ids = |p| account(&node, p).id;
        let members = || node.core.channel_member_ids(square.id).unwrap();
        assert!(members().contains(&ids(&ann)) && members().contains(&ids(&ben)));
        assert_eq!(
            apply(&node, &[here(&ann), here(&ben)]),
            DirectoryDone { unserved: done.unserved, ..Default::default() }
        );
        let done = apply(&node, &[ann.clone(), ben.clone()]);
        assert_eq!((done.joined, done.left), (0, 1));
        assert!(!members().contains(&ids(&ann)), "the sync had added her");
        assert!(members().contains(&ids(&ben)), "somebody else had added him");
        // Who left by hand is not fetched back.
        apply(&node, &[here(&ann)]);
        let session = enrolled(&node, &ann);
        node.core.remove_team_member(&session, mission.id, session.user_id).unwrap();
        assert_eq!(apply(&node, &[here(&ann)]).joined, 0);
    }

    /// Somebody renamed a channel, or archived a team for a day, and the next change of job title took people out of it, and out of
    /// the private channels that they had been invited to besides. Nobody came back when it was undone.
    #[test]
    fn a_place_that_is_archived_or_called_otherwise_loses_nobody() {
        let node = Node::new(1);
        let alice = node.user("alice");
        let (mission, _) = node.team(&alice, "mission");
        let private = |name: &str| {
            let new = NewChannel {
                team_id: mission.id.to_string(),
                name: name.to_owned(),
                display_name: name.to_owned(),
                kind: "P".to_owned(),
                ..NewChannel::default()
            };
            node.core.create_channel(&alice, &new).unwrap().id
        };
        let (ops, own) = (private("ops"), private("own"));
        let mut ann = person(1, "anna");
        ann.places = [team("mission"), in_channel("mission", "ops")].into();
        assert_eq!(apply(&node, std::slice::from_ref(&ann)).joined, 2);
        let id = account(&node, &ann).id;
        node.core.add_channel_member(&alice, own, id).unwrap();
        let is_in = |channel| node.core.channel_member_ids(channel).unwrap().contains(&id);
        let renamed = |channel, name: &str| {
            let patch = ChannelPatch { name: Some(name.to_owned()), ..ChannelPatch::default() };
            node.core.patch_channel(&alice, channel, &patch).unwrap();
        };
        let mut promoted = |title: &str| {
            ann.position = title.to_owned();
            let done = apply(&node, std::slice::from_ref(&ann));
            assert_eq!((done.changed, done.left), (1, 0), "{title}");
            assert!(is_in(ops) && is_in(own), "{title}");
            done.unserved.into_values().next().unwrap_or_default()
        };
        renamed(ops, "elsewhere");
        assert!(promoted("sergeant").is_empty(), "she is there");
        let other = private("ops");
        assert!(promoted("lieutenant").is_empty());
        assert!(is_in(other), "the name leads to another one now");
        node.core.archive_channel(&alice, ops).unwrap();
        promoted("captain");
        node.core.archive_team(&alice, mission.id).unwrap();
        assert!(promoted("major").is_empty());
        node.core.restore_team(&alice, mission.id).unwrap();
        // Of an older version, which did not note for what it was.
        node.core.write(|tx| run(&tx.db, "UPDATE directory_members SET team = '', channel = ''", [])).unwrap();
        renamed(other, "third");
        promoted("colonel");
        assert!(is_in(other));
        // To be in the group no longer ends all of it.
        ann.places.clear();
        apply(&node, std::slice::from_ref(&ann));
        assert!(!is_in(ops) && !is_in(other));
    }

    /// Who met a full team was told as brought there, so that nobody tried again when there was room.
    #[test]
    fn who_finds_a_team_full_is_told_and_comes_when_there_is_room() {
        let node = Node::with(1, CoreSettings { max_team_members: 2, ..CoreSettings::default() });
        let alice = node.user("alice");
        let (mission, _) = node.team(&alice, "mission");
        let there: BTreeSet<_> = [team("mission"), in_channel("mission", "off-topic")].into();
        let at = |n, name| DirectoryPerson { places: there.clone(), ..person(n, name) };
        let (ann, ben) = (at(1, "anna"), at(2, "ben"));
        assert!(node.core.directory_closed(&there).unwrap().full.is_empty());
        let done = apply(&node, &[ann.clone(), ben.clone()]);
        assert_eq!((done.created, done.joined), (2, 1));
        assert_eq!(done.unserved, [(ben.key, there.clone())].into(), "nor is he in a channel of it");
        assert_eq!(done.full, [team("mission")].into());
        let closed = node.core.directory_closed(&[team("mission"), team("other")].into()).unwrap();
        assert_eq!(closed, DirectoryClosed { absent: [team("other")].into(), full: [team("mission")].into() });
        assert!(node.core.directory_accounts(TENANT).unwrap()[1].places.is_empty());
        node.core.remove_team_member(&alice, mission.id, account(&node, &ann).id).unwrap();
        let done = apply(&node, std::slice::from_ref(&ben));
        assert_eq!((done.joined, done.unserved.len()), (1, 0));
        assert_eq!(node.core.directory_accounts(TENANT).unwrap()[1].places, there);
    }

    #[test]
    fn the_accounts_that_the_sync_made_are_told_as_it_left_them() {
        let node = Node::new(1);
        let alice = node.user("alice");
        node.team(&alice, "mission");
        let mut people = [person(1, "anna"), person(2, "ben"), person(3, "cleo")];
        people[0].places = [team("mission"), in_channel("mission", "off-topic")].into();
        apply(&node, &people);
        people[1].active = false;
        apply(&node, &people[1..2]);
        // By hand, which is nothing that the sync did.
        node.core.set_user_active(&alice, account(&node, &people[2]).id, false).unwrap();
        assert_eq!(node.core.directory_accounts(TENANT).unwrap(), people);
        let unnoted = "UPDATE directory_members SET team = '', channel = ''";
        node.core.write(|tx| run(&tx.db, unnoted, [])).unwrap();
        assert_eq!(node.core.directory_accounts(TENANT).unwrap(), people, "of an older version: by present names");
        assert_eq!(node.core.directory_accounts(Guid([8; 16])).unwrap(), []);
        // Whoever came from another node is that node's to look after.
        node.core.write(|tx| run(&tx.db, "DELETE FROM directory_people", [])).unwrap();
        assert_eq!(node.core.directory_accounts(TENANT).unwrap(), []);
    }

    #[test]
    fn what_the_sync_keeps_commits_with_its_changes_or_not_at_all() {
        let node = Node::new(1);
        let keep = |value: &[u8]| vec![("links".to_owned(), Some(value.to_vec()))];
        node.core.apply_directory(&DirectoryBatch { people: Vec::new(), keep: keep(b"one") }).unwrap();
        let people = vec![person(1, "anna")];
        let failed = node.core.write(|tx| {
            tx.db.execute_batch(
                "CREATE TEMP TRIGGER full BEFORE UPDATE ON directory_keep BEGIN SELECT RAISE(ABORT, 'full'); END",
            )
        });
        let _: rusqlite::Result<()> = failed;
        node.core.apply_directory(&DirectoryBatch { people: people.clone(), keep: keep(b"two") }).unwrap_err();
        assert_eq!(node.core.directory_kept().unwrap(), [("links".to_owned(), b"one".to_vec())]);
        assert!(node.core.user_by_username("anna").is_err());
        let node = node.reopened();
        let forget = vec![("links".to_owned(), None)];
        assert_eq!(node.core.apply_directory(&DirectoryBatch { people, keep: forget }).unwrap().created, 1);
        assert_eq!(node.core.directory_kept().unwrap(), []);
    }

    #[test]
    fn what_the_directory_says_of_people_they_change_there() {
        let node = Node::new(1);
        let ann = person(1, "anna");
        apply(&node, std::slice::from_ref(&ann));
        let session = enrolled(&node, &ann);
        let patch = |patch: &UserPatch| node.core.patch_user(&session, session.user_id, patch);
        let position = UserPatch { position: Some("general".to_owned()), ..UserPatch::default() };
        assert_eq!(patch(&position).unwrap_err().id, "api.user.patch_user.login_provider_attribute_set.app_error");
        let own =
            UserPatch { nickname: Some("Annie".to_owned()), locale: Some("en".to_owned()), ..UserPatch::default() };
        patch(&own).unwrap();
        apply(&node, std::slice::from_ref(&ann));
        let user = account(&node, &ann);
        assert_eq!((user.nickname.as_str(), user.locale.as_str(), user.position.as_str()), ("Annie", "en", "driver"));
    }
}
