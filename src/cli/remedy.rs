//! Steps of remedies in the words of the command line: commands that can be pasted into a shell, and options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, quoted};
use crate::remedy::{
    Act, Choice, Conversion, Limit, ReadAs, Remedy, SnapshotJob, Step, StoreJob, Tool,
};
use crate::storage::free_name;

/// The advice about `error`, with commands and options.
pub(super) fn hint(error: &Error) -> Option<String> {
    match error.remedy() {
        Some(remedy) => Some(said(remedy)),
        None => error.hint().map(str::to_owned),
    }
}

/// A remedy as the commands say it: with their options, and commands that can be pasted into a shell.
pub fn said(remedy: &Remedy) -> String {
    remedy.naming(name)
}

fn name(step: &Step) -> String {
    match step {
        Step::Choose(choice) => option(*choice).to_owned(),
        Step::Use(tool) => command(*tool).to_owned(),
        Step::Do(act, file) => done(*act, file),
        Step::SearchParentIn(folder) => format!("--parent-path {}", quoted(folder)),
        Step::Rebase {
            child,
            parent,
            unchecked,
        } => {
            let parent = parent.as_ref().map_or_else(|| "FILE".to_owned(), quoted);
            let unchecked = if *unchecked { " --unsafe" } else { "" };
            format!("vhd rebase {} --parent {parent}{unchecked}", quoted(child))
        }
        Step::TakeRepairBack { saved, image } => {
            format!("vhd check --take-back {} {}", quoted(saved), quoted(image))
        }
        Step::RollBack {
            image,
            journal_folder,
        } => {
            let folder = journal_folder.as_ref();
            let folder = folder.map(|folder| format!(" --journal-dir {}", quoted(folder)));
            let folder = folder.unwrap_or_default();
            format!("vhd-apply --rollback {}{folder}", quoted(image))
        }
        // The name comes from a file: it must control neither a terminal nor a shell.
        Step::FinishMerge(child) => {
            let child = child.as_ref().map_or_else(|| "CHILD".to_owned(), quoted);
            format!("vhd merge {child}")
        }
        Step::ListWindows { list, image } => {
            format!(
                "vhd hash --windows {} --force {}",
                quoted(list),
                quoted(image)
            )
        }
        Step::UnmountLater(place) => format!("vhd unmount --lazy {}", quoted(place)),
        Step::Store { job, store } => {
            let what = match job {
                StoreJob::Init => "init",
                StoreJob::Upgrade => "upgrade --store",
                StoreJob::AddDisk => "create --store",
                StoreJob::InitEncrypted => "init --encrypt",
                StoreJob::Passphrase => "passphrase",
            };
            format!("vhd snapshot {what} {}", quoted(store))
        }
        Step::Snapshot { job, of } => snapshot(job, of.as_ref()),
    }
}

fn snapshot(job: &SnapshotJob, of: Option<&(PathBuf, String)>) -> String {
    let mut rest = String::new();
    let what = match job {
        SnapshotJob::Create => "create",
        SnapshotJob::List => "list",
        SnapshotJob::Verify { read_data } => {
            rest.push_str(if *read_data { " --read-data" } else { "" });
            "verify"
        }
        SnapshotJob::Repair => "repair",
        SnapshotJob::Delete { name, last } => {
            rest.push_str(if *last { " --last" } else { "" });
            if let Some(name) = name {
                rest = format!("{rest} {}", quoted(name));
            }
            "delete"
        }
        SnapshotJob::Send { after } => {
            if let Some(after) = after {
                rest = format!(" --after {}", quoted(after));
            }
            "send"
        }
        SnapshotJob::Status { windows } => {
            rest.push_str(if of.is_none() { " --disk DISK" } else { "" });
            rest.push_str(" --status");
            rest.push_str(if *windows { " --windows" } else { "" });
            "receive"
        }
        SnapshotJob::Copy { to } => {
            rest = format!(" --to {}", quoted(to));
            "copy"
        }
        SnapshotJob::Rebase { like } => {
            rest = match like {
                Some(like) => format!(" --like {}", quoted(like)),
                None => " --full".to_owned(),
            };
            "rebase"
        }
        SnapshotJob::Restore => {
            if of.is_some() {
                rest.push_str(" -o IMAGE");
            }
            "restore"
        }
    };
    let of = of.map(|(store, disk)| format!(" --store {} --disk {}", quoted(store), quoted(disk)));
    format!("vhd snapshot {what}{}{rest}", of.unwrap_or_default())
}

