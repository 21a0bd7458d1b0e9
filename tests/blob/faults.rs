//! Faults of the connection at any time: in the end the bytes are right, or an error is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdkit::ErrorKind;
use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{BlobFile, NewBlobFile};
use vhdkit::storage::{ReadAt as _, WriteAt as _};

use crate::server::{Server, Wire};
use crate::support::{at_once, container, opened};

const SIZE: u64 = 17 << 20;

/// The writes: data, a hole, data that is cleared again, and the last page.
fn expected() -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    for (n, byte) in bytes[512..9 << 20].iter_mut().enumerate() {
        *byte = (n * 13 % 255) as u8 + 1;
    }
    bytes[6 << 20..7 << 20].fill(0);
    bytes[SIZE as usize - 512..].fill(9);
    bytes
}

/// Uploads, sending overlapping pieces twice, so that a stale piece that arrives late would be noticed.
fn upload(server: &Server) -> vhdkit::Result<()> {
    let (store, blob) = container(&server.url("x"), &[]);
    let new = NewBlobFile {
        size: SIZE,
        ..NewBlobFile::default()
    };
    let bytes = expected();
    let file = BlobFile::create(store, blob, &new, at_once())?;
    file.write_all_at(&[0xEE; 4096], 1 << 20)?;
    file.sync()?;
    for at in (0..9 << 20).step_by(1 << 20) {
        let mut piece = bytes[at..at + (1 << 20)].to_vec();
        if at == 6 << 20 {
            piece.fill(5);
        }
        file.write_all_at(&piece, at as u64)?;
    }
    file.write_zeros_at(6 << 20..7 << 20)?;
    file.write_all_at(&[9; 512], SIZE - 512)?;
    file.sync()
}

fn download(server: &Server) -> vhdkit::Result<Vec<u8>> {
    let file = opened(&server.url("x"))?;
    let mut bytes = vec![1; SIZE as usize];
    for (n, piece) in bytes.chunks_mut(4 << 20).enumerate() {
        file.read_exact_at(piece, (n as u64) << 22)?;
    }
    file.check_unchanged()?;
    Ok(bytes)
}

/// A fault that hits the request of this number, counted from when it was set.
struct Switch {
    at: AtomicU64,
    seen: AtomicU64,
}

const NEVER: u64 = u64::MAX;

fn server_with(wire: Wire, often: u64) -> (Server, Arc<Switch>) {
    let switch = Arc::new(Switch {
        at: AtomicU64::new(NEVER),
        seen: AtomicU64::new(0),
    });
    let plan = Arc::clone(&switch);
    let plan = move |_, _: &crate::server::Request| {
        let at = plan.at.load(Ordering::SeqCst);
        let number = plan.seen.fetch_add(1, Ordering::SeqCst);
        (at != NEVER && number >= at && number < at + often).then_some(wire)
    };
    (
        Server::start(MemoryStore::default(), Some(Box::new(plan))),
        switch,
    )
}

#[test]
fn a_fault_that_passes_does_no_harm_in_any_position() {
    let all = expected();
    for wire in [
        Wire::Busy,
        Wire::Error,
        Wire::ErrorAfter,
        Wire::Reset,
        Wire::ResetAfter,
        Wire::Cut,
        Wire::Slow,
    ] {
        for often in [1, 3] {
            for at in 0..11 {
                let (server, switch) = server_with(wire, often);
                switch.at.store(at, Ordering::SeqCst);
                upload(&server).unwrap_or_else(|e| panic!("{wire:?} at {at}: {e:?}"));
                switch.at.store(NEVER, Ordering::SeqCst);
                let bytes = download(&server).unwrap();
                assert!(bytes == all, "{wire:?} at {at}, {often} times");
            }
        }
    }
}

#[test]
fn a_download_is_right_whatever_passes() {
    let all = expected();
    for wire in [
        Wire::Busy,
        Wire::Error,
        Wire::Reset,
        Wire::ResetAfter,
        Wire::Cut,
        Wire::Slow,
    ] {
        let (server, switch) = server_with(wire, 2);
        upload(&server).unwrap();
        for at in 0..7 {
            switch.seen.store(0, Ordering::SeqCst);
            switch.at.store(at, Ordering::SeqCst);
            let bytes = download(&server).unwrap_or_else(|e| panic!("{wire:?} at {at}: {e:?}"));
            assert!(bytes == all, "{wire:?} at {at}");
        }
    }
}

#[test]
fn wrong_bytes_are_noticed_and_asked_for_again() {
    let all = expected();
    let (server, switch) = server_with(Wire::Wrong, 1);
    upload(&server).unwrap();
    // After properties and the list, which are checked by their form.
    for at in 2..5 {
        switch.seen.store(0, Ordering::SeqCst);
        switch.at.store(at, Ordering::SeqCst);
        assert!(download(&server).unwrap() == all, "{at}");
    }
    // An error is reported only if the faults repeat.
    let (server, switch) = server_with(Wire::Wrong, NEVER - 100);
    upload(&server).unwrap();
    switch.seen.store(0, Ordering::SeqCst);
    switch.at.store(2, Ordering::SeqCst);
    let error = download(&server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn what_lasts_is_told_and_never_taken_for_success() {
    for (wire, kinds) in [
        (Wire::Forbidden, &[ErrorKind::Io][..]),
        (Wire::Busy, &[ErrorKind::Io]),
        (Wire::ResetAfter, &[ErrorKind::Io]),
        (Wire::OtherWriter, &[ErrorKind::Locked, ErrorKind::Changed]),
    ] {
        for at in 3..8 {
            let (server, switch) = server_with(wire, NEVER - 100);
            switch.at.store(at, Ordering::SeqCst);
            let error = upload(&server).expect_err(&format!("{wire:?} at {at}"));
            assert!(kinds.contains(&error.kind()), "{wire:?} at {at}: {error:?}");
            assert!(error.hint().is_some(), "{error:?}");
        }
    }
}

#[test]
fn a_blob_that_is_written_while_it_is_read_is_told() {
    for at in 2..6 {
        let (server, switch) = server_with(Wire::OtherWriter, 1);
        upload(&server).unwrap();
        switch.seen.store(0, Ordering::SeqCst);
        switch.at.store(at, Ordering::SeqCst);
        let error = download(&server).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    }
}
