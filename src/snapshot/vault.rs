//! Encrypted stores: the key of a store, who gives it, and what the files are encrypted with.
//!
//! ```text
//! vhdkit-store.json        version 3, and the public key: whether a given key fits is known before anything is read
//! vhdkit-store.key.age     the secret key, encrypted with the passphrase; not there if a key file has it
//! ```
//!
//! The storage layer encrypts whatever is in the folders of a store for which a key was found here, names as well as
//! contents. So everything else in this module works with encrypted stores as with others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::marked::{Encryption, KEY_FILE, KeyPlace, Marker, has_encrypted};
use super::plain::{is_absent, read_limited};
use crate::age::{
    ChunkKey, Identity, Passphrase, Recipient, open_header, open_small, seal_small, start,
};
use crate::error::{Error, Result};
use crate::remedy::{Choice, Remedy, Step, StoreJob};
use crate::storage::{
    AtomicFile, Audience, ChunkSeal, Overwrite, Seal, WriteAt as _, is_sealed, seal_store,
};

/// A longer file isn't one.
const LONGEST: u64 = 64 << 10;

/// What opens an encrypted store.
#[derive(Debug, Clone)]
pub enum StoreKey {
    /// The secret key itself: of a key file, or the recovery key.
    Identity(Identity),
    /// The passphrase.
    Passphrase(Passphrase),
}

/// An encrypted store that is to be opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeyRequest<'a> {
    /// The store.
    pub store: &'a Path,
    /// Whether it opens with a passphrase, besides its key.
    pub passphrase: bool,
    recipient: Recipient,
}

impl KeyRequest<'_> {
    /// Returns whether this is its key.
    pub fn fits(&self, identity: &Identity) -> bool {
        identity.recipient() == self.recipient
    }
}

