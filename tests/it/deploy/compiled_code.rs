//! Compiled code that is kept: a restart compiles nothing, and nothing that cannot be trusted is ever loaded.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{assert_version, sha256, version};
use crate::harness::Host;

/// A folder of compiled code of the host's own.
const OWN_FOLDER: &str = "[host]\ncompiled = '${folder}/compiled'";

/// A host with versions 1, 2 and 3 deployed, stopped again.
async fn stopped_host() -> Host {
    let mut host = Host::builder().configuration(OWN_FOLDER).start().await;
    for number in 1..=3 {
        host.deploy_and_wait(&format!("service-{number}"), &version(number)).await;
    }
    host.stop().await;
    host
}

async fn assert_all_serve(host: &Host) {
    for number in 1..=3 {
        assert_version(host, &format!("service-{number}"), number).await;
    }
}

/// The file of compiled code of each version.
fn entries(host: &Host) -> [PathBuf; 3] {
    [1, 2, 3].map(|number| {
        let component = host.component_path(&format!("service-{number}"));
        let name = sha256(&fs::read(component).unwrap());
        let files = fs::read_dir(host.folder().join("compiled")).unwrap().map(|entry| entry.unwrap().path());
        let mut found = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name));
        let entry = found.next().unwrap_or_else(|| panic!("nothing is kept of version {number}"));
        assert_eq!(found.next(), None);
        entry
    })
}

/// Which file each entry is, and its bytes: a file that was written again is another one.
fn identities(entries: &[PathBuf]) -> BTreeMap<PathBuf, (u64, String)> {
    let identity = |path: &PathBuf| (fs::metadata(path).unwrap().ino(), sha256(&fs::read(path).unwrap()));
    entries.iter().map(|path| (path.clone(), identity(path))).collect()
}

/// The lines that say that an entry of compiled code was thrown away.
fn distrusted(host: &Host, entry: &Path) -> usize {
    host.log().with(&["cannot be trusted", &entry.display().to_string()]).len()
}

#[tokio::test]
async fn a_restart_with_compiled_code_compiles_nothing() {
    let mut host = stopped_host().await;
    let entries = entries(&host);
    let before = identities(&entries);
    host.start().await;
    assert_all_serve(&host).await;
    assert_eq!(identities(&entries), before);
    for line in host.log().with(&[" deployed", "prepared_ms="]) {
        println!("{}", line.split(" deployed ").last().unwrap_or_default());
    }
    assert_eq!(host.log().with(&["cannot be trusted"]), Vec::<String>::new());
}

#[tokio::test]
async fn an_entry_that_is_corrupt_or_cut_off_or_of_other_content_is_made_anew_and_never_loaded() {
    let mut host = stopped_host().await;
    let entries = entries(&host);
    let good = identities(&entries);
    let [flipped, cut, foreign] = &entries;
    let whole = fs::read(flipped).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(flipped, &bytes).unwrap();
    fs::copy(cut, host.folder().join("of-version-2")).unwrap();
    fs::write(cut, &fs::read(cut).unwrap()[..whole.len() / 2]).unwrap();
    // Good code with a good authentication code, but of another component.
    fs::copy(host.folder().join("of-version-2"), foreign).unwrap();
    host.start().await;
    for entry in &entries {
        assert_eq!(distrusted(&host, entry), 1, "{}", entry.display());
    }
    assert_all_serve(&host).await;
    let sound = |identities: BTreeMap<PathBuf, (u64, String)>| -> Vec<String> {
        identities.into_values().map(|(_, hash)| hash).collect()
    };
    assert_eq!(sound(identities(&entries)), sound(good), "the compiler gives the same code again");
}

#[tokio::test]
async fn entries_made_with_another_key_are_made_anew() {
    let mut host = stopped_host().await;
    let entries = entries(&host);
    for key in [Some(vec![7; 64]), Some(b"short".to_vec()), None] {
        let path = host.folder().join("compiled/key");
        match &key {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        host.start().await;
        for entry in &entries {
            assert_eq!(distrusted(&host, entry), 1, "{} with {key:?}", entry.display());
        }
        assert_all_serve(&host).await;
        host.stop().await;
    }
}

#[tokio::test]
async fn an_entry_shorter_than_an_authentication_code_is_made_anew() {
    let mut host = stopped_host().await;
    let entries = entries(&host);
    for entry in &entries {
        fs::write(entry, b"short").unwrap();
    }
    host.start().await;
    assert_all_serve(&host).await;
    assert!(entries.iter().all(|entry| distrusted(&host, entry) == 1));
}

#[tokio::test]
async fn a_folder_of_compiled_code_that_others_may_enter_is_refused_with_the_cure() {
    for mode in [0o755, 0o770, 0o701] {
        let builder = Host::builder().configuration(OWN_FOLDER).file("compiled/note", "").mode("compiled", mode);
        let (exit, log) = builder.fails_to_start(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).await;
        assert_eq!(exit.code, Some(1));
        let lines = log.with(&["the folder for compiled code", &format!("mode {mode:o}"), "chmod 700"]);
        assert_eq!(lines.len(), 1, "{:?}", log.lines());
    }
}

#[tokio::test]
async fn a_new_folder_of_compiled_code_belongs_to_the_host_alone() {
    let host = Host::builder().configuration(OWN_FOLDER).services(&["version"]).start().await;
    let folder = host.folder().join("compiled");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}
