//! X25519 keys: the secret one that opens files, and the public one that they are made for.

use std::fmt;
use std::str::FromStr;

use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::{Zeroize as _, Zeroizing};

use super::bech32;
use super::crypto::{self, Secret};
use super::stanza::{FILE_KEY, FileKey, Stanza};
use super::text;
use crate::error::{Error, Result};

const SECRET: &str = "age-secret-key-";
const PUBLIC: &str = "age";
const INFO: &[u8] = b"age-encryption.org/v1/X25519";

/// A secret key. It isn't shown unless that is asked for, and is overwritten when it is dropped.
#[derive(Clone)]
pub struct Identity(Secret);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// A new one, at random.
    pub fn random() -> Result<Self> {
        crypto::random().map(Self)
    }

    /// Reads the text of an identity file as `age-keygen` writes it: one line with the key, and comments.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage), without anything of the text.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let wrong = |found: &str| {
            Error::usage("this is not a key")
                .with_found(found.to_owned())
                .with_expected("one line that begins with AGE-SECRET-KEY-1, as age-keygen writes it, and comments")
        };
        let line = lines.next().ok_or_else(|| wrong("no key"))?;
        if lines.next().is_some() {
            return Err(wrong("several lines"));
        }
        let mut bytes = bech32::decode(SECRET, line).ok_or_else(|| {
            wrong(if line.starts_with("AGE-SECRET-KEY-1") {
                "a key with a typing error"
            } else {
                "another text"
            })
        })?;
        let key = <[u8; 32]>::try_from(&bytes[..]);
        bytes.zeroize();
        key.map(|key| Self(Zeroizing::new(key)))
            .map_err(|_| wrong("a key of another length"))
    }

    /// The key as text: `AGE-SECRET-KEY-1...`. For whoever has to keep it, and nobody else.
    pub fn secret_text(&self) -> Zeroizing<String> {
        let lower = Zeroizing::new(bech32::encode(SECRET, &self.0[..]));
        Zeroizing::new(lower.to_ascii_uppercase())
    }

    /// The public key.
    pub fn recipient(&self) -> Recipient {
        Recipient(x25519(*self.0, X25519_BASEPOINT_BYTES))
    }

    /// A key for another purpose that follows from this one: nothing of this one, or of those for other purposes, can be
    /// computed from it.
    pub fn derived(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose, &self.0[..]))
    }

    /// The file key in a stanza for this identity; `None` if it is for somebody else.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::ErrorKind::Damaged) if it can't be one of age.
    pub(super) fn unwrap(&self, stanza: &Stanza) -> Result<Option<FileKey>> {
        let wrong =
            || Error::damaged("a stanza of this file is not one of age").with_field("X25519");
        let [kind, share] = &stanza.args[..] else {
            return if stanza.is("X25519") {
                Err(wrong())
            } else {
                Ok(None)
            };
        };
        if kind != "X25519" {
            return Ok(None);
        }
        let share: [u8; 32] = text::decode(share)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(wrong)?;
        let mut body = Zeroizing::new(stanza.body.clone());
        if body.len() != FILE_KEY + crypto::TAG {
            return Err(wrong());
        }
        let key =
            wrapping_key(&self.0, &share, (&share, &self.recipient().0))?.ok_or_else(wrong)?;
        let opened = crypto::open(&crypto::aead(&key)?, [0; 12], &mut body[..]);
        Ok(opened.and_then(|file_key| {
            Some(Zeroizing::new(<[u8; FILE_KEY]>::try_from(&*file_key).ok()?))
        }))
    }
}

/// A public key: files are made for it, and it opens none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// A stanza with a file key for this recipient.
    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza> {
        let secret = crypto::random::<32>()?;
        let share = x25519(*secret, X25519_BASEPOINT_BYTES);
        let key = wrapping_key(&secret, &self.0, (&share, &self.0))?
            .ok_or_else(|| Error::usage("this public key can't be used"))?;
        let mut body = file_key.to_vec();
        let tag = crypto::seal(&crypto::aead(&key)?, [0; 12], &mut body)?;
        body.extend(tag);
        Ok(Stanza {
            args: vec!["X25519".to_owned(), text::encode(&share)],
            body,
        })
    }
}

/// The key that wraps a file key, of a secret and a public key; `None` if the public one is of those that give the same
/// with every secret.
fn wrapping_key(
    secret: &Secret,
    public: &[u8; 32],
    (share, recipient): (&[u8; 32], &[u8; 32]),
) -> Result<Option<Secret>> {
    let shared = Zeroizing::new(x25519(**secret, *public));
    if shared.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let salt = [*share, *recipient].concat();
    crypto::hkdf(&salt, &shared[..], INFO).map(Some)
}

/// `age1...`
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(PUBLIC, &self.0))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Recipient {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        bech32::decode(PUBLIC, text)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::damaged("this is not a public key of age")
                    .with_expected("age1 and 58 more characters")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_shown() {
        let identity = Identity::random().unwrap();
        let text = identity.secret_text();
        assert!(text.starts_with("AGE-SECRET-KEY-1"));
        let file = format!("# created: today\n# public key: x\n{}\n\n", *text);
        let again = Identity::from_text(&file).unwrap();
        assert_eq!(again.recipient(), identity.recipient());
        let public = identity.recipient().to_string();
        assert_eq!(public.parse::<Recipient>().unwrap(), identity.recipient());
        assert!(!format!("{identity:?}").contains(&text[16..20]));
        let mut typo = text.to_string();
        typo.replace_range(20..21, if &typo[20..21] == "Q" { "P" } else { "Q" });
        for bad in [
            "",
            "# nothing",
            "x",
            &typo,
            &public,
            &format!("{0}\n{0}", *text),
        ] {
            let error = Identity::from_text(bad).unwrap_err().to_string();
            assert!(error.contains("not a key"), "{error}");
            assert!(bad.len() < 20 || !error.contains(&bad[20..]), "{error}");
        }
        assert!("age1x".parse::<Recipient>().is_err());
        assert_ne!(*identity.derived("a"), *identity.derived("b"));
    }
}
