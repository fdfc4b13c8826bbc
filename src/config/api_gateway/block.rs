//! One block of route settings.

use super::{amount::Throttling, resolved::resolved};
use crate::config::{
    Warning,
    document::{Cursor, TableReader},
    error::ConfigError,
};

/// A block of route settings: those of one route, or the default ones.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) throttle: Throttling,
    /// The route key that stands among the settings.
    pub(super) key: Option<String>,
}

const ROUTE_KEY: [&str; 3] = ["RouteKey", "routeKey", "route_key"];

/// Route settings that do not throttle.
const NO_THROTTLE: [&str; 11] = [
    "//",
    "__defaults",
    "DataTraceEnabled",
    "DetailedMetricsEnabled",
    "LoggingLevel",
    "dataTraceEnabled",
    "detailedMetricsEnabled",
    "loggingLevel",
    "data_trace_enabled",
    "detailed_metrics_enabled",
    "logging_level",
];

impl Block {
    pub(super) fn read(block: &Cursor<'_>) -> Result<Self, ConfigError> {
        resolved(block)?;
        let mut fields = block.fields()?;
        let names = [
            "ThrottlingRateLimit",
            "throttlingRateLimit",
            "throttling_rate_limit",
        ];
        let rate = fields.any(&names)?;
        let names = [
            "ThrottlingBurstLimit",
            "throttlingBurstLimit",
            "throttling_burst_limit",
        ];
        let burst = fields.any(&names)?;
        let key = route_key(&mut fields)?;
        fields.pass_over(&NO_THROTTLE);
        fields.end()?;
        let throttle = Throttling::read(rate.as_ref(), burst.as_ref())?;
        Ok(Self { throttle, key })
    }

    /// The route key of a block, if it has one that is a text.
    pub(super) fn peek_key<'a>(block: &'a Cursor<'a>) -> Option<&'a str> {
        let mut keys = ROUTE_KEY.iter().filter_map(|key| block.peek(key));
        keys.next()?.text().ok()
    }

    /// Returns whether a block has a route key.
    pub(super) fn has_key(block: &Cursor<'_>) -> bool {
        ROUTE_KEY.iter().any(|key| block.peek(key).is_some())
    }

    /// Warns that a block does not throttle, and says what holds instead.
    pub(super) fn without_throttle(path: &str, instead: &str) -> Warning {
        let sentence = format!(
            "sets no throttle, and {instead}; a deployment tool may send zeros, with which API Gateway refuses every \
             request"
        );
        Warning::new(path, sentence)
    }
}

fn route_key(fields: &mut TableReader<'_>) -> Result<Option<String>, ConfigError> {
    let Some(key) = fields.any(&ROUTE_KEY)? else {
        return Ok(None);
    };
    resolved(&key)?;
    key.text().map(|key| Some(key.to_owned()))
}
