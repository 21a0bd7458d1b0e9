//! Inside of disks: what is said of files is what the kernel and the tools of each file system say, and every changed
//! byte has an owner.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

#[path = "support/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use disk::{Random, run};
use vhdkit::diff::page_list;
use vhdkit::image::Image;
use vhdkit::inside::{
    ChangedBytes, Contents, FileChangeKind, FileChanges, Files, Node, NodeKind, contents,
    file_changes, partitions, tar,
};
use vhdkit::parallel::Workers;

/// Where Debian has the programs that make file systems.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.env("MTOOLS_SKIP_CHECK", "1");
    command.env("LC_ALL", "C.UTF-8");
    command
}

fn changes(base: &Path, target: &Path) -> FileChanges {
    let (base, target) = (vhdkit::open(base).unwrap(), vhdkit::open(target).unwrap());
    changes_of(&*base, &*target)
}

/// What changed, and the promise: the sum over all owners is what changed.
fn changes_of(base: &dyn Image, target: &dyn Image) -> FileChanges {
    let list = page_list(base, target, &Workers::new(None).unwrap()).unwrap();
    let mut changed = ChangedBytes::default();
    list.iter().for_each(|change| changed.push(change.range));
    let found = file_changes(base, target, &changed).unwrap();
    assert_eq!(found.accounted(), found.changed_bytes);
    assert_eq!(
        found.changed_bytes,
        list.iter().map(|change| change.range.len()).sum::<u64>()
    );
    for partition in &found.partitions {
        assert_eq!(partition.accounted(), partition.changed_bytes);
    }
    found
}

/// Lines as `M /path`, without folders that are there in both.
fn lines(found: &FileChanges) -> Vec<String> {
    let entries = found
        .partitions
        .iter()
        .flat_map(|partition| &partition.entries);
    let entries = entries.filter(|entry| entry.change != FileChangeKind::Attributes);
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let mut lines: Vec<String> = entries
        .flat_map(|entry| match &entry.was {
            Some(was) => vec![
                format!("- {}", text(was)),
                format!("+ {}", text(&entry.path)),
            ],
            None => vec![format!("{} {}", entry.change.letter(), text(&entry.path))],
        })
        .collect();
    lines.sort();
    lines
}

/// All files of a file system: path to what it is, and its content.
fn tree(files: &Files<'_>) -> BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)> {
    fn walk(
        files: &Files<'_>,
        node: &Node,
        path: &[u8],
        found: &mut BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)>,
    ) {
        for entry in files.list(node).unwrap() {
            let path = [path, b"/", &entry.name].concat();
            let node = files.node(&entry).unwrap();
            let mut content = Vec::new();
            match node.kind {
                NodeKind::Folder => walk(files, &node, &path, found),
                NodeKind::Other => {}
                _ => files
                    .read(&node, |bytes| {
                        content.extend_from_slice(bytes);
                        Ok(())
                    })
                    .unwrap(),
            }
            found.insert(path, (node.kind, content));
        }
    }
    let mut found = BTreeMap::new();
    walk(files, &files.root().unwrap(), b"", &mut found);
    found
}

/// The same of a folder of this machine.
fn tree_of(folder: &Path) -> BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)> {
    fn walk(folder: &Path, path: &[u8], found: &mut BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = [path, b"/", entry.file_name().as_bytes()].concat();
            let kind = entry.file_type().unwrap();
            let what = if kind.is_dir() {
                walk(&entry.path(), &path, found);
                (NodeKind::Folder, Vec::new())
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                (NodeKind::Link, target.as_os_str().as_bytes().to_vec())
            } else if kind.is_file() {
                (NodeKind::File, fs::read(entry.path()).unwrap())
            } else {
                (NodeKind::Other, Vec::new())
            };
            found.insert(path, what);
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, b"", &mut found);
    found
}

/// Fails with the paths at which two trees differ.
fn assert_same_trees(
    found: &BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)>,
    expected: &BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)>,
    what: &str,
) {
    let paths = found.keys().chain(expected.keys());
    let differ: std::collections::BTreeSet<String> = paths
        .filter(|path| found.get(*path) != expected.get(*path))
        .map(|path| {
            let len = |tree: &BTreeMap<Vec<u8>, (NodeKind, Vec<u8>)>| {
                tree.get(path).map(|(kind, bytes)| (*kind, bytes.len()))
            };
            format!(
                "{}: {:?}, expected {:?}",
                String::from_utf8_lossy(path),
                len(found),
                len(expected)
            )
        })
        .collect();
    assert!(differ.is_empty(), "{what}: {differ:#?}");
}

