//! Ed25519 keys, as the schemes that sign with a private key use them.
//!
//! The host needs the public key alone; with the private one it can sign in the platform's place.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// How many bytes a public key has, and the seed a private one is made of.
const HALF: usize = 32;

/// How many bytes a signature has.
pub(super) const SIGNATURE: usize = 64;

/// A public key, and the private one if it is known.
pub(super) struct Ed25519 {
    public: [u8; HALF],
    pair: Option<Ed25519KeyPair>,
}

impl Ed25519 {
    /// A public key of its 32 bytes.
    pub(super) fn public(bytes: &[u8]) -> Option<Self> {
        Some(Self { public: bytes.try_into().ok()?, pair: None })
    }

    /// A private key: its seed of 32 bytes; or 64, as NaCl writes it, the public key behind the seed.
    pub(super) fn private(bytes: &[u8]) -> Option<Self> {
        let pair = match bytes.split_at_checked(HALF)? {
            (seed, []) => Ed25519KeyPair::from_seed_unchecked(seed),
            (seed, public) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        };
        let pair = pair.ok()?;
        Some(Self { public: pair.public_key().as_ref().try_into().ok()?, pair: Some(pair) })
    }

    /// Whether this signature is of this message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(message, signature).is_ok()
    }

    /// The signature of a message; none without the private key.
    pub(super) fn sign(&self, message: &[u8]) -> Option<impl AsRef<[u8]> + use<>> {
        self.pair.as_ref().map(|pair| pair.sign(message))
    }
}
