//! Connections to an origin that are kept, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use wharf_connectors::Common;
use wharf_connectors::http::Origin;

use crate::{Seen, answer, common, config, converse, get, read_until, server, text, try_with};

const LIFE_TIME: Duration = Duration::from_secs(1);

/// More than any of this takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn short_lived(url: &str) -> Origin {
    try_with(config(url), &Common { life_time: LIFE_TIME, ..common() }).unwrap()
}

#[tokio::test]
async fn a_connection_is_used_again_until_its_life_time_is_over_and_then_closed() {
    let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count_opened, count_closed) = (Arc::clone(&opened), Arc::clone(&closed));
    let url = server(move |stream| {
        let (opened, closed) = (Arc::clone(&count_opened), Arc::clone(&count_closed));
        async move {
            opened.fetch_add(1, Ordering::SeqCst);
            converse(stream, &|_, _| answer(200, &[], "hello"), &Seen::default()).await;
            closed.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let started = Instant::now();
    let origin = short_lived(&url);
    let (mut sent, mut exchanged) = (0, None);
    while exchanged.is_none() || closed.load(Ordering::SeqCst) == 0 {
        assert!(started.elapsed() < PATIENCE, "{sent} requests on {opened:?} connections, {closed:?} closed");
        assert_eq!(text(get(&origin, "/").await.unwrap()).await, "hello");
        sent += 1;
        if opened.load(Ordering::SeqCst) == 2 {
            exchanged.get_or_insert(started.elapsed());
        }
    }
    assert!(exchanged.unwrap() >= LIFE_TIME, "{exchanged:?}");
    assert!(sent > 2, "{sent}");
}

#[tokio::test]
async fn an_answer_under_way_outlives_its_pool() {
    let (opened, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, told) = (Arc::clone(&opened), Arc::clone(&go_on));
    let url = server(move |mut stream| {
        let (opened, told) = (Arc::clone(&count), Arc::clone(&told));
        async move {
            let number = opened.fetch_add(1, Ordering::SeqCst);
            if number > 0 {
                return converse(stream, &|_, _| answer(200, &[], "hello"), &Seen::default()).await;
            }
            read_until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nold ").await.unwrap();
            told.notified().await;
            stream.write_all(b"pool").await.unwrap();
        }
    })
    .await;
    let origin = short_lived(&url);
    let mut slow = get(&origin, "/").await.unwrap().content.into_stream();
    assert_eq!(slow.next().await.unwrap().unwrap(), "old ");
    // The second connection is there because the first one is busy, the third one because of the new pool.
    let started = Instant::now();
    while opened.load(Ordering::SeqCst) < 3 {
        assert!(started.elapsed() < PATIENCE);
        assert_eq!(text(get(&origin, "/").await.unwrap()).await, "hello");
    }
    go_on.notify_one();
    assert_eq!(slow.next().await.unwrap().unwrap(), "pool");
    assert!(slow.next().await.is_none());
}