/// Opens the only file system of an image.
fn with_files<T>(image: &Path, what: impl FnOnce(&Files<'_>) -> T) -> T {
    let image = vhdkit::open(image).unwrap();
    let table = partitions(&*image).unwrap();
    match contents(&*image, table.partitions.last().unwrap()).unwrap() {
        Contents::Files(files) => what(&files),
        other => panic!("{other:?}"),
    }
}

/// Files of many sizes in folders of many sizes, links, holes.
fn populate(folder: &Path, random: &mut Random) {
    for name in ["etc", "home/ann/deep/deeper", "many"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for n in 0..120 {
        fs::write(
            folder.join(format!("many/file number {n} with a name")),
            format!("{n}\n"),
        )
        .unwrap();
    }
    for (n, size) in [
        0, 1, 50, 100, 150, 511, 512, 1024, 4095, 4096, 9000, 70_000, 400_000,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(folder.join(format!("etc/f{n}")), bytes(random, size)).unwrap();
    }
    fs::write(folder.join("home/ann/b\u{e4}r"), bytes(random, 5000)).unwrap();
    fs::write(folder.join("home/ann/deep/deeper/x"), b"x").unwrap();
}

/// What only file systems of Unix have.
fn populate_unix(folder: &Path) {
    std::os::unix::fs::symlink("f3", folder.join("etc/short")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(200), folder.join("etc/long")).unwrap();
    fs::hard_link(folder.join("etc/f9"), folder.join("etc/second name")).unwrap();
    let sparse = File::create(folder.join("etc/sparse")).unwrap();
    for n in 0..40 {
        sparse.write_all_at(b"here", n * 24_576).unwrap();
    }
}

fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len)
        .map(|_| u8::try_from(random.below(256)).unwrap())
        .collect()
}

/// Changes some of it.
fn edit(folder: &Path, random: &mut Random) {
    let path = |name: &str| folder.join(name);
    if let Ok(sparse) = File::options().write(true).open(path("etc/sparse")) {
        sparse.set_len(1_100_000).unwrap();
    }
    fs::write(path("etc/f5"), bytes(random, 511)).unwrap();
    fs::write(path("etc/f2"), b"shorter").unwrap();
    let file = File::options().write(true).open(path("etc/f12")).unwrap();
    file.write_all_at(b"in the middle", 123_456).unwrap();
    fs::remove_file(path("many/file number 7 with a name")).unwrap();
    fs::rename(path("many/file number 8 with a name"), path("etc/moved")).unwrap();
    fs::rename(path("home/ann/deep"), path("home/shallow")).unwrap();
    fs::create_dir(path("new")).unwrap();
    fs::write(path("new/a"), bytes(random, 30_000)).unwrap();
    fs::write(path("new/empty"), b"").unwrap();
    fs::write(path("etc/temporary"), b"replaced").unwrap();
    fs::rename(path("etc/temporary"), path("etc/f4")).unwrap();
}

/// The names that `edit` changes.
const EDITED: &[&str] = &[
    "+ /etc/moved",
    "+ /home/shallow",
    "+ /new",
    "+ /new/a",
    "+ /new/empty",
    "- /home/ann/deep",
    "- /many/file number 7 with a name",
    "- /many/file number 8 with a name",
    "M /etc/f12",
    "M /etc/f2",
    "M /etc/f4",
    "M /etc/f5",
];

struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, place: &Path, options: &str) -> Self {
        fs::create_dir_all(place).unwrap();
        run(tool("mount")
            .args(["-o", &format!("loop,{options}")])
            .args([image, place]));
        Self(place.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A program that another test starts may have the files of this one open for a moment.
        for _ in 0..100 {
            if tool("umount")
                .arg(&self.0)
                .output()
                .unwrap()
                .status
                .success()
            {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{} can't be unmounted", self.0.display());
    }
}

/// Makers of ext file systems: name, and options.
const EXT: &[&[&str]] = &[
    &["ext4"],
    &["ext4", "-b", "1024"],
    &["ext4", "-b", "2048", "-I", "128"],
    &["ext4", "-O", "inline_data"],
    &["ext4", "-O", "inline_data", "-I", "512"],
    &["ext4", "-O", "meta_bg,^resize_inode"],
    &["ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
    &["ext4", "-O", "bigalloc", "-C", "16384"],
    &["ext4", "-b", "1024", "-O", "bigalloc", "-C", "8192"],
    &["ext4", "-O", "^64bit,^metadata_csum,uninit_bg"],
    &["ext4", "-O", "^flex_bg,sparse_super2"],
    &["ext4", "-O", "^has_journal"],
    &["ext4", "-O", "^extent,^64bit"],
    &["ext3"],
    &["ext3", "-b", "1024"],
    &["ext2"],
    &["ext2", "-b", "1024", "-O", "^dir_index,^filetype"],
];

fn make_ext(image: &Path, how: &[&str], more: &[&str]) {
    File::create(image).unwrap().set_len(96 << 20).unwrap();
    let (kind, options) = how.split_first().unwrap();
    run(tool(&format!("mkfs.{kind}"))
        .arg("-q")
        .args(options)
        .args(more)
        .arg(image));
}

#[test]
fn what_mkfs_put_into_an_ext_file_system_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (source, image) = (folder.path().join("source"), folder.path().join("disk.raw"));
    fs::create_dir(&source).unwrap();
    populate(&source, &mut Random::new(1));
    populate_unix(&source);
    for how in EXT {
        make_ext(&image, how, &["-d", source.to_str().unwrap()]);
        let mut found = with_files(&image, tree);
        found.remove(&b"/lost+found"[..]);
        assert_same_trees(&found, &tree_of(&source), &format!("{how:?}"));
    }
}

#[test]
#[ignore = "mounts file systems, which needs root"]
fn changes_of_ext_are_those_that_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let (base, target) = (
        folder.path().join("base.raw"),
        folder.path().join("target.raw"),
    );
    let place = folder.path().join("mounted");
    for how in EXT {
        make_ext(&base, how, &[]);
        {
            let mounted = Mount::new(&base, &place, "rw");
            populate(&mounted.0, &mut Random::new(2));
            populate_unix(&mounted.0);
        }
        fs::copy(&base, &target).unwrap();
        let expected = {
            let mounted = Mount::new(&target, &place, "rw");
            edit(&mounted.0, &mut Random::new(3));
            tree_of(&mounted.0)
        };
        assert_same_trees(&with_files(&target, tree), &expected, &format!("{how:?}"));
        let found = changes(&base, &target);
        let mut lines = lines(&found);
        // The file with holes, which only these have, and the other name of what was written to.
        lines.retain(|line| line != "M /etc/second name");
        lines.retain(|line| line != "M /etc/sparse");
        assert_eq!(lines, EDITED, "{how:?}: {found:#?}");
        assert_eq!(found.partitions[0].state, "read", "{how:?}: {found:#?}");
    }
}

#[test]
#[ignore = "mounts file systems, which needs root"]
fn changes_that_are_in_the_journal_only_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (base, target) = (
        folder.path().join("base.raw"),
        folder.path().join("target.raw"),
    );
    let place = folder.path().join("mounted");
    for how in [
        &["ext4"][..],
        &["ext4", "-b", "1024", "-O", "^64bit,^metadata_csum"],
        &["ext3"],
    ] {
        make_ext(&base, how, &[]);
        let mounted = Mount::new(&base, &place, "rw,commit=1");
        populate(&mounted.0, &mut Random::new(2));
        run(tool("sync").arg("-f").arg(&mounted.0));
        fs::copy(&base, &target).unwrap();
        let before = folder.path().join("before.raw");
        fs::copy(&base, &before).unwrap();
        edit(&mounted.0, &mut Random::new(3));
        // Commits, and leaves everything but the journal and the data to later.
        let handle = File::open(&mounted.0).unwrap();
        handle.sync_all().unwrap();
        for name in ["etc/f12", "new/a", "etc/f5", "etc/f2", "etc/f4"] {
            File::open(mounted.0.join(name))
                .unwrap()
                .sync_all()
                .unwrap();
        }
        fs::copy(&base, &target).unwrap();
        let expected = tree_of(&mounted.0);
        drop(handle);
        drop(mounted);
        assert_same_trees(&with_files(&target, tree), &expected, &format!("{how:?}"));
        let found = changes(&before, &target);
        assert_eq!(lines(&found), EDITED, "{how:?}: {found:#?}");
        assert!(found.partitions[0].transactions > 0, "{how:?}: {found:#?}");
    }
}

/// Makers of FAT file systems: options, and MiB.
const FAT: &[(&[&str], u64)] = &[
    (&["-F", "12", "-s", "8"], 12),
    (&["-F", "16"], 64),
    (&["-F", "16", "-s", "1", "-S", "512"], 24),
    (&["-F", "32", "-s", "1"], 64),
    (&["-F", "32", "-S", "4096"], 400),
];

