//! The keys of a connection of type `http`.

use std::ops::RangeInclusive;
use std::time::Duration;

use ::http::{HeaderName, Method};
use toml::de::DeValue;
use wharf_connectors::http::{
    Breaker, ClientAuthentication, ClientCredentials, Config, Credentials, DefaultHeader, DefaultValue, Ping, Proxy,
    Redirects,
};

use super::dropbox::user_agent;
use super::{is_this_machine, tls, token_url, url, url_such_as};
use crate::config::document::Section;
use crate::config::secret;
use crate::config::values::{self, expected};

const AUTHENTICATION: &[(&str, ClientAuthentication)] =
    &[("basic", ClientAuthentication::Basic), ("form", ClientAuthentication::Form)];

/// Longer than an invocation may take is no limit.
const TOTAL_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
const ANSWER_BYTES: RangeInclusive<u64> = 1..=16 * 1024 * 1024 * 1024 * 1024;
/// Tries go on while a caller waits.
const RETRY_BUDGET: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
/// Browsers follow 20.
const REDIRECTS: RangeInclusive<usize> = 0..=20;
const IDLE: RangeInclusive<usize> = 0..=256;
const BREAKER_FAILURES: RangeInclusive<u32> = 0..=1000;
const BREAKER_PERCENT: RangeInclusive<u32> = 0..=100;
const BREAKER_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
const BREAKER_REQUESTS: RangeInclusive<u32> = 1..=100_000;

const PING_METHODS: &[(&str, PingMethod)] =
    &[("HEAD", PingMethod::Head), ("GET", PingMethod::Get), ("OPTIONS", PingMethod::Options)];

#[derive(Debug, Clone, Copy)]
enum PingMethod {
    Head,
    Get,
    Options,
}

/// The ways to show who the connection is, each by the key that it is known by, with the further keys of each.
const WAYS: [(&str, &[&str]); 4] = [
    ("user", &["password"]),
    ("bearer-token", &[]),
    ("api-key", &["api-key-header", "api-key-parameter"]),
    ("token-url", &["client-id", "client-secret", "scopes", "audience", "client-authentication"]),
];

pub(super) fn read(section: &mut Section<'_>) -> Option<Config> {
    let url = section.required("url", "the origin, such as \"https://api.example.com/v1\"", url);
    section.would_mean("host", "url");
    let credentials = credentials(section);
    let headers = headers(section);
    let tls = tls::read(section);
    let proxy = proxy(section);
    let redirects = redirects(section);
    let total_timeout = section.read("total-timeout", values::duration(TOTAL_TIMEOUT));
    let answer_bytes_max = section.read("answer-max", values::size(ANSWER_BYTES));
    let retry_budget = section.read("retry-budget", values::duration(RETRY_BUDGET));
    let breaker = breaker(section);
    let http2 = section.read("http2", values::flag);
    let idle_max = section.read("idle-max", values::count(IDLE));
    let user_agent = section.read("user-agent", user_agent);
    let ping = ping(section);
    let defaults = Config::new(url?);
    let config = Config {
        credentials: credentials?,
        headers: headers?,
        tls: tls?,
        proxy: proxy?,
        redirects,
        breaker,
        retry_budget: retry_budget.unwrap_or(defaults.retry_budget),
        total_timeout,
        answer_bytes_max,
        http2: http2.unwrap_or(defaults.http2),
        idle_max,
        user_agent,
        ping,
        ..defaults
    };
    let secret_headers = config.headers.iter().any(|header| matches!(header.value, DefaultValue::Secret(_)));
    if config.url.scheme() == "http" && !is_this_machine(&config.url) {
        let key = WAYS.iter().map(|(key, _)| *key).find(|key| section.has(key));
        if let Some(key) = key.or(secret_headers.then_some("headers")) {
            section.warning(key, "the url begins with http, so these credentials travel unencrypted");
        }
    }
    Some(config)
}

/// `None` when something is wrong with them.
fn credentials(section: &mut Section<'_>) -> Option<Credentials> {
    let user = section.read("user", values::text);
    let password = secret::read(section, "password");
    let bearer = secret::read(section, "bearer-token");
    let key = secret::read(section, "api-key");
    let key_header = section.read("api-key-header", header_name);
    let key_parameter = section.read("api-key-parameter", values::text);
    let token_url = section.read("token-url", token_url);
    let client_id = section.read("client-id", values::text);
    let client_secret = secret::read(section, "client-secret");
    let scopes = section.read("scopes", words);
    let audience = section.read("audience", values::text);
    let authentication = section.read("client-authentication", values::choice(AUTHENTICATION));

    let mut written = Vec::new();
    for (key, further) in WAYS {
        if section.has(key) {
            written.push(key);
        } else if let Some(alone) = further.iter().find(|further| section.has(further)) {
            section.missing(key, &format!("{alone} belongs to it"));
            return None;
        }
    }
    if let [first, second, ..] = written.as_slice() {
        let why = "each is a way to show who the connection is";
        section.problem_at(second, format!("{first} and {second} exclude each other: {why}"));
        return None;
    }
    match written.first() {
        None => Some(Credentials::None),
        Some(&"user") => {
            if !section.has("password") {
                section.missing("password", "it belongs to user; write { env = \"NAME\" } or { file = \"path\" }");
            }
            Some(Credentials::Basic { user: user?, password: password? })
        }
        Some(&"bearer-token") => bearer.map(Credentials::Bearer),
        Some(&"api-key") => match (section.has("api-key-header"), section.has("api-key-parameter")) {
            (true, false) => Some(Credentials::KeyHeader(key_header?, key?)),
            (false, true) => Some(Credentials::KeyParameter(key_parameter?, key?)),
            _ => {
                section.problem_at("api-key", "write either api-key-header or api-key-parameter, where the key goes");
                None
            }
        },
        // The token endpoint.
        Some(_) => {
            for (key, what) in [("client-id", "who the client is"), ("client-secret", "what proves it")] {
                if !section.has(key) {
                    section.missing(key, &format!("{what}, for the token endpoint"));
                }
            }
            for key in ["scopes", "audience", "client-authentication"] {
                let read = match key {
                    "scopes" => scopes.is_some(),
                    "audience" => audience.is_some(),
                    _ => authentication.is_some(),
                };
                if section.has(key) && !read {
                    return None;
                }
            }
            Some(Credentials::ClientCredentials(ClientCredentials {
                token_url: token_url?,
                client_id: client_id?,
                client_secret: client_secret?,
                scopes: scopes.unwrap_or_default(),
                audience,
                authentication: authentication.unwrap_or_default(),
            }))
        }
    }
}

