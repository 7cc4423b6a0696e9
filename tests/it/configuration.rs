//! The configuration as an operator meets it: edited while the host runs, checked, refused at the start.

use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{Answer, Host, PATIENCE, eventually};

const FOLDER: &str = "[connections.disk]\ntype = 'local'\nfolder = 'disk'\n";
const GRANT: &str = "[services.files]\ngrants = [{ connection = 'disk', access = 'read' }]\n";

async fn start(configuration: &str) -> Host {
    let builder = Host::builder().services(&["files", "echo"]).file("disk/a.txt", "content");
    builder.configuration(configuration).start().await
}

async fn list(host: &Host) -> Answer {
    host.get("files?op=list&connection=disk").await
}

/// Waits until the grant is, or is not, in force.
async fn eventually_listed(host: &Host, status: u16) {
    let what = format!("listing is answered with {status}");
    eventually(&what, async || (list(host).await.status == status).then_some(())).await;
}

async fn configuration_error(host: &Host) -> Option<String> {
    let document = host.admin("/api/v1/services").await.expect(200).json();
    match &document["configuration_error"] {
        Value::Null => None,
        error => Some(error.as_str().expect("text").to_owned()),
    }
}

#[tokio::test]
async fn a_grant_that_is_added_or_taken_while_the_host_runs_takes_effect() {
    let host = start(FOLDER).await;
    let detail = list(&host).await.problem(403);
    assert!(detail.contains("[services.\"files\"]"), "{detail}");
    host.configure(&format!("{FOLDER}{GRANT}"));
    eventually_listed(&host, 200).await;
    assert_eq!(list(&host).await.json()["entries"][0]["name"], "a.txt");
    host.log().wait_for(&["applied the changed configuration"]).await;
    host.configure(FOLDER);
    eventually_listed(&host, 403).await;
    assert_eq!(configuration_error(&host).await, None);
}

#[tokio::test]
async fn of_a_service_or_a_connection_that_is_gone_no_numbers_are_told() {
    let host = start(&format!("{FOLDER}{GRANT}")).await;
    list(&host).await.expect(200);
    host.post("echo", "x").await.expect(200);
    let tells = async |label: &str| host.admin("/metrics").await.expect(200).text().contains(label);
    for label in ["service=\"files\"", "service=\"echo\"", "connection=\"disk\""] {
        assert!(tells(label).await, "{label}");
    }
    host.remove("files");
    host.wait_until_gone("files").await;
    assert!(!tells("service=\"files\"").await);
    assert!(tells("service=\"echo\"").await && tells("connection=\"disk\"").await);
    host.configure("");
    let gone = async || (!tells("connection=\"disk\"").await).then_some(());
    eventually("the connection is no longer told of", gone).await;
    host.configure(FOLDER);
    eventually("it is told of again", async || tells("connection=\"disk\"").await.then_some(())).await;
}

#[tokio::test]
async fn a_bad_edit_is_reported_and_the_last_good_configuration_stays_in_force() {
    let host = start(&format!("{FOLDER}{GRANT}")).await;
    list(&host).await.expect(200);
    host.configure(&format!("{FOLDER}{}", GRANT.replace("'disk'", "'dsik'")));
    let error = eventually("the status has the error", async || configuration_error(&host).await).await;
    assert!(error.contains("wharf.toml:"), "{error}");
    assert!(error.contains("services.files.grants[0].connection"), "{error}");
    assert!(error.contains("did you mean \"disk\"?"), "{error}");
    host.log().wait_for(&["not applied", "the last good one stays in force"]).await;
    host.log().wait_for(&["did you mean \"disk\"?"]).await;
    list(&host).await.expect(200);
    // A restart would fail now; the host that runs goes on, and takes the next good edit.
    host.configure(FOLDER);
    eventually_listed(&host, 403).await;
    assert_eq!(configuration_error(&host).await, None);
}

