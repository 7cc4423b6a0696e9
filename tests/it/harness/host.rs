//! A host in a folder of its own: configured, started, asked, stopped, started again.
//!
//! Compiled code is kept in one folder for all tests and all their runs, so that an interpreted guest is compiled once.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::machine::Turn;
use super::process::Process;
use super::{Answer, Exit, Log, Raw, eventually, eventually_within, guest};

/// How long a host may take to be ready: it may have to compile interpreters first, beside other hosts that do.
const READY_MAX: Duration = Duration::from_secs(300);

/// A running host.
pub(crate) struct Host {
    place: Place,
    process: Option<Process>,
    http: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    _turn: Rc<Turn>,
}

/// The folder of a host, and how the program is started in it.
struct Place {
    folder: TempDir,
    variables: Vec<(String, String)>,
    placeholders: Vec<(String, String)>,
}

/// A host about to be started.
pub(crate) struct Builder {
    place: Place,
    configuration: String,
    alone: bool,
}

/// A service as `/api/v1/services` shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServiceStatus {
    pub(crate) name: String,
    /// `preparing`, `serving` or `failed`.
    pub(crate) state: String,
    pub(crate) generation: Option<String>,
    pub(crate) export: Option<String>,
    pub(crate) last_error: Option<LastError>,
    pub(crate) last_failure: Option<LastFailure>,
    pub(crate) component_bytes: Option<u64>,
    pub(crate) deployed_at: Option<String>,
    pub(crate) invocations: u64,
    pub(crate) failures: u64,
    pub(crate) in_flight: u64,
}

/// Why the newest version of a service does not serve.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LastError {
    pub(crate) generation: Option<String>,
    pub(crate) reason: String,
}

/// The last invocation that failed by the service's fault.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LastFailure {
    pub(crate) request_id: String,
    pub(crate) message: String,
    pub(crate) details: Option<String>,
}

#[derive(Deserialize)]
struct Services {
    services: Vec<ServiceStatus>,
}

/// Chooses the one TLS provider of this process, for whoever makes a client.
pub(crate) fn choose_tls_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("nobody else installs one");
    });
}

impl Builder {
    /// The configuration in TOML. `${folder}` is the host's own folder, `${NAME}` what [`Builder::set`] says. Folders
    /// and addresses need not be in it.
    pub(crate) fn configuration(mut self, toml: &str) -> Self {
        self.configuration = toml.to_owned();
        self
    }

    /// What `${name}` means in the configuration.
    #[expect(clippy::needless_pass_by_value, reason = "tests give a number or a text as they have it")]
    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.place.placeholders.push((name.to_owned(), value.to_string()));
        self
    }

    /// An environment variable of the host.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.place.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file in the host's folder, which only its owner may read.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.place.write(path, content.as_ref());
        self
    }

    /// Who may do what with a file or folder in the host's folder.
    pub(crate) fn mode(self, path: &str, mode: u32) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.place.folder.path().join(path);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is there");
        self
    }

    /// A service that lies in the folder when the host starts: the guest under a name.
    pub(crate) fn service(self, name: &str, guest_name: &str) -> Self {
        self.place.write(&format!("services/{name}.wasm"), &guest(guest_name));
        self
    }

    /// Services that lie in the folder when the host starts, each named as its guest.
    pub(crate) fn services(self, guests: &[&str]) -> Self {
        guests.iter().fold(self, |builder, guest| builder.service(guest, guest))
    }

    /// No other test runs meanwhile: for what measures times or memory.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts the host and waits until it is ready.
    pub(crate) async fn start(self) -> Host {
        let turn = Turn::take(self.alone).await;
        self.place.configure(&self.configuration);
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let client = Host::client();
        let mut host = Host { place: self.place, process: None, http: unbound, admin: unbound, client, _turn: turn };
        host.start().await;
        host
    }

    /// Starts a host that is expected not to run. Gives how it ended and its log. `arguments` follow `wharf run ...`.
    pub(crate) async fn fails_to_start(self, arguments: &[&str]) -> (Exit, Log) {
        let _turn = Turn::take(self.alone).await;
        self.place.configure(&self.configuration);
        let mut command = self.place.command();
        command.args(arguments);
        let mut process = Process::start(command);
        let line = process.next_line().await;
        assert_eq!(line, None, "the host runs");
        let exit = process.ended().await;
        (exit, process.log.clone())
    }
}

