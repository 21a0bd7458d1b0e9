//! The handshake of a connection: selects an export, and negotiates features.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::super::Served;
use super::exports::Exports;
use super::wire::{
    ALLOCATION, LARGEST_READ, MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, PREFERRED, SINCE, answer,
    can, flag, info, option, read_u16, read_u32, read_u64,
};
use crate::diff::ChangedPages;
use crate::error::ErrorKind;

/// Longer options are rejected: a name has at most 4096 bytes.
const LONGEST_OPTION: u32 = 64 << 10;

/// The maximum length of names according to the protocol.
const LONGEST_NAME: usize = 4096;

/// The most contexts that a client can set: each block status is about all of them.
const MOST_CONTEXTS: usize = 16;

/// A client that still hasn't chosen an export never will.
const MOST_OPTIONS: usize = 128;

/// The result of the negotiation.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) export: Arc<Served>,
    pub(super) structured: bool,
    /// What block status is about: the first context has the number 1.
    pub(super) contexts: Vec<Context>,
}

/// What a client can ask about the blocks of an export.
#[derive(Debug)]
pub(super) enum Context {
    /// Where something is stored.
    Allocation,
    /// Where something may have changed since an earlier snapshot.
    Since(ChangedPages),
}

/// The contexts that a client has set for an export, by the name that it used.
struct Set {
    name: Vec<u8>,
    export: Arc<Served>,
    contexts: Vec<Context>,
}

/// The agreement, or `None` if the client has only looked.
pub(super) type Handshake = io::Result<Option<Agreed>>;

/// The reason for ending a connection. Its text is for tests and logs; the client only sees the connection close.
fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The properties of an export.
pub(super) fn flags(structured: bool) -> u16 {
    let always = flag::HAS_FLAGS | flag::READ_ONLY | flag::FLUSH | flag::MULTI_CONN | flag::CACHE;
    if structured {
        always | flag::DONT_FRAGMENT
    } else {
        always
    }
}

/// Performs the handshake. Returns `None` if the client ended it, as one does that only lists exports.
pub(super) fn shake_hands<S: Read + Write>(stream: &mut S, exports: &Exports) -> Handshake {
    let mut hello = Vec::with_capacity(18);
    hello.extend(MAGIC.to_be_bytes());
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend((can::FIXED_NEWSTYLE | can::NO_ZEROES).to_be_bytes());
    stream.write_all(&hello)?;
    let client = read_u32(stream)?;
    if client & !u32::from(can::FIXED_NEWSTYLE | can::NO_ZEROES) != 0 {
        return Err(broken("the client requests unknown features"));
    }
    let mut talk = Talk {
        stream,
        exports,
        zeroes: client & u32::from(can::NO_ZEROES) == 0,
        structured: false,
        set: None,
    };
    for _ in 0..MOST_OPTIONS {
        match talk.next()? {
            Next::More => {}
            Next::End => return Ok(None),
            Next::Go(export, name) => {
                let set = talk.set.take();
                let set = set.filter(|set| set.name == name && Arc::ptr_eq(&set.export, &export));
                return Ok(Some(Agreed {
                    export,
                    structured: talk.structured,
                    contexts: set.map(|set| set.contexts).unwrap_or_default(),
                }));
            }
        }
    }
    Err(broken("too many options"))
}

enum Next {
    More,
    End,
    /// The export, and the name by which it was requested.
    Go(Arc<Served>, Vec<u8>),
}

struct Talk<'a, S> {
    stream: &'a mut S,
    exports: &'a Exports,
    zeroes: bool,
    structured: bool,
    set: Option<Set>,
}

