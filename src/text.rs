//! Text that others wrote, made fit to be shown: names, paths and fields of files may hold anything.
//!
//! What a terminal obeys (control characters), what ends a line, what turns the direction of writing and what isn't
//! seen at all is escaped: `\n`, `\u{1b}`, `\u{202e}`; a byte that isn't UTF-8 as `\xff`. A backslash stays as it is,
//! so that escaping twice changes nothing, and the path of Windows keeps its form.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};

/// Shows a path, a name or another text that may hold anything, on one line.
///
/// ```
/// use std::path::Path;
/// assert_eq!(vhdkit::text::shown(Path::new("disk\u{1b}[31m\n.vhd")).to_string(), r"disk\u{1b}[31m\n.vhd");
/// ```
pub fn shown<T: AsRef<OsStr> + ?Sized>(text: &T) -> Shown<'_> {
    Shown(text.as_ref())
}

/// A text to be shown on one line; see [`shown`].
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a OsStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.as_encoded_bytes().utf8_chunks() {
            Escaping(&mut text).write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(text, "\\x{byte:02x}")?;
            }
        }
        f.pad(&text)
    }
}

/// Shows any value on one line, with what it writes escaped as [`shown`] does it.
#[derive(Debug, Clone, Copy)]
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Hands text on with everything escaped that isn't seen as what it is.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unseen(*c)) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            match c {
                '\n' | '\r' | '\t' => write!(self.0, "{}", c.escape_default())?,
                _ => write!(self.0, "{}", c.escape_unicode())?,
            }
            rest = &after[c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Whether a character isn't seen as what it is: it controls the terminal or the direction of writing, ends a line, or
/// shows nothing.
pub const fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' // control characters
            | '\u{2028}' | '\u{2029}' // ends of lines and paragraphs
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // directions
            | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' // what shows nothing
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn what_is_not_seen_is_escaped_once() {
        for (text, expected) in [
            ("disk.vhd", "disk.vhd"),
            ("größe 磁盘 🖴", "größe 磁盘 🖴"),
            (r"C:\disks\new.vhd", r"C:\disks\new.vhd"),
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{1b}[31m\0\u{7f}", r"\u{1b}[31m\u{0}\u{7f}"),
            ("\u{85}\u{9b}31m", r"\u{85}\u{9b}31m"),
            ("\u{202e}dhv.\u{2066}", r"\u{202e}dhv.\u{2066}"),
            ("\u{2028}\u{feff}\u{e0041}", r"\u{2028}\u{feff}\u{e0041}"),
        ] {
            let once = shown(text).to_string();
            assert_eq!(once, expected);
            assert_eq!(shown(&once).to_string(), expected, "escaped twice");
            assert_eq!(OneLine(text).to_string(), expected);
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_shown() {
        let name = OsStr::from_bytes(b"a\xff\xc3\xa4\xe2\x80\xae\xe2\x80.vhd");
        assert_eq!(shown(name).to_string(), r"a\xffä\u{202e}\xe2\x80.vhd");
    }

    #[test]
    fn widths_count() {
        assert_eq!(
            format!("{:<6}|{:>4}|", shown("a\n"), shown("b")),
            "a\\n   |   b|"
        );
    }
}
