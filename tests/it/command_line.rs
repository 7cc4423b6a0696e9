//! The commands on connections, as a person types them: what they print, what they end with, what they leave.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dropbox_emulator::{Emulator, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{FtpServer, PATIENCE, choose_tls_provider};

/// What a run of the program said.
struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Said {
    /// The lines of its output as JSON.
    fn json(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.output.lines().map(parse).collect()
    }
}

/// A folder with a configuration: an FTP server, a local folder `disk`, and one connection that leads nowhere.
struct Place {
    folder: TempDir,
    ftp: FtpServer,
}

impl Place {
    fn new() -> Self {
        let (folder, ftp) = (TempDir::new().unwrap(), FtpServer::start());
        fs::create_dir(folder.path().join("disk")).unwrap();
        fs::write(folder.path().join("password"), "secret").unwrap();
        let configuration = format!(
            "[host]\negress-allow = ['127.0.0.0/8']\n\
             [connections.disk]\ntype = 'local'\nfolder = 'disk'\n\
             [connections.partner]\ntype = 'ftp'\nhost = '127.0.0.1'\nport = {port}\nuser = 'alice'\n\
             password = {{ file = 'password' }}\n\
             [connections.nobody]\ntype = 'ftp'\nhost = '127.0.0.1'\nport = {port}\nuser = 'nobody'\n\
             password = {{ file = 'password' }}\n",
            port = ftp.port()
        );
        fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
        Self { folder, ftp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn wharf(&self, arguments: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        let ended = timeout(PATIENCE, command.kill_on_drop(true).output()).await.expect("it ends by itself").unwrap();
        Said {
            code: ended.status.code(),
            output: String::from_utf8(ended.stdout).unwrap(),
            errors: String::from_utf8(ended.stderr).unwrap(),
        }
    }

    async fn done(&self, arguments: &str) -> Said {
        let said = self.wharf(arguments).await;
        assert_eq!((said.code, said.errors.as_str()), (Some(0), ""), "{arguments}: {}", said.output);
        said
    }
}

#[tokio::test]
async fn ping_tells_the_time_or_the_step_that_failed() {
    let place = Place::new();
    let said = place.done("ping partner").await;
    assert!(said.output.starts_with("partner: ftp connection works, "), "{}", said.output);
    let told = &place.done("ping --json partner").await.json()[0];
    assert_eq!((&told["connection"], &told["type"]), (&json!("partner"), &json!("ftp")));
    assert!(told["milliseconds"].as_f64().unwrap() > 0.0);

    let said = place.wharf("ping nobody").await;
    assert_eq!(said.code, Some(1));
    assert!(said.output.contains("nobody: failed at login"), "{}", said.output);
    let said = place.wharf("ping nobody --json").await;
    assert_eq!((said.code, said.errors.as_str()), (Some(1), ""));
    assert_eq!(
        (&said.json()[0]["error"]["step"], &said.json()[0]["error"]["kind"]),
        (&json!("login"), &json!("denied"))
    );
    let all = format!("{}{}", said.output, said.errors);
    assert!(!all.contains("secret"), "{all}");
}

#[tokio::test]
async fn a_connection_that_is_not_configured_is_told_with_those_that_are() {
    let place = Place::new();
    let said = place.wharf("ls patner:/").await;
    assert_eq!(said.code, Some(3));
    assert_eq!(said.errors, "wharf: no connection is named \"patner\"; there are disk, nobody, partner\n");
    assert_eq!(place.wharf("ls partner:/a/../b").await.code, Some(2));
    let said = place.wharf("ls partner").await;
    assert_eq!(said.code, Some(1));
    assert!(said.errors.contains("nothing is there"), "{}", said.errors);
    assert!(said.errors.ends_with("; for the connection partner, write partner:\n"), "{}", said.errors);
    let copied = place.wharf("cp partner here").await;
    assert!(copied.errors.ends_with("; for the connection partner, write partner:\n"), "{}", copied.errors);
    assert!(!place.wharf("ls patner").await.errors.contains("connection"));
    fs::write(place.path("wharf.toml"), "[connections.a]\ntype = 'fpt'").unwrap();
    assert_eq!(place.wharf("ls a:/").await.code, Some(3));
}

#[tokio::test]
async fn a_command_needs_only_the_connections_that_it_uses_to_be_right() {
    let place = Place::new();
    let mut configuration = fs::read_to_string(place.path("wharf.toml")).unwrap();
    configuration += "[connections.team]\ntype = 'dropbox'\napp-key = 'k'\nrefresh-token = { file = 'team.token' }\n";
    fs::write(place.path("wharf.toml"), configuration).unwrap();
    place.done("ls disk:/").await;
    place.done("ping partner").await;
    for arguments in ["ls team:/", "cp -r disk:/ team:/", "check"] {
        let said = place.wharf(arguments).await;
        assert_eq!(said.code, Some(3), "{arguments}");
        assert!(said.errors.contains("team.token cannot be read"), "{}", said.errors);
        assert!(said.errors.contains("wharf dropbox login team makes it"), "{}", said.errors);
    }
}

#[tokio::test]
async fn with_json_every_error_has_the_same_form_also_of_the_command_line() {
    let place = Place::new();
    for (arguments, code, kind, part) in [
        ("ls --json partner:/a/../b", 2, "invalid", "partner:/a/../b"),
        ("cp --json one", 2, "invalid", "<TARGET>"),
        ("ping --json patner", 3, "not-found", "no connection is named"),
        ("ping --json partner --config no.toml", 3, "invalid", "no.toml: cannot be read"),
        ("ping nobody --json", 1, "denied", "refused the login"),
    ] {
        let said = place.wharf(arguments).await;
        assert_eq!((said.code, said.errors.as_str()), (Some(code), ""), "{arguments}");
        let told = said.json();
        let error = told.last().unwrap()["error"].as_object().unwrap();
        assert_eq!(error["kind"], kind, "{arguments}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error:?}");
        assert!(error.contains_key("step") && error.contains_key("retry_after_seconds"), "{error:?}");
    }
    let people = place.wharf("ls partner:/a/../b").await;
    assert_eq!((people.code, people.output.as_str()), (Some(2), ""));
    assert!(people.errors.starts_with("error: "), "{}", people.errors);
    let help = place.done("ls --json --help").await;
    assert!(help.output.contains("Usage: wharf ls"), "{}", help.output);
}

#[tokio::test]
async fn a_reader_who_leaves_early_is_no_reason_for_an_error_message() {
    let place = Place::new();
    fs::write(place.path("disk/a"), "").unwrap();
    for arguments in ["ping partner", "ping --json partner", "check", "ls disk:/"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(arguments.split_whitespace()).current_dir(place.folder.path()).kill_on_drop(true);
        let program = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let ended = timeout(PATIENCE, program.wait_with_output()).await.expect("it ends by itself").unwrap();
        let errors = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), errors.as_str()), (Some(1), ""), "{arguments}");
    }
}

