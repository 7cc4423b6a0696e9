//! The options of `ssh` that a connection takes over: from a file in the form of ssh_config(5), and single ones as `-o`
//! takes them.
//!
//! An option that is not supported is an error that names it, and none that runs a command is. Opens nothing.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::LogLevel;
use super::algorithms::first;
use super::host_key::matches;
use super::{AddressFamily, Algorithms, KEEPALIVE, Purpose};
use crate::CONNECT_TIMEOUT;
use crate::error::{Error, ErrorKind};

/// Options that make `ssh` run a program.
const COMMANDS: [&str; 6] =
    ["proxycommand", "localcommand", "permitlocalcommand", "knownhostscommand", "remotecommand", "proxyjump"];

/// Which agent is asked for keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// The one that the environment of the host names (`SSH_AUTH_SOCK`).
    Environment,
    /// The one with this socket.
    Socket(PathBuf),
    /// None.
    None,
}

/// What was found for one server. Of each option the first value counts, as with `ssh`; files of identities add up.
#[derive(Debug, Clone, Default)]
pub struct SshOptions {
    /// `HostName`: the server's true name.
    pub host: Option<String>,
    /// `Port`.
    pub port: Option<u16>,
    /// `User`.
    pub user: Option<String>,
    /// `IdentityFile`: private keys, in order.
    pub identity_files: Vec<PathBuf>,
    /// `IdentityAgent`.
    pub agent: Option<Agent>,
    /// `UserKnownHostsFile`.
    pub known_hosts_file: Option<PathBuf>,
    /// `StrictHostKeyChecking`: whether a new server is accepted.
    pub accept_new: Option<bool>,
    /// `HostKeyAlias`.
    pub host_key_alias: Option<String>,
    /// `PreferredAuthentications`, in the names of the protocol.
    pub methods: Option<Vec<String>>,
    /// Methods that an option such as `PasswordAuthentication no` switches off.
    pub methods_off: Vec<&'static str>,
    /// `Ciphers`, `KexAlgorithms`, `MACs`, `HostKeyAlgorithms`.
    pub algorithms: Algorithms,
    /// `Compression`.
    pub compression: Option<bool>,
    /// `AddressFamily`.
    pub address_family: Option<AddressFamily>,
    /// `ConnectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `ServerAliveInterval`.
    pub keepalive: Option<Duration>,
    /// `LogLevel`.
    pub log_level: Option<LogLevel>,
}

impl SshOptions {
    /// The options for a server: `options` such as `"Port=2222"` first, then the blocks of `file` that are about `host`.
    /// `user` is what `Match user` is held against, and `home` what `~` stands for.
    ///
    /// # Errors
    /// `Invalid` for what cannot be read; `Unsupported` for options that there are not; `Denied` for those that would
    /// run a command.
    pub fn read(
        host: &str,
        user: Option<&str>,
        options: &[String],
        file: &str,
        home: Option<&str>,
    ) -> Result<Self, Error> {
        let mut found = Self::default();
        let context = Context { host, user, home };
        for option in options {
            let (keyword, arguments) = words(option)?.ok_or_else(|| invalid(format!("{option:?} is no option")))?;
            found.take(&keyword, &arguments, &context).map_err(|error| at("ssh-options", None, &error))?;
        }
        let mut applies = true;
        for (index, line) in file.lines().enumerate() {
            let place = |error: Error| at("ssh-config", Some(index + 1), &error);
            let Some((keyword, arguments)) = words(line).map_err(place)? else { continue };
            match keyword.as_str() {
                "host" => applies = is_one_of(&arguments, host),
                "match" => applies = found.is_match(&arguments, &context).map_err(place)?,
                _ if applies => found.take(&keyword, &arguments, &context).map_err(place)?,
                _ => {}
            }
        }
        Ok(found)
    }

