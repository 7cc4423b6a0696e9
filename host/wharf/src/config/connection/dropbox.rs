//! The keys of a connection of type `dropbox`.

use toml::de::DeValue;
use wharf_connectors::dropbox;

use super::{as_folder, secure_url};
use crate::config::document::Section;
use crate::config::secret;
use crate::config::values;

pub(super) fn read(section: &mut Section<'_>) -> Option<dropbox::Config> {
    let credentials = dropbox_credentials(section);
    let api_url = section.read("api-url", secure_url).map(as_folder);
    let content_url = section.read("content-url", secure_url).map(as_folder);
    let token_url = section.read("token-url", secure_url);
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
        config.api_url = api_url;
    }
    config.content_url = content_url.unwrap_or(config.content_url);
    config.token_url = token_url.unwrap_or(config.token_url);
    config.certificate_authority = certificate_authority;
    config.user_agent = user_agent;
    Some(config)
}

fn dropbox_credentials(section: &mut Section<'_>) -> Option<dropbox::Credentials> {
    const BOTH_FORMS: &str =
        "write either access-token, or app-key and refresh-token (and app-secret, unless it was authorised with PKCE)";
    let lasting = ["refresh-token", "app-key", "app-secret"].into_iter().find(|key| section.has(key));
    let access_token = secret::read(section, "access-token");
    let app_key = section.read("app-key", values::text);
    let app_secret = secret::read(section, "app-secret");
    let refresh_token = secret::read(section, "refresh-token");
    match (section.has("access-token"), lasting) {
        (true, None) => access_token.map(dropbox::Credentials::AccessToken),
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
            let (app_key, refresh_token) = (app_key?, refresh_token?);
            Some(dropbox::Credentials::RefreshToken { app_key, app_secret, refresh_token })
        }
    }
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
