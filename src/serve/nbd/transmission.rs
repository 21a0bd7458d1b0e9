//! Requests of a connection that has chosen its export, and their replies.
//!
//! One thread reads requests; several process them and write each reply as it is ready.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::Faults;
use super::handshake::{Agreed, Context, shortened};
use super::wire::{
    CHUNK_MAGIC, DIRTY, HOLE_AND_ZERO, LARGEST_READ, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, Stream,
    chunk, command, errno, read_u16, read_u32, read_u64,
};
use crate::diff::ChangedPages;
use crate::error::{Error, Result};
use crate::image::{ExtentState, PageSet as _};
use crate::page::PageRange;

/// Data is sent in pieces of this size, which is all the memory that a read takes.
const PIECE: usize = 1 << 20;

/// The most waiting requests; a client that sends more isn't read from until some are answered.
const WAITING: usize = 64;

/// The most extents in one reply.
const MOST_EXTENTS: usize = 1 << 14;

/// A client that doesn't accept a reply for this long is considered gone.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
struct Request {
    flags: u16,
    kind: u16,
    handle: u64,
    offset: u64,
    len: u32,
}

impl Request {
    fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    /// The most extents that the reply may have in each context.
    fn most_extents(self) -> usize {
        if self.flags & command::FLAG_ONE == 0 {
            MOST_EXTENTS
        } else {
            1
        }
    }

    fn read(mut from: &Stream) -> io::Result<Self> {
        if read_u32(&mut from)? != REQUEST_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this isn't a request",
            ));
        }
        Ok(Self {
            flags: read_u16(&mut from)?,
            kind: read_u16(&mut from)?,
            handle: read_u64(&mut from)?,
            offset: read_u64(&mut from)?,
            len: read_u32(&mut from)?,
        })
    }
}

/// Answers requests until the client ends the connection or violates the protocol.
pub(super) fn serve(
    stream: &Stream,
    agreed: &Agreed,
    faults: &Faults,
    threads: usize,
) -> io::Result<()> {
    stream.read_within(None)?;
    stream.write_within(Some(PATIENCE))?;
    let connection = Connection {
        out: Mutex::new(stream),
        agreed,
        faults,
    };
    let (sender, receiver) = sync_channel(WAITING);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..threads {
            let work = || connection.work(&receiver, stream);
            match thread::Builder::new().spawn_scoped(scope, work) {
                Ok(_) => started += 1,
                // Fewer suffice.
                Err(e) if started == 0 => return Err(e),
                Err(_) => break,
            }
        }
        loop {
            let request = Request::read(stream)?;
            if request.kind == command::DISCONNECT {
                break;
            }
            if request.kind == command::WRITE {
                if request.len > LARGEST_READ {
                    // This is too much to read only to refuse it.
                    break;
                }
                let data = io::copy(
                    &mut { stream }.take(u64::from(request.len)),
                    &mut io::sink(),
                )?;
                if data < u64::from(request.len) {
                    break;
                }
            }
            if sender.send(request).is_err() {
                break;
            }
        }
        drop(sender);
        Ok(())
    })
}

/// Nobody else would answer the request of a thread that panics.
struct CloseOnPanic<'a>(&'a Stream);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}

struct Connection<'a> {
    /// Held while a reply, or a piece of one, is written.
    out: Mutex<&'a Stream>,
    agreed: &'a Agreed,
    faults: &'a Faults,
}

