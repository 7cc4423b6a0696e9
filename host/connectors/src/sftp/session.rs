//! An open session: the connection, and the conversation in SFTP over it.
//!
//! It is used by one operation at a time, which has it for its own (`pool`). Knows neither how a session is opened nor
//! what is done with it.

use std::net::Shutdown;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use russh::client::Handle;
use socket2::Socket;

use super::dialer::Facts;
use super::ssh::Verifier;
use super::tree::Tree;
use crate::idle;

pub(super) struct Session {
    tree: Tree,
    connection: Handle<Verifier>,
    facts: Facts,
    began: Instant,
    socket: Closing,
}

impl Session {
    pub(super) fn new(tree: Tree, connection: Handle<Verifier>, facts: Facts, socket: Closing) -> Self {
        Self { tree, connection, facts, began: Instant::now(), socket }
    }

    /// What is known of the server since the session was opened.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether another operation may use it, as far as is known without asking the server.
    pub(super) fn is_usable(&self) -> bool {
        self.tree.client.is_in_step() && !self.connection.is_closed() && !self.socket.is_closed()
    }
}

impl idle::Session for Session {
    fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Dropping it closes it.
    async fn close(self) {}
}

impl Deref for Session {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }
}

/// A second hold on a socket, which is shut down when this is dropped: the library that speaks SSH would otherwise go on
/// waiting for a server that takes nothing.
pub(super) struct Closing(pub(super) Socket);

impl Closing {
    /// Whether the other side has closed or reset the connection, as far as is known here; nothing is waited for.
    fn is_closed(&self) -> bool {
        match self.0.peek(&mut [std::mem::MaybeUninit::uninit()]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Refused only when it is closed already.
        let _closed = self.0.shutdown(Shutdown::Both);
    }
}