#[tokio::test]
async fn a_folder_is_listed_for_people_and_for_programs() {
    let place = Place::new();
    fs::create_dir_all(place.path("disk/in/deep")).unwrap();
    fs::write(place.path("disk/in/report.csv"), "12345").unwrap();
    fs::write(place.path("disk/in/deep/x.tmp"), "").unwrap();
    let said = place.done("ls disk:/in").await;
    assert!(said.output.lines().any(|line| line.trim_start().starts_with("5 ") && line.ends_with(" report.csv")));
    assert!(said.output.lines().any(|line| line.ends_with(" deep/")), "{}", said.output);
    let entries = place.done("ls -r --json disk:/ --exclude *.tmp").await.json();
    let mut paths: Vec<&str> = entries.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    paths.sort();
    assert_eq!(paths, ["/in", "/in/deep", "/in/report.csv"]);
    assert_eq!(place.done("ls disk:/in/report.csv").await.output.lines().count(), 1);
    let missing = place.wharf("ls disk:/missing").await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.errors.contains("/missing"), "{}", missing.errors);
}

#[tokio::test]
async fn files_and_trees_are_copied_and_moved_between_connections_and_this_machine() {
    let place = Place::new();
    fs::create_dir_all(place.path("local/deep")).unwrap();
    fs::write(place.path("local/a.txt"), "a").unwrap();
    fs::write(place.path("local/deep/b.txt"), "bb").unwrap();

    let refused = place.wharf("cp local partner:/").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("is a folder; write -r"), "{}", refused.errors);

    let said = place.done("cp -r local partner:/").await;
    assert!(said.output.contains("2 files copied"), "{}", said.output);
    assert_eq!(fs::read_to_string(place.ftp.home().join("local/deep/b.txt")).unwrap(), "bb");

    // Its targets exist.
    let again = place.wharf("cp -r local partner:/ --json").await;
    assert_eq!(again.code, Some(1), "{}", again.output);
    assert_eq!(again.json()[0]["error"]["kind"], "already-exists");
    place.done("cp -r local partner:/ --if-exists skip").await;

    let moved = place.done("cp -r --move --verify --json partner:/local/ disk:/moved").await.json();
    let sum = moved.last().unwrap();
    assert_eq!((&sum["transferred"], &sum["failed"], &sum["bytes"]), (&json!(2), &json!(0), &json!(3)));
    assert_eq!(fs::read_to_string(place.path("disk/moved/deep/b.txt")).unwrap(), "bb");
    assert!(place.ftp.names().is_empty(), "{:?}", place.ftp.names());

    place.done("cp disk:/moved/a.txt back.txt").await;
    assert_eq!(fs::read_to_string(place.path("back.txt")).unwrap(), "a");
    fs::set_permissions(place.path("back.txt"), fs::Permissions::from_mode(0o604)).unwrap();
    place.done("cp --permissions back.txt disk:/kept.txt").await;
    assert_eq!(fs::metadata(place.path("disk/kept.txt")).unwrap().permissions().mode() & 0o777, 0o604);
    place.done("cp -q --permissions back.txt partner:/new/name.txt").await;
    assert_eq!(fs::read_to_string(place.ftp.home().join("new/name.txt")).unwrap(), "a");
}

