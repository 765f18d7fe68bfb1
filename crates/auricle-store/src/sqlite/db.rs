//! A connection with the keys of this process: what every operation works on.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use auricle_core::UserId;
use rusqlite::Connection;

use crate::protect::{Keyring, Place, Sealer};
use crate::store::{Result, StoreError};

/// A connection and what seals and opens the texts behind it. It belongs to one thread.
pub(super) struct Db {
    connection: Connection,
    ring: Keyring,
    /// The newest user's keys: one operation is nearly always about one user.
    newest: RefCell<Option<(UserId, Arc<Sealer>)>>,
}

impl Deref for Db {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Db {
    pub(super) fn new(connection: Connection, ring: Keyring) -> Self {
        Self { connection, ring, newest: RefCell::default() }
    }

    pub(super) fn ring(&self) -> &Keyring {
        &self.ring
    }

    pub(super) fn sealer(&self, user: &str) -> Arc<Sealer> {
        let mut newest = self.newest.borrow_mut();
        if let Some((of, sealer)) = &*newest
            && of.as_str() == user
        {
            return Arc::clone(sealer);
        }
        let user = UserId::from(user);
        let sealer = Arc::new(self.ring.of(&user));
        *newest = Some((user, Arc::clone(&sealer)));
        sealer
    }

    /// A text as it is to be stored there.
    pub(super) fn seal<'t>(&self, user: &str, place: Place<'_>, text: &'t str) -> Cow<'t, str> {
        self.sealer(user).seal(place, text)
    }

    /// A stored text as it was given; what cannot be opened is `Damaged`.
    pub(super) fn open(&self, user: &str, place: Place<'_>, stored: String) -> Result<String> {
        self.sealer(user).open(place, stored)
    }

    /// The same for a column that may be empty.
    pub(super) fn open_some(
        &self,
        user: &str,
        place: Place<'_>,
        stored: Option<String>,
    ) -> Result<Option<String>> {
        stored.map(|stored| self.open(user, place, stored)).transpose()
    }

    pub(super) fn close(self) -> Result<()> {
        self.connection.close().map_err(|(_, error)| StoreError::from(error))
    }
}
