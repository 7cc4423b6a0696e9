//! The part of a configuration that `wharf dropbox login` needs.
//!
//! Only the connection is read, and what the host may reach: before the first login, the tokens that this and other
//! connections refer to are not there yet. Knows no login.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_connectors::{Common, Egress, dropbox};

use super::connection::{self, Kind};
use super::{ConfigurationError, default_file, read, values};

/// What a login needs to know.
pub(crate) struct LoginSettings {
    /// Where the refresh token goes.
    pub(crate) file: PathBuf,
    /// What every connection has.
    pub(crate) common: Common,
    /// The connection without its refresh token.
    pub(crate) config: dropbox::Config,
    /// The outgoing policy.
    pub(crate) egress: Arc<Egress>,
}

/// What a login on this connection needs to know; the names of all connections when there is none of this name.
///
/// # Errors
/// Every problem of the connection, and a file that is no configuration.
pub(crate) fn before_login(
    file: Option<&Path>,
    name: &str,
) -> Result<Result<LoginSettings, Vec<String>>, ConfigurationError> {
    let reading = read(file.or_else(default_file), &|name| std::env::var_os(name), |mut root| {
        let networks = root.section("host").read("egress-allow", values::networks).unwrap_or_default();
        let mut sections = root.named_sections("connections");
        let Some(at) = sections.iter().position(|(known, _)| known == name) else {
            return Some(Err(sections.into_iter().map(|(known, _)| known).collect()));
        };
        let (_, mut section) = sections.swap_remove(at);
        let kind = connection::kind(&mut section)?;
        if kind != Kind::Dropbox {
            section.problem_at("type", "a login is for connections of type dropbox");
            return None;
        }
        let settings = connection::before_login(&mut section);
        section.reject_unknown_keys();
        let (file, common, config) = settings?;
        Some(Ok(LoginSettings { file, common, config, egress: Arc::new(Egress::new(networks)) }))
    })?;
    Ok(reading.said)
}