fn done(act: Act, file: &Path) -> String {
    let word = quoted(file);
    match act {
        Act::Check => format!("vhd check {word}"),
        Act::Repair => format!("vhd check --repair {word}"),
        Act::SavedBytes => quoted(suffixed(file, ".before-repair")),
        Act::Convert(how) => converted(how, file),
        Act::Copy => format!("vhd convert {word} NEW"),
        Act::GiveId => {
            let raw = quoted(beside(file, "-new.raw"));
            format!(
                "vhd convert -O raw {word} {raw} && vhd convert {raw} {}",
                new(file)
            )
        }
        Act::TakeOut(len) => {
            let new = new(file);
            let cut = len.map(|len| format!(" && truncate -s {len} {new}"));
            format!("vhd convert -O raw {word} {new}{}", cut.unwrap_or_default())
        }
        Act::Resize(size) => format!("vhd resize {word} --size {size}"),
        Act::ResizeTo(limit) => {
            let size = match limit {
                Limit::SmallestManagedDisk => "20M",
                Limit::LargestManagedDisk => "32767G",
                Limit::LargestPageBlob => "8388607M",
            };
            format!("vhd resize {word} --size {size}")
        }
        Act::Show => format!("vhd show {word}"),
        Act::Receive => format!("vhd snapshot receive --store DIR < {word}"),
    }
}

fn converted(how: Conversion, file: &Path) -> String {
    let mut said = "vhd convert".to_owned();
    let mut add = |words: &str| said.push_str(words);
    if how.azure {
        add(" --azure");
    }
    if how.salvage {
        add(" --salvage");
    }
    match how.read_as {
        Some(ReadAs::Raw) => add(" -f raw"),
        Some(ReadAs::Fixed) => add(" -f fixed"),
        Some(ReadAs::Dynamic) => add(" -f dynamic"),
        Some(ReadAs::Differencing) => add(" -f differencing"),
        None => {}
    }
    if how.to_fixed {
        add(" -O fixed");
    }
    let new = if how.read_as == Some(ReadAs::Raw) {
        quoted(beside(file, "-new.raw"))
    } else {
        new(file)
    };
    format!("{said} {} {new}", quoted(file))
}

/// A new VHD for what is read from `file`.
fn new(file: &Path) -> String {
    quoted(beside(file, "-new.vhd"))
}

/// A new file for what is read from `file`: in its folder, or in the current one if it is a device.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file
        .file_stem()
        .map_or_else(|| OsString::from("disk"), ToOwned::to_owned);
    name.push(ending);
    free_name(&if file.starts_with("/dev") {
        PathBuf::from(name)
    } else {
        file.with_file_name(name)
    })
}

