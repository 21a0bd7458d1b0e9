//! Near misses of a hostile tester: what was found out too late, said wrongly, or took too long where there was much.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use vhdkit::parallel::Workers;

use crate::disk::{changed, disk};
use crate::many::many;
use crate::reports::lab::{Case, Lab, tell};
use crate::sections;

#[test]
fn near_misses() {
    tell("Near misses of a hostile tester, and growth", CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "verify, copy, send, receive, repair and create, of 40 snapshots and of 160",
        before: "verify took time by their cube, copy and receive by their square",
        now: "the calls and the names that are listed grow with the snapshots",
        run: |lab| {
            let [few, more] = [40, 160].map(|count| work_of(lab, count));
            for ((command, few), (_, more)) in few.iter().zip(&more) {
                // A fold, and reading all data, has no more diffs open at a time than may be, and opens some again.
                let reopens = ["prune", "--read-data"]
                    .iter()
                    .any(|part| command.contains(part));
                let spare = if reopens { 1 } else { 2 };
                for (few, more) in few.iter().zip(more) {
                    // Four times as many, and what every command does once.
                    let most = few * 4 + few / spare;
                    assert!(*more <= most, "{command}: {few}, then {more}");
                }
            }
        },
    },
    Case {
        name: "in place to a length that no file may have here",
        before: "the journal was named, then the length couldn't be set: the image was barred",
        now: "2, and the image is as it was",
        run: |lab| {
            lab.file("a.raw", &disk(1, 1 << 20));
            lab.shell("cp a.raw b.raw && truncate -s 5G b.raw && vhd-diff -q a.raw b.raw -o d && vhd convert -q -O fixed a.raw f.vhd")
                .code(0);
            for image in ["a.raw", "f.vhd"] {
                let before = lab.read(image);
                lab.shell(&format!(
                    "trap '' XFSZ; ulimit -f 4194304; vhd-apply {image} d --in-place journal"
                ))
                .code(2)
                .says(image)
                .says("nothing was changed")
                .omits("between two points");
                assert!(lab.read(image) == before);
                assert!(!lab.exists(&format!("{image}.undo-journal")));
                lab.shell(&format!("vhd hash {image}")).code(0);
            }
        },
    },
    Case {
        name: "what is made of private images: a diff, an undo diff, a list, a new image, the bytes that a repair cuts off",
        before: "open to all whom the umask lets",
        now: "private",
        run: |lab| {
            snapshots(lab);
            lab.shell("umask 022; vhd create -q x.vhd --size 4M && head -c 700 /dev/urandom >> x.vhd && chmod 600 *.raw x.vhd")
                .code(0);
            lab.shell(
                "umask 022; vhd check --repair x.vhd; vhd-diff -q a.raw b.raw -o d && vhd-diff -q b.raw a.raw -o e \
                 && vhd convert -q a.raw a.vhd && vhd-apply -q a.raw d -o n.raw && vhd-apply -q a.raw d --undo u",
            )
            .code(0);
            for file in [
                "x.vhd",
                "x.vhd.before-repair",
                "d",
                "e",
                "a.vhd",
                "n.raw",
                "u",
                "a.raw",
            ] {
                let mode = fs::metadata(lab.path(file)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{file}");
            }
        },
    },
    Case {
        name: "a diff whose frames no index lists",
        before: "segments: found 0, expected 0",
        now: "it says what is missing",
        run: |lab| {
            let a = disk(1, 1 << 20);
            lab.file("a.raw", &a);
            lab.file("b.raw", &changed(2, &a));
            lab.shell("vhd-diff -q a.raw b.raw -o d").code(0);
            let mut parts = sections::cut(&lab.read("d"));
            let index = parts.iter().position(|part| sections::kind(part) == "INDX");
            parts.remove(index.unwrap());
            let tail = parts.last_mut().unwrap();
            let segments = usize::try_from(sections::u32_at(tail, 4)).unwrap();
            let root = tail.len() - sections::END - segments * 24;
            tail.drain(root..root + segments * 24);
            sections::put_u32(tail, 4, 0);
            sections::number(&mut parts);
            sections::place_tail(&mut parts);
            lab.file("bare", &sections::seal(&parts));
            for line in [
                "vhd show bare",
                "vhd squash bare bare -o x",
                "vhd-apply a.raw bare -o x",
            ] {
                lab.shell(line).code(3).omits("found 0, expected 0");
            }
            lab.shell("vhd show bare")
                .says("an index section is missing");
        },
    },
    Case {
        name: "a manifest whose state and percent contradict each other",
        before: "completion_percent: found 100, expected 100",
        now: "both are told",
        run: |lab| {
            snapshots(lab);
            edit(lab, "000002-b.json", |m| m["state"] = "copying".into());
            for line in [
                "vhd snapshot restore b --store S -o x",
                "vhd snapshot hash b --store S",
                "vhd snapshot prune --store S --keep-last 1",
            ] {
                lab.shell(line)
                    .code(5)
                    .says("found copying, 100, expected complete, 100");
            }
        },
    },
    Case {
        name: "manifests that say that their files have 2^64 - 1 bytes each",
        before: "a sum of 16383.99 PiB",
        now: "they are damaged",
        run: |lab| {
            snapshots(lab);
            for field in ["used_size", "length"] {
                for file in ["000001-a.json", "000002-b.json"] {
                    edit(lab, file, |m| {
                        let at = if field == "length" { &mut m["data"] } else { m };
                        at[field] = u64::MAX.into();
                    });
                }
                lab.shell("vhd snapshot list --store S")
                    .omits("16383")
                    .says(field);
                lab.shell("vhd snapshot verify --store S")
                    .code(1)
                    .says(field);
            }
        },
    },
    Case {
        name: "copy.lock is removed while snapshots are received, and another copy comes",
        before: "two copies at once",
        now: "one of them stops; all that is there can be read",
        run: |lab| {
            snapshots(lab);
            lab.shell("vhd snapshot send -q --store S > s").code(0);
            let stream = lab.read("s");
            let mut command = lab.command(
                "vhd",
                &["snapshot", "receive", "--init", "-q", "--store", "R"],
            );
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(&stream[..stream.len() / 2]).unwrap();
            let lock = lab.path("R/w/copy.lock");
            let start = Instant::now();
            while !lock.exists() && start.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(5));
            }
            fs::remove_file(lock).unwrap();
            let second = lab
                .shell("vhd snapshot receive --init -q --store R < s")
                .code;
            assert!(matches!(second, 0 | 4 | 5), "{second}");
            let _ = input.write_all(&stream[stream.len() / 2..]);
            drop(input);
            assert!(!child.wait().unwrap().success());
            lab.shell("vhd snapshot receive --init -q --store R < s");
            lab.shell("vhd snapshot verify -q --store R --read-data")
                .code(0);
            for name in ["a", "b"] {
                lab.shell(&format!("vhd snapshot restore {name} --store R -o {name}.r -O raw && cmp {name}.r {name}.raw"))
                    .code(0);
            }
        },
    },
    Case {
        name: "somebody removes lock and copy.lock all the time, while three programs use the store",
        before: "6 of 22 snapshots couldn't be read",
        now: "all can",
        run: |lab| {
            snapshots(lab);
            let used = "for n in 1 2 3 4 5 6 7 8; do \
                        vhd snapshot create -q --init --store S --disk w --name NAME$n b.raw 2>>said; \
                        vhd snapshot delete -q --store S NAME$n 2>>said; \
                        vhd snapshot restore a --store S -o NAME.r -O raw --force -q 2>>said; \
                        vhd snapshot copy --init -q --store S --to T 2>>said; done; true";
            let removing =
                "while [ ! -e stop ]; do rm -f S/w/lock S/w/copy.lock T/w/lock T/w/copy.lock; done";
            let both = format!(
                "({removing}) & {} & {} & wait %2 %3; touch stop; wait",
                format_args!("({})", used.replace("NAME", "x")),
                format_args!("({})", used.replace("NAME", "y")),
            );
            lab.shell(&both);
            // On a slow machine every copy may have found a lock in its way.
            lab.shell("vhd snapshot copy --init -q --store S --to T")
                .code(0);
            lab.shell("vhd snapshot verify -q --store S --read-data")
                .code(0);
            lab.shell("vhd snapshot restore a --store S -o r -O raw --force && cmp r a.raw")
                .code(0);
            lab.shell("vhd snapshot verify -q --store T --read-data")
                .code(0);
            assert!(!String::from_utf8_lossy(&lab.read("said")).contains("damaged"));
        },
    },
];