#[tokio::test]
async fn a_file_that_is_no_toml_at_all_or_gone_changes_nothing() {
    let host = start(&format!("{FOLDER}{GRANT}")).await;
    let path = host.folder().join("wharf.toml");
    std::fs::write(&path, "[connections\n").unwrap();
    let error = eventually("the status has the error", async || configuration_error(&host).await).await;
    assert!(error.contains("wharf.toml:1: not valid TOML"), "{error}");
    std::fs::remove_file(&path).unwrap();
    eventually("the status says that the file is gone", async || {
        configuration_error(&host).await.filter(|error| error.contains("cannot be read"))
    })
    .await;
    list(&host).await.expect(200);
    host.configure(&format!("{FOLDER}{GRANT}"));
    eventually("the error is gone", async || configuration_error(&host).await.is_none().then_some(())).await;
    list(&host).await.expect(200);
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_is_named() {
    let host = start(FOLDER).await;
    host.configure(&format!("{FOLDER}[host]\ndrain = '7s'\n[http]\nbody-max = '1KiB'\n"));
    let line = host.log().wait_for(&["take effect at the next start"]).await;
    assert!(line.contains("host.drain") && line.contains("http.body-max"), "{line}");
    host.post("echo", vec![b'x'; 4096]).await.expect(200);
}

/// What a run of the program said.
struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

/// Runs the program to its end in a folder with this configuration and a file `secret`.
async fn wharf(arguments: &[&str], configuration: &str) -> Said {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("wharf.toml"), configuration).unwrap();
    std::fs::write(folder.path().join("secret"), "the-secret-of-the-partner").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(PATIENCE, command.output()).await.expect("the program ends by itself").unwrap();
    Said {
        code: ended.status.code(),
        output: String::from_utf8(ended.stdout).unwrap(),
        errors: String::from_utf8(ended.stderr).unwrap(),
    }
}

