//! Exports a folder as a tar archive (GNU format, which every tar supports): contents, times, permissions, links.

use std::io::Write;

use super::files::Files;
use super::model::{Node, NodeKind};
use crate::error::{Error, Result};
use crate::page::to_usize;

const BLOCK: usize = 512;
/// A longer path gets an entry of its own before the file's.
const SHORT: usize = 100;
/// The maximum depth of folders.
const DEEPEST: usize = 255;

/// The entries written and skipped.
#[derive(Debug, Default)]
pub struct TarSummary {
    /// Files, folders and links.
    pub entries: u64,
    /// Paths that couldn't be read, and the reasons.
    pub left_out: Vec<(Vec<u8>, String)>,
}

/// Writes a node and everything in it to `out`, with paths that begin with `name`.
///
/// Devices, pipes, sockets and unreadable files are skipped and listed in the summary.
pub fn tar(files: &Files<'_>, node: &Node, name: &[u8], out: &mut dyn Write) -> Result<TarSummary> {
    let mut archive = Archive {
        files,
        out,
        summary: TarSummary::default(),
        seen: std::collections::HashSet::new(),
    };
    archive.add(node, name, 0)?;
    archive.write(&[0; 2 * BLOCK])?;
    Ok(archive.summary)
}

struct Archive<'a> {
    files: &'a Files<'a>,
    out: &'a mut dyn Write,
    summary: TarSummary,
    seen: std::collections::HashSet<u64>,
}

impl Archive<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|error| Error::io("cannot write", error))
    }

    fn leave_out(&mut self, path: &[u8], why: impl Into<String>) {
        self.summary.left_out.push((path.to_vec(), why.into()));
    }

    fn add(&mut self, node: &Node, path: &[u8], depth: usize) -> Result<()> {
        match node.kind {
            NodeKind::Folder => {
                if depth > DEEPEST || !self.seen.insert(node.id) {
                    self.leave_out(path, "folders are too deep, or one has two names");
                    return Ok(());
                }
                let entries = match self.files.list(node) {
                    Err(error) if super::read::is_damage(&error) => {
                        self.leave_out(path, error.to_string());
                        return Ok(());
                    }
                    entries => entries?,
                };
                self.header(node, &[path, b"/"].concat(), b'5', 0, b"")?;
                for entry in entries {
                    let path = [path, b"/", &entry.name].concat();
                    match self.files.node(&entry) {
                        Ok(node) => self.add(&node, &path, depth + 1)?,
                        Err(error) if super::read::is_damage(&error) => {
                            self.leave_out(&path, error.to_string());
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            NodeKind::Link => match self.files.link(node) {
                Ok(target) => self.header(node, path, b'2', 0, &target),
                Err(error) if super::read::is_damage(&error) => {
                    self.leave_out(path, error.to_string());
                    Ok(())
                }
                Err(error) => Err(error),
            },
            NodeKind::Other => {
                self.leave_out(path, "a device, a pipe or a socket");
                Ok(())
            }
            NodeKind::File => {
                if let Some(why) = Files::unread(node) {
                    self.leave_out(path, format!("{why}, which is not read"));
                    return Ok(());
                }
                self.header(node, path, b'0', node.size, b"")?;
                let mut left = node.size;
                let out = &mut *self.out;
                let done = self.files.read(node, |bytes| {
                    left = left.saturating_sub(bytes.len() as u64);
                    out.write_all(bytes)
                        .map_err(|error| Error::io("cannot write", error))
                });
                if let Err(error) = done {
                    // The header has been written: what follows must not be mistaken for content.
                    return Err(error.with_path(String::from_utf8_lossy(path).as_ref()));
                }
                let rest = to_usize(node.size % BLOCK as u64);
                if rest > 0 {
                    self.write(&[0; BLOCK][rest..])?;
                }
                Ok(())
            }
        }
    }

    fn header(&mut self, node: &Node, path: &[u8], kind: u8, size: u64, link: &[u8]) -> Result<()> {
        for (kind, text) in [(b'K', link), (b'L', path)] {
            if text.len() > SHORT {
                let text = [text, b"\0"].concat();
                self.raw(node, b"././@LongLink", kind, text.len() as u64, b"")?;
                self.write(&text)?;
                self.write(&vec![0; text.len().next_multiple_of(BLOCK) - text.len()])?;
            }
        }
        self.summary.entries += 1;
        self.raw(node, path, kind, size, link)
    }

    fn raw(&mut self, node: &Node, path: &[u8], kind: u8, size: u64, link: &[u8]) -> Result<()> {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            for (to, byte) in header.iter_mut().skip(at).zip(bytes) {
                *to = *byte;
            }
        };
        put(0, path.get(..SHORT).unwrap_or(path));
        put(100, format!("{:07o}", node.mode & 0o7777).as_bytes());
        put(108, &number(node.uid.into(), 8));
        put(116, &number(node.gid.into(), 8));
        put(124, &number(size, 12));
        put(
            136,
            &number(u64::try_from(node.modified.0).unwrap_or(0), 12),
        );
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.get(..SHORT).unwrap_or(link));
        put(257, b"ustar  \0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        for (to, byte) in header
            .iter_mut()
            .skip(148)
            .zip(format!("{sum:06o}\0 ").as_bytes())
        {
            *to = *byte;
        }
        self.write(&header)
    }
}

/// Encodes a number in a field of `len` bytes: octal, or binary if it is too large for that.
fn number(n: u64, len: usize) -> Vec<u8> {
    let octal = format!("{n:0width$o}", width = len - 1);
    if octal.len() < len {
        return octal.into_bytes();
    }
    let bytes: Vec<u8> = (0..len)
        .rev()
        .map(|at| {
            if at < 8 {
                u8::try_from(n >> (8 * at) & 0xFF).unwrap_or(0)
            } else {
                0
            }
        })
        .collect();
    bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| if at == 0 { byte | 0x80 } else { *byte })
        .collect()
}
