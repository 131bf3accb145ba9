//! By what a coordinator proves that it is the right one.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::ClientError;
use crate::credentials::SpkiPin;

/// By what the coordinator proves that it is the right one.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Its certificate chains to one of these CA certificates, in PEM.
    CaPem(String),
    /// Its certificate chains to the CA whose public key has this fingerprint, which it must present.
    SpkiPin(SpkiPin),
    /// Its certificate chains to a CA that this computer trusts.
    System,
}

/// Where the pin verifier leaves the CA that it accepted.
pub(super) type SeenCa = Arc<Mutex<Option<CertificateDer<'static>>>>;

/// TLS settings for a trust; none for [`Trust::System`], which is the HTTP client's own business.
pub(super) fn tls_config(
    trust: &Trust,
    seen: &SeenCa,
) -> Result<Option<ClientConfig>, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Certificate(error.to_string()))?;
    let mut config = match trust {
        Trust::System => {
            // The HTTP client takes the process's provider then; whoever installed one first wins.
            if CryptoProvider::get_default().is_none() {
                drop(ring::default_provider().install_default());
            }
            return Ok(None);
        }
        Trust::CaPem(pem) => {
            builder.with_root_certificates(roots_of_pem(pem)?).with_no_client_auth()
        }
        Trust::SpkiPin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier {
                pin: *pin,
                provider,
                seen: Arc::clone(seen),
            }))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(config))
}

fn roots_of_pem(pem: &str) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate =
            certificate.map_err(|error| ClientError::Certificate(error.to_string()))?;
        roots.add(certificate).map_err(|error| ClientError::Certificate(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(ClientError::Certificate("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// A certificate as PEM.
pub(super) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let text = STANDARD.encode(certificate);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Accepts a chain that ends in a CA with the pinned key, when everything else about it is right too.
#[derive(Debug)]
struct PinVerifier {
    pin: SpkiPin,
    provider: Arc<CryptoProvider>,
    seen: SeenCa,
}

impl PinVerifier {
    /// Whether the certificate is a CA's and holds the pinned key.
    fn has_pin(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        parsed.is_ca() && SpkiPin(Sha256::digest(parsed.public_key().raw).into()) == self.pin
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let ca = intermediates
            .iter()
            .find(|certificate| self.has_pin(certificate))
            .ok_or(CertificateError::ApplicationVerificationFailure)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        // The pinned CA as the only root: signatures, names, purpose and validity are webpki's to check.
        let verified = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| TlsError::General(error.to_string()))?
        .verify_server_cert(leaf, intermediates, server_name, ocsp_response, now)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
