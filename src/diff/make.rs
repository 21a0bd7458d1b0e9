//! From two images to a diff.

use std::io::Write;
use std::path::PathBuf;

use super::compare::{CompareOptions, Comparison, compare_windows};
use super::format::{DiffHeader, Side, Trailer};
use super::pack::{Compression, pack};
use super::writer::DiffWriter;
use crate::error::Result;
use crate::image::{Hash, Image};
use crate::parallel::Workers;
use crate::progress::Progress;

/// What this program calls itself in the diffs that it writes.
pub const PROGRAM: &str = concat!("vhdkit ", env!("CARGO_PKG_VERSION"));

/// How to [`write_diff`].
#[derive(Clone, Copy)]
pub struct DiffOptions<'a> {
    /// The threads that read, compare, hash and pack.
    pub workers: &'a Workers,
    /// Told how much of the virtual disks is done.
    pub progress: &'a dyn Progress,
    /// How payloads are stored.
    pub compression: Compression,
    /// Whether to compute the content digests, by which apply knows the right base.
    pub digests: bool,
    /// Asked when everything was read, before the end is written: a diff of images that changed meanwhile gets
    /// no end, and so can't be used.
    pub confirm: &'a dyn Fn() -> Result<()>,
}

impl std::fmt::Debug for DiffOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("DiffOptions");
        out.field("compression", &self.compression)
            .field("digests", &self.digests)
            .finish_non_exhaustive()
    }
}

/// A diff that was written.
#[derive(Debug)]
pub struct Written<W> {
    /// Where it was written to, to be published.
    pub out: W,
    /// Totals and digests.
    pub trailer: Trailer,
    /// What differs, sizes included.
    pub comparison: Comparison,
    /// The identity of the diff.
    pub digest: Hash,
    /// Its length in bytes.
    pub len: u64,
}

/// Writes the diff that turns `base` into `target` to `out`, which messages call `name`.
pub fn write_diff<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    out: W,
    name: impl Into<PathBuf>,
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    write(base, target, (out, name.into()), false, options)
}

/// As [`write_diff`], with the way from `target` back to `base` too: the old data of every changed page.
pub fn write_reversible_diff<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    out: W,
    name: impl Into<PathBuf>,
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    write(base, target, (out, name.into()), true, options)
}

fn write<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    (out, name): (W, PathBuf),
    reversible: bool,
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    let header = DiffHeader {
        base_size: base.0.virtual_size(),
        target_size: target.0.virtual_size(),
        program: Some(PROGRAM.to_owned()),
        base: base.1,
        target: target.1,
        undoes: Vec::new(),
    };
    let mut writer = if reversible {
        DiffWriter::reversible(out, name, &header)?
    } else {
        DiffWriter::new(out, name, &header)?
    };
    let DiffOptions {
        workers,
        progress,
        compression,
        digests,
        confirm,
    } = options;
    let comparison = compare_windows(
        base.0,
        target.0,
        CompareOptions {
            workers,
            progress,
            digests,
            payload: true,
        },
        reversible,
        |change, back| {
            let back = back.map(|back| pack(back, compression)).transpose()?;
            Ok((pack(change, compression)?, back))
        },
        |(frame, back)| {
            writer.push(&frame)?;
            back.map_or(Ok(()), |back| writer.push_back(&back))
        },
    )?;
    confirm()?;
    let done = writer.finish(comparison.base_digest, comparison.target_digest)?;
    Ok(Written {
        out: done.out,
        trailer: done.trailer,
        comparison,
        digest: done.digest,
        len: done.len,
    })
}
