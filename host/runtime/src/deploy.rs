//! The deploy folder: which files in it are services, when a file is whole, and what becomes of each.
//!
//! Events of the operating system are hints that make it quick; the periodic scan is the truth. A file is taken when
//! its writer has closed it or it was renamed in, or, where no event says so, when it has not changed for a while.
//! What cannot serve leaves what serves in place. Only files directly in the folder whose names end in `.wasm` and do
//! not begin with a dot are services; sub-folders and everything else are left alone. A folder that is gone takes
//! nothing down: its services go on until it is back and says otherwise.

mod files;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::Shared;
use crate::generation::{ContentHash, Generation, PrepareError, inspect};
use crate::guest::{CallChain, Surroundings};
use crate::invocation::InvocationId;
use crate::lane::SliceClock;
use crate::service::Service;

use files::{FileEvent, Folder, Stamp, Watch};

/// Without an event that says that a writer has finished, a file must have kept its size and time for so long.
const STABLE_FOR: Duration = Duration::from_secs(1);

/// A writer that neither wrote nor closed for so long is taken for gone: it was a link, or its end was lost.
const WRITER_SILENCE_MAX: Duration = Duration::from_secs(15);

/// A file that is gone stays gone for so long before its service is undeployed: some tools replace a file by deleting
/// it and writing a new one.
const GONE_FOR: Duration = Duration::from_millis(200);

/// Events that follow each other so closely are handled together.
const SETTLE: Duration = Duration::from_millis(10);

/// Files read and prepared at once. Each holds its component in memory, and interpreted ones wait for the compiler.
const JOBS_MAX: usize = 8;

/// How the deploy folder is.
#[derive(Debug, Clone, Default)]
pub struct FolderStatus {
    /// Why it cannot be read at the moment.
    pub error: Option<String>,
    /// Files found at the start that neither serve nor were refused yet. `None` before the first scan.
    pub pending: Option<usize>,
}

impl FolderStatus {
    /// Whether everything that lay in the folder at the start serves or is refused.
    pub fn is_settled(&self) -> bool {
        self.pending == Some(0)
    }
}

/// The task that watches the folder.
pub(crate) struct Deployer {
    shared: Arc<Shared>,
    folder: Folder,
    watch: Watch,
    events: mpsc::Receiver<FileEvent>,
    files: HashMap<String, FileState>,
    /// Names found by the first scan that are not settled yet.
    initial: Option<BTreeSet<String>>,
    jobs: JoinSet<JobEnd>,
    /// Jobs begun. No two have a number in common, also when a file of the same name went and came back.
    jobs_begun: u64,
    places: Arc<Semaphore>,
}

struct FileState {
    stamp: Stamp,
    /// Since when the stamp is what it is.
    since: Instant,
    /// An event said that the writer is done with it.
    closed: bool,
    /// When an event last said that somebody writes.
    written: Option<Instant>,
    /// A job was begun for this stamp.
    taken: bool,
    /// Number of the newest job; results of older ones are void.
    job: u64,
    gone_since: Option<Instant>,
}

struct JobEnd {
    name: String,
    job: u64,
    result: JobResult,
}

enum JobResult {
    /// It changed while it was read.
    Changed,
    /// It is what serves already.
    Same,
    Prepared(Box<Generation>, Duration),
    Refused(Option<ContentHash>, String),
}

#[derive(PartialEq, Eq)]
enum Finished {
    Done,
    LookAgain,
}

