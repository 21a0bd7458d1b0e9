//! Makes foreign text fit to be displayed: names, paths and fields of files may contain anything.
//!
//! Control characters, line breaks, characters that change the writing direction, and invisible ones are escaped: `\n`,
//! `\u{1b}`, `\u{202e}`; a byte that isn't valid UTF-8 as `\xff`. A backslash isn't escaped, so that escaping twice
//! changes nothing and Windows paths stay readable.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};

/// Displays a path, a name or another arbitrary text on one line.
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
        f.pad(&without_secrets(&text))
    }
}

/// The beginnings of secrets in the parameters of an address or in a connection string.
const SECRETS: &[&str] = &[
    "sig",
    "signature",
    "sharedaccesssignature",
    "sharedaccesskey",
    "accountkey",
    "access_token",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-signature",
    "x-goog-credential",
];

/// Parameters that accompany a signature: not secret by themselves, but of no use to a reader.
const BESIDE_SECRETS: &[&str] = &[
    "se", "sp", "sv", "st", "sr", "srt", "ss", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks",
    "skv",
];

/// Removes everything from `text` that grants access: the query and the password of an address, signatures and keys.
/// Three dots mark omissions. A downloaded file may be named after such an address.
///
/// ```
/// use vhdkit::text::without_secrets;
/// assert_eq!(without_secrets("https://h/a.vhd?sv=1&sig=abc: gone"), "https://h/a.vhd?...: gone");
/// assert_eq!(without_secrets("a.vhd?sv=1&sig=abc"), "a.vhd?...");
/// assert_eq!(without_secrets("nbd+unix:///?socket=/run/s"), "nbd+unix:///?socket=/run/s");
/// ```
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    // Most texts contain none of these.
    if !text.contains(['=', '%']) && !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    for word in text.split_inclusive(ends_word) {
        let end = word
            .char_indices()
            .next_back()
            .filter(|(_, c)| ends_word(*c));
        let (word, end) = word.split_at(end.map_or(word.len(), |(at, _)| at));
        // Punctuation that ends a sentence or introduces the next part of a message isn't part of an address.
        let bare = word.trim_end_matches([':', ';', '.']);
        let (word, tail) = word.split_at(bare.len());
        kept += &word_without_secrets(word);
        kept += tail;
        kept += end;
    }
    Cow::Owned(kept)
}

/// Returns whether an address or a name with parameters ends before this character.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "'\"`<>|(),".contains(c)
}

fn word_without_secrets(word: &str) -> Cow<'_, str> {
    // Schemes in which the query is the path of a socket.
    const OPEN: [&str; 1] = ["nbd+unix"];
    let address = word.split_once("://");
    if let Some((scheme, rest)) = address.filter(|(scheme, _)| !OPEN.contains(scheme)) {
        let (rest, query) = match rest.split_once('?') {
            // There was no query, or it was removed already.
            Some((rest, "")) => (rest, "?".to_owned()),
            Some((rest, query)) => (rest, query_without_secrets(query)),
            None => (rest, String::new()),
        };
        let host = rest.find('/').unwrap_or(rest.len());
        let password = rest.get(..host).and_then(|authority| {
            let (user, machine) = authority.rsplit_once('@')?;
            let (user, _) = user.split_once(':')?;
            Some(format!("{user}:...@{machine}"))
        });
        let host = password.map_or_else(
            || Cow::Borrowed(rest),
            |shown| Cow::Owned(shown + rest.get(host..).unwrap_or_default()),
        );
        return Cow::Owned(format!("{scheme}://{}{query}", parameters_cut(&host)));
    }
    parameters_cut(word)
}

/// Reduces the query of an address to its question mark and, if there is one, the time of a snapshot, which is part of
/// the name.
fn query_without_secrets(query: &str) -> String {
    let is_time = |c: char| c.is_ascii_digit() || "-:.TZ%A".contains(c);
    let mut parts = query.split('&');
    let time = parts.find(|part| {
        let value = part.strip_prefix("snapshot=");
        value.is_some_and(|time| !time.is_empty() && time.len() <= 60 && time.chars().all(is_time))
    });
    match time {
        // There was nothing else, or it was removed already.
        Some(time) if time == query.strip_suffix('&').unwrap_or(query) => format!("?{query}"),
        Some(time) => format!("?{time}&..."),
        None => "?...".into(),
    }
}

