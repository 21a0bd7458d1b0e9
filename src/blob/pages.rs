//! The pages of a blob that hold data, listed in as many requests as necessary.

use std::collections::BTreeMap;
use std::ops::Range;

use super::failure::{Done, Failure};
use super::retry::Retry;
use super::store::{Answer, BlobId, Conditions, PageStore, Pages, PagesAsked, Since};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};

/// The shortest range for which a list is requested if the service fails on longer ones.
const SHORTEST: u64 = 32 << 20;

/// The most ranges that are remembered; if there are more, short gaps count as data.
const MOST: usize = 1 << 21;

/// The most consecutive responses without a range that are tolerated.
const MOST_EMPTY: u32 = 1000;

/// The time of a snapshot that there can't be: page blobs came later.
const NEVER: &str = "2000-01-01T00:00:00.0000000Z";

/// What to list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing<'a> {
    pub(super) store: &'a dyn PageStore,
    pub(super) blob: &'a BlobId,
    pub(super) size: u64,
    pub(super) since: Option<&'a Since>,
    pub(super) only_if: &'a Conditions,
    pub(super) retry: &'a Retry,
}

impl Listing<'_> {
    /// Passes all ranges in order to `take`. If the service fails on the whole blob, parts of it are requested.
    pub(super) fn each(&self, mut take: impl FnMut(Change) -> Answer<()>) -> Answer<()> {
        let size = self.size - self.size % PAGE_SIZE;
        let mut parts = vec![PageRange::covering(0, size)];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let mut end = part.start();
            let listed = self.part(part, &mut |change| {
                end = change.range.end();
                take(change)
            });
            match listed {
                Ok(()) => {}
                Err(failure) if is_too_much(&failure) && part.end() - end > SHORTEST => {
                    let middle = end + (part.end() - end) / 2;
                    let middle = middle - middle % PAGE_SIZE;
                    parts.push(PageRange::covering(middle, part.end()));
                    parts.push(PageRange::covering(end, middle));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Whether the service takes notice of it when it is asked what changed since a snapshot. Some servers that stand in for
    /// it list all pages whatever they are asked, which would pass for a list of changes without clears. So it is asked
    /// about a snapshot that there can't be, which must be refused.
    pub(super) fn tells_changes(&self) -> Result<bool> {
        let asked = PagesAsked {
            within: Some(PageRange::covering(0, PAGE_SIZE)),
            since: Some(Since::Snapshot(NEVER.to_owned())),
            ..PagesAsked::default()
        };
        let answer = self
            .retry
            .run(|| self.store.pages(self.blob, &asked, self.only_if));
        match answer {
            Ok(_) => Ok(false),
            Err(failure) => match failure.status() {
                // Not that what is read was changed meanwhile.
                Some(400 | 404 | 409) => Ok(true),
                _ => match failure.into_error() {
                    error if error.kind() == ErrorKind::Unsupported => Ok(false),
                    error => Err(error),
                },
            },
        }
    }

    fn part(&self, part: PageRange, take: &mut dyn FnMut(Change) -> Answer<()>) -> Answer<()> {
        let whole = part.start() == 0 && part.end() + PAGE_SIZE > self.size;
        let mut asked = PagesAsked {
            within: (!whole).then_some(part),
            since: self.since.cloned(),
            ..PagesAsked::default()
        };
        let (mut end, mut empty) = (part.start(), 0);
        loop {
            let pages = self.ask(&asked, part)?;
            empty = if pages.list.is_empty() { empty + 1 } else { 0 };
            for change in &pages.list {
                // A server may round to its own blocks at both ends.
                let Some(range) = change.range.intersect(part) else {
                    continue;
                };
                if range.start() < end {
                    return Err(self.wrong("ranges that were listed before"));
                }
                end = range.end();
                take(Change {
                    range,
                    kind: change.kind,
                })?;
            }
            match pages.marker {
                None => return Ok(()),
                Some(marker) if asked.marker.as_ref() == Some(&marker) || empty > MOST_EMPTY => {
                    return Err(self.wrong("the same part again and again"));
                }
                marker => asked.marker = marker,
            }
        }
    }

    /// Sends one request. For a part that could be shorter, a failure that may be due to its length is not retried.
    fn ask(&self, asked: &PagesAsked, part: PageRange) -> Answer<Pages> {
        let mut attempts = self.retry.begin();
        let mut tried = 0;
        loop {
            let failure = match self.store.pages(self.blob, asked, self.only_if) {
                Ok(pages) => return Ok(pages),
                Err(failure) => failure,
            };
            tried += 1;
            if is_too_much(&failure) && part.len() > SHORTEST && tried > 1 {
                return Err(failure);
            }
            attempts.wait(failure)?;
        }
    }

    fn wrong(&self, what: &str) -> Failure {
        Error::damaged("the service lists pages that can't be right")
            .with_path(self.store.shown(self.blob))
            .with_found(what)
            .with_hint("run the command again, or copy the blob to another one and read that")
            .into()
    }
}

/// Returns whether the service may have failed because the list is too long.
fn is_too_much(failure: &Failure) -> bool {
    failure.may_pass() && failure.done() == Done::Perhaps
}

/// Lists the changes since then.
pub(super) fn changes(listing: &Listing<'_>) -> Answer<PageList> {
    let mut list = PageList::new();
    listing.each(|change| {
        if list.len() >= MOST {
            return Err(
                Error::unsupported("there are too many changed ranges to remember")
                    .with_path(listing.store.shown(listing.blob))
                    .with_found(format_args!("more than {MOST}"))
                    .with_hint("compare the two by their content")
                    .into(),
            );
        }
        Ok(list.push(change)?)
    })?;
    Ok(list)
}

/// The stored ranges of a blob; everything else reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stored {
    /// Ends by starts.
    ranges: BTreeMap<u64, u64>,
    /// Gaps up to this length count as stored.
    joined: u64,
}

impl Stored {
    /// Treats everything as stored.
    pub(super) fn all(size: u64) -> Self {
        let mut stored = Self::default();
        stored.insert(0..size);
        stored
    }

    /// Gets the list from the service.
    pub(super) fn list(listing: &Listing<'_>) -> Answer<Self> {
        let mut stored = Self::default();
        listing.each(|change| {
            if change.kind == ChangeKind::Update {
                stored.insert(change.range.start()..change.range.end());
            }
            Ok(())
        })?;
        Ok(stored)
    }

    /// Number of bytes in all ranges.
    pub(super) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Those before, and those that begin within or right after it.
        let before = self.ranges.range(..=start).next_back();
        if let Some((&s, &e)) = before
            && e.saturating_add(self.joined) >= start
        {
            start = s;
            end = end.max(e);
        }
        while let Some((&s, &e)) = self
            .ranges
            .range(start..=end.saturating_add(self.joined))
            .next()
        {
            self.ranges.remove(&s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        if self.ranges.len() > MOST {
            self.coarsen();
        }
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let before = self.ranges.range(..range.start).next_back();
        if let Some((&s, &e)) = before
            && e > range.start
        {
            self.ranges.insert(s, range.start);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
        while let Some((&s, &e)) = self.ranges.range(range.clone()).next() {
            self.ranges.remove(&s);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
    }

    /// The first run of stored bytes within `within`.
    pub(super) fn first_in(&self, within: Range<u64>) -> Option<Range<u64>> {
        let before = self.ranges.range(..=within.start).next_back();
        let here = before.filter(|(_, end)| **end > within.start);
        let found = here.or_else(|| self.ranges.range(within.clone()).next())?;
        let run = (*found.0).max(within.start)..(*found.1).min(within.end);
        (!run.is_empty()).then_some(run)
    }

    /// Joins ranges with small gaps until half as many are left.
    fn coarsen(&mut self) {
        while self.ranges.len() > MOST / 2 {
            self.joined = (self.joined * 2).max(PAGE_SIZE);
            for (start, end) in std::mem::take(&mut self.ranges) {
                match self.ranges.last_entry() {
                    Some(mut last) if last.get().saturating_add(self.joined) >= start => {
                        let joined = end.max(*last.get());
                        last.insert(joined);
                    }
                    _ => {
                        self.ranges.insert(start, end);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "sizes are those of tests")]
mod tests {
    use super::*;
    use crate::blob::memory::{Fault, MemoryStore};
    use crate::blob::retry::tests::at_once;
    use crate::blob::store::NewBlob;

    fn runs(stored: &Stored, within: Range<u64>) -> Vec<Range<u64>> {
        let mut at = within.start;
        let mut runs = Vec::new();
        while let Some(run) = stored.first_in(at..within.end) {
            at = run.end;
            runs.push(run);
        }
        runs
    }

    #[test]
    fn ranges_are_as_a_bitmap_says() {
        let mut seed = 1_u64;
        let mut next = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % most
        };
        let (mut stored, mut bits) = (Stored::default(), [false; 64]);
        for _ in 0..3000 {
            let start = next(64);
            let end = start + next(65 - start);
            let add = next(2) == 0;
            if add {
                stored.insert(start..end);
            } else {
                stored.remove(start..end);
            }
            for bit in &mut bits[start as usize..end as usize] {
                *bit = add;
            }
            let mut seen = [false; 64];
            let all = runs(&stored, 0..64);
            assert!(
                all.windows(2).all(|two| two[0].end < two[1].start),
                "{all:?}"
            );
            for run in all {
                seen[run.start as usize..run.end as usize].fill(true);
            }
            assert_eq!(seen, bits);
            let (from, to) = (next(64), next(64));
            let first = stored.first_in(from..to.max(from));
            let expected = (from..to).find(|at| bits[*at as usize]);
            assert_eq!(first.map(|run| run.start), expected);
        }
    }

    #[test]
    fn too_many_ranges_become_fewer_that_cover_them() {
        let mut stored = Stored::default();
        for page in 0..=MOST as u64 {
            stored.insert(page * 1024..page * 1024 + 512);
        }
        assert!(stored.len() <= MOST);
        assert_eq!(stored.first_in(0..512), Some(0..512));
        let last = MOST as u64 * 1024;
        assert_eq!(stored.first_in(last..last + 512), Some(last..last + 512));
    }

    fn listed(store: &MemoryStore, size: u64) -> Answer<Stored> {
        Stored::list(&Listing {
            store,
            blob: &BlobId::live("b"),
            size,
            since: None,
            only_if: &Conditions::default(),
            retry: &at_once(),
        })
    }

    fn striped(size: u64) -> MemoryStore {
        let store = MemoryStore::default();
        let (blob, any) = (BlobId::live("b"), Conditions::default());
        let new = NewBlob {
            size,
            ..NewBlob::default()
        };
        store.create(&blob, &new, &any).unwrap();
        for at in (0..size).step_by(8 << 20) {
            store.put_pages(&blob, at, &[7; 1024], &any).unwrap();
        }
        store
    }

    #[test]
    fn long_lists_come_in_pages() {
        let size = 256 << 20;
        let store = striped(size).with_longest_list(3);
        let stored = listed(&store, size).unwrap();
        assert_eq!(stored.len(), 32);
        assert_eq!(
            stored.first_in((8 << 20) + 512..size),
            Some((8 << 20) + 512..(8 << 20) + 1024)
        );
    }

    #[test]
    fn what_takes_too_long_is_asked_in_parts() {
        let size = 256 << 20;
        let store = striped(size).with_faults(|call| {
            let long = call.range.is_none_or(|range| range.len() > 40 << 20);
            (call.what == "pages" && long).then_some(Fault::Lost)
        });
        let stored = listed(&store, size).unwrap();
        assert_eq!(stored.len(), 32);
        let never = striped(size).with_faults(|call| (call.what == "pages").then_some(Fault::Lost));
        assert!(listed(&never, size).is_err());
        let refused =
            striped(size).with_faults(|call| (call.what == "pages").then_some(Fault::Forbidden));
        assert!(listed(&refused, size).is_err());
    }
}
