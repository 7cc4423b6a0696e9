//! Which connection a service may use, how, and where. [`open`] and [`open_as`] are the only ways to a connection; what
//! they return carries the grants, and every path passes [`Granted::allow`] on its way to the connector.

use wharf_connectors::http::is_within;
use wharf_connectors::{Error, ErrorKind, Remote, RemotePath};

use crate::settings::{Access, Grant, LiveSettings};

/// A connection together with what a service may do on it.
#[derive(Clone)]
pub(crate) struct Granted {
    pub(crate) remote: Remote,
    service: String,
    grants: Vec<Grant>,
    /// The grants are those of the defaults.
    is_by_default: bool,
}

/// Opens a connection for a service.
///
/// # Errors
/// `NotFound` when no connection has this name, `Denied` when the service has no grant on it.
pub(crate) fn open(settings: &LiveSettings, service: &str, connection: &str) -> Result<Granted, Error> {
    let (all, defaults) = (&settings.service(service).grants, &settings.service_defaults.grants);
    let grants: Vec<Grant> = all.iter().filter(|grant| grant.connection == connection).cloned().collect();
    let is_by_default = !defaults.is_empty() && all == defaults;
    match settings.connections.get(connection) {
        Some(remote) if !grants.is_empty() => {
            Ok(Granted { remote: confined(remote, &grants), service: service.to_owned(), grants, is_by_default })
        }
        Some(_) => Err(Error::new(
            ErrorKind::Denied,
            format!(
                "service {service} may not use connection {connection}; {}",
                advice(service, is_by_default, connection, Access::Read, &RemotePath::root())
            ),
        )),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("no connection is named {connection:?}; connections are configured under [connections.NAME]"),
        )),
    }
}

/// A connection on which links do not lead out of the granted folders.
fn confined(remote: &Remote, grants: &[Grant]) -> Remote {
    let is_covered = |grant: &Grant| grants.iter().any(|other| other.path.is_root() && other.access >= grant.access);
    let folders: Vec<RemotePath> =
        grants.iter().filter(|grant| !is_covered(grant)).map(|grant| grant.path.clone()).collect();
    if folders.is_empty() { remote.clone() } else { remote.within(&folders) }
}

/// The line of configuration that would allow what was refused.
fn advice(service: &str, is_by_default: bool, connection: &str, access: Access, path: &RemotePath) -> String {
    let replaced = match is_by_default {
        true => ", together with the grants of [service-defaults], which it has now and which its own would replace",
        false => "",
    };
    format!(
        "to allow it, add {{ connection = {connection:?}, access = {:?}, path = {:?} }} to grants of \
         [services.{service:?}]{replaced}",
        word(access),
        path.as_str()
    )
}

fn word(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}

/// Opens a connection of one type for a service: with it comes `part`, which only that type has.
///
/// # Errors
/// As [`open`]; `Invalid` when the connection is of another type.
pub(crate) fn open_as<T>(
    settings: &LiveSettings,
    service: &str,
    connection: &str,
    kind: &str,
    part: impl FnOnce(&Remote) -> Option<T>,
) -> Result<(Granted, T), Error> {
    let granted = open(settings, service, connection)?;
    match part(&granted.remote) {
        Some(part) => Ok((granted, part)),
        None => Err(Error::new(
            ErrorKind::Invalid,
            format!("connection {connection} is of type {}, not {kind}", granted.remote.kind()),
        )),
    }
}

impl Granted {
    /// Checks an operation on a path as a guest wrote it.
    ///
    /// # Errors
    /// `Invalid` for a malformed path, `Denied` outside of what is granted.
    pub(crate) fn allow(&self, access: Access, path: &str) -> Result<RemotePath, Error> {
        let path = RemotePath::parse(path)?;
        if self.allows(access, &path) {
            return Ok(path);
        }
        let (service, connection) = (&self.service, self.remote.name());
        let folder = path.parent().unwrap_or(path.clone());
        Err(Error::new(
            ErrorKind::Denied,
            format!(
                "service {service} may not {} {path} on connection {connection}; {}",
                word(access),
                advice(service, self.is_by_default, connection, access, &folder)
            ),
        ))
    }

    /// Checks a request to a path of an HTTP connection, as it stands in the URL behind that of the connection.
    ///
    /// # Errors
    /// `Denied` outside of what is granted.
    pub(crate) fn allow_request(&self, method: &http::Method, path: &str) -> Result<(), Error> {
        let access = Access::of_method(method);
        if self.grants.iter().any(|grant| grant.access >= access && is_within(path, &grant.path)) {
            return Ok(());
        }
        let (service, connection) = (&self.service, self.remote.name());
        // A path that is written in a form of its own is covered by no grant but one on everything.
        let folder = RemotePath::parse(path).ok().filter(|folder| is_within(path, folder));
        Err(Error::new(
            ErrorKind::Denied,
            format!(
                "service {service} may not send {method} to {path:?} on connection {connection}; {}",
                advice(service, self.is_by_default, connection, access, &folder.unwrap_or_else(RemotePath::root))
            ),
        ))
    }

    fn allows(&self, access: Access, path: &RemotePath) -> bool {
        self.grants.iter().any(|grant| grant.access >= access && path.is_within(&grant.path))
    }