    fn is_match(&self, arguments: &[String], context: &Context<'_>) -> Result<bool, Error> {
        let mut arguments = arguments.iter();
        let mut is_match = true;
        while let Some(criterion) = arguments.next() {
            let (is_negated, name) = match criterion.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, criterion.as_str()),
            };
            let subject = match name.to_ascii_lowercase().as_str() {
                "all" => {
                    is_match &= !is_negated;
                    continue;
                }
                "host" => Some(self.host.as_deref().unwrap_or(context.host)),
                "originalhost" => Some(context.host),
                "user" => self.user.as_deref().or(context.user),
                "exec" => return Err(runs_a_command("Match exec")),
                other => return Err(unsupported(&format!("Match {other}"))),
            };
            let patterns = arguments.next().ok_or_else(|| invalid(format!("Match {name} needs a pattern")))?;
            let patterns: Vec<String> = patterns.split(',').map(str::to_owned).collect();
            is_match &= subject.is_some_and(|subject| is_one_of(&patterns, subject)) != is_negated;
        }
        Ok(is_match)
    }

    fn take(&mut self, keyword: &str, arguments: &[String], context: &Context<'_>) -> Result<(), Error> {
        if COMMANDS.contains(&keyword) {
            // What switches commands off runs none.
            let is_off = matches!(arguments, [value] if value.eq_ignore_ascii_case("none") || value == "no");
            return if is_off { Ok(()) } else { Err(runs_a_command(keyword)) };
        }
        let Some(value) = arguments.first() else { return Err(invalid(format!("{keyword} has no value"))) };
        match keyword {
            "hostname" => first(&mut self.host, value.replace("%h", context.host)),
            "port" => first(&mut self.port, number(keyword, value)?),
            "user" => first(&mut self.user, value.clone()),
            "identityfile" if value.eq_ignore_ascii_case("none") => {}
            "identityfile" => self.identity_files.push(self.file(value, context)?),
            "identityagent" if value.eq_ignore_ascii_case("none") => first(&mut self.agent, Agent::None),
            "identityagent" if value == "SSH_AUTH_SOCK" => first(&mut self.agent, Agent::Environment),
            "identityagent" => {
                let socket = self.file(value, context)?;
                first(&mut self.agent, Agent::Socket(socket));
            }
            "userknownhostsfile" => {
                if arguments.len() > 1 {
                    return Err(unsupported("UserKnownHostsFile with several files"));
                }
                let file = self.file(value, context)?;
                first(&mut self.known_hosts_file, file);
            }
            "globalknownhostsfile" if value.eq_ignore_ascii_case("none") => {}
            "stricthostkeychecking" => {
                let accept_new = match value.to_ascii_lowercase().as_str() {
                    "yes" | "ask" => false,
                    "accept-new" => true,
                    _ => return Err(unsupported("StrictHostKeyChecking other than yes and accept-new")),
                };
                first(&mut self.accept_new, accept_new);
            }
            "hostkeyalias" => first(&mut self.host_key_alias, value.clone()),
            "preferredauthentications" => first(&mut self.methods, names(value)),
            "pubkeyauthentication" => self.switch(keyword, value, "publickey")?,
            "passwordauthentication" => self.switch(keyword, value, "password")?,
            "kbdinteractiveauthentication" | "challengeresponseauthentication" => {
                self.switch(keyword, value, "keyboard-interactive")?;
            }
            "ciphers" => self.algorithms.choose(Purpose::Ciphers, value)?,
            "kexalgorithms" => self.algorithms.choose(Purpose::KeyExchanges, value)?,
            "macs" => self.algorithms.choose(Purpose::Macs, value)?,
            "hostkeyalgorithms" => self.algorithms.choose(Purpose::HostKeys, value)?,
            "compression" => first(&mut self.compression, flag(keyword, value)?),
            "addressfamily" => {
                let family = match value.to_ascii_lowercase().as_str() {
                    "any" => AddressFamily::Any,
                    "inet" => AddressFamily::Inet,
                    "inet6" => AddressFamily::Inet6,
                    _ => return Err(invalid(format!("{value:?} is no address family"))),
                };
                first(&mut self.address_family, family);
            }
            "connecttimeout" => {
                first(&mut self.connect_timeout, seconds(keyword, value, &CONNECT_TIMEOUT)?);
            }
            "serveraliveinterval" if value == "0" => first(&mut self.keepalive, Duration::ZERO),
            "serveraliveinterval" => first(&mut self.keepalive, seconds(keyword, value, &KEEPALIVE)?),
            "loglevel" => first(&mut self.log_level, LogLevel::parse(value)?),
            // The host does so in any case: it asks nobody, and tries the keys that it was given.
            "batchmode" | "identitiesonly" => drop(flag(keyword, value)?),
            "tcpkeepalive" if flag(keyword, value)? => {}
            _ => return Err(unsupported(keyword)),
        }
        match arguments.len() > 1 && !matches!(keyword, "userknownhostsfile" | "globalknownhostsfile") {
            true => Err(invalid(format!("{keyword} takes one value"))),
            false => Ok(()),
        }
    }

    fn switch(&mut self, keyword: &str, value: &str, method: &'static str) -> Result<(), Error> {
        if !flag(keyword, value)? {
            self.methods_off.push(method);
        }
        Ok(())
    }

    /// A path with `~` and the tokens that are known without a connection (ssh_config(5), "TOKENS").
    fn file(&self, value: &str, context: &Context<'_>) -> Result<PathBuf, Error> {
        let mut text = String::new();
        let mut characters = value.chars();
        if let Some(rest) = value.strip_prefix("~/") {
            let home = context.home.ok_or_else(|| invalid(format!("{value}: there is no home that ~ stands for")))?;
            text.push_str(home);
            text.push('/');
            characters = rest.chars();
        }
        while let Some(character) = characters.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            match characters.next() {
                Some('%') => text.push('%'),
                Some('d') => text.push_str(context.home.unwrap_or_default()),
                Some('h') => text.push_str(self.host.as_deref().unwrap_or(context.host)),
                Some('n') => text.push_str(context.host),
                Some('r') => text.push_str(self.user.as_deref().or(context.user).unwrap_or_default()),
                other => return Err(unsupported(&format!("%{} in a path", other.map_or(' ', |token| token)))),
            }
        }
        Ok(PathBuf::from(text))
    }
}

