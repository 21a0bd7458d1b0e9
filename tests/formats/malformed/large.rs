//! Large BATs: time and memory stay bounded.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vhdkit::files::{ParentOptions, check_file};
use vhdkit::vhd::LISTED;

use super::{lines, options};
use crate::vhd_writers::{Writer, put32, put64, seal};

const BLOCKS: usize = 1_044_480;

/// Creates a dynamic disk of 2040 GiB in a sparse file; `entry` gives the sector of each block.
fn disk(path: &Path, entry: impl Fn(u32) -> u32) {
    let writer = Writer {
        geometry: [0xFF, 0xFF, 16, 255],
        size: 2040 << 30,
        ..Writer::WINDOWS
    };
    let mut head = vec![0; 1536];
    head[..512].copy_from_slice(&writer.footer());
    head[512..].copy_from_slice(&writer.header(1536, BLOCKS));
    let entries = 0..u32::try_from(BLOCKS).unwrap();
    let table: Vec<u8> = entries.flat_map(|n| entry(n).to_be_bytes()).collect();
    let file = File::create(path).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.write_all_at(&table, 1536).unwrap();
    let end = 8193 * 512 + BLOCKS as u64 * 4097 * 512;
    file.write_all_at(&writer.footer(), end).unwrap();
}

/// Returns the peak memory in KiB of the real program, since the tests of this process run side by side.
fn peak(path: &Path) -> u64 {
    let measured = path.with_extension("peak");
    let status = Command::new("time")
        .args(["--quiet", "-f", "%M", "-o"])
        .arg(&measured)
        .args([env!("CARGO_BIN_EXE_vhd"), "check", "-q"])
        .arg(path)
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|e| panic!("GNU time measures memory, tests/run installs it: {e}"));
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    fs::read_to_string(measured)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn timed(name: &str, path: &Path) -> Vec<String> {
    let start = Instant::now();
    let report = check_file(path, &options(), &ParentOptions::default()).unwrap();
    let (time, peak) = (start.elapsed(), peak(path));
    println!(
        "{name}: {time:.2?}, {peak} KiB at the peak, {} errors",
        report.errors
    );
    assert!(time < Duration::from_secs(60), "{time:?}");
    assert!(peak < 100 << 10, "{peak} KiB");
    lines(&report)
}

#[test]
fn the_largest_dynamic_disk_is_checked_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.vhd");
    disk(&path, |n| {
        let place = u64::from(n) * 7919 % BLOCKS as u64;
        8193 + u32::try_from(place).unwrap() * 4097
    });
    assert_eq!(
        timed("2040 GiB, every block stored, in disorder", &path),
        [""; 0]
    );
    disk(&path, |_| u32::MAX);
    assert_eq!(timed("2040 GiB, no block stored", &path), [""; 0]);
    disk(&path, |_| 8193);
    let found = timed("2040 GiB, all blocks in one place", &path);
    assert_eq!(found.len() as u64, LISTED);
    let report = check_file(&path, &options(), &ParentOptions::default()).unwrap();
    assert_eq!(report.errors, BLOCKS as u64 - 1);
    assert_eq!(report.unlisted[0].count, BLOCKS as u64 - 1 - LISTED);
}

#[test]
fn a_bat_of_all_entries_that_there_can_be_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.vhd");
    let file = File::create(&path).unwrap();
    let mut footer = Writer::WINDOWS.footer();
    put64(&mut footer, 48, 2040 << 30);
    seal(&mut footer);
    let mut header = Writer::WINDOWS.header(1536, 1);
    put32(&mut header, 28, u32::MAX);
    put32(&mut header, 32, 512);
    seal(&mut header);
    file.write_all_at(&footer, 0).unwrap();
    file.write_all_at(&header, 512).unwrap();
    file.write_all_at(&footer, 20 << 30).unwrap();
    let found = timed("BAT of 16 GiB, a hole", &path);
    assert_eq!(found.len() as u64, 2 * LISTED);
    let report = check_file(&path, &options(), &ParentOptions::default()).unwrap();
    assert_eq!(report.errors, 2040 << 21);
    assert_eq!(report.warnings, u64::from(u32::MAX) - (2040 << 21));
}
