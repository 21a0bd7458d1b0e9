//! Copies of stores under faults in every position, and interrupted at every request.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdkit::ErrorKind;
use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{BlobId, BlobName, PageStore as _};
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Container, FarCopied, FarStore as _, STORE_VERSION, Work, copy_across, copy_in, copy_out,
    init_if_none,
};
use vhdkit::storage::Audience;

use crate::cli::Lab;
use crate::server::{Request, Server, Wire};
use crate::store::{NAMES, folder_of};
use crate::support::connector;

/// Small disks that follow one another: data, zeros where there was some, and growth.
fn family() -> [Vec<u8>; 3] {
    let mut first = vec![0; 2 << 20];
    for (n, byte) in first[4096..600 << 10].iter_mut().enumerate() {
        *byte = (n * 7 % 253) as u8 + 1;
    }
    let mut second = first.clone();
    second[1 << 20..(1 << 20) + 8192].fill(3);
    second[8192..64 << 10].fill(0);
    let mut third = second.clone();
    third.resize(3 << 20, 0);
    third[(2 << 20) - 512..(2 << 20) + 4096].fill(4);
    third[20 << 10..21 << 10].fill(5);
    [first, second, third]
}

fn container(server: &Server) -> Container {
    let name = BlobName::parse(&server.url("")).unwrap();
    Container::open(Arc::new(connector()), &name).unwrap()
}

fn with_work<T>(run: impl FnOnce(Work<'_>) -> T) -> T {
    let workers = Workers::new(std::num::NonZeroUsize::new(2)).unwrap();
    run(Work {
        workers: &workers,
        progress: &Silent,
    })
}

fn bring(store: &str, server: &Server) -> FarCopied {
    with_work(|work| copy_in(Path::new(store), &container(server), "web", work))
}

/// Interrupts a copy to the server of `lab`, which answers no request from this one on. Whether that left a mark.
pub(crate) fn interrupt(lab: &Lab, store: &str, at: u64) -> bool {
    let plan = move |number: u64, _: &Request| (number >= at).then_some(Wire::Forbidden);
    let server = Server::over(Arc::clone(&lab.server.store), Some(Box::new(plan)));
    let copied = bring(store, &server);
    assert!(copied.error.is_some());
    // What was interrupted has lost its lease.
    let blob = BlobId::live("web.vhd");
    let _ = lab.server.store.lease(&blob, &vhdkit::blob::Lease::Break);
    let found = lab.server.store.properties(&blob).unwrap();
    found.metadata.contains_key("vhdkit_state")
}

/// Every point in time is the one that it should be, and the newest is what the blob holds.
fn check(store: &Arc<MemoryStore>, points: usize) {
    let server = Server::over(Arc::clone(store), None);
    let container = container(&server);
    let disk = container.disk("web").unwrap();
    let names: Vec<&str> = disk
        .points
        .iter()
        .map(|point| point.name.as_str())
        .collect();
    assert_eq!(names, NAMES[..points]);
    assert_eq!(disk.unfinished, None);
    for (n, point) in disk.points.iter().enumerate() {
        let bytes = store
            .bytes(&BlobId::live("web.vhd").at(&point.key))
            .unwrap();
        let expected = &family()[n];
        assert!(bytes[..expected.len()] == **expected, "{}", point.name);
        assert_eq!(bytes.len(), expected.len() + 512);
        assert_eq!(bytes[expected.len()..][..8], *b"conectix");
    }
    let live = store.bytes(&BlobId::live("web.vhd")).unwrap();
    let newest = disk.points.last().unwrap();
    assert!(
        live == store
            .bytes(&BlobId::live("web.vhd").at(&newest.key))
            .unwrap()
    );
}

/// The requests of a copy without faults.
fn requests(store: &str) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let plan = move |_: u64, _: &Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        None
    };
    let server = Server::start(MemoryStore::default(), Some(Box::new(plan)));
    let copied = bring(store, &server);
    assert!(copied.error.is_none(), "{:?}", copied.error);
    check(&server.store, copied.points.len());
    count.load(Ordering::SeqCst)
}

