//! A wrong base, a flipped byte and a diff that was cut off: every kind of diff, in every way it can be applied.
//!
//! | case | with digests | without |
//! | --- | --- | --- |
//! | wrong base: a page differs that the diff doesn't touch | exit 4, nothing written | done, with the note that the base was checked only under the changed pages |
//! | flipped byte, anywhere | exit 3, nothing written | the same |
//! | cut off anywhere | exit 3, nothing written | the same |

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::disk::{Random, TestFolder, command, disk, run, write_sparse};

const MIB: usize = 1 << 20;
const SIZE: usize = 3 * MIB;
/// What is wrong in a wrong base; the diff doesn't touch it.
const WRONG: usize = 2 * MIB + 1234 * 512 + 7;

/// How an image is stored.
const KINDS: [&str; 4] = ["raw", "fixed", "dynamic", "differencing"];
const OPTIONS: [&[&str]; 4] = [
    &[],
    &["--compress", "none"],
    &["--no-digest"],
    &["--no-digest", "--compress", "none"],
];
/// How it is applied.
const WAYS: [&[&str]; 5] = [
    &["--in-place", "journal"],
    &["--in-place", "copy"],
    &["-o", "new.vhd"],
    &["-o", "new.raw"],
    &["-o", "child.vhd", "-O", "differencing"],
];

struct Case {
    folder: TestFolder,
    base: PathBuf,
    diff: PathBuf,
}

impl Case {
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.folder.names().into_iter();
        names
            .map(|name| {
                let bytes = fs::read(self.folder.path(&name)).unwrap();
                (name, bytes)
            })
            .collect()
    }

    /// Applies `diff`; the exit code and what was said.
    fn apply(&self, diff: &[u8], way: &[&str], pipe: bool) -> (i32, String) {
        fs::write(&self.diff, diff).unwrap();
        let mut apply = command!("vhd-apply", &self.base);
        apply.current_dir(self.folder.path("")).args(way);
        if way.contains(&"differencing") && self.base.extension().is_some_and(|e| e == "raw") {
            apply.arg("--raw-parent");
        }
        if pipe {
            apply
                .arg("-")
                .stdin(Stdio::from(fs::File::open(&self.diff).unwrap()));
        } else {
            apply.arg(&self.diff);
        }
        let output = apply.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    }
}

/// Makes an image of `kind`, and beside a differencing one its parent.
fn image(folder: &TestFolder, name: &str, kind: &str, bytes: &[u8]) -> PathBuf {
    let raw = folder.path(&format!("{name}.raw"));
    write_sparse(&raw, bytes);
    let path = folder.path(&format!("{name}.vhd"));
    match kind {
        "raw" => return raw,
        "differencing" => {
            let parent = folder.path(&format!("{name}-parent.vhd"));
            let other = folder.path("other.raw");
            let mut below = bytes.to_vec();
            below[..MIB].fill(3);
            write_sparse(&other, &below);
            run(&mut command!("vhd", "convert", &other, &parent, "-q"));
            let diff = folder.path("first");
            run(&mut command!(
                "vhd-diff", &parent, &raw, "-o", &diff, "-q", "--force"
            ));
            run(&mut command!(
                "vhd-apply",
                &parent,
                &diff,
                "-o",
                &path,
                "-O",
                "differencing",
                "-q"
            ));
            fs::remove_file(diff).unwrap();
            fs::remove_file(other).unwrap();
        }
        _ => drop(run(&mut command!(
            "vhd", "convert", &raw, &path, "-O", kind, "-q"
        ))),
    }
    fs::remove_file(raw).unwrap();
    path
}

#[test]
fn every_kind_of_diff_in_every_way() {
    let old = disk(1, SIZE);
    let mut new = old.clone();
    new[MIB / 2..MIB].copy_from_slice(&Random::new(2).bytes(MIB / 2));
    new[MIB + 4096..MIB + 8192].fill(0);
    let mut wrong = old.clone();
    wrong[WRONG] ^= 1;
    let mut tried = 0;
    for (n, kind) in KINDS.into_iter().enumerate() {
        for (m, options) in OPTIONS.into_iter().enumerate() {
            let folder = TestFolder::in_memory();
            let right = image(&folder, "right", kind, &old);
            let target = image(&folder, "target", "dynamic", &new);
            let diff = folder.path("diff");
            let mut make = command!("vhd-diff", &right, &target, "-o", &diff, "-q");
            run(make.args(options));
            fs::remove_file(target).unwrap();
            let sound = fs::read(&diff).unwrap();
            let base = image(&folder, "wrong", kind, &wrong);
            let mut case = Case { folder, base, diff };
            for (w, way) in WAYS.into_iter().enumerate() {
                for pipe in [false, true] {
                    let what = format!("{kind} {options:?} {way:?} pipe {pipe}");
                    // Damage: the right base would do.
                    let wrong_base = std::mem::replace(&mut case.base, right.clone());
                    let at = (n + 3 * m + 5 * w) % 7 * sound.len() / 7 + 1;
                    let mut flipped = sound.clone();
                    flipped[at] ^= 1;
                    for bad in [
                        &flipped,
                        &sound[..sound.len() * 6 / 10],
                        &sound[..sound.len() - 1],
                    ] {
                        fs::write(&case.diff, bad).unwrap();
                        let before = case.files();
                        let (code, said) = case.apply(bad, way, pipe);
                        assert_eq!(code, 3, "{what}: {said}");
                        assert!(case.files() == before, "{what}: something was written");
                        tried += 1;
                    }
                    case.base = wrong_base;
                    fs::write(&case.diff, &sound).unwrap();
                    let before = case.files();
                    let (code, said) = case.apply(&sound, way, pipe);
                    tried += 1;
                    if options.contains(&"--no-digest") {
                        // Nothing could tell; the user is told just that.
                        assert_eq!(code, 0, "{what}: {said}");
                        let note = "checked only under the changed pages";
                        assert!(said.contains(note), "{what}: {said}");
                        for (name, bytes) in before {
                            fs::write(case.folder.path(&name), bytes).unwrap();
                        }
                        for name in ["new.vhd", "new.raw", "child.vhd"] {
                            let _ = fs::remove_file(case.folder.path(name));
                        }
                    } else {
                        assert_eq!(code, 4, "{what}: {said}");
                        assert!(case.files() == before, "{what}: something was written");
                    }
                }
            }
        }
    }
    assert_eq!(tried, KINDS.len() * OPTIONS.len() * WAYS.len() * 2 * 4);
}