#[tokio::test]
async fn a_link_that_is_the_source_is_followed_and_not_moved() {
    let place = Place::new();
    fs::create_dir(place.path("disk/folder")).unwrap();
    fs::write(place.path("disk/folder/file"), "content").unwrap();
    for (link, target) in
        [("link", "folder/file"), ("tree", "folder"), ("folder/inner", "file"), ("out", "/etc/passwd")]
    {
        symlink(target, place.path("disk").join(link)).unwrap();
    }
    place.done("cp disk:/link copy").await;
    place.done("cp disk:/link partner:/copy").await;
    assert_eq!(fs::read_to_string(place.path("copy")).unwrap(), "content");
    assert_eq!(fs::read_to_string(place.ftp.home().join("copy")).unwrap(), "content");
    let said = place.done("cp -r disk:/tree copies").await;
    assert!(said.output.contains("1 file copied") && said.output.contains("1 file left out"), "{}", said.output);
    assert_eq!(fs::read_to_string(place.path("copies/file")).unwrap(), "content");
    for (arguments, why) in [
        ("cp disk:/out x", "leads out"),
        ("cp disk:/tree x", "write -r"),
        ("cp --move disk:/link x", "symbolic link"),
        ("cp -r disk:/tree disk:/folder/again", "symbolic link"),
    ] {
        let said = place.wharf(arguments).await;
        assert_eq!(said.code, Some(1), "{arguments}");
        assert!(said.errors.contains(why), "{arguments}: {}", said.errors);
    }
    assert!(!place.path("x").exists() && place.path("disk/link").is_symlink());
}

