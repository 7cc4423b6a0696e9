//! The configuration: one TOML file and the command line, read, checked as a whole, and watched for changes.
//!
//! Either everything is right and there is a [`Configuration`], or there is a [`ConfigurationError`] that names every
//! problem with its file, line and key. Relative paths in the file begin at the folder of the file.
//! Knows what the settings look like; applies none of them.

mod connection;
mod document;
mod files;
mod login;
mod problem;
mod secret;
mod service;
#[cfg(test)]
mod tests;
mod values;
mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use wharf_connectors::{Egress, Remote, chain};
use wharf_runtime::{LiveSettings, RuntimeSettings, ServiceSettings};

use connection::{Connection, Kind};
use document::{Document, Section};
use files::{ContentHash, Files, folder_of};
use problem::Problem;

pub(crate) use login::{LoginSettings, before_login};
pub(crate) use problem::ConfigurationError;
pub(crate) use watch::{Watch, watch};

/// Where the configuration is looked for when none is named.
const DEFAULT_FILE: &str = "wharf.toml";

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Bytes of the hash that names a configuration: enough to tell two edits apart, short enough for a log line.
const FINGERPRINT_BYTES: usize = 8;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Up to what one machine compiles and keeps; the lower one only catches a forgotten unit.
const COMPONENT_BYTES: RangeInclusive<u64> = KIB..=GIB;
/// Every instance reserves some gigabytes of address space, of which a process has 128 TiB.
const INSTANCES: RangeInclusive<u32> = 1..=10_000;
/// Each compilation takes hundreds of megabytes and already uses every core.
const COMPILATIONS: RangeInclusive<usize> = 1..=64;
/// A shorter one is a busy loop over the folder, a longer one is not noticed as a scan any more.
const SCAN_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
/// 0 ends old generations at once; the longest timeout of a service is a day.
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 60 * 60);
/// Each takes a file descriptor and some tens of kilobytes.
const HTTP_CONNECTIONS: RangeInclusive<usize> = 1..=100_000;
/// hyper reads into a buffer of at least 8 KiB; a larger head than 1 MiB is an attack.
const HEAD_BYTES: RangeInclusive<u64> = 8 * KIB..=MIB;
/// 0 would refuse every body; the upper one is larger than any file system here.
const BODY_BYTES: RangeInclusive<u64> = 1..=16 * KIB * GIB;
/// For the waits on a client: a shorter one cuts off slow networks, a longer one holds a place for nobody.
const CLIENT_WAIT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);

/// What the command line says; it goes before the file. Paths begin at the working folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// `--services`
    pub(crate) services: Option<PathBuf>,
    /// `--state`
    pub(crate) state: Option<PathBuf>,
    /// `--listen`
    pub(crate) listen: Option<SocketAddr>,
    /// `--admin`
    pub(crate) admin: Option<SocketAddr>,
}

/// A configuration that was checked as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    /// `[host]`, fixed until the next start.
    pub(crate) host: HostSection,
    /// `[http]`, fixed until the next start.
    pub(crate) http: HttpSection,
    /// `[admin]`, fixed until the next start.
    pub(crate) admin: AdminSection,
    /// What may change while the host runs.
    pub(crate) live: LiveSettings,
    /// What is allowed but unwise, to be logged.
    pub(crate) warnings: Vec<Problem>,
    /// Names the text of the configuration file; empty when there is none.
    pub(crate) fingerprint: String,
    file: Option<PathBuf>,
    overrides: Overrides,
    egress_networks: Vec<IpNet>,
    connection_names: Vec<String>,
    /// What each open connection was opened with.
    connection_fingerprints: BTreeMap<String, ContentHash>,
    files: Files,
}