impl Deployer {
    /// Begins to watch the folder. Made before the host says that it listens: the end of a file that is written right
    /// after that must not be missed.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let folder = Folder::new(shared.settings.services_folder.clone());
        let (watch, events) = Watch::new(&folder);
        Self {
            shared,
            folder,
            watch,
            events,
            files: HashMap::new(),
            initial: None,
            jobs: JoinSet::new(),
            jobs_begun: 0,
            places: Arc::new(Semaphore::new(JOBS_MAX)),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut next_scan = tokio::time::Instant::now();
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => {
                    self.note(event);
                    self.drain();
                    next_scan = next_scan.min(tokio::time::Instant::now() + SETTLE);
                }
                Some(ended) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    match ended {
                        Ok(ended) => {
                            if self.finish(ended) == Finished::LookAgain {
                                next_scan = next_scan.min(tokio::time::Instant::now() + STABLE_FOR);
                            }
                        }
                        Err(error) => tracing::error!(%error, "preparing a service failed by the host's own fault"),
                    }
                }
                () = tokio::time::sleep_until(next_scan) => {
                    self.watch.renew(&self.folder).await;
                    let next = self.scan().await;
                    next_scan = tokio::time::Instant::now() + next;
                }
            }
        }
    }

    fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
    }

    fn note(&mut self, event: FileEvent) {
        let (name, closed) = match event {
            FileEvent::Closed(name) => (name, true),
            FileEvent::Written(name) => (name, false),
            FileEvent::Rescan => return,
        };
        let file = self.files.entry(name).or_insert_with(FileState::unseen);
        file.closed = closed;
        file.written = (!closed).then(Instant::now);
    }

    /// Looks at the folder and begins what is due. Returns when to look again.
    async fn scan(&mut self) -> Duration {
        let interval = self.shared.settings.scan_interval;
        self.drop_idle_instances();
        let found = match self.folder.list().await {
            Ok(found) => found,
            Err(error) => {
                let message = format!("{}: {error}; what serves goes on", self.folder.path().display());
                let news = self.shared.folder.borrow().error.as_ref() != Some(&message);
                if news {
                    tracing::warn!("the folder of services cannot be read: {message}");
                }
                let pending = self.initial.as_ref().map_or(0, BTreeSet::len);
                self.shared.folder.send_replace(FolderStatus { error: Some(message), pending: Some(pending) });
                return interval;
            }
        };
        if self.shared.folder.borrow().error.is_some() {
            tracing::info!("the folder of services can be read again");
        }
        let first = self.initial.is_none();
        if first {
            self.initial = Some(found.keys().cloned().collect());
        }
        let mut next = interval;
        for (name, stamp) in &found {
            next = next.min(self.consider(name, *stamp, first).unwrap_or(interval));
        }
        next = next.min(self.consider_gone(&found).unwrap_or(interval));
        self.tell_pending();
        next
    }

    /// Begins a job for a file that is whole. Returns when to look again, if soon.
    fn consider(&mut self, name: &str, stamp: Stamp, first: bool) -> Option<Duration> {
        let now = Instant::now();
        let file = self.files.entry(name.to_owned()).or_insert_with(FileState::unseen);
        file.gone_since = None;
        if file.stamp != stamp {
            file.stamp = stamp;
            file.since = now;
            file.taken = false;
        }
        if file.taken {
            return None;
        }
        let old_enough = if first { stamp.age() } else { Some(now.duration_since(file.since)) };
        let whole = match (file.closed, file.written) {
            (true, _) => true,
            (false, Some(written)) => written.elapsed() >= WRITER_SILENCE_MAX,
            (false, None) => old_enough.is_some_and(|age| age >= STABLE_FOR),
        };
        if !whole {
            return Some(STABLE_FOR.saturating_sub(now.duration_since(file.since)).max(SETTLE * 5));
        }
        file.taken = true;
        // What was said of this content does not hold for the next.
        file.closed = false;
        file.written = None;
        self.jobs_begun += 1;
        file.job = self.jobs_begun;
        let job = file.job;
        self.begin(name.to_owned(), stamp, job);
        None
    }

    /// Undeploys what is gone for good. Returns when to look again, if soon.
    fn consider_gone(&mut self, found: &BTreeMap<String, Stamp>) -> Option<Duration> {
        let mut soon = None;
        let mut gone = Vec::new();
        for (name, file) in &mut self.files {
            if found.contains_key(name) {
                continue;
            }
            let since = *file.gone_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= GONE_FOR {
                gone.push(name.clone());
            } else {
                soon = Some(GONE_FOR);
            }
        }
        for name in gone {
            self.files.remove(&name);
            self.settle(&name);
            self.undeploy(&name);
        }
        soon
    }

    fn begin(&mut self, name: String, stamp: Stamp, job: u64) {
        let service = self.service(&name);
        let shared = Arc::clone(&self.shared);
        let places = Arc::clone(&self.places);
        let path = shared.settings.services_folder.join(format!("{name}.wasm"));
        self.jobs.spawn(async move {
            let _place = places.acquire().await;
            let result = prepare(&shared, &service, &path, stamp).await;
            JobEnd { name, job, result }
        });
    }

    fn finish(&mut self, ended: JobEnd) -> Finished {
        let JobEnd { name, job, result } = ended;
        // A file that is gone, or changed again since, has made this result void.
        let Some(file) = self.files.get_mut(&name).filter(|file| file.job == job) else { return Finished::Done };
        let Some(service) = self.shared.services.load().get(&*name).cloned() else { return Finished::Done };
        match result {
            JobResult::Changed => {
                file.taken = false;
                return Finished::LookAgain;
            }
            JobResult::Same => service.clear_refused(),
            JobResult::Prepared(generation, took) => {
                tracing::info!(
                    service = name,
                    generation = &generation.content.as_str()[..12],
                    export = generation.export_name(),
                    bytes = generation.component_bytes,
                    prepared_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    "deployed"
                );
                let old = service.replace(Some(Arc::new(*generation)));
                self.retire(old);
            }
            JobResult::Refused(content, reason) => {
                let serving =
                    if service.current.load().is_some() { "; the version before it goes on serving" } else { "" };
                tracing::warn!(service = name, "not deployed: {reason}{serving}");
                service.refuse(content, reason);
            }
        }
        self.settle(&name);
        self.tell_pending();
        Finished::Done
    }

    fn undeploy(&self, name: &str) {
        let Some(service) = self.shared.services.load().get(name).cloned() else { return };
        self.shared.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services.remove(name);
            services
        });
        tracing::info!(service = name, "undeployed: its file is gone");
        self.retire(service.replace(None));
    }

    /// Lets requests in flight end, up to the drain timeout.
    fn retire(&self, generation: Option<Arc<Generation>>) {
        let Some(generation) = generation else { return };
        let patience = self.shared.settings.drain_timeout;
        let generation = Arc::downgrade(&generation);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(generation) = generation.upgrade() {
                tracing::warn!(
                    generation = &generation.content.as_str()[..12],
                    "requests on a replaced version did not end within the drain timeout: they are ended"
                );
                generation.end_requests_in_flight();
            }
        });
    }

    fn service(&self, name: &str) -> Arc<Service> {
        if let Some(service) = self.shared.services.load().get(name) {
            return Arc::clone(service);
        }
        let service = Service::new(name);
        self.shared.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services.insert(Arc::clone(&service.name), Arc::clone(&service));
            services
        });
        service
    }

    fn settle(&mut self, name: &str) {
        if let Some(initial) = &mut self.initial {
            initial.remove(name);
        }
    }

    fn tell_pending(&self) {
        let pending = self.initial.as_ref().map(BTreeSet::len);
        self.shared.folder.send_if_modified(|status| {
            let changed = status.pending != pending || status.error.is_some();
            *status = FolderStatus { error: None, pending };
            changed
        });
    }

    fn drop_idle_instances(&self) {
        for service in self.shared.services.load().values() {
            if let Some(generation) = &*service.current.load() {
                generation.drop_idle_instances();
            }
        }
    }
}

