//! Work at no more than so many bytes a second.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::size;
use crate::progress::Progress;

// How fast to work.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct RateArgs {
    /// Handle at most so many bytes of disks a second, as 20M.
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    limit_rate: Option<u64>,
}

fn parse(text: &str) -> Result<u64, String> {
    match size::parse(text) {
        Ok(0) => Err("nothing would ever be done at 0 bytes a second".to_owned()),
        other => other,
    }
}

impl RateArgs {
    /// Slows progress down: work that is reported waits until it may go on.
    pub(super) fn limit(self, progress: Box<dyn Progress>) -> Box<dyn Progress> {
        match self.limit_rate {
            None => progress,
            Some(rate) => Box::new(Limited {
                progress,
                rate,
                free: Mutex::new(Instant::now()),
            }),
        }
    }
}

struct Limited {
    progress: Box<dyn Progress>,
    /// Bytes a second.
    rate: u64,
    /// When all that was reported so far has had its time.
    free: Mutex<Instant>,
}

impl Progress for Limited {
    fn begin(&self, what: &str, total: u64) {
        self.progress.begin(what, total);
    }

    fn advance(&self, bytes: u64) {
        self.progress.advance(bytes);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            // What wasn't used before is lost: no burst follows a pause.
            let begun = (*free).max(Instant::now());
            *free = begun.checked_add(takes).unwrap_or(begun);
            *free
        };
        while !self.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(200)));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.progress.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn work_takes_the_time_that_its_rate_allows() {
        let args = RateArgs {
            limit_rate: Some(1 << 20),
        };
        let progress = args.limit(Box::new(Silent));
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| progress.advance(1 << 17));
            }
        });
        assert!(begun.elapsed() >= Duration::from_millis(250));
        assert!(parse("0").is_err() && parse("20M") == Ok(20 << 20));
    }
}
