//! Reading stdin: its beginning is inspected first, so that a failed or misdirected pipe is reported.

use std::io::{self, Chain, Cursor, IsTerminal as _, Read, StdinLock};

use crate::diff::MAGIC;
use crate::error::{Error, ErrorKind, Result};
use crate::files::foreign;

/// The name of stdin in messages.
pub(super) const STDIN: &str = "(standard input)";

/// The input that a command expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Diff,
    /// The output of `vhd snapshot send`.
    Stream,
    /// The list for `vhd snapshot family`.
    List,
    /// A list of changed ranges, for `--changes`.
    Changes,
    /// The output of `vhd snapshot receive --status --windows`.
    Status,
}

impl Expected {
    const fn name(self) -> &'static str {
        match self {
            Self::Diff => "a diff",
            Self::Stream => "a stream of snapshots",
            Self::List => "a list of snapshots",
            Self::Changes => "a list of changed ranges",
            Self::Status => "the state of a receiver",
        }
    }
}

/// Stdin, of which the beginning has been read already.
pub(super) type Stdin = Chain<Cursor<Vec<u8>>, StdinLock<'static>>;

/// The first bytes of a stream of snapshots.
const STREAM: &[u8] = b"\x89VHDSND\n";

/// Bytes that suffice to recognize the input.
const HEAD: usize = 512;

/// Opens stdin.
///
/// # Errors
///
/// Fails if it is a terminal, if it is empty, or if its first bytes are those of something else that is known.
pub(super) fn open(expected: Expected) -> Result<Stdin> {
    let name = expected.name();
    if io::stdin().is_terminal() {
        return Err(
            Error::usage(format!("{name} doesn't come from a terminal")).with_hint(match expected {
                Expected::Diff => {
                    "pipe what vhd-diff -o - writes into this command, or name a file"
                }
                Expected::Stream => "pipe what vhd snapshot send writes into this command",
                Expected::List => {
                    "pipe what az snapshot list -o json writes into this command, or name a file"
                }
                Expected::Changes => {
                    "pipe what the program that knows the changes writes into this command, or name a file"
                }
                Expected::Status => {
                    "pipe what vhd snapshot receive --status --windows writes into this command, or name a file"
                }
            }),
        );
    }
    let mut stdin = io::stdin().lock();
    let mut head = Vec::with_capacity(HEAD);
    let read = (&mut stdin).take(HEAD as u64).read_to_end(&mut head);
    read.map_err(|e| Error::io("cannot read", e).with_path(STDIN))?;
    look_at(&head, expected).map_err(|error| error.with_path(STDIN))?;
    Ok(Cursor::new(head).chain(stdin))
}

fn look_at(head: &[u8], expected: Expected) -> Result<()> {
    let name = expected.name();
    if head.is_empty() {
        return Err(Error::damaged(
            "the input is empty: the command before the pipe failed, or wrote nothing",
        )
        .with_expected(name)
        .with_hint("check the messages of the other command, and run both again"));
    }
    let other = if head.starts_with(&MAGIC) && expected != Expected::Diff {
        Some((
            "the input is a diff",
            "vhd-apply accepts it, and vhd snapshot create --diff - adds it to a store",
        ))
    } else if head.starts_with(STREAM) && expected != Expected::Stream {
        Some((
            "the input is a stream of snapshots",
            "vhd snapshot receive accepts it",
        ))
    } else if head.starts_with(b"conectix") {
        Some((
            "the input is a VHD image",
            "an image can't be read from a pipe: save it to a file, and create a diff from it with vhd-diff",
        ))
    } else {
        None
    };
    if let Some((what, hint)) = other {
        return Err(Error::usage(what).with_expected(name).with_hint(hint));
    }
    // The readers of lists of changes and of states know their forms themselves.
    let reads_all = matches!(expected, Expected::Changes | Expected::Status);
    if head.starts_with(&MAGIC) || head.starts_with(STREAM) || reads_all {
        return Ok(());
    }
    // The list is JSON, and its reader knows more about it.
    let kind = foreign::find_in_stream(head)?;
    let kind = kind.filter(|kind| expected != Expected::List || kind.name != foreign::JSON);
    let Some(kind) = kind else {
        return Ok(());
    };
    let error = Error::unsupported(format!("the input is {}", kind.name)).with_expected(name);
    Err(error.with_hint(match kind.filter() {
        Some(filter) => format!("unpack it on the way, with {filter} before this command"),
        None if kind.is_answer() => {
            "inspect it without this command: it may explain why the input isn't what you expect"
                .to_owned()
        }
        None => "save it to a file, and check that with vhd info".to_owned(),
    }))
}

/// Adapts an error about stdin, with advice for a pipe: there is no file that could be fetched again.
pub(super) fn of_pipe(error: Error) -> Error {
    let came = error.path().is_some_and(|file| file == STDIN);
    if came && error.kind() == ErrorKind::Damaged {
        return error.override_hint(
            "if the command before the pipe failed, its messages explain why: run both again; otherwise the data was changed on its way",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_told_by_its_first_bytes() {
        let all = [Expected::Diff, Expected::Stream, Expected::List];
        for expected in all {
            assert!(look_at(b"[{}]", expected).is_ok());
            assert_eq!(
                look_at(b"", expected).unwrap_err().kind(),
                ErrorKind::Damaged
            );
            for (head, packing) in [
                (&b"\x1F\x8B\x08\0\0\0\0\0\0\x03"[..], "gzip"),
                (b"\x28\xB5\x2F\xFD", "zstd"),
                (b"\x1F\x9D\x90\0\0\0", "compress"),
                (b"PK\x03\x04", "zip"),
                (b"<!DOCTYPE html>", "HTML"),
            ] {
                let error = look_at(head, expected).unwrap_err();
                assert!(error.to_string().contains(packing), "{error}");
            }
            let json = look_at(b"{\"error\": 403}", expected);
            assert_eq!(json.is_ok(), expected == Expected::List);
            let (diff, stream) = (look_at(&MAGIC, expected), look_at(STREAM, expected));
            assert_eq!(diff.is_ok(), expected == Expected::Diff);
            assert_eq!(stream.is_ok(), expected == Expected::Stream);
        }
    }
}
