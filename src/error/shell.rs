//! Arguments as a shell reads them: for commands in hints.

use std::borrow::Cow;
use std::ffi::OsStr;

use crate::text::{is_unseen, without_secrets};

/// Quotes `text`, a path or another argument, as a single word for a shell: for commands in hints. Control characters
/// and invalid UTF-8 are escaped as bash and zsh understand it.
///
/// A signature in it isn't repeated: it is replaced by `*`, so that the shell finds the file by the rest of its name.
pub fn quoted(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref();
    if let Some(Cow::Owned(shown)) = text.to_str().map(without_secrets)
        && let Some(rest) = shown.strip_suffix("...")
        && text.to_str() != Some(&shown)
    {
        return format!("{}*", quoted(rest));
    }
    let bytes = text.as_encoded_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+:,@%".contains(byte);
    // An argument that begins with `-` would be taken for an option.
    let folder = if bytes.starts_with(b"-") { "./" } else { "" };
    match text.to_str() {
        Some(text) if !text.is_empty() && bytes.iter().all(plain) => format!("{folder}{text}"),
        Some(text) if !text.contains(is_unseen) => {
            format!("'{folder}{}'", text.replace('\'', r"'\''"))
        }
        _ => format!("$'{folder}{}'", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_hints_can_be_pasted() {
        for (text, word) in [
            ("disk.vhd", "disk.vhd"),
            ("/srv/a_b-1.vhd", "/srv/a_b-1.vhd"),
            ("", "''"),
            ("my disk.vhd", "'my disk.vhd'"),
            ("$(rm -rf x).vhd", "'$(rm -rf x).vhd'"),
            ("it's", r"'it'\''s'"),
            ("-rf", "./-rf"),
            ("-r f", "'./-r f'"),
            ("~x", "'~x'"),
            ("größe", "'größe'"),
            ("a\nb'\u{1b}", r"$'a\nb\'\x1b'"),
            ("a\u{202e}b", r"$'a\xe2\x80\xaeb'"),
            ("\u{85}", r"$'\xc2\x85'"),
        ] {
            assert_eq!(quoted(text), word);
            let command = format!("printf %s {word}");
            let shell = std::process::Command::new("bash")
                .args(["-c", &command])
                .output();
            if let Ok(out) = shell {
                let back = String::from_utf8(out.stdout).unwrap();
                assert_eq!(back.strip_prefix("./").unwrap_or(&back), text);
            }
        }
    }
}