/// How many calls commands make on a disk of so many snapshots, and how many bytes of names they are told.
fn work_of(lab: &Lab, count: u32) -> Vec<(&'static str, [u64; 2])> {
    let workers = Workers::new(None).unwrap();
    let store = format!("S{count}");
    many(&lab.path(&store), "w", count, &workers);
    lab.file("x.raw", &disk(3, 64 << 10));
    let copied = format!("T{count}");
    let commands = [
        "snapshot verify",
        "snapshot verify --read-data",
        "snapshot list",
        "snapshot copy --init --to COPIED",
        "snapshot send",
        "snapshot receive --init",
        "snapshot repair --from COPIED",
        "snapshot create --init --disk w --name new x.raw",
        "snapshot prune --keep-last 3",
    ];
    commands
        .into_iter()
        .map(|command| {
            let of = if command.starts_with("snapshot receive") {
                format!("R{count}")
            } else {
                store.clone()
            };
            let line = format!(
                "{} -q --threads 1 --store {of}",
                command.replace("COPIED", &copied)
            );
            let line = match command {
                "snapshot send" => format!("{line} > s"),
                "snapshot receive --init" => format!("{line} < s"),
                _ => line,
            };
            lab.shell(&format!(
                "strace -f -qq -o trace -e trace=%file,%desc vhd {line}"
            ))
            .code(0);
            let trace = lab.read("trace");
            let trace = String::from_utf8_lossy(&trace);
            let names = trace.lines().filter(|line| line.contains("getdents64"));
            let bytes =
                names.filter_map(|line| line.rsplit("= ").next()?.trim().parse::<u64>().ok());
            (command, [trace.lines().count() as u64, bytes.sum()])
        })
        .collect()
}

/// The disk `w` of the store S with the snapshots a and b of a.raw and b.raw.
fn snapshots(lab: &Lab) {
    let a = disk(1, 1 << 20);
    lab.file("a.raw", &a);
    lab.file("b.raw", &changed(2, &a));
    for name in ["a", "b"] {
        lab.shell(&format!(
            "vhd snapshot create -q --init --store S --disk w --name {name} {name}.raw"
        ))
        .code(0);
    }
}

/// Changes a manifest and seals it again.
fn edit(lab: &Lab, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let path = lab.path("S/w").join(file);
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("checksum");
    change(&mut value);
    let text = serde_json::to_string_pretty(&value).unwrap();
    let head = format!("{},\n", text.strip_suffix("\n}").unwrap());
    let checksum = blake3::hash(head.as_bytes()).to_hex();
    fs::write(path, format!("{head}  \"checksum\": \"{checksum}\"\n}}\n")).unwrap();
}
