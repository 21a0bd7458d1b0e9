//! The server: accepts connections with TLS or, from this machine, without, and dispatches requests.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::http::{Ended, Reader, Request, Response, Stream, answer};
use super::identity::Identity;
use super::service::Service;
use super::tls;
use crate::error::{Error, Result};
use crate::serve::Told;
use crate::storage::{Audience, FolderLock, allow_many_files, create_folder_for};
use crate::text::shown;

/// Maximum number of concurrent connections.
const MOST_CONNECTIONS: usize = 256;

/// Maximum idle time of a client between requests, and at the beginning and the end of a connection.
const IDLE: Duration = Duration::from_secs(120);
const SLOW: Duration = Duration::from_secs(60);

/// Maximum wait for running requests when the server stops.
const LAST: Duration = Duration::from_secs(30);

/// Options for starting a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names by which clients on other machines reach it.
    pub names: Vec<String>,
    /// The name of the storage account, when the folder is new.
    pub account: String,
    /// Where resources are that don't say it, when the folder is new.
    pub location: String,
    /// Whether every program of this machine gets tokens of the managed identity, as on a machine of the cloud.
    pub open_identity: bool,
    /// Bytes for each second that copies in the background make at most.
    pub copy_rate: Option<u64>,
}

/// A server that is running, until it is dropped or [stopped](Server::stop).
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    authority: PathBuf,
    accepts: Option<JoinHandle<()>>,
    /// The lock that prevents other servers from using the folder.
    _lock: Option<FolderLock>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

struct Shared {
    service: Service,
    tls: Arc<ServerConfig>,
    tell: Told,
    stopped: AtomicBool,
    next: AtomicU64,
    /// The open connections, by number.
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Server {
    /// Serves the content of `folder`, which is created if necessary. Errors of the server, as opposed to those of clients,
    /// are reported.
    pub fn start(folder: &Path, options: &Options, tell: Told) -> Result<Self> {
        allow_many_files();
        let audience = Audience::nobody_else();
        refuse_foreign(folder)?;
        create_folder_for(folder, &audience)?;
        let lock = FolderLock::take(folder, false)?;
        let identity = Identity::load_or_make(folder, &options.account, &options.location)?;
        let failed = |e| Error::io(format!("cannot listen at {}", options.listen), e);
        let listener = TcpListener::bind(options.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut names = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        names.extend(options.names.iter().cloned());
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        names.sort_unstable();
        names.dedup();
        let shown = tls::prepare(folder, &names)?;
        let root = format!("https://{}", reachable(address));
        let service = Service::open(
            folder,
            identity,
            root,
            (options.open_identity, options.copy_rate),
            &audience,
        )?;
        let shared = Arc::new(Shared {
            service,
            tls: shown.config,
            tell,
            stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        let accepts = thread::Builder::new()
            .name("azure".into())
            .spawn(move || accept(&listener, &server))
            .map_err(|e| Error::io("cannot start a thread", e))?;
        Ok(Self {
            shared,
            address,
            authority: shown.authority,
            accepts: Some(accepts),
            _lock: lock,
        })
    }

    /// Its address, as a client on this machine types it.
    pub fn root(&self) -> String {
        format!("https://{}", reachable(self.address))
    }

    /// The certificate of its authority, which clients need to trust it.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Its identity and credentials.
    pub fn identity(&self) -> &Identity {
        self.shared.service.identity()
    }

    /// Stops accepting connections, lets running requests finish, and closes all files.
    pub fn stop(mut self) -> Result<()> {
        self.end();
        self.shared.service.close()
    }

    fn end(&mut self) {
        let Some(accepts) = self.accepts.take() else {
            return;
        };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect_timeout(&reachable(self.address), Duration::from_secs(1));
        let _ = accepts.join();
        // Nothing more is read; running requests are still answered.
        for stream in self.shared.connections().values() {
            let _ = stream.shutdown(Shutdown::Read);
        }
        self.shared.service.interrupt();
        let deadline = Instant::now() + LAST;
        while !self.shared.connections().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        for stream in self.shared.connections().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Fails if `folder` contains files that don't belong to a server: keys and disks would be mixed with them.
fn refuse_foreign(folder: &Path) -> Result<()> {
    if Identity::is_in(folder) {
        return Ok(());
    }
    let failed = |e| Error::io("cannot list the folder", e).with_path(folder);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // Left by an interrupted start, or present in a new file system.
        let is_ours = name.as_encoded_bytes().starts_with(b".vhdkit-");
        if is_ours || name == "lost+found" {
            continue;
        }
        return Err(Error::usage(
            "there are other files in this folder, and it isn't one of this server",
        )
        .with_path(folder)
        .with_found(shown(&name))
        .with_hint("name an empty folder, or one that isn't there yet"));
    }
    Ok(())
}

/// An address by which this machine can reach it.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // The client disconnected immediately, or too many files are open, which is temporary.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Ok(again) = stream.try_clone() else {
            continue;
        };
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = shared.connections();
            if open.len() >= MOST_CONNECTIONS {
                continue;
            }
            open.insert(number, again);
        }
        let client = Arc::clone(shared);
        let started = thread::Builder::new()
            .name("azure client".into())
            .spawn(move || {
                // However it ended, only this client is affected, and learns of it.
                let _end = End(&client, number);
                let _ = client.serve(stream);
            });
        if started.is_err() {
            shared.connections().remove(&number);
        }
    }
}

/// Ends the connection of a client when its thread ends, in whatever way.
struct End<'a>(&'a Shared, u64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.connections().remove(&self.1) {
            // It may have been closed already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SLOW))?;
        let peer = stream.peer_addr()?.ip().to_canonical();
        // The first byte of HTTP is a letter, and that of TLS isn't.
        let mut first = [0];
        if stream.peek(&mut first)? == 0 {
            return Ok(());
        }
        let tls = !first[0].is_ascii_alphabetic();
        if tls {
            let connection =
                ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
            let mut stream = Encrypted(StreamOwned::new(connection, Punctual::new(stream)));
            self.talk(&mut stream, peer, true)?;
            stream.0.conn.send_close_notify();
            stream.write_within(SLOW);
            let _ = stream.0.flush();
            return Ok(());
        }
        if !peer.is_loopback() {
            return Ok(());
        }
        self.talk(&mut Punctual::new(stream), peer, false)
    }

