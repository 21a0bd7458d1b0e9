//! The header: who can open the file, and that nobody changed it.

use ring::hmac;
use zeroize::Zeroizing;

use super::chunks::ChunkKey;
use super::crypto;
use super::identity::{Identity, Recipient};
use super::stanza::{FileKey, Stanza};
use super::text::{self, COLUMNS};
use crate::error::{Error, Result};

const VERSION: &str = "age-encryption.org/v1";

/// A longer header, with the salt of the payload after it, isn't read: it has dozens of recipients.
pub const LONGEST_HEADER: usize = 16 << 10;

/// Length of the salt.
const SALT: usize = 16;

/// What the header of a file says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) stanzas: Vec<Stanza>,
    /// What the MAC is of.
    covered: Vec<u8>,
    mac: Vec<u8>,
    /// Its length, with the line of the MAC.
    len: usize,
}

/// How a file is read.
#[derive(Debug)]
pub struct Opening {
    /// Length of everything before the first chunk.
    pub len: usize,
    /// Opens the chunks.
    pub key: ChunkKey,
}

fn not_age(what: &'static str) -> Error {
    Error::damaged("this is not an encrypted file as age writes it").with_found(what)
}

impl Header {
    /// Reads a header at the beginning of `bytes`, which may be cut off after [`LONGEST_HEADER`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut at = 0;
        let mut stanzas: Vec<Stanza> = Vec::new();
        if line(bytes, &mut at)? != VERSION {
            return Err(not_age("another first line").with_expected(VERSION));
        }
        loop {
            let start = at;
            let head = line(bytes, &mut at)?;
            if let Some(mac) = head.strip_prefix("---") {
                let mac = mac.strip_prefix(' ').and_then(text::decode);
                let mac = mac.filter(|mac| mac.len() == 32);
                let covered = bytes.get(..start + 3).unwrap_or_default().to_vec();
                return match mac {
                    Some(mac) if !stanzas.is_empty() => Ok(Self {
                        stanzas,
                        covered,
                        mac,
                        len: at,
                    }),
                    _ => Err(not_age("a header that doesn't end as one")),
                };
            }
            let args = head
                .strip_prefix("-> ")
                .ok_or_else(|| not_age("a line in the header that isn't of a stanza"))?;
            let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
            let good = |arg: &String| !arg.is_empty() && arg.bytes().all(|c| c.is_ascii_graphic());
            if !args.iter().all(good) {
                return Err(not_age("a stanza with impossible arguments"));
            }
            let mut body = Vec::new();
            loop {
                let part = line(bytes, &mut at)?;
                let decoded = text::decode(part).filter(|_| part.len() <= COLUMNS);
                body.extend(decoded.ok_or_else(|| not_age("a stanza that isn't Base64"))?);
                if part.len() < COLUMNS {
                    break;
                }
            }
            stanzas.push(Stanza { args, body });
        }
    }

    /// Fails unless whoever knew the file key wrote this header.
    pub(super) fn check(&self, file_key: &FileKey) -> Result<()> {
        hmac::verify(&mac_key(file_key)?, &self.covered, &self.mac).map_err(|_| {
            Error::damaged("the header of this encrypted file was changed").with_field("MAC")
        })
    }
}

/// The line at `at`, which moves behind it.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a str> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let rest = rest
        .get(..LONGEST_HEADER.saturating_sub(*at))
        .unwrap_or(rest);
    let Some(len) = rest.iter().position(|byte| *byte == b'\n') else {
        return Err(not_age(if bytes.len() < LONGEST_HEADER {
            "a header that is cut off"
        } else {
            "a header that is too long"
        }));
    };
    *at += len + 1;
    let line = rest
        .get(..len)
        .and_then(|line| std::str::from_utf8(line).ok());
    line.ok_or_else(|| not_age("a header that isn't text"))
}

fn mac_key(file_key: &FileKey) -> Result<hmac::Key> {
    let key = crypto::hkdf(&[], &file_key[..], b"header")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key[..]))
}

