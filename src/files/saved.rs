//! The bytes replaced by a repair, saved in a separate plain text file.
//!
//! ```text
//! vhdkit saved bytes 1
//! file disk.vhd
//! length 12800                  of the file before the repair
//! repaired 13312                length after it
//! bytes 12288 512               offset and number of bytes that follow, in hexadecimal, 64 in a line
//! 636f6e656374697800000002...
//! end 4a1f...                   BLAKE3 of everything before this line
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::pending::stranger_opened;
use crate::error::{Error, Result};
use crate::remedy::{Remedy, Step, Tool};
use crate::storage::{AtomicFile, Audience, File, Overwrite, ReadAt, WriteAt, beside};

const FIRST_LINE: &str = "vhdkit saved bytes 1";

/// Bytes in a line.
const LINE: usize = 64;

/// A file with longer lines is refused.
const MAX_LINE: u64 = 8 << 10;

/// The data that a repair is about to replace.
pub(super) struct Saved<'a> {
    pub(super) ranges: &'a [Range<u64>],
    pub(super) old_len: u64,
    pub(super) new_len: u64,
}

/// Saves bytes of `image` next to it, as IMAGE.before-repair, with a number appended if the name is taken. When it
/// returns, they are on stable storage.
pub(super) fn save(image: &File, what: &Saved<'_>) -> Result<PathBuf> {
    let path = free_name(image.path())?;
    let new = AtomicFile::begin(&path, Overwrite::No, Audience::of_file(image)?)?;
    let mut out = Hashed {
        out: new.file().appender(),
        hasher: blake3::Hasher::new(),
    };
    write(image, what, &mut out).map_err(|e| e.with_path(&path))?;
    let digest = out.hasher.finalize().to_hex();
    let end = writeln!(out.out, "end {digest}").and_then(|()| out.out.flush());
    end.map_err(|e| Error::io("cannot write", e).with_path(&path))?;
    drop(out);
    new.publish(Overwrite::No)?;
    Ok(path)
}

fn free_name(image: &Path) -> Result<PathBuf> {
    for n in 1..1000 {
        let path = if n == 1 {
            beside(image, ".before-repair")
        } else {
            beside(image, &format!(".before-repair-{n}"))
        };
        if fs::symlink_metadata(&path).is_err() {
            return Ok(path);
        }
    }
    Err(Error::usage("there are too many files of saved bytes next to the image").with_path(image))
}

struct Hashed<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: std::io::Write> Hashed<W> {
    fn line(&mut self, text: &str) -> Result<()> {
        for part in [text, "\n"] {
            self.hasher.update(part.as_bytes());
            let written = self.out.write_all(part.as_bytes());
            written.map_err(|e| Error::io("cannot write", e))?;
        }
        Ok(())
    }
}

fn write<W: std::io::Write>(image: &File, what: &Saved<'_>, out: &mut Hashed<W>) -> Result<()> {
    let name = image.path().file_name().unwrap_or_default();
    out.line(FIRST_LINE)?;
    out.line(&format!("file {}", name.to_string_lossy().escape_debug()))?;
    out.line(&format!("length {}", what.old_len))?;
    out.line(&format!("repaired {}", what.new_len))?;
    for range in what.ranges {
        out.line(&format!(
            "bytes {} {}",
            range.start,
            range.end - range.start
        ))?;
        let mut at = range.start;
        while at < range.end {
            let mut bytes = [0; LINE];
            let len = usize::try_from(range.end - at).map_or(LINE, |left| left.min(LINE));
            image.read_exact_at(&mut bytes[..len], at)?;
            let hex = bytes[..len].iter().fold(String::new(), |mut text, byte| {
                // Writing to a string can't fail.
                let _ = write!(text, "{byte:02x}");
                text
            });
            out.line(&hex)?;
            at += len as u64;
        }
    }
    Ok(())
}

