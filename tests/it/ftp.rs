//! The interface `ftp` as a service uses it, on a real server.

use crate::harness::{FtpServer, Host};

async fn start(server: &FtpServer, grant: &str) -> Host {
    let configuration = format!(
        "[connections.partner]\ntype = 'ftp'\nhost = '127.0.0.1'\nport = {}\nuser = 'alice'\n\
         password = {{ file = 'password' }}\n[services.ftp]\ngrants = [{grant}]\n",
        server.port()
    );
    Host::builder().services(&["ftp"]).file("password", "secret").configuration(&configuration).start().await
}

#[tokio::test]
async fn raw_commands_reach_the_server_and_its_replies_come_back() {
    let server = FtpServer::start();
    server.put("report.csv", "12345");
    let host = start(&server, "{ connection = 'partner', access = 'write' }").await;
    let size = host.get("ftp?connection=partner&op=command&text=SIZE%20/report.csv").await.expect(200).json();
    assert_eq!((&size["code"], &size["lines"][0]), (&213.into(), &"213 5".into()), "{size}");
    let refused = host.get("ftp?connection=partner&op=command&text=SIZE%20/missing").await.expect(200).json();
    assert_eq!(refused["code"], 550);
    let chmod = host.get("ftp?connection=partner&op=site&text=CHMOD%20600%20/report.csv").await.expect(200).json();
    assert_eq!(chmod["code"], 200, "{chmod}");
    let features = host.get("ftp?connection=partner&op=features").await.expect(200).json();
    assert!(features["features"].as_array().unwrap().iter().any(|line| line == "UTF8"), "{features}");
    for refused in ["RETR%20/report.csv", "QUIT", "NOOP%0D%0ADELE%20/report.csv"] {
        host.get(&format!("ftp?connection=partner&op=command&text={refused}")).await.problem(400);
    }
    assert!(server.names().contains("report.csv"));
}

#[tokio::test]
async fn a_raw_command_needs_a_grant_on_the_whole_connection() {
    let server = FtpServer::start();
    for grant in
        ["{ connection = 'partner', access = 'write', path = '/in' }", "{ connection = 'partner', access = 'read' }"]
    {
        let host = start(&server, grant).await;
        host.get("ftp?connection=partner&op=command&text=NOOP").await.problem(403);
        host.get("ftp?connection=partner&op=site&text=HELP").await.problem(403);
    }
}
