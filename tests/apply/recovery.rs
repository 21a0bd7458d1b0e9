//! Interrupted applies are finished or rolled back, from any intermediate state.

use std::fs;

use vhdkit::files::Format;

use crate::lab::{Lab, MIB, SIZE, later, monday, noise, same};

/// Cases of [`interrupted`]: the format, the target's size, and the slack before the base's footer.
const CASES: [(Format, usize, usize); 11] = [
    (Format::Raw, SIZE, 0),
    (Format::Raw, SIZE + 5 * MIB, 0),
    (Format::Raw, 4 * MIB + 512, 0),
    (Format::Fixed, SIZE, 0),
    (Format::Fixed, SIZE + 512, 0),
    (Format::Fixed, SIZE + 5 * MIB, 0),
    (Format::Fixed, SIZE - 512, 0),
    (Format::Fixed, 4 * MIB + 512, 0),
    (Format::Fixed, SIZE, 4096),
    (Format::Fixed, SIZE + 5 * MIB, 4096),
    (Format::Dynamic, SIZE, 0),
];

/// Returns every state of the file that a crash may leave between writing the journal and the end.
fn states(
    lab: &Lab,
    format: Format,
    [old, new]: [&[u8]; 2],
    target: &[u8],
) -> Vec<(String, Vec<u8>)> {
    let mut states = vec![
        ("nothing written".to_owned(), old.to_vec()),
        ("all written".to_owned(), new.to_vec()),
    ];
    if format == Format::Dynamic {
        // The changing pages are torn; all tables are still the old ones.
        let mut torn = old.to_vec();
        lab.write("before", old);
        let (image, disk) = (lab.open("before"), lab.content("before"));
        for page in (0..disk.len()).step_by(512) {
            let place = image.locate(page as u64).unwrap();
            if let (true, Some(at)) = (disk[page..page + 512] != target[page..page + 512], place) {
                let at = usize::try_from(at).unwrap();
                torn[at..at + 512].copy_from_slice(&noise(at as u64, 512));
            }
        }
        states.push(("torn pages".to_owned(), torn));
        return states;
    }
    let longest = old.len().max(new.len());
    let (mut old_long, mut new_long) = (old.to_vec(), new.to_vec());
    old_long.resize(longest, 0);
    new_long.resize(longest, 0);
    // Written up to some offset, the rest still old, at each length the file may have.
    for at in [4 * MIB, target.len(), longest - 512] {
        let at = at.min(longest);
        let mixed = [&new_long[..at], &old_long[at..]].concat();
        let lens = [old.len(), new.len(), target.len()];
        // A disk that keeps its size keeps its length throughout.
        let lens = if old.len() == new.len() {
            &lens[..1]
        } else {
            &lens
        };
        for &len in lens {
            let mut state = mixed.clone();
            state.resize(len, 0);
            states.push((format!("written up to {at}, length {len}"), state));
        }
    }
    // Every page that was being moved is torn, wherever it was.
    let mut torn = old_long.clone();
    for page in (0..longest).step_by(512) {
        let end = (page + 512).min(longest);
        if old_long[page..end] != new_long[page..end] {
            torn[page..end].copy_from_slice(&noise(page as u64, end - page));
        }
    }
    states.push(("torn pages".to_owned(), torn));
    states
}

#[test]
fn from_any_state_it_goes_on_and_back() {
    for (format, size, slack) in CASES {
        let lab = Lab::new();
        let target = later(&monday(), size, 10);
        lab.pair(format, &monday(), &target);
        if slack > 0 {
            let mut bytes = lab.read("base");
            let footer = bytes.split_off(SIZE);
            bytes.extend(vec![0; slack]);
            bytes.extend(footer);
            lab.write("base", &bytes);
        }
        let old = lab.read("base");
        lab.apply(&["base", "diff", "--undo", "undo"]);
        let new = lab.read("base");
        for (state, bytes) in states(&lab, format, [&old, &new], &target) {
            let what = format!("{format} to {size}, slack {slack}, {state}");
            let interrupt = || {
                lab.write("base", &bytes);
                lab.copy("undo", "base.undo-journal");
            };
            interrupt();
            println!("{what}");
            let said = lab.apply(&["base", "diff"]);
            assert!(said.contains("interrupted apply is finished"), "{said}");
            lab.holds_despite_slack("base", &target, slack > 0 && size == SIZE);
            if format != Format::Dynamic {
                same(&lab.read("base"), &new, &what);
            }
            interrupt();
            let said = lab.apply(&["--rollback", "base"]);
            assert!(said.contains("old point in time"), "{said}");
            lab.holds_despite_slack("base", &monday(), slack > 0 && size == SIZE);
            // Slack that the disk grew over can't be restored.
            if format != Format::Dynamic && (slack == 0 || size == SIZE) {
                same(&lab.read("base"), &old, &what);
            }
            assert!(!lab.journal("base").exists());
        }
    }
}

