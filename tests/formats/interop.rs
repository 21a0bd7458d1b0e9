//! Cross-checks with independent readers and writers of VHD and of file systems, through the real binaries.
//!
//! What is missing on the machine fails the test: `tests/run` installs it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::disk::{TestFolder, assert_same, changed, command, content, pipe, run, run_to};

const MIB: usize = 1 << 20;

/// Returns disks of sizes at which geometry, blocks and bitmaps end evenly or unevenly.
fn disks() -> impl Iterator<Item = (String, Vec<u8>)> {
    let odd = [1, 3, 127, 4097].map(|pages| 5 * MIB + 512 * pages);
    let random = [MIB, 16 * MIB].into_iter().chain(odd).map(|size| {
        (
            format!("{size} bytes"),
            crate::disk::disk(size as u64, size),
        )
    });
    let mut large = vec![0; 127 * MIB];
    for at in [0, 2 * MIB - 512, 2 * MIB, 50 * MIB + 4096, 127 * MIB - 512] {
        large[at..at + 512].fill(0x5A);
    }
    random.chain([
        ("127 MiB, nearly empty".to_string(), large),
        ("3 MiB, empty".to_string(), vec![0; 3 * MIB]),
    ])
}

#[test]
fn others_read_what_we_write() {
    for (name, bytes) in disks() {
        let folder = TestFolder::new();
        let raw = folder.file("disk.img", &bytes);
        for format in ["fixed", "dynamic"] {
            let vhd = folder.path(&format!("{format}.vhd"));
            run(&mut command!("vhd", "convert", &raw, &vhd, "-O", format));
            for (reader, read) in READERS {
                let found = read(&folder, &vhd);
                assert_same(&found, &bytes, &format!("{reader}, {format}, {name}"));
            }
        }
    }
}

/// Reads the virtual disk of a VHD.
type Reader = fn(&TestFolder, &Path) -> Vec<u8>;

const READERS: &[(&str, Reader)] = &[
    ("vhd", read_with_vhd),
    ("qemu-img", read_with_qemu),
    ("7-Zip", read_with_7zip),
    ("libvhdi", |folder, vhd| {
        read_with_python(folder, vhd, LIBVHDI)
    }),
    ("dissect", |folder, vhd| {
        read_with_python(folder, vhd, DISSECT)
    }),
];

const LIBVHDI: &str = "
import sys, pyvhdi
disk = pyvhdi.file()
disk.open(sys.argv[1])
open(sys.argv[2], 'wb').write(disk.read_buffer(disk.get_media_size()))
";

const DISSECT: &str = "
import sys
from dissect.hypervisor.disk.vhd import VHD
disk = VHD(open(sys.argv[1], 'rb'))
open(sys.argv[2], 'wb').write(disk.read(disk.size))
";

fn read_with_vhd(folder: &TestFolder, vhd: &Path) -> Vec<u8> {
    let out = folder.path("read.img");
    let _ = fs::remove_file(&out);
    run(&mut command!("vhd", "convert", vhd, &out, "-O", "raw"));
    content(out)
}

fn read_with_qemu(folder: &TestFolder, vhd: &Path) -> Vec<u8> {
    let out = folder.path("read.img");
    run(&mut command!(
        "qemu-img",
        "convert",
        "--image-opts",
        "-O",
        "raw",
        qemu_vhd(vhd),
        &out
    ));
    content(out)
}

fn read_with_7zip(_: &TestFolder, vhd: &Path) -> Vec<u8> {
    run(&mut command!("7z", "e", "-so", "-tvhd", vhd)).stdout
}

fn read_with_python(folder: &TestFolder, vhd: &Path, script: &str) -> Vec<u8> {
    let out = folder.path("read.img");
    run(&mut command!("python", "-c", script, vhd, &out));
    content(out)
}

/// Returns the `--image-opts` of a VHD for `qemu-img`. Versions before 10 take the size of unknown creators from the
/// geometry, which rounds down.
fn qemu_vhd(path: &Path) -> OsString {
    let mut options = OsString::from("driver=vpc,force_size_calc=current_size,file.filename=");
    options.push(path);
    options
}