impl Host {
    pub(crate) fn builder() -> Builder {
        let place = Place {
            folder: TempDir::new().expect("a temporary folder"),
            variables: Vec::new(),
            placeholders: Vec::new(),
        };
        std::fs::create_dir(place.services()).expect("the folder is new");
        Builder { place, configuration: String::new(), alone: false }
    }

    /// A host with no configuration and these guests, each under its own name.
    pub(crate) async fn with(guests: &[&str]) -> Self {
        Self::builder().services(guests).start().await
    }

    /// A client that keeps no connection, follows no redirect, and waits for as long as a test may.
    pub(crate) fn client() -> reqwest::Client {
        choose_tls_provider();
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(READY_MAX)
            .build()
            .expect("a client")
    }

    /// Starts the program again in the same folders, after [`Host::stop`] or [`Host::kill`].
    ///
    /// # Panics
    /// When it runs, or does not become ready.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "the host runs already");
        let mut command = self.place.command();
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let process = self.process.insert(Process::start(command));
        let Some(line) = process.next_line().await else {
            let exit = process.ended().await;
            panic!("the host did not start: {exit:?}");
        };
        let address = |key: &str| -> SocketAddr {
            let value = line.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no address of {key} in {line:?}"))
        };
        (self.http, self.admin) = (address("http"), address("admin"));
        let admin = self.admin_url("/readyz");
        let client = &self.client;
        eventually_within(READY_MAX, "the host is ready", async || {
            client.get(&admin).send().await.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
    }

    /// Asks the host to stop and waits until it did.
    pub(crate) async fn stop(&mut self) -> Exit {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Ends the host on the spot.
    pub(crate) async fn kill(&mut self) -> Exit {
        self.signal(Signal::KILL);
        self.ended().await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits until the host ended.
    pub(crate) async fn ended(&mut self) -> Exit {
        let mut process = self.process.take().expect("the host runs");
        process.ended().await
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the host runs")
    }

    /// What the host wrote to standard error since it was last started.
    pub(crate) fn log(&self) -> Log {
        self.process().log.clone()
    }

    /// The host's own folder: `services/`, `state/`, `wharf.toml` and what the test put there.
    pub(crate) fn folder(&self) -> &Path {
        self.place.folder.path()
    }

    /// The address for invocations.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// The URL of something on the public listener; `path` begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The URL of something on the operators' listener; `path` begins with a slash.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// An invocation about to be sent; `target` is the service's name with path and query behind it.
    pub(crate) fn request(&self, method: Method, target: &str) -> RequestBuilder {
        self.client.request(method, self.url(&format!("/invoke/{target}")))
    }

    /// Invokes a service by GET.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(self.request(Method::GET, target)).await
    }

    /// Invokes a service by POST.
    pub(crate) async fn post(&self, target: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request(Method::POST, target).body(body)).await
    }

    /// Asks the operators' listener.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        self.send(self.client.get(self.admin_url(path))).await
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap_or_else(|error| panic!("no answer: {error:?}"));
        Answer::read(response).await.unwrap_or_else(|error| panic!("the answer broke off: {error:?}"))
    }

    /// A plain connection to the public listener.
    pub(crate) async fn connect(&self) -> Raw {
        Raw::connect(self.http).await
    }

    /// What is deployed.
    pub(crate) async fn services(&self) -> Vec<ServiceStatus> {
        let answer = self.admin("/api/v1/services").await.expect(200);
        let services: Services = serde_json::from_slice(&answer.body).expect("services as they are documented");
        services.services
    }

    /// One service, if it is known.
    pub(crate) async fn service(&self, name: &str) -> Option<ServiceStatus> {
        self.services().await.into_iter().find(|service| service.name == name)
    }

