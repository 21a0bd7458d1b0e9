//! The cloud's interface on a folder: with this program's own client beside a store in memory, with the SDKs, az and azcopy
//! as they are, with kills in the middle, and with requests that nobody should send.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    reason = "a test's helpers"
)]

mod answers;
mod client;
mod cloud_lab;
mod copies;
#[path = "../support/disk.rs"]
mod disk;
mod documents;
#[allow(dead_code, reason = "others need the rest")]
#[path = "../store/week/ext4.rs"]
mod ext4;
#[path = "../support/json_tables.rs"]
mod json_tables;
mod managed;
#[path = "../support/mounts.rs"]
mod mounts;
mod uploads;
mod week;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{
    Answer, BlobId, BlobName, BlobsAsked, Conditions, Credential, Deleted, Http, Lease, Metadata,
    NewBlob, PageStore, PagesAsked, Rest, Route, Sequence, Since,
};
use vhdkit::page::{ChangeKind, PageRange};
use vhdkit::serve::azure::{Options, Server};

const VHD: &str = env!("CARGO_BIN_EXE_vhd");

fn options() -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        names: Vec::new(),
        account: "local".into(),
        location: "eastus".into(),
        open_identity: false,
        copy_rate: None,
    }
}

fn start(folder: &Path) -> Server {
    Server::start(folder, &options(), Box::new(|error| panic!("{error}"))).unwrap()
}

/// A container at an address without TLS, with the key.
fn container(root: &str, key: &str) -> Rest {
    let address = format!("{}/local/disks", root.replace("https://", "http://"));
    let name = BlobName::parse(&address).unwrap();
    let http = Arc::new(Http::new(&Route::default()).unwrap());
    let key = key.to_owned();
    let lookup = move |name: &str| (name == "AZURE_STORAGE_KEY").then(|| key.clone());
    let credential = Credential::resolve(&name, &lookup, &http).unwrap();
    Rest::new(&name, credential, http)
}

/// What a program on the command line serves; it is killed when this is dropped.
struct Served {
    process: Child,
    root: String,
}

impl Served {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(VHD)
            .args([
                "serve",
                "azure",
                "--account",
                "local",
                "--listen",
                "0",
                "--store",
            ])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let root = first
            .trim_start_matches("# ")
            .split(',')
            .next()
            .unwrap()
            .to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, root }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("azure.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["account_key"].as_str().unwrap().to_owned()
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn range(&mut self, pages: u64) -> PageRange {
        let start = self.below(pages);
        let end = start + 1 + self.below(pages - start);
        PageRange::new(start * 512, end * 512).unwrap()
    }
}

fn listed(answer: Answer<vhdkit::blob::Pages>) -> Result<Vec<(ChangeKind, PageRange)>, String> {
    match answer {
        Ok(pages) => Ok(pages
            .list
            .iter()
            .map(|change| (change.kind, change.range))
            .collect()),
        Err(failure) => Err(failure.code().unwrap_or("").to_owned()),
    }
}

