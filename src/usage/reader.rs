//! The usage of model tokens that the answer of a model server reports, read as it goes by.

use std::{fmt, sync::Arc};

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::scan::{BYTES_PER_TOKEN, MediaType, ScanReport, UsageScanner};
use crate::{
    admission::reservation::{Report, TokenReservation},
    clock::Nanos,
    head,
    limit::token_usage::TokenUsage,
    limiter::missing_reason::MissingReason,
};

/// A listener to answers whose usage is not read.
pub(crate) trait ReportListener: fmt::Debug + Send + Sync {
    /// Notes an answer on this route whose usage was not read.
    fn missing(&self, route: &str, now: Nanos, reason: MissingReason);

    /// Notes an answer on this route that has reported more model tokens than the `most` that it can have used.
    fn implausible(&self, route: &str, now: Nanos, reported: u64, most: u64);
}

/// A reader of the usage that an answer reports.
#[derive(Debug)]
pub(crate) struct UsageReader {
    /// `None`: the answer is compressed, or of a media type that is not read.
    scan: Option<UsageScanner>,
    /// The answer is a stream of texts.
    is_stream: bool,
    /// The bytes that have passed.
    passed: u64,
    /// The answer is of a request that was served, and should report its usage.
    is_success: bool,
    listener: Arc<dyn ReportListener>,
}

impl UsageReader {
    /// Returns the reader of an answer with this status and these header fields.
    #[cold]
    pub(crate) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        listener: Arc<dyn ReportListener>,
    ) -> Self {
        let media_type = head::text(headers, &CONTENT_TYPE).and_then(MediaType::of);
        let encoding = head::first_value(headers, &CONTENT_ENCODING);
        let is_encoded =
            encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity"));
        let is_stream = matches!(
            media_type,
            Some(MediaType::EventStream | MediaType::JsonLines)
        );
        Self {
            scan: media_type.filter(|_| !is_encoded).map(UsageScanner::new),
            is_stream,
            passed: 0,
            is_success: status.is_success(),
            listener,
        }
    }

    pub(crate) fn read(&mut self, data: &[u8]) {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.passed = self.passed.saturating_add(length);
        if let Some(scan) = &mut self.scan {
            scan.read(data);
        }
    }

    /// Settles a reservation at what the answer reports, when it has `ended` or was cut short. Without a report, the
    /// reservation stands, or what has passed if that is more. A report that is implausible counts as none.
    pub(crate) fn settle(&self, reservation: &TokenReservation, ended: bool) {
        let (report, otherwise) = self.report(ended);
        if let Some(usage) = report.usage {
            match reservation.settle_reported(usage, self.passed) {
                Report::Settled => {}
                Report::Implausible { most } => {
                    self.end_implausible(reservation, usage, most, report.passed);
                }
            }
            return;
        }
        let most = reservation.most(self.passed);
        if report.read.total() > most {
            self.end_implausible(reservation, report.read, most, report.passed);
            return;
        }
        // An answer without a body, as to `HEAD`, has no place for a report.
        let is_empty = ended && self.passed == 0;
        if self.is_success && !is_empty && reservation.missed(otherwise) {
            self.listener
                .missing(reservation.route(), reservation.now(), otherwise);
        }
        reservation.end_unreported(report.read, report.has_input);
    }

    /// Ends a reservation whose answer has reported more than the most that is possible.
    fn end_implausible(
        &self,
        reservation: &TokenReservation,
        reported: TokenUsage,
        most: u64,
        passed: u64,
    ) {
        if reservation.missed(MissingReason::Implausible) {
            self.listener.implausible(
                reservation.route(),
                reservation.now(),
                reported.total(),
                most,
            );
        }
        reservation.end_unreported(TokenUsage::new().output(passed), false);
    }

    /// Returns what was read, and the reason why there is no usage if there is none.
    fn report(&self, ended: bool) -> (ScanReport, MissingReason) {
        let Some(scan) = &self.scan else {
            let passed = match self.is_stream {
                true => self.passed.div_ceil(BYTES_PER_TOKEN),
                false => 0,
            };
            let report = ScanReport {
                read: TokenUsage::new().output(passed),
                passed,
                ..ScanReport::default()
            };
            return (report, MissingReason::Encoding);
        };
        let report = scan.report(ended);
        let reason = match report.is_malformed {
            true => MissingReason::Malformed,
            false if ended => MissingReason::Absent,
            false => MissingReason::Cut,
        };
        (report, reason)
    }
}
