//! The one pipeline: work in parallel on items in order, hand the results on in order, in bounded memory.
//!
//! ```text
//!   items ──► work (all threads, any order) ──► results, reordered ──► sink (the calling thread, in order)
//!             at most two items per thread between the two ends
//! ```
//!
//! Whatever is written is written by the sink, so no output depends on the number of threads.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use crate::error::{Error, ErrorKind, Result};

/// A pool of threads for reading, comparing, hashing and packing.
#[derive(Debug, Clone)]
pub struct Workers {
    pool: Arc<rayon::ThreadPool>,
}

impl Workers {
    /// A pool of `threads`, or of one per processor when `None`.
    pub fn new(threads: Option<NonZeroUsize>) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.map_or(0, NonZeroUsize::get))
            .thread_name(|n| format!("worker-{n}"))
            .build()
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the worker threads").source(e))?;
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Items under way at most: two per thread keep all busy while the sink takes one; more would cost memory.
    fn ahead(&self) -> usize {
        self.threads() * 2
    }

    /// Calls `work` on each item on the pool, and `sink` with each result on the calling thread in the order of
    /// the items. The first error in that order ends everything and is returned; what was under way is waited
    /// for and dropped.
    pub fn ordered<T: Send, R: Send>(
        &self,
        items: impl IntoIterator<Item = Result<T>>,
        work: impl Fn(T) -> Result<R> + Sync,
        mut sink: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let mut items = items.into_iter();
        let mut more = true;
        let stop = AtomicBool::new(false);
        let (work, stop) = (&work, &stop);
        self.pool.in_place_scope_fifo(|scope| {
            // One channel per item under way, in order: receiving from the first puts the results in order.
            let mut under_way: VecDeque<mpsc::Receiver<Result<R>>> = VecDeque::new();
            let result = loop {
                while more && under_way.len() < self.ahead() {
                    let (sender, receiver) = mpsc::sync_channel(1);
                    match items.next() {
                        None => {
                            more = false;
                            break;
                        }
                        // An error keeps its place: what came before it still reaches the sink.
                        Some(Err(error)) => {
                            more = false;
                            let _ = sender.send(Err(error));
                        }
                        Some(Ok(item)) => scope.spawn_fifo(move |_| {
                            if !stop.load(Ordering::Relaxed) {
                                let _ = sender.send(work(item));
                            }
                        }),
                    }
                    under_way.push_back(receiver);
                }
                let Some(first) = under_way.pop_front() else {
                    break Ok(());
                };
                // A worker hangs up without a word only when it panicked; the scope passes that on.
                let result = first.recv().unwrap_or_else(|_| Err(Error::interrupted()));
                if let Err(error) = result.and_then(&mut sink) {
                    break Err(error);
                }
            };
            stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// Where buffers begin in memory: enough for every device that is read or written past the page cache.
const ALIGNMENT: usize = 4096;

/// Bytes at an address that devices take.
#[derive(Debug, Default)]
pub struct Buffer {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Of `len` zeros.
    pub fn of(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(len);
        buffer
    }

    fn resize(&mut self, len: usize) {
        if self.room.len() < len.saturating_add(ALIGNMENT) {
            self.room = vec![0; len.saturating_add(ALIGNMENT)];
            let shift = self.room.as_ptr().align_offset(ALIGNMENT);
            // Without an aligned place it is an ordinary buffer.
            self.start = if shift < ALIGNMENT { shift } else { 0 };
        }
        self.len = len;
    }

    const fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.room.get(self.range()).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.room.get_mut(range).unwrap_or_default()
    }
}

/// Byte buffers that are used again, so that the pages behind them are touched once.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    /// An empty stock.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A buffer of `len` bytes whose content is left over from earlier use.
    pub fn take(&self, len: usize) -> Buffer {
        let mut buffer = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        buffer.resize(len);
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&self, buffer: Buffer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}

#[cfg(test)]
mod tests {
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
