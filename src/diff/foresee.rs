//! Computes the digests of the result before anything is written.

use super::applier::{Applier, ChangedRuns, is_run, stays_zero};
use super::range_buffer::RangeBuffer;
use crate::error::Result;
use crate::image::{
    ContentDigest, ContentHasher, DIGEST_WINDOW, Hash, Pass, WINDOW_SIZE, Window, WindowHashes,
    WindowList, Windows, all_needed, unknown, whole, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::Buffers;
use crate::storage::ReadAt;

/// A digest window that changes, and its hashes before and after.
type Foreseen = (PageRange, WindowHashes, WindowHashes);

impl Applier<'_> {
    /// Computes the content digests of the base and of the result. The base is read once, and the parts that the diffs
    /// change are hashed again. `each` receives the window hashes of the result, in order; omitted windows are zero.
    pub fn digests(
        &self,
        mut each: impl FnMut(u64, &WindowHashes),
    ) -> Result<(ContentDigest, ContentDigest)> {
        let (old, new) = (self.base.virtual_size(), self.chain.target_size());
        let (mut before, mut after) = (ContentHasher::new(old), ContentHasher::new(new));
        let pass = Pass::over([self.base], self.work()).within(self.extent());
        let windows = pass.windows(ChangedRuns::of(self));
        pass.run(
            // Runs are zero before and after, and omitted windows count as zero.
            windows.filter(|window| !matches!(window, Ok((range, _)) if is_run(*range))),
            all_needed,
            |[mut window], ()| {
                let range = window.range();
                let frames = self.frames(range)?;
                let ranges = self.touched(range, &frames);
                if ranges.is_empty() && range.end() <= old.min(new) {
                    let hashes = window.hash()?;
                    return Ok((hashes.clone(), hashes));
                }
                window.read()?;
                let before = window.hashes(old);
                if !stays_zero(window.data(), &frames) {
                    ranges.iter().try_for_each(|range| window.fill(*range))?;
                    let all = RangeBuffer::whole(range);
                    self.lay_over(range, frames, &all, window.bytes_mut(), false)?;
                }
                let after = if old == new {
                    window.hashes_again(new, &before, &ranges)
                } else {
                    window.hashes(new)
                };
                Ok((before, after))
            },
            |range, (hashes, changed)| {
                before.push(range.start(), &hashes);
                after.push(range.start(), &changed);
                each(range.start(), &changed);
                Ok(())
            },
        )?;
        Ok((before.finish(), after.finish()))
    }

    /// Computes the content digest of the result from the list of window hashes of the base: only the digest windows
    /// that change are read. `each` is as for [`digests`](Self::digests). Returns `None` if the base doesn't match the
    /// list where it was read, or if the disk is resized.
    pub fn digest_by_list<S: ReadAt>(
        &self,
        list: &WindowList<S>,
        mut each: impl FnMut(u64, &WindowHashes),
    ) -> Result<Option<ContentDigest>> {
        let size = self.base.virtual_size();
        let sizes = self.chain.diffs().iter().map(|diff| diff.header());
        let mut sizes = sizes.flat_map(|header| [header.base_size, header.target_size]);
        if list.virtual_size() != size || sizes.any(|other| other != size) {
            return Ok(None);
        }
        let buffers = Buffers::new();
        let mut after = ContentHasher::new(size);
        let mut put = |start, hashes: &WindowHashes| {
            after.push(start, hashes);
            each(start, hashes);
        };
        let mut listed = list.hashes().peekable();
        let mut fits = true;
        let hints = self.base.io();
        // A window, and the payload of its frames.
        let each = 2 * WINDOW_SIZE + u64::from(hints.window_memory);
        self.work().pass(
            size,
            (hints.ahead(self.workers), |(): &_| each),
            Windows::within(whole(self.base), ChangedRuns::of(self)),
            |window, ()| self.foresee(window, &buffers),
            |_, parts| Ok(parts),
            |_, parts: Vec<Foreseen>| {
                for (part, before, changed) in parts {
                    let earlier = |next: &Result<(u64, Hash)>| !matches!(next, Ok((at, _)) if *at >= part.start());
                    while let Some(next) = listed.next_if(earlier) {
                        let (start, hash) = next?;
                        put(start, &hash.into());
                    }
                    let here = |next: &Result<(u64, Hash)>| matches!(next, Ok((at, _)) if *at == part.start());
                    let known = match listed.next_if(here) {
                        Some(next) => next?.1,
                        None => zero_hash(part.len()),
                    };
                    fits &= before.as_slice() == [known];
                    put(part.start(), &changed);
                }
                Ok(())
            },
        )?;
        for next in listed {
            let (start, hash) = next?;
            put(start, &hash.into());
        }
        Ok(fits.then(|| after.finish()))
    }

    /// Returns the digest windows that change within `window`, or within a run of windows that stay zero.
    fn foresee(&self, window: PageRange, buffers: &Buffers) -> Result<Vec<Foreseen>> {
        if is_run(window) {
            return Ok(Vec::new());
        }
        let frames = self.frames(window)?;
        if self.is_kept_zero(window, &frames)? {
            return Ok(Vec::new());
        }
        let ranges = self.touched(window, &frames);
        let parts: Vec<_> = window
            .windows(DIGEST_WINDOW)
            .filter(|part| ranges.iter().any(|range| range.intersect(*part).is_some()))
            .collect();
        let mut bytes = Window::of(self.base, window, buffers)?;
        // Only what changes is read.
        let spare: Vec<_> = unknown(window, &parts).collect();
        bytes.fetch(WINDOW_SIZE, &spare)?;
        let before: Vec<_> = parts.iter().map(|part| bytes.hash_of(*part)).collect();
        ranges.iter().try_for_each(|range| bytes.fill(*range))?;
        let all = RangeBuffer::whole(window);
        self.lay_over(window, frames, &all, bytes.bytes_mut(), false)?;
        let changes = parts.into_iter().zip(before);
        let foreseen = changes.map(|(part, before)| (part, before, bytes.hash_of(part)));
        Ok(foreseen.collect())
    }
}
