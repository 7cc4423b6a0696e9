//! What SFTP promises beyond the contract, against a real OpenSSH server: who the server is, who logs in, the border
//! that links do not lead across, owners, permissions, times and links.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use wharf_connectors::{
    ByteRange, ChecksumAlgorithm, Common, Config, Content, EntryKind, Error, ErrorKind, IfExists, Remote, RemotePath,
    Step, WriteOptions, chain, sftp,
};

use crate::ftp_server::FtpServer;
use crate::openssh::Openssh;
use crate::places::loopback;

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

/// A connection whose root is a folder on the server.
pub(crate) fn rooted(config: sftp::Config, root: &Path) -> Remote {
    let common = Common {
        root: path(root.to_str().unwrap()),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        retries: 0,
        ..Common::default()
    };
    Remote::new("partner", common, Config::Sftp(config), &loopback()).unwrap()
}

pub(crate) fn connection(server: &Openssh) -> Remote {
    rooted(server.config(), &server.home())
}

async fn text(remote: &Remote, at: &str) -> String {
    let content = remote.read(&path(at), ByteRange::ALL).await.unwrap();
    String::from_utf8(content.collect(1 << 20).await.unwrap().to_vec()).unwrap()
}

#[track_caller]
pub(crate) fn fails<T>(result: Result<T, Error>, kind: ErrorKind) -> String {
    match result {
        Ok(_) => panic!("it succeeded instead of failing with {kind:?}"),
        Err(error) if error.kind() == kind => chain(&error),
        Err(error) => panic!("{:?} instead of {kind:?}: {}", error.kind(), chain(&error)),
    }
}

async fn step_of(config: sftp::Config) -> (Option<Step>, String) {
    let error = rooted(config, Path::new("/")).ping().await.unwrap_err();
    (error.step(), chain(&error))
}

