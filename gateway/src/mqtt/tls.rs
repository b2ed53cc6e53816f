//! TLS 1.2 and 1.3 by rustls: how a listener proves itself, and who a client's certificate says it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::config::Tls;

/// Why a listener cannot have TLS.
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
    /// There is no certificate in the file.
    #[error("{} holds no certificate", file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
    },
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("the certificate {} and its key cannot be used", certificate.display())]
    Certificate {
        /// Which certificate.
        certificate: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// `client_ca` cannot be used.
    #[error("the client CA {} cannot be used", file.display())]
    ClientCa {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
    /// `require_client_certificate` without `client_ca`.
    #[error("`require_client_certificate` needs a `client_ca`")]
    NobodyToBelieve,
    /// `client_ca` without anything that makes clients prove who they are.
    #[error(
        "`client_ca` alone proves nothing: a client without a certificate would be believed to be any device. \
         Set `require_client_certificate = true`, or `mqtt.password_file` for those that have none"
    )]
    NobodyHasToProveAnything,
}

/// Makes a listener's acceptor of its configuration. `asks_passwords` says whether who shows no certificate has to log in.
pub(super) fn acceptor(tls: &Tls, asks_passwords: bool) -> Result<TlsAcceptor, Error> {
    if tls.client_ca.is_some() && !tls.require_client_certificate && !asks_passwords {
        return Err(Error::NobodyHasToProveAnything);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("ring has both versions");
    let builder = match &tls.client_ca {
        None if tls.require_client_certificate => return Err(Error::NobodyToBelieve),
        None => builder.with_no_client_auth(),
        Some(file) => {
            let refused = |source| Error::ClientCa { file: file.clone(), source };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|_| refused(VerifierBuilderError::NoRootAnchors))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if tls.require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(refused)?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|source| Error::File {
        what: "a key",
        file: tls.key.clone(),
        source,
    })?;
    let config = builder
        .with_single_cert(certificates(&tls.certificate)?, key)
        .map_err(|source| Error::Certificate { certificate: tls.certificate.clone(), source })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |source| Error::File { what: "certificates", file: file.into(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() { Err(Error::Empty { file: file.into() }) } else { Ok(certificates) }
}

/// The common name (CN) of a certificate's subject, if it has exactly one.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    common_name_of_subject(certificate.subject()).map(str::to_owned)
}

/// Walks `SEQUENCE OF SET OF SEQUENCE { OID, value }` (X.501), without the outermost tag and length.
fn common_name_of_subject(mut subject: &[u8]) -> Option<&str> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OID: u8 = 0x06;
    const UTF8_STRING: u8 = 0x0c;
    const PRINTABLE_STRING: u8 = 0x13;
    const IA5_STRING: u8 = 0x16;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03]; // 2.5.4.3
    let mut found = None;
    while !subject.is_empty() {
        let mut set = expect(&mut subject, SET)?;
        while !set.is_empty() {
            let mut attribute = expect(&mut set, SEQUENCE)?;
            let is_common_name = expect(&mut attribute, OID)? == COMMON_NAME;
            let (tag, value) = element(&mut attribute)?;
            if !is_common_name {
                continue;
            }
            // Two names are two answers to who it is: none then.
            if found.is_some() || !matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
                return None;
            }
            found = Some(std::str::from_utf8(value).ok()?);
        }
    }
    found
}

fn expect<'a>(bytes: &mut &'a [u8], expected: u8) -> Option<&'a [u8]> {
    element(bytes).filter(|(tag, _)| *tag == expected).map(|(_, value)| value)
}

/// Takes one element of DER off the front: its tag and its value.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some((tag, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_common_name_is_found_among_other_names() {
        let names =
            [(DnType::CountryName, "DE"), (DnType::CommonName, "dev-1"), (DnType::OrganizationName, "Weir")];
        assert_eq!(common_name(&certificate(&names)).as_deref(), Some("dev-1"));
        assert_eq!(common_name(&certificate(&names[..1])), None);
        assert_eq!(common_name(&CertificateDer::from(vec![0x30, 0])), None);
    }

    #[test]
    fn a_long_name_is_read_whole() {
        let name = "x".repeat(300);
        assert_eq!(common_name(&certificate(&[(DnType::CommonName, &name)])), Some(name));
    }

    proptest! {
        #[test]
        fn a_strange_subject_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            common_name_of_subject(&bytes);
        }
    }
}
