//! The work of making and reloading rules, by the number of their keys.

use super::*;
use crate::route::comparisons::COMPARED;

/// The keys before and after, by number.
type Replaced = fn(usize) -> [String; 2];

/// As often as routes are compared for 100 keys, it may be four times and a little more for 400.
fn assert_grows_with_keys(what: &str, compared: impl Fn(usize) -> usize) {
    let (few, many) = (compared(100), compared(400));
    assert!(few > 0, "{what}: nothing was counted");
    assert!(
        many <= 5 * few,
        "{what}: {few} comparisons for 100 keys, {many} for 400"
    );
}

/// Counts how often routes are compared when so many keys are replaced, and again when they come back.
fn compared(keys: usize, replaced: Replaced) -> usize {
    compared_beside(0, keys, replaced)
}

/// The same beside so many routes that nobody declared.
fn compared_beside(undeclared: usize, keys: usize, replaced: Replaced) -> usize {
    let rules = |which: usize| {
        let rules = Rules::new().default_route(Rate::per_second(9));
        let keys = (0..keys).map(|number| replaced(number)[which].clone());
        keys.fold(rules, |rules, key| rules.route(key, Rate::per_second(1)))
    };
    let live = ActiveRules::new(&rules(0), Timeline::started_at(0), None).expect("proper rules");
    for number in 0..undeclared {
        let request = Request::get(format!("/undeclared{number}/x")).body(());
        let request = request.expect("a request");
        let state = live.rules();
        let (head, mut demand) = (RequestHead::of(&request), Demand::default());
        let found = state.look_up(head, Protocol::Auto, &mut demand);
        found.expect("no reload");
    }
    COMPARED.set(0);
    for which in [1, 0] {
        live.reload(&rules(which)).expect("proper rules");
    }
    COMPARED.get()
}

#[tokio::test(start_paused = true)]
async fn the_work_of_a_reload_grows_with_the_keys_that_it_replaces_and_not_with_their_square() {
    let table: [(&str, Replaced); 6] = [
        ("another literal", |number| {
            [
                format!("GET /a{number}/{{id}}"),
                format!("GET /b{number}/{{id}}"),
            ]
        }),
        ("another literal behind a parameter", |number| {
            [
                format!("GET /{{tenant}}/a{number}"),
                format!("GET /{{tenant}}/b{number}"),
            ]
        }),
        ("another method", |number| {
            [
                format!("GET /a{number}/{{id}}"),
                format!("ANY /a{number}/{{id}}"),
            ]
        }),
        ("a greedy end", |number| {
            [
                format!("GET /a{number}/{{id}}"),
                format!("GET /a{number}/{{id+}}"),
            ]
        }),
        ("a parameter for a literal", |number| {
            [
                format!("GET /a{number}/b"),
                format!("ANY /a{number}/{{id}}"),
            ]
        }),
        ("one key that takes all", |number| {
            let all = match number {
                0 => "GET /{rest+}".to_owned(),
                number => format!("GET /b/{number}"),
            };
            [format!("GET /a{number}/{{id}}"), all]
        }),
    ];
    for (what, replaced) in table {
        assert_grows_with_keys(what, |keys| compared(keys, replaced));
    }
}

#[tokio::test(start_paused = true)]
async fn the_work_of_a_reload_is_not_the_product_of_its_keys_and_of_undeclared_routes() {
    let replaced: Replaced = |number| {
        [
            format!("GET /a{number}/{{id}}"),
            format!("GET /b{number}/{{id}}"),
        ]
    };
    let alone = compared(400, replaced);
    let beside = compared_beside(400, 400, replaced);
    assert!(
        beside <= alone + 20 * 400,
        "{beside} comparisons beside 400 undeclared routes, {alone} without"
    );
}

#[tokio::test(start_paused = true)]
async fn the_work_of_making_rules_grows_with_the_keys_of_a_plan_and_not_with_their_square() {
    assert_grows_with_keys("keys of a plan", |keys| {
        let plan = || {
            let keys = (0..keys).map(|number| format!("GET /a{number}/{{id}}"));
            keys.fold(Plan::new(Rate::per_second(9)), |plan, key| {
                plan.route(key, Rate::per_second(1))
            })
        };
        let clients = Clients::by_bearer().each(plan()).plan("pro", plan());
        let rules = Rules::new().clients(clients);
        COMPARED.set(0);
        ActiveRules::new(&rules, Timeline::started_at(0), None).expect("proper rules");
        COMPARED.get()
    });
}