/// The table `[host]`.
#[derive(Debug, Clone)]
pub(crate) struct HostSection {
    /// Where the host keeps what it must remember.
    pub(crate) state_folder: PathBuf,
    /// For the runtime.
    pub(crate) runtime: RuntimeSettings,
    /// What is logged, in the form of `tracing-subscriber`: `info`, `warn,wharf_runtime=debug`.
    pub(crate) log: String,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The table `[http]`: the public listener.
#[derive(Debug, Clone)]
pub(crate) struct HttpSection {
    /// The address; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Whether everybody who reaches the address may call services.
    pub(crate) open: bool,
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// For the head of a request, from when the connection was opened or the answer before it ended.
    pub(crate) header_timeout: Duration,
    /// Bytes of the head of a request.
    pub(crate) head_bytes_max: usize,
    /// Bytes of the body of a request; unlimited when absent.
    pub(crate) body_bytes_max: Option<u64>,
    /// How long a body may stall.
    pub(crate) body_timeout: Duration,
}

/// The table `[admin]`: the listener for operators.
#[derive(Debug, Clone)]
pub(crate) struct AdminSection {
    /// The address; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Whether everybody who reaches the address may use it.
    pub(crate) open: bool,
}

impl Configuration {
    /// As [`Configuration::load`]; without a file, [`DEFAULT_FILE`] where there is one.
    ///
    /// # Errors
    /// As [`Configuration::load`].
    pub(crate) fn find(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigurationError> {
        Self::load(file.or_else(default_file), overrides)
    }

    /// Reads and checks a configuration file; the defaults of the product without one. Blocks for as long as a few
    /// small files take to read.
    ///
    /// # Errors
    /// Every problem that was found.
    pub(crate) fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigurationError> {
        Loading { overrides, environment: &|name| std::env::var_os(name), before: None, only: None }.load(file)
    }

    /// As [`Configuration::find`], for those who need one connection: of the others only the names are read, of the
    /// other tables only `[host]`. So nothing else need be right, and no other secret be there.
    ///
    /// # Errors
    /// As [`Configuration::load`], for what is read.
    pub(crate) fn find_for(connection: &str, file: Option<&Path>) -> Result<Self, ConfigurationError> {
        let overrides = Overrides::default();
        Loading { overrides, environment: &|name| std::env::var_os(name), before: None, only: Some(connection) }
            .load(file.or_else(default_file))
    }

    /// The same file, as it is now. A connection whose settings did not change stays open.
    ///
    /// # Errors
    /// As [`Configuration::load`].
    pub(crate) fn reload(&self) -> Result<Self, ConfigurationError> {
        let overrides = self.overrides.clone();
        Loading { overrides, environment: &|name| std::env::var_os(name), before: Some(self), only: None }
            .load(self.file.as_deref())
    }

    /// The names of all connections of the file, also of those that were not needed.
    pub(crate) fn connection_names(&self) -> &[String] {
        &self.connection_names
    }

    /// The settings that take effect at the next start only, by key.
    fn fixed_settings(&self) -> Vec<(&'static str, String)> {
        // Taken apart in full, so that a new setting cannot be forgotten here.
        let HostSection { state_folder, runtime, log, log_format } = &self.host;
        let RuntimeSettings {
            services_folder,
            compiled_folder,
            component_bytes_max,
            instances_max,
            compilations_max,
            scan_interval,
            drain_timeout,
        } = runtime;
        let HttpSection { listen, open, connections_max, header_timeout, head_bytes_max, body_bytes_max, body_timeout } =
            &self.http;
        let AdminSection { listen: admin_listen, open: admin_open } = &self.admin;
        let settings: [(&'static str, &dyn std::fmt::Debug); 19] = [
            ("host.services", services_folder),
            ("host.state", state_folder),
            ("host.compiled", compiled_folder),
            ("host.component-max", component_bytes_max),
            ("host.instances-max", instances_max),
            ("host.compilations-max", compilations_max),
            ("host.scan-interval", scan_interval),
            ("host.drain", drain_timeout),
            ("host.log", log),
            ("host.log-format", log_format),
            ("http.listen", listen),
            ("http.open", open),
            ("http.connections-max", connections_max),
            ("http.header-timeout", header_timeout),
            ("http.head-max", head_bytes_max),
            ("http.body-max", body_bytes_max),
            ("http.body-timeout", body_timeout),
            ("admin.listen", admin_listen),
            ("admin.open", admin_open),
        ];
        settings.into_iter().map(|(key, value)| (key, format!("{value:?}"))).collect()
    }

    /// The keys of settings that differ from those the host was started with, and wait for the next start.
    fn waiting_for_restart(&self, started: &Self) -> Vec<&'static str> {
        let pairs = self.fixed_settings().into_iter().zip(started.fixed_settings());
        pairs.filter(|(now, then)| now.1 != then.1).map(|(now, _)| now.0).collect()
    }
}

fn default_file<'p>() -> Option<&'p Path> {
    let default = Path::new(DEFAULT_FILE);
    default.exists().then_some(default)
}

/// A document that was read without a problem.
struct Reading<T> {
    /// What was taken from it.
    said: T,
    files: Files,
    warnings: Vec<Problem>,
    /// Names the text; empty when there is no file.
    fingerprint: String,
}

/// Reads a file, an empty one when there is none, and takes from it what is wanted; nothing when there is a problem.
fn read<T>(
    file: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<OsString>,
    take: impl FnOnce(Section<'_>) -> Option<T>,
) -> Result<Reading<T>, ConfigurationError> {
    let mut files = Files::default();
    let text = match file.map(|file| text_of(file, &mut files)).transpose() {
        Ok(text) => text.unwrap_or_default(),
        Err(problem) => return Err(ConfigurationError::new(vec![problem], files)),
    };
    let fingerprint = file.map(|_| hexadecimal(&Sha256::digest(&text)[..FINGERPRINT_BYTES])).unwrap_or_default();
    let document = Document {
        file,
        text: &text,
        folder: file.map_or_else(|| PathBuf::from("."), folder_of),
        environment,
        files: RefCell::new(files),
        problems: RefCell::default(),
        warnings: RefCell::default(),
    };
    let (tree, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        // The error's own form shows the line of the file, which may hold what should have been a reference.
        document.problem(error.span().map(|span| span.start), "", format!("not valid TOML: {}", error.message()));
    }
    // What is left of a broken file would only give problems that are not there.
    let said = if errors.is_empty() { take(Section::root(&document, tree.get_ref())) } else { None };
    let (files, problems) = (document.files.into_inner(), document.problems.into_inner());
    let warnings = document.warnings.into_inner();
    match said.filter(|_| problems.is_empty()) {
        Some(said) => Ok(Reading { said, files, warnings, fingerprint }),
        None => Err(ConfigurationError::new(problems, files)),
    }
}

fn text_of(file: &Path, files: &mut Files) -> Result<String, Problem> {
    let whole_file = |line, message: String| Problem { file: Some(file.to_owned()), line, key: String::new(), message };
    let bytes = files.read(file).map_err(|error| whole_file(None, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        whole_file(Some(line), "is not UTF-8 text".to_owned())
    })
}

/// One attempt to load.
struct Loading<'l> {
    overrides: Overrides,
    environment: &'l dyn Fn(&str) -> Option<OsString>,
    /// The configuration in force, whose connections are open.
    before: Option<&'l Configuration>,
    /// The one connection that is needed, unless everything is.
    only: Option<&'l str>,
}

impl Loading<'_> {
    fn load(self, file: Option<&Path>) -> Result<Configuration, ConfigurationError> {
        let Reading { said, files, warnings, fingerprint } =
            read(file, self.environment, |root| Some(self.sections(root)))?;
        Ok(Configuration {
            host: said.host,
            http: said.http,
            admin: said.admin,
            live: said.live,
            warnings,
            fingerprint,
            file: file.map(Path::to_owned),
            overrides: self.overrides,
            egress_networks: said.egress_networks,
            connection_names: said.connection_names,
            connection_fingerprints: said.connection_fingerprints,
            files,
        })
    }