fn suffixed(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn option(choice: Choice) -> &'static str {
    match choice {
        Choice::Overwrite | Choice::IgnoreUnreadChildren => "--force",
        Choice::LoseChildren => "--force twice",
        Choice::Parent => "--parent FILE",
        Choice::NamedParent => "--parent",
        Choice::ParentFolder => "--parent-path DIR",
        Choice::RawParent => "--raw-parent",
        Choice::OldParent => "--old-parent FILE",
        Choice::AllowDataLoss => "--allow-data-loss",
        Choice::MoveGpt => "--fix-gpt",
        Choice::AsRaw => "-f raw",
        Choice::AsFixed => "-f fixed",
        Choice::AsDifferencing => "-f differencing",
        Choice::BaseCheck => "--base-check",
        Choice::CheckWholeBase => "--base-check full",
        Choice::CheckTouched => "--base-check touched",
        Choice::NoDigests => "--no-digest",
        Choice::InPlace => "--in-place",
        Choice::InPlaceByJournal => "--in-place journal",
        Choice::KeepUndo => "--undo",
        Choice::JournalFolder => "--journal-dir",
        Choice::DeleteChild => "--delete",
        Choice::Dense => "--dense",
        Choice::OutputFormat => "-O",
        Choice::OutputRaw => "-O raw",
        Choice::Store => "--store or VHDKIT_STORE",
        Choice::KeyFile => "--key-file FILE",
        Choice::PassphraseFile => "--passphrase-file FILE",
        Choice::Unencrypted => "--unencrypted",
        Choice::Disk => "--disk NAME",
        Choice::Time => "--time",
        Choice::AtTime => "--at",
        Choice::FromStore => "--from STORE",
        Choice::FromImage => "--image SNAPSHOT=FILE",
        Choice::Drop => "--drop",
        Choice::DeleteLast => "--last",
        Choice::AcceptFuture => "--accept-future",
        Choice::After => "--after",
        Choice::AfterStatus => "--after-status -",
        Choice::Output => "-o",
    }
}

