//! What SFTP has beyond the files of every connection: owners, permissions, times, links, the space of a file system.
//!
//! Extensions of OpenSSH are used where a server has them (its file PROTOCOL, section 4); where it has none,
//! the error says so.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::client::{Failure, Ticket, unless_refused};
use super::status::FileSystem;
use super::tree::{self, LISTING_NAMES_MAX, Tree, entry_kind, is_a_folder, not_there, wire_path};
use super::wire::{Attributes, Fields, Name, kind, open, status};
use crate::backend::{Checksum, ChecksumAlgorithm, Entry, EntryKind, hexadecimal};
use crate::error::{Error, ErrorKind};
use crate::path::{RemotePath, bytes_of, name_of, text_of};

const STATVFS: &str = "statvfs@openssh.com";
const HARDLINK: &str = "hardlink@openssh.com";
const LSETSTAT: &str = "lsetstat@openssh.com";
const USERS_GROUPS: &str = "users-groups-by-id@openssh.com";
const FSYNC: &str = "fsync@openssh.com";

/// What a server is asked for a checksum by (draft-ietf-secsh-filexfer-extensions-00, section 3). ProFTPD 1.3.8 has it
/// but does not announce it to clients of version 3; OpenSSH has none.
const CHECK_FILE_NAME: &str = "check-file-name";

/// The checksums that are asked for, best first, in the names of the draft.
const CHECKSUMS: [(&str, ChecksumAlgorithm); 4] = [
    ("sha256", ChecksumAlgorithm::Sha256),
    ("sha1", ChecksumAlgorithm::Sha1),
    ("md5", ChecksumAlgorithm::Md5),
    ("crc32", ChecksumAlgorithm::Crc32),
];

/// A server answers only when it has read the whole file, and any answer is waited for only so long: this is read in
/// time from every disk.
const CHECKSUM_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Numbers up to this are asked for when a user or group is given by name: SFTP tells names of numbers, not the other
/// way round, and this is where systems put those that people and services have.
const IDS_ASKED: u32 = 2000;

/// Requests to delete that are on their way at once.
const DELETES_AHEAD_MAX: usize = 64;

/// Folders within folders when a tree is deleted: more than a path can hold.
const DEPTH_MAX: usize = crate::path::PATH_BYTES_MAX / 2;

/// Bits of a mode that can be changed: permissions, and what stands before them.
const MODE_MAX: u32 = 0o7777;

/// Everything that SFTP tells of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Where it is.
    pub path: RemotePath,
    /// What it is; a symbolic link is told as that.
    pub kind: EntryKind,
    /// Bytes.
    pub size: Option<u64>,
    /// Kind and permissions, as POSIX has them.
    pub mode: Option<u32>,
    /// Number of its user.
    pub user: Option<u32>,
    /// Number of its group.
    pub group: Option<u32>,
    /// Name of its user, where the server tells.
    pub user_name: Option<String>,
    /// Name of its group, where the server tells.
    pub group_name: Option<String>,
    /// Time of the last access.
    pub accessed: Option<SystemTime>,
    /// Time of the last change.
    pub modified: Option<SystemTime>,
}

impl Info {
    pub(super) fn new(path: RemotePath, attributes: &Attributes) -> Self {
        let (accessed, modified) = attributes.times.unzip();
        let (user, group) = attributes.owner.unzip();
        Self {
            path,
            kind: entry_kind(attributes),
            size: attributes.size,
            mode: attributes.mode,
            user,
            group,
            user_name: None,
            group_name: None,
            accessed: accessed.and_then(time),
            modified: modified.and_then(time),
        }
    }
}

impl Info {
    /// What is known of an entry of any connection, at a path of one's own.
    pub(super) fn of(path: &RemotePath, entry: &Entry) -> Self {
        Self {
            kind: entry.kind,
            size: entry.size,
            mode: entry.mode,
            modified: entry.modified,
            ..Self::new(path.clone(), &Attributes::default())
        }
    }
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// By number.
    Id(u32),
    /// By name, where the server can tell which number that is.
    Name(String),
}

