use std::collections::HashSet;

use proptest::{collection::vec, prelude::*, sample::select};

use super::{reference::Stated, *};
use crate::{
    cases::cases,
    facts::{
        MaximumMember::{self, *},
        UnreadReason,
    },
};

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Stated> {
    let mut scan = FactsScanner::new();
    for piece in pieces {
        scan.feed(piece);
    }
    let is_malformed = scan.is_malformed();
    match scan.finish() {
        Ok(facts) => {
            assert!(!is_malformed, "malformed, and read nevertheless");
            Some(Stated::from(&facts))
        }
        Err(reason) => {
            assert_eq!(reason, UnreadReason::Malformed);
            None
        }
    }
}

/// States the same however the body is cut in two or into bytes, and what the reference does.
fn assert_states(body: impl AsRef<[u8]>, stated: Option<&Stated>, what: &str) {
    let body = body.as_ref();
    let show = || String::from_utf8_lossy(body);
    assert_eq!(
        reference::facts(body).as_ref(),
        stated,
        "{what}, the reference: {}",
        show()
    );
    for cut in 0..=body.len() {
        let (one, other) = body.split_at(cut);
        assert_eq!(
            scan([one, other]).as_ref(),
            stated,
            "{what}, cut at {cut}: {}",
            show()
        );
    }
    assert_eq!(
        scan(body.chunks(1)).as_ref(),
        stated,
        "{what}, byte by byte: {}",
        show()
    );
}

fn assert_malformed(body: impl AsRef<[u8]>, what: &str) {
    assert_states(body, None, what);
}

fn members(stating: &[MaximumMember]) -> HashSet<MaximumMember> {
    stating.iter().copied().collect()
}

/// The text and its length.
fn text(bytes: u64) -> Stated {
    Stated {
        text_bytes: bytes,
        ..Stated::default()
    }
}

#[test]
fn bodies_of_known_apis() {
    let table = [
        (
            "chat completions",
            r#"{
              "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                  {"type": "text", "text": "Grüße"},
                  {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                  {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}],
              "model": "m-large", "max_completion_tokens": 300, "max_tokens": 20, "n": 2, "stream": true,
              "stream_options": {"include_usage": true}, "service_tier": "flex", "temperature": 0.7,
              "metadata": {"model": "other", "n": 9, "messages": ["not text"]}}
            "#,
            Stated {
                model: Some("m-large".to_owned()),
                service_tier: Some("flex".to_owned()),
                is_stream: true,
                max_output_tokens: Some(300),
                maximum_members: members(&[MaxTokens, MaxCompletionTokens]),
                choices: Some(2),
                text_bytes: "systemBe brief.usertextGrüßeimage_urllowinput_audiowav".len() as u64,
                items: 2,
                ..Stated::default()
            },
        ),
        (
            "messages",
            r#"{"max_tokens":1024,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/jpeg","data":"\/9j\/4AAQ"}},{"type":"text","text":"What?"}]}],"model":"opus","system":[{"type":"text","text":"Hi"}],"tools":[{"name":"t","input_schema":{"type":"object","data":{}}}]}"#,
            Stated {
                model: Some("opus".to_owned()),
                max_output_tokens: Some(1024),
                maximum_members: members(&[MaxTokens]),
                text_bytes: "userimagebase64image/jpegtextWhat?textHitobject".len() as u64
                    + "nameinput_schematypedata".len() as u64,
                items: 1,
                ..Stated::default()
            },
        ),
        (
            "generate content",
            r#"{"contents":[{"parts":[{"text":"a"},{"inlineData":{"mimeType":"b","data":"QUJD"}}]}],"systemInstruction":{"parts":[{"text":"c"}]},"generationConfig":{"maxOutputTokens":5}}"#,
            Stated {
                items: 1,
                max_output_tokens: Some(5),
                maximum_members: members(&[GenerationConfig]),
                ..text(3)
            },
        ),
        (
            "responses",
            r#"{"input":"Hello","instructions":"Be kind","model":"m","max_output_tokens":7,"stream":false}"#,
            Stated {
                model: Some("m".to_owned()),
                max_output_tokens: Some(7),
                maximum_members: members(&[MaxOutputTokens]),
                ..text(12)
            },
        ),
        (
            "completions by token ids",
            r#"{"model":"m","prompt":[[1,2,3],[4.5e0, -5]],"n":null,"logit_bias":{"50256":-100},"max_tokens":-1}"#,
            Stated {
                model: Some("m".to_owned()),
                maximum_members: members(&[MaxTokens]),
                is_output_unbounded: true,
                prompts: 2,
                token_ids: 5,
                ..Stated::default()
            },
        ),
        (
            "completions of llama.cpp",
            r#"{"prompt":["ab",{"prompt_string":"c"}],"n_predict":128,"n_cmpl":2,"cache_prompt":true}"#,
            Stated {
                max_output_tokens: Some(128),
                maximum_members: members(&[NPredict]),
                choices: Some(2),
                prompts: 2,
                ..text(3)
            },
        ),
        ("an empty object", " {} ", Stated::default()),
        ("nothing", "", Stated::default()),
    ];
    for (what, body, stated) in table {
        assert_states(body, Some(&stated), what);
    }
}

