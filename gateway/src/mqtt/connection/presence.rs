//! Who comes and goes, told to those who want to know.

use std::borrow::Cow;
use std::net::SocketAddr;

use weir_contract::Id;

use crate::facts;
use crate::journal::Entry;
use crate::mqtt::reason::Reason;
use crate::mqtt::session::End;
use crate::mqtt::shared::Shared;
use crate::mqtt::topics::Client;

/// Tells that a client is there, and, whatever happens, that it no longer is.
pub(super) struct Presence<'a> {
    /// `None` for clients that are no devices.
    device: Option<Id>,
    name: Box<str>,
    peer: SocketAddr,
    shared: &'a Shared,
    reason: Cow<'static, str>,
}

impl<'a> Presence<'a> {
    pub fn begin(client: &Client, peer: SocketAddr, shared: &'a Shared) -> Self {
        facts::connection_opened();
        tracing::debug!(client = %client.name, %peer, "connected");
        // Whoever has rights of its own is a local program.
        let device = client.device.filter(|_| client.rights.is_none());
        if let Some(device) = device {
            shared.journal.send(Entry::Connected { device, address: peer });
        }
        Presence { device, name: client.name.clone(), peer, shared, reason: "failed".into() }
    }

    pub fn end(mut self, end: End) {
        self.reason = match end {
            End::Left { .. } => "left".into(),
            End::Lost => "lost".into(),
            End::Closed(reason) => reason.as_str().into(),
        };
        if let End::Closed(reason) = end
            && reason != Reason::ServerShuttingDown
        {
            facts::connection_refused(reason.as_str());
            tracing::info!(client = %self.name, peer = %self.peer, %reason, "a connection was closed");
        }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        facts::connection_closed();
        tracing::debug!(client = %self.name, peer = %self.peer, reason = %self.reason, "disconnected");
        if let Some(device) = self.device {
            self.shared
                .journal
                .send(Entry::Disconnected { device, reason: std::mem::take(&mut self.reason) });
        }
    }
}