/// Gives the keys that may open a store.
type KeySource = dyn Fn(&KeyRequest<'_>) -> Result<Vec<StoreKey>> + Send + Sync;

#[derive(Default)]
struct Keys {
    source: Option<Arc<KeySource>>,
    /// Those that have opened a store.
    known: Vec<Identity>,
    /// The stores in which no encrypted disk was found that their markers don't tell of: each is listed once, not for
    /// each of its disks.
    plain: BTreeSet<PathBuf>,
}

static KEYS: Mutex<Keys> = Mutex::new(Keys {
    source: None,
    known: Vec::new(),
    plain: BTreeSet::new(),
});

fn keys() -> MutexGuard<'static, Keys> {
    KEYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `source` asked for the key of each encrypted store that is opened in this process and whose key isn't known yet.
pub fn ask_for_keys(
    source: impl Fn(&KeyRequest<'_>) -> Result<Vec<StoreKey>> + Send + Sync + 'static,
) {
    keys().source = Some(Arc::new(source));
}

/// Lets this process open the stores of this key.
pub fn use_key(identity: Identity) {
    keys().known.push(identity);
}

/// Makes the files of the store at `store`, whose marker is this one, readable, if they are encrypted.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if no key was given, or none that fits.
pub(super) fn unlock(store: &Path, marker: &Marker) -> Result<()> {
    let Some(encryption) = &marker.encryption else {
        return refuse_stray_key(store);
    };
    if is_sealed(store) {
        return Ok(());
    }
    let recipient = encryption.recipient(store)?;
    let known = keys()
        .known
        .iter()
        .find(|known| known.recipient() == recipient)
        .cloned();
    let identity = match known {
        Some(identity) => identity,
        None => given(store, encryption, &recipient)?,
    };
    seal_store(store, Arc::new(AgeSeal::new(identity)));
    Ok(())
}

/// A store whose marker was replaced would get its next snapshots as they are.
fn refuse_stray_key(store: &Path) -> Result<()> {
    let (what, found) = if !is_absent(&key_path(store)) {
        ("there is a key", KEY_FILE.to_owned())
    } else if keys().plain.contains(store) {
        return Ok(());
    } else if let Some(disk) = hidden_disk(store)? {
        ("there is an encrypted disk", disk)
    } else {
        keys().plain.insert(store.to_path_buf());
        return Ok(());
    };
    Err(Error::damaged(format!(
        "the marker of this store doesn't say that it is encrypted, but {what}"
    ))
    .with_path(store)
    .with_found(&found)
    .with_hint(format!(
        "if the store is encrypted, its marker was replaced: take vhdkit-store.json from a copy of the store; if it isn't, move {found} away"
    )))
}

/// Returns the name of a folder in the store at `store` that is called as an encrypted store calls its disks, and has
/// an encrypted snapshot.
fn hidden_disk(store: &Path) -> Result<Option<String>> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(store);
    for entry in fs::read_dir(store).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else {
            continue;
        };
        let is_hidden = unbase32(&name).is_some_and(|bytes| bytes.len() >= TAG + PADDED);
        if is_hidden && has_encrypted(&store.join(&name)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn key_path(store: &Path) -> PathBuf {
    store.join(KEY_FILE)
}

/// The advice to give a key.
fn give(what: &'static str) -> Remedy {
    Remedy::new(what)
        .named(" with ")
        .step(Step::Choose(Choice::KeyFile), "")
}

/// The first of the keys that are given that fits.
fn given(store: &Path, encryption: &Encryption, recipient: &Recipient) -> Result<Identity> {
    let wants_passphrase = encryption.key == KeyPlace::Passphrase;
    let source = keys().source.clone();
    let nothing = || {
        Error::usage("this store is encrypted, and no key was given")
            .with_path(store)
            .with_remedy(if wants_passphrase {
                Remedy::new("give its passphrase")
                    .named(" with ")
                    .step(Step::Choose(Choice::PassphraseFile), "")
                    .then(give(", or its recovery key"))
            } else {
                give("give its key")
            })
    };
    let source = source.ok_or_else(nothing)?;
    let sealed = if wants_passphrase {
        read_key(store)?
    } else {
        None
    };
    let request = KeyRequest {
        store,
        passphrase: sealed.is_some(),
        recipient: *recipient,
    };
    let given = source(&request)?;
    let mut tried = None;
    for key in given {
        let identity = match (key, &sealed) {
            (StoreKey::Identity(identity), _) => {
                tried = tried.or(Some("the key"));
                identity
            }
            (StoreKey::Passphrase(passphrase), Some(sealed)) => {
                tried = Some("the passphrase");
                match unseal_key(store, sealed, &passphrase)? {
                    Some(identity) => identity,
                    None => continue,
                }
            }
            (StoreKey::Passphrase(_), None) => continue,
        };
        if identity.recipient() == *recipient {
            keys().known.push(identity.clone());
            return Ok(identity);
        }
    }
    match tried {
        Some("the passphrase") => Err(Error::usage("wrong passphrase")
            .with_path(store)
            .with_remedy(give(
                "type it again; if it is lost, the recovery key opens the store, from a file",
            ))),
        Some(_) => Err(Error::usage("this is not the key of this store")
            .with_path(store)
            .with_found("another key")
            .with_expected(format_args!("the key that belongs to {recipient}"))),
        None if wants_passphrase && sealed.is_none() => Err(no_key(store)),
        None => Err(nothing()),
    }
}

/// The error for a store that has lost its key.
fn no_key(store: &Path) -> Error {
    Error::damaged("the file with the key of this store is missing")
        .with_path(key_path(store))
        .with_remedy(
            give("take it from a copy of the store; or use the recovery key, from a file,")
                .text("; a passphrase can be set again: ")
                .step(
                    Step::Store {
                        job: StoreJob::Passphrase,
                        store: store.to_path_buf(),
                    },
                    "that writes the file again",
                ),
        )
}

fn read_key(store: &Path) -> Result<Option<Vec<u8>>> {
    let path = key_path(store);
    read_limited(&path, LONGEST, || {
        Error::damaged("the key of this store can't be read").with_path(&path)
    })
}

/// The key in its file; `None` if the passphrase is another one.
fn unseal_key(store: &Path, sealed: &[u8], passphrase: &Passphrase) -> Result<Option<Identity>> {
    let path = key_path(store);
    let damaged = |error: Error| {
        Error::new(
            error.kind(),
            "the file with the key of this store is damaged",
        )
        .with_path(&path)
        .with_source(error)
        .with_remedy(give(
            "take it from a copy of the store; or use the recovery key, from a file,",
        ))
    };
    let Some(text) = open_small(sealed, passphrase).map_err(damaged)? else {
        return Ok(None);
    };
    let text = Zeroizing::new(String::from_utf8_lossy(&text).into_owned());
    Identity::from_text(&text)
        .map(Some)
        .map_err(|_| damaged(Error::damaged("it doesn't contain a key")))
}

/// Writes the key of a store, encrypted with a passphrase.
pub(super) fn write_key(
    store: &Path,
    identity: &Identity,
    (passphrase, work_factor): (&Passphrase, u8),
    (overwrite, audience): (Overwrite, Audience),
) -> Result<()> {
    let text = Zeroizing::new(format!("{}\n", *identity.secret_text()));
    let sealed = seal_small(text.as_bytes(), passphrase, work_factor)?;
    let file = AtomicFile::for_audience(key_path(store), audience)?;
    file.file().write_all_at(&sealed, 0)?;
    file.publish(overwrite)
}

/// The key of an encrypted store, which is opened if it wasn't.
fn identity_of(store: &Path, encryption: &Encryption) -> Result<Identity> {
    let recipient = encryption.recipient(store)?;
    let known = keys()
        .known
        .iter()
        .find(|known| known.recipient() == recipient)
        .cloned();
    known.map_or_else(|| given(store, encryption, &recipient), Ok)
}

/// The key that is in the store at `store`, whose marker is lost.
pub(super) fn kept_key(store: &Path, passphrase: &Passphrase) -> Result<Identity> {
    let sealed = read_key(store)?.ok_or_else(|| no_key(store))?;
    unseal_key(store, &sealed, passphrase)?.ok_or_else(|| {
        Error::usage("this was an encrypted store, and this is not its passphrase")
            .with_path(store)
            .with_remedy(give("give the one that it had, or its recovery key"))
    })
}

/// Fails unless this is the key of the encrypted files in the folder at `store`.
pub(super) fn check_opens(store: &Path, identity: &Identity) -> Result<()> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(store);
    let seal = AgeSeal::new(identity.clone());
    let mut others = 0_u32;
    for entry in std::fs::read_dir(store).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|_| entry.path().is_dir()) else {
            continue;
        };
        if seal.reveal("", name).is_some() {
            return Ok(());
        }
        others += u32::from(unbase32(name).is_some_and(|bytes| bytes.len() > TAG));
    }
    if others == 0 {
        return Ok(());
    }
    Err(
        Error::usage("this was an encrypted store, and this is not its key")
            .with_path(store)
            .with_remedy(give("give the key that it had, or its passphrase")),
    )
}

