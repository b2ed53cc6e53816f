//! TLS towards a broker, by rustls: whom to believe, and how we prove ourselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::Tls;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is missing, or is not the PEM it should be.
    #[error("cannot read {what} from {}", file.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        file: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate that can be believed.
    #[error("{} holds no certificate that can be believed", file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
    },
    /// The system has no list of whom to believe.
    #[error("this system has no list of authorities (ca-certificates); name one with `tls.ca`")]
    NobodyToBelieve,
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("the certificate {} and its key cannot be used", certificate.display())]
    Certificate {
        /// Which certificate.
        certificate: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// What a connection is made with.
///
/// # Errors
/// Files that cannot be used.
pub fn client(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => {
            roots.add_parsable_certificates(certificates(file)?);
            if roots.is_empty() {
                return Err(Error::Empty { file: file.clone() });
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Error::NobodyToBelieve);
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("ring has both versions")
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let unreadable = |source| Error::File { what: "a key", file: key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
    let config = builder
        .with_client_auth_cert(certificates(certificate)?, key)
        .map_err(|source| Error::Certificate { certificate: certificate.clone(), source })?;
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |source| Error::File { what: "certificates", file: file.into(), source };
    CertificateDer::pem_file_iter(file).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)
}
