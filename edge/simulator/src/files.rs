//! Open files: every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open beside the connections.
const OTHERS: u64 = 64;

/// The system does not allow as many connections as were asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "{asked} connections need {needed} open files, and {allowed} are allowed (raise the hard limit: ulimit -Hn)"
)]
pub struct TooMany {
    asked: u64,
    needed: u64,
    allowed: u64,
}

/// Raises this process's limit of open files, as far as it is allowed to, so that `connections` fit.
///
/// # Errors
/// They do not fit.
pub fn allow(connections: u64) -> Result<(), TooMany> {
    let needed = connections + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|allowed| allowed >= needed) {
        return Ok(());
    }
    let wanted = limit.maximum.map_or(needed, |allowed| allowed.min(needed));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed >= needed { Ok(()) } else { Err(TooMany { asked: connections, needed, allowed }) }
}