/// Fails if the saved bytes in `file` belong to somebody who may not write `image`: they would be written into it.
fn refuse_foreign(image: &File, file: &File) -> Result<()> {
    let Some(who) = stranger_opened(file, image)? else {
        return Ok(());
    };
    Err(Error::usage("these saved bytes aren't trusted")
        .with_path(file.path())
        .with_found(who)
        .with_expected("a file that belongs to the image's owner, to root or to the current user, and that nobody else may write")
        .with_hint(
            "nothing was changed: it wasn't created by a repair of theirs. Inspect it, it is plain text; if it is right, \
             make a copy of your own and use that",
        ))
}

/// Restores the bytes saved in `saved` to `image`, after verifying all of them.
pub(super) fn put_back(image: &File, saved: &Path) -> Result<()> {
    let mut lengths = (0, 0);
    let saved = &File::open(saved)?;
    refuse_foreign(image, saved)?;
    read(saved, |part| {
        match part {
            Part::Length(len) => lengths.0 = len,
            Part::Repaired(len) => lengths.1 = len,
            Part::Bytes(..) => {}
        }
        Ok(())
    })?;
    let have = image.byte_len()?;
    let (old, new) = lengths;
    if have < old.min(new) || have > old.max(new) {
        return Err(Error::mismatch(
            "these bytes weren't saved from this image, or it has been changed since",
        )
        .with_path(image.path())
        .with_field("file_size")
        .with_found(format_args!("{have} bytes"))
        .with_expected(format_args!("{new} bytes"))
        .with_hint("if a file was repaired more than once, undo the last repair first"));
    }
    image.set_len(old)?;
    read(saved, |part| match part {
        Part::Bytes(at, bytes) => image.write_all_at(&bytes, at),
        Part::Length(_) | Part::Repaired(_) => Ok(()),
    })?;
    image.sync()
}

enum Part {
    Length(u64),
    Repaired(u64),
    Bytes(u64, Vec<u8>),
}

/// Reads a file of saved bytes and verifies it up to its end.
fn read(file: &File, mut take: impl FnMut(Part) -> Result<()>) -> Result<()> {
    let path = file.path();
    let damaged = || {
        Error::damaged("this is not a file of saved bytes, or it is damaged")
            .with_path(path)
            .with_remedy(
                Remedy::new("name the file that ")
                    .step(Step::Use(Tool::Repair), "a repair")
                    .text(" wrote"),
            )
    };
    let mut reader = BufReader::new(file.reader());
    let mut hasher = blake3::Hasher::new();
    let (mut first, mut run) = (true, 0..0_u64);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|e| Error::io("cannot read", e).with_path(path))?;
        let text = line
            .strip_suffix(b"\n")
            .and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or_else(damaged)?;
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        if name == "end" {
            let digest = hasher.finalize().to_hex();
            let right = words.next() == Some(digest.as_str()) && run.is_empty() && !first;
            return if right { Ok(()) } else { Err(damaged()) };
        }
        hasher.update(&line);
        if first {
            if text != FIRST_LINE {
                return Err(damaged());
            }
            first = false;
            continue;
        }
        match name {
            "file" if run.is_empty() => {}
            "length" if run.is_empty() => take(Part::Length(number().ok_or_else(damaged)?))?,
            "repaired" if run.is_empty() => take(Part::Repaired(number().ok_or_else(damaged)?))?,
            "bytes" if run.is_empty() => {
                let start = number().ok_or_else(damaged)?;
                let len = number().ok_or_else(damaged)?;
                run = start..start.checked_add(len).ok_or_else(damaged)?;
            }
            _ => {
                let bytes = hex(text).ok_or_else(damaged)?;
                let end = run.start.checked_add(bytes.len() as u64);
                let end = end.filter(|end| *end <= run.end).ok_or_else(damaged)?;
                take(Part::Bytes(run.start, bytes))?;
                run.start = end;
            }
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    (rest.is_empty() && !pairs.is_empty())
        .then(|| pairs.iter().map(byte).collect())
        .flatten()
}