#[test]
fn names_and_tiers() {
    let longest = "m".repeat(256);
    let longest_escaped = "\\u00e9".repeat(128);
    let table = [
        (r#"{"model":"m"}"#, Some("m")),
        (r#"{"mod\u0065l":"m"}"#, Some("m")),
        (r#"{"\u006d\u006f\u0064\u0065\u006C":"m"}"#, Some("m")),
        (
            r#"{"model":"a\"b\\\/\u00fc\ud83d\uDE00ü"}"#,
            Some("a\"b\\/ü😀ü"),
        ),
        (r#"{"model":""}"#, Some("")),
        (r#"{"model":null}"#, None),
        (
            r#"{"models":"m","mode":"m","":"m","model\u0000":"m"}"#,
            None,
        ),
        (r#"{"a":{"model":"m"},"b":[{"model":7}]}"#, None),
        (r#"{"a":"model","b":["model","m"]}"#, None),
        (&format!(r#"{{"model":"{longest}"}}"#), Some(&longest)),
        (
            &format!(r#"{{"model":"{longest_escaped}"}}"#),
            Some(&"é".repeat(128)),
        ),
    ];
    for (body, model) in table {
        let named = Stated {
            model: model.map(str::to_owned),
            ..Stated::default()
        };
        assert_states(body, Some(&named), "a model");
        let tier = Stated {
            service_tier: model.map(str::to_owned),
            ..Stated::default()
        };
        // Others stay as they are, and are unknown.
        let body = body
            .replace("\"model\"", "\"service_tier\"")
            .replace("\"mod\\u0065l\"", "\"service_ti\\u0065r\"");
        if !body.contains("\\u006d") && !body.contains("models") {
            assert_states(body, Some(&tier), "a tier");
        }
    }
    for wrong in [
        "7",
        "true",
        "[]",
        "{}",
        "[\"m\"]",
        "{\"model\":\"m\"}",
        "-1",
    ] {
        assert_malformed(format!(r#"{{"model":{wrong}}}"#), "no name");
        assert_malformed(format!(r#"{{"service_tier":{wrong}}}"#), "no tier");
    }
    for too_long in [
        format!("{longest}m"),
        "m".repeat(100_000),
        format!("{longest_escaped}\\n"),
        "\u{1F600}".repeat(65),
    ] {
        let body = format!(r#"{{"model":"{too_long}"}}"#);
        assert_eq!(
            scan(body.as_bytes().chunks(7)),
            None,
            "a name that is too long"
        );
        assert_eq!(
            scan([body.as_bytes()]),
            None,
            "a name that is too long, at once"
        );
    }
}

#[test]
fn streams_and_counts() {
    for (value, is_stream) in [("true", true), ("false", false), ("null", false)] {
        let stated = Stated {
            is_stream,
            ..Stated::default()
        };
        assert_states(
            format!(r#"{{"stream":{value},"a":true}}"#),
            Some(&stated),
            "a stream",
        );
    }
    for wrong in ["1", "0", "\"true\"", "[true]", "{}"] {
        assert_malformed(format!(r#"{{"stream":{wrong}}}"#), "no stream");
    }
    let table = [
        ("0", Some(0)),
        ("1", Some(1)),
        ("4096", Some(4096)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", Some(u64::MAX)),
        ("1e3", Some(1000)),
        ("12.5", Some(13)),
        ("12.0", Some(12)),
        ("0.0001", Some(1)),
        ("1e300", Some(u64::MAX)),
        ("1e-400", Some(1)),
        ("-1", None),
        ("-0", None),
        ("-2.5e3", None),
        ("null", None),
    ];
    let below_one = ["0", "0.0001", "1e-400", "-1", "-0", "-2.5e3"];
    for (number, count) in table {
        for (name, member) in MAXIMA {
            let is_number = number != "null";
            let stated = Stated {
                max_output_tokens: count,
                maximum_members: is_number.then_some(member).into_iter().collect(),
                is_output_unbounded: below_one.contains(&number),
                ..Stated::default()
            };
            assert_states(
                format!(r#"{{"{name}":{number}}}"#),
                Some(&stated),
                "a maximum",
            );
        }
        for name in ["n", "best_of", "n_cmpl"] {
            let stated = Stated {
                choices: count,
                ..Stated::default()
            };
            let body = format!(r#"{{"{name}":{number} }}"#);
            assert_states(body, Some(&stated), "choices");
        }
    }
    for wrong in [
        "\"1000\"", "true", "[1]", "{}", "1e999", "-1e999", "01", "1.", "-", "+1", "1e", "NaN",
    ] {
        let maxima = MAXIMA.map(|(name, _)| name).into_iter();
        for name in maxima.chain(["n", "best_of", "n_cmpl"]) {
            assert_malformed(format!(r#"{{"{name}":{wrong}}}"#), "no count");
        }
    }
    for (body, most, stating) in [
        (
            r#"{"max_tokens":1,"n_predict":10000}"#,
            10_000,
            &[MaxTokens, NPredict][..],
        ),
        (
            r#"{"n_predict":10000,"max_tokens":1}"#,
            10_000,
            &[MaxTokens, NPredict],
        ),
        (
            r#"{"max_tokens":1,"max_completion_tokens":10000}"#,
            10_000,
            &[MaxTokens, MaxCompletionTokens],
        ),
        (
            r#"{"max_completion_tokens":10000,"max_tokens":1}"#,
            10_000,
            &[MaxTokens, MaxCompletionTokens],
        ),
        (
            r#"{"max_output_tokens":3,"max_completion_tokens":null,"max_tokens":2}"#,
            3,
            &[MaxTokens, MaxOutputTokens],
        ),
        (
            r#"{"a":{"max_tokens":5},"b":[{"n":5}],"max_tokens":1}"#,
            1,
            &[MaxTokens],
        ),
    ] {
        let stated = Stated {
            max_output_tokens: Some(most),
            maximum_members: members(stating),
            ..Stated::default()
        };
        assert_states(body, Some(&stated), "the largest");
    }
    for body in [
        r#"{"n":1,"best_of":8}"#,
        r#"{"best_of":8,"n":1}"#,
        r#"{"n":8,"best_of":-1,"n_cmpl":2}"#,
        r#"{"n_cmpl":8,"best_of":null}"#,
    ] {
        let stated = Stated {
            choices: Some(8),
            ..Stated::default()
        };
        assert_states(body, Some(&stated), "the most answers");
    }
}

/// To llama.cpp `n_predict` wins over `max_tokens`, and −1 means no maximum. Ollama reads a fraction as the integer
/// below, and zero means no maximum there.
#[test]
fn a_maximum_below_one_hides_behind_no_other() {
    for (stated, most, stating) in [
        (
            r#""max_tokens":2,"n_predict":-1"#,
            Some(2),
            &[MaxTokens, NPredict][..],
        ),
        (
            r#""n_predict":-1,"max_tokens":2"#,
            Some(2),
            &[MaxTokens, NPredict],
        ),
        (r#""n_predict":-2"#, None, &[NPredict]),
        (
            r#""max_output_tokens":-1,"max_tokens":2"#,
            Some(2),
            &[MaxTokens, MaxOutputTokens],
        ),
        (
            r#""options":{"num_predict":0},"max_tokens":2"#,
            Some(2),
            &[MaxTokens, Options],
        ),
        (
            r#""max_tokens":2,"options":{"num_predict":0.5}"#,
            Some(2),
            &[MaxTokens, Options],
        ),
        (
            r#""generationConfig":{"maxOutputTokens":-1}"#,
            None,
            &[GenerationConfig],
        ),
    ] {
        let body = format!("{{{stated}}}");
        let stated = Stated {
            max_output_tokens: most,
            maximum_members: members(stating),
            is_output_unbounded: true,
            ..Stated::default()
        };
        assert_states(body, Some(&stated), "no maximum");
    }
    for members in [
        r#""n":0,"best_of":-1"#,
        r#""n_predict":null"#,
        r#""generationConfig":{"candidateCount":0,"topK":-1}"#,
        r#""metadata":{"n_predict":-1}"#,
    ] {
        let body = format!("{{{members}}}");
        let stated = scan([body.as_bytes()]).expect("a readable body");
        assert!(!stated.is_output_unbounded, "{members}");
    }
}

#[test]
fn prompts_are_values_of_the_array_that_are_answered() {
    for (value, prompts, ids, bytes) in [
        (r#""a""#, 0, 0, 1),
        ("[]", 0, 0, 0),
        (r#"["a"]"#, 1, 0, 1),
        (r#"["a","b" , "c"]"#, 3, 0, 3),
        ("[1,2,3]", 0, 3, 0),
        ("[[1,2],[3],[]]", 3, 3, 0),
        (r#"[1,"a",[2,["b"]]]"#, 2, 2, 2),
        (r#"[{"a":["b"]},null,true]"#, 1, 0, 1),
        (r#"[{"a":"b"},{"a":"b"}, {"a":"b"}]"#, 3, 0, 3),
        (r#"{"a":["b","c"]}"#, 0, 0, 2),
    ] {
        let stated = Stated {
            prompts,
            token_ids: ids,
            ..text(bytes)
        };
        let body = format!(r#"{{"prompt":{value},"stop":["x","y"]}}"#);
        assert_states(body, Some(&stated), "prompts");
        let stated = Stated {
            prompts: 0,
            ..stated
        };
        assert_states(
            format!(r#"{{"input":{value}}}"#),
            Some(&stated),
            "no prompts",
        );
    }
}

const MAXIMA: [(&str, MaximumMember); 4] = [
    ("max_tokens", MaxTokens),
    ("max_completion_tokens", MaxCompletionTokens),
    ("max_output_tokens", MaxOutputTokens),
    ("n_predict", NPredict),
];

const TEXTS: [&str; 18] = [
    "messages",
    "input",
    "prompt",
    "system",
    "contents",
    "instructions",
    "tools",
    "system_instruction",
    "systemInstruction",
    "suffix",
    "prediction",
    "functions",
    "response_format",
    "documents",
    "query",
    "inputs",
    "message",
    "chat_history",
];

#[test]
fn a_member_is_given_once() {
    let facts = [
        "model",
        "service_tier",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n_predict",
        "n",
        "best_of",
        "n_cmpl",
        "generationConfig",
        "generation_config",
        "inferenceConfig",
        "options",
    ];
    for name in facts.into_iter().chain(TEXTS) {
        assert_malformed(format!(r#"{{"{name}":null,"{name}":null}}"#), "twice");
        assert_malformed(
            format!(r#"{{"{name}":null,"a":[{{}}],"{}":null}}"#, escaped(name)),
            "twice, escaped",
        );
        assert_states(
            format!(r#"{{"{name}":null,"a":{{"{name}":1}}}}"#),
            Some(&Stated::default()),
            "once",
        );
    }
    assert_states(
        r#"{"a":1,"a":2,"user":"x","user":"y"}"#,
        Some(&Stated::default()),
        "others",
    );
    assert_states(
        r#"{"system_instruction":"a","systemInstruction":"b"}"#,
        Some(&text(2)),
        "two names",
    );
}

fn escaped(name: &str) -> String {
    name.bytes().map(|byte| format!("\\u{byte:04X}")).collect()
}

/// The bytes of the names in a value, which count where they are a part of a schema.
fn names_in(member: &str, value: &str) -> u64 {
    fn count(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(values) => values.iter().map(count).sum(),
            serde_json::Value::Object(members) => {
                let members = members.iter();
                members.map(|(name, value)| name.len() + count(value)).sum()
            }
            _ => 0,
        }
    }
    match member {
        "tools" | "functions" | "response_format" => {
            count(&serde_json::from_str(value).expect("JSON")) as u64
        }
        _ => 0,
    }
}

/// The prompts of a value.
fn prompts_in(member: &str, value: &str) -> u64 {
    match serde_json::from_str(value) {
        Ok(serde_json::Value::Array(values)) if member == "prompt" => {
            let is_prompt = |value: &&serde_json::Value| {
                value.is_string() || value.is_array() || value.is_object()
            };
            values.iter().filter(is_prompt).count() as u64
        }
        _ => 0,
    }
}

#[test]
fn text_is_counted_as_it_is_decoded() {
    let table = [
        (r#""""#, 0),
        (r#""abc""#, 3),
        (r#""a\n\"\\\/\b\f\r\tb""#, 10),
        (r#""\u0061\u00fc\u20ac\ud83d\ude00""#, 1 + 2 + 3 + 4),
        (r#""aü€😀""#, 1 + 2 + 3 + 4),
        (r#"["ab",["c",{"d":"ef","g":["h"]}],7,null,true]"#, 6),
        (r#"{"data":["abc"],"bytes":{"x":"yz"},"file_data":1}"#, 5),
        (r#"{"a":{"b":[{"c":["d"]},"e"]},"f":"g"}"#, 3),
        (r#"" data:abc""#, 9),
        (r#""data""#, 4),
        (r#""xdata:""#, 6),
        (r#""data;x""#, 6),
        (r#""data: and so on""#, 15),
        (r#""data:\u0020x""#, 7),
        (r#""data:\nx""#, 7),
        (r#""data:ü""#, 7),
        (r#""data:\u00fc""#, 7),
        (r#""dat\u00e4:""#, 6),
        (r#"{"data":"two words"}"#, 9),
        (r#"{"data":"ü"}"#, 2),
        (r#"{"data":"a\tb"}"#, 3),
        (r#"{"data":{},"x":"yz"}"#, 2),
        (r#"{"DATA":"abc"}"#, 3),
        (r#"[{"data":1},"x"]"#, 1),
        (r#"[{"data":[]},["x",{"y":"z"}]]"#, 2),
    ];
    for (value, bytes) in table {
        for name in TEXTS {
            let mut stated = text(bytes + names_in(name, value));
            stated.prompts = prompts_in(name, value);
            stated.token_ids =
                u64::from(value.contains(",7,") && ["input", "prompt"].contains(&name));
            let body = format!(r#"{{"{name}":{value},"other":{value}}}"#);
            assert_states(body, Some(&stated), "text");
        }
        assert_states(
            format!(r#"{{"metadata":{value}}}"#),
            Some(&Stated::default()),
            "no text",
        );
    }
}

/// Go's parser takes a name in any case, and of two the last.
#[test]
fn a_name_in_another_case_is_malformed() {
    for name in [
        "Model",
        "MODEL",
        "mod\\u0045l",
        "Messages",
        "N",
        "Max_Tokens",
        "N_predict",
        "BEST_OF",
        "systeminstruction",
    ] {
        assert_malformed(format!(r#"{{"{name}":null}}"#), "another case");
    }
    let nested = r#"{"metadata":{"Model":"m","N":1}}"#;
    assert_states(nested, Some(&Stated::default()), "nested");
}

#[test]
fn encoded_data_is_an_item() {
    let table = [
        (r#""data:""#, 1),
        (r#""data:image/png;base64,AAAA""#, 1),
        (r#""DaTa:x""#, 1),
        (r#""\u0064\u0061ta\u003ax\/y\"""#, 1),
        (r#"["data:,","data:,",["data:,"]]"#, 3),
        (r#"{"data":""}"#, 1),
        (r#"{"data":"QUJD","bytes":"QUJD","file_data":"data:x"}"#, 3),
        (r#"{"d\u0061ta":"QUJD\/\u002b="}"#, 1),
        (r#"{"a":{"data":"x"},"bytes":"y"}"#, 2),
    ];
    for (value, items) in table {
        for name in TEXTS {
            let stated = Stated {
                items,
                prompts: prompts_in(name, value),
                ..text(names_in(name, value))
            };
            assert_states(
                format!(r#"{{"{name}":{value},"data":"x"}}"#),
                Some(&stated),
                "items",
            );
        }
    }
}

#[test]
fn a_name_for_data_has_no_part_in_the_next_member() {
    let stated = Stated {
        items: 1,
        ..text(3)
    };
    for members in [
        r#""messages":[{"data":"x"}],"input":"abc""#,
        r#""messages":{"data":"x"},"a":{"bytes":1},"input":"abc""#,
        r#""messages":[{"data":"x"},"abc"]"#,
    ] {
        assert_states(format!("{{{members}}}"), Some(&stated), "the next member");
    }
}

#[test]
fn settings_of_other_apis_state_the_output() {
    let stated = |max_output_tokens, stating: &[MaximumMember], choices| Stated {
        max_output_tokens,
        maximum_members: members(stating),
        choices,
        ..Stated::default()
    };
    let table = [
        (
            r#""generationConfig":{"maxOutputTokens":8,"candidateCount":2}"#,
            Some(stated(Some(8), &[GenerationConfig], Some(2))),
        ),
        (
            r#""generation_config":{"max_output_tokens":8.5,"candidate_count":null}"#,
            Some(stated(Some(9), &[GenerationConfig], None)),
        ),
        (
            r#""inferenceConfig":{"a":{"maxTokens":99},"maxTokens":3}"#,
            Some(stated(Some(3), &[InferenceConfig], None)),
        ),
        (
            r#""options":{"num_predict":-1}"#,
            Some(Stated {
                maximum_members: members(&[Options]),
                is_output_unbounded: true,
                ..Stated::default()
            }),
        ),
        // The larger of several counts, in whatever order.
        (
            r#""options":{"num_predict":9},"max_tokens":4"#,
            Some(stated(Some(9), &[MaxTokens, Options], None)),
        ),
        (
            r#""n":1,"generationConfig":{"candidateCount":5}"#,
            Some(stated(None, &[], Some(5))),
        ),
        (
            r#""generationConfig":{"candidateCount":5},"n":1"#,
            Some(stated(None, &[], Some(5))),
        ),
        (
            r#""generationConfig":{"maxOutputTokens":1},"options":{"num_predict":2}"#,
            Some(stated(Some(2), &[GenerationConfig, Options], None)),
        ),
        // A setting of another API, which no server reads there.
        (
            r#""options":{"maxOutputTokens":9,"maxTokens":true}"#,
            Some(stated(None, &[], None)),
        ),
        (
            r#""generation_config":{"num_predict":9,"num_predict":1}"#,
            Some(stated(None, &[], None)),
        ),
        (
            r#""inferenceConfig":{"NUM_PREDICT":9,"candidateCount":2,"maxTokens":1}"#,
            Some(stated(Some(1), &[InferenceConfig], None)),
        ),
        // Nowhere else.
        (
            r#""options":[{"num_predict":9}]"#,
            Some(stated(None, &[], None)),
        ),
        (r#""options":"num_predict""#, Some(stated(None, &[], None))),
        (
            r#""metadata":{"num_predict":9},"num_predict":8"#,
            Some(stated(None, &[], None)),
        ),
        (
            r#""options":{"num_ctx":[1,"x",{"num_predict":7}]},"seed":3"#,
            Some(stated(None, &[], None)),
        ),
        // Some servers read numbers in strings.
        (r#""generationConfig":{"maxOutputTokens":"8192"}"#, None),
        (r#""generationConfig":{"maxOutputTokens": "8192"}"#, None),
        (r#""generationConfig":{"maxOutputTokens":[1]}"#, None),
        (r#""generationConfig":{"maxOutputTokens":true}"#, None),
        (r#""generationConfig":{},"generationConfig":{}"#, None),
        // To Gemini both are one.
        (r#""generationConfig":{},"generation_config":{}"#, None),
        // Servers disagree on which of two counts.
        (r#""options":{"num_predict":1,"num_predict":null}"#, None),
        (
            r#""inferenceConfig":{"maxTokens":null,"maxTokens":1}"#,
            None,
        ),
        (
            r#""generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}"#,
            None,
        ),
        (
            r#""generationConfig":{"candidateCount":1,"a":{},"candidate_count":9}"#,
            None,
        ),
        // Go's parser takes them for the names that are read.
        (
            r#""generationConfig":{"maxOutputTokens":1,"MaxOutputTokens":9}"#,
            None,
        ),
        (r#""options":{"Num_Predict":1}"#, None),
        ("\"inferenceConfig\":{\"maxTo\u{212A}ens\":1}", None),
        ("\"option\u{17F}\":{}", None),
        (r#""option\u017f":{}"#, None),
        (r#""max_to\u212aens":9"#, None),
        ("\"me\u{17F}\u{17F}ages\":[]", None),
        (
            "\"\u{17F}\":1,\"me\u{17F}\":1",
            Some(stated(None, &[], None)),
        ),
        (r#""GenerationConfig":{}"#, None),
    ];
    for (members, stated) in table {
        assert_states(format!("{{{members}}}"), stated.as_ref(), "settings");
    }
}

#[test]
fn token_ids_are_numbers_in_arrays() {
    for name in ["prompt", "input"] {
        for (value, ids) in [
            ("[]", 0),
            ("[1]", 1),
            ("[ 15 , 0,-3, 2.5 ,1e3]", 5),
            ("[[1,2],[3,[4]]]", 4),
            ("7", 0),
            ("{\"a\":7,\"b\":[8,{\"c\":9}]}", 1),
            ("[null,true,{}]", 0),
        ] {
            let stated = Stated {
                prompts: prompts_in(name, value),
                token_ids: ids,
                ..Stated::default()
            };
            assert_states(
                format!(r#"{{"{name}":{value},"a":[1,2]}}"#),
                Some(&stated),
                "token ids",
            );
            let body = format!(r#"{{"messages":{value},"x":{value}}}"#);
            assert_states(body, Some(&Stated::default()), "elsewhere");
        }
    }
}

#[test]
fn all_that_is_no_json_object_is_malformed() {
    let whole = [
        " ",
        "null",
        "[]",
        "\"\"",
        "7",
        "true",
        "[{}]",
        "{}{}",
        "{},",
        "{}x",
        "x{}",
        "{",
        "}",
        "{]",
        "\u{feff}{}",
        "{}\u{feff}",
        "{}\0",
        "\u{a0}{}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":1}",
        "{\"a\":1",
        "{\"a",
        "{\"model\":\"m\"",
        "{\"a\":1]",
        "{\"a\":[1}",
        r#"{"a":"b"},{"c":"d"}"#,
        r#"{"a":{"b":"c"},{"d":"e"}}"#,
        r#"{"a":["b"},{"c":"d"}]}"#,
        r#"{"a":[{"b":"c"},{"d"]}"#,
    ];
    for body in whole {
        assert_malformed(body, "no object");
    }
    let values: &[&[u8]] = &[
        b"tru",
        b"True",
        b"truee",
        b"nul",
        b"nulx",
        b"fals",
        b"01",
        b"-",
        b"+1",
        b"1.",
        b".5",
        b"1.e1",
        b"1e",
        b"1e+",
        b"--1",
        b"0x1",
        b"-01",
        b"1e999",
        b"-1e999",
        b"1e309",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[",
        b"]",
        b"'a'",
        b"\"\\x\"",
        b"\"\\u12G4\"",
        b"\"\\u12\"",
        b"\"\\U0041\"",
        b"\"\t\"",
        b"\"\n\"",
        b"\"\0\"",
        b"\"\x1F\"",
        b"\"",
        b"\"\\ud800\"",
        b"\"\\udc00\"",
        b"\"\\ud800\\u0041\"",
        b"\"\\ud800\\ud800\"",
        b"\"\\ud800\\n\"",
        b"\"\\ud800x\\udc00\"",
        b"\"\\udbff\\ue000\"",
        b"\"\\ud800\\ue000\"",
        b"\"\\ud83d\\uffff\"",
        b"\"\xFF\"",
        b"\"\xC3\"",
        b"\"\xC3\\n\"",
        b"\"\xC3(\"",
        b"\"\xE2\x82\"",
        b"\"\xED\xA0\x80\"",
        b"\"\xF0\x9F\x98\"",
        b"\"\xF4\x90\x80\x80\"",
        b"\"\xC0\x80\"",
        b"\"\x80\"",
        b"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xE2\x82\"",
    ];
    for value in values {
        for name in ["a", "messages", "input", "model"] {
            let body = [b"{\"", name.as_bytes(), b"\":", *value, b"}"].concat();
            assert_malformed(&body, "a value");
            let body = [b"{\"", name.as_bytes(), b"\":[{\"data\":", *value, b"}]}"].concat();
            assert_malformed(&body, "a value inside");
        }
        if value.len() > 2 && value.starts_with(b"\"") {
            assert_malformed([&b"{"[..], value, b":1}"].concat(), "a name");
            assert_malformed(
                [&b"{\"tools\":{"[..], value, b":1}}"].concat(),
                "a name in the text",
            );
            assert_malformed(
                [&b"{\"a\":{"[..], value, b":1}}"].concat(),
                "a name elsewhere",
            );
        }
    }
}

#[test]
fn as_deep_as_serde_json_and_no_deeper() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for depth in 60..140 {
            for name in ["a", "input"] {
                let (open, close) = (open.repeat(depth), close.repeat(depth));
                let body = format!("{{\"{name}\":{open}1{close}}}");
                let stated = reference::facts(body.as_bytes());
                assert_eq!(scan([body.as_bytes()]), stated, "{depth} × {open}");
            }
        }
    }
}

/// Whatever floods it, a scan stays as it is.
#[test]
fn floods() {
    assert!(
        size_of::<FactsScanner>() <= 576,
        "{}",
        size_of::<FactsScanner>()
    );
    let floods: [(&str, &str, &str); 9] = [
        ("", " ", "{}"),
        ("{\"", "model", "\":1}"),
        ("{\"a\":\"", "\\ud83d\\ude00", "\"}"),
        ("{\"messages\":\"", "data:", "\"}"),
        ("{\"messages\":\"", "ü ", "\"}"),
        ("{\"a\":0.", "0", "}"),
        ("{\"a\":1e-", "9", "}"),
        ("{\"a\":[1", ",1", "]}"),
        ("{\"a\":1", ",\"a\":1", "}"),
    ];
    for (head, flood, tail) in floods {
        let mut scan = FactsScanner::new();
        scan.feed(head.as_bytes());
        let flood = flood.repeat(1 << 12);
        for _ in 0..16 {
            scan.feed(flood.as_bytes());
        }
        scan.feed(tail.as_bytes());
        assert!(scan.finish().is_ok(), "{head}…");
    }
}

/// White space between two parts of a JSON text.
fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{1,2}"]
}

fn name(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let escaped = prop_oneof![6 => Just(0u32), 1 => any::<u32>()];
    (select(names), escaped).prop_map(|(name, escaped)| {
        let spell = |(at, byte): (usize, u8)| match escaped >> at & 1 {
            1 => format!("\\u{byte:04x}"),
            _ => char::from(byte).to_string(),
        };
        let spelt: String = name.bytes().enumerate().map(spell).collect();
        format!("\"{spelt}\"")
    })
}

const SETTINGS: &[&str] = &[
    "maxOutputTokens",
    "max_output_tokens",
    "maxTokens",
    "num_predict",
    "candidateCount",
    "seed",
];

const MEMBERS: &[&str] = &[
    "model",
    "service_tier",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "n",
    "best_of",
    "n_cmpl",
    "messages",
    "input",
    "prompt",
    "system",
    "contents",
    "instructions",
    "tools",
    "system_instruction",
    "systemInstruction",
    "user",
    "metadata",
    "mode",
    "models",
];
const NAMES: &[&str] = &[
    "data",
    "file_data",
    "bytes",
    "text",
    "url",
    "model",
    "dat",
    "",
];

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..5000u64).prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        select(&["-1", "-0", "0", "0.5", "1e3", "1e999", "null", "1e-999"][..])
            .prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
    ]
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[a-z ]{0,40}",
        2 => select(&["data:", "\\n", "\\\"", "\\/", "\\u0064", "\\u00fC", "\\ud83d\\ude00", "ü", "€", "😀", "\\u0020",
                      "\\ud800", "\\udc00", "\\\\", "\\x"][..]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9+/]{0,80}",
        1 => "[一-龥]{0,30}",
    ];
    (prop::option::weighted(0.2, Just("data:")), vec(part, 0..4))
        .prop_map(|(scheme, parts)| format!("\"{}{}\"", scheme.unwrap_or_default(), parts.concat()))
}

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => number(),
        2 => string(),
        1 => select(&["null", "true", "false"][..]).prop_map(str::to_owned),
    ]
}

fn array(value: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    (vec(value, 0..4), space())
        .prop_map(|(values, space)| format!("[{space}{}]", values.join(&format!("{space},"))))
}

fn object(
    names: &'static [&'static str],
    value: BoxedStrategy<String>,
) -> impl Strategy<Value = String> {
    let member = (name(names), space(), space(), value)
        .prop_map(|(name, before, after, value)| format!("{name}{before}:{after}{value}{before}"));
    (vec(member, 0..5), space())
        .prop_map(|(members, space)| format!("{{{space}{}}}", members.join(&format!(",{space}"))))
}

/// A member of the top-level object, mostly with a value of the right type.
fn member() -> impl Strategy<Value = String> {
    let any = leaf().prop_recursive(4, 24, 4, |value| {
        prop_oneof![array(value.clone()), object(NAMES, value)]
    });
    let any = any.boxed();
    let value = prop_oneof![3 => number(), 1 => any.clone()];
    let settings = object(SETTINGS, value.boxed());
    prop_oneof![
        3 => (name(&["model", "service_tier"]), string()),
        1 => (name(&["stream"]), select(&["true", "false", "null"][..]).prop_map(str::to_owned)),
        3 => (name(&["max_tokens", "max_completion_tokens", "n_predict", "n", "best_of"]), number()),
        2 => (name(&["generationConfig", "inferenceConfig", "options"]), settings),
        8 => (name(&["messages", "input", "prompt", "tools", "user"]), any.clone()),
        1 => (name(MEMBERS), any),
    ]
    .prop_map(|(name, value)| format!("{name}:{value}"))
}

fn body() -> impl Strategy<Value = String> {
    (vec(member(), 0..5), space())
        .prop_map(|(members, space)| format!("{space}{{{}{space}}}{space}", members.join(",")))
}

/// A place and a byte that is put there, is put in its place, or makes a hole there.
fn damage() -> impl Strategy<Value = Option<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![
        select(&b"{}[]\":,\\0-.eu \n\rd\x80\xE4\xC3"[..]),
        any::<u8>()
    ];
    prop::option::weighted(0.3, (any::<prop::sample::Index>(), byte, 0..3u8))
}

fn damaged(mut body: Vec<u8>, damage: Option<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    if let Some((at, byte, how)) = damage.filter(|_| !body.is_empty()) {
        let at = at.index(body.len());
        match how {
            0 => body.insert(at, byte),
            1 => body[at] = byte,
            _ => drop(body.remove(at)),
        }
    }
    body
}

fn assert_agrees(body: &[u8], cuts: &[prop::sample::Index]) -> Result<(), TestCaseError> {
    let stated = reference::facts(body);
    let show = body.escape_ascii();
    prop_assert_eq!(&scan([body]), &stated, "at once: {}", show);
    prop_assert_eq!(&scan(body.chunks(1)), &stated, "byte by byte: {}", show);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    cuts.push(body.len());
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut read = 0;
    for &cut in &cuts {
        pieces.push(&body[read..cut]);
        read = cut;
    }
    prop_assert_eq!(&scan(pieces), &stated, "cut at {:?}: {}", cuts, show);
    Ok(())
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn bodies_as_serde_json_reads_them(
        body in body(),
        damage in damage(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        assert_agrees(&damaged(body.into_bytes(), damage), &cuts)?;
    }

    #[test]
    fn any_bytes(
        bytes in vec(any::<u8>(), 0..60),
        is_string: bool,
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let body = match is_string {
            true => [b"{\"input\":\"", &bytes[..], b"\"}"].concat(),
            false => bytes,
        };
        assert_agrees(&body, &cuts)?;
    }
}
