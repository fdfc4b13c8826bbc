//! The settings of a usage plan.

use std::collections::HashSet;

use super::{
    amount::{Throttling, whole},
    resolved::resolved,
};
use crate::{
    client::{Clients, Plan},
    config::{
        Warning,
        document::{Cursor, Value},
        error::ConfigError,
    },
    limit::{limits::Limits, quota::Quota},
    route::RouteKey,
    rules::Rules,
};

const PASSED_OVER: [&str; 9] = [
    "id",
    "name",
    "description",
    "productCode",
    "tags",
    "UsagePlanName",
    "Description",
    "ProductCode",
    "Tags",
];

pub(super) fn usage_plan(
    place: &Cursor<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Rules, ConfigError> {
    resolved(place)?;
    let mut fields = place.fields()?;
    fields.pass_over(&PASSED_OVER);
    let mut limits = Limits::new();
    let throttled = fields.any(&["throttle", "Throttle"])?;
    if let Some(block) = throttled.filter(|block| !block.is_null()) {
        limits = throttle(&block, warnings)?.unwrap_or(limits);
    }
    let quota = fields.any(&["quota", "Quota"])?;
    if let Some(block) = quota.filter(|block| !block.is_null()) {
        limits = limits.quota(self::quota(&block, warnings)?);
    }
    let mut plan = Plan::new(limits);
    let mut known = HashSet::new();
    let stages = fields.any(&["apiStages", "ApiStages"])?;
    if let Some(stages) = stages.filter(|stages| !stages.is_null()) {
        resolved(&stages)?;
        let routes = stages.each(|stage| methods(stage, &mut known, warnings))?;
        for (key, limits) in routes.into_iter().flatten() {
            plan = plan.route(key.as_str(), limits);
        }
    }
    fields.end()?;
    if plan == Plan::default() {
        let sentence = "has no throttle and no quota; nothing is limited";
        warnings.push(Warning::new(place.path(), sentence));
    }
    Ok(Rules::new().clients(Clients::by_header("x-api-key").each(plan)))
}

fn throttle(
    block: &Cursor<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Limits>, ConfigError> {
    resolved(block)?;
    let mut fields = block.fields()?;
    let rate = fields.any(&["rateLimit", "RateLimit"])?;
    let burst = fields.any(&["burstLimit", "BurstLimit"])?;
    fields.end()?;
    Throttling::read(rate.as_ref(), burst.as_ref())?.limits(block, warnings)
}

/// So many in a day, a week or a month of the calendar.
fn quota(block: &Cursor<'_>, warnings: &mut Vec<Warning>) -> Result<Quota, ConfigError> {
    resolved(block)?;
    let mut fields = block.fields()?;
    let limit = fields.any(&["limit", "Limit"])?;
    let period = fields.any(&["period", "Period"])?;
    let offset = fields.any(&["offset", "Offset"])?;
    fields.end()?;
    let count = limit.map(|limit| whole(&limit, "quota")).transpose()?;
    let (Some(limit), Some(period)) = (count.flatten(), period) else {
        return Err(block.fault("a quota has a `limit` and a `period`"));
    };
    if let Some(offset) = offset {
        if whole(&offset, "quota's offset")?.is_some_and(|offset| offset > 0) {
            let sentence = "shortens the first period, once, when the plan is created; it is unknown here whether \
                            that is over, and each period has the whole limit";
            warnings.push(Warning::new(offset.path(), sentence));
        }
    }
    if limit == 0 {
        let sentence = "zero refuses every request";
        warnings.push(Warning::new(block.path(), sentence));
    }
    resolved(&period)?;
    match period.text()? {
        "DAY" => Ok(Quota::per_day(limit)),
        "WEEK" => Ok(Quota::per_week(limit)),
        "MONTH" => Ok(Quota::per_month(limit)),
        other => Err(period.fault(format!("`{other}` is not one of `DAY`, `WEEK`, `MONTH`"))),
    }
}

/// The throttles of single methods in one stage: `/pets/{id}/GET`.
fn methods(
    stage: &Cursor<'_>,
    known: &mut HashSet<RouteKey>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<(RouteKey, Limits)>, ConfigError> {
    resolved(stage)?;
    let mut fields = stage.fields()?;
    fields.pass_over(&["apiId", "stage", "ApiId", "Stage"]);
    let throttles = fields.any(&["throttle", "Throttle"])?;
    fields.end()?;
    let mut routes = Vec::new();
    let Some(throttles) = throttles.filter(|throttles| *throttles.value() != Value::Null) else {
        return Ok(routes);
    };
    resolved(&throttles)?;
    for (written, block) in throttles.entries()? {
        let key = written.rsplit_once('/').and_then(|(path, method)| {
            let path = if path.is_empty() { "/" } else { path };
            let method = if method == "*" { "ANY" } else { method };
            format!("{method} {path}").parse::<RouteKey>().ok()
        });
        let Some(key) = key else {
            return Err(block.fault("expected a path and a method, such as `/pets/{id}/GET`"));
        };
        if let Some(limits) = throttle(&block, warnings)? {
            if !known.insert(key.clone()) {
                return Err(block.fault(format!(
                    "`{key}` or its equivalent is throttled before; read a plan for several stages one stage at a time"
                )));
            }
            routes.push((key, limits));
        }
    }
    Ok(routes)
}
