//! The interface `sftp` as a service uses it, every operation, and the shell on the command line, on a real server.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{Answer, Host, PATIENCE, SftpServer, eventually};

async fn start(server: &SftpServer, grant: &str) -> Host {
    let configuration = format!(
        "{}[connections.disk]\ntype = 'local'\nfolder = 'disk'\n[services.sftp]\ngrants = [{grant}, \
         {{ connection = 'disk', access = 'write' }}]\n[services.files]\ngrants = [{grant}]\n",
        server.connection("partner")
    );
    let builder = Host::builder().services(&["sftp", "files"]).file("sftp-password", "secret").file("disk/local", "up");
    builder.configuration(&configuration).start().await
}

async fn everything(server: &SftpServer) -> Host {
    start(server, "{ connection = 'partner', access = 'write' }").await
}

async fn call(host: &Host, parameters: &str) -> Answer {
    host.get(&format!("sftp?connection=partner&{parameters}")).await
}

async fn json_of(host: &Host, parameters: &str) -> Value {
    call(host, parameters).await.expect(200).json()
}

#[tokio::test]
async fn every_operation_does_what_it_says() {
    let server = SftpServer::start();
    let host = everything(&server).await;
    let home = server.home();
    fs::write(home.join("file"), "content").unwrap();
    fs::create_dir(home.join("folder")).unwrap();

    let info = json_of(&host, "op=get-info&path=/file").await;
    assert_eq!((&info["kind"], &info["size"]), (&json!("file"), &json!(7)));
    assert_eq!(json_of(&host, "op=list&path=/").await["entries"].as_array().unwrap().len(), 2);
    json_of(&host, "op=chmod&path=/file&mode=640").await;
    assert_eq!(fs::metadata(home.join("file")).unwrap().permissions().mode() & 0o777, 0o640);
    let (user, group) = (info["user"].as_u64().unwrap(), info["group"].as_u64().unwrap());
    json_of(&host, &format!("op=chown&path=/file&user={user}&group={group}")).await;
    json_of(&host, "op=set-times&path=/file&modified=1234567890").await;
    assert_eq!(fs::metadata(home.join("file")).unwrap().mtime(), 1_234_567_890);
    json_of(&host, "op=symlink&path=/link&target=file").await;
    assert_eq!(json_of(&host, "op=read-link&path=/link").await["target"], "file");
    assert_eq!(
        json_of(&host, "op=kind&path=/link").await,
        json!({ "directory": false, "file": false, "symlink": true })
    );
    assert_eq!(json_of(&host, "op=follow-info&path=/link").await["kind"], "file");
    assert_eq!(json_of(&host, "op=realpath&path=/link").await["path"], "/file");
    json_of(&host, "op=hard-link&path=/second&target=/file").await;
    assert_eq!(fs::metadata(home.join("file")).unwrap().nlink(), 2);
    assert_eq!(call(&host, "op=download-file&path=/second").await.expect(200).text(), "content");
    call(&host, "op=download-file&path=/folder").await.problem(409);
    assert!(json_of(&host, "op=statvfs&path=/").await["bytes"].as_u64().unwrap() > 0);
    json_of(&host, "op=fsync&path=/file").await;
    call(&host, "op=delete-file&path=/link").await.problem(409);
    json_of(&host, "op=delete-symlink&path=/link").await;
    json_of(&host, "op=delete-file&path=/second").await;
    call(&host, "op=delete-directory&path=/file").await.problem(409);
    json_of(&host, "op=delete-directory&path=/folder").await;
    symlink("/etc", home.join("outside")).unwrap();
    call(&host, "op=follow-info&path=/outside").await.problem(403);
    json_of(&host, "op=delete&path=/outside").await;
    assert!(fs::metadata("/etc").is_ok());
}

