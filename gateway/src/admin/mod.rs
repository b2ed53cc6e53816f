//! HTTP for operators and machines: health, readiness, metrics, status. Reads only; it can change nothing.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while uplinks are taken, that is while the spool works; whether the cloud can be reached is in `/status` |
//! | `/metrics` | Prometheus' text format |
//! | `/status` | JSON: who, since when, spool, uplink, commands that wait for devices, other people's brokers |
//! | `/spool` | JSON: the spool's epochs |
//! | `/refusals` | JSON: what clients were refused lately |

mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use weir_contract::Id;

use crate::clock::{Clock, Doubt};
use crate::config::value::show;
use crate::custody::Custody;
use crate::downlink::Hub;
use crate::spool::Full;
use crate::wear::Wear;
use crate::{facts, spool, uplink, wear};

pub use self::server::Server;

/// `[admin]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen; port 0 takes a free one. Nobody is asked who he is: keep it on loopback or behind something that asks.
    pub address: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Config { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9880) }
    }
}

/// What the answers are made from.
#[derive(Clone)]
pub struct Sources {
    /// Where the gateway stands.
    pub site: Id,
    /// The gateway.
    pub gateway: Id,
    /// When it was started, in Unix milliseconds.
    pub started_ms: u64,
    /// For ages.
    pub clock: Clock,
    /// Whether uplinks are taken.
    pub custody: Custody,
    /// How the uplink goes.
    pub uplink: watch::Receiver<uplink::Status>,
    /// The commands that wait for devices.
    pub commands: Arc<Hub>,
    /// How the flash under the spool wears out.
    pub wear: Wear,
    /// What was refused lately, as JSON.
    pub refusals: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// How it goes with other people's brokers, as JSON.
    pub brokers: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// The answer of `/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// This program's version.
    pub version: String,
    /// Where the gateway stands.
    pub site: String,
    /// The gateway.
    pub gateway: String,
    /// When it was started, in Unix milliseconds.
    pub started_ms: u64,
    /// Why its clock is not believed, if so; no device is told the time then.
    #[serde(default)]
    pub clock_doubt: Option<Doubt>,
    /// Whether uplinks are taken, else why not.
    pub custody: CustodyStatus,
    /// The spool without its epochs.
    pub spool: SpoolStatus,
    /// How the flash under the spool wears out.
    pub wear: wear::Status,
    /// The uplink, as [`uplink::Status`].
    pub uplink: serde_json::Value,
    /// The commands that wait for devices, as [`crate::downlink::Status`].
    pub commands: serde_json::Value,
    /// Other people's brokers, each as [`crate::source::Status`].
    #[serde(default)]
    pub sources: serde_json::Value,
}

/// Whether uplinks are taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct CustodyStatus {
    /// Whether they are.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
}

/// The spool in numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Which spool this is.
    pub incarnation: String,
    /// The next number.
    pub next: u64,
    /// Everything below is in the stream.
    pub delivered: u64,
    /// Uplinks that wait.
    pub waiting: u64,
    /// Age of the oldest of them.
    pub oldest_age_ms: Option<u64>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub budget_bytes: u64,
    /// Bytes free on the spool's file system; `None` if it does not say.
    pub free_bytes: Option<u64>,
    /// What is to stay free there.
    pub free_min_bytes: u64,
    /// Why nothing more can be stored, if so: `bytes-max`, `free-min` or `disk`.
    pub full: Option<String>,
    /// Uplinks that are lost by damage, as far as they belong to what is kept or was lately.
    #[serde(default)]
    pub lost: u64,
    /// Damaged epochs that are set aside.
    #[serde(default)]
    pub aside: usize,
    /// How many epochs there are.
    pub epochs: usize,
}

/// The routes.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/spool", get(spool_status))
        .route("/refusals", get(refusals))
        .fallback(|| async {
            problem(StatusCode::NOT_FOUND, "not-found", "there is nothing here; / lists what there is")
        })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "everything here is read with GET")
        })
        .with_state(sources)
}

async fn index() -> &'static str {
    "weir-gateway\n/healthz\n/readyz\n/metrics\n/status\n/spool\n/refusals\n"
}

