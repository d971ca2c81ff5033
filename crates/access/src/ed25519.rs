//! The one kind of signature that tokens have, for `jsonwebtoken`: Ed25519 (RFC 8032). Its own sets of algorithms bring
//! RSA and the NIST curves along.

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signature, SignatureError, Signer, SigningKey, Verifier, VerifyingKey};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};

/// Makes it the only kind in this process. To be called before `jsonwebtoken` signs or verifies anything.
pub(crate) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, key| Ok(Box::new(Ed25519Signer::new(key)?)),
        verifier_factory: |_, key| Ok(Box::new(Ed25519Verifier::new(key)?)),
        key_utils: KeyUtils::new_unimplemented(),
    };
    // an error says that it is installed already
    let _ = PROVIDER.install_default();
}

struct Ed25519Signer(SigningKey);

impl Ed25519Signer {
    fn new(key: &EncodingKey) -> Result<Self, jsonwebtoken::errors::Error> {
        let key = SigningKey::from_pkcs8_der(key.as_bytes()).ok().filter(|_| key.family() == AlgorithmFamily::Ed);
        key.map(Self).ok_or_else(|| new_error(ErrorKind::InvalidEddsaKey))
    }
}

impl Signer<Vec<u8>> for Ed25519Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.try_sign(message)?.to_vec())
    }
}

impl JwtSigner for Ed25519Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct Ed25519Verifier(VerifyingKey);

impl Ed25519Verifier {
    fn new(key: &DecodingKey) -> Result<Self, jsonwebtoken::errors::Error> {
        let bytes = key.try_get_as_bytes()?.try_into().ok().filter(|_| key.family() == AlgorithmFamily::Ed);
        let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(bytes).ok());
        key.map(Self).ok_or_else(|| new_error(ErrorKind::InvalidEddsaKey))
    }
}

impl Verifier<Vec<u8>> for Ed25519Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        self.0.verify(message, &Signature::from_slice(signature)?)
    }
}

impl JwtVerifier for Ed25519Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
