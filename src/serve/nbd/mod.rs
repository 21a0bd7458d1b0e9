//! A server of the NBD protocol: read-only, fixed newstyle, with structured replies, the context `base:allocation`, and
//! for points in time `qemu:dirty-bitmap:since-SNAPSHOT`.
//!
//! It uses blocking sockets and plain threads: one that accepts, one per connection that reads requests, and a few that
//! answer them. Everything that a client sends is bounded in length and time.

mod exports;
mod handshake;
mod transmission;
mod wire;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Faults, Shelf};
use crate::error::{Error, ErrorKind, Result};
use exports::Exports;
use handshake::shake_hands;
use wire::{Hurried, Stream};

/// The most clients at a time; others are turned away.
const MOST_CONNECTIONS: usize = 64;

/// The time in which a client must choose its export.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system, which must not exist yet.
    Unix(PathBuf),
    /// A port of this machine; 0 for any free one.
    Tcp(SocketAddr),
}

/// A running server, until it is dropped or [stopped](Server::stop).
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: Address,
    accepts: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    exports: Exports,
    faults: Arc<Faults>,
    threads: usize,
    stopped: AtomicBool,
    next: AtomicU64,
    /// The current connections, by number.
    open: Mutex<HashMap<u64, Stream>>,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        })
    }
}

impl Server {
    /// Listens on `address`, and serves the contents of `shelf` with `threads` threads per connection. Failed reads are
    /// recorded in `faults`.
    pub fn start(
        shelf: Shelf,
        address: Address,
        faults: Arc<Faults>,
        threads: usize,
    ) -> Result<Self> {
        let (listener, address) = listen(address)?;
        let shared = Arc::new(Shared {
            exports: Exports(shelf),
            faults,
            threads: threads.clamp(1, 64),
            stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        let accepts = spawn("nbd", move || accept(&listener, &server))?;
        Ok(Self {
            shared,
            address,
            accepts: Some(accepts),
        })
    }

    /// The address on which it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The NBD URI of the export called `name`, or of the default one for "".
    pub fn uri(&self, name: &str) -> String {
        let name = escaped(name.as_bytes(), b"@");
        match &self.address {
            Address::Unix(path) => {
                let path = escaped(path.as_os_str().as_bytes(), b"/");
                format!("nbd+unix:///{name}?socket={path}")
            }
            Address::Tcp(address) => format!("nbd://{address}/{name}"),
        }
    }

    /// Names and descriptions of what is currently served.
    ///
    /// # Errors
    ///
    /// If the store can't be read.
    pub fn exports(&self) -> Result<Vec<(String, String)>> {
        self.shared.exports.list()
    }

    /// Stops accepting clients, and ends all connections.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(accepts) = self.accepts.take() else {
            return;
        };
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for clients.
        let woken = match &self.address {
            Address::Unix(path) => UnixStream::connect(path).map(drop),
            Address::Tcp(address) => {
                TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop)
            }
        };
        if woken.is_ok() {
            let _ = accepts.join();
        }
        let open = self.shared.open.lock();
        let open = open.unwrap_or_else(PoisonError::into_inner);
        open.values().for_each(Stream::close);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Escapes `text` for a URI: everything except letters, digits and a few signs.
fn escaped(text: &[u8], also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || also.contains(byte) {
            out.push(char::from(*byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn listen(address: Address) -> Result<(Listener, Address)> {
    match address {
        Address::Unix(path) => {
            let listener = UnixListener::bind(&path).map_err(|e| refused(e, &path))?;
            Ok((Listener::Unix(listener), Address::Unix(path)))
        }
        Address::Tcp(address) => {
            let failed = |e| Error::io(format!("cannot listen on {address}"), e);
            let listener = TcpListener::bind(address).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            Ok((Listener::Tcp(listener), Address::Tcp(address)))
        }
    }
}

fn refused(error: io::Error, path: &Path) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            // Whatever else has this name is somebody's file.
            let is_socket =
                std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if !is_socket {
                "there is a file of this name, which isn't a socket: choose another name".to_owned()
            } else if UnixStream::connect(path).is_ok() {
                "another program listens there: choose another name".to_owned()
            } else {
                format!(
                    "no program listens there any more: remove it with rm {}",
                    crate::error::quoted(path)
                )
            }
        }
        io::ErrorKind::InvalidInput => {
            "the name of a socket can have at most 107 bytes: choose a shorter one".to_owned()
        }
        _ => return Error::io("cannot create the socket", error).with_path(path),
    };
    Error::new(ErrorKind::Io, "cannot create the socket")
        .with_path(path)
        .with_source(error)
        .with_hint(hint)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|e| Error::io("cannot start a thread", e))
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = accepted else {
            // The client disconnected at once; or there are too many open files, which is temporary.
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Ok(again) = stream.another() else {
            continue;
        };
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() >= MOST_CONNECTIONS {
                continue;
            }
            open.insert(number, again);
        }
        let client = Arc::clone(shared);
        let started = spawn("nbd client", move || {
            // Whatever ended it, only this client is affected, and learns of it.
            let _end = End(&client, number);
            let _ = client.serve(&stream);
        });
        if started.is_err() {
            shared.forget(number);
        }
    }
}

/// Ends the connection of a client when its thread ends, in whatever way.
struct End<'a>(&'a Shared, u64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let open = &self.0.open;
        let open = open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
        if let Some(stream) = open {
            stream.close();
        }
    }
}

impl Shared {
    fn serve(&self, stream: &Stream) -> io::Result<()> {
        let agreed = shake_hands(&mut Hurried::new(stream, HANDSHAKE), &self.exports)?;
        match agreed {
            Some(agreed) => transmission::serve(stream, &agreed, &self.faults, self.threads),
            None => Ok(()),
        }
    }

    fn forget(&self, number: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
    }
}