fn qemu_raw(path: &Path) -> OsString {
    let mut options = OsString::from("driver=raw,file.filename=");
    options.push(path);
    options
}

#[test]
fn others_read_what_was_resized() {
    let bytes = crate::disk::disk(11, 3 << 20);
    for (format, block_size) in [
        ("fixed", None),
        ("dynamic", Some("--block-size=64K")),
        ("dynamic", Some("--block-size=2M")),
    ] {
        // With 64 KiB blocks, 40 MiB need a BAT at the end of the file; 24 MiB fit in place.
        for size in [1 << 20, 24 << 20, 40 << 20] {
            let folder = TestFolder::new();
            let (raw, vhd) = (folder.file("disk.img", &bytes), folder.path("disk.vhd"));
            let mut convert = command!("vhd", "convert", &raw, &vhd, "-O", format);
            convert.args(block_size);
            run(&mut convert);
            let text = size.to_string();
            run(&mut command!(
                "vhd",
                "resize",
                &vhd,
                "--size",
                text,
                "--allow-data-loss"
            ));
            let mut model = bytes.clone();
            model.resize(size, 0);
            for (reader, read) in READERS {
                let what = format!("{reader}, {format}, {size}");
                // libvhdi takes original_size for the size: it reads too much of a disk that shrank, and only the old
                // part of one that grew. It loses pages of partly stored small blocks, whether resized or not.
                let small = block_size == Some("--block-size=64K");
                let expected = match *reader {
                    "libvhdi" if size < bytes.len() || small => continue,
                    "libvhdi" => &model[..bytes.len()],
                    _ => &model,
                };
                assert_same(&read(&folder, &vhd), expected, &what);
            }
            run(&mut command!("qemu-img", "info", &vhd));
        }
    }
}

#[test]
fn we_read_what_qemu_writes() {
    for (name, bytes) in disks() {
        let folder = TestFolder::new();
        let raw = folder.file("disk.img", &bytes);
        for options in [
            "subformat=dynamic,force_size=on",
            "subformat=dynamic,force_size=off",
            "subformat=fixed,force_size=on",
            "subformat=fixed,force_size=off",
        ] {
            let vhd = folder.path("qemu.vhd");
            run(&mut command!(
                "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", options, &raw, &vhd
            ));
            let what = format!("{options}, {name}");
            let found = read_with_vhd(&folder, &vhd);
            // Without force_size the disk is rounded up to the next size that a geometry can express.
            let (disk, rest) = found.split_at(bytes.len().min(found.len()));
            assert_same(disk, &bytes, &what);
            assert!(rest.iter().all(|byte| *byte == 0), "{what}");
            assert!(rest.is_empty() || options.ends_with("off"), "{what}");

            let read = folder.file("read.img", &found);
            for algorithm in ["content", "sha256", "blake3"] {
                assert_eq!(
                    hash(&vhd, algorithm),
                    hash(&read, algorithm),
                    "{algorithm}, {what}"
                );
            }
            let sum = run(&mut command!("sha256sum", &read)).stdout;
            assert_eq!(hash(&vhd, "sha256").as_bytes(), &sum[..64], "{what}");
        }
    }
}

fn hash(image: &Path, algorithm: &str) -> String {
    let output = run(&mut command!(
        "vhd",
        "hash",
        "--algorithm",
        algorithm,
        image
    ));
    let text = String::from_utf8(output.stdout).unwrap();
    let (hash, path) = text.trim_end().split_once("  ").unwrap();
    assert_eq!((hash.len(), Path::new(path)), (64, image));
    hash.to_string()
}

