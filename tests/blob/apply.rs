//! Applying diffs to page blobs: whatever is interrupted, and wherever, the blob holds the old or the new point in time, or
//! says that it holds neither, and then either way leads on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{
    BlobId, BlobName, BlobsAsked, Conditions, Lease, Metadata, NewBlob, PageStore as _,
};
use vhdkit::diff::{BaseCheck, Chain};
use vhdkit::files::{
    ApplyOptions, BlobApplied, BlobApply, BlobImage, ParentOptions, apply_to_blob, open_diff,
    roll_back_blob,
};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::{ErrorKind, Result};

use crate::server::{Server, Wire};
use crate::support::connector;

const MIB: usize = 1 << 20;
const NEVER: u64 = u64::MAX;

/// A blob's bytes before and after, and the diff between.
struct Case {
    folder: tempfile::TempDir,
    before: Vec<u8>,
    after: Vec<u8>,
}

fn run(program: &str, args: &[&str], folder: &Path) {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
}

impl Case {
    /// Disks of so many MiB, as raw disks or fixed VHDs.
    fn new(before: usize, after: usize, raw: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut old = vec![0; before * MIB];
        for (n, byte) in old[4096..2 * MIB].iter_mut().enumerate() {
            *byte = (n * 7 % 253) as u8 + 1;
        }
        let last = old.len() - 512;
        old[last..].fill(3);
        let mut new = old.clone();
        new.resize(after * MIB, 0);
        new[8192..8192 + 1024].fill(0xAA);
        new[MIB..MIB + 65536].fill(0);
        new[before.min(after) * MIB - 4096..before.min(after) * MIB].fill(0xBB);
        let last = new.len() - 1024;
        new[last..].fill(0xCC);
        let (vhd, diff) = (env!("CARGO_BIN_EXE_vhd"), env!("CARGO_BIN_EXE_vhd-diff"));
        let ends = if raw { "raw" } else { "vhd" };
        for (name, bytes) in [("old", &old), ("new", &new)] {
            fs::write(folder.path().join(format!("{name}.raw")), bytes).unwrap();
            if !raw {
                let (from, to) = (format!("{name}.raw"), format!("{name}.vhd"));
                run(vhd, &["convert", "-O", "fixed", &from, &to], folder.path());
            }
        }
        let (old, new) = (format!("old.{ends}"), format!("new.{ends}"));
        run(diff, &["-q", "-o", "diff", &old, &new], folder.path());
        run(diff, &["-q", "-o", "back", &new, &old], folder.path());
        Self {
            before: fs::read(folder.path().join(old)).unwrap(),
            after: fs::read(folder.path().join(new)).unwrap(),
            folder,
        }
    }

    fn diff(&self) -> PathBuf {
        self.folder.path().join("diff")
    }

    fn upload(&self, store: &MemoryStore) {
        let (blob, any) = (BlobId::live("web"), Conditions::default());
        let new = NewBlob {
            size: self.before.len() as u64,
            metadata: Metadata::from([("owner".into(), "somebody".into())]),
            ..NewBlob::default()
        };
        store.create(&blob, &new, &any).unwrap();
        for (n, piece) in self.before.chunks(MIB).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                store
                    .put_pages(&blob, (n * MIB) as u64, piece, &any)
                    .unwrap();
            }
        }
    }

    fn apply(&self, server: &Server, how: BlobApply<'_>) -> Result<BlobApplied> {
        apply(server, &self.diff(), how, BaseCheck::Stamped)
    }
}

