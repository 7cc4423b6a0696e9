//! Compiled code on disk, so that a restart compiles nothing.
//!
//! An entry is one file, named by the content hash of the component and by what the engine demands of compiled code. It
//! ends with an authentication code, made with a key that lies in the same folder; an entry that is corrupt is deleted
//! and made anew. Only the user who runs the host can write to the folder; several hosts of this user may share it,
//! because key and entries appear whole. Loading compiled code is the one unsafe thing that this product does, and it
//! is here.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::generation::ContentHash;

/// All entries together. When a new one exceeds it, the entries that were not used for longest go: some hundred
/// interpreted components, or some ten thousand small ones.
const CACHE_BYTES_MAX: u64 = 8 << 30;

/// The block of SHA-256, the longest key that HMAC uses as it is (RFC 2104, section 3).
const KEY_BYTES: usize = 64;
const KEY_FILE: &str = "key";
const CODE_SUFFIX: &str = "cwasm";

/// The authentication code at the end of an entry: the output of SHA-256.
const TAG_BYTES: usize = 32;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CodeCacheError {
    /// A file operation failed.
    #[error("cannot {action} {path} for compiled code")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else could put code there.
    #[error(
        "the folder for compiled code, {path}, {why}; whoever can write there can run code in this host: \
         run `chown $(id -u) {path} && chmod 700 {path}`, or choose another folder with `compiled` under [host]"
    )]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The folder of compiled code.
pub(crate) struct CodeCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    compatibility: String,
}

impl CodeCache {
    /// Opens the folder, making it if need be. Blocks.
    pub(crate) fn open(folder: &Path, engine: &Engine) -> Result<Self, CodeCacheError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| CodeCacheError::Io { action, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create", folder))?;
        let metadata = fs::metadata(folder).map_err(failed("inspect", folder))?;
        let not_private = |why: String| CodeCacheError::NotPrivate { path: folder.to_owned(), why };
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(not_private(format!("belongs to user {}", metadata.uid())));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(not_private(format!("has mode {:o}", metadata.mode() & 0o777)));
        }
        let key = read_or_make_key(&folder.join(KEY_FILE)).map_err(failed("read or write", &folder.join(KEY_FILE)))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compatibility = format!("{:016x}", hasher.finish());
        Ok(Self { folder: folder.to_owned(), key, compatibility })
    }

    /// The component with this content, if it was compiled before. Blocks for as long as reading the file takes.
    pub(crate) fn load(&self, engine: &Engine, content: &ContentHash) -> Option<Component> {
        let code = self.path(content);
        if !code.exists() {
            return None;
        }
        match self.load_verified(engine, content, &code) {
            Ok(component) => {
                // The time of last use, for the eviction. A file system without it evicts by age.
                if let Ok(file) = File::open(&code) {
                    let _ = file.set_modified(SystemTime::now());
                }
                Some(component)
            }
            Err(error) => {
                tracing::warn!(
                    path = %code.display(),
                    error = format!("{error:#}"),
                    "an entry of compiled code cannot be trusted: it is deleted, and the component compiled again"
                );
                self.remove(content);
                None
            }
        }
    }

    /// Compiles a component and keeps the code. Blocks for as long as the compiler takes.
    ///
    /// # Errors
    /// What the compiler finds wrong with the component, or what prevents the code from being stored.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        content: &ContentHash,
        component: &[u8],
    ) -> Result<Component, wasmtime::Error> {
        // Another service with the same content, or another host, may have compiled it while this one waited.
        if let Some(compiled) = self.load(engine, content) {
            return Ok(compiled);
        }
        let code = engine.precompile_component(component)?;
        self.store(content, code).map_err(|error| {
            wasmtime::Error::msg(format!("the compiled code cannot be written to {}: {error}", self.folder.display()))
        })?;
        let loaded = self.load_verified(engine, content, &self.path(content));
        self.evict();
        loaded
    }

    fn store(&self, content: &ContentHash, mut code: Vec<u8>) -> io::Result<()> {
        let tag = self.tag(content, &code).finalize().into_bytes();
        // Behind the code, where an ELF file may have anything: the file can be mapped as it is.
        code.extend_from_slice(&tag);
        self.write_whole(&self.path(content), &code)
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.folder.join(temporary_name());
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn load_verified(&self, engine: &Engine, content: &ContentHash, path: &Path) -> Result<Component, wasmtime::Error> {
        let entry = fs::read(path)?;
        let (code, tag) = entry
            .split_last_chunk::<TAG_BYTES>()
            .ok_or_else(|| wasmtime::Error::msg("it is shorter than an authentication code"))?;
        self.tag(content, code)
            .verify_slice(tag)
            .map_err(|_| wasmtime::Error::msg("its authentication code does not match"))?;
        load_compiled(engine, path)
    }

    fn tag(&self, content: &ContentHash, code: &[u8]) -> Hmac<Sha256> {
        let mut tag = Hmac::<Sha256>::new(&self.key.into());
        tag.update(content.as_str().as_bytes());
        tag.update(self.compatibility.as_bytes());
        tag.update(code);
        tag
    }

    fn path(&self, content: &ContentHash) -> PathBuf {
        self.folder.join(format!("{}-{}.{CODE_SUFFIX}", content.as_str(), self.compatibility))
    }

    fn remove(&self, content: &ContentHash) {
        let _ = fs::remove_file(self.path(content));
    }

    /// Deletes the entries that were not used for longest, until the rest fits. Code in use stays mapped.
    fn evict(&self) {
        let Ok(folder) = fs::read_dir(&self.folder) else { return };
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = folder
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let metadata = entry.metadata().ok()?;
                let path = entry.path();
                (path.extension()? == CODE_SUFFIX).then_some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        entries.sort();
        for (_, bytes, path) in entries {
            if total <= CACHE_BYTES_MAX {
                return;
            }
            let _ = fs::remove_file(path);
            total -= bytes;
        }
    }
}

#[expect(
    unsafe_code,
    reason = "compiled code is native code, so loading it is as safe as its origin: this host compiled it, into a \
              folder that only it can write, and its authentication code was verified just before"
)]
fn load_compiled(engine: &Engine, path: &Path) -> Result<Component, wasmtime::Error> {
    // SAFETY: see the reason above. The file is mapped, not copied, and never written in place: entries are replaced
    // by renaming.
    unsafe { Component::deserialize_file(engine, path) }
}

/// The key of the folder. Of several hosts that make one at once, the first one's counts for all: a key appears whole.
fn read_or_make_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let temporary = path.with_file_name(temporary_name());
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        file.write_all(&rand::random::<[u8; KEY_BYTES]>())?;
        file.sync_all()?;
        fs::hard_link(&temporary, path)
    });
    let _ = fs::remove_file(&temporary);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    read_key(path)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the key was deleted while it was made"))
}

/// The key, if there is one. One that is not whole is deleted: entries made with it are none.
fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    match fs::read(path) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => Ok(Some(key)),
            Err(_) => fs::remove_file(path).map(|()| None),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name that no entry has, for a file that is being written.
fn temporary_name() -> String {
    format!(".{:016x}.part", rand::random::<u64>())
}
