//! What is verified of a server's certificate. `tokio-postgres` knows three words of libpq's `sslmode`; the six of them are
//! read here.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// The authorities of Amazon RDS, which no system knows.
const RDS: &[u8] = include_bytes!("../rds.pem");

/// libpq's `sslmode`. See <https://www.postgresql.org/docs/current/libpq-ssl.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    /// `allow` and `prefer`: encrypt if the server can, verify nothing.
    Prefer,
    /// Encrypt, verify nothing.
    Require,
    /// Verify the chain, not the host name.
    VerifyCa,
    VerifyFull,
}

/// What verifies a server: by the authorities of the file `authority`, or by those of the system and, for an address that
/// AWS gives, of Amazon RDS.
///
/// # Errors
/// Why there is nothing to verify it with.
pub(super) fn client_config(mode: Mode, authority: Option<&Path>, is_of_rds: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if matches!(mode, Mode::Prefer | Mode::Require) {
        let verifier = Arc::new(Lenient { provider, chain: None });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match authority {
        Some(file) => {
            let unreadable = |error: rustls::pki_types::pem::Error| format!("{}: {error}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if is_of_rds {
                roots.add_parsable_certificates(CertificateDer::pem_slice_iter(RDS).flatten());
            }
        }
    }
    if roots.is_empty() {
        return Err("no certificate authority was found".into());
    }
    if mode == Mode::VerifyFull {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let verifier = Arc::new(Lenient { provider, chain: Some(chain) });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(mode: &str) -> Result<Self, String> {
        Ok(match mode {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(format!(
                    "sslmode {mode} is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        })
    }
}

/// Verifies less than everything, because the address says so: the chain but not the host name
/// (`verify-ca`), or nothing (`require`, `prefer`).
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_rds_are_all_readable() {
        assert!(client_config(Mode::VerifyFull, None, true).is_ok());
        let mut known = RootCertStore::empty();
        assert_eq!(known.add_parsable_certificates(CertificateDer::pem_slice_iter(RDS).flatten()), (81, 0));
    }
}