#[test]
fn an_ext4_file_system_is_rebuilt() {
    let folder = TestFolder::new();
    let (old, new) = (folder.path("old.img"), folder.path("new.img"));
    let files = folder.path("files");
    fs::create_dir_all(files.join("folder")).unwrap();
    for (n, name) in ["a.bin", "b.bin", "folder/c.bin"].iter().enumerate() {
        fs::write(files.join(name), crate::disk::disk(n as u64, 900_000)).unwrap();
    }
    run(&mut command!(
        "mkfs.ext4",
        "-q",
        "-F",
        "-d",
        &files,
        &old,
        "24M"
    ));
    fs::copy(&old, &new).unwrap();

    let fresh = folder.file("fresh", &crate::disk::disk(7, 700_001));
    let requests = folder.file(
        "requests",
        format!(
            "rm a.bin\nwrite {} new.bin\nmkdir other\nsymlink other/link b.bin\n",
            fresh.display()
        )
        .as_bytes(),
    );
    run(&mut command!("debugfs", "-w", "-f", &requests, &new));
    rebuild_everywhere(&folder, &old, &new, &|image| {
        run(&mut command!("e2fsck", "-fn", image));
        let read = run(&mut command!("debugfs", "-R", "cat new.bin", image)).stdout;
        assert_same(&read, &content(&fresh), "new.bin");
    });
}

#[test]
fn an_ntfs_file_system_is_rebuilt() {
    let folder = TestFolder::new();
    let (old, new) = (folder.path("old.img"), folder.path("new.img"));
    let first = folder.file("first", &crate::disk::disk(1, 900_000));
    let fresh = folder.file("fresh", &crate::disk::disk(2, 700_001));
    fs::File::create(&old).unwrap().set_len(24 << 20).unwrap();
    run(&mut command!(
        "mkntfs", "-q", "-F", "-Q", "-s", "512", "-p", "0", "-H", "16", "-S", "63", &old
    ));
    run(&mut command!(
        "ntfscp",
        "-q",
        "-f",
        &old,
        &first,
        "first.bin"
    ));
    fs::copy(&old, &new).unwrap();

    run(&mut command!("ntfscp", "-q", "-f", &new, &fresh, "new.bin"));
    rebuild_everywhere(&folder, &old, &new, &|image| {
        for (name, file) in [("first.bin", &first), ("new.bin", &fresh)] {
            let read = run(&mut command!("ntfscat", "-f", image, name)).stdout;
            assert_same(&read, &content(file), name);
        }
    });
}

/// Diffs two raw images held in each format, and rebuilds the newer in each format. `check` checks a raw image.
fn rebuild_everywhere(folder: &TestFolder, old: &Path, new: &Path, check: &dyn Fn(&Path)) {
    const FORMATS: [&str; 3] = ["raw", "fixed", "dynamic"];
    let new_bytes = content(new);
    check(new);
    for format in FORMATS {
        let base = folder.path(&format!("base-{format}"));
        let target = folder.path(&format!("target-{format}"));
        run(&mut command!("vhd", "convert", old, &base, "-O", format));
        run(&mut command!("vhd", "convert", new, &target, "-O", format));
        run_to(&mut command!("vhd-diff", &base, &target), 1);

        let diff = folder.path(&format!("{format}.vhddiff"));
        run(&mut command!("vhd-diff", &base, &target, "-o", &diff));
        let (size, whole) = (fs::metadata(&diff).unwrap().len(), new_bytes.len());
        assert!(
            size < whole as u64 / 2,
            "{size} bytes of diff for a disk of {whole}"
        );

        for out_format in FORMATS {
            let out = folder.path(&format!("{format}-to-{out_format}"));
            run(&mut command!(
                "vhd-apply",
                &base,
                &diff,
                "-o",
                &out,
                "-O",
                out_format
            ));
            run_to(&mut command!("vhd-diff", &out, &target), 0);
            let opened = if out_format == "raw" {
                run(&mut command!("cmp", &out, new));
                check(&out);
                qemu_raw(&out)
            } else {
                qemu_vhd(&out)
            };
            run(&mut command!(
                "qemu-img",
                "compare",
                "--image-opts",
                qemu_raw(new),
                opened
            ));
            assert_same(&read_with_vhd(folder, &out), &new_bytes, out_format);
        }

        run(&mut command!("vhd-apply", &base, &diff));
        assert_same(&read_with_vhd(folder, &base), &new_bytes, "in place");
        if format != "dynamic" {
            run(&mut command!("cmp", &base, &target));
        }
    }
}