    /// Whether an operation is granted on a path that a remote told which does not tell upper from lower case.
    pub(crate) fn allows_in_any_case(&self, access: Access, path: &RemotePath) -> bool {
        let folded = |path: &RemotePath| RemotePath::parse(&path.as_str().to_lowercase());
        let Ok(path) = folded(path) else { return false };
        self.grants
            .iter()
            .any(|grant| grant.access >= access && folded(&grant.path).is_ok_and(|folder| path.is_within(&folder)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use http::Method;
    use wharf_connectors::{ByteRange, Common, Config, Egress, local};

    use super::*;
    use crate::settings::ServiceSettings;

    fn settings(folder: &std::path::Path, grants: Vec<Grant>) -> LiveSettings {
        let config = Config::Local(local::Config { folder: folder.to_owned() });
        let remote = Remote::new("disk", Common::default(), config, &Arc::new(Egress::default())).unwrap();
        LiveSettings {
            connections: BTreeMap::from([("disk".to_owned(), remote)]),
            services: BTreeMap::from([("mover".to_owned(), ServiceSettings { grants, ..Default::default() })]),
            ..Default::default()
        }
    }

    fn grant(access: Access, path: &str) -> Grant {
        Grant { connection: "disk".to_owned(), access, path: RemotePath::parse(path).unwrap() }
    }

    #[test]
    fn a_service_without_a_grant_is_told_the_line_that_would_allow_it() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), vec![grant(Access::Read, "/in")]);
        let error = open(&settings, "stranger", "disk").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(
            error.to_string(),
            r#"service stranger may not use connection disk; to allow it, add { connection = "disk", access = "read", path = "/" } to grants of [services."stranger"]"#
        );
        assert_eq!(open(&settings, "mover", "dusk").err().unwrap().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn whoever_has_the_grants_of_the_defaults_is_told_that_its_own_would_replace_them() {
        let folder = tempfile::tempdir().unwrap();
        let own = settings(folder.path(), vec![grant(Access::Read, "/in")]);
        let settings = LiveSettings { service_defaults: own.service("mover").clone(), ..own };
        let told = |service: &str| open(&settings, service, "disk").unwrap().allow(Access::Write, "/in/a").unwrap_err();
        let end = ", together with the grants of [service-defaults], which it has now and which its own would replace";
        assert!(told("newcomer").to_string().ends_with(&format!("[services.\"newcomer\"]{end}")));
    }

    #[test]
    fn a_refused_request_is_told_with_a_grant_that_would_cover_it() {
        let folder = tempfile::tempdir().unwrap();
        let granted = open(&settings(folder.path(), vec![grant(Access::Read, "/in")]), "mover", "disk").unwrap();
        for (method, path, access, folder) in [
            (Method::GET, "/other/7", "read", "/other/7"),
            (Method::POST, "/in/7/", "write", "/in/7"),
            (Method::GET, "/a%2Fb", "read", "/"),
            (Method::GET, "", "read", "/"),
        ] {
            let error = granted.allow_request(&method, path).unwrap_err().to_string();
            let what = format!("service mover may not send {method} to {path:?} on connection disk; ");
            let line = format!(r#"{{ connection = "disk", access = "{access}", path = "{folder}" }}"#);
            assert!(error.starts_with(&what) && error.contains(&line), "{error}");
        }
    }

    #[test]
    fn a_grant_ends_at_its_folder_and_at_its_access() {
        let folder = tempfile::tempdir().unwrap();
        let granted = open(
            &settings(folder.path(), vec![grant(Access::Read, "/in"), grant(Access::Write, "/out")]),
            "mover",
            "disk",
        )
        .unwrap();
        assert!(granted.allow(Access::Read, "/in/a").is_ok());
        assert!(granted.allow(Access::Write, "/out/a").is_ok());
        assert!(granted.allow(Access::Read, "/out").is_ok(), "write includes read");
        for (access, path) in [(Access::Write, "/in/a"), (Access::Read, "/inner"), (Access::Read, "/")] {
            assert_eq!(granted.allow(access, path).unwrap_err().kind(), ErrorKind::Denied, "{path}");
        }
        let error = granted.allow(Access::Write, "/in/new/a").unwrap_err().to_string();
        let line = r#"add { connection = "disk", access = "write", path = "/in/new" } to grants of [services."mover"]"#;
        assert!(error.ends_with(line), "{error}");
        assert_eq!(granted.allow(Access::Read, "/in/../secret").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn no_link_leads_out_of_a_granted_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["in", "in/deep", "secret"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("in/deep/file"), "granted").unwrap();
        std::fs::write(folder.path().join("secret/file"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", folder.path().join("in/out")).unwrap();
        std::os::unix::fs::symlink("deep", folder.path().join("in/within")).unwrap();
        let read = async |grants: Vec<Grant>, path: &str| {
            let granted = open(&settings(folder.path(), grants), "mover", "disk").unwrap();
            let path = granted.allow(Access::Read, path)?;
            granted.remote.read(&path, ByteRange::ALL).await?.collect(100).await
        };
        let within = || vec![grant(Access::Write, "/in")];
        assert_eq!(read(within(), "/in/within/file").await.unwrap(), "granted");
        assert_eq!(read(within(), "/in/out/file").await.unwrap_err().kind(), ErrorKind::Denied);
        let everywhere = vec![grant(Access::Write, "/"), grant(Access::Read, "/in")];
        assert_eq!(read(everywhere, "/in/out/file").await.unwrap(), "secret");
    }
}
