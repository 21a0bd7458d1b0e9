//! What appliers of diffs do with a wrong base, a damaged diff and one that was cut off: ours and its peers, side by
//! side.
//!
//! ```text
//! cargo test --test command safety -- --nocapture
//! ```
//!
//! * wrong base: one page differs that the diff doesn't touch;
//! * flipped: one byte of the diff's payload is another one;
//! * cut off: the first 60 % of the diff.
//!
//! Each tool applies its diff under a time limit; then the file at the final name is compared with the right target.
//! A wrong file and exit code 0 together are what must never be: nobody would know.

// The helpers of a test may end it as the test itself may.
mod tools;

use std::fs;
use std::path::Path;

use crate::disk::{Random, TestFolder};
use tools::{Ended, TOOLS, Tool};

const MIB: usize = 1 << 20;

/// Where the second of the changed ranges begins.
const SECOND: usize = 2 * MIB + 4096;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Sound,
    WrongBase,
    Flipped,
    CutOff,
}

/// What stands at the final name afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// The right target.
    Target,
    /// The base as it was.
    Base,
    Nothing,
    Wrong,
}

#[derive(Debug, Clone, Copy)]
struct Verdict {
    ended: Ended,
    stands: Stands,
    warned: bool,
}

impl Verdict {
    /// Whether a user who looks at the exit code is deceived.
    fn deceives(self) -> bool {
        self.ended == Ended::Code(0) && self.stands != Stands::Target
    }

    fn text(self) -> String {
        let ended = match self.ended {
            Ended::Code(0) if self.warned => "exit 0 and a warning".to_owned(),
            Ended::Code(code) => format!("exit {code}"),
            Ended::Killed => "crashed".to_owned(),
            Ended::Hung => "hung".to_owned(),
        };
        let stands = match self.stands {
            Stands::Target => "right image",
            Stands::Base => "base untouched",
            Stands::Nothing => "no file",
            Stands::Wrong if self.ended == Ended::Code(0) => "WRONG IMAGE",
            Stands::Wrong => "wrong file left",
        };
        format!("{ended}, {stands}")
    }
}

struct Disks {
    base: Vec<u8>,
    target: Vec<u8>,
    wrong: Vec<u8>,
}

impl Disks {
    fn new() -> Self {
        let mut random = Random::new(1);
        let base = random.bytes(4 * MIB);
        let mut target = base.clone();
        for at in [MIB, SECOND, 3 * MIB] {
            target[at..at + 100 * 512].copy_from_slice(&random.bytes(100 * 512));
        }
        let mut wrong = base.clone();
        wrong[MIB / 2] ^= 1;
        Self {
            base,
            target,
            wrong,
        }
    }
}

fn verdict(tool: &Tool, disks: &Disks, case: Case) -> Verdict {
    let folder = TestFolder::in_memory();
    folder.file("base", &disks.base);
    folder.file("target", &disks.target);
    let path = folder.path("");
    (tool.make)(&path);
    fs::remove_file(folder.path("target")).unwrap();
    let mut bytes = fs::read(folder.path("diff")).unwrap();
    let mut base = &disks.base;
    match case {
        Case::Sound => {}
        Case::WrongBase => base = &disks.wrong,
        Case::Flipped => {
            let at = place_of_payload(&bytes, &disks.target).unwrap_or(bytes.len() / 2);
            bytes[at] ^= 1;
        }
        Case::CutOff => bytes.truncate(bytes.len() * 6 / 10),
    }
    fs::write(folder.path("base"), base).unwrap();
    fs::write(folder.path("diff"), &bytes).unwrap();
    let (ended, said) = (tool.apply)(&path);
    let stands = stands(
        &path.join(tool.result),
        &disks.target,
        base,
        tool.result == "base",
    );
    Verdict {
        ended,
        stands,
        warned: said.to_lowercase().contains("warning") || said.contains("failed verification"),
    }
}

/// Where a diff holds bytes of the target's new data as they are: in the middle of the second changed range.
fn place_of_payload(diff: &[u8], target: &[u8]) -> Option<usize> {
    let at = SECOND + 50 * 512 + 7;
    let sought = &target[at..at + 16];
    diff.windows(sought.len()).position(|bytes| bytes == sought)
}

fn stands(path: &Path, target: &[u8], base: &[u8], in_place: bool) -> Stands {
    match fs::read(path) {
        Err(_) => Stands::Nothing,
        Ok(bytes) if bytes == target => Stands::Target,
        Ok(bytes) if in_place && bytes == base => Stands::Base,
        Ok(_) => Stands::Wrong,
    }
}

#[test]
fn nobody_is_deceived_by_ours() {
    let disks = Disks::new();
    println!("| tool | wrong base | flipped byte | cut off at 60 % |");
    println!("| --- | --- | --- | --- |");
    let mut deceived = 0;
    for tool in TOOLS {
        let sound = verdict(tool, &disks, Case::Sound);
        assert_eq!(
            (sound.ended, sound.stands),
            (Ended::Code(0), Stands::Target),
            "{}: with nothing wrong",
            tool.name
        );
        let cases = [Case::WrongBase, Case::Flipped, Case::CutOff];
        let verdicts = cases.map(|case| verdict(tool, &disks, case));
        let [base, flipped, cut] = verdicts.map(Verdict::text);
        println!("| {} | {base} | {flipped} | {cut} |", tool.name);
        if tool.ours {
            for (verdict, code) in verdicts.iter().zip([4, 3, 3]) {
                assert_eq!(verdict.ended, Ended::Code(code), "{}", tool.name);
                let expected = if tool.result == "base" {
                    Stands::Base
                } else {
                    Stands::Nothing
                };
                assert_eq!(verdict.stands, expected, "{}", tool.name);
            }
        } else {
            deceived += verdicts.iter().filter(|verdict| verdict.deceives()).count();
        }
    }
    // Were nobody deceived by the peers either, the cases wouldn't be what they are said to be.
    assert!(deceived > 0, "the cases test nothing");
}