impl FileState {
    fn unseen() -> Self {
        Self {
            stamp: Stamp::default(),
            since: Instant::now(),
            closed: false,
            written: None,
            taken: false,
            job: 0,
            gone_since: None,
        }
    }
}

/// From a file to a generation.
async fn prepare(shared: &Arc<Shared>, service: &Arc<Service>, path: &std::path::Path, stamp: Stamp) -> JobResult {
    let begun = Instant::now();
    let bytes = match files::read_whole(path, stamp, shared.settings.component_bytes_max).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return JobResult::Changed,
        Err(reason) => return JobResult::Refused(None, reason),
    };
    let hashed = tokio::task::spawn_blocking(move || (ContentHash::of(&bytes), bytes)).await;
    let Ok((content, bytes)) = hashed else { return JobResult::Changed };
    if service.current.load().as_ref().is_some_and(|current| current.content == content) {
        return JobResult::Same;
    }
    if let Err(error) = inspect(&bytes) {
        return JobResult::Refused(Some(content), reason(&error));
    }
    let surroundings = Arc::new(Surroundings {
        shared: Arc::clone(shared),
        settings: shared.live.load_full(),
        service: Arc::clone(&service.name),
        id: InvocationId::generate(),
        deadline: tokio::time::Instant::now(),
        chain: CallChain::new(Arc::clone(&service.name), None),
        clock: SliceClock::start(Arc::default()),
    });
    match shared.preparation.prepare(content.clone(), bytes, surroundings).await {
        Ok(generation) => JobResult::Prepared(Box::new(generation), begun.elapsed()),
        Err(error) => JobResult::Refused(Some(content), reason(&error)),
    }
}

fn reason(error: &PrepareError) -> String {
    let mut reason = error.to_string();
    if let PrepareError::Truncated(cause)
    | PrepareError::Compile(cause)
    | PrepareError::Link(cause)
    | PrepareError::Instantiate(cause) = error
    {
        reason.push_str(&format!(": {cause:#}"));
    }
    reason
}