/// Whatever is done to a blob, the server and a store in memory say the same of it: bytes, pages, changes since each
/// snapshot; before and after the server is started again.
#[test]
fn a_blob_is_what_it_is_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    let mut far = container(&server.root(), &server.identity().account_key);
    let near = MemoryStore::default();
    far.create_container().unwrap();
    let (blob, none) = (BlobId::live("a/b c.vhd"), Conditions::default());
    let new = NewBlob {
        size: 64 * 512,
        ..NewBlob::default()
    };
    let mut numbers = Numbers(7);
    let mut snapshots: Vec<(String, String)> = Vec::new();
    far.create(&blob, &new, &none).unwrap();
    near.create(&blob, &new, &none).unwrap();
    for round in 0..160_u64 {
        let pages = near.properties(&blob).unwrap().size / 512;
        match numbers.below(24) {
            0 => {
                let size = (16 + numbers.below(64)) * 512;
                far.resize(&blob, size, &none).unwrap();
                near.resize(&blob, size, &none).unwrap();
            }
            1 if round > 100 => {
                far.create(&blob, &new, &none).unwrap();
                near.create(&blob, &new, &none).unwrap();
            }
            2..5 => {
                let metadata = Metadata::from([("round".to_owned(), round.to_string())]);
                let there = far.snapshot(&blob, &metadata, &none).unwrap();
                let here = near.snapshot(&blob, &metadata, &none).unwrap();
                snapshots.push((there, here));
            }
            5 if snapshots.len() > 3 => {
                let (there, here) =
                    snapshots.remove(numbers.below(snapshots.len() as u64) as usize);
                far.delete(&blob.at(there), Deleted::Itself, &none).unwrap();
                near.delete(&blob.at(here), Deleted::Itself, &none).unwrap();
            }
            6 => {
                drop(far);
                server.stop().unwrap();
                server = start(folder.path());
                far = container(&server.root(), &server.identity().account_key);
            }
            7..13 => {
                let range = numbers.range(pages);
                far.clear_pages(&blob, range, &none).unwrap();
                near.clear_pages(&blob, range, &none).unwrap();
            }
            _ => {
                let range = numbers.range(pages);
                let data = vec![round as u8 + 1; range.buffer_len()];
                far.put_pages(&blob, range.start(), &data, &none).unwrap();
                near.put_pages(&blob, range.start(), &data, &none).unwrap();
            }
        }
        let all = PagesAsked::default();
        assert_eq!(
            listed(far.pages(&blob, &all, &none)),
            listed(near.pages(&blob, &all, &none)),
            "{round}"
        );
        let size = near.properties(&blob).unwrap().size;
        let mut bytes = vec![0; size as usize];
        far.read(&blob, 0, &mut bytes, &none).unwrap();
        assert_eq!(Some(bytes), near.bytes(&blob), "{round}");
        if snapshots.is_empty() || round % 4 != 0 {
            continue;
        }
        let pick = numbers.below(snapshots.len() as u64) as usize;
        let (there, here) = &snapshots[pick];
        let size = near.properties(&blob.at(here)).unwrap().size;
        let mut bytes = vec![0; size as usize];
        far.read(&blob.at(there), 0, &mut bytes, &none).unwrap();
        assert_eq!(Some(bytes), near.bytes(&blob.at(here)), "{round}");
        let since = |time: &str| PagesAsked {
            since: Some(Since::Snapshot(time.to_owned())),
            ..PagesAsked::default()
        };
        assert_eq!(
            listed(far.pages(&blob, &since(there), &none)),
            listed(near.pages(&blob, &since(here), &none)),
            "{round}"
        );
        for (later, same) in &snapshots[pick..] {
            assert_eq!(
                listed(far.pages(&blob.at(later), &since(there), &none)),
                listed(near.pages(&blob.at(same), &since(here), &none)),
                "{round}"
            );
        }
    }
    let names = far
        .blobs(&BlobsAsked {
            snapshots: true,
            ..BlobsAsked::default()
        })
        .unwrap();
    assert_eq!(names.list.len(), snapshots.len() + 1);
    // The sequence number and leases outlive it too.
    far.set_sequence(&blob, Sequence::Set(7), &none).unwrap();
    let id = "11111111-2222-3333-4444-555555555555";
    far.lease(&blob, &Lease::Acquire(id.into(), None)).unwrap();
    server.stop().unwrap();
    let server = start(folder.path());
    let far = container(&server.root(), &server.identity().account_key);
    let found = far.properties(&blob).unwrap();
    assert!(found.sequence == 7 && found.leased);
    far.clear_pages(&blob, PageRange::new(0, 512).unwrap(), &none)
        .unwrap_err();
}

