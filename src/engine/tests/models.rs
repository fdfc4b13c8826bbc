//! The limits of routes by model, at other costs and of several routes that are kept.

use std::borrow::Cow;

use super::*;
use crate::{Models, engine::models::ModelRules};

/// Looks up a request for a model, and tells whether its limits were kept.
fn is_kept(rules: &RuleSet, path: &str, model: &str) -> bool {
    let request = Request::post(path).header("x-model", model).body(());
    let request = request.expect("a request");
    let (head, mut demand) = (RequestHead::of(&request), Demand::default());
    let found = rules.look_up(head, Protocol::Auto, &mut demand);
    matches!(found.expect("no reload"), Cow::Borrowed(_))
}

/// Clients invent paths and choose among models: what is kept of that is bounded, and declared routes are always kept.
#[tokio::test(start_paused = true)]
async fn limits_of_invented_routes_are_kept_up_to_a_bound() {
    let models = (0..8).fold(Models::by_header("x-model"), |models, number| {
        models.model(format!("m{number}"), Rate::per_second(9))
    });
    let rules = Rules::new().default_route(Rate::per_second(9));
    let rules = rules
        .route("POST /chat", Rate::per_second(9))
        .models(models);
    let active = ActiveRules::new(&rules, Timeline::started_at(0), None).expect("proper rules");
    let rules = active.rules();
    let mut kept = 0;
    for model in 0..8 {
        for path in 0..1_000 {
            let (path, model) = (format!("/{path}"), format!("m{model}"));
            let is_first = is_kept(&rules, &path, &model);
            assert_eq!(is_kept(&rules, &path, &model), is_first, "{path} {model}");
            kept += usize::from(is_first);
        }
    }
    assert_eq!(kept, ModelRules::MOST_KEPT);
    for model in 0..8 {
        assert!(is_kept(&rules, "/chat", &format!("m{model}")));
    }
    assert!(is_kept(&rules, "/0", "m0"), "what is kept stays");
}

/// Clients invent costs, and take no place of a request that may mean two routes.
#[tokio::test(start_paused = true)]
async fn limits_at_other_costs_leave_the_places_of_combinations_free() {
    let rules = Rules::new()
        .route("POST /chat", Rate::per_second(9_999))
        .route("POST /{other}", Rate::per_second(9_999))
        .cost_by(|head| head.headers().get("x-model")?.to_str().ok()?.parse().ok());
    let active = ActiveRules::new(&rules, Timeline::started_at(0), None).expect("proper rules");
    let rules = active.rules();
    let kept = (2..4_000).filter(|cost| is_kept(&rules, "/chat", &cost.to_string()));
    assert_eq!(kept.count(), 1_024, "costs");
    assert!(is_kept(&rules, "/ch%61t", "1"), "two routes");
}
