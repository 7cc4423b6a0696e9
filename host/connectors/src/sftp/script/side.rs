//! The two sides of a script, the server and the local one: looking, and what a word stands for there.
//!
//! Knows no command.

use futures::TryStreamExt;

use super::line::{Word, invalid, resolve, step_to};
use crate::Remote;
use crate::backend::EntryKind;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use crate::sftp::{Handle, Info};

/// Paths that one word stands for, and entries of a folder that are told: some fifty megabytes.
const MATCHES_MAX: usize = 100_000;

/// Files that commands work on.
#[derive(Clone)]
pub(super) enum Files {
    Server(Handle),
    /// A folder of a connection, which they do not leave.
    Local {
        remote: Remote,
        folder: RemotePath,
    },
}

/// Files, and the folder that paths begin in.
#[derive(Clone)]
pub(super) struct Side {
    pub(super) files: Files,
    pub(super) current: RemotePath,
}

/// Something that a word stands for.
pub(super) struct Match {
    /// As it would have been typed.
    pub(super) typed: String,
    pub(super) path: RemotePath,
    /// What was told of it, where it was found by a pattern.
    pub(super) info: Option<Info>,
}

/// Where something is copied to.
pub(super) enum Target {
    /// Into a folder that is there.
    Folder(RemotePath),
    /// To a name that a folder can get, but no file: it was written with `/` at its end.
    NewFolder(RemotePath),
    /// To this name.
    Name(RemotePath),
}

impl Files {
    /// The connection that they are on.
    pub(super) fn remote(&self) -> &Remote {
        match self {
            Self::Server(handle) => handle.remote(),
            Self::Local { remote, .. } => remote,
        }
    }

    /// A path as one of the connection.
    pub(super) fn on(&self, path: &RemotePath) -> RemotePath {
        match self {
            Self::Server(handle) => handle.on_the_connection(path),
            Self::Local { folder, .. } => path.below(folder),
        }
    }

    /// What is at a path; a symbolic link is told as that.
    pub(super) async fn info(&self, path: &RemotePath) -> Result<Info, Error> {
        match self {
            Self::Server(handle) => handle.get_info(path).await,
            Self::Local { remote, .. } => Ok(Info::of(path, &remote.stat(&self.on(path)).await?)),
        }
    }

    /// What a path leads to.
    pub(super) async fn follow(&self, path: &RemotePath) -> Result<Info, Error> {
        match self {
            Self::Server(handle) => handle.follow_info(path).await,
            Self::Local { remote, .. } => Ok(Info::of(path, &remote.follow(&self.on(path)).await?)),
        }
    }

    /// Whether a path leads to a folder.
    pub(super) async fn is_folder(&self, info: &Info) -> bool {
        match info.kind {
            EntryKind::Symlink => self.follow(&info.path).await.is_ok_and(|info| info.kind == EntryKind::Directory),
            kind => kind == EntryKind::Directory,
        }
    }

    /// What a symbolic link says, where that can be told.
    pub(super) async fn link(&self, info: &Info) -> Option<String> {
        match self {
            Self::Server(handle) if info.kind == EntryKind::Symlink => handle.read_link(&info.path).await.ok(),
            _ => None,
        }
    }

    /// The entries of a folder whose names are meant.
    pub(super) async fn list(
        &self,
        path: &RemotePath,
        is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<Info>, Error> {
        let (remote, folder) = match self {
            Self::Server(handle) => return handle.list_where(path, MATCHES_MAX, is_meant).await,
            Self::Local { remote, .. } => (remote, self.on(path)),
        };
        let mut pages = std::pin::pin!(remote.list_pages(&folder).await?);
        let mut infos = Vec::new();
        while let Some(page) = pages.try_next().await? {
            for entry in page.iter().filter(|entry| is_meant(entry.path.name())) {
                infos.push(Info::of(&path.join(entry.path.name())?, entry));
            }
            if infos.len() > MATCHES_MAX {
                return Err(too_many(&format!("in {path}")));
            }
        }
        Ok(infos)
    }
}

impl Side {
    pub(super) fn path(&self, word: &Word) -> Result<RemotePath, Error> {
        resolve(&self.current, &word.text())
    }

