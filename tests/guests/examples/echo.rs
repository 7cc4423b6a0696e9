//! Answers with the request's own body, handed on unread, and shows the rest of the request in headers `x-echo-*`.

use wharf_test_guests::{Error, Request, Response, bindings::wharf::host::types::Trigger, service};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let trigger = match request.trigger {
        Trigger::Http => "http".into(),
        Trigger::Service(name) => format!("service {name}"),
        Trigger::Schedule(name) => format!("schedule {name}"),
        Trigger::File(path) => format!("file {path}"),
        Trigger::Topic(topic) => format!("topic {topic}"),
    };
    let mut headers = vec![
        ("x-echo-id".into(), request.id),
        ("x-echo-trigger".into(), trigger),
        ("x-echo-method".into(), request.method),
        ("x-echo-path".into(), request.path),
    ];
    if let Some(size) = request.body.size() {
        headers.push(("x-echo-size".into(), size.to_string()));
    }
    headers.extend(request.params.into_iter().map(|(name, value)| ("x-echo-param".into(), format!("{name}={value}"))));
    headers.extend(request.headers.into_iter().map(|(name, value)| (format!("x-echo-header-{name}"), value)));
    Ok(Response { status: 200, headers, body: request.body })
}
