//! Query strings, read strictly: an unknown parameter, one given twice or a value that is not allowed is an error that
//! names the parameter, the value and what is allowed. Pure.

use std::borrow::Cow;
use std::str::FromStr;

use weir_contract::{Id, Kind};

use super::error::ApiError;
use crate::store::types::{Cursor, EventQuery, Order};
use crate::times;

/// Largest page.
pub const LIMIT_MAX: usize = 10_000;
/// Page of events or dead letters where no `limit` is given.
pub const LIMIT_DEFAULT: usize = 100;
/// Page of devices where no `limit` is given.
pub const DEVICES_LIMIT_DEFAULT: usize = 1_000;

/// The parameters of a request; each name at most once, all of them known.
#[derive(Debug)]
struct Parameters<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Parameters<'q> {
    fn read(query: Option<&'q str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let allowed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!("there is no parameter {name:?} here; allowed: {allowed}");
                return Err(ApiError::bad_parameter(message));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(ApiError::bad_parameter(format!("{name} is given twice; allowed: once")));
            }
            pairs.push((name, value));
        }
        Ok(Parameters(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn parsed<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| not_allowed(name, value, allowed))
    }

    fn limit(&self, default: usize) -> Result<usize, ApiError> {
        let allowed = format!("a whole number from 1 to {LIMIT_MAX}");
        match self.parsed("limit", &allowed)? {
            None => Ok(default),
            Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(not_allowed("limit", &limit.to_string(), &allowed)),
        }
    }

    fn time(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // A `+` that was not percent-encoded arrives as a space. In a time it can only have been the zone's sign.
        let unix_ms = times::parse_absolute(value).or_else(|bad| match value.rsplit_once(' ') {
            Some((moment, zone)) => times::parse_absolute(&format!("{moment}+{zone}")).map_err(|_| bad),
            None => Err(bad),
        });
        unix_ms.map(Some).map_err(|_| not_allowed(name, value, times::ABSOLUTE))
    }
}

fn not_allowed(name: &str, value: &str, allowed: &str) -> ApiError {
    ApiError::bad_parameter(format!("{name} = {value:?} is not allowed; allowed: {allowed}"))
}

/// A page of a list: how many, behind which.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<K> {
    /// At most so many.
    pub limit: usize,
    /// Go on behind this one.
    pub after: Option<K>,
}

/// `/v1/devices?limit&after`
pub fn devices(query: Option<&str>) -> Result<Page<Id>, ApiError> {
    let parameters = Parameters::read(query, &["limit", "after"])?;
    Ok(Page {
        limit: parameters.limit(DEVICES_LIMIT_DEFAULT)?,
        after: parameters.parsed("after", "the name of a device")?,
    })
}

/// `/v1/dead-letters?limit&after`
pub fn dead_letters(query: Option<&str>) -> Result<Page<u64>, ApiError> {
    let parameters = Parameters::read(query, &["limit", "after"])?;
    Ok(Page {
        limit: parameters.limit(LIMIT_DEFAULT)?,
        after: parameters.parsed("after", "the id of a dead letter")?,
    })
}

/// `/v1/devices/{device}/state?at`
pub fn state(query: Option<&str>) -> Result<Option<u64>, ApiError> {
    Parameters::read(query, &["at"])?.time("at")
}

/// `/v1/devices/{device}/events?from&to&kind&limit&order&after`
pub fn events(device: Id, query: Option<&str>) -> Result<EventQuery, ApiError> {
    let parameters = Parameters::read(query, &["from", "to", "kind", "limit", "order", "after"])?;
    let (from_ms, to_ms) = (parameters.time("from")?, parameters.time("to")?);
    if let (Some(from), Some(to)) = (from_ms, to_ms)
        && from > to
    {
        let message = format!("from ({}) is later than to ({})", times::rfc3339(from), times::rfc3339(to));
        return Err(ApiError::bad_parameter(message));
    }
    let order = match parameters.get("order") {
        None | Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        Some(other) => return Err(not_allowed("order", other, "asc, desc")),
    };
    Ok(EventQuery {
        device,
        from_ms,
        to_ms,
        kind: parameters.parsed::<Kind>("kind", "the name of a kind, as reading-taken")?,
        order,
        limit: parameters.limit(LIMIT_DEFAULT)?,
        body_bytes_max: usize::MAX,
        after: parameters.parsed::<Cursor>("after", "what an earlier answer gave as next")?,
    })
}

/// A route without parameters.
pub fn nothing(query: Option<&str>) -> Result<(), ApiError> {
    Parameters::read(query, &[]).map(drop)
}

#[cfg(test)]
mod tests;