#[tokio::test]
async fn nothing_is_copied_into_or_moved_onto_itself_on_this_machine() {
    let place = Place::new();
    fs::create_dir_all(place.path("loop/in")).unwrap();
    fs::write(place.path("loop/file"), "content").unwrap();
    for (command, why) in
        [("cp -r loop loop/in/", "which is within it"), ("cp -r --move --if-exists replace loop/ ./loop/", "to itself")]
    {
        let refused = place.wharf(command).await;
        assert_eq!(refused.code, Some(1), "{command}: {}", refused.errors);
        assert!(refused.errors.contains(why), "{}", refused.errors);
    }
    let onto_itself = place.wharf("cp --move --if-exists replace loop/file ./loop/../loop/file").await;
    assert_eq!(onto_itself.code, Some(1), "{}", onto_itself.output);
    assert_eq!(fs::read_to_string(place.path("loop/file")).unwrap(), "content");
    assert_eq!(fs::read_dir(place.path("loop/in")).unwrap().count(), 0);
    let copied = place.done("cp --json loop/file new/deep/file").await.json();
    let target = place.path("new/deep/file").canonicalize().unwrap();
    assert_eq!(copied[0]["target"], target.to_str().unwrap());
}

#[tokio::test]
async fn a_copy_of_which_a_part_fails_says_so() {
    let place = Place::new();
    fs::create_dir_all(place.path("disk/in")).unwrap();
    fs::create_dir_all(place.path("disk/out/taken")).unwrap();
    fs::write(place.path("disk/in/good"), "x").unwrap();
    fs::write(place.path("disk/in/taken"), "x").unwrap();
    let said = place.wharf("cp -r disk:/in/ disk:/out --if-exists replace").await;
    assert_eq!(said.code, Some(4), "{}{}", said.output, said.errors);
    assert!(said.errors.contains("/in/taken"), "{}", said.errors);
    assert!(said.output.contains("1 file copied") && said.output.contains("1 file failed"), "{}", said.output);
    assert!(place.path("disk/out/good").exists());
}

/// A command that ends by itself, in this folder.
async fn wharf(folder: &TempDir, arguments: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments.split_whitespace()).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.expect("it ends").unwrap()
}

#[tokio::test]
async fn a_login_with_a_wrong_configuration_says_what_is_wrong_with_it() {
    let folder = TempDir::new().unwrap();
    const TOKEN: &str = "refresh-token = { file = 'team.token' }";
    for (table, told) in [
        (format!("type = 'dropbox'\n{TOKEN}"), "wharf.toml:2: connections.team.app-key: missing"),
        ("type = 'dropbox'\napp-key = 'k'".to_owned(), "connections.team.refresh-token: missing"),
        ("type = 'dropbox'\napp-key = 'k'\nrefresh-token = { env = 'T' }".to_owned(), "refresh-token = { file"),
        (format!("type = 'dropbox'\napp-key = 'k'\naccess-token = {{ env = 'T' }}\n{TOKEN}"), "team.access-token"),
        (
            "type = 'local'\nfolder = '.'".to_owned(),
            "connections.team.type: a login is for connections of type dropbox",
        ),
        (format!("type = 'dropbox'\napp-key = 'k'\n{TOKEN}\nap-key = 'x'"), "connections.team.ap-key"),
        ("type = ".to_owned(), "wharf.toml:3: not valid TOML"),
    ] {
        // Its first table has nothing to do with the login, and a token that is not there yet.
        let other = "[connections.other]\ntype = 'dropbox'\napp-key = 'o'\nrefresh-token = { file = 'missing' }";
        fs::write(folder.path().join("wharf.toml"), format!("\n[connections.team]\n{table}\n{other}\n")).unwrap();
        let said = wharf(&folder, "dropbox login team").await;
        let errors = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(3), "{errors}");
        assert!(errors.contains(told), "{told}: {errors}");
        assert!(!errors.contains("connections.other"), "{errors}");
    }
    let said = wharf(&folder, "dropbox login team --config missing.toml").await;
    assert_eq!(said.status.code(), Some(3), "{said:?}");
}

#[tokio::test]
async fn a_login_behind_another_api_url_goes_below_it() {
    let folder = TempDir::new().unwrap();
    let configuration = "[connections.team]\ntype = 'dropbox'\napp-key = 'k'\nrefresh-token = { file = 't' }\n\
                         api-url = 'https://proxy.example.com/dbx/api'\n";
    fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
    let (_program, address) = login(&folder, "dropbox login team --json").await;
    assert!(address.starts_with("https://proxy.example.com/dbx/api/oauth2/authorize?"), "{address}");
}