impl Connection<'_> {
    fn work(&self, requests: &Mutex<Receiver<Request>>, stream: &Stream) {
        let _close = CloseOnPanic(stream);
        let mut buffer = Vec::new();
        loop {
            let next = {
                let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
                requests.recv()
            };
            let Ok(request) = next else {
                return;
            };
            if self.answer(request, &mut buffer).is_err() {
                // The client is gone, or can't be informed of errors any more.
                stream.close();
            }
        }
    }

    fn answer(&self, request: Request, buffer: &mut Vec<u8>) -> io::Result<()> {
        match request.kind {
            command::READ => self.read(request, buffer),
            command::FLUSH => self.done(request),
            command::CACHE => match self.refusal(request) {
                Some(number) => self.refuse(request, number, "there is no such range"),
                None => self.done(request),
            },
            command::BLOCK_STATUS => self.block_status(request),
            command::WRITE | command::TRIM | command::WRITE_ZEROES => {
                self.refuse(request, errno::PERM, "what is served can't be changed")
            }
            _ => self.refuse(request, errno::INVAL, "there is no such command"),
        }
    }

    /// The reason for refusing a range, if any.
    fn refusal(&self, request: Request) -> Option<u32> {
        let end = request.offset.checked_add(u64::from(request.len));
        let inside = end.is_some_and(|end| end <= self.agreed.export.image().virtual_size());
        (!inside || request.len == 0).then_some(errno::INVAL)
    }

    fn send(&self, parts: &[&[u8]]) -> io::Result<()> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .try_for_each(|part| (&mut &**out).write_all(part))
    }

    fn send_chunk(
        &self,
        request: Request,
        (flags, kind): (u16, u16),
        data: &[&[u8]],
    ) -> io::Result<()> {
        let len: usize = data.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).map_err(io::Error::other)?;
        let mut head = Vec::with_capacity(20);
        head.extend(CHUNK_MAGIC.to_be_bytes());
        head.extend(flags.to_be_bytes());
        head.extend(kind.to_be_bytes());
        head.extend(request.handle.to_be_bytes());
        head.extend(len.to_be_bytes());
        let parts: Vec<&[u8]> = std::iter::once(&head[..])
            .chain(data.iter().copied())
            .collect();
        self.send(&parts)
    }

    fn done(&self, request: Request) -> io::Result<()> {
        if self.agreed.structured {
            return self.send_chunk(request, (chunk::DONE, chunk::NONE), &[]);
        }
        self.send(&[&simple(request, 0)])
    }

    fn refuse(&self, request: Request, number: u32, why: &str) -> io::Result<()> {
        if !self.agreed.structured {
            return self.send(&[&simple(request, number)]);
        }
        let len = u16::try_from(why.len()).map_err(io::Error::other)?;
        let parts = [
            &number.to_be_bytes()[..],
            &len.to_be_bytes(),
            why.as_bytes(),
        ];
        self.send_chunk(request, (chunk::DONE, chunk::ERROR), &parts)
    }

    /// Reports that a read failed, and where.
    fn failed(&self, request: Request, at: u64, error: &Error) -> io::Result<()> {
        self.faults.note(error);
        let why = shortened(&error.to_string());
        if !self.agreed.structured {
            return self.send(&[&simple(request, errno::IO)]);
        }
        let len = u16::try_from(why.len()).map_err(io::Error::other)?;
        let (number, len, at) = (errno::IO.to_be_bytes(), len.to_be_bytes(), at.to_be_bytes());
        let parts = [&number[..], &len, why.as_bytes(), &at];
        self.send_chunk(request, (chunk::DONE, chunk::ERROR_AT), &parts)
    }

    fn read(&self, request: Request, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Some(number) = self.refusal(request) {
            return self.refuse(request, number, "there is no such range");
        }
        if request.len > LARGEST_READ {
            return self.refuse(request, errno::OVERFLOW, "more than 32 MiB at a time");
        }
        let whole = request.flags & command::FLAG_DONT_FRAGMENT != 0;
        let len = request.len as usize;
        let piece = if whole { len } else { len.min(PIECE) };
        if buffer.len() < piece {
            buffer.resize(piece, 0);
        }
        let mut done = 0;
        while done < len {
            let (at, now) = (
                request.offset.saturating_add(done as u64),
                piece.min(len - done),
            );
            let Some(bytes) = buffer.get_mut(..now) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            if let Err(error) = self.agreed.export.image().read_exact_at(bytes, at) {
                return self.failed(request, at, &error);
            }
            if !self.agreed.structured {
                return self.read_simple(request, buffer, piece);
            }
            done += now;
            let flags = if done == len { chunk::DONE } else { 0 };
            self.send_chunk(request, (flags, chunk::DATA), &[&at.to_be_bytes(), bytes])?;
        }
        if buffer.len() > PIECE {
            buffer.truncate(PIECE);
            buffer.shrink_to_fit();
        }
        Ok(())
    }

    /// Sends a read whose first piece is in `buffer` as a simple reply, which can't be interleaved with others.
    fn read_simple(&self, request: Request, buffer: &mut [u8], first: usize) -> io::Result<()> {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out: &Stream = &out;
        out.write_all(&simple(request, 0))?;
        let (len, mut done, mut now) = (request.len as usize, 0, first);
        loop {
            out.write_all(buffer.get(..now).unwrap_or_default())?;
            done += now;
            if done >= len {
                return Ok(());
            }
            now = first.min(len - done);
            let at = request.offset.saturating_add(done as u64);
            let bytes = buffer.get_mut(..now).unwrap_or_default();
            if let Err(error) = self.agreed.export.image().read_exact_at(bytes, at) {
                // The beginning has been sent already: only closing the connection can invalidate it.
                self.faults.note(&error);
                return Err(io::Error::other(error));
            }
        }
    }

    fn block_status(&self, request: Request) -> io::Result<()> {
        if self.agreed.contexts.is_empty() {
            return self.refuse(request, errno::INVAL, "no context was agreed on");
        }
        if let Some(number) = self.refusal(request) {
            return self.refuse(request, number, "there is no such range");
        }
        let contexts = self.agreed.contexts.iter();
        let all = contexts.map(|context| match context {
            Context::Allocation => self.stored(request),
            Context::Since(changed) => changes(request, changed),
        });
        let all = match all.collect::<Result<Vec<_>>>() {
            Ok(all) => all,
            Err(error) => return self.failed(request, request.offset, &error),
        };
        let last = all.len();
        (1_u32..).zip(all).try_for_each(|(id, extents)| {
            let is_last = usize::try_from(id) == Ok(last);
            let flags = if is_last { chunk::DONE } else { 0 };
            let id = id.to_be_bytes();
            self.send_chunk(request, (flags, chunk::BLOCK_STATUS), &[&id, &extents.0])
        })
    }

    /// Where something is stored.
    fn stored(&self, request: Request) -> Result<Told> {
        let mut told = Told::default();
        let image = self.agreed.export.image();
        let extents = image.extents(PageRange::covering(request.offset, request.end()));
        for extent in extents.take(request.most_extents()) {
            let extent = extent?;
            let flags = match extent.state {
                ExtentState::Data => 0,
                ExtentState::Zero => HOLE_AND_ZERO,
            };
            told.push(request, extent.range, flags)?;
        }
        Ok(told)
    }
}

