//! A small FTP server on loopback that misbehaves where a test asks for it: what real servers do only on bad days.
//!
//! Serves one flat folder from memory, by `EPSV` and `PASV`, without machine listings (`MLSD`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines, ReadHalf, WriteHalf,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A connection, encrypted or not.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What goes wrong; by default nothing.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Instead of the greeting; empty for silence.
    pub(crate) greeting: Option<&'static str>,
    /// Instead of the reply to the password.
    pub(crate) login: Option<&'static str>,
    /// The reply to `ACCT`, which is asked for after the password.
    pub(crate) account: Option<&'static str>,
    /// How `NOOP` is answered during a download.
    pub(crate) noop: Noop,
    /// A download sends a byte and waits, so often; then it goes on at once.
    pub(crate) slow_bytes: usize,
    /// Everything is encrypted, from the first byte on.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Data connections end without the end of TLS.
    pub(crate) no_close_notify: bool,
    /// The reply to `FEAT`, which is not known otherwise.
    pub(crate) features: Option<&'static str>,
    /// `MLST` is known.
    pub(crate) machine_facts: bool,
    /// `SIZE` is refused.
    pub(crate) no_size: bool,
    /// Instead of the reply to `EPSV`; `{port}` is the port.
    pub(crate) epsv: Option<&'static str>,
    /// The address in the reply to `PASV`, with commas.
    pub(crate) pasv_address: Option<&'static str>,
    /// A transfer is asked for, and nothing is said or sent.
    pub(crate) never_begins: bool,
    /// Bytes of a download that are sent; the rest never is.
    pub(crate) sent_max: Option<usize>,
    /// Instead of the reply after a download; empty for silence.
    pub(crate) after_download: Option<&'static str>,
    /// After the bytes of a download the data connection stays open.
    pub(crate) data_hangs: bool,
    /// After the bytes of a download everything is cut.
    pub(crate) is_cut: bool,
    /// Bytes of an upload that are kept.
    pub(crate) kept_max: Option<usize>,
    /// Instead of the reply after an upload.
    pub(crate) after_upload: Option<&'static str>,
    /// Instead of the lines of a listing.
    pub(crate) listing: Option<String>,
    /// The listing is repeated without end.
    pub(crate) is_listing_endless: bool,
    /// A rename does not replace.
    pub(crate) keeps_targets: bool,
    /// Said after so long without a command, before the connection is closed.
    pub(crate) farewell: Option<(Duration, &'static str)>,
    /// Commands of a connection that are answered; the next one closes it.
    pub(crate) commands_max: Option<usize>,
}

/// When the answer to a `NOOP` comes that is sent during a download.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Noop {
    #[default]
    AtOnce,
    AfterTheTransfer,
    Never,
}

/// How long a slow download waits between two bytes.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// What a test looks at afterwards.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Every command in the order of arrival, each with the number of its connection.
    pub(crate) commands: Vec<(usize, String)>,
    pub(crate) connections: usize,
}

pub(crate) struct FakeFtp {
    pub(crate) port: u16,
    pub(crate) state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl FakeFtp {
    pub(crate) async fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, faults) = (Arc::clone(&shared), faults.clone());
                tokio::spawn(async move {
                    let number = {
                        let mut state = state.lock().unwrap();
                        state.connections += 1;
                        state.connections
                    };
                    // Whatever ends a session, the client notices.
                    let _ended = Session::serve(stream, number, state, faults).await;
                });
            }
        });
        Self { port, state, accepting }
    }

    pub(crate) fn with_file(self, name: &str, content: &[u8]) -> Self {
        self.state.lock().unwrap().files.insert(name.to_owned(), content.to_vec());
        self
    }

    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().files.get(name).cloned()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().files.keys().cloned().collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// The commands of one connection, the first of which has the number 1.
    pub(crate) fn commands(&self, connection: usize) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.commands.iter().filter(|(number, _)| *number == connection).map(|(_, line)| line.clone()).collect()
    }
}

impl Drop for FakeFtp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Session {
    control: WriteHalf<Box<dyn Wire>>,
    state: Arc<Mutex<State>>,
    faults: Faults,
    data: Option<TcpListener>,
    offset: usize,
    rename_from: String,
}