#[test]
fn while_a_journal_stands_every_other_command_is_refused() {
    for format in [Format::Raw, Format::Fixed, Format::Dynamic] {
        let lab = Lab::new();
        lab.pair(format, &monday(), &later(&monday(), SIZE, 10));
        lab.make("third", format, &later(&monday(), SIZE, 99));
        lab.diff("base", "third", "other-diff", &[]);
        lab.diff("target", "third", "next-diff", &[]);
        lab.copy("base", "old");
        lab.apply(&["base", "diff", "--undo", "undo"]);
        lab.copy("old", "base");
        lab.copy("undo", "base.undo-journal");
        for args in [
            &["vhd-apply", "base", "other-diff"][..],
            &["vhd-apply", "base", "diff", "next-diff"],
            &["vhd-apply", "base", "diff", "-o", "new"],
            &["vhd-apply", "base", "diff", "-o", "new", "--dry-run"],
            &["vhd-diff", "base", "target"],
            &["vhd-diff", "target", "base", "-o", "new"],
            &["vhd", "info", "base"],
            &["vhd", "hash", "base"],
            &["vhd", "map", "base"],
            &["vhd", "convert", "base", "new"],
            &["vhd", "create", "base", "--size", "1M", "--force"],
        ] {
            let said = lab.refused(5, args[0], &args[1..]);
            assert!(said.contains("--rollback base"), "{said}");
        }
        let said = lab.refused(0, "vhd-apply", &["base", "diff", "--dry-run"]);
        assert!(said.contains("would be finished"), "{said}");
        lab.apply(&["base", "--rollback"]);
        lab.holds("base", &monday());
    }
}

impl Lab {
    fn holds_despite_slack(&self, name: &str, bytes: &[u8], slack: bool) {
        if slack {
            same(&self.read(name)[..bytes.len()], bytes, name);
        } else {
            self.holds(name, bytes);
        }
    }
}

#[test]
fn a_finished_apply_keeps_the_way_back_too() {
    let lab = Lab::new();
    let target = later(&monday(), SIZE, 10);
    lab.pair(Format::Raw, &monday(), &target);
    lab.apply(&["base", "diff", "--undo", "undo"]);
    lab.copy("undo", "base.undo-journal");
    lab.write("taken", b"somebody's");
    lab.refused(2, "vhd-apply", &["base", "diff", "--undo", "taken"]);
    assert_eq!(lab.read("taken"), b"somebody's");
    let summary = lab.json("vhd-apply", &["base", "diff", "--undo", "undo2", "--json"]);
    assert_eq!(summary["outcome"], "finished");
    same(&lab.read("undo2"), &lab.read("undo"), "undo");
    lab.copy("undo", "base.undo-journal");
    let summary = lab.json("vhd-apply", &["base", "--rollback", "--json"]);
    assert_eq!(summary["outcome"], "rolled_back");
    lab.holds("base", &monday());
}

/// After `--base-check touched` an interrupted apply can be finished even if the base differs elsewhere.
#[test]
fn a_base_checked_in_part_is_finished_and_taken_back() {
    let lab = Lab::new();
    let target = later(&monday(), SIZE, 10);
    lab.pair(Format::Raw, &monday(), &target);
    let mut other = monday();
    other[7 * MIB] = 1;
    let mut expected = target;
    expected[7 * MIB] = 1;
    lab.write("base", &other);
    lab.apply(&["base", "diff", "--base-check", "touched", "--undo", "undo"]);
    lab.write("base", &other);
    lab.copy("undo", "base.undo-journal");
    lab.apply(&["base", "diff"]);
    same(&lab.read("base"), &expected, "finished");
    lab.copy("undo", "base.undo-journal");
    lab.apply(&["base", "--rollback"]);
    same(&lab.read("base"), &other, "rolled back");
}

/// If the journal itself is damaged, nothing is guessed.
#[test]
fn a_damaged_journal_is_not_followed() {
    let lab = Lab::new();
    lab.pair(Format::Fixed, &monday(), &later(&monday(), SIZE, 10));
    for journal in [&b""[..], b"something else", &lab.read("diff")[..1000]] {
        fs::write(lab.journal("base"), journal).unwrap();
        for args in [&["base", "diff"][..], &["base", "--rollback"]] {
            let said = lab.refused(3, "vhd-apply", args);
            assert!(said.contains("base.undo-journal"), "{said}");
            assert!(said.contains("\n  hint: "), "{said}");
        }
    }
}
