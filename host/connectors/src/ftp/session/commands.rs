//! Which commands the server of a session knows, and what is asked of files and folders by them.
//!
//! Many servers lack many commands: each question here is asked in the best way that its server has.

use std::time::SystemTime;

use super::confine::Nature;
use super::{Answer, Answered, Open, Session};
use crate::backend::{Checksum, Entry, EntryKind, Facts};
use crate::error::{Error, ErrorKind};
use crate::ftp::hashes;
use crate::ftp::list::{Form, Lines};
use crate::ftp::listing::{self, Line, Listed};
use crate::ftp::reply::Reply;
use crate::path::RemotePath;

/// What one fact about a server may take in a log line or an answer.
const FACT_CHARS_MAX: usize = 500;

/// The permissions of a symbolic link on Linux.
pub(super) const LINK_MODE: u32 = 0o777;

/// What the server told in reply to `FEAT` (RFC 2389) and `SYST`.
#[derive(Default)]
pub(super) struct Abilities {
    /// As the server lists them.
    features: Vec<String>,
    /// `MLST` and `MLSD` (RFC 3659, section 7).
    pub(super) machine_listings: bool,
    /// `LIST` takes the options of `ls`; asked for with the first such listing.
    unix_options: Option<bool>,
    /// What the server says it is, where it was asked.
    system: Option<String>,
}

impl Abilities {
    fn has(&self, name: &str) -> bool {
        self.features
            .iter()
            .any(|feature| feature.split([' ', ';']).next().is_some_and(|word| word.eq_ignore_ascii_case(name)))
    }
}

impl Session {
    /// What the server can do. It is asked once and not with the login, for a plain transfer need not know.
    pub(super) async fn abilities(&mut self) -> Result<&mut Abilities, Error> {
        if self.can.is_none() {
            self.can = Some(self.ask_abilities().await?);
        }
        Ok(self.can.get_or_insert_default())
    }

    async fn ask_abilities(&mut self) -> Result<Abilities, Error> {
        let limit = self.dialer.read_timeout;
        let mut can = Abilities::default();
        let features = self.command_within(limit, "FEAT").await?;
        if features.is_positive() {
            can.features = features.features();
        }
        can.machine_listings = can.has("MLST") || can.has("MLSD");
        if can.has("UTF8") {
            // Many servers speak UTF-8 in any case and refuse the option (RFC 2640 has none); either is fine.
            let option = if self.dialer.config.encoding.is_utf8() { "OPTS UTF8 ON" } else { "OPTS UTF8 OFF" };
            self.command_within(limit, option).await?;
        }
        Ok(can)
    }

    /// Whether `LIST` takes the options of `ls`, by what the server says it is.
    async fn takes_unix_options(&mut self) -> Result<bool, Error> {
        if let Some(known) = self.abilities().await?.unix_options {
            return Ok(known);
        }
        let system = self.command("SYST").await?;
        let can = self.abilities().await?;
        can.system = system.is_positive().then(|| system.argument().unwrap_or_default().to_owned());
        let is_unix = system.text().to_ascii_uppercase().contains("UNIX");
        can.unix_options = Some(is_unix);
        Ok(is_unix)
    }

    /// Sees to it that the server knows how names are written, before one is that it could misread.
    pub(super) async fn agree_on(&mut self, text: &str) -> Result<(), Error> {
        if !text.is_ascii() {
            self.abilities().await?;
        }
        Ok(())
    }

    /// What is at `path`; `None` when nothing is, or nothing that this user may see.
    pub(in crate::ftp) async fn stat(&mut self, path: &RemotePath) -> Result<Option<Entry>, Error> {
        self.confine_parent(path).await?;
        if self.abilities().await?.machine_listings {
            let reply = self.command(&format!("MLST {path}")).await?;
            match reply.code {
                200..=299 => {
                    let Some(told) = self.facts(&reply) else {
                        return Err(self.refused(&format!("look at {path}: its answer to MLST tells nothing"), &reply));
                    };
                    let is_link = self.is_link_in_disguise(path, &told).await?;
                    let told = told.at(path.clone());
                    return Ok(Some(match is_link {
                        true => Entry { kind: EntryKind::Symlink, size: None, ..told },
                        false => told,
                    }));
                }
                500 | 502 | 504 => self.abilities().await?.machine_listings = false,
                _ if reply.is_missing() && !reply.speaks_of_permission() => return Ok(None),
                _ => return Err(self.refused(&format!("look at {path}"), &reply)),
            }
        }
        match self.nature_in_doubt(path).await? {
            Some(Nature::Missing) => Ok(None),
            Some(Nature::Link | Nature::Unclear) => Ok(Some(bare(path, EntryKind::Symlink))),
            None | Some(Nature::Plain | Nature::Folder) => self.stat_by_commands(path).await,
        }
    }

    pub(super) fn facts(&self, reply: &Reply) -> Option<Listed> {
        let lines = reply.lines(self.dialer.config.encoding);
        lines.iter().find_map(|line| listing::facts(line))
    }

