//! Input that the writer refuses, so that it never writes a diff that readers reject.

use std::io::{self, Write};

use vhdkit::diff::{Compression, DiffWriter, WindowChange, pack};
use vhdkit::page::PageRange;
use vhdkit::{ErrorKind, Result};

use crate::diff_format::support::{WINDOW, change, header, read};

fn write(size: u64, changes: Vec<WindowChange>) -> Result<Vec<u8>> {
    let mut writer = DiffWriter::new(Vec::new(), "memory", &header(size, size))?;
    for change in changes {
        writer.push(&pack(change, Compression::None)?)?;
    }
    Ok(writer.finish(None, None)?.out)
}

#[test]
fn frames_out_of_order_or_beyond_the_target_are_not_written() {
    let page = |window, first| change(window, &[(first, 1, 1)]);
    for (what, changes) in [
        ("backwards", vec![page(WINDOW, 0), page(0, 0)]),
        ("twice", vec![page(0, 5), page(0, 5)]),
        ("beyond the target", vec![page(2 * WINDOW, 0)]),
        (
            "clears twice",
            vec![change(0, &[(0, 8192, 0)]), change(0, &[(0, 8192, 0)])],
        ),
    ] {
        let error = write(2 * WINDOW, changes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{what}: {error}");
    }
    // Two frames in one window are allowed.
    let two = write(WINDOW, vec![page(0, 5), page(0, 6)]).unwrap();
    assert_eq!(read(two.as_slice()).unwrap().frames.len(), 2);
}

#[test]
fn a_window_with_changes_or_data_that_are_not_its_own_is_not_packed() {
    let good = change(WINDOW, &[(0, 2, 1), (8191, 1, 0)]);
    assert!(pack(good.clone(), Compression::None).is_ok());
    let at = |start| PageRange::new(start, start + WINDOW).unwrap();
    let bad = [
        WindowChange {
            window: at(0),
            ..good.clone()
        },
        WindowChange {
            window: at(2 * WINDOW),
            ..good.clone()
        },
        WindowChange {
            window: at(WINDOW - 512),
            ..good.clone()
        },
        WindowChange {
            payload: vec![1; 1023].into(),
            ..good.clone()
        },
        WindowChange {
            payload: vec![1; 1536].into(),
            ..good
        },
    ];
    for change in bad {
        let error = pack(change, Compression::None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
}

#[test]
fn clears_join_only_where_they_touch_and_are_known_alike() {
    let clear = |window: u64, hash: u8| WindowChange {
        base_hash: [hash; 32],
        ..change(window * WINDOW, &[(0, 8192, 0)])
    };
    let diff = write(
        9 * WINDOW,
        vec![
            clear(0, 1),
            clear(1, 2),
            clear(3, 3),
            clear(4, 0),
            clear(5, 0),
        ],
    )
    .unwrap();
    let frames = read(diff.as_slice()).unwrap().frames;
    let seen: Vec<_> = frames
        .iter()
        .map(|(changes, hash, long, _)| (changes.span().unwrap(), *hash, *long))
        .collect();
    let range = |from: u64, to: u64| PageRange::new(from * WINDOW, to * WINDOW).unwrap();
    let hash = |hashes: &[[u8; 32]]| Some(*blake3::hash(&hashes.concat()).as_bytes());
    let expected = [
        (range(0, 2), hash(&[[1; 32], [2; 32]]), true),
        (range(3, 4), hash(&[[3; 32]]), true),
        (range(4, 6), None, true),
    ];
    assert_eq!(seen, expected);
}

/// A writer that fails as full after this many bytes.
#[derive(Debug)]
struct Full(usize);

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = buf.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_wherever_it_happens() {
    let changes = || vec![change(0, &[(1, 1, 1)]), change(WINDOW, &[(0, 8192, 0)])];
    let len = write(2 * WINDOW, changes()).unwrap().len();
    for room in 0..len {
        let result = DiffWriter::new(Full(room), "full", &header(2 * WINDOW, 2 * WINDOW)).and_then(
            |mut writer| {
                for change in changes() {
                    writer.push(&pack(change, Compression::None)?)?;
                }
                writer.finish(None, None)
            },
        );
        let error = result.unwrap_err();
        assert_eq!(
            error.io_kind(),
            Some(io::ErrorKind::StorageFull),
            "{room}: {error}"
        );
        assert_eq!(error.path().and_then(std::path::Path::to_str), Some("full"));
    }
}