    /// Waits until a service is as `condition` wants it.
    ///
    /// # Panics
    /// When it does not become so; the message has `what` and the last status.
    pub(crate) async fn wait_for(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&ServiceStatus) -> bool,
    ) -> ServiceStatus {
        let mut last = None;
        let what = format!("service {name}: {what}");
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = self.service(name).await {
                if condition(&status) {
                    return status;
                }
                last = Some(status);
            }
            assert!(begun.elapsed() < READY_MAX, "not within {READY_MAX:?}: {what}; it is {last:#?}");
            tokio::time::sleep(super::LOOK_EVERY).await;
        }
    }

    /// Waits until nothing of a service runs any more.
    pub(crate) async fn wait_until_idle(&self, name: &str) -> ServiceStatus {
        self.wait_for(name, "nothing is in flight", |status| status.in_flight == 0).await
    }

    /// Where the component of a service lies.
    pub(crate) fn component_path(&self, name: &str) -> PathBuf {
        self.place.services().join(format!("{name}.wasm"))
    }

    /// Puts a component into the folder in one step, as a tool for deploying does: under a name that is no service,
    /// then renamed.
    pub(crate) fn deploy(&self, name: &str, component: &[u8]) {
        let temporary = self.place.services().join(format!(".{name}.part"));
        std::fs::write(&temporary, component).expect("the folder of services can be written");
        std::fs::rename(&temporary, self.component_path(name)).expect("a file can be renamed");
    }

    /// Puts a component into the folder as `cp` does: in place, byte after byte.
    pub(crate) fn copy_in(&self, name: &str, component: &[u8]) {
        std::fs::write(self.component_path(name), component).expect("the folder of services can be written");
    }

    /// Deploys a component and waits until it serves.
    pub(crate) async fn deploy_and_wait(&self, name: &str, component: &[u8]) -> ServiceStatus {
        let before = self.service(name).await.and_then(|status| status.generation);
        self.deploy(name, component);
        let news = |status: &ServiceStatus| status.state == "serving" && status.generation != before;
        self.wait_for(name, "the new version serves", news).await
    }

    /// Takes a service out of the folder.
    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.component_path(name)).expect("the component is there");
    }

    /// Waits until a name is no service any more.
    pub(crate) async fn wait_until_gone(&self, name: &str) {
        let what = format!("service {name} is gone");
        eventually(&what, async || self.service(name).await.is_none().then_some(())).await;
    }

    /// Writes another configuration; the host follows by itself.
    pub(crate) fn configure(&self, toml: &str) {
        self.place.configure(toml);
    }

    /// Bytes of the host's memory that are its own and resident (`RssAnon`): without files mapped, such as code.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// The most bytes that were resident (`VmHWM`), files mapped included, since [`Host::forget_memory_peak`].
    pub(crate) fn memory_peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Lets the kernel begin anew with what it remembers as the most (proc(5), `clear_refs`, value 5).
    pub(crate) fn forget_memory_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process().id()), "5").expect("the process is ours");
    }

    fn memory(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process().id());
        let status = std::fs::read_to_string(path).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.expect("Linux says this of every process") * 1024
    }
}

impl Place {
    fn services(&self) -> PathBuf {
        self.folder.path().join("services")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .current_dir(self.folder.path())
            .args(["run", "--config", "wharf.toml", "--services", "services", "--state", "state"])
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn write(&self, path: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder can be made");
        std::fs::write(&path, content).expect("a file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// Writes the configuration in one step. Where it says nothing of them, compiled code is shared by all tests, and
    /// connections may reach the servers on loopback.
    fn configure(&self, toml: &str) {
        let mut text = toml.replace("${folder}", &self.folder.path().display().to_string());
        for (name, value) in &self.placeholders {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        let mut document: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        let host = document.entry("host").or_insert_with(|| toml::Table::new().into());
        let host = host.as_table_mut().expect("[host] is a table");
        host.entry("compiled").or_insert_with(|| compiled_folder().display().to_string().into());
        host.entry("egress-allow").or_insert_with(|| vec!["127.0.0.0/8"].into());
        self.write("wharf.toml.part", document.to_string().as_bytes());
        let folder = self.folder.path();
        std::fs::rename(folder.join("wharf.toml.part"), folder.join("wharf.toml")).expect("a file can be renamed");
    }
}

/// Compiled code of all tests: `compiled-tests` in `$WHARF_CACHE`, or in `wharf` in the user's cache folder.
fn compiled_folder() -> PathBuf {
    let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = from("WHARF_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("wharf")))
        .or_else(|| Some(from("HOME")?.join(".cache/wharf")))
        .expect("one of WHARF_CACHE, XDG_CACHE_HOME and HOME is set");
    let folder = cache.join("compiled-tests");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).expect("the cache folder can be written");
    folder
}
