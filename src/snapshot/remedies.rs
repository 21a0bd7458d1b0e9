//! Remedies that several files give.

use crate::remedy::{Remedy, SnapshotJob, Step};

/// A verification lists `what`.
pub(super) fn lists(what: &'static str) -> Remedy {
    verify(false).text(" lists ").text(what)
}

/// Reading all data finds the file that is damaged.
pub(super) fn find_damage() -> Remedy {
    verify(true).text(" finds the damaged file")
}

fn verify(read_data: bool) -> Remedy {
    let unnamed = if read_data {
        "a verification that reads all data"
    } else {
        "a verification"
    };
    Remedy::default().step(
        Step::Snapshot {
            job: SnapshotJob::Verify { read_data },
            of: None,
        },
        unnamed,
    )
}
