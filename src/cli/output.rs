//! Writing to stdout: text, JSON and binary data.
//!
//! All text goes through [`Output::line`], which escapes control characters and anything that could forge a line; JSON
//! has its own escaping. Callers pass values unchanged.
//!
//! When the reader has closed the pipe, writing fails with an error that ends the program quietly and successfully (see
//! [`exit`](super::exit)).

use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use serde::Serialize;

use super::args::OutputFormat;
use super::{document, json, progress};
use crate::error::{Error, Result};
use crate::image::Sequential;
use crate::text::{Escaping, without_secrets};

/// The name of stdout in messages.
pub(super) const STDOUT: &str = "(standard output)";

/// Standard output, buffered.
#[derive(Debug)]
pub(super) struct Output {
    out: BufWriter<Stdout>,
    /// The line that is being written.
    line: String,
}

/// Standard output itself. The progress bar is hidden while it is written to.
#[derive(Debug)]
struct Stdout {
    file: fs::File,
    terminal: bool,
}

impl Stdout {
    fn new(file: fs::File) -> Self {
        let terminal = file.is_terminal();
        Self { file, terminal }
    }
}

impl io::Write for Stdout {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.terminal {
            progress::hidden(|| self.file.write(buf))
        } else {
            self.file.write(buf)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Output {
    /// Output for text.
    pub(super) fn text() -> Result<Self> {
        // A separate handle: the library's stdout would look for line ends in everything.
        let handle = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Self {
            out: BufWriter::with_capacity(64 << 10, Stdout::new(fs::File::from(handle))),
            line: String::new(),
        })
    }

    /// Output for binary data, which isn't sent to a terminal.
    pub(super) fn binary() -> Result<Self> {
        if io::stdout().is_terminal() {
            return Err(Error::usage("binary data is not sent to a terminal")
                .with_hint("use -o FILE, or a pipe"));
        }
        Self::text()
    }

    /// Output for a raw disk, the only form of a disk that can be written to a pipe: the beginning and the end of a VHD
    /// are written repeatedly.
    pub(super) fn disk(format: Option<OutputFormat>, size: u64) -> Result<Sequential<Self>> {
        if !matches!(format, None | Some(OutputFormat::Raw)) {
            return Err(Error::usage(
                "only the raw disk can be written to stdout: a VHD isn't written sequentially",
            )
            .with_hint("omit -O, or name a file instead of -"));
        }
        Ok(Sequential::new(Self::binary()?, STDOUT, size))
    }

    /// Writes one line. Whatever `text` contains, it stays one line and can't control a terminal.
    pub(super) fn line(&mut self, text: impl Display) -> Result<()> {
        self.line.clear();
        // Writing to a string can't fail.
        let _ = write!(Escaping(&mut self.line), "{text}");
        self.line.push('\n');
        self.out
            .write_all(without_secrets(&self.line).as_bytes())
            .map_err(failed)
    }

    /// Writes bytes unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(failed)
    }

    /// Stores the members of the command's JSON document, which is printed when the command ends.
    #[expect(clippy::unused_self, reason = "who has the output prints the document")]
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        document::hold(value).map_err(failed)
    }

    /// Ends the output: the receiving side has everything when this returns.
    pub(super) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(failed)
    }
}

impl io::Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(super) fn failed(error: io::Error) -> Error {
    Error::io("cannot write", error).with_path(STDOUT)
}

/// A JSON document that contains a list of any length, written as it comes: memory doesn't grow with it.
#[derive(Debug)]
pub(super) struct JsonList {
    separator: &'static str,
}

impl JsonList {
    /// Begins the command's document with the members of `head` and the list `name`.
    pub(super) fn begin(output: &mut Output, head: &impl Serialize, name: &str) -> Result<Self> {
        let text = document::begin_list(head, name).map_err(failed)?;
        output.bytes(text.as_bytes())?;
        Ok(Self { separator: "" })
    }

    /// Writes one more item, on a line of its own.
    pub(super) fn item(&mut self, output: &mut Output, item: &impl Serialize) -> Result<()> {
        output.bytes(self.separator.as_bytes())?;
        output.bytes(b"    ")?;
        self.separator = ",\n";
        json::compact(&mut output.out, item).map_err(failed)
    }

    /// Ends the list; the members of `tail` come after it.
    pub(super) fn end_with(self, output: &mut Output, tail: &impl Serialize) -> Result<()> {
        let line_end: &[u8] = if self.separator.is_empty() {
            b""
        } else {
            b"\n"
        };
        output.bytes(line_end)?;
        output.bytes(b"  ]")?;
        document::end_list(tail).map_err(failed)
    }
}