#[tokio::test]
async fn a_script_is_executed_and_each_command_has_its_result() {
    let server = SftpServer::start();
    let host = everything(&server).await;
    let script = "mkdir in\ncd in\nput local remote\n-rm missing\nrename remote renamed\nget renamed back\nls -la\n";
    let target = "sftp?connection=partner&op=execute-with&local=disk&local-folder=/";
    let answer = host.post(target, script).await.expect(200).json();
    assert_eq!(answer["complete"], true, "{answer}");
    let commands = answer["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 7);
    assert_eq!((&commands[3]["ignored"], &commands[3]["error"]["error"]["code"]), (&json!(true), &json!("not-found")));
    assert!(commands[6]["output"].as_str().unwrap().contains("renamed"), "{}", commands[6]);
    assert_eq!(fs::read_to_string(host.folder().join("disk/back")).unwrap(), "up");

    let stopped = host.post("sftp?connection=partner&op=execute", "rm missing\nmkdir never\n").await;
    let stopped = stopped.expect(200).json();
    assert_eq!((&stopped["complete"], stopped["commands"].as_array().unwrap().len()), (&json!(false), 1));
    assert!(!server.home().join("never").exists());
    let no_local = host.post("sftp?connection=partner&op=execute", "get in/renamed\n").await.expect(200).json();
    assert_eq!(no_local["complete"], false);
}

#[tokio::test]
async fn a_grant_below_a_folder_holds_for_sftp_too() {
    let server = SftpServer::start();
    fs::create_dir(server.home().join("in")).unwrap();
    fs::write(server.home().join("in/mine"), "x").unwrap();
    fs::write(server.home().join("secret"), "x").unwrap();
    let host = start(&server, "{ connection = 'partner', access = 'write', path = '/in' }").await;
    json_of(&host, "op=get-info&path=/in/mine").await;
    json_of(&host, "op=chmod&path=/in/mine&mode=600").await;
    for refused in [
        "op=get-info&path=/secret",
        "op=download-file&path=/secret",
        "op=delete&path=/secret",
        "op=symlink&path=/in/link&target=../secret",
        "op=hard-link&path=/in/link&target=/secret",
        "op=execute",
    ] {
        call(&host, refused).await.problem(403);
    }
    assert!(server.home().join("secret").exists() && !server.home().join("in/link").exists());
}

#[tokio::test]
async fn every_operation_on_files_works_over_sftp() {
    let server = SftpServer::start();
    let host = everything(&server).await;
    let of =
        async |parameters: &str| host.get(&format!("files?connection=partner&{parameters}")).await.expect(200).json();
    let write = host.post("files?connection=partner&op=write-with&path=/a/b/file&modified=1000000000", "one").await;
    assert_eq!(write.expect(200).json()["modified"], 1_000_000_000);
    let append = host.post("files?connection=partner&op=append&path=/a/b/file", " two").await;
    assert_eq!(append.expect(200).json()["size"], 7);
    of("op=copy&path=/a/b/file&target=/a/copy").await;
    assert_eq!(fs::read_to_string(server.home().join("a/copy")).unwrap(), "one two");
    assert_eq!(
        of("op=walk&path=/").await["pages"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|page| page.as_array())
            .flatten()
            .count(),
        4
    );
    of("op=delete-tree&path=/a").await;
    assert!(!server.home().join("a").exists());
    let facts = of("op=ping").await["facts"].clone();
    assert!(facts.as_object().unwrap().len() > 1, "{facts}");
}

// ---- The command ---------------------------------------------------------------------------------------------------

/// A folder with a configuration of the connection `partner`, and a file `local` to send.
fn place(server: &SftpServer) -> TempDir {
    place_with(server, "")
}

/// The same with further settings of the connection.
fn place_with(server: &SftpServer, settings: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("sftp-password"), "secret").unwrap();
    fs::write(folder.path().join("local"), "up").unwrap();
    let configuration = format!("[host]\negress-allow = ['127.0.0.0/8']\n{}{settings}", server.connection("partner"));
    fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
    folder
}

/// What a script came to: the exit code, the output, and what was said of errors.
async fn batch(folder: &TempDir, script: impl AsRef<[u8]>, arguments: &[&str]) -> (Option<i32>, String, String) {
    fs::write(folder.path().join("script"), script).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["sftp", "partner", "-b", "script"]).args(arguments);
    command.current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(PATIENCE, command.output()).await.expect("it ends by itself").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[tokio::test]
async fn the_command_runs_a_script_and_stops_where_it_fails() {
    let server = SftpServer::start();
    let folder = place(&server);
    let script = "put local remote\n-rm missing\nls\nrm missing\nmkdir never\n";
    let (code, output, errors) = batch(&folder, script, &[]).await;
    assert_eq!(code, Some(1), "{output}{errors}");
    assert!(output.contains("sftp> ls\nremote\nsftp> rm missing\n"), "{output}");
    assert_eq!(errors.matches("nothing is there").count(), 2, "{errors}");
    assert_eq!(fs::read_to_string(server.home().join("remote")).unwrap(), "up");
    assert!(!server.home().join("never").exists());
}

