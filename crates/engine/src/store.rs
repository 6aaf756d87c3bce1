//! The journal: one SQLite file, WAL, synchronous=FULL. A transition is committed here before its
//! effect begins. It knows rows and JSON, not what they mean.
//!
//! A reserve file on the same file system is given up when the disk is full, so that a stop can
//! still be recorded; while it is gone, the engine takes nothing new on.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use wharf_core::{
    Record, Saved,
    arbiter::{Book, Lease},
    ports::Row,
};
use wharf_model::{ErrorKind, Failure, Operation};

const SCHEMA_VERSION: i64 = 1;
const RESERVE_BYTES: u64 = 4 << 20;
/// Ended operations that are kept of each unit.
const OPS_KEPT: i64 = 32;

/// The journal.
pub struct Store {
    db: Connection,
    reserve: PathBuf,
    has_reserve: bool,
}

/// Why the journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The disk is full, the reserve is used up.
    #[error("the disk of the state database is full")]
    Full(#[source] rusqlite::Error),
    /// Anything else: a bad sector, a file that is no database, a newer schema.
    #[error("the state database cannot be used: {0}")]
    Broken(#[from] rusqlite::Error),
    /// A newer Wharf wrote it.
    #[error("the state database has schema {found}, and this Wharf knows {SCHEMA_VERSION}")]
    Newer {
        /// Its schema's version.
        found: i64,
    },
    /// A row is not what this Wharf writes.
    #[error("the state database has a row that cannot be read: {0}")]
    Row(#[from] serde_json::Error),
    /// The folder or the reserve.
    #[error("the state folder cannot be used: {0}")]
    Io(#[from] std::io::Error),
}

impl From<StoreFailure> for Failure {
    fn from(e: StoreFailure) -> Self {
        let hint = match &e {
            StoreFailure::Full(_) => "free some space, then start the daemon again; services go on meanwhile",
            StoreFailure::Newer { .. } => "use the newer Wharf, or another WHARF_HOME",
            StoreFailure::Broken(_) | StoreFailure::Row(_) | StoreFailure::Io(_) => {
                "look at the file with sqlite3; moving it away makes Wharf start with an empty one"
            }
        };
        Self::new(ErrorKind::Storage, e.to_string()).hint(hint)
    }
}

/// What the journal holds.
pub struct Restored {
    /// Every unit.
    pub units: Vec<Saved>,
    /// Their operations, oldest first.
    pub ops: Vec<Operation>,
    /// The last run number that was handed out.
    pub next_run: u64,
    /// The last operation number that was handed out.
    pub next_op: u64,
    /// The leases of GPUs.
    pub leases: Vec<Lease>,
    /// What the arbiter knows beside them.
    pub book: Book,
}

impl Store {
    /// Opens it, or makes it.
    pub fn open(path: &Path) -> Result<Self, StoreFailure> {
        match Self::try_open(path) {
            // A full disk: the reserve is what it is for.
            Err(StoreFailure::Full(_)) if fs::remove_file(path.with_extension("reserve")).is_ok() => {
                Self::try_open(path)
            }
            opened => opened,
        }
    }

    fn try_open(path: &Path) -> Result<Self, StoreFailure> {
        let db = Connection::open(path).map_err(full_or_broken)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(full_or_broken)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(full_or_broken)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        let found: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(full_or_broken)?;
        if found > SCHEMA_VERSION {
            return Err(StoreFailure::Newer { found });
        }
        // A table that was added later: an older Wharf passes it over, so the version stays.
        let whole: i64 = db
            .query_row("SELECT count(*) FROM sqlite_master WHERE name = 'leases'", [], |r| r.get(0))
            .map_err(full_or_broken)?;
        if found < SCHEMA_VERSION || whole == 0 {
            Self::make_tables(&db)?;
        }
        let mut store = Self { db, reserve: path.with_extension("reserve"), has_reserve: false };
        store.restock();
        Ok(store)
    }

    fn make_tables(db: &Connection) -> Result<(), StoreFailure> {
        db.execute_batch(
            "BEGIN;
             CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS units(name TEXT PRIMARY KEY, saved TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS ops(id INTEGER PRIMARY KEY, name TEXT NOT NULL, op TEXT NOT NULL) STRICT;
             CREATE INDEX IF NOT EXISTS ops_of_unit ON ops(name, id);
             CREATE TABLE IF NOT EXISTS leases(id INTEGER PRIMARY KEY, lease TEXT NOT NULL) STRICT;
             PRAGMA user_version = 1;
             COMMIT;",
        )
        .map_err(full_or_broken)
    }

    /// A short random name of this installation, made once.
    pub fn installation(&self) -> Result<String, StoreFailure> {
        let known = self.meta("installation")?;
        if let Some(known) = known {
            return Ok(known);
        }
        let made: String =
            self.db.query_row("SELECT lower(hex(randomblob(4)))", [], |r| r.get(0)).map_err(full_or_broken)?;
        self.set_meta("installation", &made)?;
        Ok(made)
    }

    fn meta(&self, key: &str) -> Result<Option<String>, StoreFailure> {
        Ok(self.db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get(0)).optional()?)
    }

    fn set_meta(&self, key: &str, value: &str) -> Result<(), StoreFailure> {
        self.db
            .execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)", [key, value])
            .map(drop)
            .map_err(full_or_broken)
    }

    /// Everything that was committed.
    pub fn restore(&self) -> Result<Restored, StoreFailure> {
        let mut units = vec![];
        let mut rows = self.db.prepare("SELECT saved FROM units ORDER BY name")?;
        for row in rows.query_map([], |r| r.get::<_, String>(0))? {
            units.push(serde_json::from_str(&row?)?);
        }
        let mut ops: Vec<Operation> = vec![];
        let mut rows = self.db.prepare("SELECT op FROM ops ORDER BY id")?;
        for row in rows.query_map([], |r| r.get::<_, String>(0))? {
            // History that cannot be read is no reason not to start.
            match serde_json::from_str(&row?) {
                Ok(op) => ops.push(op),
                Err(e) => tracing::warn!("an operation of the log cannot be read: {e}"),
            }
        }
        let number =
            |key| -> Result<u64, StoreFailure> { Ok(self.meta(key)?.and_then(|v| v.parse().ok()).unwrap_or(0)) };
        let (leases, book) = self.restore_gpus()?;
        Ok(Restored { units, ops, next_run: number("next_run")?, next_op: number("next_op")?, leases, book })
    }

    /// The leases of GPUs and the arbiter's book.
    fn restore_gpus(&self) -> Result<(Vec<Lease>, Book), StoreFailure> {
        let tables: i64 =
            self.db.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'leases'", [], |r| r.get(0))?;
        let mut leases = vec![];
        if tables > 0 {
            let mut rows = self.db.prepare("SELECT lease FROM leases ORDER BY id")?;
            for row in rows.query_map([], |r| r.get::<_, String>(0))? {
                leases.push(serde_json::from_str(&row?)?);
            }
        }
        let book = match self.meta("gpus")? {
            Some(text) => serde_json::from_str(&text)?,
            None => Book::default(),
        };
        Ok((leases, book))
    }

    /// The rows of the ledger of ports. Its table is made when it is first needed: an older Wharf passes it over.
    pub fn ports(&self) -> Result<Vec<(String, String)>, StoreFailure> {
        let make = "CREATE TABLE IF NOT EXISTS ports(key TEXT PRIMARY KEY, row TEXT NOT NULL) STRICT";
        self.db.execute_batch(make).map_err(full_or_broken)?;
        let mut rows = self.db.prepare("SELECT key, row FROM ports ORDER BY key")?;
        let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes these durable, all or none. On a full disk the reserve is given up once.
    pub fn keep_ports(&mut self, rows: &[Row]) -> Result<(), StoreFailure> {
        let write = |db: &Connection| -> Result<(), StoreFailure> {
            let tx = db.unchecked_transaction().map_err(full_or_broken)?;
            for (key, row) in rows {
                let done = match row {
                    Some(row) => tx.execute("INSERT OR REPLACE INTO ports(key, row) VALUES (?1, ?2)", [key, row]),
                    None => tx.execute("DELETE FROM ports WHERE key = ?1", [key]),
                };
                done.map_err(full_or_broken)?;
            }
            tx.commit().map_err(full_or_broken)
        };
        match write(&self.db) {
            Err(StoreFailure::Full(_)) if self.has_reserve => {
                self.give_reserve_up()?;
                write(&self.db)
            }
            result => result,
        }
    }

    /// Whether this is another boot of the machine than the one that was told last, which is told from now on.
    pub fn is_new_boot(&self, boot: &str) -> Result<bool, StoreFailure> {
        let known = self.meta("kernel_boot")?;
        if known.as_deref() == Some(boot) {
            return Ok(false);
        }
        self.set_meta("kernel_boot", boot)?;
        Ok(known.is_some())
    }

    /// Makes these durable, all or none. On a full disk the reserve is given up once.
    pub fn commit(&mut self, records: &[Record], next_run: u64, next_op: u64) -> Result<(), StoreFailure> {
        match self.try_commit(records, next_run, next_op) {
            Err(StoreFailure::Full(_)) if self.has_reserve => {
                self.give_reserve_up()?;
                self.try_commit(records, next_run, next_op)
            }
            result => result,
        }
    }

    fn give_reserve_up(&mut self) -> Result<(), StoreFailure> {
        tracing::warn!("the disk is full: the reserve of the state database is given up");
        match fs::remove_file(&self.reserve) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        self.has_reserve = false;
        Ok(())
    }

    fn try_commit(&mut self, records: &[Record], next_run: u64, next_op: u64) -> Result<(), StoreFailure> {
        let write = || -> Result<(), StoreFailure> {
            let tx = self.db.unchecked_transaction().map_err(full_or_broken)?;
            for record in records {
                write_record(&tx, record)?;
            }
            let mut meta =
                tx.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)").map_err(full_or_broken)?;
            meta.execute(params!["next_run", next_run.to_string()]).map_err(full_or_broken)?;
            meta.execute(params!["next_op", next_op.to_string()]).map_err(full_or_broken)?;
            drop(meta);
            tx.commit().map_err(full_or_broken)
        };
        write()
    }

    /// Whether the reserve stands.
    pub fn has_reserve(&self) -> bool {
        self.has_reserve
    }

    /// Whether the reserve stands; tries to make it again where it was given up.
    pub fn restock(&mut self) -> bool {
        if !self.has_reserve {
            self.has_reserve = make_reserve(&self.reserve).is_ok();
            if !self.has_reserve {
                // A part of a reserve is worth less than the space that it takes.
                let _ = fs::remove_file(&self.reserve);
            }
        }
        self.has_reserve
    }
}

/// The installation's name and its units, without changing a byte. For who looks beside a daemon, or without one.
pub fn peek(path: &Path) -> Result<(Option<String>, Vec<Saved>), StoreFailure> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(2))?;
    let found: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(StoreFailure::Newer { found });
    }
    let store = Store { db, reserve: path.with_extension("reserve"), has_reserve: true };
    Ok((store.meta("installation")?, store.restore()?.units))
}

