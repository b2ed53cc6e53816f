//! Carries requests between sockets and the router: few at a time, each for a short time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Connections at a time; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 16;
/// From accepting a connection to its end; a connection carries one request.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Request heads are short; the smallest buffer the parser takes.
const BUFFER_BYTES_MAX: usize = 8 * 1024;
/// Pause after a failed accept: the usual reason is a full table of open files, which only others can empty.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Takes the address and answers from now on.
    ///
    /// # Errors
    /// The address cannot be taken.
    pub async fn start(address: SocketAddr, router: Router) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Server { address, task: tokio::spawn(accept(listener, router)) })
    }

    /// The address really taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Why a request came to nothing is its sender's concern.
                    let _ = timeout(CONNECTION_TIME_MAX, serve(stream, router)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}
