//! Golden files: `fixtures/diff/NAME.vhddiff` and what it says, `NAME.txt`.
//!
//! Each is made anew in memory and must be the stored file byte for byte, but for payloads packed by zstd, whose
//! bytes may differ from one release of zstd to the next: there what they say must be the same.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Once;

use vhdkit::diff::{
    Applier, BaseCheck, Chain, CompareOptions, Compression, DiffFile, DiffHeader, DiffReader,
    DiffWriter, Direction, Frame, Side, WindowChange, compare, pack,
};
use vhdkit::image::{Image, NoneShared, RawImage};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;

use crate::diff_format::sections::{cut, kind, offsets};
use crate::diff_format::support::{WINDOW, header, hex, read};

const UPDATE: &str = "VHDKIT_UPDATE_FIXTURES";

/// A golden file, as its differences from the simplest diff.
#[derive(Clone)]
struct Golden {
    name: &'static str,
    base: Vec<u8>,
    target: Vec<u8>,
    header: DiffHeader,
    compression: Compression,
    digests: bool,
    base_hashes: bool,
    reversible: bool,
}

/// Page n of every base is filled with the byte 1 + n % 250.
fn base(len: u64) -> Vec<u8> {
    let pages = usize::try_from(len / 512).unwrap();
    (0..pages)
        .flat_map(|n| [u8::try_from(1 + n % 250).unwrap(); 512])
        .collect()
}

/// Overwrites runs of pages: `(page, pages, byte)`.
fn fill(disk: &mut [u8], runs: &[(usize, usize, u8)]) {
    for (first, pages, byte) in runs {
        disk[first * 512..(first + pages) * 512].fill(*byte);
    }
}

fn golden(
    name: &'static str,
    base_size: u64,
    target_size: u64,
    runs: &[(usize, usize, u8)],
) -> Golden {
    let base = base(base_size);
    let mut target = base.clone();
    target.resize(usize::try_from(target_size).unwrap(), 0);
    fill(&mut target, runs);
    Golden {
        name,
        base,
        target,
        header: header(base_size, target_size),
        compression: Compression::None,
        digests: true,
        base_hashes: true,
        reversible: false,
    }
}

fn side(n: u8) -> Side {
    Side {
        name: Some(format!("disk-{n}.vhd")),
        format: Some(if n == 1 { "dynamic" } else { "fixed" }.into()),
        unique_id: Some([n; 16]),
        time: Some(if n == 1 { -1 } else { 1_700_000_000 }),
        snapshot: Some(format!("Schnappschuß {n}")),
        source_resource_id: Some(
            "/subscriptions/0/resourceGroups/rg/providers/Microsoft.Compute/disks/d".into(),
        ),
        source_unique_id: Some("00000000-0000-0000-0000-000000000001".into()),
        footer: Some(Box::new([0xf0 | n; 512])),
    }
}

fn goldens() -> Vec<Golden> {
    let long = 2 * WINDOW + (1 << 20);
    let updates = golden(
        "stored",
        8192,
        8192,
        &[(3, 2, 0xa1), (9, 1, 0xa2), (10, 1, 0xa3)],
    );
    let zstd = Golden {
        compression: Compression::Zstd(3),
        ..golden("zstd", 16_384, 16_384, &[(2, 8, 0xb1), (20, 1, 0xb2)])
    };
    let records = DiffHeader {
        base: side(1),
        target: side(2),
        ..header(1024, 1024)
    };
    let undoes = DiffHeader {
        undoes: vec![[0x11; 32], [0x22; 32]],
        ..header(1024, 512)
    };
    let none = DiffHeader {
        program: None,
        ..header(2048, 2048)
    };
    let wipe = golden(
        "unknown-base",
        WINDOW + 512,
        WINDOW + 512,
        &[(0, 8192, 0), (8192, 1, 0xc1)],
    );
    let mut all = vec![
        golden("empty", 4096, 4096, &[]),
        updates,
        zstd,
        golden(
            "clears",
            8192,
            8192,
            &[(0, 1, 0), (1, 1, 0xa1), (2, 2, 0), (5, 1, 0xa2), (15, 1, 0)],
        ),
        golden(
            "windows",
            long,
            long,
            &[(8191, 1, 0xa1), (8192, 1, 0xa2), (18_431, 1, 0)],
        ),
        golden("long-clear", long, long, &[(7, 1, 0xa1), (8192, 10_240, 0)]),
        golden(
            "grown",
            2560,
            4608,
            &[(0, 1, 0xa1), (6, 1, 0xa2), (8, 1, 0xa3)],
        ),
        golden("shrunk", 4608, 2560, &[(4, 1, 0)]),
        Golden {
            digests: false,
            ..golden("no-digests", 2048, 2048, &[(1, 1, 0xa1)])
        },
        Golden {
            digests: false,
            base_hashes: false,
            ..wipe
        },
        Golden {
            header: none,
            ..golden("no-records", 2048, 2048, &[(1, 1, 0xa1)])
        },
        Golden {
            header: records,
            ..golden("records", 1024, 1024, &[(1, 1, 0xa1)])
        },
        Golden {
            header: undoes,
            ..golden("undo", 1024, 512, &[(0, 1, 0xa1)])
        },
    ];
    all.extend(reversible_goldens());
    all
}

