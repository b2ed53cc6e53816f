//! Who is connected: one connection for each client, the newest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::sync::{Notify, Semaphore};

use super::reason::Reason;

/// All connections that have been accepted by CONNACK, by client.
///
/// A client is a name and a client identifier: who proved a name by certificate or password cannot disconnect others by
/// using their identifiers.
#[derive(Debug, Default)]
pub(super) struct Registry {
    clients: Mutex<HashMap<Box<str>, Arc<Control>>>,
}

/// Reaches a connection from outside.
#[derive(Debug)]
pub(super) struct Control {
    told: OnceLock<Reason>,
    tell: Notify,
    /// Never has permits; closed when the connection has gone.
    gone: Semaphore,
}

/// A connection's place in the registry; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Place {
    registry: Arc<Registry>,
    client: Box<str>,
    control: Arc<Control>,
}

impl Registry {
    /// Takes the place of a client; returns the connection that had it, if any, which has been told to end.
    pub fn enter(self: &Arc<Self>, name: &str, client_id: &str) -> (Place, Option<Arc<Control>>) {
        // Names and identifiers are UTF-8 without U+0000.
        let client: Box<str> = format!("{name}\0{client_id}").into();
        let control =
            Arc::new(Control { told: OnceLock::new(), tell: Notify::new(), gone: Semaphore::const_new(0) });
        let before = self.clients().insert(client.clone(), Arc::clone(&control));
        if let Some(before) = &before {
            before.end(Reason::SessionTakenOver);
        }
        (Place { registry: Arc::clone(self), client, control }, before)
    }

    /// Tells every connection to end.
    pub fn end_all(&self, reason: Reason) {
        for control in self.clients().values() {
            control.end(reason);
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Control>>> {
        self.clients.lock().expect("nothing panics while it holds the lock")
    }
}

impl Control {
    fn end(&self, reason: Reason) {
        // The first reason stands.
        let _ = self.told.set(reason);
        self.tell.notify_one();
    }

    /// Waits until the connection has gone.
    pub async fn gone(&self) {
        let closed = self.gone.acquire().await;
        debug_assert!(closed.is_err(), "it never has permits");
    }
}

impl Place {
    /// Tells this connection itself to end.
    pub fn end(&self, reason: Reason) {
        self.control.end(reason);
    }

    /// Waits to be told to end, and why.
    pub async fn told_to_end(&self) -> Reason {
        loop {
            if let Some(reason) = self.control.told.get() {
                return *reason;
            }
            self.control.tell.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.registry.clients();
        if clients.get(&self.client).is_some_and(|control| Arc::ptr_eq(control, &self.control)) {
            clients.remove(&self.client);
        }
        drop(clients);
        self.control.gone.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_connection_of_a_client_has_the_place() {
        let registry = Arc::new(Registry::default());
        let (first, nobody) = registry.enter("a", "a");
        assert!(nobody.is_none());
        let (second, before) = registry.enter("a", "a");
        assert_eq!(first.told_to_end().await, Reason::SessionTakenOver);
        drop(first);
        before.expect("the first").gone().await;
        assert_eq!(registry.clients().len(), 1);
        registry.end_all(Reason::ServerShuttingDown);
        assert_eq!(second.told_to_end().await, Reason::ServerShuttingDown);
        drop(second);
        assert!(registry.clients().is_empty());
    }

    #[test]
    fn an_identifier_is_worth_nothing_under_another_name() {
        let registry = Arc::new(Registry::default());
        let (_first, _) = registry.enter("a", "x");
        assert!(registry.enter("b", "x").1.is_none());
    }
}
