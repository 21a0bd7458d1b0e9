//! The primitives, with the types that age needs.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A key or other secret of 32 bytes, which is overwritten when it is dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// Length of an authentication tag.
pub(super) const TAG: usize = 16;

/// What a primitive reports of arguments that it can't work with; none of ours are such.
pub(super) fn impossible() -> Error {
    Error::usage("the cryptographic library refused to work")
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(&mut bytes[..]).map_err(|_| {
        Error::usage("the system has no random numbers")
            .with_hint("wait until the system has collected some, then run the command again")
    })?;
    Ok(bytes)
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA-256 with a result of 32 bytes.
pub(super) fn hkdf(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Secret> {
    let mut key = Secret::default();
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], Bytes32)
        .and_then(|made| made.fill(&mut key[..]))
        .map_err(|_| impossible())?;
    Ok(key)
}

/// ChaCha20-Poly1305 with one key.
pub(super) fn aead(key: &[u8; 32]) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| impossible())?;
    Ok(LessSafeKey::new(key))
}

/// Encrypts `bytes` in place, and returns the tag.
pub(super) fn seal(key: &LessSafeKey, nonce: [u8; 12], bytes: &mut [u8]) -> Result<[u8; TAG]> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::empty(), bytes)
        .map_err(|_| impossible())?;
    tag.as_ref().try_into().map_err(|_| impossible())
}

/// Decrypts `bytes`, which end with their tag, in place, and returns the text; `None` if they aren't authentic.
pub(super) fn open<'a>(
    key: &LessSafeKey,
    nonce: [u8; 12],
    bytes: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::empty(), bytes).ok()
}