/// Cuts `word` where its parameters begin, if one of them is secret.
fn parameters_cut(word: &str) -> Cow<'_, str> {
    let lower = word.to_ascii_lowercase();
    let lower = lower.as_str();
    let begins = |at: usize, beside: bool| {
        let before = lower.get(..at).unwrap_or_default();
        let parameter = before.ends_with(['?', '&', ';'])
            || ["%3f", "%26", "%3b"]
                .iter()
                .any(|encoded| before.ends_with(encoded));
        // A signature may occur without the address it was part of.
        parameter || !beside && (before.is_empty() || before.ends_with(['=', ':', '/']))
    };
    let found = |names: &[&str], beside: bool| {
        let places = names.iter().flat_map(|name| {
            lower.match_indices(name).filter(move |(at, name)| {
                let after = lower.get(at + name.len()..).unwrap_or_default();
                (after.starts_with('=') || after.starts_with("%3d")) && begins(*at, beside)
            })
        });
        places.map(|(at, _)| at).min()
    };
    let secret = found(SECRETS, false);
    let Some(at) = secret.into_iter().chain(found(BESIDE_SECRETS, true)).min() else {
        return Cow::Borrowed(word);
    };
    let query = [
        lower.find('?').map(|at| at + 1),
        lower.find("%3f").map(|at| at + 3),
    ];
    let query = query.into_iter().flatten().min();
    let cut = query.map_or(at, |query| query.min(at));
    Cow::Owned(format!("{}...", word.get(..cut).unwrap_or_default()))
}

/// Displays any value on one line, escaped like [`shown`].
#[derive(Debug, Clone, Copy)]
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Passes text on, with all misleading characters escaped.
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

/// Returns whether a character isn't visible as itself: it controls the terminal or the writing direction, ends a line,
/// or is invisible.
pub const fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' // control characters
            | '\u{2028}' | '\u{2029}' // ends of lines and paragraphs
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // directions
            | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' // invisible characters
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
    fn what_gives_access_is_not_shown() {
        for (text, expected) in [
            (
                "https://a.b/c/d.vhd?snapshot=1&sv=2&sig=XX",
                "https://a.b/c/d.vhd?snapshot=1&...",
            ),
            (
                "https://a.b/c?sv=2&snapshot=2026-11-28T10:00:00.1234567Z&sig=XX: no",
                "https://a.b/c?snapshot=2026-11-28T10:00:00.1234567Z&...: no",
            ),
            (
                "https://a.b/c?snapshot=2026-11-28T10%3A00%3A00.1234567Z",
                "https://a.b/c?snapshot=2026-11-28T10%3A00%3A00.1234567Z",
            ),
            ("https://a.b/c?snapshot=XX&sig=XX", "https://a.b/c?..."),
            ("'https://a.b/c?sig=XX': no", "'https://a.b/c?...': no"),
            (
                "--store=https://a.b/c?sp=r&se=2",
                "--store=https://a.b/c?...",
            ),
            ("sftp://me:XX@nas:22/w?x", "sftp://me:...@nas:22/w?..."),
            ("ssh://me@nas/w", "ssh://me@nas/w"),
            (
                "d.vhd?sv=1&SIG=XX%2B/=: cannot open",
                "d.vhd?...: cannot open",
            ),
            ("folder/d.vhd?se=1&sp=r", "folder/d.vhd?..."),
            ("d.vhd%3Fsv%3D1%26sig%3DXX", "d.vhd%3F..."),
            ("a.vhd&sig=XX and b", "a.vhd&... and b"),
            ("sig=XX", "..."),
            (
                "AccountName=n;AccountKey=XX==;EndpointSuffix=s",
                "AccountName=n;...",
            ),
            ("SharedAccessSignature=sv=1&sig=XX", "..."),
            ("https://b.s3/k?X-Amz-Signature=XX", "https://b.s3/k?..."),
            (
                "\u{1b}[33mhttps://a/b?sig=XX\u{1b}[0m",
                "\u{1b}[33mhttps://a/b?...\u{1b}[0m",
            ),
            ("d.vhd?snapshot=1", "d.vhd?snapshot=1"),
            ("sp=3 se=4", "sp=3 se=4"),
            ("design=1", "design=1"),
            ("vhd hash --windows=x a", "vhd hash --windows=x a"),
        ] {
            assert_eq!(without_secrets(text), expected, "{text}");
            assert!(!without_secrets(text).contains("XX"), "{text}");
            assert_eq!(without_secrets(expected), expected, "left out twice");
        }
    }

    #[test]
    fn widths_count() {
        assert_eq!(
            format!("{:<6}|{:>4}|", shown("a\n"), shown("b")),
            "a\\n   |   b|"
        );
    }
}