/// What blocks are held against.
struct Context<'a> {
    host: &'a str,
    user: Option<&'a str>,
    home: Option<&'a str>,
}

fn names(value: &str) -> Vec<String> {
    value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn flag(keyword: &str, value: &str) -> Result<bool, Error> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(invalid(format!("{keyword} is yes or no, not {value:?}"))),
    }
}

/// Whole seconds, as these options take them.
fn seconds(keyword: &str, value: &str, limits: &RangeInclusive<Duration>) -> Result<Duration, Error> {
    let time = Duration::from_secs(number(keyword, value)?);
    if !limits.contains(&time) {
        let (least, most) = (limits.start().as_secs_f64().ceil(), limits.end().as_secs());
        return Err(invalid(format!("{keyword} is from {least} to {most} seconds, not {value}")));
    }
    Ok(time)
}

fn number<T: std::str::FromStr>(keyword: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|_| invalid(format!("{keyword} is a number, not {value:?}")))
}

/// Whether a text fits one of the patterns and none that is negated.
fn is_one_of(patterns: &[String], text: &str) -> bool {
    let text = text.to_lowercase();
    let mut is_one = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(&pattern.to_lowercase(), &text) => return false,
            Some(_) => {}
            None => is_one |= matches(&pattern.to_lowercase(), &text),
        }
    }
    is_one
}

/// The keyword in lower case, and its arguments; `None` for an empty line or a comment.
fn words(line: &str) -> Result<Option<(String, Vec<String>)>, Error> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|character: char| character.is_whitespace() || character == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let mut arguments = Vec::new();
    let mut argument: Option<String> = None;
    let mut is_quoted = false;
    for character in rest.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                argument.get_or_insert_default();
            }
            _ if character.is_whitespace() && !is_quoted => arguments.extend(argument.take()),
            '#' if argument.is_none() && !is_quoted => break,
            _ => argument.get_or_insert_default().push(character),
        }
    }
    if is_quoted {
        return Err(invalid("a quote is not closed"));
    }
    arguments.extend(argument);
    Ok(Some((keyword.to_ascii_lowercase(), arguments)))
}

fn at(setting: &str, line: Option<usize>, error: &Error) -> Error {
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    Error::new(error.kind(), format!("{setting}{line}: {error}"))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} is not supported"))
}