fn reversible_goldens() -> Vec<Golden> {
    // Pages appear: the way back is a clear, which is long for a last window of two pages.
    let mut appeared = base(WINDOW + 1024);
    appeared[8190 * 512..].fill(0);
    vec![
        Golden {
            reversible: true,
            ..golden(
                "reversible",
                8192,
                8704,
                &[(0, 1, 0), (1, 1, 0xa1), (9, 2, 0xa2), (16, 1, 0xa3)],
            )
        },
        Golden {
            reversible: true,
            ..golden("reversible-shrunk", 4608, 2560, &[(4, 1, 0)])
        },
        Golden {
            reversible: true,
            base: appeared,
            ..golden(
                "reversible-clears",
                WINDOW + 1024,
                WINDOW + 1024,
                &[(7, 1, 0xa1), (8190, 1, 0), (8191, 1, 0xa3), (8192, 2, 0xa2)],
            )
        },
        Golden {
            reversible: true,
            ..golden("reversible-empty", 4096, 4096, &[])
        },
    ]
}

impl Golden {
    fn make(&self) -> Vec<u8> {
        let workers = Workers::new(None).unwrap();
        let [base, target] = [&self.base, &self.target]
            .map(|disk| RawImage::open(Memory::new(disk.clone())).unwrap());
        let options = CompareOptions {
            work: Work::new(&workers, &Silent),
            digests: self.digests,
            payload: true,
            equal: &NoneShared,
        };
        if self.reversible {
            return self.make_reversible(&base, &target, options);
        }
        let mut writer = DiffWriter::new(Vec::new(), "memory", &self.header).unwrap();
        let compared = compare(
            &base,
            &target,
            options,
            |mut change| {
                if !self.base_hashes {
                    change.base_hash = [0; 32];
                }
                pack(change, self.compression)
            },
            |frame| writer.push(&frame),
        )
        .unwrap();
        writer
            .finish(compared.base_digest, compared.target_digest)
            .unwrap()
            .out
    }
}

impl Golden {
    /// Merges what the comparisons in both directions find, window by window.
    fn make_reversible(
        &self,
        base: &dyn Image,
        target: &dyn Image,
        options: CompareOptions<'_>,
    ) -> Vec<u8> {
        let mut frames = Vec::new();
        let pack =
            |change: WindowChange| Ok((change.window.start(), pack(change, self.compression)?));
        let mut push = |way: Direction, frame| {
            frames.push((way, frame));
            Ok(())
        };
        let compared = compare(base, target, options, pack, |frame| {
            push(Direction::Forward, frame)
        })
        .unwrap();
        compare(target, base, options, pack, |frame| {
            push(Direction::Back, frame)
        })
        .unwrap();
        frames.sort_by_key(|(way, (window, _))| (*window, *way == Direction::Back));
        let mut writer = DiffWriter::reversible(Vec::new(), "memory", &self.header).unwrap();
        for (way, (_, frame)) in &frames {
            match way {
                Direction::Forward => writer.push(frame).unwrap(),
                Direction::Back => writer.push_back(frame).unwrap(),
            }
        }
        let digests = (compared.base_digest, compared.target_digest);
        writer.finish(digests.0, digests.1).unwrap().out
    }

