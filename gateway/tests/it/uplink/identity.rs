//! Who the gateway is for the server, and the server for the gateway: users, passwords, certificates.

use tempfile::TempDir;
use weir_gateway::uplink::pacing::Kind;
use weir_gateway::uplink::{self, Config};

use super::SUBJECT;
use super::harness::{Gateway, config, folder};
use crate::nats::Nats;

const TWO_USERS: &str = r#"
    accounts {
        APP {
            jetstream: enabled
            users: [
                { user: all, password: all }
                { user: narrow, password: narrow, permissions: { publish: ["$JS.API.>"], subscribe: ["_INBOX.>"] } }
            ]
        }
    }
    no_auth_user: all
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_said_with_the_servers_words() {
    let nats = Nats::start_with(TWO_USERS).await;
    let folder = folder();
    let url = format!("nats://narrow:narrow@127.0.0.1:{}", nats.port());
    let gateway = Gateway::start(folder.path(), config(&url));
    gateway.take(1).await;
    let status = gateway.until_trouble(Kind::Denied).await;
    assert_eq!(status.delivered, 1);
    assert!(status.trouble.expect("trouble").text.contains(SUBJECT));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said() {
    let nats = Nats::start_with(TWO_USERS).await;
    let folder = folder();
    let url = format!("nats://narrow:wrong@127.0.0.1:{}", nats.port());
    let gateway = Gateway::start(folder.path(), config(&url));
    gateway.until_trouble(Kind::Denied).await;
    gateway.stop().await;
}

/// Certificates for a server and a gateway, each of an authority of its own, as PEM files.
struct Papers {
    folder: TempDir,
}

impl Papers {
    fn new() -> Papers {
        let papers = Papers { folder: folder() };
        for (authority, name) in [("servers", "localhost"), ("clients", "gw-1")] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new([]).expect("no names");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).expect("an authority");
            papers.write(&format!("{authority}-ca.pem"), &certificate.pem());
            let issuer = rcgen::Issuer::new(params, key);
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
            papers.write(
                &format!("{name}.pem"),
                &params.signed_by(&key, &issuer).expect("a certificate").pem(),
            );
            papers.write(&format!("{name}.key"), &key.serialize_pem());
        }
        papers
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("writing a file");
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_speaks_tls_shows_its_certificate_and_believes_only_the_right_server() {
    let papers = Papers::new();
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        papers.file("localhost.pem"),
        papers.file("localhost.key"),
        papers.file("clients-ca.pem")
    );
    let nats = Nats::start_with(&tls).await;
    let url = format!("tls://localhost:{}", nats.port());
    let with = |ca: &str, own: bool| {
        let own = |name: &str| own.then(|| papers.file(name));
        let tls =
            uplink::Tls { ca: Some(papers.file(ca)), certificate: own("gw-1.pem"), key: own("gw-1.key") };
        Config { tls: Some(tls), ..config(&url) }
    };
    let folder = folder();
    let gateway = Gateway::start(folder.path(), with("servers-ca.pem", true));
    gateway.take_all(1..=10).await;
    gateway.all_delivered().await;
    gateway.stop().await;

    for (wrong, says) in
        [(with("clients-ca.pem", true), "certificate"), (with("servers-ca.pem", false), "connect")]
    {
        let gateway = Gateway::start(folder.path(), wrong);
        gateway.take(11).await;
        let status = gateway.until_trouble(Kind::Unreachable).await;
        assert!(status.trouble.as_ref().expect("trouble").text.contains(says), "{status:?}");
        assert_eq!(status.delivered, 11);
        gateway.stop().await;
    }
}
