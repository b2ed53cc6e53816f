//! Carries requests between sockets and the router, with a limit and a time-out on everything.
//!
//! - At most `connections_max` connections; further ones wait in the listen queue.
//! - A request's head must arrive within `idle_timeout_ms`, which also ends idle connections.
//! - A client that stops reading its answer is given up after `request_timeout_ms`.
//! - On stop: no new connections, requests under way are finished, at most for `drain_timeout_ms`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::Config;
use super::stall::Impatient;

/// Pause after a failed accept: the usual reason is a full table of open files, which only others can empty.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, not yet answering.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address. Queries are answered only by [`Server::run`].
    pub async fn bind(address: SocketAddr) -> std::io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Server { listener, address })
    }

    /// The address really taken, also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` says true (or its sender is gone), then drains.
    pub async fn run(self, router: Router, limits: Config, mut stop: watch::Receiver<bool>) {
        let places =
            Arc::new(Semaphore::new(usize::try_from(limits.connections_max).unwrap_or(usize::MAX >> 4)));
        let mut connections = JoinSet::new();
        let stopped = stop.clone();
        let accepting = async {
            loop {
                let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes this semaphore");
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        connections.spawn(serve(
                            stream,
                            place,
                            router.clone(),
                            limits.clone(),
                            stopped.clone(),
                        ));
                    }
                    Err(error) => {
                        warn!(error = %error, "cannot accept a connection; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = accepting => {}
            () = told(&mut stop) => {}
        }
        drop(self.listener);
        drain(connections, Duration::from_millis(limits.drain_timeout_ms)).await;
    }
}

/// Resolves when the word to stop was given, or nobody is left to give it.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        info!(connections = connections.len(), "closing connections that did not finish in time");
        connections.shutdown().await;
    }
}

async fn serve(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    router: Router,
    limits: Config,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are written in one piece; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Impatient::new(stream, Duration::from_millis(limits.request_timeout_ms)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.idle_timeout_ms))
        .serve_connection(io, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error = %error, "connection ended");
    }
}