impl<S: Read + Write> Talk<'_, S> {
    fn next(&mut self) -> io::Result<Next> {
        if read_u64(self.stream)? != OPTION_MAGIC {
            return Err(broken("this isn't an option"));
        }
        let (asked, len) = (read_u32(self.stream)?, read_u32(self.stream)?);
        if len > LONGEST_OPTION {
            // This option has no other way to refuse a name.
            if asked == option::EXPORT_NAME || len > 64 * LONGEST_OPTION {
                return Err(broken("the option is too long"));
            }
            io::copy(&mut self.stream.take(u64::from(len)), &mut io::sink())?;
            self.reply(asked, answer::TOO_BIG, b"the option is too long")?;
            return Ok(Next::More);
        }
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data)?;
        match asked {
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                self.reply(asked, answer::ACK, &[])?;
                return Ok(Next::End);
            }
            option::LIST if data.is_empty() => self.list()?,
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.reply(asked, answer::ACK, &[])?;
            }
            option::LIST | option::STRUCTURED_REPLY => {
                self.reply(asked, answer::INVALID, b"this option has no data")?;
            }
            option::STARTTLS => self.reply(asked, answer::POLICY, b"there is no TLS here")?,
            option::INFO | option::GO => return self.go(asked, &data),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(asked, &data)?,
            _ => self.reply(asked, answer::UNSUPPORTED, &[])?,
        }
        Ok(Next::More)
    }

    fn reply(&mut self, asked: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = Vec::with_capacity(20 + data.len());
        reply.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        reply.extend(asked.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend(length(data.len())?.to_be_bytes());
        reply.extend(data);
        self.stream.write_all(&reply)
    }

    /// The old way to choose an export, which can only be refused by closing the connection.
    fn export_name(&mut self, name: Vec<u8>) -> io::Result<Next> {
        let export = self
            .exports
            .open(&name)
            .map_err(|_| broken("there is no such export"))?;
        let mut reply = Vec::with_capacity(134);
        reply.extend(export.image().virtual_size().to_be_bytes());
        reply.extend(flags(self.structured).to_be_bytes());
        if self.zeroes {
            reply.resize(reply.len() + 124, 0);
        }
        self.stream.write_all(&reply)?;
        Ok(Next::Go(export, name))
    }

    fn list(&mut self) -> io::Result<()> {
        let exports = match self.exports.list() {
            Ok(exports) => exports,
            Err(error) => {
                let message = shortened(&error.to_string());
                return self.reply(option::LIST, answer::POLICY, message.as_bytes());
            }
        };
        for (name, description) in exports {
            let mut data = Vec::new();
            data.extend(length(name.len())?.to_be_bytes());
            data.extend(name.as_bytes());
            data.extend(description.as_bytes());
            self.reply(option::LIST, answer::SERVER, &data)?;
        }
        self.reply(option::LIST, answer::ACK, &[])
    }

    fn go(&mut self, asked: u32, data: &[u8]) -> io::Result<Next> {
        let Some((name, wanted)) = parse_go(data) else {
            self.reply(asked, answer::INVALID, b"the option can't be understood")?;
            return Ok(Next::More);
        };
        let export = match self.exports.open(name) {
            Ok(export) => export,
            Err(error) => {
                let kind = match error.kind() {
                    ErrorKind::Usage => answer::UNKNOWN,
                    _ => answer::POLICY,
                };
                let message = shortened(&error.to_string());
                self.reply(asked, kind, message.as_bytes())?;
                return Ok(Next::More);
            }
        };
        let mut about = Vec::new();
        about.extend(info::EXPORT.to_be_bytes());
        about.extend(export.image().virtual_size().to_be_bytes());
        about.extend(flags(self.structured).to_be_bytes());
        self.reply(asked, answer::INFO, &about)?;
        let mut sizes = Vec::new();
        sizes.extend(info::BLOCK_SIZE.to_be_bytes());
        for size in [1, PREFERRED, LARGEST_READ] {
            sizes.extend(size.to_be_bytes());
        }
        self.reply(asked, answer::INFO, &sizes)?;
        let canonical = self.exports.canonical(name);
        for (kind, text) in [
            (info::NAME, canonical.as_str()),
            (info::DESCRIPTION, &Exports::description(&export)),
        ] {
            if wanted.contains(&kind) {
                let mut data = kind.to_be_bytes().to_vec();
                data.extend(text.as_bytes());
                self.reply(asked, answer::INFO, &data)?;
            }
        }
        self.reply(asked, answer::ACK, &[])?;
        if asked == option::INFO {
            return Ok(Next::More);
        }
        Ok(Next::Go(export, name.to_vec()))
    }

    fn contexts(&mut self, asked: u32, data: &[u8]) -> io::Result<()> {
        let set = asked == option::SET_META_CONTEXT;
        if set {
            self.set = None;
        }
        let Some((name, queries)) = parse_contexts(data).filter(|_| self.structured || !set) else {
            return self.reply(asked, answer::INVALID, b"the option can't be understood");
        };
        let export = match self.exports.open(name) {
            Ok(export) => export,
            Err(error) => {
                let message = shortened(&error.to_string());
                return self.reply(asked, answer::UNKNOWN, message.as_bytes());
            }
        };
        if set {
            return self.set_contexts(asked, name, export, &queries);
        }
        let known = std::iter::once(ALLOCATION.to_owned());
        let known = known.chain(export.earlier().map(|earlier| format!("{SINCE}{earlier}")));
        for context in known.filter(|context| is_asked(context, &queries)) {
            self.tell_context(asked, 0, &context)?;
        }
        self.reply(asked, answer::ACK, &[])
    }

    fn set_contexts(
        &mut self,
        asked: u32,
        name: &[u8],
        export: Arc<Served>,
        queries: &[&[u8]],
    ) -> io::Result<()> {
        let mut contexts: Vec<Context> = Vec::new();
        let mut names: Vec<&[u8]> = Vec::new();
        for query in queries {
            let context = match std::str::from_utf8(query) {
                Ok(ALLOCATION) => Some(Context::Allocation),
                Ok(query) => query
                    .strip_prefix(SINCE)
                    .and_then(|earlier| export.changed_since(earlier))
                    .map(Context::Since),
                Err(_) => None,
            };
            if let Some(context) = context.filter(|_| !names.contains(query)) {
                if contexts.len() == MOST_CONTEXTS {
                    return self.reply(asked, answer::TOO_BIG, b"too many contexts");
                }
                contexts.push(context);
                names.push(query);
            }
        }
        for (id, name) in (1..).zip(&names) {
            self.tell_context(asked, id, &String::from_utf8_lossy(name))?;
        }
        self.set = Some(Set {
            name: name.to_vec(),
            export,
            contexts,
        });
        self.reply(asked, answer::ACK, &[])
    }

    fn tell_context(&mut self, asked: u32, id: u32, name: &str) -> io::Result<()> {
        let mut context = id.to_be_bytes().to_vec();
        context.extend(name.as_bytes());
        self.reply(asked, answer::META_CONTEXT, &context)
    }
}

