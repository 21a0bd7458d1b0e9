//! JSON output in which control characters in strings are escaped, and can be read back unchanged.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::text::{is_unseen, without_secrets};

/// Writes a document with one member per line.
pub(super) fn pretty(out: impl Write, value: &impl Serialize) -> io::Result<()> {
    let formatter = Safe(PrettyFormatter::new());
    Ok(value.serialize(&mut Serializer::with_formatter(out, formatter))?)
}

/// Writes a document on one line.
pub(super) fn compact(out: impl Write, value: &impl Serialize) -> io::Result<()> {
    let formatter = Safe(CompactFormatter);
    Ok(value.serialize(&mut Serializer::with_formatter(out, formatter))?)
}

/// A formatter that escapes more in strings: JSON itself requires it for the first 32 characters only.
struct Safe<F>(F);

impl<F: Formatter> Formatter for Safe<F> {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let text = without_secrets(text);
        let mut rest = &*text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unseen(*c)) {
            let (before, after) = rest.split_at(at);
            self.0.write_string_fragment(out, before)?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &after[c.len_utf8()..];
        }
        self.0.write_string_fragment(out, rest)
    }

    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn end_object_key<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_key(out)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_character_reads_back_and_none_is_raw() {
        let all: String = ('\0'..=char::MAX).collect();
        let value = BTreeMap::from([("text", vec![all.as_str(), ""]), (&all, Vec::new())]);
        let (mut long, mut short) = (Vec::new(), Vec::new());
        pretty(&mut long, &value).unwrap();
        compact(&mut short, &value).unwrap();
        for written in [long, short] {
            let text = String::from_utf8(written).unwrap();
            assert!(!text.contains(|c| is_unseen(c) && c != '\n'));
            let back: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
            assert_eq!(back["text"], [all.as_str(), ""]);
            assert!(back.contains_key(&all));
        }
    }

    #[test]
    fn the_form_is_the_usual_one() {
        let value = serde_json::json!({"a": [1, {"b": "\u{7f}x"}], "c": {}, "d": []});
        let mut written = Vec::new();
        pretty(&mut written, &value).unwrap();
        let usual = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            usual.replace('\u{7f}', "\\u007f")
        );
    }
}