impl Session {
    async fn serve(stream: TcpStream, number: usize, state: Arc<Mutex<State>>, faults: Faults) -> std::io::Result<()> {
        let (reader, control) = tokio::io::split(secured(stream, &faults).await?);
        let mut lines = BufReader::new(reader).lines();
        let mut session = Self { control, state, faults, data: None, offset: 0, rename_from: String::new() };
        session.say(session.faults.greeting.unwrap_or("220 ready")).await?;
        let mut answered = 0;
        loop {
            let line = match session.faults.farewell {
                None => lines.next_line().await?,
                Some((after, farewell)) => match tokio::time::timeout(after, lines.next_line()).await {
                    Ok(line) => line?,
                    Err(_) => return session.say(farewell).await,
                },
            };
            let Some(line) = line else { return Ok(()) };
            session.state.lock().unwrap().commands.push((number, line.clone()));
            if session.faults.commands_max.is_some_and(|max| answered >= max) && number == 1 {
                return Ok(());
            }
            answered += 1;
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            if verb == "RETR" && session.faults.slow_bytes > 0 {
                session.send_slowly(argument, number, &mut lines).await?;
                continue;
            }
            session.answer(verb, argument).await?;
            if session.faults.is_cut && verb == "RETR" {
                return Ok(());
            }
        }
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        self.control.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.control.flush().await
    }

    async fn answer(&mut self, verb: &str, argument: &str) -> std::io::Result<()> {
        let name = argument.trim_start_matches('/').to_owned();
        let found = self.state.lock().unwrap().files.get(&name).cloned();
        let missing = "550 no such file or directory";
        let reply = match verb {
            "USER" => "331 password?".to_owned(),
            "PASS" if self.faults.account.is_some() => "332 account?".to_owned(),
            "PASS" => self.faults.login.unwrap_or("230 welcome").to_owned(),
            "ACCT" => self.faults.account.unwrap_or("202 not needed").to_owned(),
            "TYPE" | "NOOP" | "PBSZ" | "PROT" => "200 fine".to_owned(),
            "FEAT" => self.faults.features.unwrap_or("502 not implemented").to_owned(),
            "OPTS" => "200 fine".to_owned(),
            "MLST" if self.faults.machine_facts => found.map_or(missing.to_owned(), |content| {
                format!("250-facts\r\n type=file;size={};modify=20260102030405; /{name}\r\n250 end", content.len())
            }),
            "SYST" => "215 UNIX Type: L8".to_owned(),
            "CWD" if name.is_empty() => "250 fine".to_owned(),
            "CWD" => missing.to_owned(),
            "SIZE" if self.faults.no_size => "502 not implemented".to_owned(),
            "SIZE" => found.map_or(missing.to_owned(), |content| format!("213 {}", content.len())),
            "MDTM" => found.map_or(missing.to_owned(), |_| "213 20260102030405".to_owned()),
            "REST" => {
                self.offset = argument.parse().unwrap();
                "350 go on".to_owned()
            }
            "EPSV" => {
                let port = self.listen().await?;
                self.faults.epsv.unwrap_or("229 entering (|||{port}|)").replace("{port}", &port.to_string())
            }
            "PASV" => {
                let [high, low] = self.listen().await?.to_be_bytes();
                let address = self.faults.pasv_address.unwrap_or("127,0,0,1");
                format!("227 entering ({address},{high},{low})")
            }
            "LIST" => return self.list().await,
            "RETR" => match found {
                Some(content) => return self.send(&content).await,
                None => missing.to_owned(),
            },
            "STOR" => return self.receive(name).await,
            "DELE" => match self.state.lock().unwrap().files.remove(&name) {
                Some(_) => "250 gone".to_owned(),
                None => missing.to_owned(),
            },
            "RNFR" => {
                self.rename_from = name;
                "350 to what?".to_owned()
            }
            "RNTO" if self.faults.keeps_targets && found.is_some() => "550 the file exists".to_owned(),
            "RNTO" => {
                let mut state = self.state.lock().unwrap();
                match state.files.remove(&self.rename_from) {
                    Some(content) => {
                        state.files.insert(name, content);
                        "250 renamed".to_owned()
                    }
                    None => missing.to_owned(),
                }
            }
            "QUIT" => "221 bye".to_owned(),
            _ => "502 not implemented".to_owned(),
        };
        self.say(&reply).await
    }