/// Gives an encrypted store another passphrase. What is stored stays as it is, and so does the recovery key.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if the store isn't encrypted, or no key was given that opens it.
pub fn change_passphrase(store: &Path, new: &Passphrase, work_factor: u8) -> Result<()> {
    let (mut marker, encryption) = encrypted(store)?;
    let identity = identity_of(store, &encryption)?;
    let path = key_path(store);
    let audience = if is_absent(&path) {
        Audience::nobody_else()
    } else {
        Audience::of([path])?
    };
    write_key(
        store,
        &identity,
        (new, work_factor),
        (Overwrite::Yes, audience),
    )?;
    if encryption.key == KeyPlace::File {
        marker.encryption = Some(Encryption {
            key: KeyPlace::Passphrase,
            ..encryption
        });
        marker.replace(store)?;
    }
    Ok(())
}

/// The marker of a store that must be encrypted, and what it says of that.
fn encrypted(store: &Path) -> Result<(Marker, Encryption)> {
    let marker = Marker::read(store)?;
    if let Some(marker) = marker
        && let Some(encryption) = marker.encryption.clone()
    {
        return Ok((marker, encryption));
    }
    Err(Error::usage("this is not an encrypted store").with_path(store))
}

/// Opens the store at `store`, asking for its key before anything is changed, if it is encrypted.
pub fn open_for_passphrase(store: &Path) -> Result<()> {
    let (_, encryption) = encrypted(store)?;
    identity_of(store, &encryption).map(drop)
}

/// The age format for the files of one store, and names that follow from its key.
struct AgeSeal {
    identity: Identity,
    recipient: Recipient,
    tags: Zeroizing<[u8; 32]>,
    texts: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for AgeSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AgeSeal").field(&self.recipient).finish()
    }
}

/// Length of the tag in a hidden name.
const TAG: usize = 16;

/// Names are padded to a multiple of this, so that their lengths tell little.
const PADDED: usize = 16;

impl AgeSeal {
    fn new(identity: Identity) -> Self {
        Self {
            recipient: identity.recipient(),
            tags: identity.derived("vhdkit store, version 3: tags of names"),
            texts: identity.derived("vhdkit store, version 3: texts of names"),
            identity,
        }
    }

    /// The tag of a padded name, which stands for the name: equal ones are equal, and nothing follows from others.
    fn tag(&self, within: &str, padded: &[u8]) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.tags);
        hasher.update(within.as_bytes());
        hasher.update(&[0]);
        hasher.update(padded);
        let mut tag = [0; TAG];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }

    /// Encrypts and decrypts.
    fn mask(&self, tag: &[u8], text: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.texts);
        hasher.update(tag);
        let mut stream = vec![0; text.len()];
        hasher.finalize_xof().fill(&mut stream);
        for (byte, mask) in text.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

