//! Window hashes of an image in a file: with them the diff is the same, and the image needn't be read.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::disk::{TestFolder, assert_same, changed, command, content, run, run_to};

/// The law: a list doesn't change any result.
fn same_with_and_without(folder: &TestFolder, base: &Path, target: &Path, what: &str) {
    let list = folder.path("list");
    let hashed = run(&mut command!(
        "vhd",
        "hash",
        "--windows",
        &list,
        "--force",
        base
    ));
    assert_eq!(
        hashed.stdout,
        run(&mut command!("vhd", "hash", base)).stdout,
        "{what}"
    );
    let [plain, listed] = ["plain", "listed"].map(|name| folder.path(name));
    for more in ["--compress=zstd", "--no-digest"] {
        run(&mut command!(
            "vhd-diff", base, target, more, "--force", "-q", "-o", &plain
        ));
        let with = ["--base-digests".as_ref(), list.as_os_str()];
        run(command!(
            "vhd-diff", base, target, more, "--force", "-q", "-o", &listed
        )
        .args(with));
        assert_same(
            &content(&listed),
            &content(&plain),
            &format!("{what} {more}"),
        );
        let code = i32::from(fs::read(base).unwrap() != fs::read(target).unwrap());
        let [mut plain, mut listed] =
            [(); 2].map(|()| command!("vhd-diff", base, target, "--format", "map"));
        let found = run_to(listed.args(with), code).stdout;
        assert_same(&found, &run_to(&mut plain, code).stdout, what);
    }
}

fn raw(folder: &TestFolder, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path(name);
    crate::disk::write_sparse(&path, bytes);
    path
}

#[test]
fn a_diff_with_a_list_is_the_same() {
    let folder = TestFolder::new();
    for seed in 0..8 {
        let size =
            [4 << 20, (9 << 20) + 512, 512, (1 << 20) + 4096][usize::try_from(seed % 4).unwrap()];
        let bytes = crate::disk::disk(seed, size);
        let mut after = changed(seed, &bytes);
        let base = raw(&folder, "base", &bytes);
        let target = raw(&folder, "target", &after);
        same_with_and_without(&folder, &base, &target, &format!("seed {seed}"));
        let copy = folder.copy(&base, "copy");
        same_with_and_without(&folder, &base, &copy, "equal");
        for other in [size / 1024 * 512, size + (3 << 20)] {
            after.resize(other.max(512), 7);
            let target = raw(&folder, "resized", &after);
            same_with_and_without(&folder, &base, &target, &format!("seed {seed} to {other}"));
        }
    }
}

#[test]
fn vhds_have_lists_too() {
    let folder = TestFolder::new();
    let bytes = crate::disk::disk(3, 8 << 20);
    let target = raw(&folder, "target", &changed(3, &bytes));
    let base = raw(&folder, "base", &bytes);
    for format in ["fixed", "dynamic"] {
        let vhd = folder.path(&format!("{format}.vhd"));
        run(&mut command!(
            "vhd", "-q", "convert", "-O", format, &base, &vhd
        ));
        same_with_and_without(&folder, &vhd, &target, format);
    }
    let [child, list] = ["child.vhd", "list"].map(|name| folder.path(name));
    let dynamic = folder.path("dynamic.vhd");
    run(&mut command!(
        "vhd", "-q", "create", &child, "--parent", &dynamic
    ));
    run_to(
        &mut command!("vhd", "hash", "--windows", &list, "--force", &child),
        2,
    );
}

#[test]
fn a_stale_or_damaged_list_is_refused() {
    let folder = TestFolder::new();
    let bytes = crate::disk::disk(5, 4 << 20);
    let [base, target] = ["base", "target"].map(|name| raw(&folder, name, &bytes));
    let list = folder.path("list");
    let make = || {
        run(&mut command!(
            "vhd",
            "hash",
            "--windows",
            &list,
            "--force",
            &base
        ))
    };
    let diff = |base: &Path, code| {
        run_to(
            &mut command!("vhd-diff", base, &target, "--base-digests", &list),
            code,
        )
    };
    make();
    diff(&base, 0);
    run_to(&mut command!("vhd", "hash", "--windows", &list, &base), 2);

    // Another image of the same content, and the same image after the same bytes were written again.
    diff(&raw(&folder, "other", &bytes), 2);
    let file = fs::File::options().write(true).open(&base).unwrap();
    file.write_all_at(&bytes[..1], 0).unwrap();
    let output = diff(&base, 2);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("another state") && stderr.contains("vhd hash --windows"),
        "{stderr}"
    );

    make();
    let good = content(&list);
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&list, bad).unwrap();
        diff(&base, 3);
    }
    for len in [0, 50, 95, 96, 120, good.len() - 1] {
        fs::write(&list, &good[..len]).unwrap();
        diff(&base, 3);
    }
    fs::write(&list, good).unwrap();
    diff(&base, 0);
}
