//! Who may do what: names, certificates, passwords, rights.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::*;

#[tokio::test]
async fn a_device_may_not_publish_as_another() {
    let gateway = Gateway::start("").await;
    let theirs = |payload: &[u8]| publish("weir/1/dev-2/events", 1, 1, payload);
    let mut v4 = Client::connect(gateway.address(), "dev-1").await;
    v4.send(&theirs(&uplink_payload(1))).await;
    assert!(v4.closed().await.is_empty(), "MQTT 3.1.1 has no word for it");
    let mut v5 = Client::connect_v5(gateway.address(), "dev-1").await;
    v5.send(&theirs(&[&[0], &uplink_payload(1)[..]].concat())).await;
    let (head, body) = v5.packet().await;
    assert_eq!((head, &body[..3]), (0x40, [0, 1, 0x87].as_slice()));
    // Nor on other topics, nor with QoS 0.
    v5.send(&publish("plant/pump", 1, 2, b"\0on")).await;
    assert_eq!(v5.packet().await.1[2], 0x87);
    v5.send(&publish("weir/1/dev-2/events", 0, 0, &[&[0], &uplink_payload(1)[..]].concat())).await;
    v5.send(&PINGREQ).await;
    v5.expect(&PINGRESP).await;
    assert!(gateway.stored().is_empty());
    assert_eq!(gateway.listeners.refusals().all().len(), 4);
}

#[tokio::test]
async fn a_device_may_not_listen_to_another() {
    let gateway = Gateway::start("").await;
    let mut client = Client::connect(gateway.address(), "dev-1").await;
    for (filter, code) in [
        ("weir/1/dev-2/commands", 0x80),
        ("weir/1/+/commands", 0x80),
        ("#", 0x80),
        ("weir/1/dev-1/commands", 1),
    ] {
        client.send(&subscribe(filter, 1)).await;
        client.expect(&suback(code)).await;
    }
}

#[tokio::test]
async fn the_configuration_gives_named_clients_more() {
    let toml =
        "[[client]]\nname = \"bridge\"\npublish = [\"weir/1/+/events\"]\nsubscribe = [\"weir/1/+/events\"]";
    let gateway = Gateway::start(toml).await;
    let mut bridge = Client::connect(gateway.address(), "bridge").await;
    bridge.publish_uplink("dev-2", 1, 1).await;
    bridge.expect(&puback(1)).await;
    assert_eq!(gateway.stored()[0].device, "dev-2");
}

/// A certificate authority, and files for a listener that believes it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: TempDir::new().unwrap() };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Files of a certificate for `common_name`, signed by this authority.
    fn certificate(&self, common_name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            self.write(&format!("{common_name}.pem"), &certificate.pem()),
            self.write(&format!("{common_name}.key"), &key.serialize_pem()),
        )
    }

    /// `[[listener]]` over TLS that looks at certificates of clients.
    fn listener(&self, require_client_certificate: bool) -> String {
        let ca = self.file("ca.pem");
        self.listener_with(&format!(
            ", client_ca = {ca:?}, require_client_certificate = {require_client_certificate}"
        ))
    }

    /// `[[listener]]` over TLS that asks clients nothing.
    fn open_listener(&self) -> String {
        self.listener_with("")
    }

    fn listener_with(&self, more: &str) -> String {
        let (certificate, key) = self.certificate("server");
        let tls = format!("certificate = {certificate:?}, key = {key:?}{more}");
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = {{ {tls} }}\n")
    }
}

