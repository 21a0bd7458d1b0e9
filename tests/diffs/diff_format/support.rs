//! Diffs written and read through the public interface.

use std::fmt::Write;
use std::io::Read;

use vhdkit::diff::{
    Compression, DiffFile, DiffHeader, DiffReader, DiffWriter, Side, Trailer, WindowChange, pack,
};
use vhdkit::image::{ContentDigest, Hash};
use vhdkit::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;
use vhdkit::{Error, Result};

pub(crate) const WINDOW: u64 = 4 << 20;

pub(crate) fn header(base_size: u64, target_size: u64) -> DiffHeader {
    DiffHeader {
        base_size,
        target_size,
        program: Some("golden".into()),
        base: Side::default(),
        target: Side::default(),
        undoes: Vec::new(),
    }
}

/// Returns a frame's worth of changes: runs of `(page, pages, byte)` in one window, where a zero byte means a clear.
pub(crate) fn change(window: u64, runs: &[(u64, u64, u8)]) -> WindowChange {
    let mut changes = PageList::new();
    let mut payload = Vec::new();
    for (first, pages, byte) in runs {
        let range = PageRange::from_len(window + first * PAGE_SIZE, pages * PAGE_SIZE).unwrap();
        let kind = if *byte == 0 {
            ChangeKind::Clear
        } else {
            ChangeKind::Update
        };
        changes.push(Change { range, kind }).unwrap();
        if *byte != 0 {
            payload.resize(payload.len() + usize::try_from(range.len()).unwrap(), *byte);
        }
    }
    WindowChange {
        window: PageRange::new(window, window + WINDOW).unwrap(),
        changes,
        payload: payload.into(),
        base_hash: [7; 32],
    }
}

/// Returns a diff with these frames and made-up digests.
pub(crate) fn diff(
    header: &DiffHeader,
    changes: Vec<WindowChange>,
    compression: Compression,
) -> Vec<u8> {
    let mut writer = DiffWriter::new(Vec::new(), "memory", header).unwrap();
    for change in changes {
        writer.push(&pack(change, compression).unwrap()).unwrap();
    }
    let digest = |byte| Some(ContentDigest([byte; 32]));
    writer.finish(digest(1), digest(2)).unwrap().out
}

/// Returns a small diff with a frame of each kind: 5 windows, the last one of 3 pages.
pub(crate) fn mixed() -> Vec<u8> {
    let size = 5 * WINDOW + 3 * PAGE_SIZE;
    let zstd = diff(
        &header(size, size),
        vec![
            change(0, &[(1, 1, 1), (2, 1, 0), (9, 2, 2)]),
            change(WINDOW, &[(0, 8192, 0)]),
            change(2 * WINDOW, &[(0, 8192, 0)]),
            change(3 * WINDOW, &[(8191, 1, 3)]),
            change(5 * WINDOW, &[(0, 1, 4), (2, 1, 5)]),
        ],
        Compression::default(),
    );
    assert!(zstd.len() < 2000);
    zstd
}

/// Returns the diff of [`mixed`] with all payloads stored uncompressed.
pub(crate) fn mixed_stored() -> Vec<u8> {
    let size = 5 * WINDOW + 3 * PAGE_SIZE;
    diff(
        &header(size, size),
        vec![
            change(0, &[(1, 1, 1), (2, 1, 0), (9, 2, 2)]),
            change(WINDOW, &[(0, 8192, 0)]),
            change(5 * WINDOW, &[(0, 1, 4), (2, 1, 5)]),
        ],
        Compression::None,
    )
}

/// The content of a diff, regardless of how it is packed.
#[derive(Debug, PartialEq)]
pub(crate) struct Meaning {
    pub(crate) header: DiffHeader,
    pub(crate) frames: Vec<(PageList, Option<Hash>, bool, Vec<u8>)>,
    pub(crate) trailer: Trailer,
}

/// Reads a whole diff and unpacks its payloads.
pub(crate) fn read(input: impl Read) -> Result<Meaning> {
    let mut reader = DiffReader::new(input, "test.vhddiff")?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        let (changes, hash, long) = (
            frame.changes().clone(),
            frame.base_hash().copied(),
            frame.is_long_clear(),
        );
        frames.push((changes, hash, long, frame.unpack()?.to_vec()));
    }
    let (trailer, _) = reader.finished().unwrap();
    Ok(Meaning {
        header: reader.header().clone(),
        frames,
        trailer: Trailer {
            stored_bytes: 0,
            ..*trailer
        },
    })
}

/// Reads a diff to its end without unpacking and opens it as a stored file; both must agree.
pub(crate) fn verify(diff: &[u8]) -> Result<Hash> {
    let front_to_back = (|| {
        let mut reader = DiffReader::new(diff, "memory")?;
        while reader.next_frame()?.is_some() {}
        Ok::<_, Error>(reader.finished().unwrap().1)
    })();
    let stored = DiffFile::open(Memory::new(diff.to_vec()), &Silent);
    match (front_to_back, stored) {
        (Ok(digest), Ok(file)) => {
            assert_eq!(&digest, file.digest());
            Ok(digest)
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            Err(one)
        }
        (one, other) => panic!("read front to back {one:?}, stored {other:?}"),
    }
}

/// Returns the error that a damaged diff must give, including its file and offset.
pub(crate) fn error(diff: &[u8], what: impl std::fmt::Display) -> Error {
    let Err(error) = verify(diff) else {
        panic!("{what}: taken as a whole diff");
    };
    assert!(
        error.offset().is_some_and(|at| at <= diff.len() as u64),
        "{what}: {error:?}"
    );
    assert!(error.path().is_some(), "{what}: {error:?}");
    assert!(error.hint().is_some(), "{what}: {error:?}");
    error
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