#[test]
fn fat_is_read_and_its_changes_are_those_that_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (base, target) = (path("base.raw"), path("target.raw"));
    fs::create_dir(path("source")).unwrap();
    populate(&path("source"), &mut Random::new(4));
    for (options, size) in FAT {
        File::create(&base).unwrap().set_len(size << 20).unwrap();
        run(tool("mkfs.vfat").args(*options).arg(&base));
        let mtool = |name: &str, image: &Path, args: &[&str]| {
            run(tool(name).arg("-i").arg(image).args(args));
        };
        for name in ["etc", "home", "many"] {
            mtool(
                "mcopy",
                &base,
                &[
                    "-s",
                    "-Q",
                    path("source").join(name).to_str().unwrap(),
                    "::/",
                ],
            );
        }
        assert_same_trees(
            &with_files(&base, tree),
            &tree_of(&path("source")),
            &format!("{options:?}"),
        );
        fs::copy(&base, &target).unwrap();
        fs::write(path("f5"), b"other content").unwrap();
        mtool(
            "mcopy",
            &target,
            &["-o", path("f5").to_str().unwrap(), "::/etc/f5"],
        );
        mtool("mdel", &target, &["::/etc/f9"]);
        mtool("mmd", &target, &["::/new"]);
        mtool(
            "mcopy",
            &target,
            &[path("f5").to_str().unwrap(), "::/new/a longer name.text"],
        );
        mtool("mmove", &target, &["::/home/ann/deep/deeper/x", "::/etc"]);
        let found = changes(&base, &target);
        let expected = [
            "+ /etc/x",
            "+ /new",
            "+ /new/a longer name.text",
            "- /etc/f9",
            "- /home/ann/deep/deeper/x",
            "M /etc/f5",
        ];
        assert_eq!(lines(&found), expected, "{options:?}: {found:#?}");
    }
}

#[test]
#[ignore = "mounts file systems, which needs root"]
fn changes_of_ntfs_are_those_that_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let (base, target) = (
        folder.path().join("base.raw"),
        folder.path().join("target.raw"),
    );
    let place = folder.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let mount = |image: &Path| {
        let mounted = tool("ntfs-3g").args([image, &place]).output().unwrap();
        if !mounted.status.success() {
            eprintln!(
                "NOT TESTED: NTFS, which can't be mounted here: {}",
                String::from_utf8_lossy(&mounted.stderr)
            );
        }
        mounted.status.success().then(|| Mount(place.clone()))
    };
    for cluster in ["512", "4096", "65536"] {
        File::create(&base).unwrap().set_len(64 << 20).unwrap();
        run(tool("mkntfs")
            .args(["-q", "-F", "-f", "-c", cluster])
            .arg(&base));
        match mount(&base) {
            Some(mounted) => populate(&mounted.0, &mut Random::new(2)),
            None => return,
        }
        fs::copy(&base, &target).unwrap();
        let expected = {
            let mounted = mount(&target).unwrap();
            edit(&mounted.0, &mut Random::new(3));
            tree_of(&mounted.0)
        };
        let mut found = with_files(&target, tree);
        found.retain(|path, _| !path.starts_with(b"/$Extend"));
        assert_same_trees(&found, &expected, cluster);
        let found = changes(&base, &target);
        let mut lines = lines(&found);
        lines.retain(|line| !line.contains("/$Extend"));
        assert_eq!(lines, EDITED, "{cluster}: {found:#?}");
    }
}

#[test]
fn a_table_of_partitions_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    for script in [
        "label: gpt\nstart=2048, size=20480, name=\"first one\"\nstart=30720, size=40960\n",
        "label: dos\nstart=2048, size=20480, type=83\nstart=30720, size=61440, type=5\nstart=32768, size=8192, type=83\nstart=43008, size=8192, type=83\n",
    ] {
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let text = folder.path().join("script");
        fs::write(&text, script).unwrap();
        let input = File::open(&text).unwrap();
        run(tool("sfdisk").arg("-q").arg(&image).stdin(input));
        let opened = vhdkit::open(&image).unwrap();
        let table = partitions(&*opened).unwrap();
        let starts: Vec<(u32, u64, u64)> = table
            .partitions
            .iter()
            .map(|p| (p.number, p.start / 512, p.len / 512))
            .collect();
        let expected: &[(u32, u64, u64)] = match table.kind {
            "gpt" => &[(1, 2048, 20480), (2, 30720, 40960)],
            _ => &[(1, 2048, 20480), (5, 32768, 8192), (6, 43008, 8192)],
        };
        assert_eq!(starts, expected, "{}", table.kind);
    }
}