/// Everything before the first chunk of a new file with these stanzas.
pub(super) fn write(file_key: &FileKey, stanzas: &[Stanza]) -> Result<(Vec<u8>, ChunkKey)> {
    let mut head = format!("{VERSION}\n");
    for stanza in stanzas {
        stanza.encode(&mut head);
    }
    head.push_str("---");
    let mac = hmac::sign(&mac_key(file_key)?, head.as_bytes());
    head.push(' ');
    head.push_str(&text::encode(mac.as_ref()));
    head.push('\n');
    let salt = crypto::random::<SALT>()?;
    let key = ChunkKey::new(&file_key[..], &salt)?;
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&salt[..]);
    Ok((bytes, key))
}

/// How the payload after a header at the beginning of `bytes` is read.
pub(super) fn opening(bytes: &[u8], header: &Header, file_key: &FileKey) -> Result<Opening> {
    header.check(file_key)?;
    let salt = bytes
        .get(header.len..)
        .and_then(<[u8]>::first_chunk::<SALT>);
    let salt = salt.ok_or_else(|| not_age("a file that ends after its header"))?;
    Ok(Opening {
        len: header.len + SALT,
        key: ChunkKey::new(&file_key[..], salt)?,
    })
}

/// Begins a new file for `recipient`: everything before its first chunk, and the key of its chunks.
pub fn start(recipient: &Recipient) -> Result<(Vec<u8>, ChunkKey)> {
    let file_key = Zeroizing::new(*crypto::random()?);
    write(&file_key, &[recipient.wrap(&file_key)?])
}

/// Reads the header at the beginning of `bytes`: at most [`LONGEST_HEADER`] of the file are needed.
///
/// # Errors
///
/// [`Damaged`](crate::ErrorKind::Damaged) if it isn't a header, was changed, or is for another identity.
pub fn open_header(bytes: &[u8], identity: &Identity) -> Result<Opening> {
    let header = Header::parse(bytes)?;
    for stanza in &header.stanzas {
        if let Some(file_key) = identity.unwrap(stanza)? {
            return opening(bytes, &header, &file_key);
        }
    }
    Err(Error::damaged("this file is encrypted for another key")
        .with_expected(format_args!("a file for {}", identity.recipient())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_opens_for_its_recipient_as_it_was_written() {
        let identity = Identity::random().unwrap();
        let (bytes, key) = start(&identity.recipient()).unwrap();
        let opening = open_header(&bytes, &identity).unwrap();
        assert_eq!(opening.len, bytes.len());
        let mut chunk = *b"what is in it...";
        let tag = key.seal(0, true, &mut chunk).unwrap();
        let mut sealed = [&chunk[..], &tag].concat();
        assert!(opening.key.open(0, true, &mut sealed).is_some());
        let other = Identity::random().unwrap();
        let error = open_header(&bytes, &other).unwrap_err().to_string();
        assert!(error.contains("another key"), "{error}");
    }

    #[test]
    fn every_changed_byte_and_every_length_is_refused() {
        let identity = Identity::random().unwrap();
        let (bytes, _) = start(&identity.recipient()).unwrap();
        for len in 0..bytes.len() {
            assert!(open_header(&bytes[..len], &identity).is_err(), "{len}");
        }
        // The salt has no check of its own: another one gives another key.
        for at in 0..bytes.len() - SALT {
            for change in [1, 0x20, 0x80] {
                let mut bad = bytes.clone();
                bad[at] ^= change;
                assert!(open_header(&bad, &identity).is_err(), "{at}");
            }
        }
        assert!(open_header(&vec![b'x'; 1 << 20], &identity).is_err());
        let endless = format!("{VERSION}\n{}", "-> a\n\n".repeat(1 << 16));
        let error = open_header(endless.as_bytes(), &identity).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn long_bodies_come_back() {
        for len in [0, 1, 47, 48, 49, 96, 100] {
            let stanza = Stanza {
                args: vec!["a".to_owned(), "b".to_owned()],
                body: vec![3; len],
            };
            let file_key = Zeroizing::new([9; 16]);
            let (bytes, _) = write(&file_key, std::slice::from_ref(&stanza)).unwrap();
            let header = Header::parse(&bytes).unwrap();
            assert_eq!(header.stanzas, [stanza]);
            header.check(&file_key).unwrap();
        }
    }
}
