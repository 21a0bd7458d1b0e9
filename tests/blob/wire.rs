//! Requests and answers over HTTP.

use std::sync::Arc;

use vhdkit::ErrorKind;
use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{
    BlobFile, BlobId, BlobName, BlobsAsked, Conditions, Deleted, Lease, Metadata, NewBlob,
    NewBlobFile, PageStore, Pages, PagesAsked, Sequence, Since,
};
use vhdkit::image::{CopyOptions, Image as _, ImageMut as _, RawImage, copy};
use vhdkit::page::{ChangeKind, PageRange};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, ReadAt as _, WriteAt as _};
use vhdkit::vhd::{CreateOptions, DiskType, VhdImage};

use crate::server::{SIGNATURE, Server};
use crate::support::{at_once, container, opened};

fn any() -> Conditions {
    Conditions::default()
}

fn kinds(pages: &Pages) -> Vec<(ChangeKind, u64, u64)> {
    pages
        .list
        .iter()
        .map(|c| (c.kind, c.range.start(), c.range.end()))
        .collect()
}

#[test]
fn every_request_does_what_it_says() {
    let server = Server::start(MemoryStore::default(), None);
    let (store, blob) = container(&server.url("folder/a%20b.vhd"), &[]);
    assert_eq!(blob.name, "folder/a b.vhd");
    let new = NewBlob {
        size: 8 << 20,
        sequence: 3,
        metadata: Metadata::from([("vhdkit_name".into(), "monday".into())]),
    };
    store.create(&blob, &new, &any()).unwrap();
    let absent = Conditions {
        absent: true,
        ..any()
    };
    assert!(
        store
            .create(&blob, &new, &absent)
            .unwrap_err()
            .is("BlobAlreadyExists")
    );
    let found = store.properties(&blob).unwrap();
    assert_eq!(
        (found.size, found.sequence, &found.metadata),
        (8 << 20, 3, &new.metadata)
    );

    store.put_pages(&blob, 4096, &[7; 4096], &any()).unwrap();
    store
        .put_pages(&blob, 4 << 20, &vec![8; 4 << 20], &any())
        .unwrap();
    let mut bytes = vec![1; 8192];
    store.read(&blob, 2048, &mut bytes, &any()).unwrap();
    assert!(bytes[..2048].iter().all(|b| *b == 0) && bytes[2048..6144].iter().all(|b| *b == 7));
    assert_eq!(
        kinds(&store.pages(&blob, &PagesAsked::default(), &any()).unwrap()),
        [
            (ChangeKind::Update, 4096, 8192),
            (ChangeKind::Update, 4 << 20, 8 << 20)
        ]
    );

    let time = store
        .snapshot(&blob, &Metadata::from([("a".into(), "1".into())]), &any())
        .unwrap();
    store
        .clear_pages(&blob, PageRange::covering(4096, 4608), &any())
        .unwrap();
    store.put_pages(&blob, 4608, &[9; 512], &any()).unwrap();
    store
        .clear_pages(&blob, PageRange::covering(5120, 5632), &any())
        .unwrap();
    let asked = PagesAsked {
        since: Some(Since::Snapshot(time.clone())),
        ..PagesAsked::default()
    };
    assert_eq!(
        kinds(&store.pages(&blob, &asked, &any()).unwrap()),
        [
            (ChangeKind::Clear, 4096, 4608),
            (ChangeKind::Update, 4608, 5120),
            (ChangeKind::Clear, 5120, 5632),
        ]
    );
    assert_eq!(
        store.properties(&blob.at(&time)).unwrap().metadata["a"],
        "1"
    );

    let stale = Conditions {
        etag: Some(found.etag),
        ..any()
    };
    let failure = store.put_pages(&blob, 0, &[1; 512], &stale).unwrap_err();
    assert_eq!(
        (failure.status(), failure.error().kind()),
        (Some(412), ErrorKind::Changed)
    );
    let late = Conditions {
        sequence_at_most: Some(2),
        ..any()
    };
    assert!(
        store
            .put_pages(&blob, 0, &[1; 512], &late)
            .unwrap_err()
            .is("SequenceNumberConditionNotMet")
    );
    assert_eq!(
        store
            .set_sequence(&blob, Sequence::AtLeast(5), &any())
            .unwrap()
            .sequence,
        Some(5)
    );
    assert_eq!(
        store
            .set_sequence(&blob, Sequence::Next, &any())
            .unwrap()
            .sequence,
        Some(6)
    );
    store.resize(&blob, 16 << 20, &any()).unwrap();
    assert_eq!(store.properties(&blob).unwrap().size, 16 << 20);
    store.set_metadata(&blob, &Metadata::new(), &any()).unwrap();
    assert!(store.properties(&blob).unwrap().metadata.is_empty());

    let id = "11111111-2222-3333-4444-555555555555".to_owned();
    store
        .lease(&blob, &Lease::Acquire(id.clone(), None))
        .unwrap();
    assert_eq!(
        store
            .put_pages(&blob, 0, &[1; 512], &any())
            .unwrap_err()
            .error()
            .kind(),
        ErrorKind::Locked
    );
    store.lease(&blob, &Lease::Renew(id.clone())).unwrap();
    store.lease(&blob, &Lease::Release(id)).unwrap();

    let asked = BlobsAsked {
        prefix: "folder/".into(),
        snapshots: true,
        ..BlobsAsked::default()
    };
    let names: Vec<_> = store
        .blobs(&asked)
        .unwrap()
        .list
        .into_iter()
        .map(|blob| blob.id)
        .collect();
    assert_eq!(names, [blob.at(&time), blob.clone()]);
    assert!(
        store
            .delete(&blob, Deleted::Itself, &any())
            .unwrap_err()
            .is("SnapshotsPresent")
    );
    store.delete(&blob, Deleted::WithSnapshots, &any()).unwrap();
    assert_eq!(store.properties(&blob).unwrap_err().status(), Some(404));
}