#[test]
fn a_copy_survives_a_fault_that_passes_in_every_position() {
    let lab = Lab::new();
    let store = folder_of(&lab, &family());
    let all = requests(&store);
    assert!(all < 80, "{all} requests");
    for wire in [
        Wire::Busy,
        Wire::Error,
        Wire::ErrorAfter,
        Wire::Reset,
        Wire::ResetAfter,
        Wire::Cut,
        Wire::Wrong,
    ] {
        for at in 0..all {
            let plan = move |number: u64, request: &Request| {
                // A list that is wrong in one byte is another list.
                let checked = wire != Wire::Wrong
                    || request.method == "GET"
                        && request.comp().is_empty()
                        && !request.query.contains_key("restype");
                (number == at && checked).then_some(wire)
            };
            let server = Server::start(MemoryStore::default(), Some(Box::new(plan)));
            let copied = bring(&store, &server);
            assert!(
                copied.error.is_none(),
                "{wire:?} at {at}: {:?}",
                copied.error
            );
            check(&server.store, 3);
        }
    }
}

#[test]
fn a_copy_that_is_interrupted_at_any_request_goes_on() {
    let lab = Lab::new();
    let store = folder_of(&lab, &family());
    let all = requests(&store);
    for wire in [Wire::Forbidden, Wire::OtherWriter] {
        for at in 0..all {
            let plan = move |number: u64, _: &Request| {
                let hit = if wire == Wire::Forbidden {
                    number >= at
                } else {
                    number == at
                };
                hit.then_some(wire)
            };
            let server = Server::start(MemoryStore::default(), Some(Box::new(plan)));
            let copied = bring(&store, &server);
            match &copied.error {
                Some(error) => {
                    let expected = [
                        ErrorKind::Io,
                        ErrorKind::Locked,
                        ErrorKind::Changed,
                        ErrorKind::Pending,
                    ];
                    assert!(
                        expected.contains(&error.kind()),
                        "{wire:?} at {at}: {error:?}"
                    );
                    assert!(error.hint().is_some(), "{wire:?} at {at}: {error:?}");
                }
                // Whatever it meets comes too late to matter, or doesn't hinder it.
                None => check(&server.store, 3),
            }
            let _ = server
                .store
                .lease(&BlobId::live("web.vhd"), &vhdkit::blob::Lease::Break);
            let again = Server::over(Arc::clone(&server.store), None);
            let copied = bring(&store, &again);
            assert!(
                copied.error.is_none(),
                "{wire:?} at {at}, again: {:?}",
                copied.error
            );
            check(&server.store, 3);
        }
    }
}

#[test]
fn a_copy_to_a_folder_is_right_or_says_why() {
    let lab = Lab::new();
    let store = folder_of(&lab, &family());
    let server = Server::start(MemoryStore::default(), None);
    assert!(bring(&store, &server).error.is_none());
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let counting = Server::over(
        Arc::clone(&server.store),
        Some(Box::new(move |_, _: &Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            None
        })),
    );
    let out = |server: &Server, to: &Path| {
        init_if_none(to, STORE_VERSION, &Audience::default()).unwrap();
        with_work(|work| copy_out(&container(server), to, "web", work))
    };
    let to = lab.path("out");
    assert!(out(&counting, Path::new(&to)).error.is_none());
    let all = count.load(Ordering::SeqCst);
    for wire in [
        Wire::Busy,
        Wire::Error,
        Wire::Reset,
        Wire::Cut,
        Wire::Wrong,
        Wire::Forbidden,
    ] {
        for at in 0..all {
            let lasting = wire == Wire::Forbidden;
            let plan = move |number: u64, request: &Request| {
                let checked = wire != Wire::Wrong
                    || request.method == "GET"
                        && request.comp().is_empty()
                        && !request.query.contains_key("restype");
                let hit = if lasting { number >= at } else { number == at };
                (hit && checked).then_some(wire)
            };
            let faulty = Server::over(Arc::clone(&server.store), Some(Box::new(plan)));
            let to = lab.path(&format!("out-{wire:?}-{at}"));
            let first = out(&faulty, Path::new(&to));
            assert_eq!(
                first.error.is_some(),
                lasting,
                "{wire:?} at {at}: {:?}",
                first.error
            );
            let second = out(&server, Path::new(&to));
            assert!(second.error.is_none(), "{:?}", second.error);
            assert_eq!(second.newest.as_deref(), Some("wed"));
            lab.ends(
                0,
                "vhd",
                &["snapshot", "verify", "--store", &to, "--read-data"],
            );
            std::fs::remove_dir_all(to).unwrap();
        }
    }
}

