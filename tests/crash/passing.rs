//! An error while reading says nothing of what is stored: whatever fails, a store is never called damaged for it, nothing
//! of it is given up, and not a file is touched.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vhdkit::error::ErrorKind;
use vhdkit::files::{Format, Output};
use vhdkit::image::content_digest;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, Disk, NewPoint, ReadData, RepairSources, STORE_VERSION, Span, Verified, Work,
    copy_disk, create, init, repair, restore, send, verify,
};
use vhdkit::storage::fault::{Answer, Call, Observer, watch};
use vhdkit::storage::{Audience, Overwrite};
use vhdkit::{Error, Result};

use crate::explore::Scratch;
use crate::ground::{WORKERS, open};
use crate::recorder::{Files, read_folder};

/// EIO, ENOMEM, EACCES, EMFILE, ESTALE, ELOOP.
const ERRORS: [i32; 6] = [5, 12, 13, 24, 116, 40];

/// Fails one of the reads.
struct FailsRead {
    /// The reads that are still made before it.
    left: AtomicUsize,
    error: i32,
}

impl Observer for FailsRead {
    fn before(&self, _path: &Path, call: &Call<'_>) -> Answer {
        let is_it = matches!(call, Call::Read { .. })
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                == Ok(1);
        if is_it {
            Answer::Fail(self.error)
        } else {
            Answer::Proceed
        }
    }

    fn after(&self, _path: &Path, _call: &Call<'_>) {}
}

fn work() -> Work<'static> {
    Work {
        workers: &WORKERS,
        progress: &Silent,
    }
}

fn read(store: &Path) -> Result<Disk> {
    Disk::open(store, "web", Access::Read)
}

fn repaired(store: &Path, drop: bool) -> Result<()> {
    let means = RepairSources {
        drop,
        ..RepairSources::default()
    };
    let repaired = repair(
        &mut Disk::open(store, "web", Access::Write)?,
        &means,
        work(),
    )?;
    assert!(repaired.dropped.is_empty(), "{repaired:?}");
    assert!(repaired.mended.is_empty(), "{repaired:?}");
    assert!(repaired.left.is_empty(), "{repaired:?}");
    Ok(())
}

fn verified(store: &Path, data: ReadData) -> Result<()> {
    let found = verify(&mut read(store)?, data, work())?;
    assert!(found.findings.is_empty(), "{found:?}");
    Verified::into_findings(found).map(drop)
}

type Command = (&'static str, fn(&Path) -> Result<()>);

const COMMANDS: [Command; 9] = [
    ("list", |store| read(store).map(drop)),
    ("verify", |store| verified(store, ReadData::Nothing)),
    ("verify --read-data", |store| verified(store, ReadData::All)),
    ("repair", |store| repaired(store, false)),
    ("repair --drop", |store| repaired(store, true)),
    ("hash", |store| {
        let disk = read(store)?;
        let image = disk.image(disk.find("c")?)?;
        content_digest(&image, &WORKERS, &Silent).map(drop)
    }),
    ("restore", |store| {
        let disk = read(store)?;
        let path = store.with_file_name("restored");
        let output = Output {
            path: &path,
            format: Format::Raw,
            overwrite: Overwrite::Yes,
            dense: false,
            made_from: &Audience::default(),
        };
        restore(&disk.image(disk.find("c")?)?, output, work())
    }),
    ("copy", |store| {
        let to = store.with_file_name("copied");
        let copied = copy_disk((store, &to), "web", work());
        let _ = std::fs::remove_dir_all(to.join("web"));
        copied.error.map_or(Ok(()), Err)
    }),
    ("send", |store| {
        let name = Path::new("stream");
        send(
            &mut read(store)?,
            Span::default(),
            (Vec::new(), name),
            work(),
        )
        .map(drop)
    }),
];

/// A store of three snapshots.
fn three(store: &Path) -> Result<()> {
    init(store, STORE_VERSION)?;
    for n in 0..3_u8 {
        let image = store.with_file_name("image");
        let mut bytes: Vec<u8> = (0..48 << 10)
            .map(|at: u32| at.to_be_bytes()[2] ^ 7)
            .collect();
        bytes[usize::from(n) * 512..][..600].fill(n + 1);
        std::fs::write(&image, bytes).unwrap();
        let new = NewPoint {
            name: char::from(b'a' + n).to_string(),
            ..NewPoint::default()
        };
        let mut disk = Disk::open(store, "web", Access::Create)?;
        create(&mut disk, &open(&image)?, &new, work())?;
    }
    Ok(())
}

fn is_told(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Usage)
}

#[test]
fn a_passing_error_is_never_damage() {
    let scratch = Scratch::new();
    let folder = scratch.folder(&Files::new());
    let store = folder.path().join("store");
    three(&store).unwrap();
    init(&store.with_file_name("copied"), STORE_VERSION).unwrap();
    let before = read_folder(&store.join("web"));
    let mut count = 0;
    for (name, command) in COMMANDS {
        let mut told = 0;
        for (n, error) in (1..).zip(ERRORS.into_iter().cycle()) {
            let fails = Arc::new(FailsRead {
                left: AtomicUsize::new(n),
                error,
            });
            let watch = watch(&store, Arc::clone(&fails) as _);
            let result = command(&store);
            drop(watch);
            if fails.left.load(Ordering::Relaxed) > 0 {
                // All were made.
                result.unwrap();
                break;
            }
            // Where something else than the bytes was asked for, it may be got round.
            if let Err(error) = result {
                assert!(is_told(&error), "{name}, read {n}: {error:?}");
                told += 1;
            }
            assert!(
                read_folder(&store.join("web")) == before,
                "{name}, read {n}"
            );
            count += 1;
        }
        assert!(told > 2, "{name}: {told}");
    }
    println!("{count} reads failed, no verdict");
    assert!(count > 100, "{count}");
}
