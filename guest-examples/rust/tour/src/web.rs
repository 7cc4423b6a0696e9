//! Other services, and HTTP: over a connection by its name, and by URL.

use serde_json::{Value, json};

use crate::wharf::host::http::{self, send};
use crate::wharf::host::services::invoke;
use crate::wharf::host::types::{Error, Request, Response, Trigger};
use crate::{Stopped, Tour, body, client, text};

pub(crate) fn use_services(tour: &mut Tour) -> Result<(), Stopped> {
    let request = Request {
        // Ignored by the host, as is the trigger.
        id: String::new(),
        trigger: Trigger::Http,
        method: "GET".into(),
        path: String::new(),
        params: vec![("name".into(), "tour".into())],
        headers: Vec::new(),
        body: body(""),
    };
    tour.got("services.invoke", invoke("hello", request).and_then(|answer| text(answer.body)))
}

pub(crate) fn use_http(tour: &mut Tour) -> Result<(), Stopped> {
    let ask = |method: &str, content| {
        let request = http::Request {
            method: method.into(),
            path: "/things".into(),
            params: vec![("q".into(), "a&b".into())],
            headers: vec![("x-own".into(), "mine".into())],
            body: body(content),
        };
        send("api", request).and_then(told)
    };
    tour.got("http.send GET", ask("GET", ""))?;
    tour.got("http.send POST", ask("POST", "a thing"))
}

fn told(answer: Response) -> Result<Value, Error> {
    let kind = answer.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.clone());
    Ok(json!([answer.status, kind, text(answer.body)?]))
}

pub(crate) fn use_client(tour: &mut Tour) -> Result<(), Stopped> {
    // An error of `wasi:http` has codes of its own.
    let ask = |content| match client::request(&tour.url, content) {
        Ok(answer) => json!([answer.status, answer.content_type, answer.text]),
        Err(reason) => json!([reason]),
    };
    let (got, posted) = (ask(None), ask(Some("a thing")));
    tour.got("client GET", Ok(got))?;
    tour.got("client POST", Ok(posted))
}