fn runs_a_command(what: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("{what} is not allowed: it would run a command on this machine"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn read(file: &str, options: &[&str]) -> Result<SshOptions, Error> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        SshOptions::read("partner", Some("bob"), &options, file, Some("/users/me"))
    }

    fn ciphers(found: &SshOptions) -> String {
        let names: Vec<String> = found.algorithms.ciphers().iter().map(|name| name.as_ref().to_owned()).collect();
        names.join(",")
    }

    const FILE: &str = r#"
        # of a user
        Host other
            ProxyCommand nc %h %p
        Host partner !bad
            HostName "sftp.example.com"
            Port=2222
            User alice
            IdentityFile ~/.ssh/id_%h
            Ciphers aes256-ctr,aes128-ctr
        Match user alice host *.example.com
            Compression yes
        Host *
            Port 22
            AddressFamily inet
            ConnectTimeout 7
            ServerAliveInterval 30
            StrictHostKeyChecking accept-new
            IdentityFile /keys/second
    "#;

    #[test]
    fn the_blocks_about_a_server_count_and_of_each_option_the_first() {
        let found = read(FILE, &["LogLevel=VERBOSE", "PasswordAuthentication no"]).unwrap();
        assert_eq!((found.host.as_deref(), found.port), (Some("sftp.example.com"), Some(2222)));
        assert_eq!(found.user.as_deref(), Some("alice"));
        let identities = [PathBuf::from("/users/me/.ssh/id_sftp.example.com"), PathBuf::from("/keys/second")];
        assert_eq!(found.identity_files, identities);
        assert_eq!(ciphers(&found), "aes256-ctr,aes128-ctr");
        assert_eq!((found.compression, found.accept_new), (Some(true), Some(true)));
        assert_eq!(
            (found.address_family, found.connect_timeout),
            (Some(AddressFamily::Inet), Some(Duration::from_secs(7)))
        );
        assert_eq!((found.log_level, found.methods_off.as_slice()), (Some(LogLevel::Verbose), ["password"].as_slice()));
        assert_eq!(read(FILE, &["Port=9"]).unwrap().port, Some(9));
    }

    #[test]
    fn ssh_itself_finds_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, FILE).unwrap();
        let told = Command::new("ssh").arg("-G").arg("-F").arg(&file).arg("partner").output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let value = |keyword: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {keyword} in {told}")).to_owned()
        };
        let found = read(FILE, &[]).unwrap();
        assert_eq!(found.host, Some(value("hostname")));
        assert_eq!(found.port.unwrap().to_string(), value("port"));
        assert_eq!(found.user, Some(value("user")));
        assert_eq!(ciphers(&found), value("ciphers"));
        assert_eq!((value("compression"), found.compression), ("yes".to_owned(), Some(true)));
        assert_eq!((value("stricthostkeychecking"), found.accept_new), ("accept-new".to_owned(), Some(true)));
        assert_eq!((value("addressfamily"), value("connecttimeout")), ("inet".to_owned(), "7".to_owned()));
        assert_eq!((value("serveraliveinterval"), found.keepalive), ("30".to_owned(), Some(Duration::from_secs(30))));
    }

    #[test]
    fn what_is_not_supported_is_named_and_what_runs_a_command_refused() {
        for (option, kind, named) in [
            ("ProxyCommand=nc %h %p", ErrorKind::Denied, "proxycommand"),
            ("LocalCommand=touch x", ErrorKind::Denied, "localcommand"),
            ("KnownHostsCommand=x", ErrorKind::Denied, "knownhostscommand"),
            ("PermitLocalCommand=yes", ErrorKind::Denied, "permitlocalcommand"),
            ("ProxyJump=other", ErrorKind::Denied, "proxyjump"),
            ("GSSAPIAuthentication=yes", ErrorKind::Unsupported, "gssapiauthentication"),
            ("StrictHostKeyChecking=no", ErrorKind::Unsupported, "StrictHostKeyChecking"),
            ("TCPKeepAlive=no", ErrorKind::Unsupported, "tcpkeepalive"),
            ("Ciphers=+rot13", ErrorKind::Invalid, "rot13"),
            ("Port=x", ErrorKind::Invalid, "port"),
            ("Port", ErrorKind::Invalid, "port"),
            ("Port 1 2", ErrorKind::Invalid, "port takes one value"),
            ("SendEnv LANG LC_*", ErrorKind::Unsupported, "sendenv"),
            ("ConnectTimeout=0", ErrorKind::Invalid, "from 1 to 300 seconds"),
            ("ServerAliveInterval=1", ErrorKind::Invalid, "from 2 to 3600 seconds"),
        ] {
            let error = read("", &[option]).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(named) && error.to_string().contains("ssh-options"), "{error}");
        }
        for line in ["Include other", "Match exec \"touch x\"", "IdentityFile %l", "User \"x"] {
            assert!(read(line, &[]).unwrap_err().to_string().contains("ssh-config, line 1"), "{line}");
        }
        assert!(read("ProxyCommand none\nHost other\nInclude x", &[]).is_ok());
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_fail_otherwise_than_by_an_error(
            file in r#"((Host|Match|Port|User|IdentityFile|all|exec|\*|!|=|"|%h|%|~/|#| |\n)){0,30}"#
        ) {
            let _found_or_not = read(&file, &[]);
        }
    }
}
