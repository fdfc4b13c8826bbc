//! The words from which a limit without a name of its own is named.
//!
//! A stem is a function of one place alone, so that no other rule changes it. Two places have different stems: where
//! the readable words could be those of another place as well, a hash of the place stands behind them.

use crate::route::{RouteKey, key::Pattern};

/// Everything that passes the throttle.
pub(super) const TOTAL: &str = "total";

/// The default route.
pub(super) const DEFAULT: &str = "default";

/// Each client without a plan.
pub(super) const CLIENT: &str = "client";

/// The beginning of all names of models.
const MODEL: &str = "model";

/// The key `$default`.
const CATCH_ALL: &str = "catch_all";

/// The most characters of a stem, and of a name that a user gives. Longer stems are cut and end in a hash.
pub(in crate::rules) const LONGEST: usize = 64;

const METHODS: [&str; 10] = [
    "any", "get", "head", "post", "put", "delete", "patch", "options", "connect", "trace",
];

/// Words that stand behind a stem to tell the limits of one scope apart.
const ENDINGS: [&str; 14] = [
    "tokens", "input", "output", "spend", "flight", "daily", "weekly", "monthly", "shadow",
    "second", "minute", "hour", "day", DEGRADED,
];

/// The word behind the stem of a second budget.
pub(super) const DEGRADED: &str = "degraded";

/// Names a declared route: `POST /v1/chat/{id}` is `post_v1_chat__id`.
pub(super) fn of_route(key: &RouteKey) -> String {
    if *key.pattern() == Pattern::Default {
        return CATCH_ALL.to_owned();
    }
    let (method, path) = key.as_str().split_once(' ').unwrap_or_default();
    let method = method.to_ascii_lowercase();
    let mut is_plain = METHODS.contains(&&*method);
    let mut words = method;
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments = path.split('/').filter(|_| !path.is_empty());
    for segment in segments.clone() {
        let inner = segment.strip_prefix('{');
        let inner = inner.and_then(|rest| rest.strip_suffix('}'));
        let (mark, word) = match inner {
            None => ("_", segment),
            Some(name) if name.starts_with('*') || name.ends_with('+') => {
                ("___", name.trim_matches(['*', '+']))
            }
            Some(name) => ("__", name),
        };
        is_plain &= !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        words.push_str(mark);
        words.push_str(word);
    }
    is_plain &= !segments.next_back().is_some_and(is_ending);
    finish(&words, is_plain, key.as_str())
}

/// Names the clients of a plan, or each client without one.
pub(super) fn of_clients(plan: Option<&str>) -> String {
    let Some(plan) = plan else {
        return CLIENT.to_owned();
    };
    let mut words = plan.split('_');
    let is_ambiguous = [TOTAL, DEFAULT, CLIENT, CATCH_ALL, MODEL].contains(&plan)
        || words
            .clone()
            .any(|word| word == MODEL || METHODS.contains(&word))
        || plan.contains('_') && words.next_back().is_some_and(is_ending);
    finish(plan, !is_ambiguous, &format!("plan {plan}"))
}

/// Names the clients of a plan on one route.
pub(super) fn of_clients_on_route(plan: Option<&str>, key: &RouteKey) -> String {
    format!("{}_{}", of_clients(plan), of_route(key))
}

/// Names a model: `llama-70b` is `model_llama_70b`, with a hash of its name, since most names have other characters
/// than a name of a limit.
pub(super) fn of_model(model: &str) -> String {
    let words = format!("model_{model}");
    let is_plain = model.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !is_ending(model);
    finish(&words, is_plain, &words)
}

/// Names the clients of a plan on one model.
pub(super) fn of_clients_on_model(plan: Option<&str>, model: &str) -> String {
    format!("{}_{}", of_clients(plan), of_model(model))
}

