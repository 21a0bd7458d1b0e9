//! Downloads that were interrupted continue: with each format, at every request, and after kills.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{BlobId, Conditions, Metadata, PageStore as _};

use crate::cli::Lab;
use crate::server::{Request, Server, Wire};

const SIZE: usize = 60 << 20;
const NEVER: u64 = u64::MAX;

/// A disk with data in eleven of its fifteen windows.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for window in [0, 1, 2, 4, 5, 6, 8, 9, 11, 12, 14] {
        let start = (window << 22) + 4096;
        for (n, byte) in bytes[start..start + (700 << 10)].iter_mut().enumerate() {
            *byte = (n * 7 % 251 + window) as u8 | 1;
        }
    }
    bytes
}

/// A server that answers requests for data only up to a number, and counts them.
struct Source {
    server: Server,
    read: Arc<AtomicU64>,
    until: Arc<AtomicU64>,
}

fn is_read(request: &Request) -> bool {
    request.method == "GET" && request.comp().is_empty() && !request.query.contains_key("restype")
}

fn source(wire: Wire) -> Source {
    let (read, until) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(NEVER)));
    let (counted, limit) = (Arc::clone(&read), Arc::clone(&until));
    let plan = move |_: u64, request: &Request| {
        if !is_read(request) {
            return None;
        }
        let number = counted.fetch_add(1, Ordering::SeqCst);
        (number >= limit.load(Ordering::SeqCst)).then_some(wire)
    };
    Source {
        server: Server::start(MemoryStore::default(), Some(Box::new(plan))),
        read,
        until,
    }
}