async fn readyz(State(sources): State<Sources>) -> Response {
    let (spool, _) = match disk(&sources).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    match why_nothing_is_taken(&sources, &spool) {
        None => "ready\n".into_response(),
        Some((code, why)) => problem(StatusCode::SERVICE_UNAVAILABLE, code, &why),
    }
}

/// A word and a sentence, if uplinks are not taken now.
fn why_nothing_is_taken(sources: &Sources, spool: &spool::Status) -> Option<(&'static str, String)> {
    if let Some(error) = sources.custody.failed() {
        return Some(("spool-failed", error.with_causes()));
    }
    let free = spool.free_bytes.map_or_else(|| "an unknown number of bytes".to_owned(), show);
    let why = match spool.full? {
        Full::BytesMax => format!(
            "the spool is full: it has {} of {} (spool.bytes_max); devices keep what they have until something is delivered",
            show(spool.bytes),
            show(spool.budget_bytes)
        ),
        Full::FreeMin => format!(
            "the disk is full: {free} free, {} to stay free (spool.free_min); devices keep what they have until there is room",
            show(spool.free_min_bytes)
        ),
        Full::Disk => format!(
            "the disk does not take what is stored ({}; {free} free); devices keep what they have, and it is tried again",
            spool.trouble.as_deref().unwrap_or("unknown")
        ),
    };
    Some(("spool-full", why))
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let now_ms = sources.clock.unix_ms();
    match disk(&sources).await {
        Ok((spool, wear)) => {
            facts::wear(&wear);
            let age =
                spool.oldest_received_ms.map(|at_ms| Duration::from_millis(now_ms.saturating_sub(at_ms)));
            facts::spool(spool.bytes, spool.waiting, age, spool.free_bytes);
            facts::spool_damage(spool.lost, spool.aside);
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], facts::render()).into_response()
        }
        Err(response) => response,
    }
}

async fn status(State(sources): State<Sources>) -> Response {
    let (spool, wear) = match disk(&sources).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let now_ms = sources.clock.unix_ms();
    let why_not = why_nothing_is_taken(&sources, &spool);
    let uplink = sources.uplink.borrow().clone();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        site: sources.site.to_string(),
        gateway: sources.gateway.to_string(),
        started_ms: sources.started_ms,
        clock_doubt: sources.clock.doubt(),
        custody: CustodyStatus { ok: why_not.is_none(), error: why_not.map(|(_, why)| why) },
        spool: SpoolStatus {
            incarnation: spool.incarnation.to_string(),
            next: spool.next,
            delivered: spool.delivered,
            waiting: spool.waiting,
            oldest_age_ms: spool.oldest_received_ms.map(|at_ms| now_ms.saturating_sub(at_ms)),
            bytes: spool.bytes,
            budget_bytes: spool.budget_bytes,
            free_bytes: spool.free_bytes,
            free_min_bytes: spool.free_min_bytes,
            full: spool.full.map(|full| full.as_str().to_owned()),
            lost: spool.lost,
            aside: spool.aside,
            epochs: spool.epochs.len(),
        },
        wear,
        uplink: json!(uplink),
        commands: json!(sources.commands.status()),
        sources: (sources.brokers)(),
    })
    .into_response()
}

async fn spool_status(State(sources): State<Sources>) -> Response {
    match disk(&sources).await {
        Ok((spool, _)) => Json(spool).into_response(),
        Err(response) => response,
    }
}

async fn refusals(State(sources): State<Sources>) -> Json<serde_json::Value> {
    Json(json!({ "refusals": (sources.refusals)() }))
}

/// What is on the disk, and what was written to it: both may take a look there.
async fn disk(sources: &Sources) -> Result<(spool::Status, wear::Status), Response> {
    let (custody, wear) = (sources.custody.clone(), sources.wear.clone());
    let look = move || (custody.spool().status(), wear.look(custody.taken(), Instant::now()));
    tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| problem(StatusCode::INTERNAL_SERVER_ERROR, "spool-unreadable", &error.to_string()))
}

fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}