#[tokio::test]
async fn a_login_whose_token_cannot_be_stored_ends_before_anybody_consents() {
    let folder = TempDir::new().unwrap();
    let configuration =
        "[connections.team]\ntype = 'dropbox'\napp-key = 'k'\nrefresh-token = { file = 'file/token' }\n";
    fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
    fs::write(folder.path().join("file"), "where a folder would have to be").unwrap();
    let said = wharf(&folder, "dropbox login team").await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(String::from_utf8(said.stderr).unwrap().contains("cannot store the token in"), "it does not say why");
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "");
}

#[tokio::test]
async fn a_listing_asks_a_server_that_lets_nobody_in_once() {
    let folder = TempDir::new().unwrap();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let configuration = format!(
        "[host]\negress-allow = ['127.0.0.0/8']\n[connections.partner]\ntype = 'ftp'\nhost = '127.0.0.1'\nport = {}\n\
         user = 'alice'\npassword = {{ file = 'password' }}\nretries = 0\n",
        server.local_addr().unwrap().port()
    );
    fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
    fs::write(folder.path().join("password"), "secret").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _gone = stream.write_all(b"421 come back later\r\n").await;
        }
    });
    let said = wharf(&folder, "ls partner:/").await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "{said:?}");
}

/// A login at the emulator: the program, and what it has printed so far.
async fn login(folder: &TempDir, arguments: &str) -> (tokio::process::Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments.split_whitespace()).current_dir(folder.path()).kill_on_drop(true);
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.as_mut().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it prints the address").unwrap().expect("a line");
    let address: Value = serde_json::from_str(&line).unwrap();
    (program, address["address"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_login_stores_a_refresh_token_that_works_and_shows_it_to_nobody() {
    let options = Options::default();
    let (key, refresh_token) = (options.app_key.clone(), options.refresh_token.clone());
    let emulator = Emulator::start(options).await.unwrap();
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("ca.pem"), emulator.ca_pem()).unwrap();
    let configuration = format!(
        "[host]\negress-allow = ['127.0.0.0/8']\n[connections.team]\ntype = 'dropbox'\napp-key = '{key}'\n\
         refresh-token = {{ file = 'secrets/team.token' }}\napi-url = '{}'\ncertificate-authority = 'ca.pem'\n",
        emulator.url()
    );
    fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
    choose_tls_provider();
    let authority = reqwest::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let browser = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap();
    let token = folder.path().join("secrets/team.token");

    for redirect in [false, true] {
        let arguments = if redirect { " --redirect 0" } else { "" };
        let (mut program, address) = login(&folder, &format!("dropbox login team --json{arguments}")).await;
        let page = browser.get(&address).send().await.unwrap().text().await.unwrap();
        if redirect {
            assert!(page.contains("You can close this page"), "{page}");
        } else {
            program.stdin.take().unwrap().write_all(format!("{page}\n").as_bytes()).await.unwrap();
        }
        let said = timeout(PATIENCE, program.wait_with_output()).await.expect("it ends").unwrap();
        let (output, errors) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
        assert!(said.status.success(), "{output}{errors}");
        assert!(!output.contains(&refresh_token) && !errors.contains(&refresh_token));
        let stored = fs::read_to_string(&token).unwrap();
        assert_eq!(stored.lines().next(), Some(refresh_token.as_str()));
        assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
        let ping = wharf(&folder, "ping team --json").await;
        assert!(ping.status.success(), "{ping:?}");
        let ping: Value = serde_json::from_slice(&ping.stdout).unwrap();
        assert!(ping["facts"]["scopes"].as_str().unwrap().starts_with("account_info.read files."), "{ping}");
        fs::remove_file(&token).unwrap();
    }

    let (mut program, _) = login(&folder, "dropbox login team --json").await;
    program.stdin.take().unwrap().write_all(b"no such code\n").await.unwrap();
    let said = timeout(PATIENCE, program.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8(said.stdout).unwrap().contains("\"denied\""));
    assert!(!token.exists());
}