fn headers(section: &mut Section<'_>) -> Option<Vec<DefaultHeader>> {
    if !section.has("headers") {
        // The key is known all the same.
        let _ = section.value("headers");
        return Some(Vec::new());
    }
    let mut headers = Vec::new();
    let mut good = true;
    for mut item in section.listed_sections("headers")? {
        let name = item.required("name", "the name of a header", header_name);
        let plain = item.read("value", values::text);
        let secret = secret::read(&mut item, "secret");
        let value = match (item.has("value"), item.has("secret")) {
            (true, false) => plain.map(DefaultValue::Plain),
            (false, true) => secret.map(DefaultValue::Secret),
            _ => {
                item.problem("write either value, or secret with a reference to one");
                None
            }
        };
        item.reject_unknown_keys();
        match (name, value) {
            (Some(name), Some(value)) => headers.push(DefaultHeader { name, value }),
            _ => good = false,
        }
    }
    good.then_some(headers)
}

/// `Some(None)` when there is none; `None` when something is wrong with it.
fn proxy(section: &mut Section<'_>) -> Option<Option<Proxy>> {
    let url = section.read("proxy", |value| url_such_as("http://proxy.example.com:3128", &["http"], value));
    let user = section.read("proxy-user", values::text);
    let password = secret::read(section, "proxy-password");
    let has = ["proxy", "proxy-user", "proxy-password"].map(|key| section.has(key));
    match has {
        [false, false, false] => Some(None),
        [true, false, false] => Some(Some(Proxy { url: url?, credentials: None })),
        [true, true, true] => Some(Some(Proxy { url: url?, credentials: Some((user?, password?)) })),
        [false, ..] => {
            section.missing("proxy", "proxy-user and proxy-password belong to it");
            None
        }
        [true, ..] => {
            section.problem_at("proxy", "write both proxy-user and proxy-password, or none of them");
            None
        }
    }
}

fn redirects(section: &mut Section<'_>) -> Redirects {
    let defaults = Redirects::default();
    Redirects {
        max: section.read("redirects-max", values::count(REDIRECTS)).unwrap_or(defaults.max),
        other_origins: section.read("redirect-other-origins", values::flag).unwrap_or(defaults.other_origins),
    }
}

fn breaker(section: &mut Section<'_>) -> Breaker {
    let defaults = Breaker::default();
    Breaker {
        failures: section.read("breaker-failures", values::count(BREAKER_FAILURES)).unwrap_or(defaults.failures),
        percent: section.read("breaker-percent", values::count(BREAKER_PERCENT)).unwrap_or(defaults.percent),
        window: section.read("breaker-window", values::duration(BREAKER_TIME)).unwrap_or(defaults.window),
        requests_min: section
            .read("breaker-requests-min", values::count(BREAKER_REQUESTS))
            .unwrap_or(defaults.requests_min),
        pause: section.read("breaker-pause", values::duration(BREAKER_TIME)).unwrap_or(defaults.pause),
    }
}

fn ping(section: &mut Section<'_>) -> Ping {
    let defaults = Ping::default();
    let method = section.read("ping-method", values::choice(PING_METHODS));
    Ping {
        method: method.map_or(defaults.method, |method| match method {
            PingMethod::Head => Method::HEAD,
            PingMethod::Get => Method::GET,
            PingMethod::Options => Method::OPTIONS,
        }),
        path: section.read("ping-path", values::text).unwrap_or(defaults.path),
    }
}

fn header_name(value: &DeValue<'_>) -> Result<HeaderName, String> {
    let text = values::text(value)?;
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{} is not the name of a header", values::quoted(&text)))
}

fn words(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    const FORM: &str = "a list of words such as [\"read\", \"write\"]";
    let items = value.as_array().ok_or_else(|| expected(FORM, value))?;
    items
        .iter()
        .map(|item| {
            let word = item.get_ref().as_str().ok_or_else(|| expected(FORM, item.get_ref()))?;
            if word.is_empty() || word.contains(char::is_whitespace) {
                return Err(format!("{} is not one word; expected {FORM}", values::quoted(word)));
            }
            Ok(word.to_owned())
        })
        .collect()
}
