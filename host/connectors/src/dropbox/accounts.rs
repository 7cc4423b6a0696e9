//! What all connections of this process to one account share: the pauses that Dropbox asks for, and the turns of those
//! who change the account's files.
//!
//! An account is known by how the host logs in to it (the application's key and the refresh token, or the access token,
//! and the member that is acted for), because that is all there is before it is asked for, and outlasts the access
//! tokens made from it. One account may have several logins: as soon as a process has another one at the same place,
//! each connection asks Dropbox once for the account's id, and those with the same id share. With one login there is
//! nothing to find out, and nobody asks.
//!
//! An account is forgotten with the last connection that uses it; one that is opened anew while others go on, or before
//! it is closed itself, finds what was asked of it before. Knows no route but the one that tells the id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

use super::Credentials;
use super::call::Caller;
use super::pace::Pace;
use super::root::CURRENT_ACCOUNT;

/// Writers that commit for themselves at a time: with the batch of all others, as many changes as Dropbox bears without
/// turning any away.
const LANES: usize = 2;

/// How long a call waits for the account's id: it can go ahead without.
const RECOGNITION_MAX: Duration = Duration::from_secs(3);

/// After the id could not be had, it is not asked for again before this: the login may lack the permission.
const RECOGNITION_AGAIN: Duration = Duration::from_secs(300);

/// Everything that is known to be in use.
static ACCOUNTS: Mutex<BTreeMap<(Url, Mark), Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// What an account is known by, at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// The hash of a login.
    Login([u8; 32]),
    /// What Dropbox calls it.
    Id(String),
}

/// What the connections of one account share.
#[derive(Debug)]
pub(super) struct Shared {
    /// When it may be called.
    pub(super) calls: Pace,
    /// When it may be asked to wait for changes, which Dropbox limits by itself.
    pub(super) polls: Pace,
    lanes: Arc<Semaphore>,
    batch: Semaphore,
}

impl Shared {
    fn new() -> Arc<Self> {
        let (lanes, batch) = (Arc::new(Semaphore::new(LANES)), Semaphore::new(1));
        Arc::new(Self { calls: Pace::default(), polls: Pace::default(), lanes, batch })
    }

    /// Leave to commit one file by itself, if few do.
    pub(super) fn lane(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.lanes).try_acquire_owned().ok()
    }

    /// Waits for the turn to commit many files at once.
    pub(super) async fn batch_turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // Never closed.
        self.batch.acquire().await.ok()
    }
}

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Membership {
    place: Url,
    login: Mark,
    held: Mutex<Held>,
    /// So that the id is asked for once, and the others know the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    /// When to ask for the account's id; `None` when it is known.
    ask: Option<Instant>,
}

impl Membership {
    /// Of the account at `place` that this login is for.
    pub(super) fn new(place: &Url, credentials: &Credentials, member: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        let (application, token) = match credentials {
            Credentials::AccessToken(token) => ("", token),
            Credentials::RefreshToken { app_key, refresh_token, .. } => (app_key.as_str(), refresh_token),
        };
        for part in [application, token.expose_secret(), member.unwrap_or_default()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let (place, login) = (place.clone(), Mark::Login(hash.finalize().into()));
        let shared = {
            let mut accounts = accounts();
            accounts.retain(|_, shared| shared.strong_count() > 0);
            let key = (place.clone(), login.clone());
            accounts.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                let shared = Shared::new();
                accounts.insert(key, Arc::downgrade(&shared));
                shared
            })
        };
        let held = Mutex::new(Held { shared, ask: Some(Instant::now()) });
        Self { place, login, held, asking: tokio::sync::Mutex::default() }
    }

    /// What is shared with the other connections of the account, as far as they are known.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.held().shared)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the account's id should be asked for now.
    fn wants_id(&self) -> bool {
        let ask = self.held().ask;
        ask.is_some_and(|at| at <= Instant::now()) && self.has_neighbours()
    }

    /// Whether some connection logs in to the same place in another way.
    fn has_neighbours(&self) -> bool {
        accounts().iter().any(|((place, mark), shared)| {
            *place == self.place && matches!(mark, Mark::Login(_)) && *mark != self.login && shared.strong_count() > 0
        })
    }

    /// Joins those who are known to use the account with this id.
    pub(super) fn is_of(&self, id: &str) {
        let mut accounts = accounts();
        let mut held = self.held();
        held.ask = None;
        let id = (self.place.clone(), Mark::Id(id.to_owned()));
        match accounts.get(&id).and_then(Weak::upgrade) {
            Some(known) if !Arc::ptr_eq(&known, &held.shared) => {
                known.calls.join(&held.shared.calls);
                known.polls.join(&held.shared.polls);
                accounts.insert((self.place.clone(), self.login.clone()), Arc::downgrade(&known));
                held.shared = known;
            }
            Some(_) => {}
            None => {
                accounts.insert(id, Arc::downgrade(&held.shared));
            }
        }
    }
}

