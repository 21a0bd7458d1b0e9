//! Mistakes on the command line: the argument parser's messages, and what was probably meant.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{size, store_path::STORE_VARIABLE};
use crate::error::{Error, quoted};

/// The program and the subcommands in `args`.
struct Called<'a> {
    /// As typed, without options.
    words: Vec<String>,
    command: &'a Command,
    parent: Option<&'a Command>,
}

impl<'a> Called<'a> {
    fn of(program: &'a Command, args: &[OsString]) -> Self {
        let mut called = Self {
            words: vec![program.get_name().to_owned()],
            command: program,
            parent: None,
        };
        for arg in args.iter().skip(1) {
            if !called.command.has_subcommands() {
                break;
            }
            let name = arg.to_str().unwrap_or_default();
            if let Some(inner) = called.command.find_subcommand(name) {
                called.words.push(inner.get_name().to_owned());
                called.parent = Some(called.command);
                called.command = inner;
            }
        }
        called
    }

    fn name(&self) -> &str {
        self.command.get_name().trim_start_matches("vhd-")
    }

    fn is_snapshot(&self) -> bool {
        self.parent
            .is_some_and(|parent| parent.get_name() == "snapshot")
    }
}

/// The command that was called, as typed, without options.
pub(super) fn called(program: &Command, args: &[OsString]) -> String {
    Called::of(program, args).words.join(" ")
}

/// Replaces the parser's message if there is a better one; returns `None` if its own is good. Unhelpful additions by
/// the parser are removed from `error`.
pub(super) fn explain(
    error: &mut clap::Error,
    program: &Command,
    args: &[OsString],
) -> Option<Error> {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    if let Some(own) = source {
        return Some(again(own));
    }
    let called = Called::of(program, args);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let found = text(error, ContextKind::InvalidArg)?;
            if found.starts_with('-') {
                // An unknown option is hardly ever meant as a value.
                error.remove(ContextKind::Suggested);
                return None;
            }
            let hint = unexpected(&called, &found, args)?;
            Some(Error::usage(format!("unexpected argument '{found}'")).with_hint(hint))
        }
        ErrorKind::InvalidSubcommand => {
            let found = text(error, ContextKind::InvalidSubcommand)?;
            let hint = meant(&called, program, &found)
                .map(|command| format!("did you mean {command}?"))
                .or_else(|| path_first(&called, &found))?;
            let of = called.words.join(" ");
            Some(Error::usage(format!("{of} has no subcommand '{found}'")).with_hint(hint))
        }
        ErrorKind::MissingRequiredArgument => {
            let is_store = |arg: &str| arg.starts_with("--store <");
            let missing = match error.get(ContextKind::InvalidArg)? {
                ContextValue::Strings(all) => all.iter().any(|arg| is_store(arg)),
                ContextValue::String(arg) => is_store(arg),
                _ => false,
            };
            let empty = std::env::var_os(STORE_VARIABLE).is_some_and(|value| value.is_empty());
            let but = if empty {
                ", which is set but empty"
            } else {
                ""
            };
            missing.then(|| {
                Error::usage("no store is named").with_hint(format!(
                    "name it with --store DIR, or in the environment variable {STORE_VARIABLE}{but}"
                ))
            })
        }
        _ => None,
    }
}