    fn sections(&self, mut root: Section<'_>) -> Sections {
        let (host, egress_networks) = self.host(root.section("host"));
        let http = self.http(self.needed(root.section("http")));
        let admin = self.admin(self.needed(root.section("admin")), http.listen);
        let mut sections = Sections {
            host,
            http,
            admin,
            live: LiveSettings { egress: self.egress(&egress_networks), ..LiveSettings::default() },
            egress_networks,
            connection_names: Vec::new(),
            connection_fingerprints: BTreeMap::new(),
        };
        let mut kinds = BTreeMap::new();
        for (name, section) in root.named_sections("connections") {
            sections.connection_names.push(name.clone());
            if self.only.is_some_and(|only| only != name) {
                continue;
            }
            let kind = self.connection(&name, section, &mut sections);
            kinds.insert(name, kind);
        }
        if self.only.is_some() {
            return sections;
        }
        let live = &mut sections.live;
        live.service_defaults = service::read(root.section("service-defaults"), &ServiceSettings::default(), &kinds);
        for (name, section) in root.named_sections("services") {
            if let Some(problem) = values::name_problem(&name) {
                section.problem(problem);
            }
            live.services.insert(name, service::read(section, &live.service_defaults, &kinds));
        }
        root.reject_unknown_keys();
        sections
    }

