//! Squashing: merges consecutive diffs into one that leads from the base of the first to the target of the last,
//! without any image.
//!
//! ```text
//!   indexes of all diffs ──► plan ──► windows and runs ──► fold ──► pack ──► writer
//!                                     (in order)           (all threads)     (in order)
//! ```
//!
//! The plan walks the indexes in parallel. Where there are only long clears, whole runs of windows are one item;
//! elsewhere the frames of a window are applied one after another. In a reversible chain, both directions are folded
//! together: what one of them writes to a page is what the other one finds there.

mod fold;
mod plan;

use std::io::Write;
use std::path::PathBuf;

use super::chain::Chain;
use super::format::{DiffHeader, Direction};
use super::make::PROGRAM;
use super::pack::Compression;
use super::writer::{DiffWriter, FinishedDiff};
use crate::error::Result;
use crate::image::{ContentDigest, WINDOW_SIZE};
use crate::parallel::{Buffers, Work};
use fold::{Folded, Folder};
use plan::{FoldPlan, Item, Lane};

/// Options for [`squash`].
#[derive(Debug, Clone, Copy)]
pub struct SquashOptions<'a> {
    /// The threads, and the receiver of progress.
    pub work: Work<'a>,
    /// How payloads are stored that have to be packed again. A window that only one diff changes keeps its bytes.
    pub compression: Compression,
}

/// Writes one diff that has the effect of all diffs of `chain` to `out`, which messages call `name`. It is reversible
/// if all of them are.
///
/// Memory is bounded by the number of threads, except for what open diffs hold: the roots of their indexes and a
/// segment each.
pub fn squash<W: Write>(
    chain: &Chain,
    out: W,
    name: impl Into<PathBuf>,
    options: SquashOptions<'_>,
) -> Result<FinishedDiff<W>> {
    let reversed = chain.reversed();
    let header = header(chain);
    let mut writer = if reversed.is_some() {
        DiffWriter::reversible(out, name, &header)?
    } else {
        DiffWriter::new(out, name, &header)?
    };
    let lanes: Vec<Lane<'_>> = [Some(chain), reversed.as_ref()]
        .into_iter()
        .flatten()
        .map(Lane::new)
        .collect();
    let buffers = Buffers::new();
    let folder = Folder {
        lanes: &lanes,
        buffers: &buffers,
        compression: options.compression,
        from_empty: reversed.is_none() && starts_empty(chain),
    };
    let mut done = 0;
    let workers = options.work.workers;
    // For each lane the combined content, a frame and its payload, and what is packed.
    let each = lanes.len() as u64 * 4 * WINDOW_SIZE;
    workers.ordered_within(
        (workers.room(), usize::MAX),
        |item: &Item| if item.run { 0 } else { each },
        FoldPlan::new(&lanes),
        |item: Item| {
            options.work.progress.check()?;
            Ok((item.range.end(), folder.fold(&item)?))
        },
        |(end, folded)| {
            options.work.progress.advance(end - done);
            done = end;
            for (direction, folded) in Direction::BOTH.into_iter().zip(folded) {
                match (direction, folded) {
                    (_, None) => {}
                    (Direction::Forward, Some(Folded::Pages(frame))) => writer.push(&frame)?,
                    (Direction::Back, Some(Folded::Pages(frame))) => writer.push_back(&frame)?,
                    (_, Some(Folded::Clear(range, hash))) => {
                        writer.push_long_clear(direction, range, hash)?;
                    }
                }
            }
            Ok(())
        },
    )?;
    writer.finish(chain.base_digest(), chain.target_digest())
}

/// Whether the first diff starts from an empty disk: what lies under a page is zero then, whatever it is.
fn starts_empty(chain: &Chain) -> bool {
    chain.base_digest() == Some(ContentDigest::of_empty(chain.base_size()))
}

fn header(chain: &Chain) -> DiffHeader {
    DiffHeader {
        base_size: chain.base_size(),
        target_size: chain.target_size(),
        program: Some(PROGRAM.to_owned()),
        base: chain
            .first()
            .map(|diff| diff.header().base.clone())
            .unwrap_or_default(),
        target: chain
            .last()
            .map(|diff| diff.header().target.clone())
            .unwrap_or_default(),
        undoes: Vec::new(),
    }
}