#[test]
fn no_metadata_makes_it_fail_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let (source, image) = (folder.path().join("source"), folder.path().join("disk.raw"));
    fs::create_dir(&source).unwrap();
    populate(&source, &mut Random::new(5));
    let mut random = Random::new(6);
    let mut images = Vec::new();
    for how in [
        &["ext4", "-b", "1024"][..],
        &["ext2", "-b", "1024"],
        &["ext4", "-O", "inline_data"],
    ] {
        let (kind, options) = how.split_first().unwrap();
        File::create(&image).unwrap().set_len(6 << 20).unwrap();
        run(tool(&format!("mkfs.{kind}"))
            .args(["-q", "-d", source.to_str().unwrap()])
            .args(options)
            .arg(&image));
        images.push(fs::read(&image).unwrap());
    }
    for (options, size) in [("12", 1), ("16", 10), ("32", 36)] {
        File::create(&image).unwrap().set_len(size << 20).unwrap();
        run(tool("mkfs.vfat")
            .args(["-F", options, "-s", "1"])
            .arg(&image));
        run(tool("mcopy")
            .arg("-i")
            .arg(&image)
            .arg("-s")
            .arg(source.join("etc"))
            .arg("::/"));
        images.push(fs::read(&image).unwrap());
    }
    File::create(&image).unwrap().set_len(8 << 20).unwrap();
    run(tool("mkntfs").args(["-q", "-F", "-f"]).arg(&image));
    for n in 0..12 {
        run(tool("ntfscp")
            .arg("-q")
            .arg(&image)
            .arg(source.join(format!("etc/f{n}")))
            .arg(format!("f{n}")));
    }
    images.push(fs::read(&image).unwrap());
    for whole in &images {
        let base =
            vhdkit::image::RawImage::open(vhdkit::storage::Memory::new(whole.clone())).unwrap();
        for _ in 0..40 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(60) {
                // Metadata is where bytes aren't zero, and mostly at the beginning.
                let within = 1 << (10 + random.below(12));
                let at = random.below(bytes.len().min(within));
                bytes[at] = match random.below(3) {
                    0 => 0xFF,
                    1 => bytes[at] ^ 1 << random.below(8),
                    _ => u8::try_from(random.below(256)).unwrap(),
                };
            }
            let target =
                vhdkit::image::RawImage::open(vhdkit::storage::Memory::new(bytes)).unwrap();
            changes_of(&base, &target);
            changes_of(&target, &base);
            let table = partitions(&target).unwrap();
            for partition in &table.partitions {
                if let Contents::Files(files) = contents(&target, partition).unwrap()
                    && let Ok(root) = files.root()
                {
                    let _ = tar(&files, &root, b"all", &mut Bounded(256 << 20));
                }
            }
        }
    }
}

/// Takes so many bytes: a file may say that it is as large as it likes.
struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(std::io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A picture says where changes are, in letters that a test can read, and is the same each time.
#[test]
fn a_picture_shows_each_kind_of_cell() {
    const CELL: usize = 4096;
    let folder = tempfile::tempdir().unwrap();
    let (base, target) = (
        folder.path().join("base.img"),
        folder.path().join("a<b>.img"),
    );
    let mut bytes = vec![0; 1 << 20];
    bytes[..4 * CELL].fill(7);
    fs::write(&base, &bytes).unwrap();
    bytes[0] = 1;
    bytes[CELL..2 * CELL].fill(2);
    bytes[2 * CELL..3 * CELL].fill(0);
    fs::write(&target, &bytes).unwrap();
    let draw = |form: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhd-diff"));
        command.args([&base, &target]).args(["--format", form]);
        let out = command.env("COLUMNS", "29").output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let lines = draw("term");
    assert!(
        lines
            .lines()
            .any(|line| line == "       0 B   +#o............."),
        "{lines}"
    );
    assert!(
        lines.contains("3 ranges: 4.5 KiB updated and 4 KiB cleared, of 1 MiB"),
        "{lines}"
    );
    let svg = draw("svg");
    assert_eq!(svg, draw("svg"));
    assert!(
        svg.contains("a&lt;b&gt;.img") && !svg.contains("a<b>"),
        "{svg}"
    );
    for class in ["u2", "u4", "c"] {
        assert!(
            svg.contains(&format!("<path class=\"{class}\" d=\"M")),
            "{class}"
        );
    }
}
