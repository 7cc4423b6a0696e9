//! The one account the emulator has: who it is, what it stores, and how much it may store.
//!
//! Knows no HTTP. The lock on the namespace is only ever held for one operation in memory, never across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::routes::sharing::{Link, Temporary};
use crate::store::Namespace;
use crate::store::content::Quota;
use crate::store::jobs::{Job, Remembered};
use crate::store::sessions::Sessions;

/// The number of the account's root and home namespace.
pub(crate) const ROOT_NAMESPACE: &str = "1234567890";

/// A member whom an application of a team may act for.
pub(crate) const MEMBER_ID: &str = "dbmid:AAEmulatedMember";

/// 40 characters, as every account id (users_common.stone, AccountId).
pub(crate) const ACCOUNT_ID: &str = "dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc";

pub(crate) struct Account {
    namespace: Mutex<Namespace>,
    sessions: Mutex<Sessions>,
    jobs: Mutex<Remembered<Job>>,
    links: Mutex<Remembered<Link>>,
    temporaries: Mutex<Remembered<Temporary>>,
    quota: Arc<Quota>,
    /// Entries of a page when the request has no limit.
    pub(crate) page_entries: usize,
}

impl Account {
    pub(crate) fn new(max_bytes: u64, page_entries: usize) -> Self {
        Self {
            namespace: Mutex::new(Namespace::new()),
            sessions: Mutex::default(),
            jobs: Mutex::default(),
            links: Mutex::default(),
            temporaries: Mutex::default(),
            quota: Quota::new(max_bytes),
            page_entries,
        }
    }

    pub(crate) fn namespace(&self) -> MutexGuard<'_, Namespace> {
        lock(&self.namespace)
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    pub(crate) fn jobs(&self) -> MutexGuard<'_, Remembered<Job>> {
        lock(&self.jobs)
    }

    pub(crate) fn links(&self) -> MutexGuard<'_, Remembered<Link>> {
        lock(&self.links)
    }

    pub(crate) fn temporaries(&self) -> MutexGuard<'_, Remembered<Temporary>> {
        lock(&self.temporaries)
    }

    pub(crate) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// users.stone: FullAccount.
    pub(crate) fn profile() -> Value {
        json!({
            "account_id": ACCOUNT_ID,
            "name": {
                "given_name": "Emulated",
                "surname": "User",
                "familiar_name": "Emulated",
                "display_name": "Emulated User",
                "abbreviated_name": "EU",
            },
            "email": "user@emulator.example",
            "email_verified": true,
            "disabled": false,
            "locale": "en",
            "referral_link": "https://emulator.example/referral",
            "is_paired": false,
            "account_type": { ".tag": "basic" },
            "root_info": root_info(),
        })
    }
}

/// common.stone: RootInfo of an account without a team.
pub(crate) fn root_info() -> Value {
    json!({
        ".tag": "user",
        "root_namespace_id": ROOT_NAMESPACE,
        "home_namespace_id": ROOT_NAMESPACE,
    })
}

/// A panic while holding one of our locks leaves whole values behind, so the data stays usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
