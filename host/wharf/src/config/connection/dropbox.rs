//! The keys of a connection of type `dropbox`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use toml::de::DeValue;
use wharf_connectors::dropbox;
use wharf_connectors::dropbox::login::Stored;

use super::{as_folder, secure_url};
use crate::config::document::Section;
use crate::config::secret;
use crate::config::values::{self, expected};

/// Dropbox asks for 300 s at most; a call that waits longer is not waited for by anyone.
const RETRY_BUDGET: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(15 * 60);
/// Three parts of one block each, up to what all uploads of a connection share.
const UPLOAD_WINDOW: RangeInclusive<u64> = 12 * 1024 * 1024..=192 * 1024 * 1024;

pub(super) fn read(name: &str, section: &mut Section<'_>) -> Option<dropbox::Config> {
    let (credentials, scopes) = dropbox_credentials(name, section).unzip();
    let config = settings(section, credentials)?;
    Some(dropbox::Config { scopes: scopes.flatten(), ..config })
}

/// What a login needs, before which there is no refresh token: where that goes, and all other settings.
pub(super) fn before_login(section: &mut Section<'_>) -> Option<(PathBuf, dropbox::Config)> {
    const FORM: &str = "write where the login stores it, refresh-token = { file = \"path\" }";
    if section.has("access-token") {
        section.problem_at("access-token", format!("a login gives a refresh token instead; {FORM}"));
    }
    let app_key = section.required("app-key", "it is on the page of the application in the app console", values::text);
    let app_secret = secret::read(section, "app-secret");
    let is_file = section.value("refresh-token").map(|value| {
        let table = value.get_ref().as_table();
        table.is_some_and(|table| table.contains_key("file"))
    });
    let file = match is_file {
        None => {
            section.missing("refresh-token", FORM);
            None
        }
        Some(false) => {
            section.problem_at("refresh-token", FORM);
            None
        }
        Some(true) => {
            let mut reference = section.section("refresh-token");
            let file = reference.read("file", values::path).map(|path| reference.document().resolve(&path));
            reference.reject_unknown_keys();
            file
        }
    };
    let credentials =
        app_key.map(|app_key| dropbox::Credentials::RefreshToken { app_key, app_secret, refresh_token: "".into() });
    let config = settings(section, credentials)?;
    Some((file?, config))
}

/// Everything but how to log in.
fn settings(section: &mut Section<'_>, credentials: Option<dropbox::Credentials>) -> Option<dropbox::Config> {
    let api_url = section.read("api-url", secure_url).map(as_folder);
    let content_url = section.read("content-url", secure_url).map(as_folder);
    let notify_url = section.read("notify-url", secure_url).map(as_folder);
    let token_url = section.read("token-url", secure_url);
    let path_root = section.read("path-root", path_root);
    let select_user = section.read("select-user", values::text);
    let select_admin = section.read("select-admin", values::text);
    let credentials = if select_user.is_some() && select_admin.is_some() {
        section.problem_at("select-admin", "select-user and select-admin exclude each other");
        None
    } else {
        credentials
    };
    let headers = section.read("headers", headers);
    let retry_budget = section.read("retry-budget", values::duration(RETRY_BUDGET));
    let upload_window = section.read("upload-window", values::size(UPLOAD_WINDOW));
    let certificate_authority = secret::content(section, "certificate-authority");
    let user_agent = section.read("user-agent", user_agent);
    let mut config = match dropbox::Config::new(credentials?) {
        Ok(config) => config,
        Err(error) => {
            section.problem(error.to_string());
            return None;
        }
    };
    // A stand-in for Dropbox answers everything at one place, unless it is told to be elsewhere.
    if let Some(api_url) = api_url {
        if let Ok(token_url) = api_url.join("oauth2/token") {
            config.token_url = token_url;
        }
        config.content_url = api_url.clone();
        config.notify_url = api_url.clone();
        config.api_url = api_url;
    }
    config.content_url = content_url.unwrap_or(config.content_url);
    config.notify_url = notify_url.unwrap_or(config.notify_url);
    config.token_url = token_url.unwrap_or(config.token_url);
    config.path_root = path_root;
    config.select_user = select_user;
    config.select_admin = select_admin;
    config.headers = headers.unwrap_or_default();
    config.wait_budget = retry_budget;
    config.window_bytes = upload_window.unwrap_or(config.window_bytes);
    config.certificate_authority = certificate_authority;
    config.user_agent = user_agent;
    Some(config)
}

