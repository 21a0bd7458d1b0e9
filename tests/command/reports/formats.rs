//! What isn't a VHD, and what isn't one any more: told by every command alike, with what to do about it.

use std::fs;
use std::path::Path;

use vhdkit::files::foreign::KINDS;

use crate::disk::disk;
use crate::reports::lab::{Case, Ended, Lab, tell};
use crate::reports::samples::{Sample, fixed, footer, samples, tar};

/// What most cases look at: a disk of 2 MiB.
const SIZE: usize = 2 << 20;

#[test]
fn formats() {
    tell("Formats", CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "a raw disk named .vhd, check --azure",
        before: "no fault",
        now: "an error: there is no footer, and the command that makes one works",
        run: |lab| {
            lab.file("no footer.vhd", &disk(1, 20 << 20));
            let ended = lab.shell("vhd check --azure 'no footer.vhd'").code(1);
            let ended = ended.says("azure-no-footer").says("footer-missing");
            follow(lab, &ended.advice("vhd convert --azure")[0]);
            lab.shell("vhd check --azure 'no footer-new.vhd'").code(0);
        },
    },
    Case {
        name: "a VHDX, check and check --azure",
        before: "a raw image, no fault",
        now: "refused as by every command",
        run: |lab| {
            lab.file("d.vhdx", &Sample::of("a VHDX image").bytes);
            for command in ["check", "check --azure", "check --repair", "info"] {
                let ended = lab.shell(&format!("vhd {command} d.vhdx")).code(3);
                ended.says("this is a VHDX image").says(
                    "qemu-img convert -O vpc -o subformat=dynamic,force_size=on d.vhdx d.vhd",
                );
            }
        },
    },
    Case {
        name: "an OVA, converted for an upload",
        before: "an upload whose disk is the tar",
        now: "refused, with the command that unpacks it",
        run: |lab| {
            lab.file("my appliance.ova", &tar("d.vmdk", b"KDMV"));
            let ended = lab
                .shell("vhd convert --azure 'my appliance.ova' up.vhd")
                .code(3);
            follow(lab, &ended.advice("mkdir")[0]);
            assert!(lab.read("my appliance/d.vmdk").starts_with(b"KDMV"));
            assert!(!lab.exists("up.vhd"));
        },
    },
    Case {
        name: "a download that was cut off, named .vhd",
        before: "a raw image, no fault; converted and stored without a word",
        now: "a finding of check, and a warning of every command that reads it",
        run: |lab| {
            lab.file("cut.vhd", &fixed(&disk(2, SIZE))[..SIZE / 2]);
            let ended = lab
                .shell("vhd check cut.vhd")
                .code(1)
                .says("footer-missing");
            ended
                .says("if it was truncated, copy it again")
                .omits("no problems");
            lab.shell("vhd check --azure cut.vhd")
                .code(1)
                .says("azure-no-footer");
            for command in [
                "vhd info cut.vhd",
                "vhd hash cut.vhd",
                "vhd map cut.vhd",
                "vhd convert cut.vhd o.raw",
                "vhd convert --azure cut.vhd o.vhd",
                "vhd-diff cut.vhd cut.vhd.raw",
                "vhd snapshot create --init --store s --disk d --name n cut.vhd",
            ] {
                lab.file("cut.vhd.raw", &disk(2, SIZE)[..SIZE / 2]);
                lab.shell(command)
                    .code(0)
                    .says("there is no VHD footer at the end of the file");
            }
            // What was said is obeyed in silence.
            lab.shell("vhd hash -f raw cut.vhd")
                .code(0)
                .omits("warning");
        },
    },
    Case {
        name: "a raw image, checked",
        before: "no VHD: a raw image, no fault",
        now: "says that only its length was looked at",
        run: |lab| {
            lab.file("disk.raw", &disk(3, SIZE));
            let ended = lab.shell("vhd check disk.raw").code(0).omits("no problems");
            ended.says("a raw image, only the length was checked");
        },
    },
    Case {
        name: "a file of text named .vhd",
        before: "a raw image, no fault",
        now: "an error: there is no footer",
        run: |lab| {
            let mut text = b"entity counter is port (clk : in bit); end;\n".to_vec();
            text.resize(512, b' ');
            lab.file("counter.vhd", &text);
            lab.shell("vhd check counter.vhd")
                .code(1)
                .says("footer-missing");
        },
    },
    Case {
        name: "the first part of a split fixed VHD",
        before: "a raw disk of the size of the part",
        now: "refused, with the command that joins the parts",
        run: |lab| {
            let whole = fixed(&disk(4, SIZE));
            let third = whole.len() / 3 / 512 * 512;
            lab.file("my disk.vhd", &whole[..third]);
            lab.file("my disk.v01", &whole[third..2 * third]);
            lab.file("my disk.v02", &whole[2 * third..]);
            for part in ["vhd", "v01", "v02"] {
                for command in ["info", "check", "hash", "convert -O raw"] {
                    let out = if command.starts_with("convert") {
                        " out"
                    } else {
                        ""
                    };
                    let ended = lab
                        .shell(&format!("vhd {command} 'my disk.{part}'{out}"))
                        .code(3);
                    ended.says("this is one part of a split image");
                }
            }
            let ended = lab.shell("vhd info 'my disk.vhd'");
            follow(lab, &ended.advice("cat")[0]);
            assert!(lab.read("my disk-whole.vhd") == whole);
            lab.shell("vhd check 'my disk-whole.vhd'").code(0);
        },
    },
    Case {
        name: "parts named .001, .aa, and as split names them",
        before: "raw disks",
        now: "refused, with the command that joins the parts",
        run: |lab| {
            let whole = fixed(&disk(5, SIZE));
            let (first, second) = whole.split_at(SIZE / 2);
            for (a, b, joined) in [
                ("a.vhd.001", "a.vhd.002", "a.vhd"),
                ("b.vhd.aa", "b.vhd.ab", "b.vhd"),
                ("xaa", "xab", "whole.img"),
            ] {
                lab.file(a, first);
                lab.file(b, second);
                for part in [a, b] {
                    let ended = lab.shell(&format!("vhd check {part}")).code(3);
                    if part == b {
                        follow(lab, &ended.advice("cat")[0]);
                    }
                }
                assert!(lab.read(joined) == whole, "{joined}");
            }
        },
    },
    Case {
        name: "the hint for a format, where the command has no -f",
        before: "with -f raw",
        now: "names options that the command has, or none",
        run: |lab| {
            lab.file("a.vhd", &disk(6, SIZE));
            lab.file("b.raw", &disk(6, SIZE));
            lab.shell("vhd-diff b.raw a.vhd")
                .says("use --target-format raw");
            lab.shell("vhd-diff a.vhd b.raw")
                .says("use --base-format raw");
            lab.shell("vhd-diff a.vhd b.raw --base-format raw")
                .code(0)
                .omits("warning");
            lab.shell("vhd-apply a.vhd a.vhd").omits("--target-format");
            lab.file("c.vhd", &fixed(&disk(6, SIZE)));
            lab.shell("vhd-diff --from-child c.vhd")
                .code(2)
                .omits("-f")
                .says("has no parent");
        },
    },
    Case {
        name: "diff and image in the wrong order",
        before: "bring a base to its target with vhd-apply",
        now: "says the order",
        run: |lab| {
            lab.file("base.raw", &disk(7, SIZE));
            lab.file("target.raw", &disk(8, SIZE));
            lab.shell("vhd-diff base.raw target.raw -o d.vhddiff")
                .code(0);
            let ended = lab.shell("vhd-apply d.vhddiff base.raw").code(3);
            ended
                .says("takes the base image first")
                .says("vhd show d.vhddiff");
            lab.shell("vhd check d.vhddiff")
                .code(3)
                .says("this is a diff");
        },
    },
    Case {
        name: "convert, create, restore, apply and merge to the name of another format",
        before: "a raw image of that name",
        now: "refused, unless -O says the format",
        run: |lab| {
            names(lab);
        },
    },
    Case {
        name: "a new .avhd",
        before: "raw",
        now: "a VHD",
        run: |lab| {
            lab.file("a.raw", &disk(9, SIZE));
            for (command, format) in [
                ("vhd create a.avhd --size 4M", "dynamic"),
                ("vhd create b.AVHD --size 4M", "dynamic"),
                ("vhd convert a.raw c.AvHd", "dynamic"),
                ("vhd create d.avhd --parent c.AvHd", "differencing"),
            ] {
                lab.shell(command).code(0).says(format);
            }
        },
    },
    Case {
        name: "a child named .raw",
        before: "made, a differencing VHD of that name",
        now: "refused, unless -O differencing is said",
        run: |lab| {
            lab.shell("vhd create base.vhd --size 4M").code(0);
            let ended = lab.shell("vhd create p5.raw --parent base.vhd").code(2);
            ended.says("-O differencing");
            lab.shell("vhd create p5.raw --parent base.vhd -O differencing")
                .code(0);
            lab.shell("vhd create p6 --parent base.vhd").code(0);
        },
    },
    Case {
        name: "-O vhd and -O vpc",
        before: "unknown",
        now: "a dynamic VHD",
        run: |lab| {
            lab.file("a.raw", &disk(10, SIZE));
            lab.shell("vhd convert a.raw b -O vhd")
                .code(0)
                .says("b: dynamic");
            lab.shell("vhd convert a.raw c -O vpc")
                .code(0)
                .says("c: dynamic");
        },
    },
    Case {
        name: "the note of vhd-apply -o",
        before: "doesn't name the format",
        now: "names it",
        run: |lab| {
            lab.file("base.raw", &disk(11, SIZE));
            lab.file("target.raw", &disk(12, SIZE));
            lab.shell("vhd-diff base.raw target.raw -o d.vhddiff")
                .code(0);
            lab.shell("vhd-apply base.raw d.vhddiff -o a.img")
                .code(0)
                .says("done: raw");
            lab.shell("vhd-apply base.raw d.vhddiff -o a.vhd")
                .code(0)
                .says("done: dynamic");
            lab.shell("vhd-apply base.raw d.vhddiff -o f -O fixed")
                .code(0)
                .says("done: fixed");
        },
    },
    Case {
        name: "a VHD above 2040 GiB",
        before: "not a word",
        now: "a warning that Windows and Hyper-V don't open it",
        run: |lab| {
            let said = "Windows and Hyper-V don't open";
            lab.shell("vhd create x.vhd --size 3T -O fixed")
                .code(0)
                .says(said);
            lab.shell("vhd check x.vhd").code(0).says("size-windows");
            lab.shell("vhd convert x.vhd y.vhd -O fixed")
                .code(0)
                .says(said);
            lab.shell("vhd resize x.vhd --size 4T").code(0).says(said);
            lab.shell("vhd info x.vhd").code(0).says(said);
            lab.shell("vhd create z.vhd --size 2040G -O fixed")
                .code(0)
                .omits(said);
            lab.shell("vhd check z.vhd").code(0).omits("size-windows");
            lab.shell("vhd create r.raw --size 3T").code(0).omits(said);
        },
    },
    Case {
        name: "a fixed VHD that was converted once more as a raw disk",
        before: "not a word; convert --azure makes a disk with the old footer in it",
        now: "told with the command that takes it out; no upload is made of it",
        run: |lab| {
            wrapped(lab, "vhd convert -q -f raw -O fixed 'in.vhd' 'a b.vhd'");
        },
    },
    Case {
        name: "the same, rounded up to a whole MiB",
        before: "not a word",
        now: "the same",
        run: |lab| {
            wrapped(lab, "vhd convert -q -f raw --azure 'in.vhd' 'a b.vhd'");
        },
    },
    Case {
        name: "the same in a dynamic VHD",
        before: "not a word",
        now: "the same",
        run: |lab| {
            wrapped(lab, "vhd convert -q -f raw -O dynamic 'in.vhd' 'a b.vhd'");
        },
    },
    Case {
        name: "a dynamic VHD within a fixed one",
        before: "a warning about the first sector",
        now: "told with the command that takes it out",
        run: |lab| {
            lab.file("disk.raw", &disk(50, SIZE));
            lab.shell(
                "vhd convert -q disk.raw in.vhd && vhd convert -q -f raw -O fixed in.vhd out.vhd",
            )
            .code(0);
            let ended = lab.shell("vhd check out.vhd").says("vhd-inside");
            follow(lab, &ended.advice("vhd convert -O raw")[0]);
            assert!(lab.read("out-new.vhd") == lab.read("in.vhd"));
        },
    },
    Case {
        name: "space after the footer of a fixed VHD, convert --azure",
        before: "a larger disk with the old footer in it, which passes check --azure",
        now: "refused; check --azure says to repair first, and then it passes",
        run: |lab| {
            let mut vhd = fixed(&disk(51, 20 << 20));
            vhd.resize(vhd.len() + (1 << 20), 0);
            lab.file("my long.vhd", &vhd);
            lab.shell("vhd convert --azure 'my long.vhd' up.vhd")
                .code(3)
                .says("check --repair");
            let ended = lab
                .shell("vhd check --azure 'my long.vhd'")
                .code(1)
                .says("azure-file-size");
            assert!(
                ended.advice("vhd convert --azure").is_empty(),
                "{}",
                ended.out
            );
            let repair = ended.advice("vhd check --repair");
            let repair = repair.iter().find(|line| line.contains(" first, then"));
            follow(lab, repair.unwrap());
            lab.shell("vhd check --azure 'my long.vhd'").code(0);
        },
    },
    Case {
        name: "a fixed VHD that is too short, check --azure",
        before: "advises convert --azure too, which fails",
        now: "no rule of Azure for its length",
        run: |lab| {
            let mut vhd = disk(52, 20 << 20);
            vhd.extend_from_slice(&footer(22 << 20));
            lab.file("short.vhd", &vhd);
            let ended = lab
                .shell("vhd check --azure short.vhd")
                .code(1)
                .says("fixed-cut-off");
            ended.omits("azure-file-size").omits("convert --azure");
        },
    },
    Case {
        name: "what check --azure advises",
        before: "words",
        now: "commands; followed, the result passes",
        run: azure_advice,
    },
    Case {
        name: "a disk of 8 TiB as a page blob",
        before: "no fault",
        now: "512 bytes too long, with its footer",
        run: |lab| {
            lab.shell("vhd create -q a.vhd -O fixed --size 8T").code(0);
            let ended = lab
                .shell("vhd check --azure a.vhd")
                .code(0)
                .says("azure-page-blob-size");
            follow(lab, &ended.advice("vhd resize")[0]);
            lab.shell("vhd check --azure a.vhd").code(0).omits("azure-");
        },
    },
    Case {
        name: "an ISO image",
        before: "a raw disk without a word",
        now: "a raw disk with a warning; a hybrid is a disk",
        run: |lab| {
            let mut cd = vec![0; 1 << 20];
            cd[32769..32774].copy_from_slice(b"CD001");
            lab.file("dvd.iso", &cd);
            lab.shell("vhd info dvd.iso").code(0).says("CD or DVD");
            lab.shell("vhd check dvd.iso").code(0).says("optical-image");
            cd[510..512].copy_from_slice(&[0x55, 0xAA]);
            lab.file("hybrid.iso", &cd);
            lab.shell("vhd info hybrid.iso").code(0).omits("CD or DVD");
            lab.shell("vhd check hybrid.iso")
                .code(0)
                .omits("optical-image");
        },
    },
    Case {
        name: "a fixed disk whose guest wrote the start of another format",
        before: "read",
        now: "read: the footer at the end counts",
        run: |lab| {
            for sample in samples() {
                if sample.name_matters {
                    continue;
                }
                let mut bytes = sample.bytes.clone();
                bytes.extend_from_slice(&footer(bytes.len() as u64));
                lab.file("a.vhd", &bytes);
                lab.shell("vhd info a.vhd").code(0).says("fixed");
            }
        },
    },
];