#[test]
fn a_copy_between_containers_is_right_or_says_why_whichever_of_them_fails() {
    const WIRES: [Wire; 8] = [
        Wire::Busy,
        Wire::Error,
        Wire::ErrorAfter,
        Wire::Reset,
        Wire::ResetAfter,
        Wire::Cut,
        Wire::Wrong,
        Wire::Forbidden,
    ];
    let lab = Lab::new();
    let store = folder_of(&lab, &family()[..2]);
    let source = Server::start(MemoryStore::default(), None);
    assert!(bring(&store, &source).error.is_none());
    let across = |from: &Server, to: &Server| {
        with_work(|work| copy_across(&container(from), &container(to), "web", work))
    };
    let counting = |store: &Arc<MemoryStore>| {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let plan = move |_: u64, _: &Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            None
        };
        let server = Server::over(Arc::clone(store), Some(Box::new(plan)));
        (server, count)
    };
    let (from, read) = counting(&source.store);
    let (to, written) = counting(&Arc::default());
    assert!(across(&from, &to).error.is_none());
    check(&to.store, 2);
    let (read, written) = (read.load(Ordering::SeqCst), written.load(Ordering::SeqCst));
    // One list, and for each point its properties, its list of changes, and its data; the last once more, to compare.
    assert!(read < 40 && written < 60, "{read} and {written} requests");
    for wire in WIRES {
        let lasting = wire == Wire::Forbidden;
        let plan = |at: u64| {
            move |number: u64, request: &Request| {
                let checked = wire != Wire::Wrong
                    || request.method == "GET"
                        && request.comp().is_empty()
                        && !request.query.contains_key("restype");
                let hit = if lasting { number >= at } else { number == at };
                (hit && checked).then_some(wire)
            }
        };
        for (at, at_source) in (0..read)
            .map(|at| (at, true))
            .chain((0..written).map(|at| (at, false)))
        {
            let faulty: Option<Box<crate::server::Plan>> = Some(Box::new(plan(at)));
            let store = Arc::<MemoryStore>::default();
            let (from, to) = if at_source {
                (
                    Server::over(Arc::clone(&source.store), faulty),
                    Server::over(Arc::clone(&store), None),
                )
            } else {
                (
                    Server::over(Arc::clone(&source.store), None),
                    Server::over(Arc::clone(&store), faulty),
                )
            };
            let first = across(&from, &to);
            // What the source refuses to list is compared instead, so that it need not be an error.
            assert!(
                lasting || first.error.is_none(),
                "{wire:?} at {at}, source {at_source}: {:?}",
                first.error
            );
            if let Some(error) = &first.error {
                assert!(error.hint().is_some(), "{error:?}");
                let _ = store.lease(&BlobId::live("web.vhd"), &vhdkit::blob::Lease::Break);
                let second = across(&source, &Server::over(Arc::clone(&store), None));
                assert!(
                    second.error.is_none(),
                    "{wire:?} at {at}: {:?}",
                    second.error
                );
            }
            check(&store, 2);
        }
    }
}
