//! Who a machine is: an ed25519 key. The public half is its name, the secret half stays in memory only.

pub use littoral_wire::NodeId;
use std::fmt;

/// The secret key of this machine. `Debug` shows the public half only.
#[derive(Clone)]
pub struct Identity {
    secret: iroh::SecretKey,
}

impl Identity {
    /// `secret` is the 32-byte ed25519 seed (RFC 8032).
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self { secret: iroh::SecretKey::from_bytes(secret) }
    }

    pub fn id(&self) -> NodeId {
        NodeId(*self.secret.public().as_bytes())
    }

    pub(super) fn secret(&self) -> &iroh::SecretKey {
        &self.secret
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn public_half_of_the_rfc_key() {
        let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse::<NodeId>().unwrap().0;
        let identity = Identity::from_secret(&secret);
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(identity.id().to_string(), public);
        assert!(!format!("{identity:?}").contains("9d61b1"), "the secret must not be shown");
    }

    #[test]
    fn one_spelling_only() {
        let id = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert!(id.parse::<NodeId>().is_ok());
        for wrong in [&id[1..], &id.to_uppercase(), &format!("0x{}", &id[2..]), ""] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong}");
        }
    }
}
