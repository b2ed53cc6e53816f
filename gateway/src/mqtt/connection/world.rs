//! What a session asks of the world, done.

use std::sync::Arc;
use std::time::Instant;

use weir_contract::Id;

use crate::custody::{Full, Ticket, Waiter};
use crate::downlink::Mailbox;
use crate::facts;
use crate::journal::Entry;
use crate::mqtt::local::{Link, Message, Page};
use crate::mqtt::reason::Reason;
use crate::mqtt::session::{Outside, Uplink};
use crate::mqtt::shared::Shared;
use crate::mqtt::topics::Client;

/// The world as one read or one delivery sees it.
pub(super) struct World<'a> {
    shared: &'a Shared,
    waiter: &'a Arc<Waiter>,
    link: &'a mut Option<Link>,
    mailbox: &'a mut Option<Mailbox>,
    /// One time for all that was read at once; asked for when first needed.
    received_ms: Option<u64>,
    /// Custody takes nothing any more.
    pub closed: bool,
}

impl<'a> World<'a> {
    pub fn new(
        shared: &'a Shared,
        waiter: &'a Arc<Waiter>,
        link: &'a mut Option<Link>,
        mailbox: &'a mut Option<Mailbox>,
    ) -> Self {
        World { shared, waiter, link, mailbox, received_ms: None, closed: false }
    }
}

impl Outside for World<'_> {
    type Ticket = Ticket;

    fn offer(&mut self, bytes: &[u8], uplinks: &[Uplink], mut taken: impl FnMut(&Uplink, Ticket)) -> usize {
        let received_ms = *self.received_ms.get_or_insert_with(|| self.shared.clock.unix_ms());
        let mut gather = self.shared.custody.gather();
        let mut count = 0;
        for uplink in uplinks {
            let traceparent = uplink.traceparent.clone().map(|place| &bytes[place]);
            let payload = &bytes[uplink.payload.clone()];
            match gather.offer(&uplink.device, received_ms, traceparent, payload, uplink.run, self.waiter) {
                Ok(ticket) => taken(uplink, ticket),
                Err(full) => {
                    self.closed = full == Full::Closed;
                    break;
                }
            }
            count += 1;
        }
        drop(gather);
        if !self.shared.commands.is_idle() {
            for uplink in &uplinks[..count] {
                self.shared.commands.saw(&uplink.device, &bytes[uplink.payload.clone()]);
            }
        }
        count
    }

    fn wants_events(&self) -> bool {
        self.shared.local.wants_events()
    }

    fn publish(&mut self, message: &Message<'_>) -> Result<(), Reason> {
        self.shared.local.publish(message)
    }

    fn subscribe(&mut self, filter: &str) -> Result<(), Reason> {
        if self.link.is_none() {
            *self.link = Some(self.shared.local.open()?);
        }
        self.link.as_mut().expect("it is there now").subscribe(filter)
    }

    fn retained(&self, filter: &str, after: &str) -> Page {
        match &self.link {
            Some(link) => link.retained_page(filter, after),
            None => self.shared.local.retained_page(filter, after),
        }
    }

    fn unsubscribe(&mut self, filter: &str) {
        if let Some(link) = self.link {
            link.unsubscribe(filter);
        }
    }

    fn listen(&mut self, device: &Id) {
        *self.mailbox = Some(self.shared.commands.listen(*device));
    }

    fn stop_listening(&mut self) {
        *self.mailbox = None;
    }

    fn refused(&mut self, client: &Client, topic: &str, reason: Reason, said: &str, payload: &[u8]) {
        facts::uplink_refused(reason.as_str());
        tracing::debug!(client = %client.name, topic, %reason, "refused: {said}");
        if let Some(count) = self.shared.refusals.is_due(&client.name, Instant::now()) {
            tracing::warn!(
                client = %client.name, topic, %reason, count,
                "refused: {said}; how it begins is shown by `weir-gateway refusals`"
            );
            // Where the version has no word for it, the device goes on as if all were well: its owner has to know.
            if let Some(device) = client.device {
                let reason = format!("{reason}: {said}").into();
                self.shared.journal.send(Entry::PublishesRefused { device, count, reason });
            }
        }
        self.shared.refusals.keep(self.shared.clock.unix_ms(), &client.name, topic, reason, said, payload);
    }

    fn unix_ms(&self) -> Option<u64> {
        self.shared.clock.known_unix_ms()
    }
}