/// How to log in, and what that allows, where it is known.
fn dropbox_credentials(name: &str, section: &mut Section<'_>) -> Option<(dropbox::Credentials, Option<String>)> {
    const BOTH_FORMS: &str =
        "write either access-token, or app-key and refresh-token (and app-secret, unless it was authorised with PKCE)";
    let lasting = ["refresh-token", "app-key", "app-secret"].into_iter().find(|key| section.has(key));
    let access_token = secret::read(section, "access-token");
    let app_key = section.read("app-key", values::text);
    let app_secret = secret::read(section, "app-secret");
    let refresh_token = secret::read_or(section, "refresh-token", &format!("wharf dropbox login {name} makes it"));
    match (section.has("access-token"), lasting) {
        (true, None) => access_token.map(|token| (dropbox::Credentials::AccessToken(token), None)),
        (true, Some(other)) => {
            section.problem_at(other, format!("access-token and {other} exclude each other; {BOTH_FORMS}"));
            None
        }
        (false, None) => {
            section.problem(format!("nothing to log in with; {BOTH_FORMS}"));
            None
        }
        (false, Some(_)) => {
            for key in ["app-key", "refresh-token"] {
                if !section.has(key) {
                    section.missing(key, BOTH_FORMS);
                }
            }
            if section.has("app-secret") && app_secret.is_none() {
                return None;
            }
            let (app_key, Stored { refresh_token, scopes }) = (app_key?, Stored::read(&refresh_token?));
            Some((dropbox::Credentials::RefreshToken { app_key, app_secret, refresh_token }, scopes))
        }
    }
}

/// Where the paths of an account begin.
fn path_root(value: &DeValue<'_>) -> Result<dropbox::PathRoot, String> {
    const FORM: &str = "write \"auto\", \"home\", \"root:ID\" or \"namespace:ID\", where ID is a number";
    let text = values::text(value)?;
    let number = |id: &str| (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then(|| id.to_owned());
    let root = match text.split_once(':') {
        None if text == "auto" => Some(dropbox::PathRoot::Auto),
        None if text == "home" => Some(dropbox::PathRoot::Home),
        Some(("root", id)) => number(id).map(dropbox::PathRoot::Root),
        Some(("namespace", id)) => number(id).map(dropbox::PathRoot::Namespace),
        _ => None,
    };
    root.ok_or_else(|| format!("this is not where paths can begin; {FORM}"))
}

/// Names and values of headers; whether they may be headers of every call, the connection says when it is made.
fn headers(value: &DeValue<'_>) -> Result<Vec<(String, SecretString)>, String> {
    let table = value.as_table().ok_or_else(|| expected("a table such as { X-Team = \"blue\" }", value))?;
    let mut headers = Vec::new();
    for (name, value) in table {
        let value = values::text(value.get_ref()).map_err(|problem| format!("{}: {problem}", name.get_ref()))?;
        headers.push((name.get_ref().to_string(), SecretString::from(value)));
    }
    Ok(headers)
}

/// What may stand in a header (RFC 9110, section 5.5), without what is not plain ASCII.
pub(super) fn user_agent(value: &DeValue<'_>) -> Result<String, String> {
    let text = values::text(value)?;
    if text.chars().all(|character| matches!(character, ' '..='~')) {
        Ok(text)
    } else {
        Err("must be printable ASCII: it becomes the header User-Agent".to_owned())
    }
}