#[test]
fn a_managed_disk_tells_what_changed_since_another() {
    let store = MemoryStore::default();
    let blob = BlobId::live("disk");
    let new = NewBlob {
        size: 1 << 20,
        ..NewBlob::default()
    };
    store.create(&blob, &new, &any()).unwrap();
    store.put_pages(&blob, 0, &[1; 8192], &any()).unwrap();
    let monday = blob.at(store.snapshot(&blob, &Metadata::new(), &any()).unwrap());
    store.put_pages(&blob, 512, &[2; 512], &any()).unwrap();
    store
        .clear_pages(&blob, PageRange::covering(4096, 8192), &any())
        .unwrap();
    let tuesday = blob.at(store.snapshot(&blob, &Metadata::new(), &any()).unwrap());
    let server = Server::with_disks(
        store,
        None,
        &[("md-monday", monday), ("md-tuesday", tuesday)],
    );
    let file = opened(&server.disk_url("md-tuesday")).unwrap();
    let before = BlobName::parse(&server.disk_url("md-monday")).unwrap();
    assert!(before.is_managed_disk() && file.store().is_managed_disk());
    let changes = file
        .changes_since(&Since::Disk(Box::new(before.clone())))
        .unwrap();
    let changes: Vec<_> = changes
        .iter()
        .map(|c| (c.kind, c.range.start(), c.range.end()))
        .collect();
    assert_eq!(
        changes,
        [
            (ChangeKind::Update, 512, 1024),
            (ChangeKind::Clear, 4096, 8192)
        ]
    );
    assert_eq!(file.data_range(0..1 << 20).unwrap(), Some(0..4096));
    // The signature of the earlier one is needed as well.
    let unsigned = BlobName::parse(before.shown().to_str().unwrap()).unwrap();
    assert!(
        file.changes_since(&Since::Disk(Box::new(unsigned)))
            .is_err()
    );
    let shown = format!("{before:?} {file:?}");
    assert!(!shown.contains(SIGNATURE), "{shown}");
}