/// Whether a client that lists contexts means this one: by its name, by the beginning of it up to a colon, or by asking
/// for all.
fn is_asked(context: &str, queries: &[&[u8]]) -> bool {
    queries.is_empty()
        || queries.iter().any(|query| {
            let part = query.ends_with(b":") && context.as_bytes().starts_with(query);
            part || *query == context.as_bytes()
        })
}

fn length(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| broken("the reply is too long"))
}

/// Shortens a message for a client to the length that the protocol allows.
pub(super) fn shortened(message: &str) -> String {
    message.chars().take(1000).collect()
}

/// Removes `len` bytes from the front of `data`.
fn take<'a>(data: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = data.split_at_checked(len)?;
    *data = rest;
    Some(front)
}

/// Removes a length-prefixed text from the front of `data`.
fn take_text<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = read_u32(&mut take(data, 4)?).ok()? as usize;
    take(data, len).filter(|text| text.len() <= LONGEST_NAME)
}

/// Parses the name and the requested kinds of information.
fn parse_go(mut data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let name = take_text(&mut data)?;
    let count = usize::from(read_u16(&mut take(&mut data, 2)?).ok()?);
    let kinds = (0..count).map(|_| read_u16(&mut take(&mut data, 2)?).ok());
    let kinds = kinds.collect::<Option<Vec<u16>>>()?;
    data.is_empty().then_some((name, kinds))
}

/// Parses the name of the export, and the queries.
fn parse_contexts(mut data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let name = take_text(&mut data)?;
    let count = read_u32(&mut take(&mut data, 4)?).ok()? as usize;
    // Each takes at least four bytes.
    let mut queries = Vec::with_capacity(count.min(data.len() / 4));
    for _ in 0..count {
        queries.push(take_text(&mut data)?);
    }
    data.is_empty().then_some((name, queries))
}
