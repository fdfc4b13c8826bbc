//! Estimates of model tokens that hold together.

use super::RulesError;
use crate::{
    model::{NamePatternError, NamePatterns},
    usage::{Estimate, EstimateError, Estimator},
};

/// Checks the names of models that have estimates of their own. `has_models`: the rules tell models apart.
pub(super) fn check_names(estimate: &Estimate, has_models: bool) -> Result<(), RulesError> {
    if let Some((name, _)) = estimate.models.first().filter(|_| !has_models) {
        let name = name.to_string();
        return Err(RulesError::EstimateWithoutModels { name });
    }
    let names = estimate.models.iter().map(|(name, _)| &**name);
    NamePatterns::new(names).map_err(|fault| match fault {
        NamePatternError::Name(name) => RulesError::EstimateName { name },
        NamePatternError::SameName(name) => RulesError::SameEstimate { name },
    })?;
    Ok(())
}

/// Makes the estimator of rules, given the number of the estimate of each class.
pub(super) fn compile_estimate(
    estimate: &Estimate,
    classes: &[Option<usize>],
) -> Result<Estimator, RulesError> {
    let estimator = Estimator::new(estimate.clone(), classes.iter().copied());
    estimator.map_err(|fault| match fault {
        EstimateError::Header(name) => RulesError::EstimateHeader { name },
        EstimateError::NoUnread => RulesError::UnreadEstimate,
        EstimateError::NoBody(name) => RulesError::EstimateNotFromBody { name },
    })
}
