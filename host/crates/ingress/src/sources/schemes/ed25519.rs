//! Ed25519 keys for schemes that sign with a private key.
//!
//! The host needs only the public key to verify; with the private key it can sign test events.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Length of a public key, and of the seed of a private key, in bytes.
const HALF: usize = 32;

/// Length of a signature in bytes.
pub(super) const SIGNATURE: usize = 64;

/// A public key, with the private key if available.
pub(super) struct Ed25519 {
    public: [u8; HALF],
    pair: Option<Ed25519KeyPair>,
}

impl Ed25519 {
    /// Creates a public key from its 32 bytes.
    pub(super) fn public(bytes: &[u8]) -> Option<Self> {
        Some(Self { public: bytes.try_into().ok()?, pair: None })
    }

    /// Creates a private key from its seed of 32 bytes, or from 64 bytes as in NaCl: the seed followed by the public
    /// key.
    pub(super) fn private(bytes: &[u8]) -> Option<Self> {
        let pair = match bytes.split_at_checked(HALF)? {
            (seed, []) => Ed25519KeyPair::from_seed_unchecked(seed),
            (seed, public) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        };
        let pair = pair.ok()?;
        Some(Self { public: pair.public_key().as_ref().try_into().ok()?, pair: Some(pair) })
    }

    /// Returns whether the signature matches the message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(message, signature).is_ok()
    }

    /// Signs a message; `None` without the private key.
    pub(super) fn sign(&self, message: &[u8]) -> Option<impl AsRef<[u8]> + use<>> {
        self.pair.as_ref().map(|pair| pair.sign(message))
    }
}
