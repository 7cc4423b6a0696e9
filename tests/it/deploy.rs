//! The deploy folder: what becomes live and when, what never does, and what goes on serving meanwhile.

mod bad_files;
mod compiled_code;
mod folder;
mod replacing;

use std::sync::LazyLock;

use crate::harness::{Host, Raw, RawAnswer, guest};

const MARKER: &[u8] = b"VERSION-00000000";

/// The guest `version`, and where its marker is.
static VERSION: LazyLock<(Vec<u8>, usize)> = LazyLock::new(|| {
    let component = guest("version");
    let places: Vec<usize> =
        component.windows(MARKER.len()).enumerate().filter(|(_, part)| *part == MARKER).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 1, "the marker occurs once");
    let place = places[0];
    (component, place)
});

/// The guest `version` with this number in its marker.
fn version(number: u32) -> Vec<u8> {
    let (mut component, place) = VERSION.clone();
    component[place..place + MARKER.len()].copy_from_slice(marker(number).as_bytes());
    component
}

/// What [`version`] answers.
fn marker(number: u32) -> String {
    format!("VERSION-{number:08}")
}

/// A component with a custom section of this size behind it: larger, and of the same meaning.
fn padded(component: &[u8], bytes: usize) -> Vec<u8> {
    let name = b"padding";
    let mut padded = component.to_vec();
    padded.push(0);
    let mut size = bytes + 1 + name.len();
    // Unsigned LEB128, of which the section's size is written.
    while size >= 0x80 {
        padded.push(u8::try_from(size & 0x7f).expect("seven bits") | 0x80);
        size >>= 7;
    }
    padded.push(u8::try_from(size).expect("seven bits"));
    padded.push(u8::try_from(name.len()).expect("it is short"));
    padded.extend(name);
    padded.extend(std::iter::repeat_n(0x5a, bytes));
    padded
}

/// The name of a version: what its bytes hash to, in lower-case hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that a service answers as this version, whole.
async fn assert_version(host: &Host, service: &str, number: u32) {
    let answer = host.get(service).await.expect(200);
    assert_eq!((answer.header("x-version"), answer.text()), (marker(number), marker(number)));
}

/// A request to a guest that reads its body to the end, which has not come yet.
async fn begin_request(host: &Host, service: &str) -> Raw {
    let mut request = host.connect().await;
    let head = format!("POST /invoke/{service} HTTP/1.1\r\nHost: wharf\r\nTransfer-Encoding: chunked\r\n\r\n");
    request.send(head + "5\r\nhello\r\n").await;
    host.wait_for(service, "the request is in flight", |status| status.in_flight == 1).await;
    request
}

/// Ends the body of such a request and reads the answer.
async fn end_request(mut request: Raw) -> RawAnswer {
    request.send("0\r\n\r\n").await;
    request.answer().await.expect("an answer")
}