    async fn listen(&mut self) -> std::io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        self.data = Some(listener);
        Ok(port)
    }

    async fn accept(&mut self) -> std::io::Result<Box<dyn Wire>> {
        if self.faults.never_begins {
            std::future::pending::<()>().await;
        }
        self.say("150 here it comes").await?;
        secured(self.data.take().unwrap().accept().await?.0, &self.faults).await
    }

    async fn end(&mut self, mut data: Box<dyn Wire>) -> std::io::Result<()> {
        if self.faults.no_close_notify { data.flush().await } else { data.shutdown().await }
    }

    async fn send(&mut self, content: &[u8]) -> std::io::Result<()> {
        let mut data = self.accept().await?;
        let content = &content[std::mem::take(&mut self.offset).min(content.len())..];
        data.write_all(&content[..self.faults.sent_max.unwrap_or(usize::MAX).min(content.len())]).await?;
        if self.faults.data_hangs {
            std::future::pending::<()>().await;
        }
        self.end(data).await?;
        if self.faults.is_cut {
            return Ok(());
        }
        self.say(self.faults.after_download.unwrap_or("226 done")).await
    }

    /// A download during which commands are heard.
    async fn send_slowly(
        &mut self,
        argument: &str,
        number: usize,
        lines: &mut Lines<BufReader<ReadHalf<Box<dyn Wire>>>>,
    ) -> std::io::Result<()> {
        let content = self.state.lock().unwrap().files[argument.trim_start_matches('/')].clone();
        let mut data = self.accept().await?;
        let (slow, quick) = content.split_at(self.faults.slow_bytes);
        let mut owed = 0;
        for byte in slow {
            data.write_all(&[*byte]).await?;
            let pause = tokio::time::sleep(SLOW);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    line = lines.next_line() => {
                        let line = line?.unwrap();
                        self.state.lock().unwrap().commands.push((number, line));
                        match self.faults.noop {
                            Noop::AtOnce => self.say("200 still here").await?,
                            Noop::AfterTheTransfer => owed += 1,
                            Noop::Never => {}
                        }
                    }
                }
            }
        }
        data.write_all(quick).await?;
        self.end(data).await?;
        self.say("226 done").await?;
        for _ in 0..owed {
            self.say("200 still here").await?;
        }
        Ok(())
    }

    async fn receive(&mut self, name: String) -> std::io::Result<()> {
        self.state.lock().unwrap().files.insert(name.clone(), Vec::new());
        let mut data = self.accept().await?;
        let mut content = Vec::new();
        data.read_to_end(&mut content).await?;
        content.truncate(self.faults.kept_max.unwrap_or(usize::MAX));
        self.state.lock().unwrap().files.insert(name, content);
        self.say(self.faults.after_upload.unwrap_or("226 kept")).await
    }

    async fn list(&mut self) -> std::io::Result<()> {
        let mut data = self.accept().await?;
        let lines = self.faults.listing.clone().unwrap_or_else(|| {
            let files = &self.state.lock().unwrap().files;
            let line = |(name, content): (&String, &Vec<u8>)| {
                format!("-rw-r--r-- 1 ftp ftp {} Jan  2 03:04 {name}\r\n", content.len())
            };
            files.iter().map(line).collect()
        });
        data.write_all(lines.as_bytes()).await?;
        if self.faults.is_listing_endless {
            loop {
                data.write_all(lines.as_bytes()).await?;
            }
        }
        self.end(data).await?;
        self.say("226 listed").await
    }
}

async fn secured(stream: TcpStream, faults: &Faults) -> std::io::Result<Box<dyn Wire>> {
    Ok(match &faults.tls {
        Some(acceptor) => Box::new(acceptor.accept(stream).await?),
        None => Box::new(stream),
    })
}
