//! The interface `sftp` as a service uses it, every operation, and the shell on the command line, on a real server.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::harness::{Answer, Host, SftpServer};

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
