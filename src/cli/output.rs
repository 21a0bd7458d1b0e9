//! Writing to stdout: text, JSON and binary data.
//!
//! When the reader has closed the pipe, writing fails with an error that ends the program quietly and
//! successfully (see [`exit`](super::exit)).

use std::fmt::Display;
use std::fs;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd as _;

use serde::Serialize;

use crate::error::{Error, Result};

/// The version of every JSON output's schema. It changes only when something is taken away or changes its
/// meaning; additions don't count.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// Standard output, buffered.
#[derive(Debug)]
pub(super) struct Output(BufWriter<fs::File>);

impl Output {
    /// For text.
    pub(super) fn text() -> Result<Self> {
        // A handle of its own: the library's stdout would look for line ends in everything.
        let handle = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Self(BufWriter::with_capacity(
            64 << 10,
            fs::File::from(handle),
        )))
    }

    /// For binary data, which isn't sent to a terminal.
    pub(super) fn binary() -> Result<Self> {
        if io::stdout().is_terminal() {
            return Err(Error::usage("binary data is not sent to a terminal")
                .hint("use -o FILE, or a pipe"));
        }
        Self::text()
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.0, "{text}").map_err(failed)
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    /// Writes one JSON document.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(|e| failed(e.into()))?;
        self.line("")
    }

    /// Ends the output: everything has been taken by the reader's side when this returns.
    pub(super) fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(failed)
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Text from a file as it may be shown: control characters, which a terminal would obey, are escaped.
pub(super) fn plain(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            let shown: Box<dyn Iterator<Item = char>> = if c.is_control() {
                Box::new(c.escape_default())
            } else {
                Box::new(std::iter::once(c))
            };
            shown
        })
        .collect()
}

fn failed(error: io::Error) -> Error {
    Error::io("cannot write", error).path("(standard output)")
}

/// A JSON object with a list of any length among its members, written as it comes: memory doesn't grow with it.
#[derive(Debug)]
pub(super) struct JsonList {
    separator: &'static str,
}

impl JsonList {
    /// Begins with the members of `head`, which is a struct with at least one, and the list `name`.
    pub(super) fn begin(output: &mut Output, head: &impl Serialize, name: &str) -> Result<Self> {
        let head = serde_json::to_string_pretty(head).map_err(|e| failed(e.into()))?;
        let head = head.strip_suffix("\n}").unwrap_or(&head);
        output.line(format_args!("{head},\n  \"{name}\": ["))?;
        Ok(Self { separator: "" })
    }

    /// Writes one more item, on a line of its own.
    pub(super) fn item(&mut self, output: &mut Output, item: &impl Serialize) -> Result<()> {
        write!(output, "{}    ", self.separator).map_err(failed)?;
        self.separator = ",\n";
        serde_json::to_writer(output, item).map_err(|e| failed(e.into()))
    }

    /// Ends list and object.
    pub(super) fn end(self, output: &mut Output) -> Result<()> {
        self.end_list(output)?;
        output.line("\n}")
    }

    /// Ends the list, adds the members of `tail`, which is a struct with at least one, and ends the object.
    pub(super) fn end_with(self, output: &mut Output, tail: &impl Serialize) -> Result<()> {
        self.end_list(output)?;
        let tail = serde_json::to_string_pretty(tail).map_err(|e| failed(e.into()))?;
        output.line(format_args!(",\n{}", tail.trim_start_matches(['{', '\n'])))
    }

    fn end_list(self, output: &mut Output) -> Result<()> {
        let line_end = if self.separator.is_empty() { "" } else { "\n" };
        write!(output, "{line_end}  ]").map_err(failed)
    }
}
