//! Whose space the paths of a connection are in: the headers that say so with every call.
//!
//! A member of a team sees its own folder unless it asks for the team's space (`Dropbox-API-Path-Root`,
//! <https://www.dropbox.com/developers/reference/path-root-header-modes>); an application of a team acts for the member
//! that it names. Knows no route.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::account::{CurrentAccount, SpaceUsage, WireAccount, WireSpace};
use super::call::Caller;
use super::failure::{Call, Failure};
use super::wire::header_json;
use crate::error::{Error, ErrorKind};

/// Where the paths of an account begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRoot {
    /// The member's own folder.
    Home,
    /// The root that the account has now, asked of Dropbox: the team's space for members of a team that has one.
    Auto,
    /// The team's space, by its namespace. When the account gets another root, calls fail.
    Root(String),
    /// Any namespace that the account may see.
    Namespace(String),
}

/// Headers that the connection itself makes, or that would change what a call is.
const OWN_HEADERS: [&str; 7] =
    ["authorization", "host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection"];

const PATH_ROOT: HeaderName = HeaderName::from_static("dropbox-api-path-root");

pub(super) const CURRENT_ACCOUNT: &str = "users/get_current_account";

/// The headers of every call of one connection.
pub(super) struct Standing {
    fixed: HeaderMap,
    auto: bool,
    /// What [`PathRoot::Auto`] found.
    found: Mutex<Option<HeaderValue>>,
}

impl Standing {
    /// # Errors
    /// `Invalid` for what cannot be a header, and for headers that are the connection's own.
    pub(super) fn new(
        path_root: Option<&PathRoot>,
        select_user: Option<&str>,
        select_admin: Option<&str>,
        headers: &[(String, SecretString)],
    ) -> Result<Self, Error> {
        let invalid = |what: String| Error::new(ErrorKind::Invalid, what);
        let mut fixed = HeaderMap::new();
        for (name, value) in headers {
            let own = |name: &str| OWN_HEADERS.contains(&name) || name.starts_with("dropbox-api-");
            let parsed = HeaderName::try_from(name.as_str()).ok().filter(|name| !own(name.as_str()));
            let name = parsed.ok_or_else(|| invalid(format!("{name:?} cannot be a header of every call")))?;
            // The cause would print the value.
            let mut value = HeaderValue::try_from(value.expose_secret())
                .map_err(|_| invalid(format!("the value of the header {name} has characters that none may have")))?;
            value.set_sensitive(true);
            fixed.insert(name, value);
        }
        let members = [("dropbox-api-select-user", select_user), ("dropbox-api-select-admin", select_admin)];
        for (name, member) in members {
            if let Some(member) = member {
                let value = HeaderValue::try_from(member)
                    .map_err(|error| invalid(format!("{name}: not a member's id")).with_source(error))?;
                fixed.insert(name, value);
            }
        }
        if select_user.is_some() && select_admin.is_some() {
            return Err(invalid("select-user and select-admin exclude each other".to_owned()));
        }
        let root = match path_root {
            None | Some(PathRoot::Auto) => None,
            Some(PathRoot::Home) => Some(json!({ ".tag": "home" })),
            Some(PathRoot::Root(namespace)) => Some(json!({ ".tag": "root", "root": namespace })),
            Some(PathRoot::Namespace(namespace)) => Some(json!({ ".tag": "namespace_id", "namespace_id": namespace })),
        };
        if let Some(root) = root {
            fixed.insert(PATH_ROOT, header_json(&root)?);
        }
        Ok(Self { fixed, auto: path_root == Some(&PathRoot::Auto), found: Mutex::default() })
    }

    /// What paths begin at, where it is another folder than Dropbox itself takes.
    pub(super) fn path_root(&self) -> Option<&HeaderValue> {
        self.fixed.get(PATH_ROOT)
    }
}

impl Caller {
    /// The headers of a call, which may first have to ask for the account's root.
    pub(super) async fn standing_headers(&self, call: &Call<'_>) -> Result<HeaderMap, Failure> {
        let mut headers = self.standing.fixed.clone();
        if !self.standing.auto || call.route == CURRENT_ACCOUNT {
            return Ok(headers);
        }
        // Held while it is asked for, so that it is asked for once.
        let mut found = self.standing.found.lock().await;
        let root = match found.as_ref() {
            Some(root) => root.clone(),
            None => {
                let account = self.current_account().await?;
                let root = json!({ ".tag": "root", "root": account.root_namespace });
                found.insert(header_json(&root)?).clone()
            }
        };
        headers.insert(PATH_ROOT, root);
        Ok(headers)
    }

    /// Forgets the root of the account: Dropbox says that it is another one now.
    pub(super) async fn forget_root(&self) {
        *self.standing.found.lock().await = None;
    }

    /// Who the account belongs to. Boxed, because finding the root for another call takes this one.
    pub(super) fn current_account(&self) -> BoxFuture<'_, Result<CurrentAccount, Failure>> {
        Box::pin(async {
            let call = Call { route: CURRENT_ACCOUNT, subject: "the connection", repeatable: true };
            let account: CurrentAccount = self.rpc::<WireAccount>(&call, &Value::Null).await?.into();
            self.membership.is_of(&account.id);
            Ok(account)
        })
    }

    pub(super) async fn space_usage(&self) -> Result<SpaceUsage, Failure> {
        let call = Call { route: "users/get_space_usage", subject: "the connection", repeatable: true };
        Ok(self.rpc::<WireSpace>(&call, &Value::Null).await?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(headers: &[(&str, &str)]) -> Result<Standing, Error> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Standing::new(Some(&PathRoot::Root("12".to_owned())), Some("dbmid:a"), None, &headers)
    }

    #[test]
    fn headers_say_whose_space_it_is() {
        let headers = standing(&[("X-Team", "blue")]).unwrap().fixed;
        let value = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(value("dropbox-api-path-root"), r#"{".tag":"root","root":"12"}"#);
        assert_eq!((value("dropbox-api-select-user"), value("x-team")), ("dbmid:a", "blue"));
    }

    #[test]
    fn headers_that_are_not_the_operators_are_refused() {
        for name in ["Authorization", "Dropbox-API-Arg", "Dropbox-API-Select-User", "Content-Type", "a b", ""] {
            assert_eq!(
                standing(&[(name, "secret")]).err().map(|error| error.kind()),
                Some(ErrorKind::Invalid),
                "{name}"
            );
        }
        let error = standing(&[("x-a", "secret\n")]).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
