//! A client of NBD, as simple as possible, that can also misbehave.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vhdkit::serve::nbd::{Address, Server};
use vhdkit::serve::{Faults, Shelf};

use crate::disk::TestFolder;

pub(crate) const OPTION: &[u8] = b"IHAVEOPT";

/// A server of one raw image.
pub(crate) struct Served {
    folder: TestFolder,
    pub(crate) bytes: Vec<u8>,
    pub(crate) faults: Arc<Faults>,
    _server: Server,
}

impl Served {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let folder = TestFolder::new();
        let image = vhdkit::open(folder.file("disk.raw", &bytes)).unwrap();
        let faults = Arc::new(Faults::new(Box::new(|_| {})));
        let server = Server::start(
            Shelf::of_image(image),
            Address::Unix(folder.path("s")),
            Arc::clone(&faults),
            2,
        );
        Self {
            folder,
            bytes,
            faults,
            _server: server.unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path("s")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// Whether an honest client is served as it should be.
    pub(crate) fn assert_well(&self) {
        let mut client = self.client();
        client.go("", true).unwrap();
        let at = self.bytes.len() / 3;
        assert_eq!(
            client.read(at as u64, 1000).unwrap(),
            self.bytes[at..at + 1000]
        );
    }
}

/// A connection.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    /// Connects, and reads the greeting.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self(stream);
        let hello = client.take(18)?;
        assert_eq!(hello, b"NBDMAGICIHAVEOPT\0\x03");
        Ok(client)
    }

    pub(crate) fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        self.send(&option_bytes(option, data))
    }

    /// The kind and the data of a reply to an option.
    pub(crate) fn answer(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let head = self.take(20)?;
        assert_eq!(head[..8], 0x0003_E889_0455_65A9_u64.to_be_bytes());
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        Ok((number(12), self.take(number(16) as usize)?))
    }

    /// Chooses an export, with structured replies and block status or without.
    pub(crate) fn go(&mut self, name: &str, structured: bool) -> io::Result<()> {
        self.send(&3_u32.to_be_bytes())?;
        if structured {
            self.option(8, &[])?;
            assert_eq!(self.answer()?.0, 1);
            self.option(10, &contexts(name, &["base:allocation"]))?;
            let (kind, context) = self.answer()?;
            if kind != 4 {
                return Err(io::Error::other(format!("{kind:x}")));
            }
            assert_eq!(context, b"\0\0\0\x01base:allocation");
            assert_eq!(self.answer()?.0, 1);
        }
        self.option(7, &name_and(name, &[0, 0]))?;
        loop {
            match self.answer()? {
                (1, _) => return Ok(()),
                (3, _) => {}
                (kind, text) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    return Err(io::Error::other(format!("{kind:x}: {text}")));
                }
            }
        }
    }

    pub(crate) fn request(&mut self, kind: u16, offset: u64, len: u32) -> io::Result<()> {
        self.send(&request_bytes(0, kind, offset, len))
    }

    /// The payload of a structured reply, all pieces of it; or the number of an error.
    pub(crate) fn reply(&mut self) -> io::Result<Result<Vec<u8>, u32>> {
        let (mut data, mut error) = (Vec::new(), None);
        loop {
            let head = self.take(20)?;
            assert_eq!(head[..4], 0x668E_33EF_u32.to_be_bytes());
            assert_eq!(head[8..16], *b"a handle");
            let len = u32::from_be_bytes(head[16..20].try_into().unwrap());
            let payload = self.take(len as usize)?;
            match u16::from_be_bytes([head[6], head[7]]) {
                0 => {}
                1 => data.extend(&payload[8..]),
                5 => data.extend(&payload[4..]),
                _ => error = Some(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            }
            if head[5] & 1 == 1 {
                return Ok(error.map_or(Ok(data), Err));
            }
        }
    }

    pub(crate) fn read(&mut self, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        self.request(0, offset, len)?;
        let reply = self.reply()?;
        reply.map_err(|number| io::Error::other(format!("error {number}")))
    }

    /// Whether the server has ended the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(e) => matches!(
                e.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
        }
    }
}

pub(crate) fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [OPTION, &option.to_be_bytes(), &len.to_be_bytes(), data].concat()
}

pub(crate) fn request_bytes(flags: u16, kind: u16, offset: u64, len: u32) -> Vec<u8> {
    [
        &0x2560_9513_u32.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        b"a handle",
        &offset.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn name_and(name: &str, more: &[u8]) -> Vec<u8> {
    let len = u32::try_from(name.len()).unwrap();
    [&len.to_be_bytes()[..], name.as_bytes(), more].concat()
}

pub(crate) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let count = u32::try_from(queries.len()).unwrap();
    let mut data = name_and(name, &count.to_be_bytes());
    for query in queries {
        data.extend(name_and(query, &[]));
    }
    data
}
