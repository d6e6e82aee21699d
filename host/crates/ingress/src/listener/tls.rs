//! The TLS certificate of a listener.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ServerConfig};

use modhost_config::environment::describe_read_error;
use modhost_config::{ConfigError, Environment, Tls};

/// The ALPN protocols in order of preference; the client chooses.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Reads the certificate and the key and checks that they match. The listener accepts TLS 1.2 and 1.3 with rustls's
/// cipher suites, all of which have forward secrecy and authenticated encryption.
///
/// # Errors
///
/// If a file can't be read or the key doesn't match the certificate. The message names the file, and the advice
/// describes the fix.
pub fn load(settings: &Tls, environment: &Environment) -> Result<Arc<ServerConfig>, ConfigError> {
    let wrong = |message: String| ConfigError::new(message).at(Some(settings.location.clone()));
    let file = settings.certificate.display();
    let chain =
        certificates(&settings.certificate, environment).map_err(|(message, advice)| wrong(message).advice(advice))?;
    let key = settings.key.resolve(environment)?;
    let key_name = settings.key.file().map_or("what `key` names".to_owned(), |file| file.display().to_string());
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| {
        wrong(format!("{key_name} holds no private key"))
            .advice("it has to be PEM, and not encrypted: -----BEGIN PRIVATE KEY-----")
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => wrong(format!("{key_name} is not the key of the certificate in {file}"))
                .advice("use a certificate and its key; in a file of several certificates, the host's own comes first"),
            Error::InvalidCertificate(why) => wrong(format!("the certificate in {file} can't be used: {why}"))
                .advice("request a new certificate, or name another file"),
            error => wrong(format!("{key_name} can't be used: {error}"))
                .advice("ECDSA (P-256, P-384), Ed25519 and RSA keys from 2048 bits are supported"),
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// Returns the certificates in a file; the error is a message and advice.
fn certificates(
    file: &Path,
    environment: &Environment,
) -> Result<Vec<CertificateDer<'static>>, (String, &'static str)> {
    const ADVICE: &str =
        "it has to be PEM: -----BEGIN CERTIFICATE-----, the host's own first, then the intermediate certificates";
    let shown = file.display();
    let text = environment.file(file).map_err(|error| match error.is_not_found() {
        true => (format!("there is no file {shown}"), "put the certificate there, or name its file"),
        false => {
            (format!("{shown} {}", describe_read_error(&error)), "fix the file or its permissions, or name another")
        }
    })?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err((format!("{shown} holds no certificate"), ADVICE)),
        Ok(chain) => Ok(chain),
        Err(error) => Err((format!("the certificate in {shown} can't be read: {error}"), ADVICE)),
    }
}
