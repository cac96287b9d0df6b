//! The book against a model of Entra that sends what the delta query may send: pages of any size, empty ones, repetitions,
//! groups in pieces, members before their users, removals of both kinds, links that expire.

use std::collections::{BTreeMap, BTreeSet};

use model::{Guid, UnixMillis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::*;
use crate::graph::Page;

const TENANT: Guid = Guid([9; 16]);
const HOUR: i64 = 3_600_000;

fn source() -> Source {
    Source { tenant: TENANT, graph: "https://graph.example".to_owned() }
}

fn guid(kind: u8, n: u32) -> Guid {
    let mut bytes = [kind; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    Guid(bytes)
}

fn person(n: u32) -> Guid {
    guid(1, n)
}

fn group(n: u32) -> Guid {
    guid(2, n)
}

fn settings(groups: u32) -> DirectorySettings {
    let groups = (0..groups).map(|n| GroupSettings {
        id: group(n).to_string(),
        team: Some(format!("team-{}", n % 3)),
        channels: vec![format!("channel-{n}")],
    });
    DirectorySettings {
        enabled: true,
        gone_grace_hours: 0,
        most_at_once_percent: 100,
        groups: groups.collect(),
        ..DirectorySettings::default()
    }
}

/// What the core would hold, and what it keeps for the book.
#[derive(Default)]
struct Core {
    records: BTreeMap<String, Vec<u8>>,
    accounts: BTreeMap<Guid, Wanted>,
    /// Places where nobody is brought.
    shut: BTreeSet<Place>,
    /// How many people were handed over.
    tried: usize,
    /// Another one than usual.
    source: Option<Source>,
}

impl Core {
    /// Where people were not brought.
    fn commit(&mut self, batch: Batch) -> BTreeMap<Guid, BTreeSet<Place>> {
        for (key, value) in batch.keep {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
        let mut unserved: BTreeMap<Guid, BTreeSet<Place>> = BTreeMap::new();
        for (key, mut wanted) in batch.people {
            self.tried += 1;
            let had = self.accounts.get(&key.object).map(|had| had.places.clone()).unwrap_or_default();
            for place in self.shut.difference(&had).filter(|place| wanted.places.remove(place)) {
                unserved.entry(key.object).or_default().insert(place.clone());
            }
            self.accounts.insert(key.object, wanted);
        }
        unserved
    }

    fn book(&self, settings: &DirectorySettings) -> Book {
        let (book, bad) = self.load(settings);
        assert!(bad.is_empty(), "{bad:?}");
        book
    }

    fn load(&self, settings: &DirectorySettings) -> (Book, Vec<BadRecord>) {
        let records = self.records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let accounts = self.accounts.iter().map(|(id, wanted)| (*id, wanted.clone())).collect();
        Book::load(settings.read().unwrap(), self.source.clone().unwrap_or_else(source), Stored { records, accounts })
    }

    fn settle(&mut self, book: &mut Book, now: i64, accept: bool) -> Plan {
        self.settle_knowing(book, now, Known::All, accept)
    }

    fn settle_knowing(&mut self, book: &mut Book, now: i64, known: Known, accept: bool) -> Plan {
        let (plan, batches) = book.settle(UnixMillis(now), known, accept);
        for batch in batches {
            let unserved = self.commit(batch);
            book.note_unserved(unserved, BTreeSet::new());
        }
        plan
    }

    fn active(&self) -> BTreeSet<Guid> {
        self.accounts.iter().filter(|(_, wanted)| wanted.active).map(|(id, _)| *id).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Live,
    Soft,
    Hard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelPerson {
    life: Life,
    enabled: bool,
    nick: String,
    title: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    people: BTreeMap<Guid, ModelPerson>,
    groups: BTreeMap<Guid, BTreeSet<Guid>>,
}

struct Entra {
    rng: ChaCha8Rng,
    now: Model,
    /// What each delta link stands for.
    tokens: Vec<Model>,
}

impl Entra {
    fn pick(&mut self, n: u32) -> u32 {
        self.rng.next_u32() % n
    }

    fn live(&self) -> Vec<Guid> {
        self.now.people.iter().filter(|(_, p)| p.life == Life::Live).map(|(id, _)| *id).collect()
    }

    /// Of the people the first `grouped` come into groups.
    fn act(&mut self, people: u32, grouped: u32, groups: u32) {
        let (who, which) = (person(self.pick(people)), group(self.pick(groups)));
        let number = self.pick(1_000);
        match self.pick(10) {
            0 | 1 => {
                let fresh = ModelPerson { life: Life::Live, enabled: true, nick: format!("p{number}"), title: None };
                let known = self.now.people.entry(who).or_insert(fresh);
                if known.life == Life::Soft {
                    known.life = Life::Live;
                }
            }
            2 => self.change(who, |p| p.enabled = !p.enabled),
            3 => self.change(who, |p| p.nick = format!("p{number}")),
            4 => self.change(who, |p| p.title = number.is_multiple_of(2).then(|| format!("t{number}"))),
            5 => self.end(who, Life::Soft),
            6 => self.end(who, Life::Hard),
            7 | 8 => {
                if self.live().contains(&who) && who < person(grouped) {
                    self.now.groups.entry(which).or_default().insert(who);
                }
            }
            _ => {
                if let Some(members) = self.now.groups.get_mut(&which) {
                    members.remove(&who);
                }
            }
        }
    }

    fn change(&mut self, who: Guid, change: impl FnOnce(&mut ModelPerson)) {
        self.now.people.get_mut(&who).filter(|p| p.life == Life::Live).map(change);
    }

    fn end(&mut self, who: Guid, life: Life) {
        let Some(p) = self.now.people.get_mut(&who).filter(|p| p.life == Life::Live) else { return };
        p.life = life;
        for members in self.now.groups.values_mut() {
            members.remove(&who);
        }
    }

    /// The items that lead from `from` to now; everything without it.
    fn items(&mut self, what: What, from: Option<&Model>) -> Vec<Value> {
        let now = self.now.clone();
        let mut items = Vec::new();
        match what {
            What::People => {
                for (id, p) in &now.people {
                    let before = from.and_then(|m| m.people.get(id));
                    if before == Some(p) || (from.is_none() && p.life == Life::Hard) {
                        continue;
                    }
                    let reason = match p.life {
                        Life::Live => None,
                        Life::Soft => Some("changed"),
                        Life::Hard => Some("deleted"),
                    };
                    if let Some(reason) = reason {
                        items.push(json!({ "id": id.to_string(), "@removed": { "reason": reason } }));
                        continue;
                    }
                    // Minimal answers leave out what did not change, and say `null` for what was cleared.
                    let minimal = before.filter(|b| b.life == Life::Live);
                    let mut item = json!({ "id": id.to_string() });
                    if minimal.is_none_or(|b| b.enabled != p.enabled) {
                        item["accountEnabled"] = p.enabled.into();
                    }
                    if minimal.is_none_or(|b| b.nick != p.nick) {
                        item["mailNickname"] = p.nick.clone().into();
                        item["userPrincipalName"] = format!("{}@t.example", p.nick).into();
                    }
                    if minimal.is_none_or(|b| b.title != p.title) {
                        item["jobTitle"] = p.title.clone().into();
                    }
                    if self.pick(4) == 0 {
                        // An earlier state comes again, and the newest comes last.
                        items.push(json!({ "id": id.to_string(), "mailNickname": "old", "userPrincipalName": "old@t.example" }));
                        item["mailNickname"] = p.nick.clone().into();
                        item["userPrincipalName"] = format!("{}@t.example", p.nick).into();
                    }
                    items.push(item);
                }
            }
            What::Groups => {
                for (id, members) in &now.groups {
                    let before = from.and_then(|m| m.groups.get(id)).cloned().unwrap_or_default();
                    let came = members.difference(&before).map(|m| json!({ "id": m.to_string() }));
                    let went = before.difference(members);
                    let went = went.map(|m| json!({ "id": m.to_string(), "@removed": { "reason": "deleted" } }));
                    let mut changes: Vec<Value> = came.chain(went).collect();
                    if from.is_none() {
                        items.push(json!({ "id": id.to_string(), "displayName": "g" }));
                    }
                    while !changes.is_empty() {
                        let size = 1 + self.pick(3) as usize;
                        let part: Vec<Value> = changes.drain(..size.min(changes.len())).collect();
                        items.push(json!({ "id": id.to_string(), "members@delta": part }));
                    }
                }
                // Groups lie in any order and in pieces among each other; the pieces of one are in order.
                if !items.is_empty() {
                    let middle = self.pick(items.len() as u32) as usize;
                    items.rotate_left(middle);
                }
            }
        }
        items
    }

    /// What is answered for one person.
    fn one(&self, id: Guid) -> Option<Value> {
        let p = self.now.people.get(&id).filter(|p| p.life == Life::Live)?;
        let name = format!("{}@t.example", p.nick);
        Some(json!({
            "id": id.to_string(), "accountEnabled": p.enabled, "mailNickname": p.nick, "userPrincipalName": name, "jobTitle": p.title,
        }))
    }

    fn pages(&mut self, round: &Round) -> Vec<Page> {
        let from = match round.first() {
            First::Query(_) => None,
            First::Link(link) => Some(self.tokens[link.parse::<usize>().unwrap()].clone()),
        };
        let items = self.items(round.what(), from.as_ref());
        let mut pages = Vec::new();
        let mut rest = &items[..];
        while !rest.is_empty() || self.pick(3) == 0 {
            let size = (self.pick(4) as usize).min(rest.len());
            pages.push(Page { value: rest[..size].to_vec(), delta_link: None, is_last: false });
            rest = &rest[size..];
        }
        self.tokens.push(self.now.clone());
        let link = (self.tokens.len() - 1).to_string();
        pages.push(Page { value: Vec::new(), delta_link: Some(link), is_last: true });
        pages
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..300).collect(),
    }
}

#[test]
fn the_book_and_the_accounts_are_what_entra_has_however_the_pages_come() {
    for seed in seeds() {
        println!("SEED={seed}");
        let (people, groups) = (12, 4);
        // Every other tenant has more people than are kept.
        let grouped = if seed % 2 == 0 { people } else { 8 };
        let settings = DirectorySettings { people_kept_max: grouped, ..settings(groups - 1) };
        let mut entra = Entra { rng: ChaCha8Rng::seed_from_u64(seed), now: Model::default(), tokens: Vec::new() };
        let mut core = Core::default();
        let mut book = core.book(&settings);
        let mut now = 0;
        for _ in 0..12 {
            now += HOUR * i64::from(entra.pick(24 * 4));
            for _ in 0..entra.pick(40) {
                entra.act(people, grouped, groups);
            }
            let mut torn = false;
            for what in book.lists() {
                let mut round = book.begin(what, UnixMillis(now), entra.pick(5) == 0);
                let pages = entra.pages(&round);
                torn |= entra.pick(6) == 0;
                let upto = if torn { entra.pick(pages.len() as u32) as usize } else { pages.len() };
                for page in &pages[..upto] {
                    round.take(page).unwrap();
                }
                let batch = book.take_over(round);
                assert!(!torn || upto == pages.len() || batch == Batch::default(), "a torn round counts for nothing");
                core.commit(batch);
            }
            for id in book.unread() {
                let object = entra.one(id);
                core.commit(book.take_one(id, object.as_ref()).unwrap());
            }
            core.settle(&mut book, now, false);
            if entra.pick(3) == 0 {
                book = core.book(&settings);
            }
            if torn {
                continue;
            }
            let mut expected: BTreeMap<Guid, (String, String, BTreeSet<Place>)> = BTreeMap::new();
            for (id, p) in entra.now.people.iter().filter(|(_, p)| p.life == Life::Live && p.enabled) {
                let mut places = BTreeSet::new();
                for n in (0..groups - 1).filter(|n| entra.now.groups.get(&group(*n)).is_some_and(|g| g.contains(id))) {
                    places.insert(Place { team: format!("team-{}", n % 3), channel: None });
                    places.insert(Place { team: format!("team-{}", n % 3), channel: Some(format!("channel-{n}")) });
                }
                if !places.is_empty() {
                    expected.insert(*id, (p.nick.clone(), p.title.clone().unwrap_or_default(), places));
                }
            }
            let found: BTreeMap<_, _> = core
                .accounts
                .iter()
                .filter(|(_, w)| w.active)
                .map(|(id, w)| (*id, (w.alias.clone(), w.position.clone(), w.places.clone())))
                .collect();
            assert_eq!(found, expected, "replay with SEED={seed}");
            assert!(book.plan(UnixMillis(now)).is_empty(), "nothing is left to do; SEED={seed}");
        }
    }
}

/// One group with `n` people, all of whom have accounts.
fn steady(settings: &DirectorySettings, n: u32) -> (Core, Book) {
    let mut core = Core::default();
    let mut book = core.book(settings);
    whole(&mut core, &mut book, 0, &(0..n).collect::<Vec<_>>(), &(0..n).collect::<Vec<_>>());
    core.settle(&mut book, 0, false);
    assert_eq!(core.active().len(), n as usize);
    (core, book)
}

fn last(value: Vec<Value>) -> Page {
    Page { value, delta_link: Some("link".to_owned()), is_last: true }
}

fn live(n: u32) -> Value {
    let name = format!("p{n}");
    json!({ "id": person(n).to_string(), "accountEnabled": true, "userPrincipalName": name, "userType": "Member" })
}

fn members(ids: &[u32]) -> Value {
    let members: Vec<Value> = ids.iter().map(|n| json!({ "id": person(*n).to_string() })).collect();
    json!({ "id": group(0).to_string(), "displayName": "All", "members@delta": members })
}

fn whole(core: &mut Core, book: &mut Book, now: i64, people: &[u32], in_group: &[u32]) {
    let mut round = book.begin(What::People, UnixMillis(now), true);
    round.take(&last(people.iter().map(|n| live(*n)).collect())).unwrap();
    core.commit(book.take_over(round));
    let mut round = book.begin(What::Groups, UnixMillis(now), true);
    round.take(&last(vec![members(in_group)])).unwrap();
    core.commit(book.take_over(round));
}

fn changed(core: &mut Core, book: &mut Book, now: i64, items: Vec<Value>) {
    let mut round = book.begin(What::People, UnixMillis(now), false);
    assert!(!round.is_whole());
    round.take(&last(items)).unwrap();
    core.commit(book.take_over(round));
}

#[test]
fn nobody_counts_as_absent_before_a_list_was_read_whole() {
    let settings = DirectorySettings { gone_grace_hours: 24, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 20);
    // The link is too old: everything is asked for again.
    let now = 8 * 24 * HOUR;
    let mut round = book.begin(What::People, UnixMillis(now), false);
    assert!(round.is_whole(), "a delta link lives for seven days");
    let first = Page { value: vec![live(0)], delta_link: None, is_last: false };
    round.take(&first).unwrap();
    assert_eq!(book.take_over(round), Batch::default());
    assert!(core.settle(&mut book, now, false).waiting.is_empty());
    whole(&mut core, &mut book, now, &(1..20).collect::<Vec<_>>(), &(1..20).collect::<Vec<_>>());
    let plan = core.settle(&mut book, now, false);
    let gone = Some(Why::Gone(Gone::Absent));
    assert_eq!(
        plan.waiting.iter().map(|p| (p.why, p.due)).collect::<Vec<_>>(),
        [(gone, Some(UnixMillis(now + 24 * HOUR)))]
    );
    assert_eq!(core.active().len(), 20, "the grace is not over");
    let mut book = core.book(&settings);
    assert_eq!(core.settle(&mut book, now + 24 * HOUR - 1, false).disable.len(), 0);
    assert_eq!(core.settle(&mut book, now + 24 * HOUR, false).disable.len(), 1, "the grace outlives a restart");
    assert!(!core.active().contains(&person(0)));
}

#[test]
fn who_comes_back_within_the_grace_keeps_everything_and_who_comes_later_is_restored() {
    let settings = DirectorySettings { gone_grace_hours: 24, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 3);
    let soft = |n: u32| json!({ "id": person(n).to_string(), "@removed": { "reason": "changed" } });
    let back = |n: u32| json!({ "id": person(n).to_string() });
    changed(&mut core, &mut book, HOUR, vec![soft(0), soft(1)]);
    assert_eq!(core.settle(&mut book, HOUR, false).waiting.len(), 2);
    changed(&mut core, &mut book, 2 * HOUR, vec![back(0)]);
    let plan = core.settle(&mut book, 26 * HOUR, false);
    assert_eq!((plan.disable.len(), plan.restore.len()), (1, 0));
    assert_eq!(core.active(), [person(0), person(2)].into());
    changed(&mut core, &mut book, 27 * HOUR, vec![back(1)]);
    assert_eq!(core.settle(&mut book, 27 * HOUR, false).restore.len(), 1);
    changed(&mut core, &mut book, 28 * HOUR, vec![soft(0)]);
    core.settle(&mut book, 28 * HOUR, false);
    let waiting = &book.plan(UnixMillis(28 * HOUR)).waiting;
    assert_eq!(waiting[0].due, Some(UnixMillis(52 * HOUR)), "an earlier absence does not count");
}

#[test]
fn a_blocked_sign_in_ends_the_account_at_once_and_a_lost_one_in_time() {
    let settings = DirectorySettings { gone_grace_hours: 24, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 3);
    let blocked = json!({ "id": person(0).to_string(), "accountEnabled": false });
    changed(
        &mut core,
        &mut book,
        HOUR,
        vec![blocked, json!({ "id": person(1).to_string(), "@removed": { "reason": "deleted" } })],
    );
    let plan = core.settle(&mut book, HOUR, false);
    assert_eq!(plan.disable.iter().map(|p| p.why).collect::<Vec<_>>(), [Some(Why::Disabled)]);
    assert_eq!(plan.waiting.iter().map(|p| p.why).collect::<Vec<_>>(), [Some(Why::Gone(Gone::Deleted))]);
    // What comes first in a batch is what ends.
    let settings = DirectorySettings { gone: GoneRule::Keep, ..settings };
    let mut book = core.book(&settings);
    assert_eq!(core.settle(&mut book, 1_000 * HOUR, false).disable.len(), 0);
    assert_eq!(core.active(), [person(1), person(2)].into());
}

/// A list without `accountEnabled`, which is what a missing permission gives, counted as everybody's sign-in being blocked, without
/// any grace. And who was blocked and then deleted had the grace of the deleted, or the account for ever with `gone = "keep"`.
#[test]
fn what_was_never_said_blocks_nobody_and_what_was_said_is_not_forgotten_with_the_person() {
    let settings = DirectorySettings { gone_grace_hours: 24, gone: GoneRule::Keep, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 4);
    let id = |n: u32| person(n).to_string();
    let unsaid = |n: u32| json!({ "id": id(n), "accountEnabled": null });
    changed(&mut core, &mut book, HOUR, vec![unsaid(0), json!({ "id": id(3), "accountEnabled": false })]);
    assert_eq!(core.settle(&mut book, HOUR, false).disable.len(), 1);
    let mut round = book.begin(What::People, UnixMillis(2 * HOUR), true);
    let named = |n: u32| json!({ "id": id(n), "userPrincipalName": format!("p{n}"), "userType": "Member" });
    round.take(&last((0..4).map(named).collect())).unwrap();
    core.commit(book.take_over(round));
    let mut book = core.book(&settings);
    let plan = core.settle(&mut book, 2 * HOUR, false);
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(core.active(), [person(0), person(1), person(2)].into(), "nor does it let anybody in again");
    // Blocked, then deleted, before anybody looked.
    let deleted = json!({ "id": id(1), "@removed": { "reason": "changed" } });
    changed(&mut core, &mut book, 3 * HOUR, vec![json!({ "id": id(1), "accountEnabled": false }), deleted]);
    let plan = core.settle(&mut book, 3 * HOUR, false);
    assert_eq!(plan.disable.iter().map(|p| p.why).collect::<Vec<_>>(), [Some(Why::Disabled)]);
    // Who is new and of whom it was never said gets no account.
    changed(&mut core, &mut book, 4 * HOUR, vec![named(9)]);
    assert_eq!(book.find("p9")[0].why_not, Some(Why::Untold));
}

#[test]
fn too_many_at_once_wait_for_an_operator_and_hold_up_nobody_else() {
    let settings = DirectorySettings { most_at_once_percent: 10, most_at_once_least: 5, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 100);
    let blocked = |n: u32| json!({ "id": person(n).to_string(), "accountEnabled": false });
    changed(&mut core, &mut book, HOUR, (0..11).map(blocked).collect());
    let plan = core.settle(&mut book, HOUR, false);
    assert_eq!((plan.held.len(), plan.disable.len()), (11, 0));
    assert_eq!(core.active().len(), 100);
    // Somebody else, later: not an unusual number by themselves.
    changed(&mut core, &mut book, 2 * HOUR, vec![blocked(50)]);
    let mut book = core.book(&settings);
    let plan = core.settle(&mut book, 2 * HOUR, false);
    assert_eq!((plan.held.len(), plan.disable.len()), (11, 1));
    // One of them is let in again meanwhile: the operator's word does not reach them.
    changed(&mut core, &mut book, 3 * HOUR, vec![json!({ "id": person(3).to_string(), "accountEnabled": true })]);
    let plan = core.settle(&mut book, 3 * HOUR, true);
    assert_eq!((plan.held.len(), plan.disable.len()), (0, 10));
    assert!(core.active().contains(&person(3)));
    assert_eq!(book.sizes().held, 0);
    // Exactly the share is usual.
    changed(&mut core, &mut book, 4 * HOUR, (60..68).map(blocked).collect());
    assert_eq!(core.settle(&mut book, 4 * HOUR, false).disable.len(), 8);
}

/// Ten percent a quarter of an hour is everybody by the end of the night.
#[test]
fn many_ends_are_many_however_many_rounds_they_come_in() {
    let settings = DirectorySettings { most_at_once_percent: 10, most_at_once_least: 5, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 100);
    let blocked = |n: u32| json!({ "id": person(n).to_string(), "accountEnabled": false });
    let mut ended = 0;
    for round in 0..4_u32 {
        let now = HOUR * (1 + i64::from(round));
        changed(&mut core, &mut book, now, (round * 5..round * 5 + 5).map(blocked).collect());
        ended += core.settle(&mut book, now, false).disable.len();
        book = core.book(&settings);
    }
    assert_eq!((ended, book.sizes().held), (10, 10));
    // What an operator let go does not count, and a day later nothing of it does.
    assert_eq!(core.settle(&mut book, 5 * HOUR, true).disable.len(), 10);
    changed(&mut core, &mut book, 27 * HOUR, (20..24).map(blocked).collect());
    assert_eq!(core.settle(&mut book, 27 * HOUR, false).disable.len(), 4);
    changed(&mut core, &mut book, 28 * HOUR, (24..29).map(blocked).collect());
    assert_eq!(
        core.settle(&mut book, 28 * HOUR, false).held.len(),
        5,
        "four of an hour ago and five are more than eight"
    );
}

/// A filter that was wrong, or a group of everybody in the tenant, gave thousands of people accounts in one round.
#[test]
fn many_new_accounts_wait_for_an_operator_as_on_the_first_day() {
    let settings = DirectorySettings { new_at_once_least: 10, ..settings(1) };
    let mut core = Core::default();
    let mut book = core.book(&settings);
    let all = |n: u32| (0..n).collect::<Vec<u32>>();
    whole(&mut core, &mut book, 0, &all(11), &all(11));
    let plan = core.settle(&mut book, 0, false);
    assert_eq!((plan.create.len(), plan.create_held.len()), (0, 11));
    let mut book = core.book(&settings);
    assert_eq!(book.sizes().held_new, 11);
    // Somebody who comes later does not wait for a word on these.
    whole(&mut core, &mut book, HOUR, &all(12), &all(12));
    let plan = core.settle(&mut book, HOUR, false);
    assert_eq!((plan.create.len(), plan.create_held.len()), (1, 11));
    let plan = core.settle(&mut book, HOUR, true);
    assert_eq!((plan.create.len(), plan.create_held.len(), book.sizes().held_new), (11, 0, 0));
    // As many again as there are, counted over a day.
    whole(&mut core, &mut book, 2 * HOUR, &all(20), &all(20));
    assert_eq!(core.settle(&mut book, 2 * HOUR, false).create.len(), 8);
    whole(&mut core, &mut book, 3 * HOUR, &all(23), &all(23));
    assert_eq!(core.settle(&mut book, 3 * HOUR, false).create_held.len(), 3, "1 and 8 and 3 are more than 11");
    whole(&mut core, &mut book, 3 * HOUR, &all(20), &all(20));
    assert!(
        core.settle(&mut book, 3 * HOUR, false).create_held.is_empty(),
        "who is not meant any longer does not wait"
    );
    assert_eq!(core.active().len(), 20);
}

#[test]
fn an_emptied_group_takes_nobodys_places_without_an_operator() {
    let settings = DirectorySettings { people: People::All, most_at_once_percent: 10, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 30);
    let all: Vec<u32> = (0..30).collect();
    whole(&mut core, &mut book, HOUR, &all, &[]);
    let plan = core.settle(&mut book, HOUR, false);
    assert_eq!((plan.held.len(), plan.change.len()), (30, 0));
    assert!(core.accounts.values().all(|w| w.places.len() == 2));
    let plan = core.settle(&mut book, HOUR, true);
    assert_eq!((plan.held.len(), plan.change.len()), (0, 30));
    assert!(core.accounts.values().all(|w| w.active && w.places.is_empty()));
}

#[test]
fn guests_and_people_of_no_group_get_no_account_unless_the_rules_say_so() {
    let everybody = DirectorySettings { people: People::All, guests: true, ..settings(1) };
    for (settings, expected) in
        [(settings(1), 1), (DirectorySettings { people: People::All, ..settings(1) }, 2), (everybody, 3)]
    {
        let mut core = Core::default();
        let mut book = core.book(&settings);
        let mut guest = live(1);
        guest["userType"] = "Guest".into();
        let mut round = book.begin(What::People, UnixMillis(0), false);
        // The fourth was never said to be enabled.
        round.take(&last(vec![live(0), guest, live(2), json!({ "id": person(3).to_string() })])).unwrap();
        core.commit(book.take_over(round));
        let mut round = book.begin(What::Groups, UnixMillis(0), false);
        round.take(&last(vec![members(&[0, 1])])).unwrap();
        core.commit(book.take_over(round));
        core.settle(&mut book, 0, false);
        assert_eq!(core.active().len(), expected, "{settings:?}");
    }
}

#[test]
fn groups_within_groups_count_once_even_in_a_circle() {
    let mut settings = settings(51);
    settings.groups.truncate(51);
    let mut core = Core::default();
    let mut book = core.book(&settings);
    let mut round = book.begin(What::People, UnixMillis(0), false);
    round.take(&last(vec![live(0)])).unwrap();
    core.commit(book.take_over(round));
    let mut round = book.begin(What::Groups, UnixMillis(0), false);
    assert_eq!(
        round.first(),
        &First::Query("/groups/delta?$select=id,displayName,members".to_owned()),
        "more than a filter takes"
    );
    let inner = group(900);
    let of = |id: Guid, member: Guid| json!({ "id": id.to_string(), "members@delta": [{ "id": member.to_string() }] });
    round.take(&last(vec![of(group(0), inner), of(inner, group(0)), of(inner, person(0))])).unwrap();
    core.commit(book.take_over(round));
    core.settle(&mut book, 0, false);
    assert_eq!(core.active(), [person(0)].into());
    let view = &book.find("P0")[0];
    assert_eq!((view.groups.len(), view.account), (1, Some(true)));
}

#[test]
fn a_place_that_is_not_here_is_nobodys_until_it_is() {
    let settings = settings(1);
    let mut core = Core::default();
    let mut book = core.book(&settings);
    whole(&mut core, &mut book, 0, &[0], &[0]);
    let missing = book.mapped();
    let absent = |core: &mut Core, book: &mut Book, places: &BTreeSet<Place>| {
        book.note_closed(Closed { absent: places.clone(), full: BTreeSet::new() });
        core.shut.clone_from(places);
    };
    absent(&mut core, &mut book, &missing);
    core.settle(&mut book, 0, false);
    assert!(core.accounts[&person(0)].places.is_empty());
    core.settle(&mut book, 0, false);
    assert_eq!(core.tried, 1, "nobody is sent where nothing is");
    absent(&mut core, &mut book, &BTreeSet::new());
    assert_eq!(core.settle(&mut book, 0, false).change.len(), 1);
    assert_eq!(core.accounts[&person(0)].places, missing);
    absent(&mut core, &mut book, &missing);
    assert!(core.settle(&mut book, 0, false).is_empty(), "an archived team loses nobody");
    let promoted = json!({ "id": person(0).to_string(), "jobTitle": "sergeant" });
    changed(&mut core, &mut book, HOUR, vec![promoted]);
    assert_eq!(core.settle(&mut book, HOUR, false).change.len(), 1);
    assert_eq!(core.accounts[&person(0)].places, missing);
}

/// Who met a full team was noted as brought there: nobody tried again, and the next round, which had nothing to do, was in order.
#[test]
fn who_was_not_brought_where_they_belong_is_tried_again_in_each_round_and_after_a_restart() {
    let settings = settings(1);
    let mut core = Core::default();
    let mut book = core.book(&settings);
    core.shut = book.mapped();
    whole(&mut core, &mut book, 0, &[0, 1], &[0, 1]);
    assert_eq!(core.settle(&mut book, 0, false).create.len(), 2);
    assert_eq!(core.tried, 2);
    assert!(core.settle(&mut book, 0, false).is_empty(), "told of once");
    assert_eq!(core.tried, 4, "and tried all the same");
    // It is known to be full now: nobody is tried, and it is not forgotten.
    let team = Place { team: "team-0".to_owned(), channel: None };
    let full = || Closed { absent: BTreeSet::new(), full: [team.clone()].into() };
    book.note_closed(full());
    core.settle(&mut book, 0, false);
    assert_eq!((core.tried, book.full().len()), (4, 1));
    let mut book = core.book(&settings);
    book.note_closed(full());
    core.settle(&mut book, 0, false);
    assert_eq!((core.tried, book.full().len()), (4, 1));
    core.shut.clear();
    book.note_closed(Closed::default());
    assert_eq!(core.settle(&mut book, 0, false).change.len(), 2);
    assert!(book.full().is_empty() && core.accounts.values().all(|wanted| wanted.places == book.mapped()));
    assert!(core.settle(&mut book, 0, false).is_empty());
    assert_eq!(core.tried, 6);
}

#[test]
fn other_groups_are_another_question_and_the_old_link_is_no_answer_to_it() {
    let (core, _) = steady(&settings(1), 3);
    let book = core.book(&settings(2));
    assert!(!book.begin(What::People, UnixMillis(1), false).is_whole());
    let round = book.begin(What::Groups, UnixMillis(1), false);
    assert!(round.is_whole());
    assert!(book.plan(UnixMillis(1)).is_empty() && !book.is_complete(), "nobody loses anything meanwhile");
}

/// Whoever's sign-in was blocked kept the account as long as some group was not to be read.
#[test]
fn a_blocked_sign_in_waits_for_no_group() {
    let rules = DirectorySettings { gone_grace_hours: 1, ..settings(1) };
    let (mut core, mut book) = steady(&rules, 20);
    let all: Vec<u32> = (0..20).collect();
    whole(&mut core, &mut book, HOUR, &all, &all[1..]);
    assert_eq!(core.settle(&mut book, HOUR, false).waiting.len(), 1);
    let blocked = |n: u32| json!({ "id": person(n).to_string(), "accountEnabled": false });
    changed(&mut core, &mut book, 3 * HOUR, vec![blocked(7)]);
    let plan = core.settle_knowing(&mut book, 3 * HOUR, Known::PeopleAlone, false);
    assert_eq!(plan.disable.iter().map(|p| p.why).collect::<Vec<_>>(), [Some(Why::Disabled)]);
    assert!(core.active().contains(&person(0)), "who is in a group again may only not have been read");
    // Another group is followed: until it is read, nothing else is known.
    let mut book = core.book(&DirectorySettings { gone_grace_hours: 1, ..settings(2) });
    changed(&mut core, &mut book, 4 * HOUR, vec![blocked(8), live(99)]);
    assert!(!book.is_complete());
    let plan = core.settle(&mut book, 4 * HOUR, false);
    assert_eq!((plan.disable.len(), plan.create.len(), plan.change.len()), (1, 0, 0));
    assert!(core.active().contains(&person(0)) && !core.active().contains(&person(8)));
}

/// The delta link of one tenant was tried at another one, and who was held there was held, or let go, here.
#[test]
fn what_one_tenant_or_graph_gave_is_of_no_use_at_another() {
    let settings = DirectorySettings { most_at_once_percent: 10, ..settings(1) };
    let (mut core, mut book) = steady(&settings, 20);
    let blocked = |n: u32| json!({ "id": person(n).to_string(), "accountEnabled": false });
    changed(&mut core, &mut book, HOUR, (0..10).map(blocked).collect());
    assert_eq!(core.settle(&mut book, HOUR, false).held.len(), 10);
    let of = |core: &mut Core, source: Source| {
        core.source = Some(source);
        core.book(&settings)
    };
    let same = of(&mut core, source());
    assert!(same.is_complete() && same.sizes().held == 10);
    assert!(!same.begin(What::People, UnixMillis(HOUR), false).is_whole());
    let cloud = Source { graph: "https://graph.other.example".to_owned(), ..source() };
    let moved = Source { tenant: Guid([8; 16]), ..source() };
    for other in [cloud, moved] {
        core.accounts.clear();
        let other = of(&mut core, other);
        assert!(!other.is_complete() && other.sizes().held == 0 && other.as_of(What::People).is_none());
        assert!(other.lists().into_iter().all(|what| other.begin(what, UnixMillis(HOUR), false).is_whole()));
    }
}

/// A tenant of more than 200,000 people could not be synced at all, not even for a group of twenty.
#[test]
fn of_a_tenant_with_too_many_people_those_are_kept_who_are_needed() {
    let settings = DirectorySettings { people_kept_max: 10, ..settings(1) };
    let mut core = Core::default();
    let mut book = core.book(&settings);
    let read = |core: &mut Core, book: &mut Book, what, now, items| {
        let mut round = book.begin(what, UnixMillis(now), false);
        round.take(&last(items)).map(|()| core.commit(book.take_over(round)))
    };
    assert_eq!(book.lists(), [What::Groups, What::People], "the groups say who is needed");
    read(&mut core, &mut book, What::Groups, 0, vec![members(&[3, 30])]).unwrap();
    read(&mut core, &mut book, What::People, 0, (0..50).map(live).collect()).unwrap();
    core.settle(&mut book, 0, false);
    assert_eq!((book.sizes().people, core.active()), (2, [person(3), person(30)].into()));
    // Somebody who was left out, and a device.
    let mut book = core.book(&settings);
    read(&mut core, &mut book, What::Groups, HOUR, vec![members(&[40, 77])]).unwrap();
    read(&mut core, &mut book, What::People, HOUR, vec![live(41)]).unwrap();
    assert_eq!(book.unread(), [person(40), person(77)]);
    assert!(book.take_one(person(40), Some(&live(41))).is_err(), "that is somebody else");
    core.commit(book.take_one(person(40), Some(&live(40))).unwrap());
    core.commit(book.take_one(person(77), None).unwrap());
    assert_eq!((book.unread(), book.sizes().people), (Vec::new(), 3));
    assert_eq!(core.settle(&mut book, HOUR, false).create.len(), 1);
    assert!(core.book(&settings).find("p40")[0].account == Some(true));
    // Those who are needed are too many themselves.
    assert!(!book.is_crowded(7) && book.is_crowded(8));
    read(&mut core, &mut book, What::Groups, 2 * HOUR, vec![members(&(0..11).collect::<Vec<_>>())]).unwrap();
    assert!(book.room().unwrap_err().to_string().contains("more than 10"), "asked before it is read");
    let mut round = book.begin(What::People, UnixMillis(2 * HOUR), true);
    let error = round.take(&last((0..50).map(live).collect())).unwrap_err();
    assert!(error.to_string().contains("more than 10 people who are in a followed group"), "{error}");
    // When everybody is to have an account, the list is read whole.
    let book = core.book(&DirectorySettings { people: People::All, ..settings });
    assert!(book.begin(What::People, UnixMillis(2 * HOUR), false).is_whole());
}

#[test]
fn pages_that_make_no_sense_end_the_round() {
    let (_, book) = steady(&settings(1), 3);
    let take = |page: Page| book.begin(What::People, UnixMillis(1), false).take(&page).is_err();
    assert!(take(Page { value: Vec::new(), delta_link: None, is_last: true }));
    assert!(take(Page { value: Vec::new(), delta_link: Some("x".to_owned()), is_last: false }));
    assert!(take(Page { value: vec![Value::Null], delta_link: None, is_last: false }));
    assert!(take(Page { value: vec![json!({}); 5_001], delta_link: None, is_last: false }));
    assert!(take(Page { value: Vec::new(), delta_link: Some("x".repeat(9_000)), is_last: true }));
}

/// One record that did not read made the sync forget every account that it had made: nobody whose sign-in was blocked or who was
/// deleted in that time ever lost theirs, and the records were written over.
#[test]
fn a_record_that_does_not_read_is_read_again_and_no_account_is_forgotten() {
    let settings = settings(1);
    let (mut core, book) = steady(&settings, 4);
    assert_eq!(book.sizes(), Sizes { people: 4, groups: 1, accounts: 4, held: 0, held_new: 0 });
    let name = |n: u32| format!("person/{TENANT}/{}", person(n));
    core.records.insert(name(0), b"{".to_vec());
    core.records.insert(name(1), b"{}".to_vec());
    let (mut book, bad) = core.load(&settings);
    assert!(bad[0].to_string().contains(&person(0).to_string()) && bad.len() == 2, "{bad:?}");
    assert_eq!(book.sizes(), Sizes { people: 2, groups: 1, accounts: 4, held: 0, held_new: 0 });
    assert!(book.begin(What::People, UnixMillis(HOUR), false).is_whole());
    // Meanwhile one of them was deleted, and the sign-in of two was blocked.
    let blocked = |n: u32| json!({ "id": person(n).to_string(), "accountEnabled": false });
    let mut round = book.begin(What::People, UnixMillis(HOUR), false);
    round.take(&last(vec![blocked(1), blocked(2), live(3)])).unwrap();
    core.commit(book.take_over(round));
    let mut round = book.begin(What::Groups, UnixMillis(HOUR), false);
    round.take(&last(vec![members(&[1, 2, 3])])).unwrap();
    core.commit(book.take_over(round));
    let plan = core.settle(&mut book, HOUR, false);
    assert_eq!((plan.disable.len(), plan.create.len()), (3, 0), "{plan:?}");
    assert_eq!(core.active(), [person(3)].into());
    // A record that is not there at all is no better.
    core.records.remove(&name(3));
    let book = core.book(&settings);
    assert!(book.begin(What::People, UnixMillis(2 * HOUR), false).is_whole());
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let refused = |change: fn(&mut DirectorySettings)| {
        let mut settings = settings(1);
        change(&mut settings);
        settings.read().is_err()
    };
    assert!(!refused(|_| {}));
    assert!(refused(|s| s.interval_minutes = 0));
    assert!(refused(|s| s.most_at_once_percent = 101));
    assert!(refused(|s| s.groups.clear()));
    assert!(refused(|s| s.people_kept_max = 0));
    assert!(refused(|s| s.people_kept_max = 200_001));
    assert!(refused(|s| s.groups[0].id = "All".to_owned()));
    assert!(refused(|s| s.groups[0].team = None));
    assert!(!DirectorySettings::default().enabled);
}