fn write_record(tx: &Connection, record: &Record) -> Result<(), StoreFailure> {
    match record {
        Record::Unit(saved) => {
            let json = serde_json::to_string(saved)?;
            tx.prepare_cached("INSERT OR REPLACE INTO units(name, saved) VALUES (?1, ?2)")
                .and_then(|mut s| s.execute(params![saved.name.as_str(), json]))
                .map_err(full_or_broken)?;
        }
        Record::Lease(lease) => {
            let json = serde_json::to_string(lease)?;
            tx.prepare_cached("INSERT OR REPLACE INTO leases(id, lease) VALUES (?1, ?2)")
                .and_then(|mut s| s.execute(params![lease.id.0 as i64, json]))
                .map_err(full_or_broken)?;
        }
        Record::LeaseGone(id) => {
            tx.prepare_cached("DELETE FROM leases WHERE id = ?1")
                .and_then(|mut s| s.execute([id.0 as i64]))
                .map_err(full_or_broken)?;
        }
        Record::Book(book) => {
            let json = serde_json::to_string(book)?;
            tx.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES ('gpus', ?1)")
                .and_then(|mut s| s.execute([json]))
                .map_err(full_or_broken)?;
        }
        Record::Gone(name) => {
            tx.execute("DELETE FROM units WHERE name = ?1", [name.as_str()]).map_err(full_or_broken)?;
        }
        Record::Op(op) => {
            let json = serde_json::to_string(op)?;
            tx.prepare_cached("INSERT OR REPLACE INTO ops(id, name, op) VALUES (?1, ?2, ?3)")
                .and_then(|mut s| s.execute(params![op.id.0 as i64, op.name.as_str(), json]))
                .map_err(full_or_broken)?;
            tx.prepare_cached(
                "DELETE FROM ops WHERE name = ?1 AND id <= \
                 (SELECT id FROM ops WHERE name = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )
            .and_then(|mut s| s.execute(params![op.name.as_str(), OPS_KEPT]))
            .map_err(full_or_broken)?;
        }
    }
    Ok(())
}

fn make_reserve(path: &Path) -> std::io::Result<()> {
    if fs::metadata(path).is_ok_and(|m| m.len() == RESERVE_BYTES) {
        return Ok(());
    }
    let file = fs::File::create(path)?;
    rustix::fs::fallocate(file.as_fd(), rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?;
    Ok(())
}

fn full_or_broken(e: rusqlite::Error) -> StoreFailure {
    // The WAL's index is a mapped file: where it cannot grow, that is an IO error of this kind.
    let shm_cannot_grow = e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreFailure::Full(e),
        _ if shm_cannot_grow => StoreFailure::Full(e),
        _ => StoreFailure::Broken(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let installation = {
            let mut store = Store::open(&path).unwrap();
            store.commit(&[], 7, 3).unwrap();
            store.installation().unwrap()
        };
        let store = Store::open(&path).unwrap();
        let restored = store.restore().unwrap();
        assert_eq!((restored.next_run, restored.next_op), (7, 3));
        assert_eq!(store.installation().unwrap(), installation);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, "this is no database, it is a text of some length, kept as it is. ".repeat(40)).unwrap();
        assert!(Store::open(&path).is_err());
        assert!(fs::read_to_string(&path).unwrap().starts_with("this is no database"));
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreFailure::Newer { found: 99 })));
    }
}