    /// Whether what `MLST` calls a file is a link to one: ProFTPD tells the size and the permissions of the link, which on
    /// Linux are always these, and `SIZE` follows it.
    async fn is_link_in_disguise(&mut self, path: &RemotePath, told: &Listed) -> Result<bool, Error> {
        if told.kind != EntryKind::File || told.mode != Some(LINK_MODE) {
            return Ok(false);
        }
        Ok(self.size(path).await?.is_some_and(|size| told.size != Some(size)))
    }

    /// What has arrived of a file that was just written, as far as the server tells, in as few commands as can be.
    pub(in crate::ftp) async fn written(&mut self, path: &RemotePath) -> Result<Entry, Error> {
        // Whoever does not know it says so, and is asked otherwise.
        if self.can.as_ref().is_none_or(|can| can.machine_listings) {
            let reply = self.command(&format!("MLST {path}")).await?;
            let told = if reply.is_positive() { self.facts(&reply) } else { None };
            if let Some(listed) = told.filter(|listed| listed.size.is_some()) {
                return Ok(listed.at(path.clone()));
            }
            if matches!(reply.code, 500 | 502 | 504) {
                self.abilities().await?.machine_listings = false;
            }
        }
        let size = self.size(path).await?;
        let modified = self.modified(path).await?;
        Ok(Entry { size, modified, ..bare(path, EntryKind::File) })
    }

