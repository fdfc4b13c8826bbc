//! Tables by route key.

use std::collections::HashMap;

use crate::{
    config::{document::Cursor, error::ConfigError},
    route::RouteKey,
};

/// Returns the entries of a table by route key, as the keys were written. No two of them mean the same route.
pub(super) fn by_route<'a, T>(
    table: &'a Cursor<'a>,
    read: impl Fn(&Cursor<'_>) -> Result<T, ConfigError>,
) -> Result<Vec<(&'a str, T)>, ConfigError> {
    let mut known: HashMap<RouteKey, (&str, Option<usize>)> = HashMap::new();
    let mut all = Vec::new();
    for (written, place) in table.entries()? {
        let key = written.parse::<RouteKey>();
        let key = key.map_err(|fault| place.fault(fault.to_string()))?;
        let line = place.line_of_name();
        if let Some((first, line)) = known.insert(key, (written, line)) {
            let on_line = line.map_or_else(String::new, |line| format!(" on line {line}"));
            return Err(place.fault_of_name(format!(
                "is the same route as `{first}`{on_line}; keep one of them"
            )));
        }
        all.push((written, read(&place)?));
    }
    Ok(all)
}
