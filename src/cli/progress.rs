//! Progress on stderr: a bar on a terminal, otherwise occasional lines.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::{Progress, Silent};
use crate::text::shown;

/// The maximum number of redraws per second.
const DRAWS_PER_SECOND: u8 = 5;

/// The minimum time between two lines if there is no terminal. In addition, no two lines have the same percentage, so
/// that a log doesn't grow with the work.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Creates the display of progress: nothing, a bar on a terminal, or lines.
pub(super) fn new(shown: bool, terminal: bool) -> Box<dyn Progress> {
    match (shown, terminal) {
        (false, _) => Box::new(Silent),
        (true, true) => Box::new(Bar::new()),
        (true, false) => Box::new(Lines::default()),
    }
}

/// The bar on the terminal, if there is one.
static CURRENT: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn current() -> Option<ProgressBar> {
    CURRENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Does something on the terminal while the bar is hidden.
pub(super) fn hidden<T>(act: impl FnOnce() -> T) -> T {
    match current() {
        Some(bar) => bar.suspend(act),
        None => act(),
    }
}

/// Removes the bar for good, because the program ends.
pub(super) fn wipe() {
    if let Some(bar) = current() {
        bar.finish_and_clear();
    }
}

/// Bytes that were processed by everything that showed progress.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Returns the bytes that were processed so far, if they are [counted](Counted).
pub(super) fn handled() -> u64 {
    HANDLED.load(Ordering::Relaxed)
}

/// Counts processed bytes, for the summary of `-v`.
pub(super) struct Counted(pub(super) Box<dyn Progress>);

impl Progress for Counted {
    fn begin(&self, what: &str, total: u64) {
        self.0.begin(what, total);
    }

    fn advance(&self, bytes: u64) {
        HANDLED.fetch_add(bytes, Ordering::Relaxed);
        self.0.advance(bytes);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// A bar with bytes, rate and remaining time. It is removed when dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(BEGUN));
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        self.0.set_style(style(BEGUN));
        self.0.set_length(total);
        self.0.reset();
        self.0.set_message(shown(what).to_string());
    }

    fn advance(&self, bytes: u64) {
        // The speed is unknown before anything is done.
        if self.0.position() == 0 && bytes > 0 {
            self.0.set_style(style(UNDER_WAY));
        }
        self.0.inc(bytes);
    }
}

/// The template before anything is done.
const BEGUN: &str = "{msg} {wide_bar} {percent:>3}% of {binary_total_bytes}";

/// The template from then on.
const UNDER_WAY: &str = "{msg} {wide_bar} {percent:>3}% {binary_bytes} of {binary_total_bytes}, \
                         {binary_bytes_per_sec}, {eta} left";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Occasional lines, for logs.
#[derive(Default)]
struct Lines {
    done: AtomicU64,
    work: Mutex<Option<Work>>,
}

struct Work {
    what: String,
    total: u64,
    begun: Instant,
    told: Instant,
    told_percent: u128,
}

impl Progress for Lines {
    fn begin(&self, what: &str, total: u64) {
        let now = Instant::now();
        self.done.store(0, Ordering::Relaxed);
        let work = Work {
            what: shown(what).to_string(),
            total,
            begun: now,
            told: now,
            told_percent: 0,
        };
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = &mut *work {
            let percent = u128::from(done) * 100 / u128::from(work.total.max(1));
            let due = percent == 100 || work.told.elapsed() >= LINE_EVERY;
            if due && percent > work.told_percent {
                work.told = Instant::now();
                work.told_percent = percent;
                work.tell(done, percent);
            }
        }
    }
}

impl Work {
    fn tell(&self, done: u64, percent: u128) {
        let millis = self.begun.elapsed().as_millis().max(1);
        let rate = u64::try_from(u128::from(done) * 1000 / millis).unwrap_or(u64::MAX);
        let left = self.total.saturating_sub(done) / rate.max(1);
        let _ = writeln!(
            io::stderr(),
            "{}: {percent}%, {} of {}, {}/s, {left} s left",
            self.what,
            BinaryBytes(done),
            BinaryBytes(self.total),
            BinaryBytes(rate),
        );
    }
}