/// What was answered is there after the server was killed, and every page that may have changed is listed as changed.
#[test]
fn a_killed_server_loses_nothing_that_it_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = true;
    let (blob, none) = (BlobId::live("disk"), Conditions::default());
    let mut expected = vec![0_u8; 256 * 512];
    let mut since = String::new();
    for round in 0..4_u64 {
        let served = Served::start(folder.path());
        let far = container(&served.root, &key(folder.path()));
        if first {
            far.create_container().unwrap();
            far.create(
                &blob,
                &NewBlob {
                    size: 256 * 512,
                    ..NewBlob::default()
                },
                &none,
            )
            .unwrap();
            first = false;
        } else {
            let mut bytes = vec![0; expected.len()];
            far.read(&blob, 0, &mut bytes, &none).unwrap();
            // One write may have been under way: its page is old or new, and everything else is as it was answered.
            let differing: Vec<usize> = (0..256)
                .filter(|page| bytes[page * 512..][..512] != expected[page * 512..][..512])
                .collect();
            assert!(differing.len() <= 1, "{differing:?}");
            let asked = PagesAsked {
                since: Some(Since::Snapshot(since.clone())),
                ..PagesAsked::default()
            };
            let changes = far.pages(&blob, &asked, &none).unwrap().list;
            let mut before = vec![0; expected.len()];
            far.read(&blob.at(since.as_str()), 0, &mut before, &none)
                .unwrap();
            for page in 0..256_u64 {
                let at = page as usize * 512;
                let range = PageRange::new(page * 512, page * 512 + 512).unwrap();
                let changed = changes
                    .iter()
                    .any(|change| change.range.intersect(range).is_some());
                assert!(
                    changed || bytes[at..][..512] == before[at..][..512],
                    "{page}"
                );
            }
            expected = bytes;
        }
        since = far.snapshot(&blob, &Metadata::new(), &none).unwrap();
        let answered = Mutex::new(expected.clone());
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut numbers = Numbers(round);
                while !stop.load(Ordering::Relaxed) {
                    let (page, value) = (numbers.below(256), numbers.below(255) as u8 + 1);
                    let data = [value; 512];
                    if far.put_pages(&blob, page * 512, &data, &none).is_err() {
                        return;
                    }
                    answered.lock().unwrap()[page as usize * 512..][..512].copy_from_slice(&data);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            while count.load(Ordering::Relaxed) < 20 + round {
                std::thread::yield_now();
            }
            served.kill();
            stop.store(true, Ordering::Relaxed);
        });
        expected = answered.into_inner().unwrap();
    }
}

/// Sends bytes as they are, and gives the first line of the answer.
fn raw(server: &Server, text: &str) -> String {
    let address = server.root().replace("https://", "");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or("")
        .to_owned()
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.vhd"), "x").unwrap();
    let refused = |folder: &Path| {
        let ended = Server::start(folder, &options(), Box::new(|error| panic!("{error}")));
        ended.unwrap_err().to_string()
    };
    let said = refused(folder.path());
    assert!(said.contains("there are other files"), "{said}");
    assert_eq!(names_in(folder.path()).len(), 1);
    // What an interrupted start leaves, and its own folder, are no reason; keys that aren't plain files are.
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join(".vhdkit-x.tmp"), "").unwrap();
    start(&own).stop().unwrap();
    start(&own).stop().unwrap();
    for name in ["azure.json", "ca-key.pem", "ca.pem"] {
        let path = own.join(name);
        let kept = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let said = refused(&own);
        assert!(
            said.contains("this can't be read at offsets"),
            "{name}: {said}"
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &kept).unwrap();
    }
    start(&own).stop().unwrap();
}

