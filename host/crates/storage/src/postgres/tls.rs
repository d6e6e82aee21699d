//! TLS to the database, with verified certificates only.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::{PostgresSettings, STORE};
use crate::error::StorageError;

/// Returns the TLS connector of a database. The certificates of the system are read only if TLS may be used.
///
/// # Errors
///
/// [`StorageErrorKind::Unusable`](crate::error::StorageErrorKind::Unusable) if the CA certificates can't be read.
pub(super) fn connector(settings: &PostgresSettings) -> Result<MakeRustlsConnect, StorageError> {
    let unusable = |detail: String| StorageError::unusable(STORE, detail);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(format!("cannot set up TLS for PostgreSQL: {error}")))?;
    let config = match settings.root_certificates() {
        // Without TLS, no certificate is accepted.
        None if !settings.may_use_tls() => builder.with_root_certificates(RootCertStore::empty()),
        None => builder.with_platform_verifier().map_err(|error| {
            unusable(format!(
                "cannot read the CA certificates of the system, with which PostgreSQL's certificate is verified: {error}; \
                 install them (Debian: ca-certificates), or name a file with ?sslrootcert="
            ))
        })?,
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                unusable(format!("cannot read the CA certificates in {} (sslrootcert): {error}", path.display()))
            };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it contains none"));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}
