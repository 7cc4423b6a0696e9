//! The folder itself: which files count, when a file is whole, links, many files at once, a folder that goes and comes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;

use super::{assert_version, marker, padded, version};
use crate::harness::{Host, eventually};

#[tokio::test]
async fn hidden_and_temporary_and_oddly_named_files_and_sub_folders_are_no_services() {
    let host = Host::with(&[]).await;
    let folder = host.folder().join("services");
    let long = format!("{}.wasm", "n".repeat(129));
    let ignored = [
        ".hidden.wasm",
        "copy.wasm.part",
        "copy.wasm~",
        "copy.WASM",
        "copy",
        ".wasm",
        "two words.wasm",
        "gr\u{fc}n.wasm",
        "semi;colon.wasm",
        "new\nline.wasm",
        &long,
    ];
    for name in ignored {
        fs::write(folder.join(name), version(1)).unwrap();
    }
    fs::create_dir_all(folder.join("folder.wasm")).unwrap();
    fs::create_dir_all(folder.join("below")).unwrap();
    fs::write(folder.join("below/inner.wasm"), version(1)).unwrap();
    let longest = "n".repeat(128);
    for name in ["A-z_0.9", &longest] {
        host.deploy_and_wait(name, &version(1)).await;
        assert_version(&host, name, 1).await;
    }
    let names: Vec<String> = host.services().await.into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["A-z_0.9", &longest]);
    for target in ["two%20words", ".hidden", "below/inner", "folder"] {
        host.get(target).await.problem(404);
    }
}

async fn deployed_at(host: &Host, name: &str) -> Option<String> {
    host.service(name).await.and_then(|status| status.deployed_at)
}

#[tokio::test]
async fn the_same_content_again_is_no_new_version() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("service", &version(1)).await;
    let since = deployed_at(&host, "service").await;
    assert!(since.is_some());
    let path = host.component_path("service");
    let again: [&dyn Fn(); 3] = [
        &|| fs::File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap(),
        &|| host.copy_in("service", &version(1)),
        &|| host.deploy("service", &version(1)),
    ];
    for (turn, again) in again.into_iter().enumerate() {
        again();
        // A file that came later serves: the one before was looked at.
        host.deploy_and_wait(&format!("later-{turn}"), &version(1)).await;
    }
    assert_eq!(deployed_at(&host, "service").await, since);
    host.deploy_and_wait("service", &version(2)).await;
    let deployments = || host.log().with(&[" deployed ", "service=\"service\""]).len();
    eventually("the log has the new version", async || (deployments() > 1).then_some(())).await;
    assert_eq!(deployments(), 2);
}

#[tokio::test]
async fn a_slow_writer_is_waited_for_and_nothing_is_said_before_it_has_finished() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("old", &version(1)).await;
    let component = padded(&version(2), 20_000_000);
    let mut new = fs::File::create(host.component_path("new")).unwrap();
    let mut old = fs::File::create(host.component_path("old")).unwrap();
    for piece in component.chunks(component.len().div_ceil(10)) {
        new.write_all(piece).unwrap();
        old.write_all(piece).unwrap();
        let begun = Instant::now();
        // The writer takes half a second over each piece; meanwhile the host is looked at.
        while begun.elapsed() < Duration::from_millis(500) {
            let known = host.service("new").await;
            assert!(known.is_none(), "{known:?}");
            assert_version(&host, "old", 1).await;
        }
    }
    drop((new, old));
    for name in ["new", "old"] {
        host.wait_for(name, "the new version serves", |status| {
            assert!(status.last_error.is_none(), "{status:?}");
            status.state == "serving" && status.component_bytes == Some(component.len() as u64)
        })
        .await;
        assert_version(&host, name, 2).await;
    }
    assert_eq!(host.log().with(&["not deployed"]), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_is_removed_takes_nothing_down_and_counts_again_when_it_is_back() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("stays", &version(1)).await;
    host.deploy_and_wait("goes", &version(2)).await;
    let folder = host.folder().join("services");
    fs::remove_dir_all(&folder).unwrap();
    eventually("the status says that the folder cannot be read", async || {
        host.admin("/api/v1/services").await.json()["folder_error"].as_str().map(|error| {
            assert!(error.contains("what serves goes on"), "{error}");
        })
    })
    .await;
    assert_version(&host, "stays", 1).await;
    assert_version(&host, "goes", 2).await;
    // Made elsewhere and renamed, so that the host sees it whole.
    let new = host.folder().join("new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("stays.wasm"), version(3)).unwrap();
    fs::write(new.join("comes.wasm"), version(4)).unwrap();
    fs::rename(&new, &folder).unwrap();
    host.wait_until_gone("goes").await;
    host.wait_for("comes", "it serves", |status| status.state == "serving").await;
    eventually("the new version answers", async || {
        (host.get("stays").await.expect(200).text() == marker(3)).then_some(())
    })
    .await;
    assert_eq!(host.admin("/api/v1/services").await.json()["folder_error"], serde_json::Value::Null);
    // The new folder is watched as the old one was.
    host.deploy_and_wait("stays", &version(5)).await;
    host.get("goes").await.problem(404);
}

#[tokio::test]
async fn a_symbolic_link_is_a_service_and_so_is_what_it_points_to_next() {
    let host = Host::with(&[]).await;
    let released = |number: u32| {
        let path = host.folder().join(format!("release-{number}.wasm"));
        fs::write(&path, version(number)).unwrap();
        path
    };
    symlink(released(1), host.component_path("linked")).unwrap();
    host.wait_for("linked", "it serves", |status| status.state == "serving").await;
    assert_version(&host, "linked", 1).await;
    let next = host.folder().join("next");
    symlink(released(2), &next).unwrap();
    fs::rename(&next, host.component_path("linked")).unwrap();
    eventually("the new target answers", async || {
        (host.get("linked").await.expect(200).text() == marker(2)).then_some(())
    })
    .await;
    // Of what changes elsewhere no event tells; the scan finds it.
    fs::write(host.folder().join("release-2.wasm"), version(3)).unwrap();
    eventually("the changed target answers", async || {
        (host.get("linked").await.expect(200).text() == marker(3)).then_some(())
    })
    .await;
    fs::remove_file(host.folder().join("release-2.wasm")).unwrap();
    host.wait_until_gone("linked").await;
}

const MANY: u32 = 1000;

#[tokio::test]
async fn a_thousand_components_at_once_all_serve() {
    let host = Host::with(&[]).await;
    let begun = Instant::now();
    for number in 1..=MANY {
        host.copy_in(&format!("service-{number}"), &version(number));
    }
    let dropped = begun.elapsed();
    // The first run on a machine compiles them; later ones have the compiled code.
    let patience = Duration::from_secs(600);
    crate::harness::eventually_within(patience, "all serve", async || {
        let serving = host.services().await.into_iter().filter(|service| {
            assert_ne!(service.state, "failed", "{service:?}");
            service.state == "serving"
        });
        let all = serving.count() == MANY as usize;
        if !all {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        all.then_some(())
    })
    .await;
    println!(
        "{MANY} components: written in {:.1} s, all serve after {:.1} s, {} MiB of memory",
        dropped.as_secs_f32(),
        begun.elapsed().as_secs_f32(),
        host.memory_bytes() >> 20
    );
    let numbers = futures::stream::iter(1..=MANY);
    let host = &host;
    numbers
        .for_each_concurrent(8, async |number| assert_version(host, &format!("service-{number}"), number).await)
        .await;
}