/// Returns whether a word could be one that tells the limits of one scope apart.
fn is_ending(word: &str) -> bool {
    let digits = word.trim_end_matches(['n', 's']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number || ENDINGS.contains(&word)
}

/// Makes a name of `words`, with a hash of the place where they do not tell it from all others.
fn finish(words: &str, is_plain: bool, place: &str) -> String {
    if is_plain && words.len() <= LONGEST {
        return words.to_owned();
    }
    let mut name = String::new();
    for character in words.chars() {
        let fits = character.is_ascii_alphanumeric();
        if fits {
            name.push(character);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    name.truncate(LONGEST - 9);
    format!("{}_{}", name.trim_matches('_'), hash(place))
}

/// Eight hexadecimal digits that are the same for the same text in every process and version: FNV-1a.
pub(super) fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:08x}", (hash ^ hash >> 32) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn stem(key: &str) -> String {
        of_route(&key.parse().expect("a route key"))
    }

    #[test]
    fn a_route_is_named_after_its_method_and_path() {
        let table = [
            ("POST /v1/chat/completions", "post_v1_chat_completions"),
            ("GET /", "get"),
            ("ANY /health", "any_health"),
            ("GET /pets/{id}", "get_pets__id"),
            ("ANY /{proxy+}", "any___proxy"),
            ("GET /files/{*rest}", "get_files___rest"),
            ("$default", "catch_all"),
            // Words that other keys have as well take a hash of the key.
            ("GET /pets/", "get_pets_"),
            ("POST /v1/chat-completions", "post_v1_chat_completions_"),
            ("POST /v1/chat_completions", "post_v1_chat_completions_"),
            ("POST /pkg.v1.Chat/Stream", "post_pkg_v1_Chat_Stream_"),
            ("GET /v1/tokens", "get_v1_tokens_"),
            ("GET /v1/2", "get_v1_2_"),
            ("PURGE /cache", "purge_cache_"),
            ("GET /caf%C3%A9", "get_caf_C3_A9_"),
            ("POST /v1/{model}:run", "post_v1_model_run_"),
            ("POST /v1/{model}run", "post_v1_model_run_"),
        ];
        for (key, words) in table {
            let name = stem(key);
            match words.ends_with('_') {
                false => assert_eq!(name, words, "{key}"),
                true => {
                    let hash = name.strip_prefix(words).expect(&name);
                    assert!(hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
                }
            }
        }
        assert_eq!(
            stem("POST /v1/chat-completions"),
            "post_v1_chat_completions_2e5e0cbf",
            "the same in every version"
        );
        assert_eq!(
            stem("POST /inference.v1.Inference/Generate"),
            "post_inference_v1_Inference_Generate_599ad515"
        );
    }

    #[test]
    fn plans_that_could_be_read_as_something_else_take_a_hash() {
        let key = "GET /x".parse().expect("a route key");
        assert_eq!(of_clients(None), "client");
        assert_eq!(of_clients(Some("free_tier")), "free_tier");
        assert_eq!(of_clients_on_route(None, &key), "client_get_x");
        assert_eq!(of_clients_on_route(Some("pro"), &key), "pro_get_x");
        for plan in ["total", "client", "pro_get_x", "get", "pro_tokens", "pro_2"] {
            let name = of_clients(Some(plan));
            assert_eq!(name, format!("{plan}_{}", hash(&format!("plan {plan}"))));
        }
    }

    #[test]
    fn a_long_key_is_cut_and_told_apart_by_its_hash() {
        let key = |end: &str| format!("GET /{}/{end}", "a".repeat(100));
        let (one, other) = (stem(&key("b")), stem(&key("c")));
        assert_eq!((one.len(), other.len()), (LONGEST, LONGEST));
        assert_ne!(one, other);
    }

    proptest! {
        #[test]
        fn different_keys_have_different_names_made_of_letters_digits_and_underscores(
            keys in prop::collection::hash_set(
                "(GET|POST|ANY|HEAD|PURGE) (/(a|b|A|a_b|a-b|_|2|tokens|get|\\{a\\}|\\{a\\}a|\\{a\\}:a|\\{b\\}:a|\\{b\\}|é|))(/(a|b|a\\.b|shadow|in|flight|\\{c\\}|\\{d\\+\\}|))?",
                0..12,
            ),
        ) {
            let mut names = HashMap::new();
            for text in keys {
                let Ok(key) = text.parse::<RouteKey>() else { continue };
                let name = of_route(&key);
                prop_assert!(name.len() <= LONGEST);
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
                let other = names.insert(name.clone(), key.clone());
                prop_assert!(other.is_none_or(|other| other == key), "{} for {}", name, text);
            }
        }
    }
}
