//! What must survive a restart about each link: whether the operator keeps it down, and what it has spent.
//!
//! Spending is written ahead: a link gets an allowance that is in the file as spent before the first byte of it
//! leaves, so that no crash makes a link exceed its budget. What a clean stop leaves over is put back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use model::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};
use shaper::budget::{Budget, Period, Spent, Steady, day};

use crate::CarrierError;
use crate::settings::LinkName;

/// What the operator orders for one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkOrder {
    /// It is used.
    #[default]
    Use,
    /// It is closed in order and not dialled.
    Pause,
    /// Nothing leaves over it from one moment to the next, not even a goodbye.
    Silence,
}

/// Allowances are a 128th of the budget: a crash costs no more than that. Within 16 KiB and 4 MiB: each is a sync.
const PART: u64 = 128;
const ALLOWANCE: std::ops::RangeInclusive<u64> = 16 << 10..=4 << 20;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Record {
    order: LinkOrder,
    day: i64,
    month: i64,
    in_day: u64,
    in_month: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    day_behind: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    month_behind: Option<i64>,
}

type Records = BTreeMap<NodeId, BTreeMap<String, Record>>;

/// The file `links.json` of the data directory.
pub(crate) struct Book {
    dir: PathBuf,
    records: Mutex<Records>,
    /// By what budgets are counted, since somebody asked for the first time, and when that was.
    steady: Mutex<Option<(Steady, Instant)>>,
}

impl Book {
    /// No file means that nothing was ordered or spent.
    pub(crate) fn open(dir: &Path) -> Result<Self, CarrierError> {
        let path = path_in(dir);
        let broken = |source: io::Error| CarrierError::LinksUnreadable { path: path.clone(), source };
        let records = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| broken(e.into()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Records::new(),
            Err(e) => return Err(broken(e)),
        };
        Ok(Self { dir: dir.to_owned(), records: Mutex::new(records), steady: Mutex::new(None) })
    }

    /// The time by which budgets are counted, of what the clock says `now`.
    pub(crate) fn time(&self, wall: UnixMillis, now: Instant) -> UnixMillis {
        let mut steady = self.steady.lock().expect("nothing panics while holding the time");
        let (steady, start) = steady.get_or_insert_with(|| {
            let latest = self.records().values().flat_map(|links| links.values()).map(|record| record.day).max();
            (Steady::new(wall, Duration::ZERO, latest.unwrap_or(0)), now)
        });
        steady.at(wall, now.saturating_duration_since(*start))
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("nothing panics while holding the book")
    }

    pub(crate) fn order(&self, peer: NodeId, link: &LinkName) -> LinkOrder {
        record(&self.records(), peer, link).order
    }

    /// Durable when it returns.
    pub(crate) fn set_order(&self, peer: NodeId, link: &LinkName, order: LinkOrder) -> Result<(), CarrierError> {
        self.change(peer, link, |record| record.order = order)
    }

    /// What a link may still spend at `now`, beside the allowance that it has.
    pub(crate) fn left(&self, peer: NodeId, link: &LinkName, budget: &Budget, now: UnixMillis) -> Option<u64> {
        budget.left(&record(&self.records(), peer, link).spent(), period(now))
    }

    /// An allowance: durably spent when it returns. Zero when the budget is used up.
    pub(crate) fn allow(
        &self,
        peer: NodeId,
        link: &LinkName,
        budget: &Budget,
        now: UnixMillis,
    ) -> Result<u64, CarrierError> {
        let smaller = [budget.per_day, budget.per_month].into_iter().flatten().min().unwrap_or(u64::MAX);
        let want = (smaller / PART).clamp(*ALLOWANCE.start(), *ALLOWANCE.end());
        let mut taken = 0;
        let spent = record(&self.records(), peer, link).spent();
        // That the clock is behind is noted, with nothing to give as well.
        if budget.left(&spent, period(now)) == Some(0) && spent.at(period(now)) == spent {
            return Ok(0);
        }
        self.change(peer, link, |record| {
            let mut spent = record.spent();
            taken = spent.take(budget, period(now), want);
            record.set(spent);
        })?;
        Ok(taken)
    }