    /// Returns the pages of the base up to the zeros at its end.
    fn filled(&self) -> usize {
        let pages = self.base.chunks(512).rposition(|page| page != [0; 512]);
        pages.map_or(0, |last| last + 1)
    }
}

fn file(name: &str, suffix: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/diff"))
        .join(format!("{name}.{suffix}"))
}

/// Rewrites the golden files, once and before any test reads them, if the environment asks for it.
fn update_if_asked() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        if std::env::var_os(UPDATE).is_none_or(|value| value != "1") {
            return;
        }
        for golden in goldens() {
            let made = golden.make();
            std::fs::write(file(golden.name, "vhddiff"), &made).unwrap();
            std::fs::write(file(golden.name, "txt"), describe(&golden, &made)).unwrap();
        }
    });
}

/// Returns the stored golden files by name.
pub(crate) fn golden_files() -> Vec<(String, Vec<u8>)> {
    update_if_asked();
    let names = goldens().into_iter().map(|golden| golden.name.to_owned());
    names
        .map(|name| {
            (
                name.clone(),
                std::fs::read(file(&name, "vhddiff")).unwrap_or_else(|_| missing(&name)),
            )
        })
        .collect()
}

fn missing(name: &str) -> ! {
    panic!("fixtures/diff/{name}.vhddiff can't be read; run the tests with {UPDATE}=1 to write it")
}

/// Describes the content of a diff as text.
fn describe(golden: &Golden, diff: &[u8]) -> String {
    let mut out = format!("length {}\n", diff.len());
    let sections = cut(diff);
    for (section, offset) in sections.iter().zip(offsets(&sections)) {
        writeln!(
            out,
            "section {} {offset}..{}",
            kind(section),
            offset + section.len() as u64
        )
        .unwrap();
    }
    let mut reader = DiffReader::new(diff, "golden").unwrap();
    describe_header(&mut out, reader.header());
    while let Some((way, frame)) = reader.next_of_both().unwrap() {
        if way == Direction::Back {
            out += "back ";
        }
        describe_frame(&mut out, frame);
    }
    let (trailer, digest) = reader.finished().unwrap();
    let t = trailer;
    writeln!(
        out,
        "frames {}\nranges {}\nupdate_bytes {}",
        t.frames, t.ranges, t.update_bytes
    )
    .unwrap();
    writeln!(
        out,
        "clear_bytes {}\nstored_bytes {}",
        t.clear_bytes, t.stored_bytes
    )
    .unwrap();
    if let Some(t) = &t.way_back {
        writeln!(
            out,
            "back.frames {}\nback.ranges {}\nback.update_bytes {}\nback.clear_bytes {}\nback.stored_bytes {}",
            t.frames, t.ranges, t.update_bytes, t.clear_bytes, t.stored_bytes
        )
        .unwrap();
    }
    let known = |digest: Option<vhdkit::image::ContentDigest>| {
        digest.map_or("unknown".into(), |d| d.to_string())
    };
    writeln!(out, "base_digest {}", known(t.base_digest)).unwrap();
    writeln!(out, "target_digest {}", known(t.target_digest)).unwrap();
    writeln!(out, "digest {}", hex(digest)).unwrap();
    writeln!(out, "target_blake3 {}", blake3::hash(&golden.target)).unwrap();
    if golden.filled() * 512 < golden.base.len() {
        writeln!(out, "base_filled {}", golden.filled()).unwrap();
    }
    out
}