/// Runs a command that a hint advised.
#[track_caller]
fn follow(lab: &Lab, command: &str) {
    // What follows a command in the same sentence.
    let command = [" makes one", " first, then"]
        .iter()
        .fold(command, |command, rest| command.split(rest).next().unwrap());
    let ended = lab.shell(command);
    assert_eq!(ended.code, 0, "{command}\n{}", ended.err);
}

/// Makes `in.vhd`, runs `make`, which wraps it into `a b.vhd`, and takes it out again as the messages say.
fn wrapped(lab: &Lab, make: &str) {
    let vhd = fixed(&disk(53, 20 << 20));
    lab.file("in.vhd", &vhd);
    lab.shell(make).code(0);
    lab.shell("vhd check 'a b.vhd'")
        .code(0)
        .says("vhd-inside")
        .omits("no problems");
    lab.shell("vhd check --azure 'a b.vhd'")
        .code(1)
        .says("azure-vhd-inside");
    lab.shell("vhd convert --azure 'a b.vhd' up.vhd")
        .code(3)
        .says("itself a VHD");
    assert!(!lab.exists("up.vhd"));
    lab.shell("vhd convert 'a b.vhd' out.raw")
        .code(0)
        .says("itself a VHD");
    let ended = lab.shell("vhd info 'a b.vhd'").code(0).says("itself a VHD");
    follow(lab, &ended.advice("vhd convert -O raw")[0]);
    assert!(lab.read("a b-new.vhd") == vhd);
    lab.shell("vhd check --azure 'a b-new.vhd'").code(0);
    lab.shell("vhd convert --azure 'a b-new.vhd' up.vhd")
        .code(0);
}

