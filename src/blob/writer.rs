//! Writes pages: data is collected into large requests, which a few threads send.
//!
//! Overlapping requests never wait or run at the same time, so the last write to a page wins. A request whose response
//! is lost may still land later. So each contains the highest sequence number that the blob may have; after a lost
//! response the blob's number is raised, which bars requests that may still be pending, and only then is the request
//! repeated.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::failure::{Done, Failure};
use super::retry::Retry;
use super::store::{Answer, BlobId, Changed, Conditions, MAX_PUT, PageStore, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PageRange, to_usize};

/// The most requests that wait for a thread; together with the running ones, a bound on memory.
const WAITING: usize = 4;

/// The blob to write to, and how.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) store: Arc<dyn PageStore>,
    pub(super) blob: BlobId,
    pub(super) retry: Retry,
    /// The id of the held lease.
    pub(super) lease: Option<String>,
    /// The sequence number of the blob; `None` if conditions aren't supported.
    pub(super) sequence: Option<Mutex<u64>>,
}

impl Target {
    fn number(&self) -> Option<u64> {
        let number = self.sequence.as_ref()?;
        Some(*number.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Raises the sequence number above `seen`, so that no earlier request can land any more.
    fn bar(&self, seen: u64) -> Answer<()> {
        let Some(number) = &self.sequence else {
            return Ok(());
        };
        let mut number = number.lock().unwrap_or_else(PoisonError::into_inner);
        if *number > seen {
            // Another thread has done it.
            return Ok(());
        }
        let next = seen.saturating_add(1);
        let only_if = Conditions {
            lease: self.lease.clone(),
            ..Conditions::default()
        };
        let raised = Sequence::AtLeast(next);
        let answer = self
            .retry
            .run(|| self.store.set_sequence(&self.blob, raised, &only_if))?;
        *number = answer.sequence.unwrap_or(next).max(next);
        Ok(())
    }

    /// Sends an idempotent request until its outcome is known.
    pub(super) fn send(&self, request: impl Fn(&Conditions) -> Answer<Changed>) -> Answer<Changed> {
        let mut attempts = self.retry.begin();
        loop {
            let number = self.number();
            let only_if = Conditions {
                lease: self.lease.clone(),
                sequence_at_most: number,
                ..Conditions::default()
            };
            let failure = match request(&only_if) {
                Ok(changed) => return Ok(changed),
                Err(failure) => failure,
            };
            // It was barred together with a request of another thread.
            if failure.is("SequenceNumberConditionNotMet") && number < self.number() {
                continue;
            }
            let failure = attempts.wait(failure)?;
            if let Some(number) = number
                && failure.done() == Done::Perhaps
            {
                self.bar(number)?;
            }
        }
    }

    fn carry_out(&self, job: &Job) -> Answer<Changed> {
        match job {
            Job::Put(at, data) => {
                self.send(|only_if| self.store.put_pages(&self.blob, *at, data, only_if))
            }
            Job::Clear(range) => {
                let range = PageRange::covering(range.start, range.end);
                self.send(|only_if| self.store.clear_pages(&self.blob, range, only_if))
            }
        }
    }
}

#[derive(Debug)]
enum Job {
    Put(u64, Vec<u8>),
    Clear(Range<u64>),
}

impl Job {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Put(at, data) => *at..at.saturating_add(data.len() as u64),
            Self::Clear(range) => range.clone(),
        }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The queue and its threads.
#[derive(Debug)]
pub(super) struct Writer {
    work: Arc<Work>,
    depth: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Work {
    target: Target,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The data that is being collected.
    open: Option<(u64, Vec<u8>)>,
    waiting: VecDeque<Job>,
    running: Vec<Range<u64>>,
    /// Idle threads.
    idle: usize,
    failed: Option<Failed>,
    closed: bool,
}

/// The first error, until it is reported, and the error after that.
#[derive(Debug)]
struct Failed {
    error: Option<Error>,
    kind: ErrorKind,
    message: String,
}

impl Queue {
    fn open_range(&self) -> Option<Range<u64>> {
        let (at, data) = self.open.as_ref()?;
        Some(*at..at.saturating_add(data.len() as u64))
    }

    fn is_under_way(&self, range: &Range<u64>) -> bool {
        let waiting = self.waiting.iter().any(|job| overlap(&job.range(), range));
        waiting || self.running.iter().any(|running| overlap(running, range))
    }

    fn check(&mut self) -> Result<()> {
        match &mut self.failed {
            None => Ok(()),
            Some(failed) => Err(failed.error.take().unwrap_or_else(|| {
                Error::new(
                    failed.kind,
                    format!("an earlier write failed: {}", failed.message),
                )
            })),
        }
    }
}

impl Writer {
    /// Creates a writer with at most `depth` threads.
    pub(super) fn new(target: Target, depth: usize) -> Self {
        Self {
            work: Arc::new(Work {
                target,
                queue: Mutex::default(),
                changed: Condvar::new(),
            }),
            depth: depth.max(1),
            threads: Mutex::default(),
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.work.target
    }

    /// Writes whole pages, at some time before the next [`drain`](Self::drain) returns.
    pub(super) fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        let (mut at, mut rest) = (offset, data);
        let mut queue = self.lock();
        while !rest.is_empty() {
            queue.check()?;
            let room = MAX_PUT - at % MAX_PUT;
            let wanted = at..at.saturating_add((rest.len() as u64).min(room));
            match queue.open_range() {
                // It overwrites data that hasn't been sent yet.
                Some(open) if open.contains(&at) => {
                    let take = rest.len().min(to_usize(open.end - at));
                    let (now, later) = rest.split_at(take);
                    let from = to_usize(at - open.start);
                    let place = queue
                        .open
                        .as_mut()
                        .and_then(|(_, data)| data.get_mut(from..from + take));
                    if let Some(place) = place {
                        place.copy_from_slice(now);
                    }
                    (at, rest) = (at + take as u64, later);
                }
                // It continues the last write.
                Some(open)
                    if open.end == at
                        && !at.is_multiple_of(MAX_PUT)
                        && !queue.is_under_way(&wanted) =>
                {
                    let (now, later) = rest.split_at(to_usize(wanted.end - at));
                    if let Some((_, data)) = &mut queue.open {
                        data.extend_from_slice(now);
                    }
                    (at, rest) = (wanted.end, later);
                    if at.is_multiple_of(MAX_PUT) {
                        queue = self.close_open(queue)?;
                    }
                }
                Some(_) => queue = self.close_open(queue)?,
                None if queue.is_under_way(&wanted) => queue = self.wait(queue),
                None => {
                    let (now, later) = rest.split_at(to_usize(wanted.end - at));
                    queue.open = Some((at, now.to_vec()));
                    (at, rest) = (wanted.end, later);
                    if at.is_multiple_of(MAX_PUT) {
                        queue = self.close_open(queue)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes whole pages read as zeros, at some time before the next [`drain`](Self::drain) returns.
    pub(super) fn clear(&self, range: Range<u64>) -> Result<()> {
        let mut queue = self.lock();
        loop {
            queue.check()?;
            if queue
                .open_range()
                .is_some_and(|open| overlap(&open, &range))
            {
                queue = self.close_open(queue)?;
            } else if queue.is_under_way(&range) {
                queue = self.wait(queue);
            } else {
                break;
            }
        }
        if let Some(Job::Clear(last)) = queue.waiting.back_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return Ok(());
        }
        drop(self.push(queue, Job::Clear(range))?);
        Ok(())
    }

    /// Returns when no write to `range` is pending.
    pub(super) fn wait_for(&self, range: &Range<u64>) -> Result<()> {
        let mut queue = self.lock();
        loop {
            queue.check()?;
            if queue.open_range().is_some_and(|open| overlap(&open, range)) {
                queue = self.close_open(queue)?;
            } else if queue.is_under_way(range) {
                queue = self.wait(queue);
            } else {
                return Ok(());
            }
        }
    }

    /// Returns when everything is written. Fails with the first error of any write.
    pub(super) fn drain(&self) -> Result<()> {
        let mut queue = self.lock();
        if queue.open.is_some() && queue.failed.is_none() {
            queue = self.close_open(queue)?;
        }
        while !queue.waiting.is_empty() || !queue.running.is_empty() {
            queue = self.wait(queue);
        }
        queue.check()
    }

    /// Passes the collected data to the threads.
    fn close_open<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> Result<MutexGuard<'a, Queue>> {
        match queue.open.take() {
            Some((at, data)) => self.push(queue, Job::Put(at, data)),
            None => Ok(queue),
        }
    }

    fn push<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        job: Job,
    ) -> Result<MutexGuard<'a, Queue>> {
        // It is queued at once, so that no other write to the same pages can get in before it.
        queue.waiting.push_back(job);
        if queue.idle == 0 {
            self.spawn()?;
        }
        self.work.changed.notify_all();
        while queue.waiting.len() > WAITING && queue.failed.is_none() {
            queue = self.wait(queue);
        }
        queue.check()?;
        Ok(queue)
    }

    fn spawn(&self) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.len() >= self.depth {
            return Ok(());
        }
        let work = Arc::clone(&self.work);
        let name = format!("blob-{}", threads.len());
        match thread::Builder::new().name(name).spawn(move || work.run()) {
            Ok(thread) => threads.push(thread),
            Err(e) if threads.is_empty() => return Err(Error::io("cannot start a thread", e)),
            // Fewer threads suffice.
            Err(_) => {}
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.work
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let waited = self.work.changed.wait(queue);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        {
            let mut queue = self.lock();
            queue.closed = true;
            queue.waiting.clear();
        }
        // Data that wasn't drained was never guaranteed.
        self.work.target.retry.stop();
        self.work.changed.notify_all();
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Work {
    fn run(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(job) = queue.waiting.pop_front() else {
                if queue.closed {
                    return;
                }
                queue.idle += 1;
                queue = self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            let range = job.range();
            queue.running.push(range.clone());
            drop(queue);
            self.changed.notify_all();
            let done = self.target.carry_out(&job);
            drop(job);
            queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.running.retain(|running| *running != range);
            if let Err(failure) = done {
                Self::fail(&mut queue, failure);
            }
            self.changed.notify_all();
        }
    }

    fn fail(queue: &mut Queue, failure: Failure) {
        queue.waiting.clear();
        if queue.failed.is_none() {
            let error = failure.into_error();
            queue.failed = Some(Failed {
                kind: error.kind(),
                message: error.to_string(),
                error: Some(error),
            });
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

    const SIZE: u64 = 64 << 20;

    fn writer(store: MemoryStore, depth: usize) -> (Arc<MemoryStore>, Writer) {
        let store = Arc::new(store);
        let blob = BlobId::live("b");
        let new = NewBlob {
            size: SIZE,
            ..NewBlob::default()
        };
        store.create(&blob, &new, &Conditions::default()).unwrap();
        let target = Target {
            store: Arc::clone(&store) as Arc<dyn PageStore>,
            blob,
            retry: at_once(),
            lease: None,
            sequence: Some(Mutex::new(0)),
        };
        (Arc::clone(&store), Writer::new(target, depth))
    }

    /// Random writes and clears, on the blob and on bytes.
    fn scribble(store: MemoryStore, depth: usize, seed: u64) {
        let (store, writer) = writer(store, depth);
        let mut bytes = vec![0; SIZE as usize];
        let mut seed = seed;
        let mut next = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % most
        };
        for n in 0..150_u64 {
            let start = next(SIZE / 512) * 512;
            let len = ((1 + next(if n % 10 == 0 { 12_000 } else { 40 })) * 512).min(SIZE - start);
            // Often close to the last one.
            let start = if n % 3 == 0 { start % (1 << 20) } else { start };
            let range = start as usize..(start + len) as usize;
            if next(4) == 0 {
                bytes[range].fill(0);
                writer.clear(start..start + len).unwrap();
            } else {
                let data = vec![n as u8 + 1; len as usize];
                bytes[range].copy_from_slice(&data);
                writer.put(start, &data).unwrap();
            }
            if next(20) == 0 {
                writer.wait_for(&(start..start + len)).unwrap();
            }
        }
        writer.drain().unwrap();
        drop(writer);
        assert!(store.bytes(&BlobId::live("b")).unwrap() == bytes);
    }

    #[test]
    fn the_last_write_stays() {
        for depth in [1, 2, 8] {
            scribble(MemoryStore::default(), depth, depth as u64);
        }
    }

    #[test]
    fn the_last_write_stays_whatever_happens_to_answers() {
        for (seed, faults) in [
            [Fault::Lost, Fault::Never],
            [Fault::Busy, Fault::Late(3)],
            [Fault::Late(1), Fault::Late(20)],
        ]
        .into_iter()
        .enumerate()
        {
            let store = MemoryStore::default().with_faults(move |call| match call.number % 7 {
                3 if call.what != "create" => Some(faults[0]),
                5 if call.what.ends_with("_pages") => Some(faults[1]),
                _ => None,
            });
            scribble(store, 4, 100 + seed as u64);
        }
    }

    #[test]
    fn small_writes_in_a_row_become_large_requests() {
        let (store, writer) = writer(MemoryStore::default(), 4);
        for at in (0..8 << 20).step_by(64 << 10) {
            writer.put(at, &vec![1; 64 << 10]).unwrap();
        }
        writer.drain().unwrap();
        assert_eq!(store.requests(), 1 + 2);
    }

    #[test]
    fn the_first_error_is_told_once_and_stays() {
        let store = MemoryStore::default()
            .with_faults(|call| (call.what == "put_pages").then_some(Fault::Forbidden));
        let (_, writer) = writer(store, 2);
        writer.put(0, &[1; 512]).unwrap();
        let first = writer.drain().unwrap_err();
        assert!(first.to_string().contains("403"), "{first}");
        let second = writer.drain().unwrap_err();
        assert!(
            second.to_string().starts_with("an earlier write failed"),
            "{second}"
        );
        assert!(writer.put(0, &[1; 512]).is_err());
        assert!(writer.clear(0..512).is_err());
    }

    #[test]
    fn who_is_kept_out_by_another_writer_hears_of_it() {
        let (store, writer) = writer(MemoryStore::default(), 2);
        let blob = BlobId::live("b");
        // Another program raises the number, as programs do before they write.
        store
            .set_sequence(&blob, Sequence::Next, &Conditions::default())
            .unwrap();
        writer.put(0, &[1; 512]).unwrap();
        assert_eq!(writer.drain().unwrap_err().kind(), ErrorKind::Changed);
    }
}