impl Owner {
    /// A number, or a name.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }
}

/// Names of users and of groups.
type Names = (Vec<String>, Vec<String>);

/// Which of the two owners is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Group,
}

pub(super) fn time(seconds: u32) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.into()))
}

/// Seconds since 1970 as the protocol has them: to 2106, and not before.
pub(super) fn seconds(time: SystemTime) -> Option<u32> {
    u32::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn seconds_to_set(time: SystemTime) -> Result<u32, Error> {
    let message = "SFTP has no times before 1970 or after 2106-02-07";
    seconds(time).ok_or_else(|| Error::new(ErrorKind::Invalid, message))
}

impl Tree {
    // ---- Looking ---------------------------------------------------------------------------------------------------

    /// What is at a path; a link is followed when asked.
    pub(super) async fn info(&mut self, path: &RemotePath, follow: bool) -> Result<Info, Error> {
        let found = if follow || self.is_root(path) { self.look_through(path).await? } else { self.look(path).await? };
        let found = found.ok_or_else(|| not_there("look at", path))?;
        let mut info = vec![Info::new(path.clone(), &found)];
        self.add_names(&mut info).await?;
        info.pop().ok_or_else(|| not_there("look at", path))
    }

    /// The attributes of what is at a path, a link followed within the root.
    pub(super) async fn look_through(&mut self, path: &RemotePath) -> Result<Option<Attributes>, Error> {
        let place = self.ask_where(path).await?;
        let ticket = self.ask(kind::STAT, path);
        let inside = self.is_inside(place, path).await;
        let found = self.client.attributes(ticket).await;
        inside?;
        self.found(found, &format!("look at {path}"))
    }

    /// Everything about those entries of a folder whose names are meant, at most so many.
    pub(super) async fn infos(
        &mut self,
        path: &RemotePath,
        entries_max: usize,
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<Vec<Info>, Error> {
        let handle = self.open_folder(path).await?;
        let mut infos = Vec::new();
        let mut names_seen = 0;
        let result = loop {
            match self.next_names(&handle).await {
                Ok(Some(names)) => {
                    names_seen += names.len();
                    let found = names.iter().filter_map(|name| info_of(path, name));
                    infos.extend(found.filter(|info| is_meant(info.path.name())));
                }
                Ok(None) => break Ok(()),
                Err(failure) => break Err(self.client.error(&format!("list {path}"), failure)),
            }
            if infos.len() > entries_max || names_seen > LISTING_NAMES_MAX {
                let message = format!(
                    "{path} has more than {entries_max} entries that are asked for, or {LISTING_NAMES_MAX} altogether; \
                     list it page by page"
                );
                break Err(Error::new(ErrorKind::TooLarge, message));
            }
        };
        self.close(&handle).await;
        result?;
        self.add_names(&mut infos).await?;
        Ok(infos)
    }

    async fn next_names(&mut self, handle: &Bytes) -> Result<Option<Vec<Name>>, Failure> {
        let ticket = self.client.request(kind::READDIR, |request| request.string(handle));
        self.client.names(ticket).await
    }

    /// Adds the names of users and groups, where the server tells them.
    async fn add_names(&mut self, infos: &mut [Info]) -> Result<(), Error> {
        let users: Vec<u32> = infos.iter().filter_map(|info| info.user).collect::<BTreeSet<_>>().into_iter().collect();
        let groups: Vec<u32> =
            infos.iter().filter_map(|info| info.group).collect::<BTreeSet<_>>().into_iter().collect();
        let Some((user_names, group_names)) = self.names_of(&users, &groups).await? else { return Ok(()) };
        let name = |ids: &[u32], names: &[String], id: Option<u32>| {
            let at = ids.binary_search(&id?).ok()?;
            names.get(at).filter(|name| !name.is_empty()).cloned()
        };
        for info in infos {
            info.user_name = name(&users, &user_names, info.user);
            info.group_name = name(&groups, &group_names, info.group);
        }
        Ok(())
    }

    /// The names of users and groups, in their order (PROTOCOL of OpenSSH, section 4.12); `None` where the server does
    /// not tell.
    async fn names_of(&mut self, users: &[u32], groups: &[u32]) -> Result<Option<Names>, Error> {
        if !self.client.can.has(USERS_GROUPS) {
            return Ok(None);
        }
        let bytes = |ids: &[u32]| ids.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<u8>>();
        let (user_ids, group_ids) = (bytes(users), bytes(groups));
        let ticket = self.client.extended(USERS_GROUPS, |request| request.string(&user_ids).string(&group_ids));
        let reply = self.client.extension_reply(ticket).await;
        let failed = |failure| self.client.error("tell the names of users", failure);
        let Some(reply) = unless_refused(reply).map_err(failed)? else { return Ok(None) };
        let mut fields = Fields(reply);
        let mut list = || {
            let mut names = Fields(fields.string().ok()?);
            let mut list = Vec::new();
            while !names.is_empty() {
                list.push(super::wire::printable(&names.string().ok()?));
            }
            Some(list)
        };
        Ok(list().zip(list()))
    }

    /// The number of a user or group.
    async fn owner_id(&mut self, owner: &Owner, role: Role, known: Option<u32>) -> Result<u32, Error> {
        let name = match owner {
            Owner::Id(id) => return Ok(*id),
            Owner::Name(name) => name,
        };
        let ids: Vec<u32> = known.into_iter().chain(0..IDS_ASKED).chain([65534]).collect();
        let (users, groups): (&[u32], &[u32]) = match role {
            Role::User => (&ids, &[]),
            Role::Group => (&[], &ids),
        };
        let names = self.names_of(users, groups).await?.map(|(users, groups)| match role {
            Role::User => users,
            Role::Group => groups,
        });
        let found = names.and_then(|names| names.iter().position(|other| other == name));
        found.and_then(|at| ids.get(at).copied()).ok_or_else(|| {
            let what = if role == Role::User { "user" } else { "group" };
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "the SFTP server {} does not tell the number of the {what} {name:?}: give the number instead of the name",
                    self.client.server()
                ),
            )
        })
    }

    /// Where a path truly is, as seen from outside.
    pub(super) async fn real_path(&mut self, path: &RemotePath) -> Result<RemotePath, Error> {
        let ticket = self.ask(kind::REALPATH, path);
        let real = self.client.one_name(ticket).await;
        let real = real.map_err(|failure| {
            if failure.is_not_found() {
                not_there("find", path)
            } else {
                self.client.error(&format!("find {path}"), failure)
            }
        })?;
        self.below_the_root(&real, path).await
    }

    /// What a symbolic link says, as text.
    pub(super) async fn read_link(&mut self, path: &RemotePath) -> Result<String, Error> {
        self.confine_parent(path).await?;
        let ticket = self.ask(kind::READLINK, path);
        match self.client.one_name(ticket).await {
            Ok(target) => Ok(text_of(&target)),
            Err(failure) => match self.look(path).await? {
                None => Err(not_there("read link", path)),
                Some(found) if !found.is_link() => {
                    let message = format!("cannot read link {path}: it is no symbolic link");
                    Err(Error::new(ErrorKind::Conflict, message))
                }
                Some(_) => Err(self.client.error(&format!("read link {path}"), failure)),
            },
        }
    }

    /// The space of the file system that a path is on.
    pub(super) async fn file_system(&mut self, path: &RemotePath) -> Result<FileSystem, Error> {
        self.needs(STATVFS)?;
        let place = self.ask_where(path).await?;
        let wire = wire_path(path);
        let ticket = self.client.extended(STATVFS, |request| request.string(&wire));
        let inside = self.is_inside(place, path).await;
        let reply = self.client.extension_reply(ticket).await;
        inside?;
        let attempt = format!("tell the space of {path}");
        let reply = reply.map_err(|failure| self.client.error(&attempt, failure))?;
        FileSystem::read(reply).map_err(|malformed| self.client.error(&attempt, Failure::Malformed(malformed)))
    }

    /// The checksum of a file, where the server computes one in time.
    pub(super) async fn checksum(&mut self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let found = self.look_through(path).await?.ok_or_else(|| not_there("tell the checksum of", path))?;
        if found.is_directory() {
            return Err(is_a_folder("tell the checksum of", path));
        }
        if !self.may_check_files || found.size.is_none_or(|size| size > CHECKSUM_FILE_BYTES_MAX) {
            return Ok(None);
        }
        let names = CHECKSUMS.map(|(name, _)| name).join(",");
        let wire = wire_path(path);
        // From the first byte to the last, as one block.
        let ticket = self
            .client
            .extended(CHECK_FILE_NAME, |request| request.string(&wire).string(names.as_bytes()).u64(0).u64(0).u32(0));
        let attempt = format!("tell the checksum of {path}");
        let reply = self.client.extension_reply(ticket).await;
        if let Err(failure) = &reply {
            self.may_check_files = !failure.has_code(status::OP_UNSUPPORTED);
        }
        let reply = unless_refused(reply).map_err(|failure| self.client.error(&attempt, failure))?;
        Ok(reply.and_then(read_checksum))
    }

    fn needs(&self, extension: &str) -> Result<(), Error> {
        if self.client.can.has(extension) {
            return Ok(());
        }
        let message = format!("the SFTP server {} does not have {extension}", self.client.server());
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    // ---- Changing --------------------------------------------------------------------------------------------------

    /// Changes attributes; of a link itself where the server can, and of what it leads to when asked.
    async fn set(
        &mut self,
        attempt: &str,
        path: &RemotePath,
        attributes: &Attributes,
        follow: bool,
    ) -> Result<(), Error> {
        let wire = wire_path(path);
        let ticket = if follow {
            self.confine(path).await?;
            self.client.request(kind::SETSTAT, |request| request.string(&wire).attributes(attributes))
        } else {
            self.needs(LSETSTAT)?;
            self.confine_parent(path).await?;
            self.client.extended(LSETSTAT, |request| request.string(&wire).attributes(attributes))
        };
        self.client.done(ticket).await.map_err(|failure| {
            if failure.is_not_found() {
                return not_there(attempt, path);
            }
            self.client.error(&format!("{attempt} {path}"), failure)
        })
    }

    pub(super) async fn change_mode(&mut self, path: &RemotePath, mode: u32, follow: bool) -> Result<(), Error> {
        if mode > MODE_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{mode:o} is no mode: permissions end at {MODE_MAX:o}"),
            ));
        }
        self.set("change the mode of", path, &Attributes { mode: Some(mode), ..Attributes::default() }, follow).await
    }

    /// Changes user, group or both; the protocol wants both told.
    pub(super) async fn change_owner(
        &mut self,
        path: &RemotePath,
        user: Option<&Owner>,
        group: Option<&Owner>,
        follow: bool,
    ) -> Result<(), Error> {
        let found = if follow { self.look_through(path).await? } else { self.look(path).await? };
        let found = found.ok_or_else(|| not_there("change the owner of", path))?;
        let (known_user, known_group) = found.owner.unzip();
        let unknown = || {
            let message = format!("the SFTP server {} does not tell who owns {path}", self.client.server());
            Error::new(ErrorKind::Unsupported, message)
        };
        let (before_user, before_group) = found.owner.ok_or_else(unknown)?;
        let user = match user {
            Some(user) => self.owner_id(user, Role::User, known_user).await?,
            None => before_user,
        };
        let group = match group {
            Some(group) => self.owner_id(group, Role::Group, known_group).await?,
            None => before_group,
        };
        let attributes = Attributes { owner: Some((user, group)), ..Attributes::default() };
        self.set("change the owner of", path, &attributes, follow).await
    }

    /// Sets the times of the last access and change; what is not given stays, as far as the server told it.
    pub(super) async fn change_times(
        &mut self,
        path: &RemotePath,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<(), Error> {
        let found = self.look_through(path).await?.ok_or_else(|| not_there("set the times of", path))?;
        let now = seconds(SystemTime::now()).unwrap_or(u32::MAX);
        let (accessed_before, modified_before) = found.times.unwrap_or((now, now));
        let times = (
            accessed.map(seconds_to_set).transpose()?.unwrap_or(accessed_before),
            modified.map(seconds_to_set).transpose()?.unwrap_or(modified_before),
        );
        self.set("set the times of", path, &Attributes { times: Some(times), ..Attributes::default() }, true).await
    }

    /// Makes a symbolic link that says `target`. One that would lead out of the root is refused.
    pub(super) async fn symlink(&mut self, target: &str, link: &RemotePath) -> Result<(), Error> {
        self.confine_parent(link).await?;
        let said = self.link_target(target, link)?;
        let wire = wire_path(link);
        // OpenSSH has the two the other way round than the draft, and the others do as OpenSSH does (PROTOCOL, 4.1).
        let ticket = self.client.request(kind::SYMLINK, |request| request.string(&said).string(&wire));
        let Err(failure) = self.client.done(ticket).await else { return Ok(()) };
        if failure.is_refusal() && self.look(link).await?.is_some() {
            return Err(tree::exists("make link", link));
        }
        Err(self.not_put("make link", link, failure).await)
    }

    /// What a link is to say: relative as it is, absolute as seen from outside.
    fn link_target(&self, target: &str, link: &RemotePath) -> Result<Vec<u8>, Error> {
        let outside = || {
            let message = format!("the link {link} would lead out of the root of the connection: {target:?}");
            Error::new(ErrorKind::Denied, message)
        };
        if target.is_empty() || target.contains('\0') {
            return Err(Error::new(ErrorKind::Invalid, format!("{target:?} is nothing that a link can lead to")));
        }
        if target.starts_with('/') {
            return Ok(wire_path(&RemotePath::parse(target)?.below(self.root())).to_vec());
        }
        let depth = link.components().count() - self.root().components().count();
        let mut depth = depth as isize - 1;
        for step in target.split('/') {
            match step {
                "" | "." => {}
                ".." => depth -= 1,
                _ => depth += 1,
            }
            if depth < 0 && !self.root().is_root() {
                return Err(outside());
            }
        }
        Ok(bytes_of(target))
    }

    pub(super) async fn hard_link(&mut self, existing: &RemotePath, link: &RemotePath) -> Result<(), Error> {
        self.needs(HARDLINK)?;
        for path in [existing, link] {
            self.confine_parent(path).await?;
        }
        match self.look(existing).await? {
            None => return Err(not_there("link to", existing)),
            Some(found) if found.is_directory() => return Err(is_a_folder("link to", existing)),
            Some(_) => {}
        }
        let (from, to) = (wire_path(existing), wire_path(link));
        let ticket = self.client.extended(HARDLINK, |request| request.string(&from).string(&to));
        let Err(failure) = self.client.done(ticket).await else { return Ok(()) };
        if failure.is_refusal() && self.look(link).await?.is_some() {
            return Err(tree::exists("make link", link));
        }
        Err(self.not_put("make link", link, failure).await)
    }

    /// Waits for what was written to a file to be on the disk.
    pub(super) async fn sync(&mut self, path: &RemotePath) -> Result<(), Error> {
        self.needs(FSYNC)?;
        let place = self.ask_where(path).await?;
        let wire = wire_path(path);
        let ticket = self
            .client
            .request(kind::OPEN, |request| request.string(&wire).u32(open::READ).attributes(&Attributes::default()));
        let inside = self.is_inside(place, path).await;
        let handle = self.client.handle(ticket).await;
        let attempt = format!("sync {path}");
        let handle = match (inside, handle) {
            (Ok(()), Ok(handle)) => handle,
            (Ok(()), Err(failure)) if failure.is_not_found() => return Err(not_there("sync", path)),
            (Ok(()), Err(failure)) => return Err(self.client.error(&attempt, failure)),
            (Err(error), handle) => {
                if let Ok(handle) = handle {
                    self.close(&handle).await;
                }
                return Err(error);
            }
        };
        let ticket = self.client.extended(FSYNC, |request| request.string(&handle));
        let synced = self.client.done(ticket).await;
        self.close(&handle).await;
        synced.map_err(|failure| self.client.error(&attempt, failure))
    }

    /// Deletes what is at a path if it is of a kind.
    pub(super) async fn delete_only(&mut self, path: &RemotePath, kind: EntryKind) -> Result<(), Error> {
        let found = self.look(path).await?.ok_or_else(|| not_there("delete", path))?;
        if entry_kind(&found) != kind {
            let what = match kind {
                EntryKind::File => "file",
                EntryKind::Directory => "folder",
                EntryKind::Symlink => "symbolic link",
                EntryKind::Other => "special file",
            };
            return Err(Error::new(ErrorKind::Conflict, format!("cannot delete {path}: it is no {what}")));
        }
        self.delete(path).await
    }

    /// Deletes whatever is at a path with all that is in it. Links are deleted, never followed.
    pub(super) async fn delete_all(&mut self, path: &RemotePath) -> Result<(), Error> {
        let found = self.look(path).await?.ok_or_else(|| not_there("delete", path))?;
        if found.is_directory() { self.delete_folder(path, 0).await } else { self.delete(path).await }
    }

    async fn delete_folder(&mut self, path: &RemotePath, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::new(ErrorKind::TooLarge, format!("cannot delete {path}: it is too deep")));
        }
        let handle = self.open_folder(path).await?;
        let mut folders = Vec::new();
        let mut deletes = VecDeque::new();
        let mut failed = None;
        while failed.is_none() {
            let names = match self.next_names(&handle).await {
                Ok(Some(names)) => names,
                Ok(None) => break,
                Err(failure) => {
                    failed = Some(self.client.error(&format!("list {path}"), failure));
                    break;
                }
            };
            for info in names.iter().filter_map(|name| info_of(path, name)) {
                if info.kind == EntryKind::Directory {
                    folders.push(info.path);
                } else {
                    let ticket = self.ask(kind::REMOVE, &info.path);
                    deletes.push_back((ticket, info.path));
                }
            }
            while deletes.len() > DELETES_AHEAD_MAX {
                failed = failed.or(self.deleted(&mut deletes).await);
            }
        }
        while !deletes.is_empty() {
            failed = failed.or(self.deleted(&mut deletes).await);
        }
        self.close(&handle).await;
        if let Some(error) = failed {
            return Err(error);
        }
        for folder in folders {
            Box::pin(self.delete_folder(&folder, depth + 1)).await?;
        }
        self.delete(path).await
    }

    async fn deleted(&mut self, deletes: &mut VecDeque<(Ticket, RemotePath)>) -> Option<Error> {
        let (ticket, path) = deletes.pop_front()?;
        match self.client.done(ticket).await {
            // Somebody else was faster.
            Err(failure) if !failure.is_not_found() => Some(self.client.error(&format!("delete {path}"), failure)),
            _ => None,
        }
    }
}

/// A checksum that a server told; `None` for what is none, which is as good as none.
fn read_checksum(reply: Bytes) -> Option<Checksum> {
    let mut fields = Fields(reply);
    let mut name = fields.string().ok()?;
    if name == "check-file" {
        // As a later draft has it (draft-galb-filexfer-extensions-00).
        name = fields.string().ok()?;
    }
    let (_, algorithm) = *CHECKSUMS.iter().find(|(known, _)| name == *known)?;
    let bytes = match algorithm {
        ChecksumAlgorithm::Sha256 => 32,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Md5 => 16,
        ChecksumAlgorithm::Crc32 => 4,
        ChecksumAlgorithm::Dropbox => return None,
    };
    (fields.0.len() == bytes).then(|| Checksum { algorithm, value: hexadecimal(&fields.0) })
}

fn info_of(folder: &RemotePath, name: &Name) -> Option<Info> {
    if tree::is_self_or_parent(name) {
        return None;
    }
    match folder.join(&name_of(&name.name)) {
        Ok(path) => Some(Info::new(path, &name.attributes)),
        Err(_) => {
            tracing::warn!(%folder, name = super::wire::printable(&name.name), "a name is left out of a listing");
            None
        }
    }
}
