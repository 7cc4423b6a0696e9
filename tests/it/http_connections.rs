//! HTTP connections, as services use them: by name, and by URL with the client of their language. The origin sees the
//! connection's credentials, the service never does.

use reqwest::Method;

use crate::harness::{Host, Origin, answer, eventually};

const CONFIGURATION: &str = "
    [host]
    egress-allow = ['127.0.0.0/8']
    [connections.partner]
    type = 'http'
    url = 'https://127.0.0.1:${port}/v1'
    certificate-authority = 'authority.pem'
    bearer-token = { env = 'PARTNER_TOKEN' }
    headers = [{ name = 'X-Tenant', secret = { env = 'PARTNER_TENANT' } }]
    [service-defaults]
    grants = [{ connection = 'partner', access = 'write' }]
    ";

/// A host whose services may use the origin, with further configuration behind.
async fn host(origin: &Origin, services: &[&str], further: &str) -> Host {
    configured(origin, services, &format!("{CONFIGURATION}{further}")).await
}

async fn configured(origin: &Origin, services: &[&str], configuration: &str) -> Host {
    Host::builder()
        .configuration(configuration)
        .set("port", origin.port())
        .file("authority.pem", origin.authority())
        .variable("PARTNER_TOKEN", "hunter2")
        .variable("PARTNER_TENANT", "tenant7")
        .services(services)
        .start()
        .await
}

/// Answers with what was asked for, and never with a credential.
fn told(seen: &str) -> String {
    let line = seen.lines().next().unwrap_or_default();
    answer(200, "Content-Type: text/plain\r\nX-Answer: yes\r\n", &format!("you asked: {line}"))
}

/// Asserts that the origin saw the credentials once, and nothing that the service wrote in their place.
#[track_caller]
fn assert_authorized(seen: &str) {
    let seen = seen.to_lowercase();
    assert_eq!(seen.matches("\r\nauthorization: ").count(), 1, "{seen}");
    assert!(seen.contains("\r\nauthorization: bearer hunter2\r\n"), "{seen}");
    assert!(seen.contains("\r\nx-tenant: tenant7\r\n") && !seen.contains("forged"), "{seen}");
}

#[tokio::test]
async fn services_in_every_language_ask_a_connection_by_name_and_the_host_adds_the_credentials() {
    let origin = Origin::start(told).await;
    let services = ["http", "http-javascript", "http-python"];
    let host = host(&origin, &services, "").await;
    for service in services {
        let answer = host.get(&format!("{service}?connection=partner&path=/users/7")).await.expect(200);
        assert_eq!(answer.text(), "you asked: GET /v1/users/7 HTTP/1.1", "{service}");
        assert_eq!(answer.header("content-type"), "text/plain", "{service}");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    seen.iter().for_each(|seen| assert_authorized(seen));
    assert!(host.log().lines().iter().all(|line| !line.contains("hunter2")));
}

#[tokio::test]
async fn a_request_by_name_carries_method_query_headers_and_body_and_no_forged_credentials() {
    let origin = Origin::start(told).await;
    let host = host(&origin, &["http"], "").await;
    let target = "http?connection=partner&path=/orders&query=a%26b&header=Authorization:forged&header=x-tenant:forged\
                  &header=x-own:mine&header=host:forged";
    let answer = host.send(host.request(Method::PATCH, target).body("the order")).await.expect(200);
    assert_eq!(answer.text(), "you asked: PATCH /v1/orders?q=a%26b HTTP/1.1");
    assert_eq!(answer.header("x-answer"), "yes");
    let streamed = host.post(&format!("{target}&streamed=yes"), "streamed order").await.expect(200);
    assert_eq!(streamed.text(), "you asked: POST /v1/orders?q=a%26b HTTP/1.1");
    let seen = origin.seen();
    seen.iter().for_each(|seen| assert_authorized(seen));
    assert!(seen[0].contains("x-own: mine") && seen[0].ends_with("the order"), "{}", seen[0]);
    assert!(seen[1].contains("streamed order"), "{}", seen[1]);
}

#[tokio::test]
async fn the_client_of_a_language_reaches_a_granted_origin_and_the_host_adds_the_credentials() {
    let origin = Origin::start(told).await;
    let host = host(&origin, &["outgoing", "fetch-javascript"], "").await;
    let url = format!("https://127.0.0.1:{}/v1/users/7", origin.port());
    for target in [
        format!("outgoing?url={url}&header=authorization:forged&header=x-tenant:forged"),
        format!("fetch-javascript?url={url}"),
    ] {
        let answer = host.get(&target).await.expect(200);
        assert_eq!(answer.text(), "you asked: GET /v1/users/7 HTTP/1.1", "{target}");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    seen.iter().for_each(|seen| assert_authorized(seen));
}

#[tokio::test]
async fn a_request_that_is_safe_to_repeat_is_repeated_for_both_kinds_of_clients() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 {
        0 => answer(503, "Retry-After: 0\r\n", "not now"),
        _ => told(seen),
    })
    .await;
    let host = host(&origin, &["http", "outgoing"], "").await;
    host.get("http?connection=partner").await.expect(200);
    assert_eq!(origin.seen().len(), 2);
    host.get(&format!("outgoing?url=https://127.0.0.1:{}/v1/", origin.port())).await.expect(200);
    assert_eq!(origin.seen().len(), 4);
    assert_eq!(host.post("http?connection=partner", "order").await.expect(503).text(), "not now");
    assert_eq!(origin.seen().len(), 5);
}

