//! Signatures: prove to a webhook's receiver that a request is genuine and new. HMAC-SHA256 over id, timestamp and
//! body, by the specification "Standard Webhooks", for which many languages have libraries.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

/// The prefix of a secret that is a key in base64.
const ENCODED: &str = "whsec_";

/// The shared key.
pub struct Key(SecretSlice<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// `None`: it begins with `whsec_`, and the rest is not base64.
    pub fn of(secret: &SecretString) -> Option<Self> {
        let secret = secret.expose_secret();
        let key = match secret.strip_prefix(ENCODED) {
            Some(encoded) => BASE64_STANDARD.decode(encoded).ok()?,
            None => secret.as_bytes().to_vec(),
        };
        Some(Self(key.into()))
    }

    /// The value of the header `webhook-signature`.
    #[allow(clippy::expect_used, reason = "a fact about the library: HMAC takes keys of any length")]
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("a key of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body.as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's example.
    #[test]
    fn signs_as_the_specification_does() {
        let key = Key::of(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("base64");
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{key:?}"), "Key");
    }

    #[test]
    fn any_text_is_a_key_but_for_a_prefix_without_base64() {
        let key = |text: &str| Key::of(&SecretString::from(text));
        let signature = |text: &str| key(text).map(|key| key.sign("i", 1, "b"));
        assert_eq!(signature("plain"), signature("whsec_cGxhaW4="));
        assert_ne!(signature("plain"), signature("other"));
        assert!(key("whsec_not base64").is_none());
    }
}