fn azure_advice(lab: &Lab) {
    const MIB: usize = 1 << 20;
    let seal = |size: usize, creator: &[u8; 4]| {
        let mut footer = footer(size as u64);
        footer[28..32].copy_from_slice(creator);
        footer[64..68].fill(0);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        footer
    };
    let content = disk(54, 20 * MIB + 512);
    let of = |len: usize, zeros: usize, size: usize, creator| {
        let zeros = vec![0; zeros];
        [&content[..len], &zeros, &seal(size, creator)].concat()
    };
    for (rule, bytes) in [
        (
            "azure-whole-mib",
            of(20 * MIB + 512, 0, 20 * MIB + 512, b"test"),
        ),
        ("azure-too-small", of(19 * MIB, 0, 19 * MIB, b"test")),
        ("azure-file-size", of(20 * MIB, 1024, 20 * MIB, b"test")),
        ("azure-creator", of(20 * MIB, 0, 20 * MIB, b"qemu")),
    ] {
        lab.file("my disk.vhd", &bytes);
        followed_to_azure(lab, rule);
    }
    lab.file("my disk.raw", &content[..20 * MIB]);
    lab.shell("vhd convert -q 'my disk.raw' 'my disk.vhd' --force")
        .code(0);
    followed_to_azure(lab, "azure-type");
    let raw = &content[..20 * MIB];
    lab.file("my disk.vhd", raw);
    followed_to_azure(lab, "azure-no-footer");
    // Data between the disk and its footer is kept.
    let vhd = of(20 * MIB + 512, 0, 20 * MIB, b"test");
    lab.file("my disk.vhd", &vhd);
    let ended = lab
        .shell("vhd check --azure 'my disk.vhd'")
        .code(1)
        .says("azure-file-size");
    follow(lab, &ended.advice("vhd convert --azure")[0]);
    assert!(lab.read("my disk-new.vhd")[..content.len()] == content);
    lab.shell("vhd check --azure 'my disk-new.vhd'").code(0);
}

