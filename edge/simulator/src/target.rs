//! The gateway to connect to: address, password, certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rumqttc::{TlsConfiguration, Transport};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Which gateway, and as whom.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The gateway, as mqtt://HOST[:PORT] (port 1883) or mqtts://HOST[:PORT] (TLS, port 8883)
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883", value_parser = Address::parse)]
    pub gateway: Address,
    /// User name to connect with; {device} stands for the device's name
    #[arg(long, value_name = "NAME", requires = "password")]
    pub username: Option<String>,
    /// Password to connect with
    #[arg(long, value_name = "PASSWORD", requires = "username")]
    pub password: Option<String>,
    /// Certificates of the authorities that may vouch for the gateway, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate, in PEM; {device} stands for the device's name
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<String>,
    /// The client certificate's key, in PEM; {device} stands for the device's name
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<String>,
}

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or IP address (IPv6 in brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether to speak TLS.
    pub tls: bool,
}

impl Address {
    /// Reads `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) =
            url.split_once("://").ok_or("expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            other => return Err(format!("{other}:// is unknown; expected mqtt:// or mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is no port"))?)
            }
            _ => (rest, default_port),
        };
        if host.is_empty() || host.contains(['/', '@', '?']) {
            return Err(format!("{host:?} is no host; user name and password are options of their own"));
        }
        Ok(Self { host: host.into(), port, tls })
    }
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of certificates or a key cannot be read.
    #[error("cannot read {}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// There are no certificates in it.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The certificates do not fit.
    #[error("the certificates cannot be used")]
    Rustls(#[from] rustls::Error),
    /// TLS needs to know whom to trust.
    #[error("mqtts:// needs --ca FILE: the authorities that may vouch for the gateway")]
    NoAuthorities,
}

impl TargetArgs {
    /// User name and password of a device, if any are to be sent.
    pub fn login(&self, device: &str) -> Option<(String, String)> {
        let username = self.username.as_ref()?.replace("{device}", device);
        Some((username, self.password.clone().unwrap_or_default()))
    }

    /// How a device's connection is carried.
    ///
    /// # Errors
    /// [`Error`] names the file at fault.
    pub fn transport(&self, device: &str) -> Result<Transport, Error> {
        if !self.gateway.tls {
            return Ok(Transport::tcp());
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates(self.ca.as_deref().ok_or(Error::NoAuthorities)?)? {
            roots.add(certificate)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match self.cert.as_ref().zip(self.key.as_ref()) {
            Some((cert, key)) => {
                let path = PathBuf::from(key.replace("{device}", device));
                let key =
                    PrivateKeyDer::from_pem_file(&path).map_err(|source| Error::Pem { path, source })?;
                builder
                    .with_client_auth_cert(certificates(Path::new(&cert.replace("{device}", device)))?, key)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
    }

    /// Whether all devices share one transport.
    pub fn transport_is_shared(&self) -> bool {
        !self.cert.iter().chain(&self.key).any(|path| path.contains("{device}"))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let error = |source| Error::Pem { path: path.into(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate { path: path.into() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_scheme_host_and_port() {
        let parsed = |url| Address::parse(url).map(|address| (address.host, address.port, address.tls));
        assert_eq!(parsed("mqtt://127.0.0.1:2883"), Ok(("127.0.0.1".into(), 2883, false)));
        assert_eq!(parsed("mqtt://gateway.local"), Ok(("gateway.local".into(), 1883, false)));
        assert_eq!(parsed("mqtts://[::1]"), Ok(("[::1]".into(), 8883, true)));
        assert_eq!(parsed("mqtts://[::1]:1/"), Ok(("[::1]".into(), 1, true)));
        for bad in ["127.0.0.1:1883", "http://a", "mqtt://", "mqtt://a:b", "mqtt://a:70000", "mqtt://me:pw@a"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
