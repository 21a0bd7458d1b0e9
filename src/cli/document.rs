//! The JSON document of a command, in the same form for all commands and for errors (docs/json.md).
//!
//! A document begins with `schema_version`, `command` and `started`, continues with the members of the command, and
//! ends with `messages`, `seconds`, `bytes_read`, `bytes_written`, `exit_code` and, if it failed, `error`. Since the
//! end is known only when the command has ended, members passed to [`hold`] are printed by [`end`].

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::codes::code_of;
use super::message::Label;
use super::{far, json, remedy};
use crate::error::Error;
use crate::snapshot::Time;
use crate::storage::{bytes_read, bytes_written};

/// The version of the schema of all documents. It changes only when a member is removed or changes its meaning;
/// additions don't count.
const SCHEMA_VERSION: u32 = 3;

/// The document of this process; `None` if JSON isn't requested.
static CURRENT: Mutex<Option<Document>> = Mutex::new(None);

struct Document {
    command: String,
    started: String,
    begun: Instant,
    read_before: u64,
    written_before: u64,
    messages: Vec<Said>,
    /// Each document is on a line of its own, because the command takes several images.
    lines: bool,
    state: State,
}

enum State {
    /// The command hasn't provided anything yet.
    Empty,
    /// The command's members, without the braces around them.
    Held(String),
    /// The beginning and an unfinished list have been printed.
    InList,
    /// The beginning and the list have been printed; these members come after it.
    AfterList(String),
    /// Everything has been printed.
    Ended,
}

/// A message that is also printed on stderr.
#[derive(Serialize)]
struct Said {
    severity: &'static str,
    id: Option<&'static str>,
    message: String,
    hint: Option<String>,
}

/// An error as it appears in all documents.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    id: &'static str,
    kind: &'static str,
    code: u8,
    message: String,
    hint: Option<String>,
    name: Option<String>,
    field: Option<String>,
    offset: Option<u64>,
    found: Option<String>,
    expected: Option<String>,
    cause: Option<String>,
}

impl From<&Error> for ErrorView {
    fn from(error: &Error) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            id: error.id(),
            kind: error.kind().name(),
            code: code_of(error.kind()),
            message: error.message().to_owned(),
            hint: remedy::hint(error),
            name: error.path().map(|path| path.to_string_lossy().into_owned()),
            field: owned(error.field()),
            offset: error.offset(),
            found: owned(error.found()),
            expected: owned(error.expected()),
            cause: std::error::Error::source(error).map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
struct Head<'a> {
    schema_version: u32,
    command: &'a str,
    started: &'a str,
}

#[derive(Serialize)]
struct Tail<'a> {
    messages: &'a [Said],
    seconds: f64,
    bytes_read: u64,
    bytes_written: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

/// Begins the document of `command`, which includes the subcommand: `vhd snapshot list`.
pub(super) fn begin(command: &str) {
    *lock() = Some(Document {
        command: command.to_owned(),
        started: Time::now().to_string(),
        begun: Instant::now(),
        read_before: bytes_read(),
        written_before: bytes_written(),
        messages: Vec::new(),
        lines: false,
        state: State::Empty,
    });
}

/// Puts each document on one line, because the command takes several images.
pub(super) fn one_a_line() {
    if let Some(document) = &mut *lock() {
        document.lines = true;
    }
}

/// Records a message that is printed on stderr.
pub(super) fn said(label: Label, text: &dyn Display, hint: Option<&str>) {
    if let Some(document) = &mut *lock() {
        document.messages.push(Said {
            severity: label.name(),
            id: label.id(),
            message: text.to_string(),
            hint: hint.map(str::to_owned),
        });
    }
}

/// Stores the command's own members, which [`end`] prints.
pub(super) fn hold(value: &impl Serialize) -> io::Result<()> {
    if let Some(document) = &mut *lock() {
        document.state = State::Held(document.members(value)?);
    }
    Ok(())
}

/// Returns the beginning of a document with the members of `value` and the list `name`, for the caller to print.
pub(super) fn begin_list(value: &impl Serialize, name: &str) -> io::Result<String> {
    let Some(document) = &mut *lock() else {
        return Ok(String::new());
    };
    let mut text = String::from("{\n");
    push(&mut text, &document.members(&document.head())?, ",\n");
    push(&mut text, &document.members(value)?, ",\n");
    let _ = writeln!(text, ",\n  \"{name}\": [");
    document.state = State::InList;
    Ok(text)
}

