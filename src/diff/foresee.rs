//! What the result will be, before anything is written.

use super::layers::{Layers, is_run, merge};
use super::spans::Spans;
use crate::error::Result;
use crate::image::{ContentDigest, ContentHasher, Window, data_windows, window_hash};
use crate::page::PageRange;
use crate::parallel::Buffers;

impl Layers<'_> {
    /// The content digests of the base and of the result. The base is read once, and what the diffs change in it is
    /// hashed again.
    pub fn digests(&self) -> Result<(ContentDigest, ContentDigest)> {
        let all = self.extent();
        let (old, new) = (self.base.virtual_size(), self.chain.target_size());
        let buffers = Buffers::new();
        let (mut before, mut after) = (ContentHasher::new(old), ContentHasher::new(new));
        let mut done = 0;
        let changed = self.changed_windows(all.end());
        // Runs are zero before and after, and what isn't pushed is taken for zero.
        let changed = changed.filter(|window| !matches!(window, Ok(range) if is_run(*range)));
        let windows = merge(data_windows([self.base], all), changed);
        self.workers.ordered(
            windows,
            |range: PageRange| {
                self.progress.check()?;
                let frames = self.frames(range)?;
                let ranges = self.touched(range, &frames);
                if ranges.is_empty() && range.end() <= old.min(new) {
                    let hashes = window_hash(self.base, range, &buffers)?;
                    return Ok((range, hashes.clone(), hashes));
                }
                let mut window = Window::read(self.base, range, &buffers)?;
                let before = window.hashes(old);
                if !self.stays_zero(range, &frames)? {
                    for range in &ranges {
                        window.fill(*range);
                    }
                    let all = Spans::whole(range);
                    self.lay_over(range, frames, &all, window.bytes_mut(), false)?;
                }
                let after = if old == new {
                    window.hashes_again(new, &before, &ranges)
                } else {
                    window.hashes(new)
                };
                buffers.give(window.into_bytes());
                Ok((range, before, after))
            },
            |(range, hashes, changed)| {
                before.push(range.start(), &hashes);
                after.push(range.start(), &changed);
                self.progress.advance(range.end() - done);
                done = range.end();
                Ok(())
            },
        )?;
        self.progress.advance(all.end() - done);
        Ok((before.finish(), after.finish()))
    }
}
