//! Scripts of sftp batch commands, held against what the program sftp of OpenSSH does.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use wharf_connectors::{Common, Config, ErrorKind, Remote, RemotePath, chain, local, sftp};

use crate::openssh::Openssh;
use crate::places::loopback;
use crate::sftp_only::{connection, fails, rooted};

fn local_side() -> (TempDir, Remote) {
    let folder = TempDir::new().unwrap();
    let config = Config::Local(local::Config { folder: folder.path().to_owned() });
    let remote = Remote::new("local", Common::default(), config, &loopback()).unwrap();
    (folder, remote)
}

fn told(script: &sftp::Script) -> String {
    let line = |result: &sftp::CommandResult| {
        let outcome = result.outcome.as_ref().map_or_else(|error| format!("! {}\n", chain(error)), |()| String::new());
        format!("> {}\n{}{outcome}", result.command, result.output)
    };
    script.results.iter().map(line).collect()
}

/// A server and a local folder, and scripts between them.
struct Both {
    server: Openssh,
    folder: TempDir,
    local: Remote,
}

impl Both {
    fn new() -> Self {
        let (server, (folder, local)) = (Openssh::start(&[]), local_side());
        Self { server, folder, local }
    }

    /// A path on the server.
    fn there(&self, name: &str) -> std::path::PathBuf {
        self.server.home().join(name)
    }

    fn here(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn execute(&self, script: &str) -> sftp::Script {
        connection(&self.server).sftp().unwrap().execute(script, Some(&self.local)).await
    }

    /// The output of a command that succeeds.
    async fn done(&self, command: &str) -> String {
        let done = self.execute(command).await;
        assert!(done.is_complete, "{}", told(&done));
        done.results.into_iter().map(|result| result.output).collect()
    }

    /// The output and the error of a command that fails.
    async fn failed(&self, command: &str, kind: ErrorKind) -> (String, String) {
        let result = self.execute(command).await.results.remove(0);
        (result.output, fails(result.outcome, kind))
    }
}

fn make(folder: &Path, files: &[&str]) {
    for file in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
}

/// All files below a folder with their content, which is the path that they were made at.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            found.push((name, std::fs::read_to_string(entry.path()).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_does_what_sftp_would_do() {
    let server = Openssh::start(&[]);
    let (folder, local) = local_side();
    std::fs::create_dir_all(folder.path().join("out/deep")).unwrap();
    std::fs::write(folder.path().join("out/a.csv"), "aaa").unwrap();
    std::fs::write(folder.path().join("out/deep/b.csv"), "b").unwrap();
    let script = r#"
        # what a partner's batch file looks like
        pwd
        mkdir inbox
        cd inbox
        lcd out
        put a.csv
        put -p a.csv "a copy.csv"
        -rm missing
        @rename "a copy.csv" renamed.csv
        ls -1
        chmod 600 *.csv
        ls -la
        ln -s a.csv link
        ln a.csv hard
        lcd ..
        put -r out tree
        ls tree/*/b*
        get -r tree back
        get a.csv back/x.csv
        df -h
        rm *.csv
        ls
        cd ../../../..
        pwd
        bye
        never run
    "#;
    let handle = connection(&server).sftp().unwrap();
    let done = handle.execute(script, Some(&local)).await;
    let all = told(&done);
    assert!(done.is_complete, "{all}");
    let output = |command: &str| {
        let result = done.results.iter().find(|result| result.command == command);
        result.unwrap_or_else(|| panic!("{command} was not run:\n{all}")).output.as_str()
    };
    assert_eq!(output("pwd"), "Remote working directory: /\n");
    assert_eq!(output("ls -1"), "a.csv\nrenamed.csv\n");
    assert!(output("ls -la").contains("-rw------- "), "{all}");
    assert_eq!(output("ls tree/*/b*"), "tree/deep/b.csv\n");
    assert!(output("df -h").contains("%Capacity"), "{all}");
    assert_eq!(output("ls"), "hard\nlink\ntree\n");
    assert_eq!(done.results.last().unwrap().command, "bye");
    assert_eq!(std::fs::read_to_string(folder.path().join("back/deep/b.csv")).unwrap(), "b");
    assert_eq!(std::fs::read_to_string(folder.path().join("back/x.csv")).unwrap(), "aaa");
    assert_eq!(std::fs::read_to_string(server.home().join("inbox/hard")).unwrap(), "aaa");
    let ignored = done.results.iter().find(|result| result.command == "-rm missing").unwrap();
    assert!(ignored.outcome.is_err() && ignored.ignores_errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_permissions_are_kept_where_that_is_asked_for() {
    let server = Openssh::start(&[]);
    let (folder, local) = local_side();
    let on_server = server.home();
    std::fs::create_dir(folder.path().join("tree")).unwrap();
    for name in ["plain", "tree/secret"] {
        std::fs::write(folder.path().join(name), "content").unwrap();
    }
    let secret = folder.path().join("tree/secret");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o4750)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::options().write(true).open(&secret).unwrap().set_modified(long_ago).unwrap();
    let kept = |path: &Path| {
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.modified().unwrap(), metadata.permissions().mode() & 0o7777)
    };

