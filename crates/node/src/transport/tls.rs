//! TLS 1.3 where a certificate is nothing but a public key (RFC 7250 raw public keys, RFC 8410 ed25519).
//!
//! Both sides show a key and sign the handshake with it. The client accepts exactly the key it dialled; the server
//! accepts any key and reports it: who may do what is decided above the transport. No resumption, no early data, no
//! server name, one signature scheme, one key exchange (X25519).

use super::{ALPN, Identity, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use std::sync::{Arc, OnceLock};

/// SubjectPublicKeyInfo of an ed25519 key up to the key itself (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PKCS #8 of an ed25519 seed up to the seed itself (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// One machine's TLS settings, made once.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        Self::showing(identity.id(), identity)
    }

    /// Shows the key `shown` and signs with `identity`; only tests make them differ.
    fn showing(shown: NodeId, identity: &Identity) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let secret = [&PKCS8_PREFIX[..], &identity.secret().to_bytes()].concat();
        let signer = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(secret))?;
        let public = [&SPKI_PREFIX[..], &shown.0].concat();
        let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signer));

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(AnyKey(provider.signature_verification_algorithms)))
            .with_cert_resolver(Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(key.clone())));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { provider, key, server: Arc::new(server) })
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Settings for dialling `expected`, and the place where the key that the server showed is noted.
    pub(super) fn client(&self, expected: NodeId) -> Result<(Arc<ClientConfig>, Arc<OnceLock<NodeId>>), Error> {
        let seen = Arc::new(OnceLock::new());
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = ExpectedKey { expected, seen: seen.clone(), algorithms };
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous() // rustls's word for a verifier of one's own
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(
                self.key.clone(),
            )));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = rustls::client::Resumption::disabled();
        Ok((Arc::new(client), seen))
    }
}

/// AES first where the processor has instructions for it, else ChaCha20; the client's order decides.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let (aes, chacha) =
        (ring::cipher_suite::TLS13_AES_128_GCM_SHA256, ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
    provider.cipher_suites = if has_aes() { vec![aes, chacha] } else { vec![chacha, aes] };
    provider.kx_groups = vec![ring::kx_group::X25519];
    provider
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The key inside a raw-public-key certificate.
pub(super) fn key_of(certificate: &[u8]) -> Option<NodeId> {
    certificate.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(NodeId)
}

fn only_key(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<NodeId, Error> {
    let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
    key_of(certificate).filter(|_| others.is_empty()).ok_or(bad)
}

#[derive(Debug)]
struct ExpectedKey {
    expected: NodeId,
    seen: Arc<OnceLock<NodeId>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ExpectedKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = only_key(certificate, others)?;
        let _ = self.seen.set(shown);
        if shown == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_with(&self.algorithms, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        only_key(certificate, others).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_with(&self.0, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn verify_with(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon));
    }
    verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(certificate.as_ref()),
        signature,
        algorithms,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    fn identity(seed: u8) -> Identity {
        Identity::from_secret(&[seed; 32])
    }

    /// A whole handshake in memory; what each side believes about the other, or the first error.
    fn handshake(server: &Tls, client: &Tls, expected: NodeId) -> Result<(NodeId, NodeId), Error> {
        let (config, seen) = client.client(expected)?;
        let mut server = ServerConnection::new(server.server())?;
        let mut client = ClientConnection::new(config, ServerName::try_from("littoral").unwrap())?;
        while server.is_handshaking() || client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            while !wire.is_empty() {
                let count = server.read_tls(&mut &wire[..]).unwrap();
                wire.drain(..count);
                server.process_new_packets()?;
            }
            server.write_tls(&mut wire).unwrap();
            while !wire.is_empty() {
                let count = client.read_tls(&mut &wire[..]).unwrap();
                wire.drain(..count);
                client.process_new_packets()?;
            }
        }
        let dialler = server.peer_certificates().and_then(|shown| key_of(&shown[0]));
        Ok((*seen.get().unwrap(), dialler.unwrap()))
    }

    #[test]
    fn each_side_learns_the_other_key() {
        let (server, client) = (identity(1), identity(2));
        let learnt = handshake(&Tls::new(&server).unwrap(), &Tls::new(&client).unwrap(), server.id());
        assert_eq!(learnt.unwrap(), (server.id(), client.id()));
    }

    /// Showing somebody else's public key is easy; the signature is what counts, on both sides.
    #[test]
    fn a_borrowed_public_key_is_not_enough() {
        let (server, client, victim) = (identity(1), identity(2), identity(3).id());
        let (honest_server, honest_client) = (Tls::new(&server).unwrap(), Tls::new(&client).unwrap());
        let lying_server = Tls::showing(victim, &server).unwrap();
        let lying_client = Tls::showing(victim, &client).unwrap();
        let bad = Err(Error::InvalidCertificate(CertificateError::BadSignature));
        assert_eq!(handshake(&lying_server, &honest_client, victim), bad);
        assert_eq!(handshake(&honest_server, &lying_client, server.id()), bad);
    }

    #[test]
    fn a_dialler_without_a_key_or_with_another_protocol_is_refused() {
        let server = Tls::new(&identity(1)).unwrap();
        let mut keyless = Tls::new(&identity(2)).unwrap();
        let (config, _) = keyless.client(identity(1).id()).unwrap();
        let mut other = (*config).clone();
        other.alpn_protocols = vec![b"h2".to_vec()];
        let mut wire = Vec::new();
        let name = ServerName::try_from("littoral").unwrap();
        ClientConnection::new(Arc::new(other), name).unwrap().write_tls(&mut wire).unwrap();
        let mut session = ServerConnection::new(server.server()).unwrap();
        session.read_tls(&mut &wire[..]).unwrap();
        assert_eq!(session.process_new_packets().unwrap_err(), Error::NoApplicationProtocol);

        keyless.key = Arc::new(CertifiedKey::new(Vec::new(), keyless.key.key.clone()));
        assert!(handshake(&server, &keyless, identity(1).id()).is_err());
    }
}