fn describe_header(out: &mut String, header: &DiffHeader) {
    writeln!(
        out,
        "base_size {}\ntarget_size {}",
        header.base_size, header.target_size
    )
    .unwrap();
    if let Some(program) = &header.program {
        writeln!(out, "program {program}").unwrap();
    }
    for identity in &header.undoes {
        writeln!(out, "undoes {}", hex(identity)).unwrap();
    }
    for (name, side) in [("base", &header.base), ("target", &header.target)] {
        let fields = [
            ("name", side.name.clone()),
            ("format", side.format.clone()),
            ("unique_id", side.unique_id.map(|id| hex(&id))),
            ("time", side.time.map(|time| time.to_string())),
            ("snapshot", side.snapshot.clone()),
            ("source_resource_id", side.source_resource_id.clone()),
            ("source_unique_id", side.source_unique_id.clone()),
            (
                "footer_blake3",
                side.footer
                    .as_ref()
                    .map(|footer| blake3::hash(&**footer).to_string()),
            ),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                writeln!(out, "{name}.{field} {value}").unwrap();
            }
        }
    }
}

fn describe_frame(out: &mut String, frame: Frame) {
    writeln!(
        out,
        "frame {:?}{}",
        frame.range(),
        if frame.is_long_clear() {
            " long clear"
        } else {
            ""
        }
    )
    .unwrap();
    for change in frame.changes() {
        writeln!(out, "  {} {:?}", change.kind.name(), change.range).unwrap();
    }
    writeln!(
        out,
        "  base_hash {}",
        frame.base_hash().map_or("unknown".into(), |hash| hex(hash))
    )
    .unwrap();
    let stored = frame.stored_len();
    let payload = frame.unpack().unwrap();
    if !payload.is_empty() {
        writeln!(
            out,
            "  payload {} bytes, {stored} stored, blake3 {}",
            payload.len(),
            blake3::hash(&payload)
        )
        .unwrap();
    }
}

#[test]
fn golden_files_are_made_and_read_as_ever() {
    update_if_asked();
    for golden in goldens() {
        let name = golden.name;
        let made = golden.make();
        let stored = std::fs::read(file(name, "vhddiff")).unwrap_or_else(|_| missing(name));
        let remedy = format!(
            "if the format was meant to change, {UPDATE}=1 writes fixtures/diff anew; if not, old diffs can't be read any more"
        );
        if golden.compression == Compression::None {
            assert!(
                made == stored,
                "{name}.vhddiff is written differently now; {remedy}"
            );
        }
        assert_eq!(
            read(made.as_slice()).unwrap(),
            read(stored.as_slice()).unwrap(),
            "{name}.vhddiff; {remedy}"
        );
        let text = std::fs::read_to_string(file(name, "txt")).unwrap_or_else(|_| missing(name));
        assert_eq!(describe(&golden, &stored), text, "{name}.txt; {remedy}");
    }
}

#[test]
fn golden_files_turn_their_base_into_their_target() {
    let workers = Workers::new(None).unwrap();
    for (golden, (name, diff)) in goldens().into_iter().zip(golden_files()) {
        let file = DiffFile::open(Memory::new(diff), &Silent).unwrap();
        let chain = Chain::new(vec![file]).unwrap();
        let before = golden.base.clone();
        let base = RawImage::open(Memory::new(golden.base)).unwrap();
        let mut out = RawImage::open(Memory::new(vec![0; golden.target.len()])).unwrap();
        let layers = Applier::new(&base, &chain, &workers, &Silent);
        let (_, touched) = layers.rebuild(&mut out, BaseCheck::Touched).unwrap();
        assert_eq!(touched.mismatch, None, "{name}");
        assert!(out.storage().to_vec() == golden.target, "{name}");
        let back = chain.reversed();
        assert_eq!(back.is_some(), golden.reversible, "{name}");
        if let Some(back) = back {
            let target = RawImage::with_size(
                Memory::new(out.storage().to_vec()),
                golden.target.len() as u64,
            );
            let mut out = RawImage::open(Memory::new(vec![0; before.len()])).unwrap();
            let layers = Applier::new(&target, &back, &workers, &Silent);
            let (_, touched) = layers.rebuild(&mut out, BaseCheck::Touched).unwrap();
            assert_eq!(touched.mismatch, None, "{name}");
            assert!(out.storage().to_vec() == before, "{name}");
        }
    }
}
