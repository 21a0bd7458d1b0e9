//! Images that were split into several files, none of which is an image by itself.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::shell_word::word;
use crate::error::{Error, Result};
use crate::storage::free_name;

/// The most parts that are searched for.
const MOST: usize = 4096;

/// The most parts that are listed individually in a command; more are given by a pattern, if its expansion is in order.
const LISTED: usize = 64;

/// Bytes at the start of two files by which they are compared.
const START: usize = 4096;

/// The name of a part: a common stem, and a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    /// The text before the counter.
    lead: String,
    counter: Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    /// Virtual PC: `.vhd` is the first part, `.v01` to `.v63` follow. `capitals` means upper case.
    VirtualPc { number: usize, capitals: bool },
    /// A fixed number of digits, with leading zeros.
    Digits { number: usize, width: usize },
    /// A fixed number of letters, starting with `aa`, as written by `split`.
    Letters { number: usize, width: usize },
}

impl Counter {
    fn number(self) -> usize {
        match self {
            Self::VirtualPc { number, .. }
            | Self::Digits { number, .. }
            | Self::Letters { number, .. } => number,
        }
    }

    fn with(self, number: usize) -> Self {
        match self {
            Self::VirtualPc { capitals, .. } => Self::VirtualPc { number, capitals },
            Self::Digits { width, .. } => Self::Digits { number, width },
            Self::Letters { width, .. } => Self::Letters { number, width },
        }
    }

    fn text(self) -> String {
        match self {
            Self::VirtualPc { number, capitals } => {
                let text = match number {
                    0 => "vhd".to_owned(),
                    _ => format!("v{number:02}"),
                };
                if capitals { text.to_uppercase() } else { text }
            }
            Self::Digits { number, width } => format!("{number:0width$}"),
            Self::Letters { number, width } => {
                let mut text = vec![b'a'; width];
                let mut rest = number;
                for letter in text.iter_mut().rev() {
                    *letter = u8::try_from(rest % 26).map_or(b'z', |n| b'a' + n);
                    rest /= 26;
                }
                String::from_utf8_lossy(&text).into_owned()
            }
        }
    }

    /// A shell pattern for the counters of all parts, if its expansion is in order.
    fn pattern(self) -> Option<String> {
        match self {
            Self::VirtualPc { .. } | Self::Digits { width: ..2, .. } => None,
            Self::Digits { width, .. } => Some("[0-9]".repeat(width)),
            Self::Letters { width, .. } => Some("[a-z]".repeat(width)),
        }
    }
}

impl Name {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        // The default names of split: xaa, xab and so on.
        let bare = name.len() == 3 && name.starts_with('x');
        let (stem, ending) = match name.rsplit_once('.') {
            Some(("", _)) => return None,
            Some(parts) => parts,
            None if bare => ("", name),
            None => return None,
        };
        let named = |lead: String, counter| Some(Self { lead, counter });
        let capitals = ending.starts_with(['V', 'A']);
        if ending.eq_ignore_ascii_case("vhd") {
            return named(
                format!("{stem}."),
                Counter::VirtualPc {
                    number: 0,
                    capitals,
                },
            );
        }
        if is_later_of_virtual_pc(ending) {
            let number = ending.get(1..)?.parse().ok()?;
            return named(format!("{stem}."), Counter::VirtualPc { number, capitals });
        }
        let digits = ending.trim_start_matches(|c: char| !c.is_ascii_digit());
        let word = ending.strip_suffix(digits)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let width = digits.len();
        let is_counter = match word {
            "" => (2..=3).contains(&width),
            "part" | "Part" | "p" => (1..=4).contains(&width),
            _ => false,
        };
        if is_number && is_counter {
            let number = digits.parse().ok()?;
            return named(format!("{stem}.{word}"), Counter::Digits { number, width });
        }
        let is_letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
        for width in [2, 3] {
            let Some((word, letters)) = ending
                .len()
                .checked_sub(width)
                .and_then(|at| ending.split_at_checked(at))
            else {
                continue;
            };
            let is_counter = ["", "vhd", "avhd", "raw", "img", "part"].contains(&word)
                // Extensions of three letters usually mean something else.
                && (width == 2 || letters.starts_with("aa"));
            let is_counter = if stem.is_empty() {
                word == "x"
            } else {
                is_counter
            };
            if is_letters(letters) && is_counter {
                let count = |sum, letter: u8| sum * 26 + usize::from(letter - b'a');
                let number = letters.bytes().fold(0, count);
                let lead = if stem.is_empty() {
                    "x".to_owned()
                } else {
                    format!("{stem}.{word}")
                };
                return named(lead, Counter::Letters { number, width });
            }
        }
        None
    }

    /// Finds the part with this number next to the file at `beside`, with as many digits as that has, or as many as the
    /// number needs.
    fn find(&self, beside: &Path, number: usize) -> Option<PathBuf> {
        let padded = self.counter.with(number).text();
        let natural = match self.counter {
            Counter::Digits { .. } => Some(number.to_string()),
            Counter::VirtualPc { .. } | Counter::Letters { .. } => None,
        };
        let mut paths = [Some(padded), natural]
            .into_iter()
            .flatten()
            .map(|counter| beside.with_file_name(format!("{}{counter}", self.lead)));
        paths.find(|path| {
            // A counter that has outgrown its width starts over.
            let same = Self::of(path)
                .is_some_and(|name| name.lead == self.lead && name.counter.number() == number);
            same && fs::symlink_metadata(path).is_ok()
        })
    }

    /// A name for the complete image.
    fn whole(&self, beside: &Path) -> PathBuf {
        let lead = self.lead.trim_end_matches("part").trim_end_matches('.');
        let name = match self.counter {
            Counter::VirtualPc { .. } => format!("{lead}-whole.vhd"),
            _ if lead == "x" => "whole.img".to_owned(),
            _ => lead.to_owned(),
        };
        free_name(&beside.with_file_name(name))
    }
}

