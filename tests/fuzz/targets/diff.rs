//! Any bytes as a diff: read front to back and stored, the verdict is the same; what is accepted keeps every promise
//! of the format and can be written again.

use vhdkit::diff::{
    Compression, DiffFile, DiffHeader, DiffReader, DiffWriter, Direction, Frame, Totals, Trailer,
    WindowChange, pack,
};
use vhdkit::page::{Change, ChangeKind, PageList, PageRange};
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;
use vhdkit::{Error, ErrorKind, Result};

use super::diff_sealed::canonical;
use super::disk::WINDOW;

/// More payload than this isn't written again.
const WRITE_AT_MOST: u64 = 16 << 20;

pub fn run(data: &[u8]) {
    check(data);
}

/// Reads `data` in every way; returns the diff if it is one.
pub fn check(data: &[u8]) -> Option<DiffFile> {
    let read = read(data);
    let stored = DiffFile::open(Memory::new(data.to_vec()), &Silent);
    let (frames, digest, file) = match (read, stored) {
        (Ok((frames, digest)), Ok(file)) => (frames, digest, file),
        (Err(read), Err(stored)) => {
            assert_eq!(read.to_string(), stored.to_string());
            fault(&read, data.len());
            return None;
        }
        (read, stored) => panic!("front to back {:?}, stored {stored:?}", read.map(|r| r.1)),
    };
    assert_eq!(&digest, file.digest());
    assert!(
        canonical(data) == data,
        "some byte isn't what the format says"
    );
    let reversed = file.reversed();
    let ways = [Some(&file), reversed.as_ref()];
    for (file, frames) in ways.into_iter().zip(&frames) {
        match file {
            Some(file) if frames_through_index(file, frames) => write_again(file, frames),
            Some(_) => {}
            None => assert!(frames.is_empty()),
        }
    }
    Some(file)
}

/// What a fault says of itself.
fn fault(error: &Error, len: usize) {
    let kinds = [ErrorKind::Damaged, ErrorKind::Unsupported];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(
        error.offset().is_some_and(|at| at <= len as u64),
        "{error:?}"
    );
    assert!(
        error.path().is_some() && error.hint().is_some(),
        "{error:?}"
    );
}

/// A frame without its payload.
type Seen = (PageList, bool);

/// The frames of both ways, and the digest.
fn read(data: &[u8]) -> Result<([Vec<Seen>; 2], [u8; 32])> {
    let mut reader = DiffReader::new(data, "memory")?;
    let (forward, back) = (reader.header().target_size, reader.header().base_size);
    let mut frames = [Vec::new(), Vec::new()];
    let (mut end, mut totals) = ([0; 2], [Totals::default(); 2]);
    while let Some((way, frame)) = reader.next_of_both()? {
        let (n, size) = match way {
            Direction::Forward => (0, forward),
            Direction::Back => (1, back),
        };
        let (end, totals, frames) = (&mut end[n], &mut totals[n], &mut frames[n]);
        let range = frame.range();
        assert!(!range.is_empty() && range.start() >= *end && range.end() <= size);
        *end = range.end();
        let window = range.start() / WINDOW * WINDOW;
        assert!(frame.is_long_clear() || range.end() - window <= WINDOW);
        assert!(frame.stored_len() <= WINDOW);
        totals.frames += 1;
        totals.ranges += frame.changes().len() as u64;
        totals.update_bytes += frame.changes().bytes(ChangeKind::Update);
        totals.clear_bytes += frame.changes().bytes(ChangeKind::Clear);
        totals.stored_bytes += frame.stored_len();
        frames.push((frame.changes().clone(), frame.is_long_clear()));
    }
    assert_eq!(reader.bytes_read(), data.len() as u64);
    let (trailer, digest) = reader.finished().copied().unwrap_or_default();
    assert_eq!(trailer.totals(), totals[0]);
    let back = reader.is_reversible().then_some(totals[1]);
    assert_eq!(trailer.way_back, back);
    Ok((frames, digest))
}