/// Where something may have changed.
fn changes(request: Request, changed: &ChangedPages) -> Result<Told> {
    let mut told = Told::default();
    let all = PageRange::covering(request.offset, request.end());
    let (mut at, most) = (all.start(), request.most_extents());
    let mut dirty: Option<PageRange> = None;
    let mut pages = changed.pages(all);
    loop {
        let next = pages.next().transpose()?;
        match (&mut dirty, next) {
            // They come in pieces.
            (Some(before), Some(next)) if before.end() >= next.start() => {
                *before = PageRange::covering(before.start(), next.end());
                continue;
            }
            _ => {}
        }
        if let Some(before) = dirty.take() {
            told.push(request, PageRange::covering(at, before.start()), 0)?;
            if told.1 < most {
                told.push(request, before, DIRTY)?;
            }
            at = before.end();
        }
        if told.1 >= most {
            return Ok(told);
        }
        if next.is_none() {
            told.push(request, PageRange::covering(at, all.end()), 0)?;
            return Ok(told);
        }
        dirty = next;
    }
}

/// Extents in the form of a reply, length and flags of each, and how many there are.
#[derive(Default)]
struct Told(Vec<u8>, usize);

impl Told {
    /// Adds the part of `range` that was asked for.
    fn push(&mut self, request: Request, range: PageRange, flags: u32) -> Result<()> {
        let from = range.start().clamp(request.offset, request.end());
        let until = range.end().clamp(request.offset, request.end());
        let len = u32::try_from(until - from);
        let len = len.map_err(|e| Error::usage("an extent is too long").with_source(e))?;
        if len > 0 {
            self.0.extend(len.to_be_bytes());
            self.0.extend(flags.to_be_bytes());
            self.1 += 1;
        }
        Ok(())
    }
}

/// A simple reply without data.
fn simple(request: Request, number: u32) -> Vec<u8> {
    let mut reply = Vec::with_capacity(16);
    reply.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
    reply.extend(number.to_be_bytes());
    reply.extend(request.handle.to_be_bytes());
    reply
}