fn with<T>(check: BaseCheck, run: impl FnOnce(ApplyOptions<'_>) -> T) -> T {
    let workers = Workers::new(std::num::NonZeroUsize::new(4)).unwrap();
    let parents = ParentOptions::default();
    run(ApplyOptions {
        work: Work::new(&workers, &Silent),
        check,
        verify: false,
        parents: &parents,
    })
}

fn apply(
    server: &Server,
    diff: &Path,
    how: BlobApply<'_>,
    check: BaseCheck,
) -> Result<BlobApplied> {
    let chain = Chain::new(vec![open_diff(diff, &Silent)?])?;
    let name = BlobName::parse(&server.url("web")).unwrap();
    with(check, |options| {
        apply_to_blob(&connector(), &name, &chain, how, options)
    })
}

fn roll_back(server: &Server) -> Result<()> {
    let name = BlobName::parse(&server.url("web")).unwrap();
    with(BaseCheck::Stamped, |options| {
        roll_back_blob(&connector(), &name, options).map(drop)
    })
}

fn opens(server: &Server) -> Result<()> {
    let name = BlobName::parse(&server.url("web")).unwrap();
    BlobImage::open(connector().open(&name)?, None, None).map(drop)
}

fn bytes(server: &Server) -> Vec<u8> {
    server.store.bytes(&BlobId::live("web")).unwrap()
}

fn metadata(server: &Server) -> Metadata {
    server
        .store
        .properties(&BlobId::live("web"))
        .unwrap()
        .metadata
}

fn snapshots(server: &Server) -> Vec<Metadata> {
    let asked = BlobsAsked {
        snapshots: true,
        ..BlobsAsked::default()
    };
    let all = server.store.blobs(&asked).unwrap().list;
    let snapshots = all.into_iter().filter(|it| it.id.snapshot.is_some());
    snapshots.map(|it| it.properties.metadata).collect()
}

/// What a program that was killed leaves ends by itself.
fn end_lease(server: &Server) {
    let _ = server.store.lease(&BlobId::live("web"), &Lease::Break);
}

/// From which request on access is refused, and whether the one before was carried out without an answer.
fn server(from: &Arc<AtomicU64>, lost: bool) -> Server {
    let from = Arc::clone(from);
    let plan = move |number: u64, _: &crate::server::Request| {
        let from = from.load(Ordering::SeqCst);
        if lost && number == from {
            return Some(Wire::ResetAfter);
        }
        (number >= from).then_some(Wire::Forbidden)
    };
    Server::start(MemoryStore::default(), Some(Box::new(plan)))
}

#[test]
fn an_apply_that_is_cut_off_anywhere_is_finished_or_taken_back() {
    for (before, after, raw) in [(3, 3, false), (3, 5, false), (5, 3, false), (3, 4, true)] {
        let case = Case::new(before, after, raw);
        for lost in [false, true] {
            for position in 0.. {
                assert!(position < 200, "it never ends");
                let mut ended = false;
                for back in [false, true] {
                    let from = Arc::new(AtomicU64::new(position));
                    let server = server(&from, lost);
                    case.upload(&server.store);
                    let done = case.apply(&server, BlobApply::default());
                    ended = done.is_ok();
                    end_lease(&server);
                    from.store(NEVER, Ordering::SeqCst);
                    let what = format!("{before} to {after} MiB, request {position}, back {back}");
                    let marked = metadata(&server).contains_key("vhdkit_state");
                    if marked {
                        assert_eq!(opens(&server).unwrap_err().kind(), ErrorKind::Pending);
                    } else {
                        let now = bytes(&server);
                        assert!(now == case.before || now == case.after, "{what}");
                    }
                    if back && marked {
                        roll_back(&server).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                        assert!(bytes(&server) == case.before, "{what}");
                    } else {
                        let again = case.apply(&server, BlobApply::default());
                        again.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                        assert!(bytes(&server) == case.after, "{what}");
                    }
                    opens(&server).unwrap();
                    assert_eq!(metadata(&server)["owner"], "somebody");
                    assert!(snapshots(&server).len() <= 1, "{what}");
                }
                if ended {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_fault_that_passes_changes_nothing_of_the_result() {
    let case = Case::new(3, 5, false);
    for wire in [
        Wire::Busy,
        Wire::Error,
        Wire::ErrorAfter,
        Wire::Reset,
        Wire::ResetAfter,
        Wire::Cut,
    ] {
        for position in 0..40 {
            let plan =
                move |number: u64, _: &crate::server::Request| (number == position).then_some(wire);
            let server = Server::start(MemoryStore::default(), Some(Box::new(plan)));
            case.upload(&server.store);
            let how = BlobApply {
                snapshot: Some("tuesday"),
                ..BlobApply::default()
            };
            let done = case.apply(&server, how);
            done.unwrap_or_else(|e| panic!("{wire:?} at {position}: {e:?}"));
            assert!(bytes(&server) == case.after, "{wire:?} at {position}");
            assert!(!metadata(&server).contains_key("vhdkit_state"));
            let named = snapshots(&server);
            let named = named.iter().filter(|m| m.get("vhdkit_name").is_some());
            assert_eq!(named.count(), 1, "{wire:?} at {position}");
        }
    }
}

#[test]
fn only_the_apply_that_was_interrupted_goes_on_and_nobody_writes_beside_it() {
    let case = Case::new(3, 3, false);
    // Late enough to be marked.
    for position in 0.. {
        let from = Arc::new(AtomicU64::new(position));
        let server = server(&from, false);
        case.upload(&server.store);
        let failed = case.apply(&server, BlobApply::default()).is_err();
        assert!(failed, "it was never marked");
        from.store(NEVER, Ordering::SeqCst);
        if !metadata(&server).contains_key("vhdkit_state") {
            continue;
        }
        // The lease of the one that was cut off is still there.
        let error = case.apply(&server, BlobApply::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
        assert_eq!(roll_back(&server).unwrap_err().kind(), ErrorKind::Locked);
        end_lease(&server);
        let other = case.folder.path().join("back");
        let error = apply(&server, &other, BlobApply::default(), BaseCheck::Stamped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pending, "{error:?}");
        assert!(error.hint().unwrap().contains("undo it"));
        roll_back(&server).unwrap();
        assert_eq!(roll_back(&server).unwrap_err().kind(), ErrorKind::Usage);
        assert!(bytes(&server) == case.before);
        break;
    }
}

#[test]
fn a_snapshot_that_holds_the_blob_is_what_an_apply_falls_back_on() {
    let case = Case::new(3, 3, false);
    let server = Server::start(MemoryStore::default(), None);
    case.upload(&server.store);
    let named = |name| BlobApply {
        snapshot: Some(name),
        ..BlobApply::default()
    };
    let done = case.apply(&server, named("tuesday")).unwrap();
    assert!(done.snapshot.is_some() && done.fell_back_on.is_none());
    // The checkpoint of the first is gone; the one of the name says what it holds.
    let all = snapshots(&server);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["vhdkit_name"], "tuesday");
    let digest = done.applied.target_digest.unwrap().to_string();
    assert_eq!(all[0]["vhdkit_digest"], digest);
    assert_eq!(metadata(&server)["vhdkit_digest"], digest);
    // The same once more finds everything as it is.
    let again = case.apply(&server, named("tuesday")).unwrap();
    assert_eq!(
        (again.applied.already, again.snapshot),
        (1, done.snapshot.clone())
    );
    // Back, over the snapshot, which stays; and by its digest, without reading the blob.
    let back = case.folder.path().join("back");
    let error = apply(&server, &back, named("tuesday"), BaseCheck::Stamped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error:?}");
    let undone = apply(&server, &back, named("monday"), BaseCheck::Trusted).unwrap();
    assert_eq!(undone.fell_back_on, done.snapshot);
    assert!(bytes(&server) == case.before);
    assert_eq!(snapshots(&server).len(), 2);
    // Whoever writes to the blob meanwhile isn't passed over.
    let (blob, any) = (BlobId::live("web"), Conditions::default());
    server
        .store
        .put_pages(&blob, 2 << 20, &[1; 512], &any)
        .unwrap();
    let error = apply(
        &server,
        &case.diff(),
        BlobApply::default(),
        BaseCheck::Trusted,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    assert_eq!(snapshots(&server).len(), 2);
}