    /// A table that matters only where everything does; an absent one otherwise.
    fn needed<'d>(&self, section: Section<'d>) -> Section<'d> {
        if self.only.is_some() { section.absent() } else { section }
    }

    fn host(&self, mut section: Section<'_>) -> (HostSection, Vec<IpNet>) {
        let document = section.document();
        let folder = |section: &mut Section<'_>, key, overridden: &Option<PathBuf>, default: &str| {
            let written = section.read(key, values::path).map(|path| document.resolve(&path));
            overridden.clone().or(written).unwrap_or_else(|| document.resolve(Path::new(default)))
        };
        let services_folder = folder(&mut section, "services", &self.overrides.services, "./services");
        let state_folder = folder(&mut section, "state", &self.overrides.state, "./state");
        let compiled_folder = section.read("compiled", values::path).map(|path| document.resolve(&path));
        let compiled_folder = compiled_folder.unwrap_or_else(|| state_folder.join("compiled"));
        let defaults = RuntimeSettings::new(services_folder, compiled_folder);
        let runtime = RuntimeSettings {
            component_bytes_max: section
                .read("component-max", values::size(COMPONENT_BYTES))
                .unwrap_or(defaults.component_bytes_max),
            instances_max: section.read("instances-max", values::count(INSTANCES)).unwrap_or(defaults.instances_max),
            compilations_max: section
                .read("compilations-max", values::count(COMPILATIONS))
                .unwrap_or(defaults.compilations_max),
            scan_interval: section
                .read("scan-interval", values::duration(SCAN_INTERVAL))
                .unwrap_or(defaults.scan_interval),
            drain_timeout: section.read("drain", values::duration(DRAIN)).unwrap_or(defaults.drain_timeout),
            ..defaults
        };
        let networks = section.read("egress-allow", values::networks);
        let log = section.read("log", log_filter).unwrap_or_else(|| "info".to_owned());
        let log_format = section.read("log-format", values::choice(LOG_FORMATS)).unwrap_or(LogFormat::Text);
        section.reject_unknown_keys();
        (HostSection { state_folder, runtime, log, log_format }, networks.unwrap_or_default())
    }

    fn http(&self, mut section: Section<'_>) -> HttpSection {
        let (listen, open) = listener(
            &mut section,
            &Listener {
                overridden: self.overrides.listen,
                option: "--listen",
                default_port: 8080,
                risk: "call every service",
            },
        );
        let http = HttpSection {
            listen,
            open,
            connections_max: section.read("connections-max", values::count(HTTP_CONNECTIONS)).unwrap_or(1000),
            header_timeout: section
                .read("header-timeout", values::duration(CLIENT_WAIT))
                .unwrap_or(Duration::from_secs(30)),
            head_bytes_max: section
                .read("head-max", values::size(HEAD_BYTES))
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(64 * 1024),
            body_bytes_max: section.read("body-max", values::size(BODY_BYTES)),
            body_timeout: section
                .read("body-timeout", values::duration(CLIENT_WAIT))
                .unwrap_or(Duration::from_secs(30)),
        };
        section.reject_unknown_keys();
        http
    }

    fn admin(&self, mut section: Section<'_>, http: SocketAddr) -> AdminSection {
        let description = Listener {
            overridden: self.overrides.admin,
            option: "--admin",
            default_port: 8081,
            risk: "read its state and settings",
        };
        let (listen, open) = listener(&mut section, &description);
        if collide(listen, http) {
            let message = format!("{listen} is taken by the public listener on {http}; choose another port");
            refuse_listen(&section, self.overrides.admin.map(|_| "--admin"), message);
        }
        section.reject_unknown_keys();
        AdminSection { listen, open }
    }

    /// The outgoing policy: the one in force, if nothing changed, so that connections can be kept.
    fn egress(&self, networks: &[IpNet]) -> Arc<Egress> {
        match self.before {
            Some(before) if before.egress_networks == networks => Arc::clone(&before.live.egress),
            _ => Arc::new(Egress::new(networks.to_vec())),
        }
    }

    /// Reads one connection and opens it, or keeps the open one. Its kind, when that is known.
    fn connection(&self, name: &str, mut section: Section<'_>, sections: &mut Sections) -> Option<Kind> {
        if let Some(problem) = values::name_problem(name) {
            section.problem(problem);
        }
        let kind = connection::kind(&mut section)?;
        if let Some(Connection { common, config, fingerprint }) = connection::read(name, &mut section, kind) {
            let egress = &sections.live.egress;
            let open = self.before.filter(|before| {
                Arc::ptr_eq(&before.live.egress, egress)
                    && before.connection_fingerprints.get(name) == Some(&fingerprint)
            });
            let remote = match open.and_then(|before| before.live.connections.get(name)) {
                Some(remote) => Ok(remote.clone()),
                None => Remote::new(name, common, config, egress),
            };
            match remote {
                Ok(remote) => {
                    sections.live.connections.insert(name.to_owned(), remote);
                    sections.connection_fingerprints.insert(name.to_owned(), fingerprint);
                }
                Err(error) => section.problem(chain(&error)),
            }
        }
        section.reject_unknown_keys();
        Some(kind)
    }
}

