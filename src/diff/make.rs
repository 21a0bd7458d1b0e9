//! Creates a diff from two images.

use std::io::Write;
use std::path::PathBuf;

use super::compare::{CompareOptions, Comparison, WindowChange, compare, compare_windows};
use super::format::{DiffHeader, Side, Trailer};
use super::listed::compare_listed;
use super::pack::{Compression, PackedFrame, pack};
use super::writer::DiffWriter;
use crate::error::Result;
use crate::image::{ContentDigest, Hash, Image, SharedExtents, WindowHashes, WindowList};
use crate::parallel::Work;
use crate::storage::ReadAt;

/// The name that this program records in its diffs.
pub const PROGRAM: &str = concat!("vhdkit ", env!("CARGO_PKG_VERSION"));

/// Options for [`write_diff`].
#[derive(Clone, Copy)]
pub struct DiffOptions<'a> {
    /// The threads, and the receiver of progress.
    pub work: Work<'a>,
    /// How payloads are stored.
    pub compression: Compression,
    /// Whether to compute the content digests by which an apply recognizes the right base.
    pub digests: bool,
    /// Where the two images are known to be equal.
    pub equal: &'a dyn SharedExtents,
    /// Called when everything has been read, before the end is written. If it fails, because an image changed
    /// meanwhile, the diff has no end and is unusable.
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
    /// The writer, still to be published.
    pub out: W,
    /// Totals and digests.
    pub trailer: Trailer,
    /// Totals of the differences, sizes included.
    pub comparison: Comparison,
    /// The identity of the diff.
    pub digest: Hash,
    /// The length of the diff in bytes.
    pub len: u64,
}

/// Writes the diff from `base` to `target` to `out`, which messages call `name`.
pub fn write_diff<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    out: W,
    name: impl Into<PathBuf>,
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    written(
        base,
        target,
        (out, name.into()),
        options,
        |base, target, writer| {
            let pack = |change| pack(change, options.compression);
            let sink = |frame: PackedFrame| writer.push(&frame);
            compare(base, target, compare_options(options), pack, sink)
        },
    )
}

/// As [`write_diff`], and includes the way back from `target` to `base`: the old data of every changed page.
pub fn write_reversible_diff<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    out: W,
    name: impl Into<PathBuf>,
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    let images = [base.0, target.0];
    let writer = DiffWriter::reversible(out, name, &header(base, target))?;
    finish(images, writer, options, |base, target, writer| {
        compare_windows(
            base,
            target,
            compare_options(options),
            true,
            |change, back| {
                let back = back
                    .map(|back| pack(back, options.compression))
                    .transpose()?;
                Ok((pack(change, options.compression)?, back))
            },
            |(frame, back)| {
                writer.push(&frame)?;
                back.map_or(Ok(()), |back| writer.push_back(&back))
            },
        )
    })
}

/// As [`write_diff`], for known content digests. The given views of `base` and `target` may show only a part of them,
/// as long as they differ in the same pages.
pub fn write_diff_known<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    digests: [Option<ContentDigest>; 2],
    out: W,
    name: impl Into<PathBuf>,
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    let [base_digest, target_digest] = digests;
    written(
        base,
        target,
        (out, name.into()),
        options,
        |base, target, writer| {
            let compared = CompareOptions {
                digests: false,
                ..compare_options(options)
            };
            let pack = |change| pack(change, options.compression);
            let sink = |frame: PackedFrame| writer.push(&frame);
            let comparison = compare(base, target, compared, pack, sink)?;
            Ok(Comparison {
                base_digest,
                target_digest,
                ..comparison
            })
        },
    )
}

/// As [`write_diff`], if the window hashes of the base are known: it is read only in the windows that differ. `each`
/// receives the window hashes of the target with the first byte of their window, in order.
pub fn write_diff_listed<W: Write, S: ReadAt>(
    list: &WindowList<S>,
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    (out, name): (W, PathBuf),
    options: DiffOptions<'_>,
    each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<Written<W>> {
    write_diff_from_list(
        list,
        base,
        target,
        (out, name),
        options,
        (|change| change, each),
    )
}

/// As [`write_diff_listed`], with what becomes of each window's changes before they are packed.
pub(super) fn write_diff_from_list<W: Write, S: ReadAt>(
    list: &WindowList<S>,
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    (out, name): (W, PathBuf),
    options: DiffOptions<'_>,
    (change, each): (
        impl Fn(WindowChange) -> WindowChange + Sync,
        impl FnMut(u64, &WindowHashes) -> Result<()>,
    ),
) -> Result<Written<W>> {
    written(
        base,
        target,
        (out, name),
        options,
        |base, target, writer| {
            let pack = |found| pack(change(found), options.compression);
            let sink = |frame: PackedFrame| writer.push(&frame);
            compare_listed(
                list,
                (base, target),
                compare_options(options),
                pack,
                sink,
                each,
            )
        },
    )
}

fn compare_options(options: DiffOptions<'_>) -> CompareOptions<'_> {
    CompareOptions {
        work: options.work,
        digests: options.digests,
        payload: true,
        equal: options.equal,
    }
}

fn header(base: (&dyn Image, Side), target: (&dyn Image, Side)) -> DiffHeader {
    DiffHeader {
        base_size: base.0.virtual_size(),
        target_size: target.0.virtual_size(),
        program: Some(PROGRAM.to_owned()),
        base: base.1,
        target: target.1,
        undoes: Vec::new(),
    }
}

/// Writes a diff in one direction.
fn written<W: Write>(
    base: (&dyn Image, Side),
    target: (&dyn Image, Side),
    (out, name): (W, PathBuf),
    options: DiffOptions<'_>,
    compare: impl FnOnce(&dyn Image, &dyn Image, &mut DiffWriter<W>) -> Result<Comparison>,
) -> Result<Written<W>> {
    let images = [base.0, target.0];
    let writer = DiffWriter::new(out, name, &header(base, target))?;
    finish(images, writer, options, compare)
}

/// Writes the changes that `compare` finds, confirms, and writes the end.
fn finish<W: Write>(
    [base, target]: [&dyn Image; 2],
    mut writer: DiffWriter<W>,
    options: DiffOptions<'_>,
    compare: impl FnOnce(&dyn Image, &dyn Image, &mut DiffWriter<W>) -> Result<Comparison>,
) -> Result<Written<W>> {
    let comparison = compare(base, target, &mut writer)?;
    (options.confirm)()?;
    let done = writer.finish(comparison.base_digest, comparison.target_digest)?;
    Ok(Written {
        out: done.out,
        trailer: done.trailer,
        comparison,
        digest: done.digest,
        len: done.len,
    })
}
