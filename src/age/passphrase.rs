//! Small files for a passphrase, such as a key.

use std::fmt;

use zeroize::Zeroizing;

use super::crypto::{self, Secret, TAG};
use super::header::{Header, opening, write};
use super::stanza::{FILE_KEY, FileKey, Stanza};
use super::text;
use crate::error::{Error, Result};

/// The work of trying a passphrase in new files, as age has it: 2 to this power, which takes 256 MiB and about a second.
/// Files that ask for more aren't read.
pub const WORK_FACTOR: u8 = 18;

/// The largest payload here: one chunk.
const LARGEST: usize = 64 << 10;

const LABEL: &[u8] = b"age-encryption.org/v1/scrypt";

/// A passphrase. It isn't shown, and is overwritten when it is dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Passphrase {
    /// Takes it from a text; a line end after it isn't part of it.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) if it is empty or has several lines.
    pub fn new(text: &str) -> Result<Self> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(Error::usage("the passphrase is empty"));
        }
        if line.contains('\n') {
            return Err(Error::usage("the passphrase has several lines").with_expected("one line"));
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }

    /// Returns whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn key(&self, salt: &[u8], work_factor: u8) -> Result<Secret> {
        let params = scrypt::Params::new(work_factor, 8, 1)
            .map_err(|e| Error::usage("scrypt refused to work").with_source(e))?;
        let mut key = Secret::default();
        let salt = [LABEL, salt].concat();
        scrypt::scrypt(self.0.as_bytes(), &salt, &params, &mut key[..])
            .map_err(|e| Error::usage("scrypt refused to work").with_source(e))?;
        Ok(key)
    }
}

/// A file with `plain` in it that opens with the passphrase. It takes 2 to the power of `work_factor`, usually
/// [`WORK_FACTOR`], to try one.
pub fn seal_small(plain: &[u8], passphrase: &Passphrase, work_factor: u8) -> Result<Vec<u8>> {
    if plain.len() > LARGEST {
        return Err(Error::usage("this is too long for one chunk"));
    }
    let file_key: FileKey = crypto::random()?;
    let salt = crypto::random::<16>()?;
    let key = passphrase.key(&salt[..], work_factor)?;
    let mut body = file_key.to_vec();
    let tag = crypto::seal(&crypto::aead(&key)?, [0; 12], &mut body)?;
    body.extend(tag);
    let stanza = Stanza {
        args: vec![
            "scrypt".to_owned(),
            text::encode(&salt[..]),
            work_factor.to_string(),
        ],
        body,
    };
    let (mut bytes, key) = write(&file_key, &[stanza])?;
    let mut payload = Zeroizing::new(plain.to_vec());
    let tag = key.seal(0, true, &mut payload[..])?;
    bytes.extend_from_slice(&payload);
    bytes.extend(tag);
    Ok(bytes)
}

/// What is in a file that [`seal_small`], or the program, made for a passphrase; `None` if the passphrase is another one.
///
/// # Errors
///
/// [`Damaged`](crate::ErrorKind::Damaged) if it isn't such a file or was changed, and
/// [`Unsupported`](crate::ErrorKind::Unsupported) if it asks for more work than [`WORK_FACTOR`].
pub fn open_small(bytes: &[u8], passphrase: &Passphrase) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let wrong = |what: &'static str| {
        Error::damaged("this is not a file that opens with a passphrase").with_found(what)
    };
    let header = Header::parse(bytes)?;
    // Such a stanza is never beside others: whoever can open the file shall be sure who made it.
    let [stanza] = &header.stanzas[..] else {
        return Err(wrong("a file for several recipients"));
    };
    let [kind, salt, factor] = &stanza.args[..] else {
        return Err(wrong("a file for a key"));
    };
    if kind != "scrypt" {
        return Err(wrong("a file for a key"));
    }
    let salt = text::decode(salt).filter(|salt| salt.len() == 16);
    let factor = factor
        .parse::<u8>()
        .ok()
        .filter(|n| (1..64).contains(n) && n.to_string() == *factor);
    let (Some(salt), Some(factor)) = (salt, factor) else {
        return Err(wrong("a stanza that isn't one of age").with_field("scrypt"));
    };
    if factor > WORK_FACTOR {
        return Err(
            Error::unsupported("trying a passphrase on this file takes too much work")
                .with_field("scrypt")
                .with_found(factor)
                .with_expected(format_args!("at most {WORK_FACTOR}")),
        );
    }
    let mut body = Zeroizing::new(stanza.body.clone());
    if body.len() != FILE_KEY + TAG {
        return Err(wrong("a stanza that isn't one of age").with_field("scrypt"));
    }
    let key = crypto::aead(&*passphrase.key(&salt, factor)?)?;
    let Some(file_key) = crypto::open(&key, [0; 12], &mut body[..]) else {
        return Ok(None);
    };
    let file_key = <[u8; FILE_KEY]>::try_from(&*file_key).map_err(|_| wrong("another key"))?;
    let opening = opening(bytes, &header, &Zeroizing::new(file_key))?;
    let mut payload = Zeroizing::new(bytes.get(opening.len..).unwrap_or_default().to_vec());
    if payload.len() > LARGEST + TAG {
        return Err(wrong("a longer file"));
    }
    let plain = opening
        .key
        .open(0, true, &mut payload[..])
        .ok_or_else(|| Error::damaged("this encrypted file was changed"))?;
    Ok(Some(Zeroizing::new(plain.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(text: &str) -> Passphrase {
        Passphrase::new(text).unwrap()
    }

    #[test]
    fn it_opens_with_its_passphrase_only() {
        let sealed = seal_small(b"a key", &pass("right\n"), 4).unwrap();
        let opened = open_small(&sealed, &pass("right")).unwrap();
        assert_eq!(opened.as_deref().map(|v| &v[..]), Some(&b"a key"[..]));
        assert!(open_small(&sealed, &pass("wrong")).unwrap().is_none());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(
                !matches!(open_small(&bad, &pass("right")), Ok(Some(_))),
                "{at}"
            );
            assert!(
                !matches!(open_small(&sealed[..at], &pass("right")), Ok(Some(_))),
                "{at}"
            );
        }
    }

    #[test]
    fn nobody_is_made_to_work_for_minutes() {
        let sealed = seal_small(b"a key", &pass("x"), 4).unwrap();
        let text = String::from_utf8_lossy(&sealed[..100]).into_owned();
        let line = text.lines().nth(1).unwrap().to_owned();
        let salt = line.split(' ').nth(2).unwrap();
        for factor in [
            "19", "22", "30", "63", "64", "0", "04", "+4", "255", "1000", "x",
        ] {
            let other = format!("-> scrypt {salt} {factor}");
            let at = sealed
                .windows(line.len())
                .position(|w| w == line.as_bytes());
            let at = at.unwrap();
            let bad = [&sealed[..at], other.as_bytes(), &sealed[at + line.len()..]].concat();
            let error = open_small(&bad, &pass("x")).unwrap_err().to_string();
            assert!(
                error.contains("work") || error.contains("stanza"),
                "{error}"
            );
        }
        for bad in ["", "\n", "a\nb"] {
            assert!(Passphrase::new(bad).is_err());
        }
        assert_eq!(format!("{:?}", pass("hidden")), "Passphrase(..)");
    }
}
