//! Reaches for everything that a service has no business with, and answers as JSON what it got.
//!
//! An attempt that failed is `"denied: ..."`, one that succeeded `"allowed"`. `random` and `clock` are for all.

use serde_json::json;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{collections::HashMap, env, fmt::Display, fs, hash::BuildHasher as _, process};
use wharf_test_guests::{Error, Request, Response, json, service};

service!(handle);

fn handle(_request: Request) -> Result<Response, Error> {
    let variables: Vec<String> = env::vars_os().map(|(name, _)| name.to_string_lossy().into()).collect();
    let arguments: Vec<String> = env::args_os().map(|argument| argument.to_string_lossy().into()).collect();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let random = HashMap::<u8, u8>::new().hasher().hash_one(0);
    Ok(json(&json!({
        "list_root": outcome(fs::read_dir("/")),
        "list_here": outcome(fs::read_dir(".")),
        "read_file": outcome(fs::read("/etc/passwd")),
        "write_file": outcome(fs::write("/tmp/probe", "probe")),
        "connect_tcp": outcome(TcpStream::connect("127.0.0.1:9")),
        "listen_tcp": outcome(TcpListener::bind("127.0.0.1:0")),
        "bind_udp": outcome(UdpSocket::bind("127.0.0.1:0")),
        "resolve_name": outcome("localhost:80".to_socket_addrs()),
        "start_process": outcome(process::Command::new("true").spawn()),
        "environment": variables,
        "arguments": arguments,
        "random": format!("{random:016x}"),
        "clock": seconds,
    })))
}

fn outcome<T, E: Display>(attempt: Result<T, E>) -> String {
    match attempt {
        Ok(_) => "allowed".into(),
        Err(error) => format!("denied: {error}"),
    }
}