fn accounts() -> MutexGuard<'static, BTreeMap<(Url, Mark), Weak<Shared>>> {
    ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Caller {
    /// What a call to this route shares with others. The account's id may first have to be asked for.
    pub(super) async fn account(&self, route: &str) -> Arc<Shared> {
        let membership = &self.membership;
        if route != CURRENT_ACCOUNT && membership.wants_id() {
            let _alone = membership.asking.lock().await;
            // Unless somebody else asked meanwhile.
            if membership.wants_id()
                && !matches!(tokio::time::timeout(RECOGNITION_MAX, self.current_account()).await, Ok(Ok(_)))
            {
                membership.held().ask = Some(Instant::now() + RECOGNITION_AGAIN);
            }
        }
        membership.shared()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(place: &str, token: &str, member: Option<&str>) -> Membership {
        let credentials = Credentials::RefreshToken {
            app_key: "key".to_owned(),
            app_secret: None,
            refresh_token: token.to_owned().into(),
        };
        Membership::new(&place.parse().unwrap(), &credentials, member)
    }

    fn share(one: &Membership, other: &Membership) -> bool {
        Arc::ptr_eq(&one.shared(), &other.shared())
    }

    #[test]
    fn an_account_is_known_by_place_login_and_member() {
        let place = "https://known.example/";
        let one = membership(place, "one", None);
        assert!(share(&one, &membership(place, "one", None)));
        for other in [
            membership("https://other.example/", "one", None),
            membership(place, "two", None),
            membership(place, "one", Some("dbmid:a")),
        ] {
            assert!(!share(&one, &other), "{other:?}");
        }
    }

    #[test]
    fn logins_of_one_account_share_once_its_id_is_known_and_so_do_later_ones() {
        let place = "https://logins.example/";
        let (one, two) = (membership(place, "one", None), membership(place, "two", None));
        assert!(one.has_neighbours() && two.has_neighbours());
        two.shared().calls.pause(Duration::from_secs(60));
        one.is_of("dbid:a");
        two.is_of("dbid:a");
        assert!(share(&one, &two));
        assert!(!one.shared().calls.remaining().is_zero());
        assert!(share(&one, &membership(place, "two", None)));
        let other = membership(place, "three", None);
        other.is_of("dbid:b");
        assert!(!share(&one, &other));
    }

    #[test]
    fn an_account_that_nobody_uses_is_forgotten() {
        let place = "https://forgotten.example/";
        let of_place = || {
            let place: Url = place.parse().unwrap();
            accounts().keys().filter(|(known, _)| *known == place).count()
        };
        let (one, two) = (membership(place, "one", None), membership(place, "two", None));
        one.is_of("dbid:a");
        one.shared().calls.pause(Duration::from_secs(60));
        drop(one);
        assert!(!two.has_neighbours());
        drop(two);
        drop(membership("https://elsewhere.example/", "one", None));
        assert_eq!(of_place(), 0);
        assert!(membership(place, "one", None).shared().calls.remaining().is_zero());
    }

    #[test]
    fn no_login_can_be_read_from_what_is_kept() {
        let text = format!("{:?}", membership("https://secret.example/", "SECRET", None));
        assert!(!text.contains("SECRET"), "{text}");
    }
}
