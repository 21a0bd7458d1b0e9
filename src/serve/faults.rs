//! Read errors: each is reported once and remembered until the end, because a copy of damaged data must not look good.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// The most different messages that are reported.
const MOST_TOLD: usize = 100;

/// Reports an error of which a client sees only a number.
pub type Told = Box<dyn Fn(&Error) + Send + Sync>;

/// Collects read errors.
pub struct Faults {
    tell: Told,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    messages: HashSet<String>,
    damaged: u64,
    other: u64,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Creates a collector that calls `tell` with each error whose text is new.
    pub fn new(tell: Told) -> Self {
        Self {
            tell,
            seen: Mutex::default(),
        }
    }

    /// Records a failed read.
    pub fn note(&self, error: &Error) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match error.kind() {
            ErrorKind::Damaged | ErrorKind::Unsupported => seen.damaged += 1,
            _ => seen.other += 1,
        }
        if seen.messages.len() < MOST_TOLD && seen.messages.insert(error.to_string()) {
            (self.tell)(error);
        }
    }

    /// Fails if any read failed, with [`Damaged`](ErrorKind::Damaged) if damage was the reason.
    pub fn check(&self) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (kind, count) = match (seen.damaged, seen.other) {
            (0, 0) => return Ok(()),
            (0, other) => (ErrorKind::Io, other),
            (damaged, other) => (ErrorKind::Damaged, damaged.saturating_add(other)),
        };
        Err(Error::new(kind, "not all requested data could be read")
            .with_found(format_args!("{count} failed reads"))
            .with_hint(
                "copies made meanwhile may lack data: fix the problems above, and copy again",
            ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_is_told_once_and_the_worst_decides() {
        let told = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&told);
        let faults = Faults::new(Box::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        faults.check().unwrap();
        for _ in 0..3 {
            faults.note(&Error::new(ErrorKind::Io, "gone"));
        }
        assert_eq!(faults.check().unwrap_err().kind(), ErrorKind::Io);
        faults.note(&Error::damaged("torn"));
        assert_eq!(faults.check().unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
