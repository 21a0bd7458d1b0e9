//! Random operations on a family of VHDs, with the real binaries: children are created, written, merged, rebased,
//! renamed and removed, and after each step every remaining image must read as its model.
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use vhdkit::files::{OpenOptions, ParentOptions, open_image};
use vhdkit::image::{Image as _, ImageMut as _};
use vhdkit::page::PageRange;

use crate::disk::{Random, TestFolder, assert_same, command, run};

const PAGES: usize = 96;
const PAGE: usize = 512;

/// An image and its expected content.
struct Member {
    file: String,
    /// The index of its parent.
    parent: Option<usize>,
    disk: Vec<u8>,
}

struct Model {
    folder: TestFolder,
    random: Random,
    members: BTreeMap<usize, Member>,
    next: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let folder = TestFolder::new();
        let mut random = Random::new(seed);
        let disk = random.bytes(PAGES * PAGE);
        folder.file("raw", &disk);
        let formats = ["fixed", "dynamic"];
        let format = formats[random.below(2)];
        let file = "base 0.vhd".to_owned();
        let size = ["512", "4K", "16K"][random.below(3)];
        let mut convert = command!(
            "vhd",
            "convert",
            folder.path("raw"),
            folder.path(&file),
            "-O",
            format
        );
        if format == "dynamic" {
            convert.args(["--block-size", size]);
        }
        run(&mut convert);
        fs::remove_file(folder.path("raw")).unwrap();
        let root = Member {
            file,
            parent: None,
            disk,
        };
        Self {
            folder,
            random,
            members: BTreeMap::from([(0, root)]),
            next: 1,
        }
    }

    fn path(&self, n: usize) -> PathBuf {
        self.folder.path(&self.members[&n].file)
    }

    fn children(&self, n: usize) -> Vec<usize> {
        let of = |member: &Member| member.parent == Some(n);
        let children = self.members.iter().filter(|(_, member)| of(member));
        children.map(|(n, _)| *n).collect()
    }

    /// Picks any image for which `fits` holds.
    fn any(&mut self, fits: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let all: Vec<usize> = self.members.keys().copied().collect();
        let fitting: Vec<usize> = all.into_iter().filter(|n| fits(self, *n)).collect();
        (!fitting.is_empty()).then(|| fitting[self.random.below(fitting.len())])
    }

    fn ancestors(&self, n: usize) -> Vec<usize> {
        std::iter::successors(Some(n), |n| self.members[n].parent).collect()
    }

    /// Takes one step; returns a description of it.
    fn step(&mut self) -> String {
        match self.random.below(8) {
            0 | 1 => self.make_child(),
            2 | 3 => self.write(),
            4 => self.fold(),
            5 => self.rebase(),
            6 => self.rename(),
            _ => self.remove(),
        }
    }

    fn make_child(&mut self) -> String {
        let short = |model: &Self, n: usize| model.ancestors(n).len() < 6;
        let Some(parent) = self.any(short).filter(|_| self.members.len() < 9) else {
            return String::new();
        };
        let n = self.next;
        self.next += 1;
        let file = format!("child {n}.avhd");
        let size = ["512", "4K", "16K"][self.random.below(3)];
        let path = self.folder.path(&file);
        run(&mut command!(
            "vhd",
            "create",
            path,
            "--parent",
            self.path(parent),
            "--block-size",
            size
        ));
        let disk = self.members[&parent].disk.clone();
        let member = Member {
            file,
            parent: Some(parent),
            disk,
        };
        self.members.insert(n, member);
        format!("child {n} of {parent}")
    }

    /// Writes to an image that has no children.
    fn write(&mut self) -> String {
        let Some(n) = self.any(|model, n| model.children(n).is_empty()) else {
            return String::new();
        };
        let options = OpenOptions {
            writable: true,
            no_lock: true,
            parents: ParentOptions {
                no_lock: true,
                ..ParentOptions::default()
            },
            ..OpenOptions::default()
        };
        let mut image = open_image(self.path(n), &options).unwrap();
        for _ in 0..=self.random.below(3) {
            let start = self.random.below(PAGES);
            let end = (start + 1 + self.random.below(12)).min(PAGES);
            let range = PageRange::new((start * PAGE) as u64, (end * PAGE) as u64).unwrap();
            let bytes = match self.random.below(3) {
                0 => vec![0; (end - start) * PAGE],
                _ => self.random.bytes((end - start) * PAGE),
            };
            if bytes.iter().all(|byte| *byte == 0) {
                image.clear(range).unwrap();
            } else {
                image.update(range, &bytes).unwrap();
            }
            let member = self.members.get_mut(&n).unwrap();
            member.disk[start * PAGE..end * PAGE].copy_from_slice(&bytes);
        }
        image.flush().unwrap();
        format!("write {n}")
    }

    /// Merges an image into its parent: refused where the parent has other children.
    fn fold(&mut self) -> String {
        let Some(n) = self.any(|model, n| model.members[&n].parent.is_some()) else {
            return String::new();
        };
        let parent = self.members[&n].parent.unwrap();
        let delete = self.random.below(3) > 0;
        let mut merge = command!("vhd", "merge", self.path(n));
        merge.args(delete.then_some("--delete"));
        let ended = merge.output().unwrap();
        let same = self.members[&n].disk == self.members[&parent].disk;
        let only = self.children(parent).len() == 1;
        if ended.status.code() == Some(2) {
            assert!(!only && !same, "{}", String::from_utf8_lossy(&ended.stderr));
            return format!("fold {n}: refused");
        }
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        assert!(only || same, "a sibling was orphaned");
        let disk = self.members[&n].disk.clone();
        if let Some(parent) = self.members.get_mut(&parent) {
            parent.disk = disk;
        }
        if delete {
            for child in self.children(n) {
                self.members.get_mut(&child).unwrap().parent = Some(parent);
            }
            self.members.remove(&n);
        }
        format!("fold {n} into {parent}, {delete}")
    }

    fn rebase(&mut self) -> String {
        let Some(n) = self.any(|model, n| model.members[&n].parent.is_some()) else {
            return String::new();
        };
        let Some(parent) = self.any(|model, new| !model.ancestors(new).contains(&n)) else {
            return String::new();
        };
        run(&mut command!(
            "vhd",
            "rebase",
            self.path(n),
            "--parent",
            self.path(parent)
        ));
        self.members.get_mut(&n).unwrap().parent = Some(parent);
        format!("rebase {n} to {parent}")
    }

    /// Renames an image and rebases its children as the command's message suggests.
    fn rename(&mut self) -> String {
        let Some(n) = self.any(|_, _| true) else {
            return String::new();
        };
        let old = self.path(n);
        let file = format!("renamed {}.vhd", self.random.below(1000) + 1000 * n);
        self.members.get_mut(&n).unwrap().file = file;
        fs::rename(old, self.path(n)).unwrap();
        for child in self.children(n) {
            let refused = command!("vhd", "hash", self.path(child)).output().unwrap();
            assert_eq!(refused.status.code(), Some(2));
            let said = String::from_utf8(refused.stderr).unwrap();
            let line = said
                .lines()
                .find_map(|line| line.split(" with vhd rebase ").nth(1))
                .unwrap();
            let line = format!("\"$VHD\" rebase {line}");
            run(command!("bash", "-c", line).env("VHD", env!("CARGO_BIN_EXE_vhd")));
        }
        format!("rename {n}")
    }

    fn remove(&mut self) -> String {
        let leaf = |model: &Self, n: usize| n != 0 && model.children(n).is_empty();
        let Some(n) = self.any(leaf).filter(|_| self.members.len() > 4) else {
            return String::new();
        };
        fs::remove_file(self.path(n)).unwrap();
        self.members.remove(&n);
        format!("remove {n}")
    }

    fn check(&self, done: &[String]) {
        for (n, member) in &self.members {
            let path = self.path(*n);
            let options = OpenOptions {
                no_lock: true,
                parents: ParentOptions {
                    no_lock: true,
                    ..ParentOptions::default()
                },
                ..OpenOptions::default()
            };
            let image =
                open_image(&path, &options).unwrap_or_else(|e| panic!("{done:?}: {n}: {e:?}"));
            let mut bytes = vec![0; PAGES * PAGE];
            image.read_exact_at(&mut bytes, 0).unwrap();
            assert_same(&bytes, &member.disk, &format!("{done:?}: {n}"));
            let parent = image.parent().map(|parent| parent.path().to_path_buf());
            assert_eq!(
                parent,
                member.parent.map(|parent| self.path(parent)),
                "{done:?}: {n}"
            );
            let with_7zip = member.file.ends_with("0.vhd") || self.random_says(*n);
            if with_7zip && image.parent().is_some() {
                let read = run(&mut command!("7z", "e", "-so", "-tvhd", &path)).stdout;
                assert_same(&read, &member.disk, &format!("7-Zip: {done:?}: {n}"));
            }
        }
        run(&mut command!("vhd", "tree", self.folder.path("."), "-q"));
    }

    /// True in some steps only, because starting another program takes long.
    fn random_says(&self, n: usize) -> bool {
        (n + self.next).is_multiple_of(5)
    }
}

#[test]
fn random_families_read_as_plain_bytes_say() {
    for seed in 0..12 {
        let mut model = Model::new(seed);
        let mut done = vec![format!("seed {seed}")];
        for _ in 0..40 {
            let step = model.step();
            if step.is_empty() {
                continue;
            }
            done.push(step);
            model.check(&done);
        }
        let mut faults = command!("vhd", "check", "-q");
        for n in model.members.keys() {
            faults.arg(model.path(*n));
        }
        run(&mut faults);
    }
}