    let keeping = rooted(sftp::Config { preserve: true, ..server.config() }, &on_server).sftp().unwrap();
    for (handle, commands) in [
        (connection(&server).sftp().unwrap(), ["put -p tree/secret up", "put -rp tree tree", "get -p up down"]),
        (keeping, ["put tree/secret up2", "put -r tree tree2", "get up2 down2"]),
    ] {
        let done = handle.execute(&commands.join("\n"), Some(&local)).await;
        assert!(done.is_complete, "{}", told(&done));
        let copies = commands.map(|command| command.rsplit(' ').next().unwrap());
        let copies =
            [on_server.join(copies[0]), on_server.join(copies[1]).join("secret"), folder.path().join(copies[2])];
        for copy in copies {
            assert_eq!(kept(&copy), (long_ago, 0o750), "{}", copy.display());
        }
    }
    let done = connection(&server).sftp().unwrap().execute("put tree/secret plain", Some(&local)).await;
    assert!(done.is_complete, "{}", told(&done));
    assert!(kept(&on_server.join("plain")).0 > long_ago);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_stops_at_the_first_failure() {
    let server = Openssh::start(&[]);
    let handle = connection(&server).sftp().unwrap();
    let done = handle.execute("mkdir a\nrmdir missing\nmkdir b\n", None).await;
    assert!(!done.is_complete);
    assert_eq!(done.results.len(), 2);
    assert_eq!(done.results[1].outcome.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!server.home().join("b").exists());
    for line in ["get x", "put x", "lls", "lpwd"] {
        let done = handle.execute(line, None).await;
        assert!(fails(done.results.into_iter().next().unwrap().outcome, ErrorKind::Unsupported).contains("local side"));
    }
    for (line, kind) in [
        ("!touch /tmp/x", ErrorKind::Unsupported),
        ("frobnicate", ErrorKind::Invalid),
        ("ls -q", ErrorKind::Invalid),
        ("chmod rwx a", ErrorKind::Invalid),
        ("mkdir", ErrorKind::Invalid),
        ("cd missing", ErrorKind::NotFound),
        ("rm a", ErrorKind::Conflict),
    ] {
        let done = handle.execute(line, None).await;
        fails(done.results.into_iter().next().unwrap().outcome, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_broke_off_is_continued() {
    let server = Openssh::start(&[]);
    let (folder, local) = local_side();
    std::fs::write(server.home().join("remote"), "0123456789").unwrap();
    std::fs::write(folder.path().join("remote"), "0123").unwrap();
    std::fs::write(folder.path().join("mine"), "abcdef").unwrap();
    std::fs::write(server.home().join("mine"), "abc").unwrap();
    let mut shell = connection(&server).sftp().unwrap().shell(Some(&local));
    for line in ["reget remote", "reput mine"] {
        shell.run_line(line).await.unwrap().outcome.unwrap();
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("remote")).unwrap(), "0123456789");
    assert_eq!(std::fs::read_to_string(server.home().join("mine")).unwrap(), "abcdef");
    assert_eq!(shell.folder(), Some(&RemotePath::root()));
}

// ---- Lines ---------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cannot_be_understood_may_fail_as_any_other() {
    let both = Both::new();
    let done = both.execute("\u{feff}-get \"x\n-!touch x\n-frobnicate\nmkdir after\n").await;
    assert!(done.is_complete, "{}", told(&done));
    assert!(done.results[..3].iter().all(|result| result.ignores_errors && result.outcome.is_err()));
    assert_eq!(done.results[0].command, "-get \"x");
    assert!(both.there("after").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_commands_are_run_than_may_be() {
    let both = Both::new();
    let mut script = "version\n# not counted\n".repeat(10_000);
    assert!(both.execute(&script).await.is_complete);
    script.push_str("-mkdir never\nmkdir neither\n");
    let done = both.execute(&script).await;
    assert_eq!((done.is_complete, done.results.len()), (false, 10_001));
    let last = done.results.into_iter().next_back().unwrap();
    assert_eq!(last.command, "-mkdir never");
    fails(last.outcome, ErrorKind::TooLarge);
    assert_eq!(std::fs::read_dir(both.server.home()).unwrap().count(), 0);
}

// ---- Listings ------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_many_entries_are_listed_and_patterns_held_against_them() {
    const MANY: usize = 10_500;
    let both = Both::new();
    for folder in [both.there("lots"), both.here("lots")] {
        std::fs::create_dir(&folder).unwrap();
        for number in 0..MANY {
            std::fs::write(folder.join(format!("f{number:05}")), "").unwrap();
        }
    }
    assert_eq!(both.done("ls lots").await.lines().count(), MANY);
    assert_eq!(both.done("lls lots").await.lines().count(), MANY);
    assert_eq!(both.done("ls -l lots/f00*").await.lines().count(), 1000);
    both.done("mkdir up\nput lots/f0000? up").await;
    assert_eq!(names(&both.there("up")).len(), 10);
    both.done("rm lots/f0*\nrm lots/*").await;
    assert_eq!(std::fs::read_dir(both.there("lots")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_without_end_is_left_out_and_that_is_said() {
    let both = Both::new();
    let folder = both.there("lots");
    std::fs::create_dir(&folder).unwrap();
    let name = "x".repeat(240);
    for number in 0..5000 {
        std::fs::write(folder.join(format!("{name}{number:05}")), "").unwrap();
    }
    std::fs::write(folder.join("z"), "").unwrap();
    let output = both.done("ls lots").await;
    assert!(output.len() < 1024 * 1024 + 100 && output.ends_with("\n... more was left out\n"), "{}", output.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_tell_as_much_as_is_asked_for_on_either_side() {
    let both = Both::new();
    for folder in [both.server.home(), both.folder.path().to_owned()] {
        make(&folder, &["d/a.txt", "d/.hidden", "b.csv"]);
        std::fs::set_permissions(folder.join("d/a.txt"), PermissionsExt::from_mode(0o640)).unwrap();
    }
    for command in ["ls", "lls"] {
        assert_eq!(both.done(&format!("{command} d")).await, "d/a.txt\n");
        assert_eq!(both.done(&format!("{command} -a d")).await, "d/.\nd/..\nd/.hidden\nd/a.txt\n");
        let long = both.done(&format!("{command} -la")).await;
        let lines: Vec<&str> = long.lines().collect();
        assert_eq!(lines.len(), 4, "{long}");
        assert!(lines[0].starts_with("drwx") && lines[0].ends_with(" ."), "{long}");
        let long = both.done(&format!("{command} -l d/a.txt")).await;
        assert!(long.starts_with("-rw-r----- ") && long.contains(" 7 "), "{long}");
        assert_eq!(both.done(&format!("{command} {{b,d/a,missing}}.*")).await, "b.csv\nd/a.txt\n");
        let kind = ErrorKind::NotFound;
        both.failed(&format!("{command} {{missing,gone}}*"), kind).await;
    }
}

// ---- Copies --------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn the_content_of_a_folder_goes_where_a_dot_says() {
    let tree = ["sub/deep/y", "sub/x"];
    for (command, expected) in [
        ("get -r sub", ["sub/deep/y", "sub/x"]),
        ("get -r sub/", ["sub/deep/y", "sub/x"]),
        ("get -r sub/.", ["deep/y", "x"]),
        ("get -r sub/. new", ["new/deep/y", "new/x"]),
        ("get -r sub new/", ["new/deep/y", "new/x"]),
        ("lmkdir there\nget -r sub there", ["there/sub/deep/y", "there/sub/x"]),
        ("lmkdir there\nget -r sub/. there", ["there/deep/y", "there/x"]),
        ("cd sub\nget -r .", ["deep/y", "x"]),
        ("get -r /", ["sub/deep/y", "sub/x"]),
        ("cd sub/deep\nget -r ../..", ["sub/deep/y", "sub/x"]),
    ] {
        let both = Both::new();
        make(&both.server.home(), &tree);
        both.done(command).await;
        assert_eq!(names(both.folder.path()), expected, "{command}");
        // And the other way round.
        let both = Both::new();
        make(both.folder.path(), &tree);
        let mirrored = command.replace("lmkdir", "mkdir").replace("cd", "lcd").replace("get", "put");
        both.done(&mirrored).await;
        assert_eq!(names(&both.server.home()), expected, "{mirrored}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_does_not_become_the_folder_that_is_missing() {
    let both = Both::new();
    make(&both.server.home(), &["a", "b"]);
    make(both.folder.path(), &["c", "d"]);
    for command in ["get a nodir/", "put c nodir/"] {
        let (_, error) = both.failed(command, ErrorKind::NotFound).await;
        assert!(error.contains("nodir/: there is no such folder"), "{error}");
    }
    for command in ["get a c/", "put c a/"] {
        both.failed(command, ErrorKind::Conflict).await;
    }
    for command in ["get [ab] nodir", "put [cd] nodir/", "put [cd] a"] {
        both.failed(command, ErrorKind::Invalid).await;
    }
    assert_eq!((names(&both.server.home()), names(both.folder.path())), (names_of("a b"), names_of("c d")));
}

fn names_of(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_what_cannot_be_copied_is_skipped_and_the_command_fails() {
    let both = Both::new();
    make(&both.server.home(), &["down/1", "down/sub/x", "down/z", "dst/taken/x"]);
    make(both.folder.path(), &["up/1", "up/sub/x", "up/taken", "up/z"]);
    let (output, error) = both.failed("put up/* dst", ErrorKind::Conflict).await;
    assert!(output.contains("Skipping up/sub: up/sub is a folder; add -r"), "{output}");
    assert!(output.contains("Skipping up/taken: "), "{output}");
    assert!(error.contains("2 of 4 were not copied"), "{error}");
    assert_eq!(names(&both.there("dst")), ["1", "taken/x", "z"]);
    let (_, error) = both.failed("get down/*", ErrorKind::Conflict).await;
    assert!(error.contains("1 of 3 were not copied"), "{error}");
    assert_eq!(std::fs::read_to_string(both.here("z")).unwrap(), "down/z");
    both.done("-get down/*\nget -r down/*").await;
    assert!(both.here("sub/x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_gives_nobody_more_than_its_source() {
    let both = Both::new();
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (folder, name) in [(both.server.home(), "down"), (both.folder.path().to_owned(), "up")] {
        for permissions in [0o600, 0o700, 0o400] {
            let path = folder.join(format!("{name}/{permissions:o}"));
            make(&folder, &[path.strip_prefix(&folder).unwrap().to_str().unwrap()]);
            std::fs::set_permissions(path, PermissionsExt::from_mode(permissions)).unwrap();
        }
    }
    both.done("get down/* .\nget -r down tree\nput up/* .\nput -r up tree").await;
    for (at, expected) in [("600", 0o600), ("700", 0o700)] {
        for at in [at.to_owned(), format!("tree/{at}")] {
            assert_eq!((mode(both.here(&at)), mode(both.there(&at))), (expected, expected), "{at}");
        }
    }
    assert_eq!(mode(both.there("400")), 0o400);
    // Its owner can go on with it.
    assert_eq!(mode(both.here("400")), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_named_is_followed_and_one_in_a_tree_left_out() {
    let both = Both::new();
    for folder in [both.server.home(), both.folder.path().to_owned()] {
        make(&folder, &["d/file", "outside"]);
        symlink("d", folder.join("folder-link")).unwrap();
        symlink("d/file", folder.join("file-link")).unwrap();
        symlink("file", folder.join("d/inner")).unwrap();
        symlink("nothing", folder.join("dangling")).unwrap();
    }
    for (copy, copied) in [("get", both.folder.path().to_owned()), ("put", both.server.home())] {
        both.done(&format!("{copy} file-link new-file\n{copy} -r folder-link new-folder\n{copy} -p file-link kept"))
            .await;
        assert_eq!(std::fs::read_to_string(copied.join("new-file")).unwrap(), "d/file");
        assert!(!copied.join("kept").is_symlink());
        assert_eq!(names(&copied.join("new-folder")), ["file"]);
        let output = both.done(&format!("{copy} -r d again")).await;
        assert!(output.contains("left out, it is a symbolic link"), "{output}");
        both.failed(&format!("{copy} dangling"), ErrorKind::NotFound).await;
        both.failed(&format!("{copy} folder-link"), ErrorKind::Conflict).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_link_that_leads_out_of_the_local_side_is_not_followed() {
    let both = Both::new();
    symlink("/etc/passwd", both.here("absolute")).unwrap();
    let (_, error) = both.failed("put absolute", ErrorKind::Denied).await;
    assert!(error.contains("absolute or leads out"), "{error}");
    assert_eq!(std::fs::read_dir(both.server.home()).unwrap().count(), 0);
}
