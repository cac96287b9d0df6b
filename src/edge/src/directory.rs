//! The directory sync's accounts: what the room `microsoft` decides, as the mission core carries it out.

use std::collections::BTreeSet;
use std::sync::Arc;

use microsoft::directory::{
    Batch, Closed, DirectorySync, Done, Place, Rules, Sink, SinkError, Stored, SyncHandle, SyncOptions, Wanted,
};
use microsoft::{Graph, TokioTimer};
use mission::error::AppError;
use mission::{Core, DirectoryBatch, DirectoryPerson, DirectoryPlace};
use model::Guid;

use crate::Environment;

/// The sync of this node, and what asks it.
pub(crate) fn open(graph: Graph, rules: Rules, core: Core, environment: &Environment) -> (DirectorySync, SyncHandle) {
    let tenant = Guid(*graph.settings().tenant.as_bytes());
    let Environment { clock, metrics, health } = environment.clone();
    let (sink, timer) = (Arc::new(Accounts(core)), Arc::new(TokioTimer::start()));
    DirectorySync::new(SyncOptions { graph, sink, rules, tenant, clock, timer, metrics, health })
}

/// The core as the sync sees it.
pub(crate) struct Accounts(pub(crate) Core);

impl Sink for Accounts {
    fn load(&self, tenant: Guid) -> Result<Stored, SinkError> {
        let failed = |e: mission::StoreError| SinkError(e.to_string());
        let records = self.0.directory_kept().map_err(failed)?;
        let accounts = self.0.directory_accounts(tenant).map_err(failed)?.into_iter().map(|person| {
            let wanted = Wanted {
                alias: person.alias,
                email: person.email,
                first_name: person.first_name,
                last_name: person.last_name,
                position: person.position,
                locale: person.locale,
                active: person.active,
                places: all_ours(person.places),
            };
            (person.key.object, wanted)
        });
        Ok(Stored { records, accounts: accounts.collect() })
    }

    fn closed(&self, places: &BTreeSet<Place>) -> Result<Closed, SinkError> {
        let places = places.iter().map(theirs).collect();
        let closed = self.0.directory_closed(&places).map_err(failed)?;
        Ok(Closed { absent: all_ours(closed.absent), full: all_ours(closed.full) })
    }

    fn commit(&self, batch: &Batch) -> Result<Done, SinkError> {
        let people = batch.people.iter().map(|(key, wanted)| DirectoryPerson {
            key: *key,
            alias: wanted.alias.clone(),
            email: wanted.email.clone(),
            first_name: wanted.first_name.clone(),
            last_name: wanted.last_name.clone(),
            position: wanted.position.clone(),
            locale: wanted.locale.clone(),
            active: wanted.active,
            places: wanted.places.iter().map(theirs).collect(),
        });
        let batch = DirectoryBatch { people: people.collect(), keep: batch.keep.clone() };
        let done = self.0.apply_directory(&batch).map_err(failed)?;
        Ok(Done {
            created: done.created,
            changed: done.changed,
            disabled: done.disabled,
            restored: done.restored,
            joined: done.joined,
            left: done.left,
            full: all_ours(done.full),
            unserved: done.unserved.into_iter().map(|(key, places)| (key.object, all_ours(places))).collect(),
        })
    }
}

fn failed(error: AppError) -> SinkError {
    SinkError(match error.detailed_error.is_empty() {
        true => error.message.into_owned(),
        false => format!("{} ({})", error.message, error.detailed_error),
    })
}

fn theirs(place: &Place) -> DirectoryPlace {
    let team = place.team.clone();
    match place.channel.clone() {
        None => DirectoryPlace::Team(team),
        Some(channel) => DirectoryPlace::Channel { team, channel },
    }
}

fn all_ours(places: BTreeSet<DirectoryPlace>) -> BTreeSet<Place> {
    places.into_iter().map(ours).collect()
}

fn ours(place: DirectoryPlace) -> Place {
    match place {
        DirectoryPlace::Team(team) => Place { team, channel: None },
        DirectoryPlace::Channel { team, channel } => Place { team, channel: Some(channel) },
    }
}

#[cfg(test)]
mod tests;
