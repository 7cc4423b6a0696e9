//! The end of every wait for a server: a thread that waits longer than it should finds its socket shut down.
//!
//! The library that speaks SSH blocks, and its own time limit does not hold against a server that sends a little all
//! the time. Knows nothing of SSH.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often deadlines are looked at; by so much a wait may last too long.
const TICK: Duration = Duration::from_millis(100);

/// No deadline.
const NONE: u64 = u64::MAX;

/// Watches over one socket.
pub(super) struct Watch {
    socket: Option<TcpStream>,
    began: Instant,
    /// In milliseconds since `began`.
    deadline: AtomicU64,
    is_cut: AtomicBool,
}

impl Watch {
    /// Begins to watch. Must be called within a runtime, which does the watching.
    pub(super) fn over(socket: TcpStream) -> Arc<Self> {
        let watch = Arc::new(Self { socket: Some(socket), ..Self::idle() });
        let watched = Arc::downgrade(&watch);
        tokio::spawn(async move {
            while let Some(watch) = watched.upgrade() {
                if watch.now() > watch.deadline.load(Ordering::Acquire) {
                    watch.cut();
                    return;
                }
                drop(watch);
                tokio::time::sleep(TICK).await;
            }
        });
        watch
    }

    /// One that watches over nothing.
    fn idle() -> Self {
        Self { socket: None, began: Instant::now(), deadline: AtomicU64::new(NONE), is_cut: AtomicBool::new(false) }
    }

    /// From now to the drop of the guard, a wait may last so long, and not longer than one that it is part of.
    pub(super) fn within(&self, limit: Duration) -> Guard<'_> {
        let before = self.deadline.load(Ordering::Acquire);
        let mut guard = Guard { watch: self, before };
        guard.again(limit);
        guard
    }

    /// Ends every wait now and for good.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        if let Some(socket) = &self.socket {
            // Refused only when it is closed already.
            let _closed = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether a wait was ended.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Whether the other side has closed or reset the connection, as far as is known here; nothing is waited for.
    pub(super) fn is_closed(&self) -> bool {
        let Some(socket) = &self.socket else { return self.is_cut() };
        let is_gone = match socket.peek(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.is_cut() || is_gone
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// While it lives, a deadline is in force.
pub(super) struct Guard<'a> {
    watch: &'a Watch,
    before: u64,
}

impl Guard<'_> {
    /// There was progress: the time begins anew.
    pub(super) fn again(&mut self, limit: Duration) {
        let deadline = self.watch.now().saturating_add(limit.as_millis() as u64);
        self.watch.deadline.store(deadline.min(self.before), Ordering::Release);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.watch.deadline.store(self.before, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_wait_for_a_silent_server_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let watch = Watch::over(socket.try_clone().unwrap());
        let waiting = std::thread::spawn(move || {
            let outer = watch.within(Duration::from_millis(50));
            let _inner = watch.within(Duration::from_secs(3600));
            let read = socket.read(&mut [0]);
            drop(outer);
            (read.unwrap_or(0), watch.is_cut())
        });
        let (read, is_cut) = tokio::task::spawn_blocking(|| waiting.join().unwrap()).await.unwrap();
        assert_eq!((read, is_cut), (0, true));
    }
}
