//! What was asked and how it was answered, for assertions about the number and order of calls.
//!
//! Bounded. Holds no header, argument or body, so no token either.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::account::lock;

/// Requests remembered; the oldest go first.
const MAX_RECORDS: usize = 10_000;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// Counts from 1 in the order in which requests were answered.
    pub sequence: u64,
    /// The HTTP method.
    pub method: String,
    /// The route without version prefix (`files/upload`, `oauth2/token`), or the path asked for if there is no such route.
    pub route: String,
    /// The status of the answer; `None` if the connection ended without one.
    pub status: Option<u16>,
    /// The faults that were applied, by the names they have in `POST /emulator/faults`.
    pub faults: Vec<String>,
}

#[derive(Default)]
pub(crate) struct RequestLog {
    records: Mutex<(u64, VecDeque<RequestRecord>)>,
}

impl RequestLog {
    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        lock(&self.records).1.iter().cloned().collect()
    }

    /// Begins a record. It is filed when the returned value is dropped, so that a call whose client went away, which
    /// ends by being dropped, is on record too.
    pub(crate) fn begin(self: &Arc<Self>, method: &str, route: &str) -> OpenRecord {
        let record = RequestRecord {
            sequence: 0,
            method: method.to_owned(),
            route: route.to_owned(),
            status: None,
            faults: Vec::new(),
        };
        OpenRecord { log: Arc::clone(self), record }
    }
}

/// A request under way.
pub(crate) struct OpenRecord {
    log: Arc<RequestLog>,
    record: RequestRecord,
}

impl OpenRecord {
    pub(crate) fn fault(&mut self, name: &str) {
        self.record.faults.push(name.to_owned());
    }

    pub(crate) fn answered(mut self, status: u16) {
        self.record.status = Some(status);
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let mut records = lock(&self.log.records);
        let (count, records) = &mut *records;
        *count += 1;
        if records.len() == MAX_RECORDS {
            records.pop_front();
        }
        records.push_back(RequestRecord { sequence: *count, ..self.record.clone() });
    }
}