fn followed_to_azure(lab: &Lab, rule: &str) {
    let ended = lab
        .shell("vhd check --azure 'my disk.vhd'")
        .code(1)
        .says(rule);
    let convert = ended.advice("vhd convert --azure");
    let resize = ended.advice("vhd resize");
    let result = if convert.is_empty() {
        "my disk.vhd"
    } else {
        "my disk-new.vhd"
    };
    for command in convert.first().into_iter().chain(resize.first()) {
        follow(lab, command);
    }
    let passed = lab.shell(&format!("vhd check --azure '{result}'"));
    assert_eq!(passed.code, 0, "{rule}: {}", passed.out);
    assert!(!passed.out.contains("azure-"), "{rule}: {}", passed.out);
    let _ = fs::remove_file(lab.path("my disk-new.vhd"));
}

fn names(lab: &Lab) {
    lab.file("a.raw", &disk(20, SIZE));
    lab.file("b.raw", &disk(21, SIZE));
    lab.shell("vhd-diff a.raw b.raw -o d.vhddiff").code(0);
    lab.shell("vhd convert a.raw base.vhd && vhd create child.vhd --parent base.vhd")
        .code(0);
    lab.shell("vhd snapshot create --init --store s --disk d --name n a.raw")
        .code(0);
    let endings = KINDS.iter().flat_map(|kind| kind.extensions);
    for (n, ending) in endings.copied().chain(["v01", "VHDX"]).enumerate() {
        let commands = [
            "vhd convert a.raw".to_owned(),
            "vhd convert --azure a.raw".to_owned(),
            "vhd create --size 4M".to_owned(),
            "vhd create --parent base.vhd".to_owned(),
            "vhd snapshot restore --store s --disk d n -o".to_owned(),
            "vhd snapshot restore --store s --disk d n --parent base.vhd -o".to_owned(),
            "vhd-apply a.raw d.vhddiff -o".to_owned(),
            "vhd-apply a.raw d.vhddiff --dry-run -o".to_owned(),
            "vhd merge child.vhd -o".to_owned(),
        ];
        for command in &commands {
            let ended = lab.shell(&format!("{command} out.{ending}")).code(2);
            ended.says("-O");
            assert!(
                !lab.exists(&format!("out.{ending}")),
                "{command} out.{ending}"
            );
        }
        if n == 0 {
            lab.shell(&format!("vhd convert a.raw out.{ending} -O raw"))
                .code(0);
            fs::remove_file(lab.path(&format!("out.{ending}"))).unwrap();
        }
    }
}