    /// For servers without `MLST`. A link looks like what it leads to, so that must be inside.
    pub(in crate::ftp) async fn stat_by_commands(&mut self, path: &RemotePath) -> Result<Option<Entry>, Error> {
        if self.command(&format!("CWD {path}")).await?.is_positive() {
            return Ok(Some(bare(path, EntryKind::Directory)));
        }
        let mut found = match self.size(path).await? {
            Some(size) => Entry { size: Some(size), ..bare(path, EntryKind::File) },
            None => match self.find_in_parent(path).await? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if found.kind == EntryKind::File {
            found.modified = self.modified(path).await?.or(found.modified);
        }
        Ok(Some(found))
    }

    /// The size by `SIZE` (RFC 3659, section 4); `None` when the server does not tell it.
    pub(in crate::ftp) async fn size(&mut self, path: &RemotePath) -> Result<Option<u64>, Error> {
        let reply = self.command(&format!("SIZE {path}")).await?;
        Ok(if reply.code == 213 { reply.argument().and_then(|size| size.parse().ok()) } else { None })
    }

    /// The time of the last change by `MDTM` (RFC 3659, section 3); `None` when the server does not tell it.
    async fn modified(&mut self, path: &RemotePath) -> Result<Option<SystemTime>, Error> {
        let reply = self.command(&format!("MDTM {path}")).await?;
        Ok(if reply.code == 213 { reply.argument().and_then(listing::timestamp) } else { None })
    }

    async fn find_in_parent(&mut self, path: &RemotePath) -> Result<Option<Entry>, Error> {
        let Some(parent) = path.parent() else { return Ok(None) };
        let Ok(mut lines) = self.open_listing(&parent).await? else { return Ok(None) };
        let mut found = None;
        while let Some(line) = lines.next(self.dialer.read_timeout).await? {
            if let Line::Entry(listed) = lines.read(&line)
                && listed.name == path.name()
            {
                found = Some(listed.at(path.clone()));
            }
        }
        match self.finish(lines.into_transfer()).await? {
            Ok(_) => Ok(found),
            Err(reply) => Err(self.refused(&format!("list {parent}"), &reply)),
        }
    }

    /// Opens the listing of a folder. Refused when it is not a folder or cannot be listed.
    pub(in crate::ftp) async fn open_listing(&mut self, folder: &RemotePath) -> Answer<Lines> {
        self.confine(folder).await?;
        if self.abilities().await?.machine_listings {
            match self.open(Open::Lines { command: &format!("MLSD {folder}") }).await? {
                Ok(transfer) => return Ok(Ok(Lines::new(transfer, Form::Machine, self.encoding()))),
                Err(reply) if matches!(reply.code, 500 | 502 | 504) => {
                    self.abilities().await?.machine_listings = false;
                }
                Err(reply) => return Ok(Err(reply)),
            }
        }
        // LIST takes patterns and options in its argument, so the folder is entered instead.
        let entered = self.command(&format!("CWD {folder}")).await?;
        if !entered.is_positive() {
            return Ok(Err(entered));
        }
        self.open_human_listing_here().await
    }

    /// Opens the listing of the folder that was entered, as it is made for people: it tells where links lead.
    pub(super) async fn open_human_listing_here(&mut self) -> Answer<Lines> {
        let encoding = self.encoding();
        if self.takes_unix_options().await? {
            match self.open(Open::Lines { command: "LIST -a ." }).await? {
                Ok(transfer) => return Ok(Ok(Lines::new(transfer, Form::Human, encoding))),
                Err(_) => self.abilities().await?.unix_options = Some(false),
            }
        }
        let opened = self.open(Open::Lines { command: "LIST" }).await?;
        Ok(opened.map(|transfer| Lines::new(transfer, Form::Human, encoding)))
    }

    /// `RNFR` and `RNTO`.
    pub(in crate::ftp) async fn rename(&mut self, source: &RemotePath, target: &RemotePath) -> Answer<()> {
        // Nothing may come between the two commands.
        self.agree_on(target.as_str()).await?;
        let from = self.command(&format!("RNFR {source}")).await?;
        if from.code != 350 {
            return Ok(Err(from));
        }
        let to = self.command(&format!("RNTO {target}")).await?;
        Ok(if to.is_positive() { Ok(()) } else { Err(to) })
    }

    /// Sets the time of the last change: by `MFMT` (draft-somers-ftp-mfxx), or by the `MDTM` with a time that some
    /// servers take instead (vsftpd, Serv-U). `None` when the server has neither.
    pub(in crate::ftp) async fn set_modified(
        &mut self,
        path: &RemotePath,
        time: SystemTime,
    ) -> Result<Option<Answered>, Error> {
        let Some(stamp) = listing::time_stamp(time) else {
            return Err(Error::new(ErrorKind::Invalid, format!("cannot set the time of {path}: FTP cannot write it")));
        };
        let can = self.abilities().await?;
        let (has_mfmt, has_mdtm) = (can.has("MFMT"), can.has("MDTM"));
        if has_mfmt {
            let reply = self.command(&format!("MFMT {stamp} {path}")).await?;
            return Ok(Some(if reply.is_positive() { Ok(()) } else { Err(reply) }));
        }
        if !has_mdtm {
            return Ok(None);
        }
        let reply = self.command(&format!("MDTM {stamp} {path}")).await?;
        // Others take it all for a name, of which they may even know the time.
        let now = self.command(&format!("MDTM {path}")).await?;
        let is_set = reply.is_positive() && now.argument().is_some_and(|time| time.starts_with(&stamp));
        Ok(is_set.then_some(Ok(())))
    }

    /// A checksum that the server computes, which may take it long.
    pub(in crate::ftp) async fn checksum(&mut self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let Some(request) = hashes::best(&self.abilities().await?.features) else { return Ok(None) };
        if let Some(option) = request.option
            && !self.command(&format!("OPTS HASH {option}")).await?.is_positive()
        {
            return Ok(None);
        }
        let reply = self.command(&format!("{} {path}", request.verb)).await?;
        if !reply.is_positive() {
            return Err(self.refused(&format!("compute the checksum of {path}"), &reply));
        }
        let value = reply.hash(request.digits);
        Ok(value.map(|value| Checksum { algorithm: request.algorithm, value }))
    }

    /// Why something could not be put at `path`: by what its folder is, or else what the server said.
    pub(in crate::ftp) async fn not_put(&mut self, operation: &str, path: &RemotePath, reply: &Reply) -> Error {
        let Some(folder) = path.parent() else { return self.refused(&format!("{operation} {path}"), reply) };
        let (kind, what) = match self.stat(&folder).await {
            Ok(None) => (ErrorKind::NotFound, "is not there"),
            Ok(Some(entry)) if entry.kind == EntryKind::File => (ErrorKind::Conflict, "is not a folder"),
            _ => return self.refused(&format!("{operation} {path}"), reply),
        };
        Error::new(kind, format!("cannot {operation} {path}: {folder} {what}"))
    }

    /// Whether the server lists a feature in reply to `FEAT`.
    pub(in crate::ftp) async fn has(&mut self, feature: &str) -> Result<bool, Error> {
        Ok(self.features().await?.iter().any(|listed| listed.eq_ignore_ascii_case(feature)))
    }

    /// What the server lists in reply to `FEAT`.
    pub(in crate::ftp) async fn features(&mut self) -> Result<&[String], Error> {
        Ok(&self.abilities().await?.features)
    }

    /// What is worth knowing of the server.
    pub(in crate::ftp) async fn about(&mut self) -> Result<Facts, Error> {
        if !self.abilities().await?.machine_listings {
            self.takes_unix_options().await?;
        }
        let can = self.abilities().await?;
        let system = can.system.clone();
        let features: Vec<_> = can.features.iter().filter_map(|feature| feature.split(' ').next()).collect();
        let features = features.join(" ");
        let mut facts = vec![("address", self.data_port.peer())];
        let greeting = self.stream.get_welcome_msg().unwrap_or_default();
        // The last line has the server's name, if any has; the code stands before it.
        let name = greeting.lines().next_back().and_then(|line| line.get(4..)).unwrap_or_default();
        facts.push(("server", name.chars().filter(|character| !character.is_control()).take(FACT_CHARS_MAX).collect()));
        if let Some(system) = system {
            facts.push(("system", system.chars().take(FACT_CHARS_MAX).collect()));
        }
        if let Some(tls) = self.handshakes.as_ref().and_then(|handshakes| handshakes.protocol()) {
            facts.push(("tls", tls));
        }
        facts.push(("features", features.chars().take(FACT_CHARS_MAX).collect()));
        Ok(facts)
    }
}

/// An entry of which only its kind is known.
fn bare(path: &RemotePath, kind: EntryKind) -> Entry {
    Entry { path: path.clone(), kind, size: None, modified: None, mode: None, revision: None }
}