#[tokio::test]
async fn an_origin_that_is_left_alone_is_named_in_the_log_and_in_the_answer() {
    let origin = Origin::start(|_| answer(503, "", "not now")).await;
    let breaker = CONFIGURATION.replace("[service-defaults]", "breaker-failures = 1\n[service-defaults]");
    let host = configured(&origin, &["http"], &breaker).await;
    host.post("http?connection=partner&path=/orders", "x").await.expect(503);
    host.log().wait_for(&["a circuit breaker opens", "connection=\"partner\""]).await;
    let detail = host.post("http?connection=partner&path=/orders", "x").await.problem(503);
    let request = format!("POST https://127.0.0.1:{}/v1/orders on connection partner: ", origin.port());
    assert!(detail.starts_with(&request) && detail.contains("nothing is sent to this origin"), "{detail}");
}

#[tokio::test]
async fn a_request_whose_caller_goes_away_is_told_as_cut_off() {
    // It takes the request, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let configuration = "
        [host]
        egress-allow = ['127.0.0.0/8']
        [connections.partner]
        type = 'http'
        url = 'http://127.0.0.1:${port}'
        [services.http]
        grants = [{ connection = 'partner', access = 'write' }]
        timeout = '1s'
        ";
    let port = silent.local_addr().expect("it is bound").port();
    let host = Host::builder().configuration(configuration).set("port", port).services(&["http"]).start().await;
    host.post("http?connection=partner&path=/orders", "x").await.problem(504);
    host.log().wait_for(&["connection operation was cut off", "method=POST", "it may have happened"]).await;
    let line = "wharf_connection_operations_total{connection=\"partner\",type=\"http\",operation=\"send\",\
                outcome=\"cut-off\"} 1";
    let told = async || host.admin("/metrics").await.expect(200).text().contains(line).then_some(());
    eventually("the metrics tell that the request was cut off", told).await;
}