/// Every command that opens an image, with `{}` where that is.
const COMMANDS: &[&str] = &[
    "vhd info {}",
    "vhd info --json {}",
    "vhd check {}",
    "vhd check --json {}",
    "vhd check --azure {}",
    "vhd check --repair {}",
    "vhd check --repair --dry-run {}",
    "vhd map {}",
    "vhd hash {}",
    "vhd hash --stamp {}",
    "vhd hash --windows list {}",
    "vhd convert {} out.raw",
    "vhd convert {} out.vhd",
    "vhd convert --azure {} out.vhd",
    "vhd convert --salvage {} out.vhd",
    "vhd convert -f vhd {} out.raw",
    "vhd resize {} --size 8M",
    "vhd resize {} --size 8M --dry-run",
    "vhd merge {}",
    "vhd merge {} -o out.vhd",
    "vhd create out.vhd --parent {}",
    "vhd-diff {} base.raw",
    "vhd-diff base.raw {}",
    "vhd-diff base.raw {} -o out.vhddiff",
    "vhd-diff --from-child {}",
    "vhd-apply {} d.vhddiff",
    "vhd-apply {} d.vhddiff --dry-run",
    "vhd-apply {} d.vhddiff -o out.raw",
    "vhd snapshot create --init --store new --disk d --name n {}",
    "vhd snapshot create --init --store s --disk d --name m {}",
    "vhd snapshot restore --store s --disk d n -o {} --in-place",
];