/// Finds every frame through the index; says whether all payloads can be unpacked and are of a sensible size.
fn frames_through_index(file: &DiffFile, frames: &[Seen]) -> bool {
    let mut whole = true;
    let mut at = 0;
    for (changes, _) in frames {
        let range = changes.span().unwrap_or_default();
        assert_eq!(ok(file.first_change_from(at)), Some(range.start()));
        at = range.end();
        let first = PageRange::new(range.start(), range.start() + 512).unwrap_or_default();
        let found = ok(file.frames_in(first));
        assert!(found.len() == 1 && found[0].changes() == changes);
        for frame in found {
            whole &= unpack(frame).is_some();
        }
    }
    assert_eq!(ok(file.first_change_from(at)), None);
    whole && file.trailer().update_bytes <= WRITE_AT_MOST
}

/// Unpacks within bounds, or says what is wrong.
fn unpack(frame: Frame) -> Option<Vec<u8>> {
    let updates = frame.changes().bytes(ChangeKind::Update);
    match frame.unpack() {
        Ok(payload) => {
            assert!(payload.len() as u64 == updates && updates <= WINDOW);
            Some(payload.to_vec())
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
            None
        }
    }
}

/// Writes the frames again: the result is another diff that says the same.
fn write_again(file: &DiffFile, frames: &[Seen]) {
    let clears = frames.iter().filter(|(_, long)| *long);
    let clear_bytes: u64 = clears
        .map(|(changes, _)| changes.bytes(ChangeKind::Clear))
        .sum();
    if clear_bytes / WINDOW > 1024 {
        return;
    }
    let mut writer = ok(DiffWriter::new(Vec::new(), "memory", file.header()));
    let (mut changes, mut payload) = (PageList::new(), blake3::Hasher::new());
    for (list, _) in frames {
        ok(changes.extend(list));
        let first = list.span().unwrap_or_default();
        let first = PageRange::new(first.start(), first.start() + 512).unwrap_or_default();
        for frame in ok(file.frames_in(first)) {
            for change in window_changes(frame) {
                payload.update(&change.payload);
                ok(writer.push(&ok(pack(change, Compression::default()))));
            }
        }
    }
    let trailer = file.trailer();
    let written = ok(writer.finish(trailer.base_digest, trailer.target_digest));
    let again = meaning(&written.out);
    assert_eq!(again.0, *file.header());
    assert!(again.1 == changes);
    assert_eq!(again.2, *payload.finalize().as_bytes());
    assert_eq!(again.3, written.trailer);
    let same = |t: &Trailer| {
        (
            t.update_bytes,
            t.clear_bytes,
            t.base_digest,
            t.target_digest,
        )
    };
    assert_eq!(same(trailer), same(&written.trailer));
}

/// What a writer is given to write this frame.
fn window_changes(frame: Frame) -> Vec<WindowChange> {
    let range = frame.range();
    if frame.is_long_clear() {
        let clear = |range| {
            let mut changes = PageList::new();
            let kind = ChangeKind::Clear;
            ok(changes.push(Change { range, kind }));
            WindowChange {
                window: range,
                changes,
                ..WindowChange::default()
            }
        };
        return range.windows(WINDOW).map(clear).collect();
    }
    let start = range.start() / WINDOW * WINDOW;
    let base_hash = frame.base_hash().copied().unwrap_or_default();
    vec![WindowChange {
        window: PageRange::new(start, start + WINDOW).unwrap_or_default(),
        changes: frame.changes().clone(),
        payload: unpack(frame).unwrap_or_default().into(),
        base_hash,
    }]
}

fn meaning(diff: &[u8]) -> (DiffHeader, PageList, [u8; 32], Trailer) {
    let mut reader = ok(DiffReader::new(diff, "written again"));
    let (mut changes, mut payload) = (PageList::new(), blake3::Hasher::new());
    while let Some(frame) = ok(reader.next_frame()) {
        ok(changes.extend(frame.changes()));
        payload.update(&ok(frame.unpack()));
    }
    let trailer = reader.finished().map(|(trailer, _)| *trailer);
    let digest = *payload.finalize().as_bytes();
    (
        reader.header().clone(),
        changes,
        digest,
        trailer.unwrap_or_default(),
    )
}

/// The value of what must not fail.
#[track_caller]
pub fn ok<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("must not fail: {error:?}"),
    }
}
