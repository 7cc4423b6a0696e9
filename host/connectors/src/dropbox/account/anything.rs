//! Who the account belongs to, how full it is, and any route of Dropbox by its name.
//!
//! A call by name takes paths, ids and namespaces as Dropbox does, which nothing here can hold against a folder: it is
//! for connections that are not confined to one.

use serde::Deserialize;
use serde_json::Value;

use super::Account;
use crate::content::Content;
use crate::dropbox::failure::Call;
use crate::error::{Error, ErrorKind};
use crate::operation::{Effect, Operation};
use crate::path::RemotePath;

/// The longest name of a route; those of Dropbox have half of it.
const ROUTE_BYTES_MAX: usize = 128;

/// The longest argument; those of the largest batches have a fraction of it.
const ARGUMENT_BYTES_MAX: usize = 1024 * 1024;

/// How a route takes its argument and gives its result
/// (<https://www.dropbox.com/developers/documentation/http/documentation>, "Formats").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStyle {
    /// Both are JSON in the bodies.
    Rpc,
    /// The argument is in a header, the request's body is content.
    Upload,
    /// The argument is in a header, the answer's body is content.
    Download,
}

/// Who an account belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentAccount {
    /// Such as `dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc`.
    pub id: String,
    /// As its owner wants to be called.
    pub name: String,
    /// The address it was registered with.
    pub email: String,
    /// `basic`, `pro` or `business`.
    pub kind: String,
    /// The team's name.
    pub team: Option<String>,
    /// The namespace of everything that the account sees: the team's space, or its own.
    pub root_namespace: String,
    /// The namespace of its own folder.
    pub home_namespace: String,
}

/// How full an account is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceUsage {
    /// By this account.
    pub used: u64,
    /// What it, or its team, may use.
    pub allocated: Option<u64>,
    /// By the whole team.
    pub used_by_team: Option<u64>,
}

#[derive(Deserialize)]
pub(in crate::dropbox) struct WireAccount {
    account_id: String,
    name: WireName,
    email: String,
    account_type: Tagged,
    team: Option<Team>,
    root_info: RootInfo,
}

#[derive(Deserialize)]
struct WireName {
    display_name: String,
}

#[derive(Deserialize)]
struct Tagged {
    #[serde(rename = ".tag")]
    tag: String,
}

#[derive(Deserialize)]
struct Team {
    name: String,
}

#[derive(Deserialize)]
struct RootInfo {
    root_namespace_id: String,
    home_namespace_id: String,
}

#[derive(Deserialize)]
pub(in crate::dropbox) struct WireSpace {
    used: u64,
    allocation: Allocation,
}

#[derive(Deserialize)]
struct Allocation {
    allocated: Option<u64>,
    used: Option<u64>,
}

impl From<WireAccount> for CurrentAccount {
    fn from(wire: WireAccount) -> Self {
        Self {
            id: wire.account_id,
            name: wire.name.display_name,
            email: wire.email,
            kind: wire.account_type.tag,
            team: wire.team.map(|team| team.name),
            root_namespace: wire.root_info.root_namespace_id,
            home_namespace: wire.root_info.home_namespace_id,
        }
    }
}

impl From<WireSpace> for SpaceUsage {
    fn from(wire: WireSpace) -> Self {
        Self { used: wire.used, allocated: wire.allocation.allocated, used_by_team: wire.allocation.used }
    }
}

impl Account {
    /// Who the account belongs to.
    ///
    /// # Errors
    /// `Denied` without the permission `account_info.read`.
    pub async fn current_account(&self) -> Result<CurrentAccount, Error> {
        let work = async { Ok(self.client.caller.current_account().await?) };
        self.remote.once("dropbox-current-account", &RemotePath::root(), Effect::None, work).await
    }

    /// How full the account is.
    ///
    /// # Errors
    /// `Denied` without the permission `account_info.read`.
    pub async fn space_usage(&self) -> Result<SpaceUsage, Error> {
        let work = async { Ok(self.client.caller.space_usage().await?) };
        self.remote.once("dropbox-space-usage", &RemotePath::root(), Effect::None, work).await
    }

    /// Whether this is the whole account, not a folder of it: the condition of [`Account::call`].
    pub fn is_whole(&self) -> bool {
        self.root.is_root()
    }

    /// Calls a route of Dropbox by its name, such as `files/get_metadata` or `file_requests/create`, through the same
    /// token, limits and refusals as everything else. `argument` and the result are JSON; an empty argument is for
    /// routes without one. Content goes with [`CallStyle::Upload`] only, and comes with [`CallStyle::Download`] only;
    /// it is sent once, so a refusal for now is not waited out, and what comes is not verified.
    ///
    /// # Errors
    /// `Denied` on an account that is confined to a folder, because no argument can be held against that, and for
    /// routes that end the login; `Invalid` for a name that no route has, or an argument that is not JSON.
    pub async fn call(
        &self,
        style: CallStyle,
        route: &str,
        argument: &str,
        content: Option<Content>,
    ) -> Result<(String, Option<Content>), Error> {
        let argument = self.check_call(style, route, argument, content.is_some())?;
        let caller = &self.client.caller;
        let (operation, permit) =
            Operation::begin(&self.remote, "dropbox-call", &RemotePath::root(), Effect::Unknown).await?;
        let call = Call { route, subject: "a service's own call", repeatable: false };
        let outcome = match style {
            CallStyle::Rpc => caller.rpc::<Value>(&call, &argument).await.map(|result| (result, None)),
            CallStyle::Upload => {
                let content = operation.measured(content.unwrap_or_else(|| Content::from_bytes("")));
                caller.upload_call(&call, &argument, content).await.map(|result| (result, None))
            }
            CallStyle::Download => {
                let opened = caller.open_content::<Value>(&call, &argument).await;
                opened.map(|(result, answer)| (result, Some(answer.into_content(&RemotePath::root(), None, None))))
            }
        };
        match outcome {
            Ok((result, Some(content))) => Ok((result.to_string(), Some(operation.with_content(content, permit)))),
            Ok((result, None)) => operation.end(Ok((result.to_string(), None))),
            Err(failure) => operation.end(Err(failure.into())),
        }
    }

    fn check_call(&self, style: CallStyle, route: &str, argument: &str, content: bool) -> Result<Value, Error> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if !self.is_whole() {
            let message = "a call by name needs a connection and a grant without a folder: nothing could keep it there";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let fit =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if route.len() > ROUTE_BYTES_MAX || !route.contains('/') || !route.split('/').all(fit) {
            return invalid("a route is named like files/get_metadata".to_owned());
        }
        if route.starts_with("auth/") {
            return Err(Error::new(ErrorKind::Denied, format!("{route} is about the login, which is the operator's")));
        }
        if content && style != CallStyle::Upload {
            return invalid(format!("{route}: content goes with calls in the style upload only"));
        }
        if argument.len() > ARGUMENT_BYTES_MAX {
            return invalid(format!("{route}: the argument is longer than {ARGUMENT_BYTES_MAX} bytes"));
        }
        if argument.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(argument).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("{route}: the argument is not JSON")).with_source(error)
        })
    }
}
