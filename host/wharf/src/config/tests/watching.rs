//! A configuration that is edited while it is followed.

use std::sync::mpsc;

use super::*;

/// Longer than any look at the files takes, so that only a missing one runs into it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Followed {
    place: Place,
    watch: Watch,
    applied: mpsc::Receiver<LiveSettings>,
}

impl Followed {
    fn new(text: &str) -> Self {
        let place = Place::new();
        place.write("wharf.toml", text);
        let started = Configuration::load(Some(&place.path("wharf.toml")), Overrides::default()).unwrap();
        let (sender, applied) = mpsc::channel();
        let watch = watch(started, move |live| sender.send(live).unwrap());
        Self { place, watch, applied }
    }

    /// The settings that the next good edit brings.
    async fn applied(&self) -> LiveSettings {
        eventually(|| self.applied.try_recv().ok()).await
    }

    /// The error that the next bad edit leads to.
    async fn error(&self) -> String {
        let error = eventually(|| self.watch.last_error()).await;
        self.place.shortened(&error.to_string())
    }
}

async fn eventually<T>(condition: impl Fn() -> Option<T>) -> T {
    let asked = tokio::time::Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(asked.elapsed() < PATIENCE, "it did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const GOOD: &str = "[services.a]\nmemory = '1MiB'\n";

#[tokio::test]
async fn an_edit_is_applied() {
    let followed = Followed::new(GOOD);
    followed.place.write("wharf.toml", "[services.a]\nmemory = '2MiB'\n");
    assert_eq!(followed.applied().await.service("a").memory_bytes_max, 2 * MIB);
    assert!(followed.watch.last_error().is_none());
}

#[tokio::test]
async fn a_bad_edit_leaves_the_last_good_one_in_force_and_is_told_until_it_is_mended() {
    let followed = Followed::new(GOOD);
    followed.place.write("wharf.toml", "[services.a]\nmemory = '0MiB'\n");
    assert_eq!(
        followed.error().await,
        "wharf.toml:2: services.a.memory: \"0MiB\" is out of bounds; it must be from 1MiB to 4GiB"
    );
    assert!(followed.applied.try_recv().is_err(), "nothing is applied");

    followed.place.write("wharf.toml", GOOD);
    assert_eq!(followed.applied().await.service("a").memory_bytes_max, MIB);
    eventually(|| followed.watch.last_error().is_none().then_some(())).await;
}

#[tokio::test]
async fn a_file_that_is_replaced_or_taken_away_is_noticed() {
    let followed = Followed::new(GOOD);
    followed.place.write("new", "[services.a]\nmemory = '3MiB'\n");
    std::fs::rename(followed.place.path("new"), followed.place.path("wharf.toml")).unwrap();
    assert_eq!(followed.applied().await.service("a").memory_bytes_max, 3 * MIB);

    std::fs::remove_file(followed.place.path("wharf.toml")).unwrap();
    assert_eq!(followed.error().await, "wharf.toml: cannot be read: No such file or directory (os error 2)");
}

#[tokio::test]
async fn a_rotated_secret_is_picked_up_though_the_configuration_stays_the_same() {
    let followed =
        Followed::new("[connections.team]\ntype = 'dropbox'\naccess-token = { file = 'secrets/team.token' }");
    followed.place.write("secrets/team.token", "");
    assert_eq!(
        followed.error().await,
        "wharf.toml:3: connections.team.access-token.file: the file secrets/team.token is empty"
    );
    followed.place.write("secrets/team.token", "rotated");
    assert!(followed.applied().await.connections.contains_key("team"));
}

#[tokio::test]
async fn what_a_configuration_lacked_is_found_when_it_appears_elsewhere() {
    let followed = Followed::new(GOOD);
    followed.place.write("wharf.toml", "[connections.later]\ntype = 'local'\nfolder = 'later'");
    assert!(followed.error().await.starts_with("wharf.toml:1: connections.later: "));
    std::fs::create_dir(followed.place.path("later")).unwrap();
    assert!(followed.applied().await.connections.contains_key("later"));
}

/// What is logged when a configuration becomes each of these, good or bad.
fn logged(place: &Place, texts: &[&str]) -> String {
    let (error, _kept_open) = tokio::sync::watch::channel(None);
    let mut follower = watch::Follower::new(place.load(GOOD).unwrap(), |_| {}, error);
    let log = Arc::new(std::fs::File::create(place.path("log")).unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(log).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || {
        for text in texts {
            match place.load(text) {
                Ok(configuration) => follower.succeeded(configuration),
                Err(error) => follower.failed(error),
            }
        }
    });
    std::fs::read_to_string(place.path("log")).unwrap()
}

#[test]
fn the_same_error_is_logged_once() {
    let log = logged(&Place::new(), &["aaaa = 1", "aaaa = 1", "bbbb = 1", "bbbb = 1", GOOD, "bbbb = 1"]);
    assert_eq!(log.matches("aaaa: unknown key").count(), 1, "{log}");
    assert_eq!(log.matches("bbbb: unknown key").count(), 2, "again after it was mended:\n{log}");
}

#[test]
fn changed_settings_that_wait_for_a_restart_are_logged_once() {
    let edited = "[http]\nlisten = '127.0.0.1:1'\n[host]\ndrain = '1s'";
    let log = logged(&Place::new(), &[edited, edited]);
    assert_eq!(log.matches("settings=\"host.drain, http.listen\"").count(), 1, "{log}");
}
