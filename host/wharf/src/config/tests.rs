//! The configuration as an operator meets it: files written to a temporary folder, and the exact words of the answer.

mod documentation;
mod messages;
mod watching;

use proptest::prelude::*;
use tempfile::TempDir;
use wharf_connectors::RemotePath;

use super::*;

/// A folder with a configuration file, and an environment that holds what the test puts there.
struct Place {
    folder: TempDir,
    variables: BTreeMap<String, OsString>,
}

impl Place {
    fn new() -> Self {
        // Connections of type dropbox and http need the process-wide provider; a second installation is refused.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let variables = [("PARTNER_PASSWORD", "hunter2"), ("EMPTY", "")];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let place = Self { folder: TempDir::new().unwrap(), variables };
        place.write("secrets/team.token", "tok\n");
        place.write("inbox/kept", "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.set_mode(name, 0o600);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, text: impl AsRef<[u8]>) -> Result<Configuration, ConfigurationError> {
        self.load_with(text, Overrides::default(), None)
    }

    fn load_with(
        &self,
        text: impl AsRef<[u8]>,
        overrides: Overrides,
        before: Option<&Configuration>,
    ) -> Result<Configuration, ConfigurationError> {
        self.write("wharf.toml", text);
        let environment = |name: &str| self.variables.get(name).cloned();
        Loading { overrides, environment: &environment, before, only: None }.load(Some(&self.path("wharf.toml")))
    }

    /// As a command does that uses one connection.
    fn load_for(&self, connection: &str, text: impl AsRef<[u8]>) -> Result<Configuration, ConfigurationError> {
        self.write("wharf.toml", text);
        Configuration::find_for(connection, Some(&self.path("wharf.toml")))
    }

    /// What loading says, without the path of the temporary folder.
    fn problems(&self, text: impl AsRef<[u8]>) -> String {
        match self.load(text) {
            Ok(_) => "no problem".to_owned(),
            Err(error) => self.shortened(&error.to_string()),
        }
    }

    fn shortened(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

const FULL: &str = r#"
[host]
services = "deployed"
state = "/var/lib/wharf"
compiled = "/var/cache/wharf"
egress-allow = ["10.1.0.0/16", "192.168.7.9"]
component-max = "20MB"
instances-max = 200
compilations-max = 2
scan-interval = "500ms"
drain = "1m"
log = "warn,wharf_runtime=debug"
log-format = "json"

[http]
listen = "0.0.0.0:80"
open = true
connections-max = 50
header-timeout = "5s"
head-max = "16KiB"
body-max = "1GiB"
body-timeout = "20s"

[admin]
listen = "[::1]:9000"

[service-defaults]
memory = "32MiB"
grants = [{ connection = "files" }]

[services."api.connector.dropbox"]
grants = [
    { connection = "team", access = "write", path = "/inbox" },
    { connection = "partner", access = "read" },
    { connection = "api", access = "write" },
]
memory = "64MiB"
timeout = "1m 30s"
concurrency = 32
queue-timeout = "0s"
reuse = 100

[services.plain]

[connections.files]
type = "local"
folder = "inbox"
root = "/sub"
operations-max = 3
connect-timeout = "1s"
read-timeout = "2s"
idle-timeout = "3s"

[connections.partner]
type = "ftp"
host = "ftp.example.com"
port = 2121
user = "alice"
password = { env = "PARTNER_PASSWORD" }
account = { env = "PARTNER_PASSWORD" }
tls = "explicit"
tls-max = "1.2"
certificate-pin = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
passive = "epsv"
encoding = "iso-8859-1"
noop-interval = "60s"

[connections.team]
type = "dropbox"
app-key = "key"
refresh-token = { file = "secrets/team.token" }

[connections.api]
type = "http"
url = "https://api.example.com/v1"
"#;

#[test]
fn every_setting_arrives_where_it_belongs() {
    let place = Place::new();
    let configuration = place.load(FULL).unwrap();

    let HostSection { state_folder, runtime, log, log_format } = &configuration.host;
    assert_eq!(state_folder, Path::new("/var/lib/wharf"));
    assert_eq!(runtime.services_folder, place.path("deployed"));
    assert_eq!(runtime.compiled_folder, Path::new("/var/cache/wharf"));
    assert_eq!(runtime.component_bytes_max, 20_000_000);
    assert_eq!(runtime.instances_max, 200);
    assert_eq!(runtime.compilations_max, 2);
    assert_eq!(runtime.scan_interval, Duration::from_millis(500));
    assert_eq!(runtime.drain_timeout, Duration::from_secs(60));
    assert_eq!(log, "warn,wharf_runtime=debug");
    assert_eq!(*log_format, LogFormat::Json);

    let http = &configuration.http;
    assert_eq!(http.listen, "0.0.0.0:80".parse().unwrap());
    assert!(http.open);
    assert_eq!(http.connections_max, 50);
    assert_eq!(http.header_timeout, Duration::from_secs(5));
    assert_eq!(http.head_bytes_max, 16 * 1024);
    assert_eq!(http.body_bytes_max, Some(GIB));
    assert_eq!(http.body_timeout, Duration::from_secs(20));
    assert_eq!(configuration.admin.listen, "[::1]:9000".parse().unwrap());
    assert!(!configuration.admin.open);

    let live = &configuration.live;
    let service = live.service("api.connector.dropbox");
    let grant = |connection: &str, access, path: &str| wharf_runtime::Grant {
        connection: connection.to_owned(),
        access,
        path: RemotePath::parse(path).unwrap(),
    };
    use wharf_runtime::Access::{Read, Write};
    let grants = [grant("team", Write, "/inbox"), grant("partner", Read, "/"), grant("api", Write, "/")];
    assert_eq!(service.grants, grants);
    assert_eq!(service.memory_bytes_max, 64 * MIB);
    assert_eq!(service.timeout, Duration::from_secs(90));
    assert_eq!(service.concurrency, 32);
    assert_eq!(service.queue_timeout, Duration::ZERO);
    assert_eq!(service.reuse, 100);
    for name in ["plain", "not.mentioned"] {
        assert_eq!(
            live.service(name).memory_bytes_max,
            32 * MIB,
            "{name} takes what it does not say from the defaults"
        );
        assert_eq!(live.service(name).grants, [grant("files", Read, "/")]);
    }

    let kinds: Vec<_> = live.connections.values().map(|remote| (remote.name(), remote.kind())).collect();
    assert_eq!(kinds, [("api", "http"), ("files", "local"), ("partner", "ftp"), ("team", "dropbox")]);
    live.egress.check("10.1.2.3".parse().unwrap()).unwrap();
    live.egress.check("192.168.7.9".parse().unwrap()).unwrap();
    live.egress.check("192.168.7.10".parse().unwrap()).unwrap_err();
    assert_eq!(configuration.warnings, []);
}

#[test]
fn without_a_file_the_defaults_hold() {
    let configuration = Configuration::load(None, Overrides::default()).unwrap();
    assert_eq!(configuration.host.runtime.services_folder, Path::new("./services"));
    assert_eq!(configuration.host.runtime.compiled_folder, Path::new("./state/compiled"));
    assert_eq!(configuration.http.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(configuration.admin.listen, "127.0.0.1:8081".parse().unwrap());
    configuration.live.egress.check("127.0.0.1".parse().unwrap()).unwrap_err();
    configuration.live.egress.check("10.0.0.1".parse().unwrap()).unwrap_err();
    assert!(configuration.live.connections.is_empty());
    assert_eq!(configuration.fingerprint, "");
}

#[test]
fn an_empty_file_is_the_defaults() {
    let place = Place::new();
    let configuration = place.load("").unwrap();
    let defaults = Configuration::load(None, Overrides::default()).unwrap();
    let without_folders = |configuration: &Configuration| {
        let settings = configuration.fixed_settings();
        settings.into_iter().skip_while(|(key, _)| *key != "host.component-max").collect::<Vec<_>>()
    };
    assert_eq!(without_folders(&configuration), without_folders(&defaults));
    assert_eq!(configuration.host.state_folder, place.path("./state"));
}

#[test]
fn the_command_line_goes_before_the_file() {
    let place = Place::new();
    let overrides = Overrides {
        services: Some("here".into()),
        state: Some("there".into()),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        admin: Some("127.0.0.2:0".parse().unwrap()),
    };
    // The address in the file would be refused if it were used.
    let text = "[host]\nservices = 'a'\nstate = 'b'\n[http]\nlisten = '0.0.0.0:80'\n[admin]\nlisten = '0.0.0.0:80'";
    let configuration = place.load_with(text, overrides, None).unwrap();
    assert_eq!(configuration.host.runtime.services_folder, Path::new("here"));
    assert_eq!(configuration.host.state_folder, Path::new("there"));
    assert_eq!(configuration.host.runtime.compiled_folder, Path::new("there/compiled"));
    assert_eq!(configuration.http.listen, "127.0.0.1:0".parse().unwrap());
    assert_eq!(configuration.admin.listen, "127.0.0.2:0".parse().unwrap());
}

#[test]
fn a_secret_file_loses_one_line_ending_and_nothing_else() {
    let place = Place::new();
    for (content, secret) in [("a b \n", "a b "), ("pw\r\n", "pw"), ("pw", "pw"), ("two\n\n", "two\n")] {
        place.write("secret", content);
        let text = "s = { file = 'secret' }";
        let found = in_section(&place, text, |section| secret::read(section, "s"));
        assert_eq!(secrecy::ExposeSecret::expose_secret(&found.unwrap()), secret);
    }
}

/// What `read` makes of a document.
fn in_section<T>(place: &Place, text: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
    let environment = |name: &str| place.variables.get(name).cloned();
    let document = Document {
        file: None,
        text,
        folder: place.folder.path().to_owned(),
        environment: &environment,
        files: RefCell::default(),
        problems: RefCell::default(),
        warnings: RefCell::default(),
    };
    let tree = DeTable::parse(text).unwrap();
    let found = read(&mut Section::root(&document, tree.get_ref()));
    assert_eq!(document.problems.borrow().as_slice(), []);
    found
}

#[test]
fn dropbox_urls_follow_the_one_that_is_given() {
    let place = Place::new();
    let read = |text: &str| {
        let text = format!("access-token = {{ env = 'PARTNER_PASSWORD' }}\n{text}");
        let connection = in_section(&place, &text, |section| connection::read("team", section, Kind::Dropbox)).unwrap();
        let wharf_connectors::Config::Dropbox(config) = connection.config else { panic!("not a Dropbox connection") };
        [config.api_url, config.content_url, config.token_url].map(String::from)
    };
    assert_eq!(
        read(""),
        ["https://api.dropboxapi.com/", "https://content.dropboxapi.com/", "https://api.dropboxapi.com/oauth2/token"]
    );
    assert_eq!(
        read("api-url = 'http://127.0.0.1:9/x'"),
        ["http://127.0.0.1:9/x/", "http://127.0.0.1:9/x/", "http://127.0.0.1:9/x/oauth2/token"]
    );
    assert_eq!(
        read("api-url = 'http://localhost'\ncontent-url = 'https://b'\ntoken-url = 'https://c/token'"),
        ["http://localhost/", "https://b/", "https://c/token"]
    );
}

#[test]
fn a_connection_stays_open_while_its_settings_stay_the_same() {
    let place = Place::new();
    let before = place.load("[connections.files]\ntype = 'local'\nfolder = 'inbox'").unwrap();
    // The folder is gone: opening the connection anew would fail, keeping it does not.
    std::fs::remove_dir_all(place.path("inbox")).unwrap();
    let reload = |text: &str| place.load_with(text, Overrides::default(), Some(&before));

    reload("# moved\n\n[connections]\nfiles = { folder = 'inbox', type = 'local' } # same").unwrap();
    reload("[connections.files]\ntype = 'local'\nfolder = 'inbox'\nread-timeout = '7s'").unwrap_err();
    reload("[connections.renamed]\ntype = 'local'\nfolder = 'inbox'").unwrap_err();
    // An open connection holds the outgoing policy that it was opened with.
    reload("host.egress-allow = ['10.0.0.0/8']\n[connections.files]\ntype = 'local'\nfolder = 'inbox'").unwrap_err();
}

#[test]
fn a_rotated_secret_opens_its_connection_anew() {
    let place = Place::new();
    let text = "[connections.team]\ntype = 'dropbox'\naccess-token = { file = 'secrets/team.token' }
        certificate-authority = 'ca.pem'";
    place.write("ca.pem", "");
    let fingerprint = |place: &Place| {
        let text = text.split_once('\n').unwrap().1;
        in_section(place, text, |section| {
            let kind = connection::kind(section).unwrap();
            connection::read("team", section, kind).unwrap().fingerprint
        })
    };
    let first = fingerprint(&place);
    assert_eq!(fingerprint(&place), first);
    place.write("secrets/team.token", "rotated\n");
    let second = fingerprint(&place);
    assert_ne!(second, first);
    place.write("ca.pem", "another");
    assert_ne!(fingerprint(&place), second);
}

#[test]
fn a_secret_shows_nowhere_in_debug_output() {
    let place = Place::new();
    place.write("secrets/team.token", "hush-hush\n");
    let configuration = place.load(FULL).unwrap();
    let shown = format!("{configuration:?}");
    assert!(shown.contains("partner"), "the output is about the right thing");
    assert!(!shown.contains("hunter2") && !shown.contains("hush-hush"), "{shown}");

    place.write("secrets/team.token", "another\n");
    let with_another = place.load(FULL).unwrap();
    assert_ne!(with_another.files, configuration.files);
    assert_eq!(format!("{with_another:?}"), shown, "not even a hash of it, from which it could be guessed");
}

#[test]
fn settings_for_the_next_start_are_named_when_they_change() {
    let place = Place::new();
    let started = place.load("[host]\nlog = 'info'").unwrap();
    let now =
        place.load("[host]\nlog = 'debug'\negress-allow = ['10.0.0.0/8']\n[http]\nlisten = '127.0.0.1:1'").unwrap();
    assert_eq!(now.waiting_for_restart(&started), ["host.log", "http.listen"]);
    assert_eq!(started.waiting_for_restart(&started), [""; 0]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Place::new().load(bytes);
    }

    #[test]
    fn a_damaged_file_never_panics_and_never_shows_a_secret(
        edits in proptest::collection::vec((0..FULL.len(), 0..40_usize, damage()), 1..4)
    ) {
        let place = Place::new();
        let mut text = FULL.as_bytes().to_vec();
        for (at, length, replacement) in edits {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, replacement.bytes());
        }
        if let Err(error) = place.load(&text) {
            prop_assert!(!error.to_string().contains("hunter2"));
        }
    }
}

/// Pieces that mean something to a reader of TOML, besides nothing and noise.
fn damage() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "",
        "\n",
        "=",
        "\"",
        "'",
        "[",
        "]]",
        "{",
        "}",
        "#",
        ",",
        ".",
        "\0",
        "é",
        "-1",
        "1e999",
        "9223372036854775808",
        "0xffffffffffffffffff",
        "nan",
        "1979-05-27",
        "true",
        "type = 'http'\n",
        "\"\"\"",
        "\"99999999999999999999d\"",
        "\"99999999999999999999999EiB\"",
        "[services]\n",
        "[[connections]]\n",
        "{ env = 'EMPTY' }",
        "{ secret = 'x' }",
    ])
}
