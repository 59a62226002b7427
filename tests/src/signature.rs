//! Standard Webhooks 1.0.0, section "Verifying webhook authenticity", by code of our own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The signature that `secret` (`whsec_…`) gives, as it stands in the header: `v1,…`.
///
/// # Panics
///
/// If `secret` is none.
pub fn sign(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = secret.strip_prefix("whsec_").expect("a secret begins with whsec_");
    let key = STANDARD.decode(key).expect("a secret is base64");
    assert!((24..=64).contains(&key.len()), "a secret has 24 to 64 bytes, not {}", key.len());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Which of the `secrets`, by index, signed this.
pub fn signers(secrets: &[String], header: &str, id: &str, timestamp: &str, body: &[u8]) -> Vec<usize> {
    let signed_by = |secret: &String| {
        let expected = sign(secret, id, timestamp, body);
        header.split(' ').any(|signature| signature == expected)
    };
    (0..secrets.len()).filter(|&i| signed_by(&secrets[i])).collect()
}

#[cfg(test)]
mod tests {
    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn the_published_example() {
        let header = super::sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