impl Source {
    /// From now on, so many requests for data are answered.
    fn answer(&self, until: u64) {
        self.read.store(0, Ordering::SeqCst);
        self.until.store(until, Ordering::SeqCst);
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

/// Puts the disk there as a fixed VHD.
fn put(lab: &Lab, source: &Source) {
    let (raw, vhd) = (lab.path("disk.raw"), lab.path("disk.vhd"));
    fs::write(&raw, disk()).unwrap();
    lab.ends(0, "vhd", &["convert", "-O", "fixed", &raw, &vhd]);
    Lab::upload_to(&source.server.store, &vhd, "web.vhd");
    fs::remove_file(vhd).unwrap();
}

fn kept(out: &str) -> [String; 2] {
    [format!("{out}.fetched"), format!("{out}.fetched.log")]
}

fn check_nothing_kept(out: &str) {
    for file in kept(out) {
        assert!(fs::symlink_metadata(&file).is_err(), "{file}");
    }
}

fn check(lab: &Lab, out: &str) {
    check_nothing_kept(out);
    let digest = |image: &str| {
        let told = lab.ends(0, "vhd", &["hash", image]);
        told.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(digest(out), digest(&lab.path("disk.raw")));
    if Path::new(out).extension() != Some("raw".as_ref()) {
        let report = lab.ends(0, "vhd", &["check", out]);
        assert!(!report.contains("unused"), "{report}");
    }
    fs::remove_file(out).unwrap();
}

const FORMATS: [&str; 3] = ["raw", "fixed", "dynamic"];

#[test]
fn a_download_continues_where_it_was_refused_in_every_format() {
    let lab = Lab::new();
    let source = source(Wire::Forbidden);
    put(&lab, &source);
    let address = source.server.url("web.vhd");
    for format in FORMATS {
        let out = lab.path(&format!(
            "out.{}",
            format.replace("fixed", "vhd").replace("dynamic", "avhd")
        ));
        let args = ["convert", "-O", format, "--threads", "2", &address, &out];
        source.answer(NEVER);
        lab.ends(0, "vhd", &args);
        let all = source.read();
        check(&lab, &out);
        let mut saved = 0;
        for until in (0..all).step_by(2) {
            source.answer(until);
            let told = lab.ends(2, "vhd", &args);
            assert!(fs::symlink_metadata(&out).is_err());
            let is_kept = fs::symlink_metadata(&kept(&out)[0]).is_ok();
            assert_eq!(told.contains("is kept in"), is_kept, "{told}");
            source.answer(NEVER);
            let told = lab.ends(0, "vhd", &args);
            assert_eq!(told.contains("continues an interrupted"), is_kept, "{told}");
            saved += all - source.read();
            check(&lab, &out);
        }
        // All of them together fetch little more than half of what beginning afresh would.
        assert!(
            saved * 6 > all * (all - 1) / 2,
            "{format}: {saved} of {all}"
        );
    }
}

#[test]
fn a_download_that_is_killed_again_and_again_ends_right() {
    let lab = Lab::new();
    let source = source(Wire::Slow);
    put(&lab, &source);
    let address = source.server.url("web.vhd");
    for format in FORMATS {
        let out = lab.path(if format == "raw" {
            "out.raw"
        } else {
            "out.vhd"
        });
        let args = ["convert", "-O", format, "--threads", "1", &address, &out];
        for kill_at in [1, 3, 4, 2, 5] {
            // Every request is slow, so that it is killed before it is through.
            source.answer(0);
            let mut child = lab
                .command("vhd")
                .args(args)
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while source.read() < kill_at && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        source.answer(NEVER);
        lab.ends(0, "vhd", &args);
        check(&lab, &out);
    }
}

#[test]
fn a_changed_source_or_another_one_begins_afresh_and_says_so() {
    let lab = Lab::new();
    let source = source(Wire::Forbidden);
    put(&lab, &source);
    let out = lab.path("out.raw");
    let get = |code, blob: &str, format: &str| {
        let address = source.server.url(blob);
        let args = ["convert", "--threads", "1", "-O", format, &address, &out];
        lab.ends(code, "vhd", &args)
    };
    let interrupt = || {
        source.answer(9);
        get(2, "web.vhd", "raw");
        assert!(fs::symlink_metadata(&kept(&out)[0]).is_ok());
        source.answer(NEVER);
    };
    interrupt();
    let live = BlobId::live("web.vhd");
    let mut changed = disk();
    changed[4096..4608].fill(77);
    let any = Conditions::default();
    source
        .server
        .store
        .put_pages(&live, 4096, &[77; 512], &any)
        .unwrap();
    let told = get(0, "web.vhd", "raw");
    assert!(told.contains("the source has changed since"), "{told}");
    assert!(fs::read(&out).unwrap() == changed);
    check_nothing_kept(&out);
    fs::remove_file(&out).unwrap();

    // A snapshot is the same for ever, also if the blob changes.
    let snapshot = source
        .server
        .store
        .snapshot(&live, &Metadata::new(), &any)
        .unwrap();
    let address = format!("{}&snapshot={snapshot}", source.server.url("web.vhd"));
    let args = ["convert", "--threads", "1", "-O", "raw", &address, &out];
    source.answer(9);
    lab.ends(2, "vhd", &args);
    source.answer(NEVER);
    source
        .server
        .store
        .put_pages(&live, 4096, &[78; 512], &any)
        .unwrap();
    let told = lab.ends(0, "vhd", &args);
    assert!(told.contains("continues"), "{told}");
    assert!(fs::read(&out).unwrap() == changed);
    fs::remove_file(&out).unwrap();

    interrupt();
    let told = get(0, "web.vhd", "fixed");
    assert!(told.contains("another size or format"), "{told}");
    fs::remove_file(&out).unwrap();
    interrupt();
    Lab::upload_to(&source.server.store, &lab.path("disk.raw"), "other.raw");
    let told = get(0, "other.raw", "raw");
    assert!(told.contains("another source"), "{told}");
    assert!(fs::read(&out).unwrap() == disk());
}

#[test]
fn nothing_that_was_kept_is_trusted() {
    let lab = Lab::new();
    let source = source(Wire::Forbidden);
    put(&lab, &source);
    let out = lab.path("out.raw");
    let address = source.server.url("web.vhd");
    let args = ["convert", "--threads", "1", &address, &out];
    let [image, log] = kept(&out);
    let len = {
        source.answer(9);
        lab.ends(2, "vhd", &args);
        fs::metadata(&log).unwrap().len()
    };
    source.answer(NEVER);
    lab.ends(0, "vhd", &args);
    check(&lab, &out);
    let places = [4096_u64, (1 << 22) + 5000, (3 << 22) + 9, SIZE as u64 - 1];
    let spoil = |file: &str, at: u64| {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(file)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    };
    for spoilt in 0..places.len() + 10 {
        source.answer(9);
        lab.ends(2, "vhd", &args);
        match places.get(spoilt) {
            Some(at) => spoil(&image, *at),
            None if spoilt == places.len() => fs::write(&log, b"").unwrap(),
            None if spoilt == places.len() + 1 => fs::remove_file(&image).unwrap(),
            None => spoil(&log, len * (spoilt - places.len() - 2) as u64 / 8),
        }
        source.answer(NEVER);
        lab.ends(0, "vhd", &args);
        check(&lab, &out);
    }
}

#[test]
fn two_downloads_to_one_file_keep_out_of_each_others_way() {
    let lab = Lab::new();
    let source = source(Wire::Slow);
    put(&lab, &source);
    let out = lab.path("out.raw");
    let address = source.server.url("web.vhd");
    let args = ["convert", "--threads", "1", &address, &out];
    source.answer(0);
    let mut first = lab
        .command("vhd")
        .args(args)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while fs::symlink_metadata(&kept(&out)[1]).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let second = lab.output("vhd", &args);
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    // The first may be through already.
    assert!(
        matches!(second.status.code(), Some(5)) && told.contains("another command")
            || told.contains("already exists"),
        "{told}"
    );
    assert!(first.wait().unwrap().success());
    check(&lab, &out);
}

#[test]
fn a_restore_from_a_container_continues() {
    let lab = Lab::new();
    let source = source(Wire::Forbidden);
    put(&lab, &source);
    let any = Conditions::default();
    let live = BlobId::live("web.vhd");
    source
        .server
        .store
        .snapshot(&live, &Metadata::new(), &any)
        .unwrap();
    let store = source.server.url("");
    let out = lab.path("out.vhd");
    let args = [
        "snapshot",
        "restore",
        "--store",
        &store,
        "--disk",
        "web",
        "-o",
        &out,
        "--threads",
        "1",
    ];
    source.answer(9);
    let told = lab.ends(2, "vhd", &args);
    assert!(told.contains("is kept in"), "{told}");
    source.answer(NEVER);
    let told = lab.ends(0, "vhd", &args);
    assert!(told.contains("continues"), "{told}");
    assert!(source.read() < 10, "{}", source.read());
    check(&lab, &out);
}
