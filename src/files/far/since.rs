//! Finds the ranges of a blob that were written since its newest snapshot.

use super::bring::Bring;
use super::ranges::Outside;
use crate::blob::{BlobFile, Since};
use crate::error::{Error, Result};
use crate::image::{Image as _, RawImage};
use crate::page::PageRange;
use crate::parallel::Work;
use crate::storage::ReadAt as _;

/// The ranges written since that snapshot; `None` if the service can't list them.
pub(super) fn written_since(blob: &BlobFile, since: &str) -> Option<Vec<PageRange>> {
    let changes = blob
        .changes_since(&Since::Snapshot(since.to_owned()))
        .ok()?;
    Some(changes.iter().map(|change| change.range).collect())
}

/// Fails if the content of the blob differs from that of its newest snapshot, taken at `since`, and so isn't in any snapshot.
/// The ranges `written` since may be equal again, such as after a rollback to that snapshot.
pub(super) fn refuse_foreign_writes(
    blob: &BlobFile,
    since: &str,
    written: Option<&[PageRange]>,
    work: Work<'_>,
) -> Result<()> {
    if written.is_some_and(<[PageRange]>::is_empty) {
        return Ok(());
    }
    let newest = RawImage::open(blob.at(since)?)?;
    let size = newest.virtual_size();
    let all = [PageRange::covering(0, size)];
    let ranges = written.unwrap_or(&all);
    work.progress
        .begin("comparing with the newest snapshot", size);
    let equal = Outside { ranges, size };
    let bring = Bring {
        workers: work.workers,
        progress: work.progress,
        equal: &equal,
        digest: false,
    };
    if blob.byte_len()? == size && bring.is_done(blob, &newest)? {
        return Ok(());
    }
    Err(
        Error::mismatch("the blob was written since its newest snapshot, by another program")
            .with_path(blob.name())
            .with_found("pages that no snapshot has")
            .with_expected(format_args!("what the snapshot {since} holds"))
            .with_hint(
                "nothing was changed: to keep what was written, take a snapshot of the blob; new points in time can go to \
                 another container or prefix",
            ),
    )
}
