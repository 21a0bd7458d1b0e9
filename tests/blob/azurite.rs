//! Tests against Azurite, an independent server: signatures, and the form of every request.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use vhdkit::ErrorKind;
use vhdkit::blob::{
    BlobFile, BlobId, BlobsAsked, Conditions, Deleted, Lease, Metadata, NewBlobFile, PageStore,
    PagesAsked, Since,
};
use vhdkit::image::{CopyOptions, ImageMut as _, RawImage, copy};
use vhdkit::page::PageRange;
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, ReadAt as _, WriteAt as _};
use vhdkit::vhd::{CreateOptions, DiskType, VhdImage};

use crate::cli::Lab;
use crate::store::{NAMES, family, folder};
use crate::support::{at_once, container};

const ACCOUNT: &str = "vhdkitlocal";
const KEY: &str = "b25seS1mb3ItdGhlLXRlc3RzLW9mLXRoaXMtcHJvZ3JhbQ==";

/// A running Azurite, stopped when dropped.
struct Azurite {
    process: Child,
    address: String,
}

impl Azurite {
    fn start() -> Self {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/azurite/node_modules");
        let (node, program) = (
            tools.join("node/bin/node"),
            tools.join("azurite/dist/src/blob/main.js"),
        );
        assert!(
            node.exists() && program.exists(),
            "Azurite is missing in target/tools: run tests/run, which installs it"
        );
        let mut process = Command::new(node)
            .arg(program)
            .args([
                "--silent",
                "--disableTelemetry",
                "--skipApiVersionCheck",
                "--inMemoryPersistence",
            ])
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let line = lines
            .find(|line| line.contains("successfully listens on"))
            .unwrap();
        let address = line.split_whitespace().last().unwrap().to_owned();
        // A full pipe would block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    fn url(&self, blob: &str) -> String {
        format!("{}/{ACCOUNT}/disks/{blob}", self.address)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn it_takes_what_is_sent_and_gives_it_back() {
    let azurite = Azurite::start();
    let with_key = [("AZURE_STORAGE_KEY", KEY)];
    let (store, blob) = container(&azurite.url("folder/a%20b%2Bc.vhd"), &with_key);
    assert_eq!(blob.name, "folder/a b+c.vhd");
    store.create_container().unwrap();
    assert!(
        store
            .create_container()
            .unwrap_err()
            .is("ContainerAlreadyExists")
    );

    // A disk, written by the same code that writes to files.
    let size = 12 << 20;
    let mut image = RawImage::open(Memory::new(vec![0; size as usize])).unwrap();
    image
        .update(PageRange::covering(5 << 20, 11 << 20), &vec![7; 6 << 20])
        .unwrap();
    image
        .update(PageRange::covering(512, 1024), &[8; 512])
        .unwrap();
    let as_store = || Arc::clone(&store) as Arc<dyn PageStore>;
    let new = NewBlobFile {
        metadata: Metadata::from([("vhdkit_name".into(), "monday evening".into())]),
        ..NewBlobFile::default()
    };
    let file = BlobFile::create(as_store(), blob.clone(), &new, at_once()).unwrap();
    let mut vhd = VhdImage::create(file, &CreateOptions::new(DiskType::Fixed, size)).unwrap();
    let workers = Workers::new(None).unwrap();
    let options = || CopyOptions {
        work: Work::new(&workers, &Silent),
        digest: true,
    };
    let written = copy(&image, &mut vhd, options()).unwrap();
    vhd.flush().unwrap();
    // An open blob is leased.
    let second = BlobFile::open_writable(as_store(), blob.clone(), at_once());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Locked);
    drop(vhd);

    let file = BlobFile::open(as_store(), blob.clone(), at_once()).unwrap();
    assert_eq!(file.properties().metadata["vhdkit_name"], "monday evening");
    assert_eq!(file.data_range(1 << 20..5 << 20).unwrap(), None);
    let vhd = VhdImage::open(file).unwrap();
    assert!(vhd.warnings().is_empty());
    let mut back = RawImage::open(Memory::new(vec![0; size as usize])).unwrap();
    assert_eq!(copy(&vhd, &mut back, options()).unwrap(), written);
    assert!(back.storage().to_vec() == image.storage().to_vec());

    // Points in time.
    let any = Conditions::default();
    let time = store
        .snapshot(&blob, &Metadata::from([("a".into(), "1".into())]), &any)
        .unwrap();
    let file = BlobFile::open_writable(as_store(), blob.clone(), at_once()).unwrap();
    file.write_zeros_at(5 << 20..11 << 20).unwrap();
    file.write_all_at(&[9; 700], 100).unwrap();
    file.set_len(size + 1024).unwrap();
    file.set_len(size + 512).unwrap();
    file.sync().unwrap();
    file.set_metadata(&Metadata::new()).unwrap();
    drop(file);
    let before = BlobFile::open(as_store(), blob.at(&time), at_once()).unwrap();
    let now = BlobFile::open(as_store(), blob.clone(), at_once()).unwrap();
    let (mut old, mut new) = (vec![0; size as usize], vec![0; size as usize]);
    before.read_exact_at(&mut old, 0).unwrap();
    now.read_exact_at(&mut new, 0).unwrap();
    assert!(old == image.storage().to_vec());
    assert!(
        new[100..800] == [9; 700]
            && new[800..1024] == [8; 224]
            && new[1024..].iter().all(|b| *b == 0)
    );
    // Azurite doesn't know what changed, so its list isn't trusted.
    let error = now
        .changes_since(&Since::Snapshot(time.clone()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let asked = BlobsAsked {
        prefix: "folder/".into(),
        snapshots: true,
        ..BlobsAsked::default()
    };
    let mut found: Vec<BlobId> = store
        .blobs(&asked)
        .unwrap()
        .list
        .into_iter()
        .map(|b| b.id)
        .collect();
    found.sort();
    assert_eq!(found, [blob.clone(), blob.at(&time)]);

    // Refusals.
    let stale = Conditions {
        etag: Some("\"0x1\"".into()),
        ..any.clone()
    };
    assert_eq!(
        store
            .put_pages(&blob, 0, &[1; 512], &stale)
            .unwrap_err()
            .error()
            .kind(),
        ErrorKind::Changed
    );
    let late = Conditions {
        sequence_at_most: Some(0),
        ..any.clone()
    };
    store
        .set_sequence(&blob, vhdkit::blob::Sequence::AtLeast(5), &any)
        .unwrap();
    assert!(
        store
            .put_pages(&blob, 0, &[1; 512], &late)
            .unwrap_err()
            .is("SequenceNumberConditionNotMet")
    );
    let id = "11111111-2222-3333-4444-555555555555".to_owned();
    store
        .lease(
            &blob,
            &Lease::Acquire(id.clone(), Some(std::time::Duration::from_secs(15))),
        )
        .unwrap();
    store.lease(&blob, &Lease::Renew(id)).unwrap();
    store.lease(&blob, &Lease::Break).unwrap();
    let (wrong, _) = container(&azurite.url("x"), &[("AZURE_STORAGE_KEY", "d3Jvbmc=")]);
    let failure = wrong
        .pages(&blob, &PagesAsked::default(), &any)
        .unwrap_err();
    assert_eq!(failure.status(), Some(403), "{failure:?}");
    assert!(
        failure
            .error()
            .hint()
            .unwrap()
            .contains("AZURE_STORAGE_KEY"),
        "{failure:?}"
    );

    assert!(
        store
            .delete(&blob, Deleted::Itself, &any)
            .unwrap_err()
            .is("SnapshotsPresent")
    );
    store
        .delete(&blob.at(&time), Deleted::Itself, &any)
        .unwrap();
    store.delete(&blob, Deleted::WithSnapshots, &any).unwrap();
    assert_eq!(store.properties(&blob).unwrap_err().status(), Some(404));
}

/// Runs a command with the account's key.
fn ends(lab: &Lab, code: i32, program: &str, args: &[&str]) -> String {
    let mut command = lab.command(program);
    let output = command
        .args(args)
        .env("AZURE_STORAGE_KEY", KEY)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(!text.windows(KEY.len()).any(|part| part == KEY.as_bytes()));
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text
}

/// A server that can't tell what changed: everything is compared, and the result is the same.
#[test]
fn a_store_and_an_apply_need_no_lists_of_changes() {
    let azurite = Azurite::start();
    let lab = Lab::new();
    let (store, blob) = container(&azurite.url("b/web.vhd"), &[("AZURE_STORAGE_KEY", KEY)]);
    store.create_container().unwrap();
    let (folder, there) = (folder(&lab, 4), azurite.url("b"));
    let run = |code, args: &[&str]| ends(&lab, code, "vhd", args);
    let check = |points: &[usize]| {
        for n in points {
            let (point, out) = (format!("web@{}", NAMES[*n]), lab.path("out.raw"));
            run(
                0,
                &[
                    "snapshot", "restore", "--store", &there, &point, "-o", &out, "--force",
                ],
            );
            assert!(std::fs::read(out).unwrap() == family()[*n], "{point}");
        }
    };
    let copy = |code| {
        run(
            code,
            &["snapshot", "copy", "--store", &folder, "--to", &there],
        )
    };
    copy(0);
    check(&[0, 1, 2, 3]);
    assert!(copy(0).contains("nothing to copy"));
    let verify = ["snapshot", "verify", "--store", &there, "--read-data"];
    assert!(run(0, &verify).contains("4 snapshots, all data read and compared"));
    // Without the newest, and with it again.
    run(0, &["snapshot", "delete", "--store", &there, "web@thu"]);
    copy(0);
    check(&[0, 1, 2, 3]);
    let back = lab.path("back");
    run(
        0,
        &[
            "snapshot", "copy", "--init", "--store", &there, "--to", &back,
        ],
    );
    run(0, &["snapshot", "verify", "--store", &back, "--read-data"]);

    // A diff is applied in place, and taken as a point in time.
    let (old, new, diff) = (lab.path("o.raw"), lab.path("n.raw"), lab.path("d.vhddiff"));
    std::fs::write(&old, &family()[3]).unwrap();
    std::fs::write(&new, &family()[4]).unwrap();
    lab.ends(0, "vhd-diff", &[&old, &new, "-o", &diff]);
    let address = azurite.url("b/web.vhd");
    let apply = [&address, &diff, "--verify", "--blob-snapshot", "fri"];
    ends(&lab, 0, "vhd-apply", &apply);
    check(&[0, 1, 2, 3, 4]);
    // What somebody else wrote isn't overwritten.
    let any = Conditions::default();
    store.put_pages(&blob, 1 << 20, &[1; 512], &any).unwrap();
    std::fs::write(&new, &family()[0]).unwrap();
    let create = [
        "snapshot", "create", "--store", &there, "--disk", "web", "--name", "sat", &new,
    ];
    assert!(run(4, &create).contains("written since its newest snapshot"));
}