#[test]
fn a_diff_goes_through_a_pipe() {
    let bytes = crate::disk::disk(1, 9 * MIB + 512);
    let later = changed(2, &bytes);
    for format in ["raw", "fixed", "dynamic"] {
        let folder = TestFolder::new();
        let (old, new) = (folder.file("old", &bytes), folder.file("new", &later));
        let (a, b) = (folder.path("a"), folder.path("b"));
        run(&mut command!("vhd", "convert", &old, &a, "-O", format));
        run(&mut command!("vhd", "convert", &new, &b, "-O", format));
        let c = folder.copy(&a, "c");

        pipe(
            &mut command!("vhd-diff", &a, &b, "-o", "-"),
            &mut command!("vhd-apply", &c, "-"),
        );
        assert_same(&read_with_vhd(&folder, &c), &later, format);
        assert_same(&read_with_vhd(&folder, &a), &bytes, "the base");
        if format != "dynamic" {
            run(&mut command!("cmp", &b, &c));
        }
    }
}

/// `tests/diff_reader.py` was written from `docs/diff-format.md` alone.
#[test]
fn a_reader_written_from_the_document_agrees() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reader = root.join("tests/diff_reader.py");
    run(&mut command!(
        "python",
        &reader,
        "--fixtures",
        root.join("fixtures/diff")
    ));
    for (seed, size) in [(1, 9 * MIB + 512), (2, 5 * MIB), (3, MIB)] {
        let folder = TestFolder::new();
        let before = crate::disk::disk(seed, size);
        let mut after = changed(seed + 10, &before);
        after.resize(size - 512 * usize::try_from(seed).unwrap() + 2048, 0);
        let (base, target) = (
            folder.file("base.img", &before),
            folder.file("target.img", &after),
        );
        for how in ["zstd", "none"] {
            let (diff, out) = (
                folder.path(&format!("{how}.vhddiff")),
                folder.path(&format!("{how}.img")),
            );
            run(&mut command!(
                "vhd-diff",
                &base,
                &target,
                "-o",
                &diff,
                "--compress",
                how
            ));
            run(&mut command!("python", &reader, &base, &diff, &out));
            assert_same(&content(&out), &after, how);
            // This base is not the one of the diff.
            run_to(&mut command!("python", &reader, &target, &diff, &out), 4);
        }
        both_ways(&folder, &reader, [&base, &target], [&before, &after]);
    }
}

/// Takes the reader forwards and backwards along a reversible diff, and along two of them squashed into one.
fn both_ways(folder: &TestFolder, reader: &Path, images: [&Path; 2], contents: [&[u8]; 2]) {
    let third = changed(77, contents[1]);
    let third_image = folder.file("third.img", &third);
    let [first, second, both, out] = [
        "first.vhddiff",
        "second.vhddiff",
        "both.vhddiff",
        "back.img",
    ]
    .map(|n| folder.path(n));
    for (from, to, diff) in [
        (images[0], images[1], &first),
        (images[1], &*third_image, &second),
    ] {
        run(&mut command!(
            "vhd-diff",
            from,
            to,
            "-o",
            diff,
            "--reversible"
        ));
    }
    run(&mut command!(
        "vhd",
        "squash",
        &first,
        &second,
        "-o",
        &both,
        "--reversible"
    ));
    for (from, to, diff, before, after) in [
        (images[0], images[1], &first, contents[0], contents[1]),
        (images[0], &*third_image, &both, contents[0], &third),
    ] {
        run(&mut command!("python", reader, from, diff, &out));
        assert_same(&content(&out), after, "there");
        run(&mut command!("python", reader, "--reverse", to, diff, &out));
        assert_same(&content(&out), before, "back");
        run_to(
            &mut command!("python", reader, "--reverse", from, diff, &out),
            4,
        );
    }
}
