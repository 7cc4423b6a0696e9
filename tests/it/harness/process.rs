//! One process of the program: started, read, told to stop, killed. Its log is kept and shown when the test fails.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually_within};

/// How long the program may take to say where it listens.
const START_MAX: Duration = Duration::from_secs(60);

/// Lines of the log shown when a test fails, the last ones.
const SHOWN_LINES_MAX: usize = 300;

/// What a process wrote to standard error until now. Cheap to clone; outlives the process.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// All lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that contain all of `parts`.
    pub(crate) fn with(&self, parts: &[&str]) -> Vec<String> {
        self.lines().into_iter().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
    }

    /// Waits for a line that contains all of `parts`.
    ///
    /// # Panics
    /// When none comes.
    pub(crate) async fn wait_for(&self, parts: &[&str]) -> String {
        let what = format!("a line of the log with {parts:?}");
        eventually_within(PATIENCE, &what, async || self.with(parts).into_iter().next()).await
    }

    fn add(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
}

/// A running `wharf run`.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: Log,
    output: mpsc::Receiver<String>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Log::default();
        let (sender, output) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let kept = log.clone();
        let readers = vec![
            std::thread::spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }),
            std::thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    kept.add(line);
                }
            }),
        ];
        Self { child, log, output, readers }
    }

    /// The next line on standard output, or `None` when the process ended without one.
    pub(crate) async fn next_line(&self) -> Option<String> {
        eventually_within(START_MAX, "a line on standard output", async || match self.output.try_recv() {
            Ok(line) => Some(Some(line)),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(None),
        })
        .await
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Waits until it ended by itself, and until all of its log was read.
    pub(crate) async fn ended(&mut self) -> Exit {
        let child = &mut self.child;
        let ended = async || child.try_wait().expect("it is ours");
        let status = eventually_within(PATIENCE * 2, "the process ends", ended).await;
        for reader in self.readers.drain(..) {
            reader.join().expect("reading the output never fails");
        }
        Exit { code: status.code() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let lines = self.log.lines();
            eprintln!("--- log of the host (process {}, {} lines) ---", self.id(), lines.len());
            for line in lines.iter().rev().take(SHOWN_LINES_MAX).rev() {
                eprintln!("{line}");
            }
        }
    }
}
