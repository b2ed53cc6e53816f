//! A nats-server of our own. Stopped and started again it keeps its port and its files.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct Nats {
    folder: TempDir,
    port: Option<u16>,
    child: Option<Child>,
}

impl Nats {
    pub async fn start() -> Nats {
        let mut nats = Nats { folder: tempfile::tempdir().expect("a folder"), port: None, child: None };
        nats.start_again().await;
        nats
    }

    /// A port on which nothing listens yet.
    pub fn absent() -> Nats {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        Nats { folder: tempfile::tempdir().expect("a folder"), port: Some(port), child: None }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.expect("it was started"))
    }

    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let port = self.port.map_or("-1".to_owned(), |port| port.to_string());
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a file");
        let child = Command::new(program())
            .args(["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir"])
            .arg(self.store())
            .arg("--ports_file_dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        let ports = self.folder.path().join(format!("nats-server_{}.ports", child.id()));
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        let url = loop {
            let told = std::fs::read(&ports).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(told) = told {
                let told: serde_json::Value = told;
                break told["nats"][0].as_str().expect("an address").to_owned();
            }
            assert!(Instant::now() < deadline, "nats-server does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    }

    /// SIGTERM: it writes what it has.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            assert!(stopped.expect("kill runs").success());
            child.wait().expect("it ends");
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it ends");
        }
    }

    /// Copies its files, while it is stopped.
    pub fn back_up(&self) -> TempDir {
        assert!(self.child.is_none(), "it is running");
        let backup = tempfile::tempdir().expect("a folder");
        copy(&self.store(), backup.path());
        backup
    }

    /// Puts a copy in place of its files, while it is stopped.
    pub fn restore(&self, backup: &TempDir) {
        assert!(self.child.is_none(), "it is running");
        std::fs::remove_dir_all(self.store()).expect("its files");
        copy(backup.path(), &self.store());
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(format!("{}/.", from.display())).arg(ensured(to)).status();
    assert!(copied.expect("cp runs").success());
}

fn ensured(folder: &Path) -> &Path {
    std::fs::create_dir_all(folder).expect("a folder");
    folder
}

/// `$NATS_SERVER`, else what the project's setup has found or fetched.
fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("NATS_SERVER") {
        return given.into();
    }
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace");
    let setup = root.join("tests/setup.sh");
    let done = Command::new(&setup).output().expect("the setup runs");
    assert!(done.status.success(), "{}: {}", setup.display(), String::from_utf8_lossy(&done.stderr));
    root.join(".tools/bin/nats-server")
}