/// Everything that the tables of a document say.
struct Sections {
    host: HostSection,
    http: HttpSection,
    admin: AdminSection,
    live: LiveSettings,
    egress_networks: Vec<IpNet>,
    connection_names: Vec<String>,
    connection_fingerprints: BTreeMap<String, ContentHash>,
}

/// What makes one listener different from the other.
struct Listener {
    overridden: Option<SocketAddr>,
    /// The command line option that overrides the address.
    option: &'static str,
    default_port: u16,
    /// What anybody who reaches it can do.
    risk: &'static str,
}

/// The keys `listen` and `open` of a listener.
fn listener(section: &mut Section<'_>, listener: &Listener) -> (SocketAddr, bool) {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listener.default_port);
    let written = section.read("listen", values::socket_address);
    let listen = listener.overridden.or(written).unwrap_or(default);
    let open = section.read("open", values::flag).unwrap_or(false);
    if !open && !listen.ip().to_canonical().is_loopback() {
        let message = format!(
            "{listen} is not a loopback address, so whoever reaches this machine could {}, without a password; \
             listen on 127.0.0.1, or say that you want this with open = true under [{}]",
            listener.risk,
            section.key()
        );
        refuse_listen(section, listener.overridden.map(|_| listener.option), message);
    }
    (listen, open)
}

/// Notes a problem with an address where it was written: on the command line or in the file.
fn refuse_listen(section: &Section<'_>, option: Option<&str>, message: String) {
    match option {
        Some(option) => section.document().command_line_problem(option, message),
        None => section.problem_at("listen", message),
    }
}

/// Whether two listeners cannot both be bound.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    // An unspecified IPv6 address takes the IPv4 ones, too, unless the system is set otherwise.
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

/// Levels of the log, by module or for all. To the library a word alone may also be a module whose every line is
/// logged, and a misspelt level would be one that has none.
fn log_filter(value: &DeValue<'_>) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = values::text(value)?;
    let mut words = text.split(',').filter(|part| !part.contains(['=', '[']));
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
        let quoted = values::quoted(word);
        return Err(match values::nearest(word, LEVELS) {
            Some(level) => format!("{quoted} is no level of the log; did you mean \"{level}\"?"),
            None => format!(
                "{quoted} is no level of the log; the levels are {}; for one module, write such as \
                 \"warn,wharf_runtime=debug\"",
                LEVELS.join(", ")
            ),
        });
    }
    if EnvFilter::try_new(&text).is_ok() {
        return Ok(text);
    }
    let quoted = values::quoted(&text);
    Err(format!("{quoted} does not select log lines; write a level such as \"info\", or \"warn,wharf_runtime=debug\""))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