/// Returns whether an extension is one that Virtual PC uses for the later parts of a split image.
fn is_later_of_virtual_pc(ending: &str) -> bool {
    matches!(ending.as_bytes(), [b'v' | b'V', tens, units]
        if tens.is_ascii_digit() && units.is_ascii_digit() && ending.get(1..) != Some("00"))
}

/// Returns whether `path` looks like a part of a split image, whatever other files exist.
pub fn is_named_part(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    path.file_stem().is_some() && ending.is_some_and(is_later_of_virtual_pc)
}

/// All parts of the split image to which `path` belongs by its name, in order; empty if there is no other part.
pub(super) fn parts(path: &Path) -> Vec<PathBuf> {
    let Some(name) = Name::of(path) else {
        return Vec::new();
    };
    let exists = |number: usize| name.find(path, number);
    let mut first = name.counter.number();
    while let Some(before) = first.checked_sub(1)
        && name.counter.number() - before < MOST
        && exists(before).is_some()
    {
        first = before;
    }
    let is_first = match name.counter {
        Counter::Digits { .. } => first <= 1,
        Counter::VirtualPc { .. } | Counter::Letters { .. } => first == 0,
    };
    if !is_first {
        return Vec::new();
    }
    let parts: Vec<PathBuf> = (first..first.saturating_add(MOST))
        .map_while(exists)
        .collect();
    if parts.len() < 2 { Vec::new() } else { parts }
}

/// The parts as words of a command.
pub(super) fn words(parts: &[PathBuf]) -> String {
    let name = parts
        .first()
        .and_then(|first| Some((first, Name::of(first)?)));
    if let Some((first, name)) = name
        && parts.len() > LISTED
        && parts
            .iter()
            .all(|part| part.as_os_str().len() == first.as_os_str().len())
        && let Some(pattern) = name.counter.pattern()
    {
        return format!("{}{pattern}", word(&first.with_file_name(name.lead)));
    }
    let words: Vec<String> = parts.iter().map(|part| word(part)).collect();
    words.join(" ")
}

/// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) if the file at `path`, which isn't a complete VHD, is one
/// of the parts of an image. `option` is the name of the option that specifies the format.
pub(super) fn refuse(path: &Path, option: Option<&str>) -> Result<()> {
    let parts = parts(path);
    let place = parts.iter().position(|part| part == path);
    let counter = Name::of(path).map(|name| name.counter);
    let by_virtual_pc = matches!(counter, Some(Counter::VirtualPc { .. }));
    let is_part = |place: &usize| by_virtual_pc || !stands_alone(&parts, *place);
    let Some(place) = place.filter(is_part) else {
        if !by_virtual_pc || counter.is_some_and(|counter| counter.number() == 0) {
            return Ok(());
        }
        return Err(
            Error::unsupported("this is a later part of a split image, and the part before it is missing")
                .with_path(path)
                .with_hint(match option {
                    None => "put all parts into one folder: the .vhd, the .v01 and so on".to_owned(),
                    Some(option) => format!(
                        "put all parts into one folder: the .vhd, the .v01 and so on; if it is a raw disk of its \
                         own, use {option} raw"
                    ),
                }),
        );
    };
    let whole = Name::of(path).map_or_else(|| path.to_path_buf(), |name| name.whole(path));
    Err(Error::unsupported("this is one part of a split image")
        .with_path(path)
        .with_found(format_args!("part {} of {}", place + 1, parts.len()))
        .with_hint(format!(
            "join the parts first: cat {} > {}",
            words(&parts),
            word(&whole)
        )))
}

