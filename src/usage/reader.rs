//! The usage of model tokens that the answer of a model server reports, read as it goes by.

use std::{fmt, sync::Arc};

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::scan::{MediaType, UsageScanner};
use crate::{
    admission::reservation::{Report, TokenReservation},
    clock::Nanos,
    head,
    limit::token_usage::TokenUsage,
};

/// A listener to reports that are not charged.
pub(crate) trait ReportListener: fmt::Debug + Send + Sync {
    /// Notes an answer on this route that has reported more model tokens than the `most` that it can have used.
    fn implausible(&self, route: &str, now: Nanos, reported: u64, most: u64);
}

/// A reader of the usage that an answer reports.
#[derive(Debug)]
pub(crate) struct UsageReader {
    scan: UsageScanner,
    /// The bytes that have passed.
    passed: u64,
    listener: Arc<dyn ReportListener>,
}

impl UsageReader {
    /// Returns the reader of an answer with these header fields. `None` if it reports nothing: it is compressed, or of
    /// another type.
    #[cold]
    pub(crate) fn of(headers: &HeaderMap, listener: Arc<dyn ReportListener>) -> Option<Self> {
        let encoding = head::first_value(headers, &CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return None;
        }
        let kind = MediaType::of(head::text(headers, &CONTENT_TYPE)?)?;
        Some(Self {
            scan: UsageScanner::new(kind),
            passed: 0,
            listener,
        })
    }

    pub(crate) fn read(&mut self, data: &[u8]) {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.passed = self.passed.saturating_add(length);
        self.scan.read(data);
    }

    /// Settles a reservation at what the answer reports. A report that is implausible counts as none.
    pub(crate) fn settle(&self, reservation: &TokenReservation) {
        let Some(total) = self.scan.total() else {
            return;
        };
        if let Report::Implausible { most } =
            reservation.settle_reported(TokenUsage::undivided(total), self.passed)
        {
            self.listener
                .implausible(reservation.route(), reservation.now(), total, most);
        }
    }
}
