//! The pipeline: processes items in parallel and delivers the results in order, in bounded memory.
//!
//! ```text
//!   items ──► work (all threads, any order) ──► results, reordered ──► sink (the calling thread, in order)
//!             at most two items per thread between the two ends, and no more than there is memory for
//! ```
//!
//! All output is written by the sink, so it never depends on the number of threads.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use crate::error::{Error, ErrorKind, Result};

mod buffers;
mod bytes;
mod work;

pub use buffers::{Buffer, Buffers};
pub use bytes::Bytes;
pub use work::{IoHints, Work};

/// A pool of threads for reading, comparing, hashing and packing.
#[derive(Debug, Clone)]
pub struct Workers {
    pool: Arc<rayon::ThreadPool>,
}

impl Workers {
    /// Creates a pool of `threads`, or of one per processor if `None`.
    pub fn new(threads: Option<NonZeroUsize>) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.map_or(0, NonZeroUsize::get))
            .thread_name(|n| format!("worker-{n}"))
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::Io, "cannot start the worker threads").with_source(e)
            })?;
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The most items in progress: two per thread keep all threads busy while the sink takes one; more would cost
    /// memory.
    fn ahead(&self) -> usize {
        self.threads() * 2
    }

    /// The most bytes that the items of one job should occupy. With up to 16 threads no command needs more than 128 MiB
    /// in all; with more, memory grows with their number, so that all of them find work.
    pub(crate) fn room(&self) -> u64 {
        const ROOM: u64 = 88 << 20;
        let each = ROOM / 16;
        ROOM.max(each.saturating_mul(self.threads() as u64))
    }

    /// Calls `work` on each item on the pool, and `sink` with each result on the calling thread, in the order of the
    /// items. Stops at the first error in that order and returns it; items in progress are finished and dropped.
    pub fn ordered<T: Send, R: Send>(
        &self,
        items: impl IntoIterator<Item = Result<T>>,
        work: impl Fn(T) -> Result<R> + Sync,
        sink: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        self.ordered_within((u64::MAX, usize::MAX), |_| 0, items, work, sink)
    }

    /// As [`ordered`](Self::ordered), with at most `most` items in progress, limited to `room` bytes of memory: each
    /// occupies what `cost` returns until the sink has taken its result. One is always admitted, however large.
    pub fn ordered_within<T: Send, R: Send>(
        &self,
        (room, most): (u64, usize),
        cost: impl Fn(&T) -> u64,
        items: impl IntoIterator<Item = Result<T>>,
        work: impl Fn(T) -> Result<R> + Sync,
        mut sink: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let mut items = items.into_iter().fuse();
        let stop = AtomicBool::new(false);
        let (work, stop) = (&work, &stop);
        self.pool.in_place_scope_fifo(|scope| {
            // One channel per item in progress, in order: receiving from the first one restores the order of the
            // results.
            let mut under_way: VecDeque<(mpsc::Receiver<Result<R>>, u64)> = VecDeque::new();
            let (mut bytes, mut held, mut more) = (0_u64, None, true);
            let result = loop {
                while more && under_way.len() < self.ahead().min(most) {
                    let Some(item) = held.take().or_else(|| items.next()) else {
                        break;
                    };
                    let (sender, receiver) = mpsc::sync_channel(1);
                    let size = match item {
                        // An error keeps its position: earlier results still reach the sink.
                        Err(error) => {
                            more = false;
                            let _ = sender.send(Err(error));
                            0
                        }
                        Ok(item) => {
                            let size = cost(&item);
                            if size > room.saturating_sub(bytes) && !under_way.is_empty() {
                                held = Some(Ok(item));
                                break;
                            }
                            scope.spawn_fifo(move |_| {
                                if !stop.load(Ordering::Relaxed) {
                                    let _ = sender.send(work(item));
                                }
                            });
                            size
                        }
                    };
                    bytes = bytes.saturating_add(size);
                    under_way.push_back((receiver, size));
                }
                let Some((first, size)) = under_way.pop_front() else {
                    break Ok(());
                };
                // A worker drops its channel only if it panicked; the scope propagates the panic.
                let result = first.recv().unwrap_or_else(|_| Err(Error::interrupted()));
                if let Err(error) = result.and_then(&mut sink) {
                    break Err(error);
                }
                bytes = bytes.saturating_sub(size);
            };
            stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// How far a pipeline [reads ahead](Workers::fetched) of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAhead {
    /// Items that are fetched at the same time, each by a thread of its own that mostly waits. With 0, items are
    /// fetched by the threads that process them.
    pub depth: usize,
    /// The most bytes of items in progress, from the start of the fetch until the sink has taken the result. One item
    /// is always admitted, however large.
    pub bytes: u64,
    /// The most items in progress.
    pub items: usize,
}

impl Workers {
    /// As [`ordered`](Self::ordered), with a stage before the work: `fetch` gets the bytes of each item, on
    /// [`depth`](ReadAhead::depth) separate threads. For remote sources, where requests take long and many at once pay
    /// off, while processing the results needs no more threads than there are processors.
    ///
    /// `cost` returns the number of bytes that an item will occupy in memory at most.
    pub fn fetched<T: Send, F: Send, R: Send>(
        &self,
        items: impl IntoIterator<Item = Result<T>>,
        (ahead, cost): (ReadAhead, impl Fn(&T) -> u64),
        fetch: impl Fn(T) -> Result<F> + Sync,
        work: impl Fn(F) -> Result<R> + Sync,
        mut sink: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        if ahead.depth == 0 {
            return self.ordered_within(
                (ahead.bytes, ahead.items),
                cost,
                items,
                |item| work(fetch(item)?),
                sink,
            );
        }
        let mut items = items.into_iter().fuse();
        let stop = AtomicBool::new(false);
        let (fetch, work, stop) = (&fetch, &work, &stop);
        let (queue, waiting) = mpsc::channel::<(T, mpsc::SyncSender<Result<R>>)>();
        let waiting = Mutex::new(waiting);
        self.pool.in_place_scope_fifo(|scope| {
            let next = || {
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv()
            };
            let fetcher = || {
                while let Ok((item, sender)) = next() {
                    if stop.load(Ordering::Relaxed) {
                        continue;
                    }
                    match fetch(item) {
                        Ok(fetched) => scope.spawn_fifo(move |_| {
                            if !stop.load(Ordering::Relaxed) {
                                let _ = sender.send(work(fetched));
                            }
                        }),
                        Err(error) => drop(sender.send(Err(error))),
                    }
                }
            };
            thread::scope(|threads| {
                for n in 0..ahead.depth {
                    let spawned = thread::Builder::new()
                        .name(format!("fetch-{n}"))
                        .spawn_scoped(threads, fetcher);
                    match spawned {
                        Err(e) if n == 0 => {
                            return Err(Error::io("cannot start a thread", e));
                        }
                        // With fewer threads it is only slower.
                        Err(_) => break,
                        Ok(_) => {}
                    }
                }
                let mut under_way: VecDeque<(mpsc::Receiver<Result<R>>, u64)> = VecDeque::new();
                let mut bytes = 0_u64;
                let mut held = None;
                let result = loop {
                    while under_way.len() < (ahead.depth + self.ahead()).min(ahead.items) {
                        let Some(item) = held.take().or_else(|| items.next()) else {
                            break;
                        };
                        let (sender, receiver) = mpsc::sync_channel(1);
                        let size = match item {
                            // An error keeps its position: earlier results still reach the sink.
                            Err(error) => {
                                let _ = sender.send(Err(error));
                                0
                            }
                            Ok(item) => {
                                let size = cost(&item);
                                let room = ahead.bytes.saturating_sub(bytes);
                                if size > room && !under_way.is_empty() {
                                    held = Some(Ok(item));
                                    break;
                                }
                                let _ = queue.send((item, sender));
                                size
                            }
                        };
                        bytes = bytes.saturating_add(size);
                        under_way.push_back((receiver, size));
                    }
                    let Some((first, size)) = under_way.pop_front() else {
                        break Ok(());
                    };
                    let result = first.recv().unwrap_or_else(|_| Err(Error::interrupted()));
                    if let Err(error) = result.and_then(&mut sink) {
                        break Err(error);
                    }
                    bytes = bytes.saturating_sub(size);
                };
                stop.store(true, Ordering::Relaxed);
                // Dropping the queue ends the fetchers.
                drop(queue);
                result
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    fn workers(threads: usize) -> Workers {
        Workers::new(NonZeroUsize::new(threads)).unwrap()
    }

    #[test]
    fn results_come_in_order_on_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |n: u64| {
                std::thread::sleep(std::time::Duration::from_micros(97 * (n % 5)));
                Ok(n * n)
            };
            workers(threads)
                .ordered((0..200).map(Ok), work, |n| {
                    seen.push(n);
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, (0..200).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_in_order_wins_and_stops_the_rest() {
        let items = (0..1000).map(|n| {
            if n == 50 {
                Err(Error::usage("item 50"))
            } else {
                Ok(n)
            }
        });
        let mut seen = 0;
        let work = |n| {
            if n == 40 {
                Err(Error::usage("work 40"))
            } else {
                Ok(n)
            }
        };
        let error = workers(4)
            .ordered(items, work, |_| {
                seen += 1;
                Ok(())
            })
            .unwrap_err();
        assert_eq!((error.message(), seen), ("work 40", 40));
    }

    /// Simulates a remote source: each request takes a while, and the highest number in flight is recorded.
    #[derive(Default)]
    struct Far {
        in_flight: AtomicUsize,
        most: AtomicUsize,
        requests: AtomicUsize,
    }

    impl Far {
        fn request(&self, takes: Duration) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(takes);
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }

    const AHEAD: ReadAhead = ReadAhead {
        depth: 8,
        bytes: 1 << 20,
        items: usize::MAX,
    };

    fn fetched(
        far: &Far,
        ahead: ReadAhead,
        count: u64,
        sink: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let fetch = |n: u64| {
            far.request(Duration::from_millis(2));
            Ok(n * 10)
        };
        workers(2).fetched(
            (0..count).map(Ok),
            (ahead, |_: &u64| 1 << 10),
            fetch,
            Ok,
            sink,
        )
    }

    #[test]
    fn what_is_fetched_ahead_comes_in_order_with_as_many_requests_in_flight_as_pay() {
        for depth in [0, 1, 8, 40] {
            let (far, mut seen) = (Far::default(), Vec::new());
            let ahead = ReadAhead { depth, ..AHEAD };
            fetched(&far, ahead, 200, |n| {
                seen.push(n);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, (0..200).map(|n| n * 10).collect::<Vec<_>>());
            let most = far.most.load(Ordering::SeqCst);
            assert!(most <= depth.max(2), "{most} in flight at depth {depth}");
            assert!(most * 2 >= depth, "only {most} in flight at depth {depth}");
        }
    }

    #[test]
    fn fetching_ahead_is_bounded_by_bytes_but_never_stuck() {
        for (bytes, most) in [(0, 1), (1 << 10, 1), (3 << 10, 3)] {
            let far = Far::default();
            let ahead = ReadAhead { bytes, ..AHEAD };
            let mut seen = 0;
            fetched(&far, ahead, 20, |_| {
                seen += 1;
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, 20);
            assert!(far.most.load(Ordering::SeqCst) <= most);
        }
    }

    #[test]
    fn an_error_while_fetching_keeps_its_place_and_ends_the_rest() {
        let far = Far::default();
        let mut seen = 0;
        let fetch = |n: u64| {
            far.request(Duration::from_micros(50));
            if n == 30 {
                Err(Error::usage("fetch 30"))
            } else {
                Ok(n)
            }
        };
        let work = |n: u64| {
            if n == 33 {
                Err(Error::usage("work 33"))
            } else {
                Ok(n)
            }
        };
        let error = workers(2)
            .fetched(
                (0..10_000).map(Ok),
                (AHEAD, |_: &u64| 1),
                fetch,
                work,
                |_| {
                    seen += 1;
                    Ok(())
                },
            )
            .unwrap_err();
        assert_eq!((error.message(), seen), ("fetch 30", 30));
        assert!(far.requests.load(Ordering::Relaxed) < 200);
        let stopped = fetched(&far, AHEAD, 10_000, |n| {
            if n == 50 {
                Err(Error::interrupted())
            } else {
                Ok(())
            }
        });
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn buffers_begin_where_devices_read_and_are_as_long_as_asked_for() {
        let buffers = Buffers::new();
        for len in [0, 1, 4096, 300_000, 4096] {
            let mut buffer = buffers.take(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(4096), 0);
            buffer.fill(7);
            buffers.give(buffer);
        }
    }

    #[test]
    fn items_in_progress_have_the_memory_that_they_may_and_one_always_goes_on() {
        for (room, most, expected) in [(0, 9, 1), (25, 9, 2), (1000, 9, 8), (1000, 3, 3)] {
            let (taken, mut done, mut highest) = (AtomicUsize::new(0), 0, 0);
            let items = (0..50).map(|n| {
                taken.fetch_add(1, Ordering::Relaxed);
                Ok(n)
            });
            let sink = |_: usize| {
                highest = highest.max(taken.load(Ordering::Relaxed) - done);
                done += 1;
                Ok(())
            };
            workers(4)
                .ordered_within((room, most), |_| 10, items, Ok, sink)
                .unwrap();
            assert_eq!(done, 50);
            // The next one was taken, too, if it has to wait for memory.
            let waiting = usize::from(expected < 8 && most == 9);
            assert!(highest <= expected + waiting, "{room}: {highest}");
        }
    }

    #[test]
    fn no_more_items_are_taken_than_may_be_under_way() {
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let mut done = 0;
        workers(2)
            .ordered(
                (0..100).map(|n| {
                    taken.fetch_add(1, Ordering::Relaxed);
                    Ok(n)
                }),
                Ok,
                |_: i32| {
                    done += 1;
                    assert!(taken.load(Ordering::Relaxed) <= done + 4);
                    Ok(())
                },
            )
            .unwrap();
        assert_eq!(done, 100);
    }
}
