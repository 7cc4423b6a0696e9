//! The channel of an SSH connection that SFTP is spoken over, as bytes in both directions.
//!
//! The connection delivers what arrives into a bounded queue, and waits while that is full: so whoever sends takes what
//! arrives at the same time. Knows no packet of SFTP.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use russh::client::Msg;
use russh::{Channel as Ssh, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};

/// Bytes that may arrive while something is sent: twice what is asked for at once. Only a server that sends what nobody
/// asked for gets so far.
const ARRIVED_BYTES_MAX: usize = 2 * super::transfer::IN_FLIGHT_BYTES_MAX;

pub(super) struct Channel {
    incoming: ChannelReadHalf,
    outgoing: ChannelWriteHalf<Msg>,
}

impl Channel {
    /// Starts a subsystem at the other end (RFC 4254, section 6.5); `false` when the server has none for the user.
    pub(super) async fn start(mut ssh: Ssh<Msg>, subsystem: &str) -> Result<Option<Self>, russh::Error> {
        ssh.request_subsystem(true, subsystem).await?;
        loop {
            match ssh.wait().await {
                Some(ChannelMsg::Success) => {
                    let (incoming, outgoing) = ssh.split();
                    return Ok(Some(Self { incoming, outgoing }));
                }
                Some(ChannelMsg::Failure) => return Ok(None),
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return Err(russh::Error::HUP),
                Some(_) => {}
            }
        }
    }

    /// The next bytes that the server sent. Nothing is lost when this is dropped.
    pub(super) async fn receive(&mut self) -> io::Result<Bytes> {
        next(&mut self.incoming).await
    }

    /// Sends; what arrives meanwhile is put behind `arrived`. When this is dropped before its end, a part may be sent.
    pub(super) async fn send(&mut self, bytes: Bytes, arrived: &mut BytesMut) -> io::Result<()> {
        let mut sending = pin!(self.outgoing.data_bytes(bytes));
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.map_err(io::Error::other),
                bytes = next(&mut self.incoming) => arrived.extend_from_slice(&bytes?),
            }
            if arrived.len() > ARRIVED_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the server sends more than it was asked for"));
            }
        }
    }
}

async fn next(incoming: &mut ChannelReadHalf) -> io::Result<Bytes> {
    loop {
        match incoming.wait().await {
            Some(ChannelMsg::Data { data }) => return Ok(data),
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
            // What the server's program says besides, and how far its window is open.
            Some(_) => {}
        }
    }
}
