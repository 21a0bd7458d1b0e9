//! The age format, version 1, for X25519 identities and passphrases: what the `age` program writes is read here, and the
//! other way round.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 EPHEMERAL SHARE          a stanza for each who can open the file: the file key, wrapped
//! WRAPPED FILE KEY
//! --- MAC                            of all before it, with a key that follows from the file key
//! 16 bytes                           salt of the key of the payload
//! 64 KiB + 16, ...                   ChaCha20-Poly1305 of each chunk; its number and whether it is the last are bound in
//! ```
//!
//! Nothing here reads or writes files: [`storage`](crate::storage) puts the chunks into them.

mod bech32;
mod chunks;
mod crypto;
mod header;
mod identity;
mod passphrase;
mod stanza;
mod text;

pub use chunks::ChunkKey;
pub use header::{LONGEST_HEADER, Opening, open_header, start};
pub use identity::{Identity, Recipient};
pub use passphrase::{Passphrase, WORK_FACTOR, open_small, seal_small};
