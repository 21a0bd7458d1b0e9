//! Retries: how often, with which delays, and until when.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::store::Answer;

/// How long one request is retried by default.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The longest delay that a service may request.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// Delays after the first attempts, and after all others. The first one is short, since idle connections are often
/// closed.
const WAITS: [Duration; 8] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];

/// Provides the time and waits: the system's clock, or that of a test.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the time since some fixed moment.
    fn now(&self) -> Duration;

    /// Returns after `wait`.
    fn sleep(&self, wait: Duration);

    /// Returns a random number from 0 to 1, so that many programs that were refused together don't return together.
    fn chance(&self) -> f64;
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, wait: Duration) {
        thread::sleep(wait);
    }

    fn chance(&self) -> f64 {
        let random = uuid::Uuid::new_v4().as_u128();
        f64::from(u16::try_from(random & 0xFFFF).unwrap_or(0)) / f64::from(u16::MAX)
    }
}

/// The retry policy.
#[derive(Debug, Clone)]
pub struct Retry {
    clock: Arc<dyn Clock>,
    patience: Duration,
    stopped: Arc<AtomicBool>,
}

impl Default for Retry {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()), PATIENCE)
    }
}

impl Retry {
    /// Retries each request for this long, by this clock.
    pub fn new(clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self {
            clock,
            patience,
            stopped: Arc::default(),
        }
    }

    /// Stops all retries and waits from now on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// A copy that is stopped separately.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::new(Arc::clone(&self.clock), self.patience)
    }

    /// A copy that is stopped separately, and gives up after `patience`.
    #[must_use]
    pub fn for_at_most(&self, patience: Duration) -> Self {
        Self::new(Arc::clone(&self.clock), patience.min(self.patience))
    }

    /// Begins one request.
    pub fn begin(&self) -> Attempts<'_> {
        Attempts {
            retry: self,
            begun: self.clock.now(),
            failed: 0,
        }
    }

    /// Sends `request` until it succeeds, fails for good, or time is up.
    pub fn run<T>(&self, mut request: impl FnMut() -> Answer<T>) -> Answer<T> {
        let mut attempts = self.begin();
        loop {
            match request() {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.wait(failure)?,
            };
        }
    }

    /// Waits, unless all waits are stopped. Returns whether they are.
    pub(crate) fn pause(&self, wait: Duration) -> bool {
        self.sleep(wait);
        self.stopped.load(Ordering::Relaxed)
    }

    fn sleep(&self, wait: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        let mut left = wait;
        while !left.is_zero() && !self.stopped.load(Ordering::Relaxed) {
            let now = left.min(STEP);
            self.clock.sleep(now);
            left -= now;
        }
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub struct Attempts<'a> {
    retry: &'a Retry,
    begun: Duration,
    failed: usize,
}

impl Attempts<'_> {
    /// Waits until the request should be sent again. Returns the failure of the last attempt.
    ///
    /// # Errors
    ///
    /// Fails with that failure if it is permanent or time is up.
    pub fn wait(&mut self, failure: Failure) -> Answer<Failure> {
        if !failure.may_pass() || self.retry.stopped.load(Ordering::Relaxed) {
            return Err(failure);
        }
        let step = WAITS.get(self.failed).or(WAITS.last());
        self.failed += 1;
        let step = step.copied().unwrap_or_default();
        let by_chance = step.mul_f64(0.5 + self.retry.clock.chance().clamp(0.0, 1.0) / 2.0);
        let asked = failure.after().unwrap_or_default().min(LONGEST_ASKED);
        let wait = by_chance.max(asked);
        let spent = self.retry.clock.now().saturating_sub(self.begun);
        if spent + wait > self.retry.patience {
            let times = match self.failed {
                1 => "once".to_owned(),
                n => format!("{n} times"),
            };
            let why = format!("it was tried {times} in {} seconds", spent.as_secs());
            return Err(failure.given_up(&why));
        }
        self.retry.sleep(wait);
        Ok(failure)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::blob::failure::Done;
    use crate::error::{Error, ErrorKind};
    use std::sync::Mutex;

    /// A clock that only advances by waiting.
    #[derive(Debug, Default)]
    pub(crate) struct Still(Mutex<Duration>);

    impl Clock for Still {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, wait: Duration) {
            *self.0.lock().unwrap() += wait;
        }

        fn chance(&self) -> f64 {
            1.0
        }
    }

    /// Retries without waiting.
    pub(crate) fn at_once() -> Retry {
        Retry::new(Arc::new(Still::default()), PATIENCE)
    }

    fn busy() -> Failure {
        Failure::passing(
            Error::new(ErrorKind::Io, "busy").with_hint("wait"),
            Done::No,
        )
    }

    #[test]
    fn what_passes_is_tried_until_it_succeeds_or_time_is_up() {
        let retry = at_once();
        let mut left = 5;
        let result = retry.run(|| {
            left -= 1;
            if left == 0 { Ok(7) } else { Err(busy()) }
        });
        assert_eq!(result.unwrap(), 7);
        assert_eq!(
            retry.clock.now(),
            Duration::from_millis(100 + 500 + 1000 + 2000)
        );

        let mut times = 0;
        let failure = retry.run(|| -> Answer<()> {
            times += 1;
            Err(busy())
        });
        let failure = failure.unwrap_err();
        let remedy = failure.error().hint().unwrap();
        assert!(
            remedy.starts_with(&format!("it was tried {times} times in 2")),
            "{remedy}"
        );
        assert!(remedy.ends_with("; wait"), "{remedy}");
        assert!((10..30).contains(&times), "{times}");
        assert!(retry.clock.now() <= PATIENCE + Duration::from_secs(4));
    }

    #[test]
    fn what_lasts_is_not_tried_again() {
        let retry = at_once();
        let mut times = 0;
        let failure = retry.run(|| -> Answer<()> {
            times += 1;
            Err(Failure::lasting(Error::usage("no")))
        });
        assert!(failure.is_err() && times == 1);
        assert_eq!(retry.clock.now(), Duration::ZERO);
    }

    #[test]
    fn who_is_stopped_waits_no_longer() {
        let retry = at_once();
        retry.stop();
        assert!(retry.run(|| -> Answer<()> { Err(busy()) }).is_err());
        assert_eq!(retry.clock.now(), Duration::ZERO);
        let mut times = 0;
        let answer = retry.apart().run(|| {
            times += 1;
            if times > 1 { Ok(()) } else { Err(busy()) }
        });
        assert!(answer.is_ok());
    }
}