fn command(tool: Tool) -> &'static str {
    match tool {
        Tool::Diff => "vhd-diff",
        Tool::Apply => "vhd-apply",
        Tool::Info => "vhd info",
        Tool::Check => "vhd check",
        Tool::Repair => "vhd check --repair",
        Tool::TakeRepairBack => "vhd check --take-back",
        Tool::Convert => "vhd convert",
        Tool::CreateChild => "vhd create CHILD --parent FILE",
        Tool::Tree => "vhd tree FOLDER",
        Tool::MergeMiddle => "vhd merge MIDDLE -o NEW",
        Tool::ListWindows => "vhd hash --windows",
        Tool::Serve => "vhd serve",
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;
    use crate::cli::{command_of, program::Program};

    /// All commands of our programs, each by its whole name.
    fn commands() -> Vec<(String, Command)> {
        fn add(name: &str, command: &Command, all: &mut Vec<(String, Command)>) {
            for sub in command.get_subcommands() {
                add(&format!("{name} {}", sub.get_name()), sub, all);
            }
            all.push((name.to_owned(), command.clone()));
        }
        let mut all = Vec::new();
        for program in Program::ALL {
            add(program.name(), &command_of(program), &mut all);
        }
        all
    }

    fn has_option(command: &Command, word: &str) -> bool {
        command.get_arguments().any(|arg| {
            let long = word
                .strip_prefix("--")
                .is_some_and(|name| arg.get_long() == Some(name));
            let short = word.strip_prefix('-');
            long || short
                .is_some_and(|name| arg.get_short().map(String::from).as_deref() == Some(name))
        })
    }

    /// An error unless `line` is a command of ours with options that it has.
    fn check(line: &str, commands: &[(String, Command)]) {
        let line = line.split(" && ").next().unwrap();
        let of = commands.iter().filter(|(name, _)| {
            line.strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        let longest = of.max_by_key(|(name, _)| name.len());
        let (name, command) = longest.unwrap_or_else(|| panic!("no command: {line}"));
        let program = commands
            .iter()
            .find(|(program, _)| *program == name.split(' ').next().unwrap());
        for word in line
            .split(' ')
            .filter(|word| word.starts_with('-') && word.len() > 1)
        {
            let has = has_option(command, word) || has_option(&program.unwrap().1, word);
            assert!(has, "{name} has no option {word}: {line}");
        }
    }

    #[test]
    fn every_command_has_the_options_that_it_is_given() {
        let commands = commands();
        let file = || PathBuf::from("a.vhd");
        let mut steps: Vec<Step> = Tool::ALL.iter().map(|tool| Step::Use(*tool)).collect();
        let mut acts = vec![
            Act::Check,
            Act::Repair,
            Act::Copy,
            Act::GiveId,
            Act::TakeOut(Some(512)),
            Act::Resize(512),
            Act::ResizeTo(Limit::SmallestManagedDisk),
            Act::ResizeTo(Limit::LargestManagedDisk),
            Act::ResizeTo(Limit::LargestPageBlob),
            Act::Show,
            Act::Receive,
        ];
        for read_as in [
            ReadAs::Raw,
            ReadAs::Fixed,
            ReadAs::Dynamic,
            ReadAs::Differencing,
        ] {
            acts.push(Act::Convert(Conversion {
                azure: true,
                salvage: true,
                read_as: Some(read_as),
                to_fixed: true,
            }));
        }
        steps.extend(acts.into_iter().map(|act| Step::Do(act, file())));
        steps.extend([
            Step::Rebase {
                child: file(),
                parent: None,
                unchecked: true,
            },
            Step::TakeRepairBack {
                saved: file(),
                image: file(),
            },
            Step::RollBack {
                image: file(),
                journal_folder: Some(file()),
            },
            Step::FinishMerge(None),
            Step::ListWindows {
                list: file(),
                image: file(),
            },
            Step::UnmountLater(file()),
        ]);
        for job in [
            StoreJob::Init,
            StoreJob::InitEncrypted,
            StoreJob::Passphrase,
            StoreJob::Upgrade,
            StoreJob::AddDisk,
        ] {
            let store = file();
            steps.push(Step::Store { job, store });
        }
        let name = || Some("tue".to_owned());
        for job in [
            SnapshotJob::Create,
            SnapshotJob::List,
            SnapshotJob::Verify { read_data: true },
            SnapshotJob::Repair,
            SnapshotJob::Delete {
                name: name(),
                last: true,
            },
            SnapshotJob::Send { after: name() },
            SnapshotJob::Status { windows: true },
            SnapshotJob::Restore,
        ] {
            let of = Some((file(), "web".to_owned()));
            steps.push(Step::Snapshot { job, of });
        }
        for step in &steps {
            check(&super::name(step), &commands);
        }
    }

    #[test]
    fn every_choice_is_an_option_of_some_command() {
        let commands = commands();
        for choice in Choice::ALL {
            let name = option(*choice);
            let word = name.split(' ').next().unwrap();
            let has = commands
                .iter()
                .any(|(_, command)| has_option(command, word));
            assert!(has, "{choice:?}: {name}");
        }
    }

    #[test]
    fn names_of_files_are_one_word_each() {
        let said = |step| name(&step);
        assert_eq!(
            said(Step::Do(Act::GiveId, "a/my disk.vhd".into())),
            "vhd convert -O raw 'a/my disk.vhd' 'a/my disk-new.raw' && \
             vhd convert 'a/my disk-new.raw' 'a/my disk-new.vhd'"
        );
        assert_eq!(
            said(Step::Do(Act::SavedBytes, "my disk.vhd".into())),
            "'my disk.vhd.before-repair'"
        );
        let convert = |file: &str| said(Step::Do(Act::Convert(Conversion::PLAIN), file.into()));
        assert_eq!(convert("{new}"), "vhd convert '{new}' '{new}-new.vhd'");
        assert_eq!(convert("/dev/sdx1"), "vhd convert /dev/sdx1 sdx1-new.vhd");
        assert_eq!(convert("disk"), "vhd convert disk disk-new.vhd");
        assert_eq!(
            said(Step::Do(
                Act::TakeOut(Some(8704)),
                "no such folder/a.vhd".into()
            )),
            "vhd convert -O raw 'no such folder/a.vhd' 'no such folder/a-new.vhd' && \
             truncate -s 8704 'no such folder/a-new.vhd'"
        );
        assert_eq!(
            said(Step::FinishMerge(Some("$(x)".into()))),
            "vhd merge '$(x)'"
        );
    }
}