const RUN: [&str; 5] = ["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
const CHECK: [&str; 1] = ["check"];

const PARTNER: &str = "[connections.partner]\ntype = 'ftp'\nhost = 'ftp.example.com'\nuser = 'alice'\n";

/// Asserts that neither `check` nor `run` accepts a configuration, and that both say all of this.
async fn assert_refused(configuration: &str, lines: &[&str]) {
    for arguments in [CHECK.as_slice(), RUN.as_slice()] {
        let said = wharf(arguments, configuration).await;
        assert_eq!(said.code, Some(3), "{arguments:?}: {}", said.errors);
        assert_eq!(said.output, "", "{arguments:?}");
        assert!(said.errors.starts_with("wharf: "), "{}", said.errors);
        for line in lines {
            assert!(said.errors.contains(line), "{arguments:?}: {line:?} is not in:\n{}", said.errors);
        }
        assert!(!said.errors.contains("the-secret"), "{}", said.errors);
    }
}

#[tokio::test]
async fn a_secret_that_leads_nowhere_ends_the_start_with_file_line_and_key() {
    let variable = format!("{PARTNER}password = {{ env = 'NO_SUCH_VARIABLE' }}\n");
    assert_refused(&variable, &["wharf.toml:5: connections.partner.password", "NO_SUCH_VARIABLE"]).await;
    let file = format!("{PARTNER}password = {{ file = 'no/such/file' }}\n");
    assert_refused(&file, &["wharf.toml:5: connections.partner.password", "no/such/file", "cannot be read"]).await;
}

#[tokio::test]
async fn a_secret_written_into_the_configuration_is_refused_and_not_repeated() {
    let configuration = format!("{PARTNER}password = 'the-secret'\n");
    assert_refused(&configuration, &["wharf.toml:5: connections.partner.password"]).await;
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_nearest_one() {
    let configuration = format!("\n{PARTNER}passwrod = {{ file = 'secret' }}\n");
    assert_refused(
        &configuration,
        &["wharf.toml:6: connections.partner.passwrod: unknown key; did you mean \"password\"?"],
    )
    .await;
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let configuration = format!(
        "[host]\ndrian = '1s'\n[http]\nbody-max = 'huge'\n{PARTNER}password = {{ file = 'secret' }}\n\
         [services.files]\ngrants = [{{ connection = 'partnre' }}]\n"
    );
    let lines = [
        "wharf.toml:2: host.drian: unknown key; did you mean \"drain\"?",
        "wharf.toml:4: http.body-max: \"huge\" is not a size",
        "wharf.toml:11: services.files.grants[0].connection: no connection \"partnre\" is configured; \
         did you mean \"partner\"?",
    ];
    assert_refused(&configuration, &lines).await;
}

#[tokio::test]
async fn check_tells_programs_each_problem_with_its_place() {
    let configuration = format!("[host]\ndrian = '1s'\n{PARTNER}password = 'the-secret'\n");
    let said = wharf(&["check", "--json"], &configuration).await;
    assert_eq!((said.code, said.errors.as_str()), (Some(3), ""));
    assert!(!said.output.contains("the-secret"), "{}", said.output);
    let told: Value = serde_json::from_str(&said.output).unwrap();
    let error = &told["error"];
    assert_eq!(error["kind"], "invalid");
    assert_eq!((&error["step"], &error["retry_after_seconds"]), (&Value::Null, &Value::Null));
    let problems = error["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{told}");
    assert_eq!(
        problems[0],
        serde_json::json!({
            "file": "wharf.toml",
            "line": 2,
            "key": "host.drian",
            "message": "unknown key; did you mean \"drain\"?",
        })
    );
    assert_eq!((&problems[1]["line"], &problems[1]["key"]), (&7.into(), &"connections.partner.password".into()));

    let said = wharf(&["check", "--json"], &format!("{PARTNER}password = {{ file = 'secret' }}\n")).await;
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&said.output).unwrap();
    let warnings = told["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|warning| warning["key"] == "connections.partner.password.file"), "{told}");
}

#[tokio::test]
async fn an_address_that_is_not_loopback_is_refused_unless_it_is_said_to_be_open() {
    for (section, address) in [("http", "0.0.0.0:0"), ("admin", "[::]:0")] {
        let configuration = format!("[{section}]\nlisten = '{address}'\n");
        for command in ["check", "run"] {
            let said = wharf(&[command], &configuration).await;
            assert_eq!(said.code, Some(3), "{command}");
            let key = format!("wharf.toml:2: {section}.listen");
            assert!(said.errors.contains(&key) && said.errors.contains("open = true"), "{}", said.errors);
        }
    }
    let said = wharf(&["run", "--listen", "0.0.0.0:0"], "").await;
    assert_eq!(said.code, Some(3));
    assert!(said.errors.contains("open = true"), "{}", said.errors);
    let said = wharf(&CHECK, "[http]\nlisten = '0.0.0.0:80'\nopen = true\n").await;
    assert_eq!(said.code, Some(0), "{}", said.errors);
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_with_the_ways_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = wharf(&["run", "--listen", &address, "--admin", "127.0.0.1:0"], "").await;
    assert_eq!(said.code, Some(1));
    for part in ["cannot listen on", &address, "--listen or listen under [http]", "Address already in use"] {
        assert!(said.errors.contains(part), "{part:?} is not in: {}", said.errors);
    }
    let said = wharf(&["run", "--listen", "127.0.0.1:0", "--admin", &address], "").await;
    assert_eq!(said.code, Some(1));
    assert!(said.errors.contains("--admin or listen under [admin]"), "{}", said.errors);
}

#[tokio::test]
async fn a_configuration_file_that_is_missing_is_named() {
    let said = wharf(&["run", "--config", "no-such.toml"], "").await;
    assert_eq!(said.code, Some(3));
    assert!(said.errors.contains("no-such.toml: cannot be read"), "{}", said.errors);
}

#[tokio::test]
async fn check_accepts_what_is_right_and_says_what_is_unwise() {
    use std::os::unix::fs::PermissionsExt;
    let configuration = format!("{PARTNER}password = {{ file = 'secret' }}\n");
    let said = wharf(&CHECK, &configuration).await;
    assert_eq!((said.code, said.errors.as_str()), (Some(0), ""));
    assert!(said.output.ends_with("the configuration is right\n"), "{}", said.output);
    // The file of the secret is as the umask has it: all may read it.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("readable");
    std::fs::write(&file, "secret").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let readable = format!("{PARTNER}password = {{ file = '{}' }}\n", file.display());
    let said = wharf(&CHECK, &readable).await;
    assert_eq!(said.code, Some(0));
    assert!(said.output.contains("warning: wharf.toml:5: connections.partner.password"), "{}", said.output);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let said = wharf(&CHECK, &readable).await;
    assert_eq!(said.code, Some(3), "{}", said.output);
    assert!(said.errors.contains("wharf.toml:5: connections.partner.password"), "{}", said.errors);
}