#[test]
fn what_nobody_should_send_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    let server = start(&inside);
    let before = names_in(folder.path());
    for (request, status) in [
        ("GET /local/disks/x HTTP/1.1\r\n\r\n", "401"),
        ("GET /local/..%2F..%2Fetc/passwd HTTP/1.1\r\n\r\n", "401"),
        ("GET /other/disks/x HTTP/1.1\r\n\r\n", "403"),
        ("GET /md-123/x/abcd?sig=x HTTP/1.1\r\n\r\n", "403"),
        (
            "PUT /local/disks?restype=container&sv=2020-12-06&sig=x&sp=c&se=2099-01-01&sr=c HTTP/1.1\r\n\r\n",
            "403",
        ),
        (
            "GET /subscriptions?api-version=2022-12-01 HTTP/1.1\r\n\r\n",
            "401",
        ),
        (
            "GET /subscriptions HTTP/1.1\r\nAuthorization: Bearer a.b.c\r\n\r\n",
            "401",
        ),
        (
            "GET /metadata/identity/oauth2/token?resource=x HTTP/1.1\r\nMetadata: true\r\n\r\n",
            "403",
        ),
        (
            "GET /msi/token?resource=x HTTP/1.1\r\nX-IDENTITY-HEADER: x\r\n\r\n",
            "403",
        ),
        (
            "POST /x/oauth2/v2.0/token HTTP/1.1\r\nContent-Length: 29\r\n\r\ngrant_type=client_credentials",
            "401",
        ),
        ("GET /%2e%2e/%2e%2e/ HTTP/1.1\r\n\r\n", "403"),
        ("nonsense\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            "413",
        ),
    ] {
        let answer = raw(&server, request);
        assert_eq!(
            answer.split(' ').nth(1),
            Some(status),
            "{request}: {answer}"
        );
    }
    assert_eq!(names_in(folder.path()), before);
    // Two servers of one folder would not know of each other's writes.
    Server::start(&inside, &options(), Box::new(|_| {})).unwrap_err();
    server.stop().unwrap();
    // Nobody but its owner reads keys and passwords.
    for name in ["azure.json", "ca-key.pem"] {
        assert_eq!(
            fs::metadata(inside.join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o77,
            0,
            "{name}"
        );
    }
}

fn names_in(folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path.clone());
            }
            names.push(path);
        }
    }
    names.sort();
    names
}

/// Runs a command while a server runs that it finds by its environment.
fn with_server(folder: &Path, command: &str) -> (bool, String) {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let az = tools.join("az/bin");
    let azcopy = tools.join("azcopy/node_modules/@azure-tools/azcopy-linux/dist/bin");
    let sdk = tools.join("azure-sdk/bin/python");
    for tool in [
        az.join("az"),
        azcopy.join("azcopy_linux_amd64"),
        sdk.clone(),
    ] {
        assert!(
            tool.exists(),
            "{} is missing: run tests/run, which installs it",
            tool.display()
        );
    }
    let work = folder.join("work");
    fs::create_dir(&work).unwrap();
    std::os::unix::fs::symlink(azcopy.join("azcopy_linux_amd64"), folder.join("azcopy")).unwrap();
    let own = Path::new(VHD).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!(
        "{}:{}:{}:{path}",
        folder.display(),
        az.display(),
        own.display()
    );
    let output = Command::new(VHD)
        .args(["serve", "azure", "--listen", "0", "--store"])
        .arg(folder.join("cloud"))
        .args([
            "--",
            "sh",
            "-c",
            &format!(". \"$VHD_AZURE_ENV\"; {command}"),
        ])
        .current_dir(work)
        .env("PATH", path)
        .env("SDK_PYTHON", sdk)
        .env(
            "TESTS",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/azure"),
        )
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn the_sdks_get_right_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (good, text) = with_server(folder.path(), "exec \"$SDK_PYTHON\" \"$TESTS/sdk.py\"");
    assert!(good && text.contains("all as expected"), "{text}");
    // What the server left is a store like any other.
    let cloud = folder.path().join("cloud");
    let verified = Command::new(VHD)
        .args(["snapshot", "verify", "--read-data", "--store"])
        .arg(cloud.join("snapshots"))
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let disk = names_in(&cloud.join("disks"));
    let disk = disk
        .iter()
        .find(|path| path.ends_with("restored.vhd"))
        .unwrap();
    let checked = Command::new(VHD).arg("check").arg(disk).output().unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn a_store_in_a_container_is_read_by_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let command = "export AZCOPY_LOG_LOCATION=$PWD/logs AZCOPY_JOB_PLAN_LOCATION=$PWD/logs; exec \"$SDK_PYTHON\" \"$TESTS/container.py\"";
    let (good, text) = with_server(folder.path(), command);
    assert!(good && text.contains("all as expected"), "{text}");
    print!("{text}");
}

#[test]
fn az_and_azcopy_work_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (good, text) = with_server(folder.path(), "exec bash \"$TESTS/tools.sh\"");
    assert!(good && text.contains("all as expected"), "{text}");
}
