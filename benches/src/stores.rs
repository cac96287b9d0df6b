//! Other stores, each with the settings under which an acknowledged write survives a power cut.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Durability, TableDefinition};

use crate::Error;
use crate::group::BatchStore;

/// A store that many threads may write to, each write durable when the call returns.
pub(crate) trait Store: Sync {
    fn write(&self, key: u64, value: Vec<u8>) -> Result<(), Error>;
}

/// SQLite, write-ahead log, `synchronous=FULL`: one `fdatasync` per transaction.
///
/// One connection behind a lock: with one each, writers spend their time in SQLite's busy handler.
pub(crate) struct Sqlite(Mutex<rusqlite::Connection>);

impl Sqlite {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let db = rusqlite::Connection::open(dir.join("entries.db"))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, body BLOB NOT NULL)", [])?;
        Ok(Self(Mutex::new(db)))
    }
}

const INSERT: &str = "INSERT INTO entries (number, body) VALUES (?1, ?2)";

impl Store for Sqlite {
    fn write(&self, key: u64, value: Vec<u8>) -> Result<(), Error> {
        let db = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        db.prepare_cached(INSERT)?.execute((key as i64, value))?;
        Ok(())
    }
}

impl BatchStore for Sqlite {
    fn write(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        let db = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let batch = db.transaction()?;
        for (key, value) in records {
            batch.prepare_cached(INSERT)?.execute((*key as i64, value))?;
        }
        Ok(batch.commit()?)
    }
}

/// sled with a flush per write. Its flush does not promise a sync of the disk (docs/adr/0001), so that its figures are
/// better than what it keeps.
pub(crate) struct Sled(sled::Db);

impl Sled {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self(sled::Config::new().path(dir.join("sled")).flush_every_ms(None).open()?))
    }
}

impl Store for Sled {
    fn write(&self, key: u64, value: Vec<u8>) -> Result<(), Error> {
        self.0.insert(key.to_be_bytes(), value)?;
        self.0.flush()?;
        Ok(())
    }
}

impl BatchStore for Sled {
    fn write(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in records {
            batch.insert(&key.to_be_bytes(), value.as_slice());
        }
        self.0.apply_batch(batch)?;
        self.0.flush()?;
        Ok(())
    }
}

/// fjall, whose journal is synced after each write. A sync covers what others wrote before it.
pub(crate) struct Fjall {
    db: fjall::Database,
    entries: fjall::Keyspace,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let db = fjall::Database::builder(dir.join("fjall")).open()?;
        let entries = db.keyspace("entries", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { db, entries })
    }
}

impl Store for Fjall {
    fn write(&self, key: u64, value: Vec<u8>) -> Result<(), Error> {
        self.entries.insert(key.to_be_bytes(), value)?;
        Ok(self.db.persist(fjall::PersistMode::SyncData)?)
    }
}

impl BatchStore for Fjall {
    fn write(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in records {
            batch.insert(&self.entries, key.to_be_bytes(), value.as_slice());
        }
        Ok(batch.commit()?)
    }
}

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");

/// redb, a durable commit per write.
pub(crate) struct Redb(redb::Database);

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self(redb::Database::create(dir.join("entries.redb"))?))
    }

    fn commit(&self, records: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        let mut batch = self.0.begin_write()?;
        batch.set_durability(Durability::Immediate)?;
        {
            let mut table = batch.open_table(TABLE)?;
            for (key, value) in records {
                table.insert(key, value.as_slice())?;
            }
        }
        Ok(batch.commit()?)
    }
}

impl Store for Redb {
    fn write(&self, key: u64, value: Vec<u8>) -> Result<(), Error> {
        self.commit(&[(key, value)])
    }
}

impl BatchStore for Redb {
    fn write(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        self.commit(records)
    }
}