const BOTH_VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A client over TLS that believes the authority in `ca`.
async fn tls(
    gateway: &Gateway,
    ca: &Path,
    certificate: Option<&(PathBuf, PathBuf)>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(gateway.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream =
        timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()?;
    Ok(Client { stream })
}

#[tokio::test]
async fn a_certificate_says_which_device_it_is() {
    let authority = Authority::new();
    let gateway = Gateway::with_spool(&authority.listener(true), |_| {}).await;
    let certificate = authority.certificate("dev-1");
    for (seq, version) in (1..).zip(BOTH_VERSIONS) {
        let mut client = tls(&gateway, &authority.file("ca.pem"), Some(&certificate), version).await.unwrap();
        // The client identifier is what it likes.
        client.send(&connect_v4("anything", 60, 0, &[])).await;
        client.expect(&CONNACK_V4).await;
        client.publish_uplink("dev-1", 1, seq).await;
        client.expect(&puback(1)).await;
        client.publish_uplink("anything", 2, seq).await;
        client.closed().await;
    }
    assert_eq!(gateway.stored().len(), 2);
    assert!(gateway.stored().iter().all(|stored| stored.device == "dev-1"));
}

#[tokio::test]
async fn without_the_right_certificate_nobody_gets_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let gateway = Gateway::with_spool(&authority.listener(true), |_| {}).await;
    let ca = authority.file("ca.pem");
    let wrong = stranger.certificate("dev-1");
    for certificate in [None, Some(&wrong)] {
        for version in BOTH_VERSIONS {
            // With TLS 1.3 a client learns of it only after its own part of the handshake.
            if let Ok(mut client) = tls(&gateway, &ca, certificate, version).await {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = client.stream.write_all(&connect_v4("dev-1", 60, 0, &[])).await;
                let read = timeout(DEADLINE, client.stream.read(&mut [0; 4])).await.unwrap();
                assert!(!matches!(read, Ok(1..)), "{read:?}");
            }
        }
    }
    // A client that does not believe this gateway does not come either.
    assert!(tls(&gateway, &stranger.file("ca.pem"), None, BOTH_VERSIONS[1]).await.is_err());
    let right = authority.certificate("dev-1");
    let mut client = tls(&gateway, &ca, Some(&right), BOTH_VERSIONS[1]).await.unwrap();
    client.send(&connect_v4("dev-1", 60, 0, &[])).await;
    client.expect(&CONNACK_V4).await;
}

#[tokio::test]
async fn who_shows_no_certificate_where_they_are_optional_has_to_log_in() {
    let authority = Authority::new();
    let passwords =
        authority.write("passwords", &format!("dev-1:{}", weir_gateway::mqtt::passwords::hash("secret")));
    let toml = format!("password_file = {passwords:?}\n{}", authority.listener(false));
    let gateway = Gateway::with_spool(&toml, |_| {}).await;
    let (ca, certificate) = (authority.file("ca.pem"), authority.certificate("dev-2"));
    let mut nobody = tls(&gateway, &ca, None, BOTH_VERSIONS[1]).await.unwrap();
    nobody.send(&connect_v4("dev-1", 60, 0, &[])).await;
    assert_eq!(nobody.closed().await, [0x20, 2, 0, 4]);
    let login = connect_v4("any", 60, 0xc0, &[string("dev-1"), string("secret")]);
    for (certificate, connect, device) in
        [(None, login, "dev-1"), (Some(&certificate), connect_v4("any", 60, 0, &[]), "dev-2")]
    {
        let mut client = tls(&gateway, &ca, certificate, BOTH_VERSIONS[1]).await.unwrap();
        client.send(&connect).await;
        client.expect(&CONNACK_V4).await;
        client.publish_uplink(device, 1, 1).await;
        client.expect(&puback(1)).await;
    }
}

#[tokio::test]
async fn one_silent_handshake_keeps_nobody_waiting_and_ends() {
    let authority = Authority::new();
    let toml = format!("handshake_timeout_ms = 500\n{}", authority.open_listener());
    let gateway = Gateway::with_spool(&toml, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Client::open(gateway.address()).await);
    }
    let mut client = tls(&gateway, &authority.file("ca.pem"), None, BOTH_VERSIONS[1]).await.unwrap();
    client.send(&connect_v4("dev-1", 60, 0, &[])).await;
    client.expect(&CONNACK_V4).await;
    for client in &mut silent {
        assert!(client.closed().await.is_empty());
    }
}