    fn talk(&self, stream: &mut dyn Stream, peer: std::net::IpAddr, tls: bool) -> io::Result<()> {
        let mut reader = Reader::new(IDLE);
        loop {
            let request = match reader.next(stream) {
                Ok(request) => Request {
                    tls,
                    peer: Some(peer),
                    ..request
                },
                Err(Ended::Gone) => return Ok(()),
                Err(Ended::Bad(status)) => {
                    answer(stream, None, Response::new(status))?;
                    return Ok(());
                }
            };
            let response = self.service.answer(&request, &self.tell);
            let goes_on = answer(stream, Some(&request), response)?;
            if !goes_on || self.stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    }
}

/// A connection on which nothing may take longer than its deadline, however slowly it trickles: one read of an encrypted
/// stream can be many of the one below it.
struct Punctual {
    stream: TcpStream,
    read_until: Cell<Instant>,
    write_until: Cell<Instant>,
}

impl Punctual {
    fn new(stream: TcpStream) -> Self {
        let until = Cell::new(Instant::now() + SLOW);
        Self {
            stream,
            read_until: until.clone(),
            write_until: until,
        }
    }
}

/// The remaining time.
fn left(until: &Cell<Instant>) -> io::Result<Option<Duration>> {
    let left = until.get().saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(Some(left))
}

impl Read for Punctual {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(left(&self.read_until)?)?;
        self.stream.read(buf)
    }
}

impl Write for Punctual {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(left(&self.write_until)?)?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Punctual {
    fn read_within(&self, limit: Duration) {
        self.read_until.set(Instant::now() + limit);
    }

    fn write_within(&self, limit: Duration) {
        self.write_until.set(Instant::now() + limit);
    }
}

struct Encrypted(StreamOwned<ServerConnection, Punctual>);

impl Read for Encrypted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf) {
            // Many clients disconnect without notice.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl Write for Encrypted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Encrypted {
    // Either way, the handshake reads and writes.
    fn read_within(&self, limit: Duration) {
        self.0.sock.read_within(limit);
        self.0.sock.write_within(limit);
    }

    fn write_within(&self, limit: Duration) {
        self.read_within(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_trickles_has_no_longer_than_anybody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut served = Punctual::new(listener.accept().unwrap().0);
        let trickle = thread::spawn(move || {
            // Until the server has enough of it.
            while client.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        served.read_within(Duration::from_millis(50));
        let mut byte = [0];
        let error = loop {
            if let Err(error) = served.read_exact(&mut byte) {
                break error;
            }
        };
        let late = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(late.contains(&error.kind()), "{error}");
        // The client doesn't receive what is written.
        served.write_within(Duration::from_millis(50));
        while served.write_all(&[0; 1 << 12]).is_ok() {}
        drop(served);
        trickle.join().unwrap();
    }
}