#[tokio::test]
async fn a_grant_ends_at_its_methods_and_at_its_path() {
    let origin = Origin::start(|seen| match seen.lines().next() {
        Some(line) if line.contains("/away") => answer(302, "Location: /v1/closed\r\n", ""),
        _ => told(seen),
    })
    .await;
    let grants = "
        [services.http]
        grants = [{ connection = 'partner', path = '/open' }]
        [services.outgoing]
        grants = [{ connection = 'partner', path = '/open' }]";
    let host = host(&origin, &["http", "outgoing", "http-python"], grants).await;
    host.get("http?connection=partner&path=/open/7").await.expect(200);
    let url = format!("outgoing?url=https://127.0.0.1:{}/v1", origin.port());
    host.get(&format!("{url}/open/7")).await.expect(200);
    assert_eq!(origin.seen().len(), 2);
    for path in ["", "/", "/closed", "/opened", "//open/x", "/open%252F..%252Fclosed"] {
        let detail = host.get(&format!("http?connection=partner&path={path}")).await;
        assert!(matches!(detail.status, 400 | 403), "{path}: {}", detail.text());
        host.get(&format!("{url}{path}")).await.problem(503);
    }
    let detail = host.post("http?connection=partner&path=/open/7", "x").await.problem(403);
    assert!(detail.contains("may not send POST to \"/open/7\"") && detail.contains("access = \"write\""), "{detail}");
    assert_eq!(origin.seen().len(), 2, "nothing of that was sent");
    let refused = r#"service outgoing may not send GET to \"/closed\" on connection partner; to allow it, add"#;
    host.log().wait_for(&["an outgoing request is denied", refused]).await;
    host.get(&format!("outgoing?url=https://127.0.0.1:{}/v2", origin.port())).await.problem(503);
    host.log().wait_for(&["no connection of type http covers it"]).await;
    let detail = host.get("http?connection=partner&path=/open/away").await.problem(403);
    assert!(detail.contains("may not send GET to \"/closed\""), "{detail}");
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn failures_are_told_to_the_service_as_what_they_are() {
    let origin = Origin::start(|seen| match seen.split(' ').nth(1) {
        Some("/v1/metadata") => answer(302, "Location: http://169.254.169.254/latest/meta-data/\r\n", ""),
        Some("/v1/metadata-secure") => answer(302, "Location: https://169.254.169.254/latest/meta-data/\r\n", ""),
        Some("/v1/loop") => answer(302, "Location: /v1/loop\r\n", ""),
        Some("/v1/junk") => "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        _ => told(seen),
    })
    .await;
    let keys = "redirect-other-origins = true\nretries = 0\n[service-defaults]";
    let configuration = CONFIGURATION.replace("[service-defaults]", keys)
        + "
        [connections.elsewhere]
        type = 'http'
        url = 'https://127.0.0.1:${port}'
        [connections.files]
        type = 'local'
        folder = '.'
        [services.http]
        grants = [{ connection = 'partner' }, { connection = 'elsewhere' }, { connection = 'files' }]";
    let host = configured(&origin, &["http"], &configuration).await;
    for (query, status, part) in [
        ("connection=partner&path=/metadata", 403, "from https to http://169.254.169.254"),
        ("connection=partner&path=/metadata-secure", 403, "the outgoing policy refuses 169.254.169.254"),
        ("connection=partner&path=/loop", 409, "redirects in a loop"),
        ("connection=partner&path=/junk", 502, "is not HTTP"),
        ("connection=partner&path=/../admin", 400, "must not have .. in it"),
        ("connection=partner&header=a b:c", 400, "is not the name of an HTTP header"),
        ("connection=elsewhere", 403, "signed by an unknown authority"),
        ("connection=files", 400, "is of type local, not http"),
        ("connection=nothing", 404, "no connection is named"),
    ] {
        let detail = host.get(&format!("http?{query}")).await.problem(status);
        assert!(detail.contains(part), "{query}: {detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
}

#[tokio::test]
async fn operators_see_what_goes_to_an_origin_and_what_comes_from_it_by_both_kinds_of_clients() {
    let origin = Origin::start(|_| answer(200, "", "an answer")).await;
    let host = host(&origin, &["http", "outgoing"], "").await;
    let bytes = async |operation: &str| -> Option<u64> {
        let text = host.admin("/metrics").await.expect(200).text();
        let labels = format!("{{connection=\"partner\",type=\"http\",operation=\"{operation}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix("wharf_connection_bytes_total")?.strip_prefix(&*labels)?.parse().ok())
    };
    host.post("http?connection=partner", "the order").await.expect(200);
    assert_eq!((bytes("send").await, bytes("receive").await), (Some(9), Some(9)));
    host.post("http?connection=partner&streamed=yes", "another order").await.expect(200);
    assert_eq!((bytes("send").await, bytes("receive").await), (Some(22), Some(18)));
    host.get(&format!("outgoing?url=https://127.0.0.1:{}/v1/", origin.port())).await.expect(200);
    assert_eq!((bytes("send").await, bytes("receive").await), (Some(22), Some(27)));
}