#[tokio::test]
async fn large_uplinks_and_many_acknowledgements_pass_through_tls() {
    let authority = Authority::new();
    let gateway = Gateway::with_spool(&authority.open_listener(), |_| {}).await;
    let mut client = tls(&gateway, &authority.file("ca.pem"), None, BOTH_VERSIONS[1]).await.unwrap();
    client.send(&connect_v4("dev-1", 60, 0, &[])).await;
    client.expect(&CONNACK_V4).await;
    let mut stream = Vec::new();
    for seq in 1..=500_u16 {
        stream.extend(publish("weir/1/dev-1/events", 1, seq, &uplink_payload(u32::from(seq))));
    }
    client.send(&stream).await;
    for seq in 1..=500 {
        client.expect(&puback(seq)).await;
    }
    assert_eq!(gateway.stored().len(), 500);
}

#[tokio::test]
async fn with_a_password_file_everybody_logs_in_and_is_who_the_name_says() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "dev-1:{}", weir_gateway::mqtt::passwords::hash("secret")).unwrap();
    let gateway = Gateway::start(&format!("password_file = {:?}", file.path())).await;
    let login = |name: &str, password: &str| connect_v4("any", 60, 0xc0, &[string(name), string(password)]);
    for connect in [login("dev-1", "wrong"), login("dev-2", "secret"), connect_v4("dev-1", 60, 0, &[])] {
        let mut client = Client::open(gateway.address()).await;
        client.send(&connect).await;
        assert_eq!(client.closed().await, [0x20, 2, 0, 4]);
    }
    let mut client = Client::open(gateway.address()).await;
    client.send(&login("dev-1", "secret")).await;
    client.expect(&CONNACK_V4).await;
    client.publish_uplink("dev-1", 1, 1).await;
    client.expect(&puback(1)).await;
    client.publish_uplink("any", 2, 1).await;
    client.closed().await;
}

#[tokio::test]
async fn a_flood_of_logins_does_not_stop_those_who_are_in() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "dev-1:{}", weir_gateway::mqtt::passwords::hash("secret")).unwrap();
    let gateway = Gateway::start(&format!("password_file = {:?}", file.path())).await;
    let mut client = Client::open(gateway.address()).await;
    client.send(&connect_v4("dev-1", 60, 0xc0, &[string("dev-1"), string("secret")])).await;
    client.expect(&CONNACK_V4).await;
    let mut flood = Vec::new();
    for index in 0..300 {
        let mut other = Client::open(gateway.address()).await;
        other.send(&connect_v4(&format!("c{index}"), 60, 0xc0, &[string("dev-1"), string("guess")])).await;
        flood.push(other);
    }
    let began = tokio::time::Instant::now();
    client.publish_uplink("dev-1", 1, 1).await;
    client.expect(&puback(1)).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_name_cannot_be_used_to_disconnect_another() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let hash = weir_gateway::mqtt::passwords::hash("secret");
    writeln!(file, "dev-1:{hash}\ndev-2:{hash}").unwrap();
    let gateway = Gateway::start(&format!("password_file = {:?}", file.path())).await;
    let mut clients = Vec::new();
    for name in ["dev-1", "dev-2"] {
        let mut client = Client::open(gateway.address()).await;
        client.send(&connect_v4("dev-1", 60, 0xc0, &[string(name), string("secret")])).await;
        client.expect(&CONNACK_V4).await;
        clients.push(client);
    }
    clients[0].send(&PINGREQ).await;
    clients[0].expect(&PINGRESP).await;
}

#[test]
fn files_that_cannot_be_read_are_found_out_before_the_start() {
    let missing = "/nowhere/server.pem";
    let toml = format!(
        "[[listener]]\naddress = \"127.0.0.1:8883\"\ntls = {{ certificate = {missing:?}, key = {missing:?} }}"
    );
    let error = weir_gateway::mqtt::check(&toml::from_str(&toml).unwrap()).unwrap_err();
    let causes = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(causes.contains("127.0.0.1:8883") && causes.contains(missing), "{causes}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "alice").unwrap();
    let config = toml::from_str(&format!("password_file = {:?}", file.path())).unwrap();
    let error = weir_gateway::mqtt::check(&config).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(":1: there is no `:`"), "{cause}");
}