#[test]
fn every_command_refuses_every_foreign_format_alike() {
    let lab = Lab::new();
    lab.file("base.raw", &disk(30, SIZE));
    lab.file("target.raw", &disk(31, SIZE));
    lab.shell("vhd-diff base.raw target.raw -o d.vhddiff")
        .code(0);
    lab.shell("vhd snapshot create --init --store s --disk d --name n base.raw")
        .code(0);
    let samples = samples();
    for kind in KINDS {
        assert!(
            samples.iter().any(|sample| sample.kind == kind.name),
            "{}",
            kind.name
        );
    }
    for sample in &samples {
        let before = lab.names();
        lab.file(&sample.name, &sample.bytes);
        for command in COMMANDS {
            let mut words = command.split(' ').map(|word| match word {
                "{}" => sample.name.as_str(),
                word => word,
            });
            let program = words.next().unwrap();
            let words: Vec<&str> = words.collect();
            let line = format!("{program} {}", words.join(" "));
            let ended: Ended = lab.command(program, &words).output().unwrap().into();
            assert_eq!(ended.code, 3, "{line}\n{}\n{}", ended.out, ended.err);
            let said = format!("this is {}, ", sample.kind);
            assert!(ended.err.contains(&said), "{line}\n{}", ended.err);
            assert!(ended.err.contains("hint: "), "{line}\n{}", ended.err);
            assert!(!ended.err.contains("with -f raw"), "{}", ended.err);
        }
        assert!(lab.read(&sample.name) == sample.bytes, "{}", sample.kind);
        fs::remove_file(lab.path(&sample.name)).unwrap();
        assert_eq!(lab.names(), before, "{}", sample.kind);
    }
    // The way round stays.
    lab.file("a.qcow2", &Sample::of("a qcow2 image").bytes);
    lab.shell("vhd hash -f raw a.qcow2").code(0);
    println!("{} files, {} commands each", samples.len(), COMMANDS.len());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_the_hints_advise_works_where_the_tools_are() {
    let lab = Lab::new();
    let content = disk(40, SIZE);
    lab.file("disk.raw", &content);
    let has = |tool: &str| lab.shell(&format!("command -v {tool}")).code == 0;
    let mut followed = 0;
    for (make, tool, file, advice) in [
        (
            "qemu-img convert -q -O vhdx disk.raw 'a b.vhdx'",
            "qemu-img",
            "a b.vhdx",
            "qemu-img",
        ),
        (
            "qemu-img convert -q -O qcow2 disk.raw 'a b.qcow2'",
            "qemu-img",
            "a b.qcow2",
            "qemu-img",
        ),
        (
            "qemu-img convert -q -O vmdk disk.raw 'a b.vmdk'",
            "qemu-img",
            "a b.vmdk",
            "qemu-img",
        ),
        (
            "qemu-img convert -q -O vdi disk.raw './a:b.vdi'",
            "qemu-img",
            "a:b.vdi",
            "qemu-img",
        ),
        (
            "qemu-img convert -q -O qed disk.raw 'a b.qed'",
            "qemu-img",
            "a b.qed",
            "qemu-img",
        ),
        (
            "qemu-img convert -q -O parallels disk.raw 'a b.hdd'",
            "qemu-img",
            "a b.hdd",
            "qemu-img",
        ),
        (
            "gzip -k disk.raw && mv disk.raw.gz 'a b.raw.gz'",
            "gzip",
            "a b.raw.gz",
            "gzip",
        ),
        (
            "xz -k disk.raw && mv disk.raw.xz 'a b.raw.xz'",
            "xz",
            "a b.raw.xz",
            "xz",
        ),
        (
            "bzip2 -k disk.raw && mv disk.raw.bz2 'a b.raw.bz2'",
            "bzip2",
            "a b.raw.bz2",
            "bzip2",
        ),
        (
            "zstd -q disk.raw -o 'a b.raw.zst'",
            "zstd",
            "a b.raw.zst",
            "zstd",
        ),
        ("lz4 -q disk.raw 'a b.raw.lz4'", "lz4", "a b.raw.lz4", "lz4"),
        (
            "xz --format=lzma -k disk.raw && mv disk.raw.lzma c.raw.lzma",
            "xz",
            "c.raw.lzma",
            "xz",
        ),
        ("tar -cf 'a b.tar' disk.raw", "tar", "a b.tar", "mkdir"),
        (
            "tar --format=v7 -cf 'old.tar' disk.raw",
            "tar",
            "old.tar",
            "mkdir",
        ),
        (
            "tar -cf 'x:y.tar' --force-local disk.raw",
            "tar",
            "x:y.tar",
            "mkdir",
        ),
        ("zip -q 'a b.zip' disk.raw", "unzip", "a b.zip", "unzip"),
        ("7z a 'a b.7z' disk.raw", "7z", "a b.7z", "7z"),
        (
            "echo disk.raw | cpio -o -H newc > 'a b.cpio'",
            "7z",
            "a b.cpio",
            "7z",
        ),
        (
            "echo disk.raw | cpio -o -H bin > old.cpio",
            "7z",
            "old.cpio",
            "7z",
        ),
        (
            "lrzip -q -o 'a b.raw.lrz' disk.raw",
            "lrzip",
            "a b.raw.lrz",
            "lrzip",
        ),
        (
            "mkdir in && cp disk.raw in && dar -Q -c 'a b' -R in && rm -r in",
            "dar",
            "a b.1.dar",
            "mkdir",
        ),
        ("7z a -twim 'a b.wim' disk.raw", "7z", "a b.wim", "7z"),
        (
            "gzip -c disk.raw > g.raw.gz && split -b 100000 g.raw.gz g.raw.gz. && rm g.raw.gz",
            "split",
            "g.raw.gz.aa",
            "cat",
        ),
    ] {
        if !has(tool) || lab.shell(make).code != 0 {
            println!("not tried: {make}");
            continue;
        }
        let before = lab.names();
        let ended = lab.shell(&format!("vhd info '{file}'")).code(3);
        let command = &ended.advice(advice)[0];
        follow(&lab, command);
        let made: Vec<String> = lab
            .names()
            .into_iter()
            .filter(|name| !before.contains(name))
            .collect();
        assert_eq!(made.len(), 1, "{command}");
        let inside = format!("{}/disk.raw", made[0]);
        let image = if lab.exists(&inside) {
            &inside
        } else {
            &made[0]
        };
        let read = lab.shell(&format!("vhd convert '{image}' back.raw --force"));
        assert_eq!(read.code, 0, "{command}\n{}", read.err);
        assert!(lab.read("back.raw") == content, "{command}");
        followed += 1;
    }
    println!("{followed} hints followed");
    assert!(followed > 0);
}

#[test]
fn the_documentation_lists_every_format() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md");
    let text = fs::read_to_string(docs).unwrap();
    for kind in KINDS {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| {} |", kind.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not in docs/formats.md", kind.name));
        for ending in kind.extensions {
            assert!(
                row.contains(&format!("`.{ending}`")),
                "{}: .{ending}",
                kind.name
            );
        }
    }
    let list = text
        .split("\n## The list")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next());
    let rows = list
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("| "));
    // The heading and the line below it are not formats.
    assert_eq!(rows.count(), KINDS.len() + 2);
}
