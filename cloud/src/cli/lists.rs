//! Commands whose answers come in pages. Long ones are printed page by page, in constant memory.

use std::io::Write as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::arguments::History;
use super::client::{self, Failure};
use super::{Session, device_name, print};
use crate::api::json::Json;
use crate::api::types;

/// Items asked for at a time.
const PAGE: u64 = 1_000;

/// A list in pages: where it is, and what its items are called in the answer.
struct List {
    path: String,
    query: Vec<(&'static str, String)>,
    items: &'static str,
}

impl Session {
    pub(super) fn devices(&mut self) -> Result<(), Failure> {
        let list = List { path: "/v1/devices".to_owned(), query: Vec::new(), items: "devices" };
        if self.json {
            return self.json_pages(&list, None);
        }
        let mut devices: Vec<types::Device> = Vec::new();
        self.pages(&list, None, |_, items| {
            devices.extend(items);
            Ok(())
        })?;
        let text = print::devices(&devices, self.style, self.now_ms);
        Ok(self.out.write_all(text.as_bytes())?)
    }

    pub(super) fn history(&mut self, asked: &History) -> Result<(), Failure> {
        let path = format!("/v1/devices/{}/events", device_name(&asked.device)?);
        let mut query = Vec::new();
        if let Some(since) = &asked.since {
            query.push(("from", self.moment("--since", since)?.to_string()));
        }
        if let Some(until) = &asked.until {
            query.push(("to", self.moment("--until", until)?.to_string()));
        }
        if let Some(kind) = &asked.kind {
            query.push(("kind", kind.clone()));
        }
        if asked.newest_first {
            query.push(("order", "desc".to_owned()));
        }
        let list = List { path, query, items: "events" };
        if self.json {
            return self.json_pages(&list, asked.limit);
        }
        let mut boot = None;
        let mut count = 0;
        self.pages(&list, asked.limit, |session, events: Vec<types::Event>| {
            for event in &events {
                if boot.replace(event.boot) != Some(event.boot) {
                    session.out.write_all(print::boot_heading(event.boot, session.style).as_bytes())?;
                }
                session.out.write_all(print::event(event, session.style).as_bytes())?;
            }
            count += events.len();
            Ok(())
        })?;
        if count == 0 {
            eprintln!("weir: {} has no such events", asked.device);
        }
        Ok(())
    }

    pub(super) fn dead_letters(&mut self, limit: Option<u64>) -> Result<(), Failure> {
        let list = List { path: "/v1/dead-letters".to_owned(), query: Vec::new(), items: "dead_letters" };
        if self.json {
            return self.json_pages(&list, limit);
        }
        let mut count = 0;
        self.pages(&list, limit, |session, letters: Vec<types::DeadLetter>| {
            for letter in &letters {
                session.out.write_all(print::dead_letter(letter, session.style).as_bytes())?;
            }
            count += letters.len();
            Ok(())
        })?;
        if count == 0 {
            writeln!(self.out, "no dead letters: everything that arrived could be read")?;
        }
        Ok(())
    }

    /// Calls `each` with the items of every page.
    fn pages<T: DeserializeOwned>(
        &mut self,
        list: &List,
        limit: Option<u64>,
        mut each: impl FnMut(&mut Session, Vec<T>) -> Result<(), Failure>,
    ) -> Result<Option<Json>, Failure> {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut after: Option<Json> = None;
        loop {
            let mut query = list.query.clone();
            query.push(("limit", left.min(PAGE).to_string()));
            match &after {
                Some(Json::Text(cursor)) => query.push(("after", cursor.clone())),
                Some(number) => query.push(("after", number.to_string())),
                None => {}
            }
            let answer = self.client.get(&list.path, &query)?;
            let Page { items, next }: Page<T> = client::parse(&answer)?;
            left = left.saturating_sub(items.len().try_into().unwrap_or(u64::MAX));
            each(self, items)?;
            if next.is_some() && next == after {
                return Err(Failure::Unusable(format!("{} gives the same page again and again", list.path)));
            }
            after = next;
            if left == 0 || after.is_none() {
                return Ok(after);
            }
        }
    }

    /// The API's own shape, as one document however many pages it takes; an item on each line.
    fn json_pages(&mut self, list: &List, limit: Option<u64>) -> Result<(), Failure> {
        let mut first = true;
        let next = self.pages(list, limit, |session, items: Vec<Json>| {
            for item in items {
                let before = if first { format!("{{\"{}\":[", list.items) } else { ",".to_owned() };
                first = false;
                write!(session.out, "{before}\n{item}")?;
            }
            Ok(())
        })?;
        let before = if first { format!("{{\"{}\":[", list.items) } else { "\n".to_owned() };
        let next = next.unwrap_or(Json::Null);
        Ok(writeln!(self.out, "{before}],\"next\":{next}}}")?)
    }
}

/// A page of any list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(alias = "devices", alias = "events", alias = "dead_letters")]
    items: Vec<T>,
    next: Option<Json>,
}
