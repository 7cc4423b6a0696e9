//! What the tests share: hosts in folders of their own, requests to them, guests, and waiting for conditions.
//!
//! Knows how the program is started and what its answers look like. Knows nothing of what is tested.

mod answer;
mod host;
mod machine;
mod origin;
mod outside;
mod partners;
mod process;
mod raw;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use answer::Answer;
pub(crate) use host::{Host, LastError, choose_tls_provider};
pub(crate) use origin::{Origin, answer};
pub(crate) use outside::Outside;
pub(crate) use partners::{FtpServer, Partners, SftpServer};
pub(crate) use process::{Exit, Log};
pub(crate) use raw::{Raw, RawAnswer};

/// How long a condition may take to come true. Far more than any needs on an idle machine: the tests run beside
/// compilers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The component of a guest: one of `tests/guests` or of `guest-examples`, by its file name without `.wasm`.
///
/// # Panics
/// When it was not built.
#[track_caller]
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = format!("{name}.wasm");
    let places: Vec<PathBuf> = ["tests/guests/build", "guest-examples/build"]
        .iter()
        .map(|folder| repository.join(folder).join(&file))
        .collect();
    let found = places.iter().find_map(|place| std::fs::read(place).ok());
    found.unwrap_or_else(|| panic!("the guest {file} is not built (neither of {places:?} is there): run `make guests`"))
}

/// Waits until `look` finds what it looks for.
///
/// # Panics
/// After `patience`, naming `what`.
pub(crate) async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < patience, "not within {} s: {what}", patience.as_secs_f32());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until `look` finds what it looks for, for as long as is usual.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look).await
}