/// A copy of an error of [`names`](super::names), since the parser only lends a reference.
fn again(error: &Error) -> Error {
    let cause = std::error::Error::source(error);
    let system = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let mut again = match system {
        Some(system) if error.kind() == crate::error::ErrorKind::Io => {
            let number = system.raw_os_error().map(io::Error::from_raw_os_error);
            let other = || io::Error::new(system.kind(), system.to_string());
            Error::io(error.message(), number.unwrap_or_else(other))
        }
        _ => {
            let again = Error::new(error.kind(), error.message());
            let cause = cause.map(ToString::to_string);
            cause.into_iter().fold(again, Error::with_source)
        }
    };
    again = error.path().into_iter().fold(again, Error::with_path);
    again = error.field().into_iter().fold(again, Error::with_field);
    again = error.offset().into_iter().fold(again, Error::with_offset);
    again = error.found().into_iter().fold(again, Error::with_found);
    again = error
        .expected()
        .into_iter()
        .fold(again, Error::with_expected);
    let remedy = error.remedy().cloned();
    remedy.into_iter().fold(again, Error::with_remedy)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Advice about an argument too many.
fn unexpected(called: &Called<'_>, found: &str, args: &[OsString]) -> Option<String> {
    let with = |option: &str| {
        let line = corrected(called, found, option, args);
        format!("did you mean {line}?")
    };
    match (called.name(), called.is_snapshot()) {
        ("diff", _) | ("restore", true) => Some(with("-o")),
        ("create" | "resize", false) if size::parse(found).is_ok() => Some(with("--size")),
        ("create" | "resize", false) if found.starts_with('+') => {
            Some("a size is the total size of the disk: --size 20G".into())
        }
        ("merge", false) => Some(with("--parent")),
        ("convert", false) => Some("one source and one destination are named".into()),
        ("map" | "show", _) => Some("run the command once for each".into()),
        _ => None,
    }
}

/// The command line with `option` before the last argument that equals `found`.
fn corrected(called: &Called<'_>, found: &str, option: &str, args: &[OsString]) -> String {
    let at = args.iter().rposition(|arg| arg == found);
    let mut words = vec![called.words.first().cloned().unwrap_or_default()];
    for (n, arg) in args.iter().enumerate().skip(1) {
        if Some(n) == at {
            words.push(option.to_owned());
        }
        // Options are kept; a name that begins with a hyphen isn't one of them.
        let plain = arg.to_str().filter(|arg| arg.starts_with('-'));
        words.push(plain.map_or_else(|| quoted(arg), str::to_owned));
    }
    words.join(" ")
}

/// The command that was probably meant by `found`.
fn meant(called: &Called<'_>, program: &Command, found: &str) -> Option<String> {
    let here = called.words.join(" ");
    let snapshot = program.find_subcommand("snapshot");
    let is_snapshot = called.command.get_name() == "snapshot";
    let lower = found.to_lowercase();
    // Another command may have it under that very name.
    let elsewhere = if is_snapshot { Some(program) } else { snapshot };
    let found_there = elsewhere.and_then(|other| other.find_subcommand(&lower));
    if let Some(there) = found_there {
        let lead = if is_snapshot { "vhd" } else { "vhd snapshot" };
        return Some(format!("{lead} {}", there.get_name()));
    }
    let names = || called.command.get_subcommands().map(Command::get_name);
    let begins: Vec<&str> = names().filter(|name| name.starts_with(&lower)).collect();
    if let [one] = begins.as_slice() {
        return Some(format!("{here} {one}"));
    }
    let nearest = names().min_by_key(|name| distance(name, &lower))?;
    // Half of the letters must match.
    (distance(nearest, &lower) * 2 <= nearest.len()).then(|| format!("{here} {nearest}"))
}

/// A file in place of a command.
fn path_first(called: &Called<'_>, found: &str) -> Option<String> {
    let file = called.parent.is_none() && Path::new(found).exists();
    file.then(|| format!("a command comes first, as in vhd info {}", quoted(found)))
}

/// The number of letters to change, add, remove or swap with the next one to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // A word that is much longer than any command reveals nothing.
    if b.len() > 32 {
        return usize::MAX / 2;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: usize, column: usize| {
                rows.get(row)
                    .and_then(|row| row.get(column))
                    .copied()
                    .unwrap_or(usize::MAX / 2)
            };
            let before = row.last().copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(i, j) + usize::from(x != y))
                .min(at(i, j + 1) + 1)
                .min(before + 1);
            let exchanged = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if exchanged {
                best = best.min(at(i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last()
        .and_then(|row| row.last())
        .copied()
        .unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command_of, program::Program};

    fn told(line: &str) -> (String, String) {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let program = Program::ALL
            .into_iter()
            .find(|p| args[0] == p.name())
            .unwrap();
        let mut error = command_of(program).try_get_matches_from(&args).unwrap_err();
        match explain(&mut error, &command_of(program), &args) {
            Some(error) => (
                error.to_string(),
                error.hint().unwrap_or_default().to_owned(),
            ),
            None => (error.render().to_string(), String::new()),
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        for (line, hint) in [
            ("vhd-diff a b out", "did you mean vhd-diff a b -o out?"),
            (
                "vhd diff a b -q out",
                "did you mean vhd diff a b -q -o out?",
            ),
            (
                "vhd create d.vhd 1G",
                "did you mean vhd create d.vhd --size 1G?",
            ),
            (
                "vhd resize d.vhd 64M",
                "did you mean vhd resize d.vhd --size 64M?",
            ),
            (
                "vhd snapshot restore --store s tue x",
                "did you mean vhd snapshot restore --store s tue -o x?",
            ),
            ("vhd restore", "did you mean vhd snapshot restore?"),
            ("vhd list", "did you mean vhd snapshot list?"),
            ("vhd ls", "did you mean vhd snapshot list?"),
            (
                "vhd prune --keep-last 1",
                "did you mean vhd snapshot prune?",
            ),
            ("vhd snapshot check", "did you mean vhd check?"),
            ("vhd snapshot resotre", "did you mean vhd snapshot restore?"),
            ("vhd dif", "did you mean vhd diff?"),
            ("vhd snapsh", "did you mean vhd snapshot?"),
            ("vhd covnert", "did you mean vhd convert?"),
        ] {
            assert_eq!(told(line).1, hint, "{line}");
        }
        let (text, hint) = told("vhd xyzzy");
        assert!(text.contains("unrecognized subcommand"), "{text}");
        assert_eq!(hint, "");
        let (text, _) = told("vhd map disk.vhd --jsn");
        assert!(!text.contains("as a value"), "{text}");
    }
}