#[tokio::test]
async fn the_command_may_use_all_of_this_machine() {
    let server = SftpServer::start();
    let (folder, elsewhere) = (place(&server), TempDir::new().unwrap());
    fs::create_dir(elsewhere.path().join("folder")).unwrap();
    fs::write(elsewhere.path().join("folder/file"), "file").unwrap();
    fs::create_dir(folder.path().join("begin")).unwrap();
    // An absolute link leads where it leads.
    symlink(elsewhere.path().join("folder"), folder.path().join("link")).unwrap();
    let there = elsewhere.path().display();
    let script = format!(
        "lpwd\nput {there}/folder/file\nget file {there}/got\nput ../local\nlcd {there}/folder\nlpwd\nget local\n\
         get file ../above\nlcd\nput ../link/fi* linked\nget file ../link/linked\n"
    );
    let (code, output, errors) = batch(&folder, script, &["--local", "begin"]).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{output}");
    let begin = folder.path().join("begin").canonicalize().unwrap();
    assert!(output.contains(&format!("Local working directory: {}\n", begin.display())), "{output}");
    assert!(output.contains(&format!("Local working directory: {there}/folder\n")), "{output}");
    for (at, content) in [("got", "file"), ("folder/local", "up"), ("above", "file"), ("folder/linked", "file")] {
        assert_eq!(fs::read_to_string(elsewhere.path().join(at)).unwrap(), content, "{at}");
    }
    assert_eq!(fs::read_to_string(server.home().join("linked")).unwrap(), "file");
    assert_eq!(fs::read_dir(begin).unwrap().count(), 0);
    let (code, _, errors) = batch(&folder, "pwd", &["--local", "missing"]).await;
    assert_eq!((code, errors.contains("cannot begin in missing")), (Some(1), true), "{errors}");
}

#[tokio::test]
async fn a_script_may_have_names_that_are_not_utf_8_and_begin_with_a_byte_order_mark() {
    let server = SftpServer::start();
    let folder = place(&server);
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(folder.path().join(name), "coffee").unwrap();
    let (code, output, errors) = batch(&folder, b"\xef\xbb\xbfput caf\xe9\r\n-get \"x\r\nmkdir after\r\n", &[]).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    assert_eq!(fs::read_to_string(server.home().join(name)).unwrap(), "coffee");
    assert!(server.home().join("after").exists());

    // What is printed has the name as it is.
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["sftp", "partner"]).current_dir(folder.path()).kill_on_drop(true);
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(b"@ls -1 c*\n").await.unwrap();
    let ended = timeout(PATIENCE, program.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(ended.stdout, b"caf\xe9\n");
}

#[tokio::test]
async fn for_programs_each_command_is_an_object() {
    let server = SftpServer::start();
    let folder = place(&server);
    let (code, output, errors) = batch(&folder, "-rm missing\npwd\n", &["--json"]).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{output}");
    let told: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["ignores_errors"], &told[0]["error"]["kind"]), (&json!(true), &json!("not-found")));
    assert_eq!((&told[1]["ignores_errors"], &told[1]["error"]), (&json!(false), &Value::Null));
}

/// A connection on which a large file takes longer than any test.
const SLOW: &str = "bandwidth = '64KiB'\n";
const LARGE_BYTES: usize = 16 * 1024 * 1024;

/// The name of a file on its way, if there is one in a folder.
fn file_on_its_way(folder: &Path) -> Option<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.into_iter().find(|name| name.ends_with(".part"))
}

