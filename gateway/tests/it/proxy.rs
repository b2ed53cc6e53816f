//! A link that can be broken in one direction: what the gateway sends arrives, what is answered does not.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wait::SOON;

/// A TCP proxy on a port of its own; gone when dropped.
pub struct Proxy {
    pub port: u16,
    answers: watch::Sender<bool>,
    cut: Arc<Notify>,
    made: watch::Receiver<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to_port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (answers, _) = watch::channel(true);
        let cut = Arc::new(Notify::new());
        let (passing, cutting) = (answers.clone(), Arc::clone(&cut));
        let (counted, made) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to_port)).await else { continue };
                let (passing, cutting) = (passing.subscribe(), Arc::clone(&cutting));
                counted.send_modify(|made| *made += 1);
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(near, far, passing) => {}
                        () = cutting.notified() => {}
                    }
                });
            }
        });
        Proxy { port, answers, cut, made, accepting }
    }

    /// Whether answers arrive; those that do not are lost.
    pub fn pass_answers(&self, pass: bool) {
        self.answers.send_replace(pass);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Ends all connections, and waits until one has been made anew.
    pub async fn cut_and_wait(&self) {
        let mut made = self.made.clone();
        made.borrow_and_update();
        self.cut();
        timeout(SOON, made.changed()).await.expect("connected anew in time").expect("it accepts");
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(near: TcpStream, far: TcpStream, passing: watch::Receiver<bool>) {
    let (mut near_reads, mut near_writes) = near.into_split();
    let (mut far_reads, mut far_writes) = far.into_split();
    let there = async {
        let _ = tokio::io::copy(&mut near_reads, &mut far_writes).await;
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = far_reads.read(&mut buffer).await {
            if *passing.borrow() && near_writes.write_all(&buffer[..len]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