#[test]
fn a_vhd_is_made_and_read_on_a_blob() {
    let server = Server::start(MemoryStore::default(), None);
    let size = 24 << 20;
    let mut image = RawImage::open(Memory::new(vec![0; size as usize])).unwrap();
    for (at, len) in [(4096, 8192), (5 << 20, 6 << 20), (size - 512, 512)] {
        let data: Vec<u8> = (0..len).map(|n| (n * 31 % 250 + 1) as u8).collect();
        image
            .update(PageRange::covering(at, at + len), &data)
            .unwrap();
    }
    let workers = Workers::new(None).unwrap();
    let options = || CopyOptions {
        work: Work::new(&workers, &Silent),
        digest: true,
    };
    for disk_type in [DiskType::Fixed, DiskType::Dynamic] {
        let name = format!("{disk_type}.vhd");
        let (store, blob) = container(&server.url(&name), &[]);
        let store: Arc<dyn PageStore> = store;
        let file =
            BlobFile::create(store, blob.clone(), &NewBlobFile::default(), at_once()).unwrap();
        let mut vhd = VhdImage::create(file, &CreateOptions::new(disk_type, size)).unwrap();
        let written = copy(&image, &mut vhd, options()).unwrap();
        vhd.flush().unwrap();
        drop(vhd);

        let vhd = VhdImage::open(opened(&server.url(&name)).unwrap()).unwrap();
        assert_eq!((vhd.virtual_size(), vhd.warnings().len()), (size, 0));
        let mut back = RawImage::open(Memory::new(vec![0; size as usize])).unwrap();
        let read = copy(&vhd, &mut back, options()).unwrap();
        assert!(read.is_some() && read == written);
        assert!(back.storage().to_vec() == image.storage().to_vec());
        // The bytes equal those of a file.
        let stored = server.store.bytes(&blob).unwrap();
        let local = VhdImage::open(Memory::new(stored)).unwrap();
        assert_eq!(local.disk_type(), disk_type);
    }
}

#[test]
fn a_resized_blob_keeps_its_bytes() {
    let server = Server::start(MemoryStore::default(), None);
    let (store, blob) = container(&server.url("x"), &[]);
    let new = NewBlobFile {
        size: 4096,
        ..NewBlobFile::default()
    };
    let file = BlobFile::create(store, blob, &new, at_once()).unwrap();
    file.write_all_at(&[7; 4096], 0).unwrap();
    file.write_all_at(&[8; 3], 10_000).unwrap();
    assert_eq!(file.byte_len().unwrap(), 10_240);
    file.set_len(2048).unwrap();
    file.set_len(8192).unwrap();
    let mut bytes = vec![1; 8192];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..2048].iter().all(|b| *b == 7) && bytes[2048..].iter().all(|b| *b == 0));
    assert!(file.set_len(100).is_err());
}

#[test]
fn what_is_wrong_with_an_address_is_told_with_what_to_do() {
    let server = Server::start(MemoryStore::default(), None);
    let other = server.url("x").replace(SIGNATURE, "b3RoZXI%3D");
    let nowhere = server.url("x").replace("/disks/", "/others/");
    for (address, text, hint) in [
        (
            server.url("none.vhd"),
            "404 BlobNotFound",
            "names of account",
        ),
        (other, "403 AuthenticationFailed", "get a new one"),
        (nowhere, "404 ContainerNotFound", "no such container"),
        (
            "http://127.0.0.1:1/acct/disks/x?sig=hidden".into(),
            "no connection",
            "port",
        ),
    ] {
        let error = opened(&address).unwrap_err();
        let said = format!("{error}");
        assert!(said.contains(text), "{said}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
        assert!(!format!("{error:?}").contains("sig="), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.says_nothing(), "{error:?}");
    }
}