#[tokio::test]
async fn an_interrupted_script_leaves_nothing_behind() {
    let server = SftpServer::start();
    let folder = place_with(&server, SLOW);
    fs::write(folder.path().join("up"), vec![7; LARGE_BYTES]).unwrap();
    fs::write(server.home().join("down"), vec![7; LARGE_BYTES]).unwrap();
    let cases = [("put up", Signal::INT, server.home()), ("get down", Signal::TERM, folder.path().to_owned())];
    for (script, signal, target) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(["sftp", "partner"]).current_dir(folder.path()).kill_on_drop(true);
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // Standard input stays open: there might be more to come.
        program.stdin.as_mut().unwrap().write_all(format!("{script}\n").as_bytes()).await.unwrap();
        eventually("a part of the file is there", async || file_on_its_way(&target)).await;
        kill_process(Pid::from_raw(program.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
        let ended = timeout(PATIENCE, program.wait()).await.expect("it ends").unwrap();
        assert_eq!(ended.code(), Some(130), "{script}");
        assert_eq!(file_on_its_way(&target), None, "{script}");
        assert!(!target.join(&script[4..]).exists(), "{script}");
    }
}

/// What is sent to a terminal when a line is no longer edited: what is pasted is then no longer marked as such.
const LINE_ENDS: &str = "\x1b[?2004l";

/// Around what is pasted.
const PASTE_BEGINS: &str = "\x1b[200~";
const PASTE_ENDS: &str = "\x1b[201~";

const UP: &str = "\x1b[A";
const CONTROL_C: &str = "\x03";
const CONTROL_D: &str = "\x04";

/// The command on a terminal.
struct Terminal {
    program: Child,
    shown: String,
}

impl Terminal {
    fn open(folder: &TempDir) -> Self {
        let mut command = Command::new("script");
        let program = concat!("'", env!("CARGO_BIN_EXE_wharf"), "' sftp partner");
        command.args(["--quiet", "--return", "--flush", "--command", program, "/dev/null"]);
        command.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path()).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        Self { program: command.spawn().expect("script (util-linux) is there"), shown: String::new() }
    }

    async fn types(&mut self, keys: &str) {
        self.program.stdin.as_mut().unwrap().write_all(keys.as_bytes()).await.unwrap();
    }

    /// Waits until something is shown that was not shown before the last wait.
    async fn shows(&mut self, text: &str) {
        let output = self.program.stdout.as_mut().unwrap();
        let shown = &mut self.shown;
        let shows = async {
            loop {
                if let Some(at) = shown.find(text) {
                    return drop(shown.drain(..at + text.len()));
                }
                let mut bytes = [0; 4096];
                let read = output.read(&mut bytes).await.unwrap();
                assert!(read > 0, "it ended without showing {text:?}: {shown:?}");
                shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        };
        if timeout(PATIENCE, shows).await.is_err() {
            panic!("{text:?} is not shown: {:?}", self.shown);
        }
    }

    /// Types a command when it is asked for, and sees what it says before the next one is asked for.
    async fn command(&mut self, line: &str, answer: &str) {
        self.types(line).await;
        self.types("\r").await;
        self.shows(LINE_ENDS).await;
        self.shows(answer).await;
        self.shows("sftp> ").await;
    }

    async fn ends(mut self) -> Option<i32> {
        timeout(PATIENCE, self.program.wait()).await.expect("it ends").unwrap().code()
    }
}

#[tokio::test]
async fn on_a_terminal_commands_are_typed_and_remembered() {
    let server = SftpServer::start();
    let folder = place(&server);
    let mut terminal = Terminal::open(&folder);
    terminal.shows("sftp> ").await;
    terminal.command("put local sent", "").await;
    terminal.command("ls -l", "-rw").await;
    terminal.command("rm missing", "nothing is there").await;
    terminal.types("mkdir never").await;
    terminal.shows("never").await;
    terminal.types(CONTROL_C).await;
    terminal.shows(LINE_ENDS).await;
    terminal.shows("sftp> ").await;
    terminal.command("pwd", "Remote working directory: /").await;
    terminal.types(CONTROL_D).await;
    assert_eq!(terminal.ends().await, Some(0));
    assert_eq!(fs::read_to_string(server.home().join("sent")).unwrap(), "up");
    assert!(!server.home().join("never").exists());

    let mut again = Terminal::open(&folder);
    again.shows("sftp> ").await;
    again.command(UP, "Remote working directory: /").await;
    again.types("exit\r").await;
    assert_eq!(again.ends().await, Some(0));
}

#[tokio::test]
async fn on_a_terminal_commands_that_are_pasted_or_typed_ahead_are_all_run() {
    let server = SftpServer::start();
    let folder = place(&server);
    let mut terminal = Terminal::open(&folder);
    terminal.shows("sftp> ").await;
    terminal.types("mkdir first\rmkdir second\rls -1\r").await;
    terminal.shows("first\r\nsecond\r\n").await;
    terminal.shows("sftp> ").await;
    terminal.types(&format!("{PASTE_BEGINS}rmdir first\nmkdir third\nls -1\n{PASTE_ENDS}")).await;
    terminal.types("\r").await;
    terminal.shows("second\r\nthird\r\n").await;
    terminal.shows("sftp> ").await;
    terminal.types(CONTROL_D).await;
    assert_eq!(terminal.ends().await, Some(0));
}

#[tokio::test]
async fn on_a_terminal_a_command_is_interrupted_and_the_next_one_asked_for() {
    let server = SftpServer::start();
    let folder = place_with(&server, SLOW);
    fs::write(folder.path().join("large"), vec![7; LARGE_BYTES]).unwrap();
    let mut terminal = Terminal::open(&folder);
    terminal.shows("sftp> ").await;
    terminal.types("put large\r").await;
    eventually("a part of the file is there", async || file_on_its_way(&server.home())).await;
    terminal.types(CONTROL_C).await;
    terminal.shows("wharf: interrupted").await;
    terminal.shows("sftp> ").await;
    let home = server.home();
    eventually("nothing is left of it", async || file_on_its_way(&home).is_none().then_some(())).await;
    terminal.command("pwd", "Remote working directory: /").await;
    // What was typed is remembered however it ends.
    terminal.program.kill().await.unwrap();
    let mut again = Terminal::open(&folder);
    again.shows("sftp> ").await;
    again.command(UP, "Remote working directory: /").await;
    assert!(!server.home().join("large").exists());
}