impl Seal for AgeSeal {
    fn start(&self) -> Result<(Vec<u8>, Arc<dyn ChunkSeal>)> {
        let (head, key) = start(&self.recipient)?;
        Ok((head, Arc::new(Chunks(key))))
    }

    fn open(&self, head: &[u8]) -> Result<(usize, Arc<dyn ChunkSeal>)> {
        let opening = open_header(head, &self.identity)?;
        Ok((opening.len, Arc::new(Chunks(opening.key))))
    }

    fn hide(&self, within: &str, name: &str) -> String {
        let mut text = name.as_bytes().to_vec();
        text.resize(name.len().next_multiple_of(PADDED), 0);
        let tag = self.tag(within, &text);
        self.mask(&tag, &mut text);
        base32(&[&tag[..], &text].concat())
    }

    fn reveal(&self, within: &str, hidden: &str) -> Option<String> {
        let bytes = unbase32(hidden)?;
        let (tag, text) = bytes.split_at_checked(TAG)?;
        let mut text = text.to_vec();
        self.mask(tag, &mut text);
        if self.tag(within, &text) != *tag {
            return None;
        }
        let len = text.iter().rposition(|byte| *byte != 0)? + 1;
        text.truncate(len);
        let name = String::from_utf8(text).ok()?;
        (self.hide(within, &name) == hidden).then_some(name)
    }
}

struct Chunks(ChunkKey);

impl ChunkSeal for Chunks {
    fn seal(&self, n: u64, last: bool, chunk: &mut [u8]) -> Result<[u8; ChunkKey::TAG]> {
        self.0.seal(n, last, chunk)
    }

    fn open<'a>(&self, n: u64, last: bool, stored: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open(n, last, stored)
    }
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Base32 of RFC 4648, in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    for five in bytes.chunks(5) {
        let bits = five
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let bits = bits << (8 * (5 - five.len()));
        for n in 0..(five.len() * 8).div_ceil(5) {
            let index = usize::try_from(bits >> (35 - 5 * n) & 31).unwrap_or(0);
            text.extend(BASE32.get(index).map(|c| char::from(*c)));
        }
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut have) = (0_u32, 0);
    for c in text.bytes() {
        let value = BASE32.iter().position(|known| *known == c)?;
        bits = (bits << 5 | u32::try_from(value).ok()?) & 0xfff;
        have += 5;
        if have >= 8 {
            have -= 8;
            bytes.push(u8::try_from(bits >> have & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hidden_and_come_back() {
        let seal = AgeSeal::new(Identity::random().unwrap());
        let long = "a".repeat(80);
        for name in ["a", "web", "2026-11-29T06.00.00", "exactly-16-bytes", &long] {
            let hidden = seal.hide("web", name);
            assert!(hidden.len() <= 180, "{}", hidden.len());
            assert!(hidden.bytes().all(|c| c.is_ascii_alphanumeric()));
            assert!(!hidden.contains(name) || name.len() == 1);
            assert_eq!(hidden, seal.hide("web", name));
            assert_ne!(hidden, seal.hide("", name));
            assert_eq!(seal.reveal("web", &hidden).as_deref(), Some(name));
            assert_eq!(seal.reveal("", &hidden), None);
            for at in 0..hidden.len() {
                let mut other = hidden.clone().into_bytes();
                other[at] = if other[at] == b'a' { b'b' } else { b'a' };
                let other = String::from_utf8(other).unwrap();
                assert_eq!(seal.reveal("web", &other), None, "{at}");
            }
            let other = AgeSeal::new(Identity::random().unwrap());
            assert_eq!(other.reveal("web", &hidden), None);
        }
        assert_eq!(seal.hide("", "a").len(), seal.hide("", "abcdefgh").len());
        for name in ["", "web", "a1", "mon-1"] {
            assert_eq!(seal.reveal("", name), None);
        }
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        assert_eq!(unbase32("mzxw6ytboi").as_deref(), Some(&b"foobar"[..]));
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let identity = Identity::random().unwrap();
        let text = identity.secret_text();
        let seal = AgeSeal::new(identity.clone());
        let key = StoreKey::Identity(identity);
        let shown = format!("{seal:?} {key:?}");
        assert!(!shown.contains(&text[20..30]), "{shown}");
        assert!(shown.contains("age1"), "{shown}");
    }
}
