//! The keys of a connection of type `sftp`.
//!
//! What is written here goes before `ssh-options`, and those before the file `ssh-config`.

use std::path::Path;

use secrecy::SecretString;
use toml::de::DeValue;
use wharf_connectors::sftp::Agent;
use wharf_connectors::{Common, sftp};

use super::ftp::host;
use crate::config::document::Section;
use crate::config::secret;
use crate::config::values::{self, expected};

const FAMILIES: &[(&str, sftp::AddressFamily)] =
    &[("any", sftp::AddressFamily::Any), ("inet", sftp::AddressFamily::Inet), ("inet6", sftp::AddressFamily::Inet6)];

const LOG_LEVELS: &[(&str, sftp::LogLevel)] =
    &[("info", sftp::LogLevel::Info), ("verbose", sftp::LogLevel::Verbose), ("debug", sftp::LogLevel::Debug)];

const ALGORITHMS: [(&str, sftp::Purpose); 4] = [
    ("ciphers", sftp::Purpose::Ciphers),
    ("key-exchanges", sftp::Purpose::KeyExchanges),
    ("macs", sftp::Purpose::Macs),
    ("host-key-algorithms", sftp::Purpose::HostKeys),
];

/// The ways to log in, in the order in which they are tried unless it is said otherwise.
const WAYS: [&str; 4] = ["private-key", "agent", "password", "keyboard-interactive"];

pub(super) fn read(section: &mut Section<'_>, common: &mut Common) -> Option<sftp::Config> {
    let written_host = section.required("host", "the name or the address of the server", host);
    let written_user = section.read("user", values::text);
    let ssh = ssh_options(section, written_host.as_deref(), written_user.as_deref());
    let user = written_user.or(ssh.user.clone());
    if user.is_none() {
        section.missing("user", "the name to log in with");
    }
    if let Some(timeout) = ssh.connect_timeout
        && !section.has("connect-timeout")
    {
        common.connect_timeout = timeout;
    }
    let port = section.read("port", values::count(1..=u16::MAX)).or(ssh.port).unwrap_or(sftp::PORT);
    let login = login(section, &ssh);
    let host_keys = host_keys(section, &ssh);
    let algorithms = algorithms(section, ssh.algorithms.clone());
    let address_family = section.read("address-family", values::choice(FAMILIES)).or(ssh.address_family);
    let compression = section.read("compression", values::flag).or(ssh.compression);
    let keepalive = section.read("keepalive", values::duration(sftp::KEEPALIVE)).or(ssh.keepalive);
    let log_level = section.read("log-level", values::choice(LOG_LEVELS)).or(ssh.log_level);
    let directory = section.read("directory", values::remote_path);
    let preserve = section.read("preserve", values::flag);
    let host = ssh.host.or(written_host);
    Some(sftp::Config {
        port,
        login: login?,
        host_keys: host_keys?,
        algorithms,
        address_family: address_family.unwrap_or_default(),
        compression: compression.unwrap_or_default(),
        keepalive: keepalive.filter(|interval| !interval.is_zero()),
        log_level: log_level.unwrap_or_default(),
        directory,
        preserve: preserve.unwrap_or_default(),
        ..sftp::Config::new(&host?, &user?)
    })
}

fn ssh_options(section: &mut Section<'_>, host: Option<&str>, user: Option<&str>) -> sftp::SshOptions {
    let options = section.read("ssh-options", texts).unwrap_or_default();
    let file = secret::content(section, "ssh-config").unwrap_or_default();
    let home = (section.document().environment)("HOME").and_then(|home| home.into_string().ok());
    let file = String::from_utf8_lossy(&file);
    sftp::SshOptions::read(host.unwrap_or_default(), user, &options, &file, home.as_deref()).unwrap_or_else(|error| {
        section.problem(error.to_string());
        sftp::SshOptions::default()
    })
}

fn login(section: &mut Section<'_>, ssh: &sftp::SshOptions) -> Option<Vec<sftp::Login>> {
    let password = secret::read(section, "password");
    let passphrase = secret::read(section, "passphrase");
    let mut keys: Vec<SecretString> = secret::read(section, "private-key").into_iter().collect();
    for file in &ssh.identity_files {
        keys.extend(identity(section, file));
    }
    let agent = section.read("agent", agent).or(ssh.agent.clone()).unwrap_or(Agent::None);
    let agent = match agent {
        Agent::Environment => Some(None),
        Agent::Socket(socket) => Some(Some(section.document().resolve(&socket))),
        Agent::None => None,
    };
    if section.has("passphrase") && keys.is_empty() && !section.has("private-key") {
        section.problem_at("passphrase", "there is no private-key that it belongs to");
    }
    let order = section.read("auth", ways);
    let is_said = order.is_some();
    let order = order.unwrap_or_else(|| preferred(ssh));
    let mut login = Vec::new();
    for way in order {
        let ways: Vec<sftp::Login> = match way {
            "private-key" => keys
                .iter()
                .map(|key| sftp::Login::PrivateKey { key: key.clone(), passphrase: passphrase.clone() })
                .collect(),
            "agent" => agent.iter().map(|socket| sftp::Login::Agent { socket: socket.clone() }).collect(),
            "password" => password.iter().cloned().map(sftp::Login::Password).collect(),
            _ => password.iter().cloned().map(sftp::Login::KeyboardInteractive).collect(),
        };
        if ways.is_empty() && is_said {
            let key = if way == "keyboard-interactive" { "password" } else { way };
            if !section.has(key) {
                section.problem_at("auth", format!("{way} needs {key}, which is not set"));
            }
        }
        login.extend(ways);
    }
    if login.is_empty() && (password.is_some() || !keys.is_empty() || agent.is_some()) {
        let key = if is_said { "auth" } else { "ssh-options" };
        section.problem_at(
            key,
            "no way to log in is left: what is set here is switched off (password, private-key, agent)",
        );
    }
    let has_any = ["password", "private-key", "agent"].into_iter().any(|key| section.has(key));
    if login.is_empty() && !has_any {
        section.problem("nothing to log in with; write password, private-key or agent");
    }
    (!login.is_empty()).then_some(login)
}

