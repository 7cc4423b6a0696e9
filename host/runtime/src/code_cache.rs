//! Compiled code on disk, so that a restart compiles nothing.
//!
//! An entry is named by the content hash of the component and by what the engine demands of compiled code, and carries
//! an authentication code made with a key that lies in the same folder. The folder belongs to this host alone; an
//! entry that is corrupt, or that another host wrote, is deleted and made anew. Loading compiled code is the one
//! unsafe thing that this product does, and it is here.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
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
const TAG_SUFFIX: &str = "tag";

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
        let code = self.path(content, CODE_SUFFIX);
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
        let code = engine.precompile_component(component)?;
        self.store(content, &code).map_err(|error| {
            wasmtime::Error::msg(format!("the compiled code cannot be written to {}: {error}", self.folder.display()))
        })?;
        let loaded = self.load_verified(engine, content, &self.path(content, CODE_SUFFIX));
        self.evict();
        loaded
    }

    fn store(&self, content: &ContentHash, code: &[u8]) -> io::Result<()> {
        // The tag comes last: code without a tag is not loaded.
        self.remove(content);
        self.write_whole(&self.path(content, CODE_SUFFIX), code)?;
        self.write_whole(&self.path(content, TAG_SUFFIX), &self.tag(content, code).finalize().into_bytes())
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{:016x}.part", rand::random::<u64>()));
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

    fn load_verified(
        &self,
        engine: &Engine,
        content: &ContentHash,
        path: &Path,
    ) -> Result<Component, wasmtime::Error> {
        let code = fs::read(path)?;
        let tag = fs::read(self.path(content, TAG_SUFFIX))?;
        self.tag(content, &code)
            .verify_slice(&tag)
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

    fn path(&self, content: &ContentHash, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}-{}.{suffix}", content.as_str(), self.compatibility))
    }

    fn remove(&self, content: &ContentHash) {
        let _ = fs::remove_file(self.path(content, TAG_SUFFIX));
        let _ = fs::remove_file(self.path(content, CODE_SUFFIX));
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
            let _ = fs::remove_file(path.with_extension(TAG_SUFFIX));
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

fn read_or_make_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let fresh: [u8; KEY_BYTES] = rand::random();
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(&fresh)?;
            file.sync_all()?;
            Ok(fresh)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut key = [0; KEY_BYTES];
            match File::open(path)?.read_exact(&mut key) {
                Ok(()) => Ok(key),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    // A host that died between making the file and writing it. Entries made without a key are none.
                    fs::write(path, fresh)?;
                    Ok(fresh)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}
