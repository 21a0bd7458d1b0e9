//! Packing: turns a window's changes into a frame, on the thread that found them.

use std::cell::RefCell;
use std::str::FromStr;

use super::compare::WindowChange;
use super::format::{Codec, PageHead};
use crate::error::{Error, Result};
use crate::image::{Hash, WINDOW_SIZE};

use crate::page::{ChangeKind, PageList, PageRange};
use crate::parallel::Bytes;

/// How payloads are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Uncompressed.
    None,
    /// zstd at this level, 1 to 19; payloads that don't shrink enough are stored uncompressed.
    Zstd(i32),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// `none`, `zstd` or `zstd:LEVEL`.
    fn from_str(text: &str) -> Result<Self> {
        let level = match text {
            "none" => return Ok(Self::None),
            "zstd" => return Ok(Self::default()),
            other => other
                .strip_prefix("zstd:")
                .and_then(|level| level.parse().ok()),
        };
        match level {
            Some(level @ 1..=19) => Ok(Self::Zstd(level)),
            _ => Err(Error::usage("no such compression")
                .with_found(text)
                .with_expected("none, zstd or zstd:1 to zstd:19")),
        }
    }
}

/// The changes of a window, ready to be written.
#[derive(Debug)]
pub struct PackedFrame {
    pub(super) head: PageHead,
    pub(super) changes: PageList,
    /// The payload as stored.
    pub(super) stored: Bytes,
}

impl PackedFrame {
    /// Returns the clear, if the frame consists of just one.
    pub(super) fn only_clear(&self) -> Option<PageRange> {
        let change = self.changes.iter().next()?;
        (self.changes.len() == 1 && change.kind == ChangeKind::Clear).then_some(change.range)
    }

    pub(super) fn base_hash(&self) -> Hash {
        self.head.base_hash
    }
}

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
}

/// Packs the changes of one window. Fails if a change lies outside of the window, or if the payload isn't exactly the
/// data of all updates.
pub fn pack(change: WindowChange, compression: Compression) -> Result<PackedFrame> {
    let WindowChange {
        window,
        changes,
        payload,
        base_hash,
    } = change;
    let inside = changes.span().is_none_or(|span| {
        window.start() <= span.start()
            && span.end() - window.start() <= WINDOW_SIZE
            && window.start().is_multiple_of(WINDOW_SIZE)
    });
    let updates = changes.bytes(ChangeKind::Update);
    if !inside || payload.len() as u64 != updates {
        return Err(Error::usage("a frame holds the changes of one window and their data")
            .with_found(format_args!(
                "changes in {:?} of the window {window:?} with {} bytes of data",
                changes.span().unwrap_or_default(),
                payload.len()
            ))
            .with_expected(format_args!(
                "changes in the {WINDOW_SIZE} bytes from a multiple of that, with {updates} bytes of data"
            )));
    }
    let payload_len = u32::try_from(payload.len())
        .map_err(|_| Error::usage("a window's payload is too large"))?;
    let packed = match compression {
        Compression::Zstd(level) if !payload.is_empty() => Some(compress(&payload, level)?),
        _ => None,
    };
    // Saving less than a sixteenth isn't worth the time for unpacking.
    let (codec, stored) = match packed {
        Some(packed) if packed.len() < payload.len() - payload.len() / 16 => (Codec::Zstd, packed),
        _ => (Codec::Stored, payload),
    };
    let head = PageHead {
        window: window.start(),
        payload_len,
        stored_len: u32::try_from(stored.len())
            .map_err(|_| Error::internal("packed data is longer than its payload"))?,
        codec,
        payload_crc: crc32fast::hash(&stored),
        base_hash,
    };
    Ok(PackedFrame {
        head,
        changes,
        stored,
    })
}

fn compress(payload: &[u8], level: i32) -> Result<Bytes> {
    let failed = |e| Error::io("cannot compress", e);
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some((at, compressor)) if *at == level => compressor,
            _ => {
                &mut slot
                    .insert((level, zstd::bulk::Compressor::new(level).map_err(failed)?))
                    .1
            }
        };
        let mut packed = Bytes::with_capacity(zstd::zstd_safe::compress_bound(payload.len()));
        let written = compressor.compress_to_buffer(payload, packed.vec());
        written.map_err(failed).map(|_| packed)
    })
}