/// The order that `ssh` would have, without what its options switch off.
fn preferred(ssh: &sftp::SshOptions) -> Vec<&'static str> {
    let protocol = |way: &'static str| if matches!(way, "private-key" | "agent") { "publickey" } else { way };
    let is_on = |way: &&'static str| !ssh.methods_off.contains(&protocol(way));
    match &ssh.methods {
        None => WAYS.into_iter().filter(is_on).collect(),
        Some(methods) => {
            let of = |method: &String| WAYS.into_iter().filter(|way| protocol(way) == method).collect::<Vec<_>>();
            methods.iter().flat_map(of).filter(is_on).collect()
        }
    }
}

/// A private key in a file that `ssh-config` names.
fn identity(section: &mut Section<'_>, file: &Path) -> Option<SecretString> {
    let file = section.document().resolve(file);
    let content = section.document().files.borrow_mut().read(&file);
    match content.map(String::from_utf8) {
        Ok(Ok(content)) => {
            section.count_content("ssh-config", content.as_bytes());
            Some(SecretString::from(content))
        }
        Ok(Err(_)) => {
            section.problem(format!("IdentityFile: {} is not text", file.display()));
            None
        }
        Err(error) => {
            section.problem(format!("IdentityFile: {} cannot be read: {error}", file.display()));
            None
        }
    }
}

fn host_keys(section: &mut Section<'_>, ssh: &sftp::SshOptions) -> Option<sftp::HostKeys> {
    let pinned = section.read("host-keys", fingerprints).unwrap_or_default();
    let file = section.read("known-hosts", values::path).or(ssh.known_hosts_file.clone());
    let accept_new = section.read("accept-new", values::flag).or(ssh.accept_new).unwrap_or_default();
    if accept_new && file.is_none() {
        let key = if section.has("accept-new") { "accept-new" } else { "known-hosts" };
        section.problem_at(key, "accept-new needs known-hosts, the file in which new servers are stored");
        return None;
    }
    if pinned.is_empty() && file.is_none() {
        if !section.has("host-keys") {
            section.missing(
                "host-keys",
                "the fingerprint of the server's key, such as [\"SHA256:...\"] as ssh-keygen -l prints it; or known-hosts",
            );
        }
        return None;
    }
    let known_hosts_file = file.map(|file| section.document().resolve(&file));
    Some(sftp::HostKeys { pinned, known_hosts: None, known_hosts_file, accept_new, alias: ssh.host_key_alias.clone() })
}

fn algorithms(section: &mut Section<'_>, ssh: sftp::Algorithms) -> sftp::Algorithms {
    let mut algorithms = sftp::Algorithms::default();
    for (key, purpose) in ALGORITHMS {
        section
            .read(key, |value| algorithms.choose(purpose, &texts(value)?.join(",")).map_err(|error| error.to_string()));
    }
    algorithms.or(ssh)
}

fn agent(value: &DeValue<'_>) -> Result<Agent, String> {
    match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Ok(Agent::Environment),
        (Some(false), _) => Ok(Agent::None),
        (_, Some(_)) => values::path(value).map(Agent::Socket),
        _ => Err(expected("true, or the path of the agent's socket", value)),
    }
}

fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let items = value.as_array().ok_or_else(|| expected("a list of strings", value))?;
    items.iter().map(|item| values::text(item.get_ref())).collect()
}

fn fingerprints(value: &DeValue<'_>) -> Result<Vec<sftp::Fingerprint>, String> {
    let texts = texts(value)?;
    if texts.is_empty() {
        return Err("an empty list vouches for nothing".to_owned());
    }
    texts.iter().map(|text| sftp::Fingerprint::parse(text).map_err(|error| error.to_string())).collect()
}

fn ways(value: &DeValue<'_>) -> Result<Vec<&'static str>, String> {
    let mut ways = Vec::new();
    for text in texts(value)? {
        let way = WAYS.into_iter().find(|way| *way == text);
        let way = way.ok_or_else(|| format!("{text:?} is none of {}", WAYS.join(", ")))?;
        if ways.contains(&way) {
            return Err(format!("{way} is there twice"));
        }
        ways.push(way);
    }
    Ok(ways)
}
