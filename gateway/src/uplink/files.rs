//! The files that `[uplink]` names: credentials, certificates, keys.
//!
//! A running gateway reads them at every connect, and tries on if they are not right: they may be replaced meanwhile. Here they
//! are looked at for a person who has just written the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::{Config, Tls};
use super::nats;

/// Which file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Credentials that cannot be read, or are none.
    #[error("uplink.credentials_file: {} is no NATS credentials file that can be read", file.display())]
    Credentials {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A file is missing, or is not the PEM it should be.
    #[error("uplink.tls.{key}: cannot read {what} from {}", file.display())]
    Pem {
        /// The setting.
        key: &'static str,
        /// What was looked for.
        what: &'static str,
        /// Where.
        file: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("uplink.tls.{key}: {} holds no certificate", file.display())]
    Empty {
        /// The setting.
        key: &'static str,
        /// Which file.
        file: PathBuf,
    },
    /// Certificates that are none, or do not fit their key.
    #[error("uplink.tls.{key}: {} cannot be used", file.display())]
    Unusable {
        /// The setting.
        key: &'static str,
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// Reads the files that a connection would read.
///
/// # Errors
/// Names the setting and the file.
pub fn check(config: &Config) -> Result<(), Error> {
    if let Some(file) = &config.credentials_file {
        let wrong = |source| Error::Credentials { file: file.clone(), source };
        nats::read_credentials(&std::fs::read_to_string(file).map_err(wrong)?).map_err(wrong)?;
    }
    config.tls.as_ref().map_or(Ok(()), check_tls)
}

fn check_tls(tls: &Tls) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &tls.ca {
        for certificate in certificates("ca", file)? {
            let unusable = |source| Error::Unusable { key: "ca", file: file.clone(), source };
            roots.add(certificate).map_err(unusable)?;
        }
    }
    let (Some(certificate), Some(key_file)) = (&tls.certificate, &tls.key) else { return Ok(()) };
    let chain = certificates("certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| Error::Pem {
        key: "key",
        what: "a key",
        file: key_file.clone(),
        source,
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots);
    builder.with_client_auth_cert(chain, key).map(drop).map_err(|source| Error::Unusable {
        key: "certificate",
        file: certificate.clone(),
        source,
    })
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |source| Error::Pem { key, what: "certificates", file: file.into(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() { Err(Error::Empty { key, file: file.into() }) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// What is said of `[uplink]` with these settings, `DIR` standing for a folder with these files.
    fn said(settings: &str, files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let settings = settings.replace("DIR", folder.path().to_str().unwrap());
        let config: Config = toml::from_str(&settings).unwrap();
        check(&config).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_setting() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pem = CertificateParams::new(vec!["gw".to_owned()]).unwrap().self_signed(&one).unwrap().pem();
        let (key, wrong_key) = (one.serialize_pem(), other.serialize_pem());
        let pair = "tls.certificate = \"DIR/a.pem\"\ntls.key = \"DIR/a.key\"\ntls.ca = \"DIR/a.pem\"";
        let files = [("a.pem", pem.as_str()), ("a.key", key.as_str())];
        assert_eq!(said(pair, &files), "");
        let wrong = said(pair, &[files[0], ("a.key", &wrong_key)]);
        assert!(wrong.starts_with("uplink.tls.certificate: ") && wrong.contains("a.pem"), "{wrong}");
        let missing = said(pair, &files[..1]);
        assert!(missing.starts_with("uplink.tls.key: ") && missing.contains("a.key"), "{missing}");
        let empty = said("tls.ca = \"DIR/a.pem\"", &[("a.pem", "")]);
        assert!(empty.starts_with("uplink.tls.ca: ") && empty.contains("holds no certificate"), "{empty}");
        let credentials = "credentials_file = \"DIR/gw.creds\"";
        for files in [[].as_slice(), &[("gw.creds", "no credentials")]] {
            let said = said(credentials, files);
            assert!(said.starts_with("uplink.credentials_file: ") && said.contains("gw.creds"), "{said}");
        }
    }
}
