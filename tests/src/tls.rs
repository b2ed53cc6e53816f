//! Certificates made for one test: an authority, servers and devices.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Somebody's certificate and key as PEM files, with the authority that vouches for the other side.
#[derive(Clone, Debug)]
pub struct Paper {
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authority that signed it.
    pub authority: PathBuf,
}

/// A certificate authority that keeps its files in a folder.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, called `name`.
    pub fn new(folder: &Path, name: &str) -> Result<Authority> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(folder.join("ca.pem"), issuer.pem())?;
        Ok(Authority { folder, issuer })
    }

    /// Signs a certificate whose common name is `name`, good for servers at 127.0.0.1 and for clients.
    pub fn sign(&self, name: &str) -> Result<Paper> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let paper = Paper {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
            authority: self.folder.join("ca.pem"),
        };
        std::fs::write(&paper.certificate, certificate.pem())?;
        std::fs::write(&paper.key, key.serialize_pem())?;
        Ok(paper)
    }
}

/// How a client that trusts `authority` and shows `paper`, if it has one, does TLS.
pub fn client(authority: &Path, paper: Option<&Paper>) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match paper {
        None => builder.with_no_client_auth(),
        Some(paper) => builder.with_client_auth_cert(
            CertificateDer::pem_file_iter(&paper.certificate)?.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(&paper.key)?,
        )?,
    };
    Ok(Arc::new(config))
}
