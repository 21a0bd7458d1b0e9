//! An image that acts as if it were remote: every request takes a while, and all requests are counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use vhdkit::Result;
use vhdkit::image::{Extent, ExtentState, Extents, Image, IoHints, check_within};
use vhdkit::page::PageRange;

/// Length of the alternating stretches of data and zeros.
const STRETCH: u64 = 3 << 20;

/// The requests that a [`CountingImage`] has received.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The ranges that were read.
    pub(crate) reads: Vec<(u64, u64)>,
    pub(crate) in_flight: usize,
    /// The highest number of requests in flight at once.
    pub(crate) most: usize,
}

/// A disk whose content is a function of the offset, with or without holes.
pub(crate) struct CountingImage {
    size: u64,
    sparse: bool,
    latency: Duration,
    hints: IoHints,
    /// Requests wait for a while until this many are in flight at once.
    gather: AtomicUsize,
    asked: Mutex<Asked>,
    gathered: Condvar,
    listings: AtomicUsize,
}

impl CountingImage {
    pub(crate) fn new(size: u64, sparse: bool, latency: Duration, hints: IoHints) -> Self {
        Self {
            size,
            sparse,
            latency,
            hints,
            gather: AtomicUsize::new(0),
            asked: Mutex::default(),
            gathered: Condvar::new(),
            listings: AtomicUsize::new(0),
        }
    }

    /// Returns a local image of the same content.
    pub(crate) fn near(&self) -> Self {
        Self::new(self.size, self.sparse, Duration::ZERO, IoHints::LOCAL)
    }

    fn is_data(&self, offset: u64) -> bool {
        !self.sparse || (offset / STRETCH).is_multiple_of(2)
    }

    /// Sets whether requests wait from now on until enough of them are in flight.
    pub(crate) fn gather(&self, gather: bool) {
        let depth = usize::from(self.hints.depth);
        self.gather
            .store(if gather { depth } else { 0 }, Ordering::Relaxed);
    }

    /// Returns the requests so far and resets the count.
    pub(crate) fn take(&self) -> (Asked, usize) {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        (asked, self.listings.swap(0, Ordering::Relaxed))
    }
}

impl Image for CountingImage {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.size, offset, buf.len())?;
        let mut asked = self.asked.lock().unwrap();
        asked.in_flight += 1;
        asked.most = asked.most.max(asked.in_flight);
        asked.reads.push((offset, buf.len() as u64));
        self.gathered.notify_all();
        let enough = |asked: &mut Asked| asked.most < self.gather.load(Ordering::Relaxed);
        let patience = Duration::from_secs(20);
        drop(self.gathered.wait_timeout_while(asked, patience, enough));
        thread::sleep(self.latency);
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let end = ((at / 65536 + 1) * 65536).min(at + rest.len() as u64);
            let (piece, later) = rest.split_at_mut(usize::try_from(end - at).unwrap());
            let byte = u8::try_from(at / 65536 % 251 + 1).unwrap();
            piece.fill(if self.is_data(at) { byte } else { 0 });
            (at, rest) = (end, later);
        }
        self.asked.lock().unwrap().in_flight -= 1;
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.listings.fetch_add(1, Ordering::Relaxed);
        let step = if self.sparse { STRETCH } else { self.size };
        let within = within.cut_to(PageRange::covering(0, self.size));
        Box::new(within.windows(step).map(|range| {
            let data = self.is_data(range.start());
            let state = if data {
                ExtentState::Data
            } else {
                ExtentState::Zero
            };
            Ok(Extent { range, state })
        }))
    }

    fn io(&self) -> IoHints {
        self.hints
    }
}