// ---- Who the server is ---------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_tells_what_was_agreed_on() {
    let server = Openssh::start(&[]);
    let ping = connection(&server).ping().await.unwrap();
    let fact = |name| ping.facts.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str()).unwrap();
    assert!(fact("server").starts_with("SSH-2.0-OpenSSH"), "{:?}", ping.facts);
    assert_eq!(fact("host-key"), format!("ssh-ed25519 {}", server.fingerprint()));
    assert_eq!(fact("cipher"), "aes128-gcm@openssh.com");
    assert_eq!((fact("user"), fact("login")), ("alice", "password"));
    assert!(fact("extensions").contains("posix-rename@openssh.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_the_pinned_one_is_refused_with_both_fingerprints() {
    let server = Openssh::start(&[]);
    let other = sftp::Fingerprint::parse("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    let host_keys = sftp::HostKeys { pinned: vec![other], ..sftp::HostKeys::default() };
    let (step, message) = step_of(sftp::Config { host_keys, ..server.config() }).await;
    assert_eq!(step, Some(Step::HostKey));
    for part in [other.to_string(), server.fingerprint().to_string(), "host-keys".to_owned()] {
        assert!(message.contains(&part), "{message}");
    }
    assert!(!server.log().contains("Accepted"), "it logged in before it knew the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_known_hosts_is_believed_as_openssh_believes_it() {
    let server = Openssh::start(&[]);
    let known = std::fs::read_to_string(server.known_hosts()).unwrap();
    let with = |known_hosts: String| {
        let host_keys = sftp::HostKeys { known_hosts: Some(known_hosts), ..sftp::HostKeys::default() };
        sftp::Config { host_keys, ..server.config() }
    };
    rooted(with(known.clone()), Path::new("/")).ping().await.unwrap();
    // As ssh-keygen hashes it.
    let hashed = server.known_hosts().with_file_name("hashed");
    std::fs::write(&hashed, &known).unwrap();
    let status = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&hashed).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
    let hashed = std::fs::read_to_string(hashed).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    rooted(with(hashed), Path::new("/")).ping().await.unwrap();

    let (step, message) = step_of(with(format!("@revoked {known}"))).await;
    assert_eq!(step, Some(Step::HostKey));
    assert!(message.contains("revoked"), "{message}");
    let (_, message) = step_of(with(known.replace("127.0.0.1", "127.0.0.2"))).await;
    assert!(message.contains("does not know this server"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_that_is_known_is_asked_for_where_a_server_has_several() {
    let server = Openssh::start(&[]);
    let key = std::fs::read_to_string(server.known_hosts().with_file_name("host_ecdsa.pub")).unwrap();
    let known_hosts = Some(format!("[127.0.0.1]:{} {key}", server.port()));
    let host_keys = sftp::HostKeys { known_hosts, ..sftp::HostKeys::default() };
    rooted(sftp::Config { host_keys, ..server.config() }, Path::new("/")).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_is_remembered_where_that_is_allowed() {
    let server = Openssh::start(&[]);
    let file = server.known_hosts().with_file_name("remembered");
    let host_keys =
        sftp::HostKeys { known_hosts_file: Some(file.clone()), accept_new: true, ..sftp::HostKeys::default() };
    let config = sftp::Config { host_keys, ..server.config() };
    rooted(config.clone(), Path::new("/")).ping().await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(server.known_hosts()).unwrap());
    let strict = sftp::HostKeys { accept_new: false, ..config.host_keys.clone() };
    rooted(sftp::Config { host_keys: strict, ..config }, Path::new("/")).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_known_hosts_stays_what_it_is_when_a_server_is_added() {
    let server = Openssh::start(&[]);
    let (file, link) = (server.known_hosts().with_file_name("real"), server.known_hosts().with_file_name("link"));
    std::fs::write(&file, "other.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real", &link).unwrap();
    let host_keys =
        sftp::HostKeys { known_hosts_file: Some(link.clone()), accept_new: true, ..sftp::HostKeys::default() };
    rooted(sftp::Config { host_keys, ..server.config() }, Path::new("/")).ping().await.unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_known_hosts_that_is_missing_is_a_matter_of_the_host_key() {
    let server = Openssh::start(&[]);
    let known_hosts_file = Some(server.known_hosts().with_file_name("missing"));
    let host_keys = sftp::HostKeys { known_hosts_file, ..sftp::HostKeys::default() };
    let (step, message) = step_of(sftp::Config { host_keys, ..server.config() }).await;
    assert_eq!(step, Some(Step::HostKey), "{message}");
}

// ---- Who logs in ---------------------------------------------------------------------------------------------------

fn key_pair(folder: &Path, options: &[&str]) -> (String, String) {
    let file = folder.join("another_key");
    let status = Command::new("ssh-keygen").args(["-q", "-C", "", "-f"]).arg(&file).args(options).status().unwrap();
    assert!(status.success());
    let read = |file: PathBuf| std::fs::read_to_string(file).unwrap();
    (read(file.clone()), read(file.with_extension("pub")))
}

fn by_key(server: &Openssh, key: &str, passphrase: Option<&str>) -> sftp::Config {
    let login =
        sftp::Login::PrivateKey { key: SecretString::from(key), passphrase: passphrase.map(SecretString::from) };
    sftp::Config { login: vec![login], ..server.config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_usual_form_log_in() {
    let server = Openssh::start(&[]);
    for options in [
        ["-t", "ed25519", "-N", ""].as_slice(),
        &["-t", "ed25519", "-N", "a passphrase"],
        &["-t", "ecdsa", "-N", ""],
        &["-t", "ecdsa", "-b", "384", "-m", "PEM", "-N", ""],
        &["-t", "ecdsa", "-b", "521", "-m", "PKCS8", "-N", "a passphrase"],
        &["-t", "rsa", "-b", "2048", "-N", ""],
        &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "a passphrase"],
        &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "a passphrase"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = key_pair(folder.path(), options);
        std::fs::write(server.known_hosts().with_file_name("authorized_keys"), public).unwrap();
        let passphrase = options.last().copied().filter(|passphrase| !passphrase.is_empty());
        let ping = rooted(by_key(&server, &key, passphrase), Path::new("/")).ping().await;
        ping.unwrap_or_else(|error| panic!("{options:?}: {}", chain(&error)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_says_why_for_each_way() {
    let server = Openssh::start(&[]);
    let wrong = sftp::Config { login: vec![sftp::Login::Password(SecretString::from("wrong"))], ..server.config() };
    let (step, message) = step_of(wrong).await;
    assert_eq!(step, Some(Step::Login));
    assert!(message.contains("password: the server does not accept it") && message.contains("it offers"), "{message}");
    assert!(!message.contains("wrong"), "{message}");

    let folder = tempfile::tempdir().unwrap();
    let (key, _) = key_pair(folder.path(), &["-t", "ed25519", "-N", "a passphrase"]);
    for (passphrase, expected) in [(None, "set passphrase"), (Some("wrong"), "its passphrase is wrong")] {
        let (step, message) = step_of(by_key(&server, &key, passphrase)).await;
        assert_eq!(step, Some(Step::Login));
        assert!(message.contains(expected), "{message}");
    }
    let (_, message) = step_of(by_key(&server, "no key at all", None)).await;
    assert!(message.contains("no private key"), "{message}");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,0011223344556677\n\n\
               AAAA\n-----END RSA PRIVATE KEY-----\n";
    let (_, message) = step_of(by_key(&server, old, Some("a passphrase"))).await;
    assert!(message.contains("DES-EDE3-CBC") && message.contains("ssh-keygen -p"), "{message}");
    let interactive = sftp::Login::KeyboardInteractive(SecretString::from("secret"));
    let (_, message) = step_of(sftp::Config { login: vec![interactive], ..server.config() }).await;
    assert!(message.contains("does not offer keyboard-interactive"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_is_answered_with_the_password() {
    let server = Openssh::start_with(&["AuthenticationMethods keyboard-interactive"], &[("OPENSSH_PAM", "yes")]);
    let by_answers = |password| {
        let login = vec![sftp::Login::KeyboardInteractive(SecretString::from(password))];
        sftp::Config { login, ..server.config() }
    };
    let ping = rooted(by_answers("secret"), Path::new("/")).ping().await.unwrap();
    assert!(ping.facts.contains(&("login", "keyboard-interactive".to_owned())), "{:?}", ping.facts);
    let (step, message) = step_of(by_answers("wrong")).await;
    assert_eq!(step, Some(Step::Login));
    assert!(message.contains("keyboard-interactive: the server does not accept it"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_to_log_in_are_tried_in_their_order() {
    let server = Openssh::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (unknown, _) = key_pair(folder.path(), &["-t", "ed25519", "-N", ""]);
    let unknown = sftp::Login::PrivateKey { key: SecretString::from(unknown), passphrase: None };
    let login = vec![unknown, sftp::Login::Password(SecretString::from("secret"))];
    let ping = rooted(sftp::Config { login, ..server.config() }, Path::new("/")).ping().await.unwrap();
    assert!(ping.facts.contains(&("login", "password".to_owned())), "{:?}", ping.facts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_server_ends_is_refused_in_the_words_of_the_server() {
    let server = Openssh::start(&["MaxAuthTries 1"]);
    let folder = tempfile::tempdir().unwrap();
    let (unknown, _) = key_pair(folder.path(), &["-t", "ed25519", "-N", ""]);
    let unknown = sftp::Login::PrivateKey { key: SecretString::from(unknown), passphrase: None };
    let login = vec![unknown, sftp::Login::Password(SecretString::from("secret"))];
    let error = rooted(sftp::Config { login, ..server.config() }, Path::new("/")).ping().await.unwrap_err();
    let message = chain(&error);
    assert!(message.contains("Too many authentication failures"), "{message}");
    assert_eq!((error.step(), error.kind()), (Some(Step::Login), ErrorKind::Denied), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_key_and_a_password_gets_both() {
    let server = Openssh::start(&["AuthenticationMethods publickey,password"]);
    let key = std::fs::read_to_string(server.known_hosts().with_file_name("user_key")).unwrap();
    let key = sftp::Login::PrivateKey { key: SecretString::from(key), passphrase: None };
    let mut login = vec![key, sftp::Login::Password(SecretString::from("secret"))];
    for _ in 0..2 {
        rooted(sftp::Config { login: login.clone(), ..server.config() }, Path::new("/")).ping().await.unwrap();
        // In the order in which the server does not want them.
        login.reverse();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_an_agent_log_in() {
    let server = Openssh::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let until = SystemTime::now() + Duration::from_secs(10);
    while !socket.exists() && SystemTime::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = server.known_hosts().with_file_name("user_key");
    let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
    let login = vec![sftp::Login::Agent { socket: Some(socket.clone()) }];
    let ping = rooted(sftp::Config { login, ..server.config() }, Path::new("/")).ping().await;
    agent.kill().unwrap();
    let _ended = agent.wait();
    assert!(added.success());
    ping.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chosen_cipher_is_agreed_on_with_compression_too() {
    let server = Openssh::start(&[]);
    let algorithms = offering(&[(sftp::Purpose::Ciphers, "aes256-ctr")]);
    let config = sftp::Config { algorithms, compression: true, ..server.config() };
    let ping = rooted(config, Path::new("/")).ping().await.unwrap();
    assert!(ping.facts.contains(&("cipher", "aes256-ctr".to_owned())), "{:?}", ping.facts);
}

fn offering(choices: &[(sftp::Purpose, &str)]) -> sftp::Algorithms {
    let mut algorithms = sftp::Algorithms::default();
    for (purpose, list) in choices {
        algorithms.choose(*purpose, list).unwrap();
    }
    algorithms
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_that_can_be_named_carries_content() {
    let server = Openssh::start(&[
        "Ciphers +aes128-cbc,aes192-cbc,aes256-cbc,3des-cbc",
        "KexAlgorithms +diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha1,diffie-hellman-group1-sha1",
        "MACs +hmac-sha1,hmac-sha1-etm@openssh.com",
    ]);
    let content: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
    std::fs::write(server.home().join("file"), &content).unwrap();
    let ciphers = "aes128-gcm@openssh.com aes256-gcm@openssh.com chacha20-poly1305@openssh.com aes128-ctr aes192-ctr \
                   aes256-ctr aes128-cbc aes192-cbc aes256-cbc 3des-cbc";
    let macs = "hmac-sha2-256-etm@openssh.com hmac-sha2-512-etm@openssh.com hmac-sha2-256 hmac-sha2-512 \
                hmac-sha1-etm@openssh.com hmac-sha1";
    // Those of the others that this server does not have are mlkem768x25519-sha256 and the groups 15 and 17.
    let key_exchanges = "curve25519-sha256 curve25519-sha256@libssh.org ecdh-sha2-nistp256 ecdh-sha2-nistp384 \
                         ecdh-sha2-nistp521 diffie-hellman-group-exchange-sha256 diffie-hellman-group14-sha256 \
                         diffie-hellman-group16-sha512 diffie-hellman-group18-sha512 diffie-hellman-group14-sha1 \
                         diffie-hellman-group-exchange-sha1 diffie-hellman-group1-sha1";
    let by_cipher = ciphers.split_whitespace().map(|name| (name, offering(&[(sftp::Purpose::Ciphers, name)])));
    let by_mac = macs
        .split_whitespace()
        .map(|name| (name, offering(&[(sftp::Purpose::Ciphers, "aes128-ctr"), (sftp::Purpose::Macs, name)])));
    let by_key_exchange =
        key_exchanges.split_whitespace().map(|name| (name, offering(&[(sftp::Purpose::KeyExchanges, name)])));
    for (name, algorithms) in by_cipher.chain(by_mac).chain(by_key_exchange) {
        let remote = rooted(sftp::Config { algorithms, ..server.config() }, &server.home());
        let read = remote.read(&path("/file"), ByteRange::ALL).await;
        let read = read.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert!(read.collect(1 << 20).await.unwrap() == content, "{name}");
        let target = path(&format!("/{name}"));
        let written = remote.write(&target, Content::from_bytes(content.clone()), IfExists::Fail).await;
        written.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert!(std::fs::read(server.home().join(name)).unwrap() == content, "{name}");
    }
}

// ---- Files ---------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn another_server_than_openssh_is_served_and_tells_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host_key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f"]).arg(&file).status();
    assert!(made.unwrap().success());
    let key = format!("SFTPHostKey {}", file.display());
    let server =
        FtpServer::start("proftpd", &["LoadModule mod_sftp.c", "SFTPEngine on", "SFTPExtensions +checkFile", &key]);
    let told = Command::new("ssh-keygen").args(["-l", "-E", "sha256", "-f"]).arg(&file).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let fingerprint = sftp::Fingerprint::parse(told.split(' ').nth(1).unwrap()).unwrap();
    let remote = rooted(
        sftp::Config {
            port: server.port(),
            login: vec![sftp::Login::Password(SecretString::from("secret"))],
            host_keys: sftp::HostKeys { pinned: vec![fingerprint], ..sftp::HostKeys::default() },
            ..sftp::Config::new("127.0.0.1", "alice")
        },
        Path::new("/"),
    );
    let ping = remote.ping().await.unwrap();
    assert!(ping.facts.iter().any(|(name, value)| *name == "server" && value.contains("mod_sftp")), "{:?}", ping.facts);
    remote.make_directory(&path("/in")).await.unwrap();
    let content: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    for if_exists in [IfExists::Fail, IfExists::Replace] {
        remote.write(&path("/in/file"), Content::from_bytes(content.clone()), if_exists).await.unwrap();
    }
    assert!(std::fs::read(server.home().join("in/file")).unwrap() == content);
    let read = remote.read(&path("/in/file"), ByteRange::ALL).await.unwrap();
    assert!(read.collect(1 << 20).await.unwrap() == content);
    let checksum = remote.checksum(&path("/in/file")).await.unwrap().expect("mod_sftp computes it");
    let expected = Command::new("sha256sum").arg(server.home().join("in/file")).output().unwrap();
    assert_eq!(checksum.algorithm, ChecksumAlgorithm::Sha256);
    assert!(String::from_utf8(expected.stdout).unwrap().starts_with(&checksum.value), "{checksum:?}");
    fails(remote.checksum(&path("/in")).await, ErrorKind::Conflict);
    fails(remote.checksum(&path("/missing")).await, ErrorKind::NotFound);
    remote.rename(&path("/in/file"), &path("/in/renamed"), IfExists::Fail).await.unwrap();
    let names: Vec<String> =
        remote.list(&path("/in")).await.unwrap().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/in/renamed"]);
    remote.delete_tree(&path("/in")).await.unwrap();
    assert!(!server.home().join("in").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_path_could_hold_is_listed_read_and_deleted() {
    let server = Openssh::start(&[]);
    for name in [&b"caf\xe9 \xff.txt"[..], b"back\\slash", b"two\nlines", b"\x7f\x01", b"control\xc2\x85"] {
        is_listed_read_and_deleted(&server, std::ffi::OsStr::from_bytes(name)).await;
    }
    std::fs::write(server.home().join("up\\..\\x"), "x").unwrap();
    assert_eq!(connection(&server).list(&RemotePath::root()).await.unwrap().len(), 0, "it may lead up on Windows");
}

async fn is_listed_read_and_deleted(server: &Openssh, name: &std::ffi::OsStr) {
    std::fs::write(server.home().join(name), "x").unwrap();
    let remote = connection(server);
    let entries = remote.list(&RemotePath::root()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(text(&remote, entries[0].path.as_str()).await, "x");
    let renamed = path("/renamed");
    remote.rename(&entries[0].path, &renamed, IfExists::Fail).await.unwrap();
    remote.rename(&renamed, &entries[0].path, IfExists::Fail).await.unwrap();
    assert!(server.home().join(name).exists());
    remote.delete(&entries[0].path).await.unwrap();
    assert_eq!(std::fs::read_dir(server.home()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_out_of_the_root_is_not_followed() {
    let server = Openssh::start(&[]);
    let (root, outside) = (server.home().join("root"), server.home().join("outside"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(outside.join("folder")).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    std::fs::create_dir(root.join("inside")).unwrap();
    std::fs::write(root.join("inside/file"), "inside").unwrap();
    symlink(&outside, root.join("folder-link")).unwrap();
    symlink(outside.join("secret"), root.join("file-link")).unwrap();
    symlink("inside", root.join("inner-link")).unwrap();
    let remote = rooted(server.config(), &root);
    let out = path("/folder-link/secret");
    for at in ["/folder-link/secret", "/file-link"] {
        fails(remote.read(&path(at), ByteRange::ALL).await, ErrorKind::Denied);
        fails(remote.append(&path(at), Content::from_bytes("x")).await, ErrorKind::Denied);
    }
    fails(remote.stat(&out).await, ErrorKind::Denied);
    fails(remote.list(&path("/folder-link")).await, ErrorKind::Denied);
    fails(remote.write(&out, Content::from_bytes("x"), IfExists::Replace).await, ErrorKind::Denied);
    fails(remote.delete(&out).await, ErrorKind::Denied);
    fails(remote.rename(&path("/inside/file"), &out, IfExists::Replace).await, ErrorKind::Denied);
    fails(remote.make_directory(&path("/folder-link/new")).await, ErrorKind::Denied);
    let handle = remote.sftp().unwrap();
    fails(handle.chmod(&path("/file-link"), 0o777).await, ErrorKind::Denied);
    fails(handle.hard_link(&out, &path("/copy")).await, ErrorKind::Denied);
    fails(handle.realpath(&path("/file-link")).await, ErrorKind::Denied);
    fails(handle.symlink("../outside", &path("/new-link")).await, ErrorKind::Denied);
    fails(handle.statvfs(&path("/folder-link")).await, ErrorKind::Denied);
    // Within the root links are followed.
    assert_eq!(text(&remote, "/inner-link/file").await, "inside");
    assert_eq!(handle.realpath(&path("/inner-link/file")).await.unwrap(), path("/inside/file"));
    // And what they lead to survives when they are deleted.
    handle.delete(&path("/folder-link")).await.unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_out_of_a_folder_is_not_followed_by_those_who_are_confined_to_it() {
    let server = Openssh::start(&[]);
    for folder in ["in/deep", "outside"] {
        std::fs::create_dir_all(server.home().join(folder)).unwrap();
    }
    std::fs::write(server.home().join("outside/secret"), "secret").unwrap();
    std::fs::write(server.home().join("in/deep/file"), "inside").unwrap();
    symlink("../outside", server.home().join("in/out")).unwrap();
    symlink("deep", server.home().join("in/within")).unwrap();
    let remote = connection(&server);
    let confined = remote.within(&[path("/in"), path("/new")]);
    // Sessions are shared: what one found out does not hold for the other.
    for _ in 0..2 {
        assert_eq!(text(&remote, "/in/out/secret").await, "secret");
        assert!(fails(confined.read(&path("/in/out/secret"), ByteRange::ALL).await, ErrorKind::Denied).contains("/in"));
        assert_eq!(text(&confined, "/in/within/file").await, "inside");
    }
    fails(confined.list(&path("/in/out")).await, ErrorKind::Denied);
    fails(confined.delete(&path("/in/out/secret")).await, ErrorKind::Denied);
    fails(confined.sftp().unwrap().chmod(&path("/in/out/secret"), 0o777).await, ErrorKind::Denied);
    let options = WriteOptions { parents: true, ..WriteOptions::new(IfExists::Fail) };
    confined.write_with(&path("/new/folder/file"), Content::from_bytes("x"), &options).await.unwrap();
    assert_eq!(text(&confined, "/new/folder/file").await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_the_protocol_does_not_have_is_refused_and_paths_are_told_from_inside() {
    let server = Openssh::start(&[]);
    std::fs::write(server.home().join("file"), "x").unwrap();
    let remote = connection(&server);
    for seconds in [5_000_000_000, 4_294_967_296] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(fails(remote.set_modified(&path("/file"), time).await, ErrorKind::Invalid).contains("2106"));
    }
    let message = fails(remote.read(&path("/missing"), ByteRange::ALL).await, ErrorKind::NotFound);
    assert!(message.contains("/missing") && !message.contains(server.home().to_str().unwrap()), "{message}");
    let missing = rooted(server.config(), &server.home().join("no-folder"));
    assert_eq!(missing.ping().await.unwrap_err().step(), Some(Step::Command));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_keeps_its_time_and_can_be_continued() {
    let server = Openssh::start(&[]);
    let remote = connection(&server);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let options = WriteOptions { modified: Some(modified), ..WriteOptions::new(IfExists::Replace) };
    let written = remote.write_with(&path("/file"), Content::from_bytes("abc"), &options).await.unwrap();
    assert_eq!(written.modified, Some(modified));
    let appended = remote.append(&path("/file"), Content::from_bytes("def")).await.unwrap();
    assert_eq!((appended.size, text(&remote, "/file").await.as_str()), (Some(6), "abcdef"));
    remote.append(&path("/new"), Content::from_bytes("x")).await.unwrap();
    assert_eq!(text(&remote, "/new").await, "x");
    remote.set_modified(&path("/new"), modified).await.unwrap();
    assert_eq!(remote.stat(&path("/new")).await.unwrap().modified, Some(modified));
    let copied = remote.copy(&path("/file"), &path("/copy"), IfExists::Fail).await.unwrap();
    assert_eq!((copied.size, text(&remote, "/copy").await.as_str()), (Some(6), "abcdef"));
    fails(remote.copy(&path("/file"), &path("/copy"), IfExists::Fail).await, ErrorKind::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_permissions_times_and_links_are_told_and_changed() {
    let server = Openssh::start(&[]);
    let (remote, home) = (connection(&server), server.home());
    let handle = remote.sftp().unwrap();
    let file = path("/file");
    std::fs::write(home.join("file"), "abc").unwrap();
    let metadata = std::fs::metadata(home.join("file")).unwrap();
    let info = handle.get_info(&file).await.unwrap();
    assert_eq!((info.kind, info.size), (EntryKind::File, Some(3)));
    assert_eq!((info.user, info.group), (Some(metadata.uid()), Some(metadata.gid())));
    // Sessions see the users of this machine, not those of the script.
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap().trim().to_owned();
    assert_eq!(info.user_name.as_ref(), Some(&user));

    handle.chmod(&file, 0o640).await.unwrap();
    assert_eq!(std::fs::metadata(home.join("file")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(fails(handle.chmod(&file, 0o10000).await, ErrorKind::Invalid).contains("10000"));
    let user = sftp::Owner::parse(&user);
    handle.chown(&file, Some(user), Some(sftp::Owner::Id(metadata.gid())), true).await.unwrap();
    let nobody = sftp::Owner::parse("no such user");
    fails(handle.chown(&file, Some(nobody), None, true).await, ErrorKind::Invalid);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    handle.set_times(&file, Some(time), Some(time)).await.unwrap();
    let info = handle.get_info(&file).await.unwrap();
    assert_eq!((info.accessed, info.modified), (Some(time), Some(time)));

    handle.symlink("file", &path("/link")).await.unwrap();
    handle.symlink("/file", &path("/absolute")).await.unwrap();
    assert_eq!(std::fs::read_link(home.join("absolute")).unwrap(), home.join("file"));
    assert_eq!(handle.read_link(&path("/link")).await.unwrap(), "file");
    fails(handle.read_link(&file).await, ErrorKind::Conflict);
    fails(handle.symlink("x", &path("/link")).await, ErrorKind::AlreadyExists);
    handle.hard_link(&file, &path("/second")).await.unwrap();
    assert_eq!(std::fs::metadata(home.join("file")).unwrap().nlink(), 2);
    assert!(handle.is_symlink(&path("/link")).await.unwrap() && !handle.is_file(&path("/link")).await.unwrap());
    assert!(handle.is_file(&file).await.unwrap() && handle.exists(&file).await.unwrap());
    assert!(handle.is_directory(&RemotePath::root()).await.unwrap());
    assert!(!handle.exists(&path("/missing")).await.unwrap());
    assert_eq!(handle.follow_info(&path("/link")).await.unwrap().kind, EntryKind::File);
    assert!(handle.statvfs(&RemotePath::root()).await.unwrap().blocks > 0);
    handle.fsync(&file).await.unwrap();
    assert_eq!(handle.download_file(&path("/link")).await.unwrap().collect(10).await.unwrap(), "abc");
    assert_eq!(handle.list(&RemotePath::root()).await.unwrap().len(), 4);

    fails(handle.delete_file(&path("/link")).await, ErrorKind::Conflict);
    fails(handle.delete_directory(&file).await, ErrorKind::Conflict);
    handle.delete_symlink(&path("/link")).await.unwrap();
    handle.delete_file(&file).await.unwrap();
    fails(handle.delete(&RemotePath::root()).await, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_within_a_folder_tells_paths_relative_to_it() {
    let server = Openssh::start(&[]);
    std::fs::create_dir_all(server.home().join("team/inbox")).unwrap();
    let handle = connection(&server).sftp().unwrap().within(&path("/team"));
    assert_eq!(handle.list(&RemotePath::root()).await.unwrap()[0].path, path("/inbox"));
    assert_eq!(handle.realpath(&path("/inbox")).await.unwrap(), path("/inbox"));
    handle.symlink("/inbox", &path("/link")).await.unwrap();
    assert_eq!(handle.follow_info(&path("/link")).await.unwrap().kind, EntryKind::Directory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_deleted_with_all_that_is_in_it() {
    let server = Openssh::start(&[]);
    let (remote, home) = (connection(&server), server.home());
    for folder in 0..5 {
        let folder = home.join(format!("tree/{folder}/deep"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..150 {
            std::fs::write(folder.join(format!("{file}")), "x").unwrap();
        }
    }
    remote.sftp().unwrap().delete(&path("/tree")).await.unwrap();
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
}
