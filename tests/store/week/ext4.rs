//! A disk image with an ext4 file system, changed from outside by the file system's own tools: nothing is mounted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use crate::disk::{Random, command, program, run};

/// Bytes of a block of the file system.
const BLOCK: u64 = 4096;
/// The first size, in MiB.
const MIB: u64 = 64;

/// The disk as it is now, and what its files hold.
pub(crate) struct Ext4 {
    folder: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    random: Random,
}

impl Ext4 {
    /// Makes `disk.img` in this folder, with a few folders and files.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let mut disk = Self {
            image: folder.join("disk.img"),
            folder,
            files: BTreeMap::new(),
            random: Random::new(2026),
        };
        let tree = disk.folder.join("tree");
        for (path, len) in [
            ("etc/passwd", 1 << 10),
            ("home/notes.txt", 30 << 10),
            ("srv/database", 6 << 20),
            ("srv/photos-1", 12 << 20),
            ("srv/photos-2", 9 << 20),
            ("var/log/syslog", 500 << 10),
        ] {
            let bytes = disk.content(path, len);
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, &bytes).unwrap();
            disk.files.insert(path.to_owned(), bytes);
        }
        let file = fs::File::create(&disk.image).unwrap();
        file.set_len(MIB << 20).unwrap();
        run(command!(
            "mkfs.ext4",
            "-q",
            "-F",
            "-b",
            "4096",
            "-L",
            "week",
            "-d",
            &tree
        )
        .arg(&disk.image));
        fs::remove_dir_all(tree).unwrap();
        disk.must_be_clean();
        disk
    }

    /// Text in logs and letters, else what can't be packed.
    fn content(&mut self, path: &str, len: usize) -> Vec<u8> {
        if path.starts_with("srv/") {
            return self.random.bytes(len);
        }
        let mut text = String::new();
        while text.len() < len {
            writeln!(text, "{path}: line {:016x}", self.random.next()).unwrap();
        }
        text.truncate(len);
        text.into_bytes()
    }

    pub(crate) fn add(&mut self, path: &str, len: usize) {
        let bytes = self.content(path, len);
        self.write(path, bytes);
        self.must_be_clean();
    }

    /// Writes the file anew, longer, as many programs do.
    pub(crate) fn append(&mut self, path: &str, len: usize) {
        let mut bytes = self.files[path].clone();
        let more = self.content(path, len);
        bytes.extend(more);
        self.debugfs(&format!("rm {path}"));
        self.write(path, bytes);
        self.must_be_clean();
    }

    pub(crate) fn delete(&mut self, path: &str) {
        self.debugfs(&format!("rm {path}"));
        self.files.remove(path).unwrap();
        self.must_be_clean();
    }

    fn write(&mut self, path: &str, bytes: Vec<u8>) {
        let file = self.folder.join("file");
        fs::write(&file, &bytes).unwrap();
        self.debugfs(&format!("write {} {path}", file.display()));
        fs::remove_file(file).unwrap();
        self.files.insert(path.to_owned(), bytes);
    }

    /// Writes `count` blocks of the file in place, as a database does.
    pub(crate) fn overwrite(&mut self, path: &str, count: usize) {
        let said = self.debugfs(&format!("blocks {path}"));
        let blocks: Vec<u64> = said
            .split_whitespace()
            .map(|block| block.parse().unwrap())
            .collect();
        let image = fs::File::options().write(true).open(&self.image).unwrap();
        let bytes = self.files.get_mut(path).unwrap();
        assert_eq!(blocks.len() as u64, (bytes.len() as u64).div_ceil(BLOCK));
        for _ in 0..count {
            let n = self.random.below(blocks.len());
            let block = self.random.bytes(4096);
            image.write_all_at(&block, blocks[n] * BLOCK).unwrap();
            bytes[n * 4096..(n + 1) * 4096].copy_from_slice(&block);
        }
    }

    /// Gives back the blocks that no file uses: holes in the image.
    pub(crate) fn trim(&mut self) {
        let before = self.stored();
        run(&mut command!(
            "e2fsck",
            "-f",
            "-p",
            "-E",
            "discard",
            &self.image
        ));
        let after = self.stored();
        assert!(
            after + (1 << 20) < before,
            "{before} bytes before trimming, {after} after"
        );
        self.must_be_clean();
    }

    /// Makes the disk and its file system larger.
    pub(crate) fn grow(&mut self, mib: u64) {
        let file = fs::File::options().write(true).open(&self.image).unwrap();
        file.set_len(mib << 20).unwrap();
        run(&mut command!("resize2fs", &self.image));
        self.must_be_clean();
    }

    fn stored(&self) -> u64 {
        fs::metadata(&self.image).unwrap().blocks() * 512
    }

    fn must_be_clean(&self) {
        run(&mut command!("e2fsck", "-f", "-n", &self.image));
    }

    /// One command, which must do what it says: debugfs itself always ends with 0.
    fn debugfs(&self, request: &str) -> String {
        let mut debugfs = program("debugfs");
        let output = run(debugfs.args(["-w", "-R", request]).arg(&self.image));
        let stderr = String::from_utf8(output.stderr).unwrap();
        // Its name and version, and nothing else.
        assert_eq!(stderr.lines().count(), 1, "{request}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}