/// Returns whether the file is a disk of its own although it is named like a part, as numbered disks are: it, or its
/// supposed second part, starts like a disk.
fn stands_alone(parts: &[PathBuf], place: usize) -> bool {
    let starts = |n: usize| parts.get(n).and_then(|part| start(part));
    let (Some(first), Some(other)) = (starts(0), starts(place.max(1))) else {
        return false;
    };
    let boots = |bytes: &[u8]| bytes.get(510..512) == Some(&[0x55, 0xAA]);
    let (mut set, mut same) = (0_usize, 0_usize);
    for (a, b) in first.iter().zip(&other) {
        set += usize::from((*a, *b) != (0, 0));
        same += usize::from(a == b && *a != 0);
    }
    boots(&other) || (set > 0 && same * 4 >= set * 3)
}

fn start(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    file?;
    let file = crate::storage::File::open(path).ok()?;
    let mut reader = file.reader().take(START as u64);
    reader.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn found(folder: &tempfile::TempDir, name: &str) -> Vec<String> {
        let parts = parts(&folder.path().join(name));
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        parts.iter().map(name).collect()
    }

    #[test]
    fn parts_are_found_from_any_of_them() {
        for names in [
            &["disk.vhd", "disk.v01", "disk.v02"][..],
            &["DISK.VHD", "DISK.V01"],
            &["d.vhd.001", "d.vhd.002", "d.vhd.003"],
            &["d.000", "d.001"],
            &["d.00", "d.01"],
            &["d.vhd.aa", "d.vhd.ab", "d.vhd.ac"],
            &["d.vhdaa", "d.vhdab"],
            &["d.aaa", "d.aab"],
            &["d.part1", "d.part2"],
            &["d.part01", "d.part02", "d.part03"],
            &["xaa", "xab"],
        ] {
            let pieces: [&[u8]; 3] = [b"one", b"the other", b"xyz"];
            let files: Vec<(&str, &[u8])> = names.iter().copied().zip(pieces).collect();
            let folder = folder(&files);
            for name in names {
                assert_eq!(found(&folder, name), *names, "{name}");
                let refused = refuse(&folder.path().join(name), None).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Unsupported, "{name}");
            }
        }
    }

    #[test]
    fn counters_grow_and_what_misses_its_first_part_is_not_joined() {
        let names: Vec<String> = (1..=12).map(|n| format!("d.part{n}")).collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (&**name, name.as_bytes()))
            .collect();
        let grown = folder(&files);
        for name in &names {
            assert_eq!(found(&grown, name), names, "{name}");
        }
        let rest = folder(&[
            ("d.part08", b"8"),
            ("d.part09", b"9"),
            ("d.ab", b"b"),
            ("d.ac", b"c"),
        ]);
        for name in ["d.part08", "d.part09", "d.ab", "d.ac"] {
            assert!(found(&rest, name).is_empty(), "{name}");
        }
        let many: Vec<PathBuf> = (1..=100).map(|n| format!("d.{n:02}").into()).collect();
        assert!(words(&many).ends_with(" d.99 d.100"));
    }

    #[test]
    fn what_has_no_other_part_is_whole() {
        let names = [
            "disk.vhd",
            "disk.v1",
            "disk.v011",
            "v01",
            "disk.v00",
            "d.001",
            "e.1",
            "e.2",
            "f.vhd",
            "g.v01.bak",
            "h.raw",
            "i.img",
            "k.aa",
            "l.bin",
            "l.bio",
        ];
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
        let folder = folder(&files);
        for name in names {
            refuse(&folder.path().join(name), None).unwrap();
        }
        fs::write(folder.path().join("lone.v03"), "x").unwrap();
        let later = refuse(&folder.path().join("lone.v02"), Some("-f")).unwrap_err();
        assert!(later.hint().unwrap().ends_with("use -f raw"));
    }

    #[test]
    fn numbered_disks_stand_alone() {
        let mut disk = vec![0; 8192];
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        let mut fs = vec![0; 8192];
        fs[1024..1400].fill(7);
        let mut later = fs.clone();
        later[1100] = 9;
        let folder = folder(&[
            ("a.001", &disk),
            ("a.002", &disk),
            ("b.01", &fs),
            ("b.02", &later),
        ]);
        for name in ["a.001", "a.002", "b.01", "b.02"] {
            refuse(&folder.path().join(name), None).unwrap();
        }
    }

    #[test]
    fn the_command_names_every_part_and_a_free_name() {
        let folder = folder(&[
            ("my d.vhd", b"1"),
            ("my d.v01", b"2"),
            ("my d-whole.vhd", b""),
        ]);
        let path = folder.path().join("my d.v01");
        let error = refuse(&path, None).unwrap_err();
        let command = error.hint().unwrap();
        let command = &command[command.find("cat ").unwrap()..];
        let done = std::process::Command::new("sh")
            .args(["-c", command])
            .status();
        if done.is_ok_and(|status| status.success()) {
            let whole = fs::read(folder.path().join("my d-whole-1.vhd")).unwrap();
            assert_eq!(whole, b"12");
        }
        let many: Vec<PathBuf> = (1..=100)
            .map(|n| format!("/x y/d.vhd.{n:03}").into())
            .collect();
        assert_eq!(words(&many), "'/x y/d.vhd.'[0-9][0-9][0-9]");
    }
}