    /// What of an allowance given at `given` was not used.
    pub(crate) fn put_back(&self, peer: NodeId, link: &LinkName, given: UnixMillis, unused: u64) {
        let put_back = self.change(peer, link, |record| {
            let mut spent = record.spent();
            spent.put_back(period(given), unused);
            record.set(spent);
        });
        if let Err(e) = put_back {
            tracing::warn!(%link, reason = %e, "what a link did not use counts as spent");
        }
    }

    /// Nothing changes, in memory either, when it cannot be written.
    fn change(&self, peer: NodeId, link: &LinkName, change: impl FnOnce(&mut Record)) -> Result<(), CarrierError> {
        let mut records = self.records();
        let mut next = records.clone();
        change(next.entry(peer).or_default().entry(link.to_string()).or_default());
        save(&self.dir, &next).map_err(|source| CarrierError::LinksNotSaved { path: path_in(&self.dir), source })?;
        *records = next;
        Ok(())
    }
}

fn record(records: &Records, peer: NodeId, link: &LinkName) -> Record {
    records.get(&peer).and_then(|links| links.get(link.as_str())).copied().unwrap_or_default()
}

impl Record {
    fn spent(&self) -> Spent {
        let period = Period { day: self.day, month: self.month };
        let Self { in_day, in_month, day_behind, month_behind, .. } = *self;
        Spent { period, in_day, in_month, day_behind, month_behind }
    }

    fn set(&mut self, spent: Spent) {
        self.day = spent.period.day;
        self.month = spent.period.month;
        self.in_day = spent.in_day;
        self.in_month = spent.in_month;
        self.day_behind = spent.day_behind;
        self.month_behind = spent.month_behind;
    }
}

/// Day and month of a moment, UTC.
pub(crate) fn period(now: UnixMillis) -> Period {
    let day = day(now);
    let date = jiff::Timestamp::from_millisecond(now.0).map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date());
    // Beyond the calendar a month has 30 days.
    let month = date.map_or(day / 30, |date| i64::from(date.year()) * 12 + i64::from(date.month()));
    Period { day, month }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("links.json")
}

fn save(dir: &Path, records: &Records) -> io::Result<()> {
    let temp = dir.join("links.json.new");
    let mut file = File::create(&temp)?;
    file.write_all(&serde_json::to_vec_pretty(records)?)?;
    file.sync_all()?;
    fs::rename(&temp, path_in(dir))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: UnixMillis = UnixMillis(1_772_323_200_000);

    #[test]
    fn orders_and_spending_survive_a_restart_and_a_crash_costs_an_allowance_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let (peer, link) = (NodeId([1; 16]), "satellite".parse().unwrap());
        let budget = Budget { per_day: Some(100_000), per_month: None };
        let book = Book::open(dir.path()).unwrap();
        assert_eq!(book.order(peer, &link), LinkOrder::Use);
        book.set_order(peer, &link, LinkOrder::Silence).unwrap();
        let first = book.allow(peer, &link, &budget, DAY).unwrap();
        assert_eq!(first, 16 << 10);
        // A crash: nothing is put back.
        let book = Book::open(dir.path()).unwrap();
        assert_eq!(book.order(peer, &link), LinkOrder::Silence);
        assert_eq!(book.left(peer, &link, &budget, DAY), Some(100_000 - first));
        let mut given = first;
        loop {
            match book.allow(peer, &link, &budget, DAY).unwrap() {
                0 => break,
                more => given += more,
            }
        }
        assert_eq!(given, 100_000);
        book.put_back(peer, &link, DAY, 500);
        assert_eq!(book.left(peer, &link, &budget, DAY), Some(500));
        assert_eq!(book.left(peer, &link, &budget, UnixMillis(DAY.0 + 86_400_000)), Some(100_000));
    }

    #[test]
    fn a_damaged_book_is_no_empty_book() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path_in(dir.path()), b"{").unwrap();
        assert!(matches!(Book::open(dir.path()), Err(CarrierError::LinksUnreadable { .. })));
    }

    #[test]
    fn months_follow_the_calendar() {
        let of = |text: &str| period(UnixMillis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()));
        assert_eq!(of("2026-03-01T00:00:00Z").month, of("2026-02-28T23:59:59Z").month + 1);
        assert_eq!(of("2026-03-01T00:00:00Z").day, of("2026-02-28T23:59:59Z").day + 1);
        assert_eq!(of("2026-03-31T23:59:59Z").month, of("2026-03-01T00:00:00Z").month);
    }
}