/// Stores the members that come after the list, whose end the caller has printed.
pub(super) fn end_list(value: &impl Serialize) -> io::Result<()> {
    if let Some(document) = &mut *lock() {
        document.state = State::AfterList(document.members(value)?);
    }
    Ok(())
}

/// Prints the rest of the document, with the error that ended the command, if any.
pub(super) fn end(
    exit_code: u8,
    error: Option<&Error>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let Some(document) = &mut *lock() else {
        return Ok(());
    };
    let state = std::mem::replace(&mut document.state, State::Ended);
    if matches!(state, State::Ended) {
        return Ok(());
    }
    let tail = document.tail(exit_code, error);
    let tail = document.members(&tail)?;
    let between = if document.lines { "," } else { ",\n" };
    let mut text = String::new();
    let open = if document.lines { "{" } else { "{\n" };
    let close = if document.lines { "}\n" } else { "\n}\n" };
    match state {
        State::Empty | State::Held(_) => {
            text.push_str(open);
            push(&mut text, &document.members(&document.head())?, between);
        }
        State::InList => text.push_str("\n  ]"),
        State::AfterList(_) | State::Ended => {}
    }
    if let State::Held(members) | State::AfterList(members) = &state {
        push(&mut text, members, between);
    }
    push(&mut text, &tail, between);
    text.push_str(close);
    document.messages.clear();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints the document of one of several images, with the error that prevented processing it, if any.
pub(super) fn end_one(
    image: &Path,
    exit_code: u8,
    error: Option<&Error>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Image<'a> {
        image: Cow<'a, str>,
    }
    if let Some(document) = &mut *lock()
        && !matches!(document.state, State::Held(_))
    {
        let image = image.to_string_lossy();
        document.state = State::Held(document.members(&Image { image })?);
    }
    end(exit_code, error, out)?;
    if let Some(document) = &mut *lock() {
        document.started = Time::now().to_string();
        document.begun = Instant::now();
        document.read_before = bytes_read();
        document.written_before = bytes_written();
    }
    Ok(())
}

/// Reports that a signal ended the command, if nothing of the document has been printed yet.
pub(super) fn interrupted(exit_code: u8) {
    if matches!(&*lock(), Some(document) if matches!(document.state, State::Empty | State::Held(_)))
    {
        // There is no way to report a failure here.
        let _ = end(exit_code, Some(&Error::interrupted()), &mut io::stdout());
    }
}

impl Document {
    fn head(&self) -> Head<'_> {
        Head {
            schema_version: SCHEMA_VERSION,
            command: &self.command,
            started: &self.started,
        }
    }

    fn tail(&self, exit_code: u8, error: Option<&Error>) -> Tail<'_> {
        let traffic = far::traffic();
        Tail {
            requests: traffic.map(|(requests, _, _)| requests),
            sent_bytes: traffic.map(|(_, sent, _)| sent),
            received_bytes: traffic.map(|(_, _, received)| received),
            messages: &self.messages,
            seconds: (self.begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            bytes_read: bytes_read().saturating_sub(self.read_before),
            bytes_written: bytes_written().saturating_sub(self.written_before),
            exit_code,
            error: error.map(|error| ErrorView {
                code: exit_code,
                ..ErrorView::from(error)
            }),
        }
    }

    /// The members of a struct as JSON, without the braces around them.
    fn members(&self, value: &impl Serialize) -> io::Result<String> {
        let mut bytes = Vec::new();
        if self.lines {
            json::compact(&mut bytes, value)?;
        } else {
            json::pretty(&mut bytes, value)?;
        }
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        let text = text.strip_prefix('{').unwrap_or(&text);
        let text = text.strip_suffix('}').unwrap_or(text);
        Ok(text.trim_matches('\n').to_owned())
    }
}

/// Appends members to the existing ones.
fn push(text: &mut String, members: &str, between: &str) {
    if members.is_empty() {
        return;
    }
    // Nothing precedes them right after the brace; an empty text continues what was printed.
    if !text.ends_with(['{', '\n']) {
        text.push_str(between);
    }
    text.push_str(members);
}

fn lock() -> std::sync::MutexGuard<'static, Option<Document>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}