    /// What a word stands for, sorted by name: itself, or what a pattern fits.
    pub(super) async fn matches(&self, word: &Word) -> Result<Vec<Match>, Error> {
        if !word.is_pattern() {
            return Ok(vec![Match { typed: word.text(), path: self.path(word)?, info: None }]);
        }
        let components = word.components();
        let first = if word.is_absolute() { ("/", RemotePath::root()) } else { ("", self.current.clone()) };
        let mut found = vec![Match { typed: first.0.to_owned(), path: first.1, info: None }];
        for (index, component) in components.iter().enumerate() {
            let is_last = index + 1 == components.len();
            let mut next = Vec::new();
            for Match { typed, path: folder, .. } in &found {
                let join = |name: &str| match typed.as_str() {
                    "" | "/" => format!("{typed}{name}"),
                    _ => format!("{typed}/{name}"),
                };
                if !component.is_pattern() {
                    let text = component.text();
                    next.push(Match { typed: join(&text), path: step_to(folder, &text)?, info: None });
                    continue;
                }
                let pattern = component.clone();
                let mut infos = match self.files.list(folder, move |name| pattern.fits(name)).await {
                    Ok(infos) => infos,
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => continue,
                    Err(error) => return Err(error),
                };
                infos.retain(|info| is_last || matches!(info.kind, EntryKind::Directory | EntryKind::Symlink));
                infos.sort_by(|info, other| info.path.name().cmp(other.path.name()));
                next.extend(infos.into_iter().map(|info| Match {
                    typed: join(info.path.name()),
                    path: info.path.clone(),
                    info: Some(info),
                }));
                if next.len() > MATCHES_MAX {
                    return Err(too_many(&format!("like {}", word.text())));
                }
            }
            found = next;
        }
        if found.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("nothing is like {}", word.text())));
        }
        Ok(found)
    }

    /// What several words stand for; patterns that fit nothing do not matter beside one that does.
    pub(super) async fn matches_of_any(&self, words: &[Word]) -> Result<Vec<Match>, Error> {
        let mut found = Vec::new();
        let mut missing = Ok(());
        for word in words {
            match self.matches(word).await {
                Ok(matches) => found.extend(matches),
                Err(error) if error.kind() == ErrorKind::NotFound => missing = Err(error),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() { missing.map(|()| found) } else { Ok(found) }
    }

    /// Where a word says that something is copied to; without one, into the current folder.
    pub(super) async fn target(&self, word: Option<&Word>) -> Result<Target, Error> {
        let Some(word) = word else { return Ok(Target::Folder(self.current.clone())) };
        let path = self.path(word)?;
        match self.files.follow(&path).await {
            Ok(info) if info.kind == EntryKind::Directory => Ok(Target::Folder(path)),
            Ok(_) if word.ends_with_slash() => {
                Err(Error::new(ErrorKind::Conflict, format!("cannot copy to {path}/: it is no folder")))
            }
            Err(error) if error.kind() == ErrorKind::NotFound && word.ends_with_slash() => Ok(Target::NewFolder(path)),
            Ok(_) => Ok(Target::Name(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Target::Name(path)),
            Err(error) => Err(error),
        }
    }
}

impl Target {
    /// Where one of the things that are copied goes. `name` is its last part; without one, its content is meant.
    pub(super) fn of(&self, name: Option<&str>, is_folder: bool) -> Result<RemotePath, Error> {
        match (self, name) {
            (Self::Folder(folder), Some(name)) => folder.join(name),
            (Self::NewFolder(path), _) if !is_folder => {
                Err(Error::new(ErrorKind::NotFound, format!("cannot copy to {path}/: there is no such folder")))
            }
            (Self::Folder(path) | Self::NewFolder(path) | Self::Name(path), _) => Ok(path.clone()),
        }
    }

    /// Fails where only one thing can go.
    pub(super) fn takes_several(&self) -> Result<(), Error> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::NewFolder(path) | Self::Name(path) => {
                Err(invalid(format!("several files need a folder to go to, and {path} is none")))
            }
        }
    }
}

fn too_many(which: &str) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("there are more than {MATCHES_MAX} entries {which}; name fewer by a pattern"),
    )
}
