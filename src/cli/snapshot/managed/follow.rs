//! Waits for what the service does in the background.

use std::thread;
use std::time::Duration;

use crate::cloud::{Cloud, Resource};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::snapshot::copy_failed;

/// The shortest and the longest time between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The difference in percent between two reports.
const STEP: f64 = 10.0;

/// Waits until a snapshot is complete. Its completion in percent is passed to `tell` at the beginning, and in steps of ten.
pub(crate) fn follow(
    cloud: &Cloud,
    mut snapshot: Resource,
    mut tell: impl FnMut(f64),
) -> Result<Resource> {
    let (mut pause, longest) = PAUSES;
    let mut told = -STEP;
    loop {
        if let Some(error) = copy_failed(&snapshot) {
            return Err(error.override_hint(format!(
                "delete the incomplete copy: az snapshot delete --ids {}; then run the same command again, which copies it anew",
                quoted(&snapshot.id)
            )));
        }
        if snapshot.is_complete() {
            return Ok(snapshot);
        }
        let percent = snapshot.percent.unwrap_or(0.0);
        if percent >= told + STEP {
            tell(percent);
            told = percent;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(longest);
        snapshot = cloud
            .refresh(&snapshot)
            .map_err(|error| match error.kind() {
                ErrorKind::Usage => Error::new(
                    ErrorKind::Changed,
                    "the snapshot was deleted before it was complete",
                )
                .with_path(&snapshot.id)
                .with_hint("run the command again, which goes on from what is there now"),
                _ => error,
            })?;
    }
}
