//! The documented shapes of each vendor's answers: whole, streamed, failed, and cut short at any byte.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::cases::cases;

fn tokens(input: u64, cached: u64, write: u64, output: u64) -> TokenUsage {
    TokenUsage::new()
        .input(input)
        .cached_input(cached)
        .cache_write(write)
        .output(output)
}

fn report(kind: MediaType, answer: &str, ended: bool) -> ScanReport {
    let mut scan = UsageScanner::new(kind);
    scan.read(answer.as_bytes());
    scan.report(ended)
}

#[test]
fn whole_answers() {
    let table = [
        (
            "OpenAI, with cached tokens and reasoning",
            r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,"prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":200,"audio_tokens":0}}}"#,
            tokens(176, 1024, 0, 300),
        ),
        (
            "OpenAI embeddings",
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[-0.0069,2.5e-05]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            tokens(8, 0, 0, 0),
        ),
        (
            "OpenAI Responses",
            r#"{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":6},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}}"#,
            tokens(30, 6, 0, 87),
        ),
        (
            "OpenAI transcriptions",
            r#"{"text":"hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#,
            tokens(14, 0, 0, 45),
        ),
        (
            "OpenAI images",
            r#"{"created":1,"data":[{"b64_json":"aGk="}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
            tokens(50, 0, 0, 50),
        ),
        (
            "Grok, whose total has reasoning of its own",
            r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":215,"completion_tokens_details":{"reasoning_tokens":200}}}"#,
            tokens(10, 0, 0, 205),
        ),
        (
            "a proxy that repeats cached tokens in Anthropic's names",
            r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":60},"cache_read_input_tokens":60,"cache_creation_input_tokens":20}}"#,
            tokens(20, 60, 20, 5),
        ),
        (
            "Anthropic",
            r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"hi"},{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1}}],"stop_reason":"end_turn","usage":{"input_tokens":2095,"cache_creation_input_tokens":1000,"cache_read_input_tokens":500,"cache_creation":{"ephemeral_5m_input_tokens":1000,"ephemeral_1h_input_tokens":0},"output_tokens":503,"service_tier":"standard"}}"#,
            tokens(2095, 500, 1000, 503),
        ),
        (
            "Gemini",
            r#"{"candidates":[{"content":{"parts":[{"text":"hi"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":20,"thoughtsTokenCount":300,"toolUsePromptTokenCount":7,"totalTokenCount":427,"promptTokensDetails":[{"modality":"TEXT","tokenCount":100}]},"modelVersion":"gemini-2.5-flash"}"#,
            tokens(67, 40, 0, 320),
        ),
        (
            "Gemini, blocked",
            r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#,
            tokens(9, 0, 0, 0),
        ),
        (
            "Bedrock Converse",
            r#"{"metrics":{"latencyMs":1},"output":{"message":{"content":[{"text":"hi"}],"role":"assistant"}},"stopReason":"end_turn","usage":{"cacheReadInputTokens":200,"cacheWriteInputTokens":30,"inputTokens":12,"outputTokens":7,"totalTokens":249}}"#,
            tokens(12, 200, 30, 7),
        ),
        (
            "Bedrock Converse, whose total leaves the cache out",
            r#"{"usage":{"cacheReadInputTokens":200,"inputTokens":12,"outputTokens":7,"totalTokens":19}}"#,
            tokens(12, 200, 0, 7),
        ),
        (
            "Cohere",
            r#"{"id":"1","finish_reason":"COMPLETE","message":{"role":"assistant","content":[{"type":"text","text":"hi"}]},"usage":{"billed_units":{"input_tokens":5,"output_tokens":418},"tokens":{"input_tokens":71,"output_tokens":418}}}"#,
            tokens(5, 0, 0, 418),
        ),
        (
            "Cohere, version 1",
            r#"{"text":"hi","generation_id":"1","meta":{"api_version":{"version":"1"},"billed_units":{"input_tokens":6,"output_tokens":3},"tokens":{"input_tokens":70,"output_tokens":3}}}"#,
            tokens(6, 0, 0, 3),
        ),
        (
            "Cohere embeddings",
            r#"{"id":"1","embeddings":{"float":[[0.1,-0.2]]},"meta":{"billed_units":{"input_tokens":2}}}"#,
            tokens(2, 0, 0, 0),
        ),
        (
            "Ollama",
            r#"{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"hi"},"done_reason":"stop","done":true,"total_duration":5191566416,"load_duration":2154458,"prompt_eval_count":26,"prompt_eval_duration":383809000,"eval_count":298,"eval_duration":4799921000}"#,
            tokens(26, 0, 0, 298),
        ),
        (
            "Ollama embeddings",
            r#"{"model":"m","embeddings":[[0.010071029,-0.0017594862]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#,
            tokens(8, 0, 0, 0),
        ),
        (
            "llama.cpp",
            r#"{"content":"hi","stop":true,"tokens_predicted":12,"tokens_evaluated":40,"tokens_cached":51,"timings":{"cache_n":30,"prompt_n":10,"prompt_ms":30.9,"predicted_n":12,"predicted_ms":80.5}}"#,
            tokens(10, 30, 0, 12),
        ),
        (
            "llama.cpp in OpenAI's format",
            r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"completion_tokens":12,"prompt_tokens":40,"total_tokens":52},"timings":{"cache_n":30,"prompt_n":10,"predicted_n":12}}"#,
            tokens(10, 30, 0, 12),
        ),
        (
            "an explicit zero",
            r#"{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#,
            tokens(0, 0, 0, 0),
        ),
        (
            "a total alone",
            r#"{"usage":{"total_tokens":7}}"#,
            TokenUsage::undivided(7),
        ),
        (
            "a total and an output",
            r#"{"usage":{"total_tokens":7,"output_tokens":3}}"#,
            tokens(4, 0, 0, 3),
        ),
    ];
    for (what, answer, usage) in table {
        let found = report(MediaType::Json, answer, true);
        assert_eq!(found.usage, Some(usage), "{what}");
        assert_eq!(
            report(MediaType::Json, answer, false),
            found,
            "{what}: it was whole"
        );
    }
}

#[test]
fn errors_report_nothing() {
    for error in [
        r#"{"error":{"message":"no such model","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#,
        r#"{"error":{"code":429,"message":"Resource has been exhausted","status":"RESOURCE_EXHAUSTED"}}"#,
        r#"{"message":"Too many requests"}"#,
        r#"{"error":"model 'm' not found"}"#,
    ] {
        let found = report(MediaType::Json, error, true);
        assert_eq!(found, ScanReport::default(), "{error}");
    }
}

/// The streams of a dialect, as lists of events.
struct Dialect {
    name: &'static str,
    kind: MediaType,
    /// The first event, which tells the input if it is there.
    first: Vec<String>,
    /// An event with text.
    text: fn(&str) -> String,
    /// The last event, which tells the usage.
    last: Vec<String>,
    has_early_input: bool,
    /// Each event with text has counts, too.
    has_counts_with_text: bool,
    /// Its reports are believed.
    reports: bool,
}

fn data(json: &str) -> String {
    format!("data: {json}\n\n")
}

const INPUT: u64 = 25;
const OUTPUT: u64 = 1_000;

fn streams() -> Vec<Dialect> {
    let event = |name: &str, json: &str| format!("event: {name}\ndata: {json}\n\n");
    vec![
        Dialect {
            name: "OpenAI",
            kind: MediaType::EventStream,
            first: vec![data(r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}"#)],
            text: |text| data(&format!(r#"{{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}],"usage":null}}"#)),
            last: vec![
                data(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#),
                data(r#"{"choices":[],"usage":{"prompt_tokens":25,"completion_tokens":1000,"total_tokens":1025}}"#),
                "data: [DONE]\n\n".to_owned(),
            ],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "OpenAI, arguments of a tool",
            kind: MediaType::EventStream,
            first: vec![data(r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#)],
            text: |text| data(&format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{text}"}}}}]}}}}]}}"#)),
            last: vec![data(r#"{"choices":[],"usage":{"prompt_tokens":25,"completion_tokens":1000,"total_tokens":1025}}"#)],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "OpenAI completions",
            kind: MediaType::EventStream,
            first: vec![],
            text: |text| data(&format!(r#"{{"object":"text_completion","choices":[{{"text":"{text}","index":0,"logprobs":null}}]}}"#)),
            last: vec![data(r#"{"choices":[],"usage":{"prompt_tokens":25,"completion_tokens":1000,"total_tokens":1025}}"#)],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "OpenAI Responses",
            kind: MediaType::EventStream,
            first: vec![event("response.created", r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress","instructions":"be kind","output":[],"usage":null}}"#)],
            text: |text| format!("event: response.output_text.delta\n{}", data(&format!(r#"{{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"content_index":0,"delta":"{text}"}}"#))),
            last: vec![
                event("response.output_text.done", r#"{"type":"response.output_text.done","item_id":"msg_1","output_index":0,"content_index":0,"text":"all of it"}"#),
                event("response.completed", r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"all of it"}]}],"usage":{"input_tokens":25,"input_tokens_details":{"cached_tokens":0},"output_tokens":1000,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":1025}}}"#),
            ],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "Anthropic",
            kind: MediaType::EventStream,
            first: vec![
                event("message_start", r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":20,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1}}}"#),
                event("content_block_start", r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#),
                event("ping", r#"{"type":"ping"}"#),
            ],
            text: |text| format!("event: content_block_delta\n{}", data(&format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#))),
            last: vec![
                event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
                event("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1000}}"#),
                event("message_stop", r#"{"type":"message_stop"}"#),
            ],
            has_early_input: true,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "Anthropic, a tool and thinking",
            kind: MediaType::EventStream,
            first: vec![
                event("message_start", r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":25,"output_tokens":1}}}"#),
                event("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":""}}"#),
            ],
            text: |text| format!("event: content_block_delta\n{}", data(&format!(r#"{{"type":"content_block_delta","index":1,"delta":{{"type":"input_json_delta","partial_json":"{text}"}}}}"#))),
            last: vec![event("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":25,"output_tokens":1000}}"#)],
            has_early_input: true,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "Gemini",
            kind: MediaType::EventStream,
            first: vec![],
            text: |text| data(&format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"index":0}}],"usageMetadata":{{"promptTokenCount":25,"totalTokenCount":25}},"modelVersion":"m"}}"#)),
            last: vec![data(r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":25,"candidatesTokenCount":400,"thoughtsTokenCount":600,"totalTokenCount":1025}}"#)],
            has_early_input: false,
            has_counts_with_text: true,
            reports: true,
        },
        Dialect {
            name: "Cohere",
            kind: MediaType::EventStream,
            first: vec![event("message-start", r#"{"id":"1","type":"message-start","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#)],
            text: |text| format!("event: content-delta\n{}", data(&format!(r#"{{"type":"content-delta","index":0,"delta":{{"message":{{"content":{{"text":"{text}"}}}}}}}}"#))),
            last: vec![event("message-end", r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":25,"output_tokens":1000},"tokens":{"input_tokens":90,"output_tokens":1000}}}}"#)],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "Ollama chat",
            kind: MediaType::JsonLines,
            first: vec![],
            text: |text| format!("{}\n", format_args!(r#"{{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{{"role":"assistant","content":"{text}"}},"done":false}}"#)),
            last: vec!["{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"prompt_eval_count\":25,\"eval_count\":1000}\n".to_owned()],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "Ollama generate",
            kind: MediaType::JsonLines,
            first: vec![],
            text: |text| format!("{}\n", format_args!(r#"{{"model":"m","response":"{text}","done":false}}"#)),
            last: vec!["{\"model\":\"m\",\"response\":\"\",\"done\":true,\"context\":[1,2,3],\"prompt_eval_count\":25,\"eval_count\":1000}\n".to_owned()],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "Ollama generate, thinking",
            kind: MediaType::JsonLines,
            first: vec![],
            text: |text| format!("{}\n", format_args!(r#"{{"model":"m","response":"","thinking":"{text}","done":false}}"#)),
            last: vec!["{\"model\":\"m\",\"response\":\"\",\"done\":true,\"prompt_eval_count\":25,\"eval_count\":1000}\n".to_owned()],
            has_early_input: false,
            has_counts_with_text: false,
            reports: true,
        },
        Dialect {
            name: "llama.cpp",
            kind: MediaType::EventStream,
            first: vec![],
            text: |text| data(&format!(r#"{{"index":0,"content":"{text}","tokens":[1],"stop":false,"id_slot":0,"tokens_predicted":1,"tokens_evaluated":25}}"#)),
            last: vec![data(r#"{"index":0,"content":"","tokens":[],"stop":true,"tokens_predicted":1000,"tokens_evaluated":25,"timings":{"cache_n":0,"prompt_n":25,"predicted_n":1000}}"#)],
            has_early_input: false,
            has_counts_with_text: true,
            reports: true,
        },
        Dialect {
            name: "vLLM, usage in each event",
            kind: MediaType::EventStream,
            first: vec![],
            text: |text| data(&format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"usage":{{"prompt_tokens":25,"completion_tokens":1,"total_tokens":26}}}}"#)),
            last: vec![data(r#"{"choices":[],"usage":{"prompt_tokens":25,"completion_tokens":1000,"total_tokens":1025}}"#)],
            has_early_input: false,
            has_counts_with_text: true,
            reports: true,
        },
        Dialect {
            name: "text that is no JSON",
            kind: MediaType::EventStream,
            first: vec![],
            text: |text| data(&format!("~{text}")),
            last: vec![data(r#"{"usage":{"input_tokens":25,"output_tokens":1000}}"#)],
            has_early_input: false,
            has_counts_with_text: false,
            reports: false,
        },
    ]
}

#[test]
fn streams_that_end_report_their_usage() {
    for dialect in streams().into_iter().filter(|dialect| dialect.reports) {
        let texts = ["Hello", " world"].map(dialect.text).concat();
        let stream = [dialect.first.concat(), texts, dialect.last.concat()].concat();
        let found = report(dialect.kind, &stream, true);
        let usage = found.usage.expect(dialect.name);
        let input = usage.input + usage.cached_input + usage.cache_write;
        assert_eq!((input, usage.output), (INPUT, OUTPUT), "{}", dialect.name);
        assert_eq!(usage.total(), INPUT + OUTPUT, "{}", dialect.name);
    }
}

/// Gemini has counts in each chunk, before there is output.
#[test]
fn an_input_and_its_total_are_no_last_word_of_a_stream_that_is_cut() {
    let chunk = data(
        r#"{"candidates":[{"content":{"parts":[]}}],"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#,
    );
    let cut = report(MediaType::EventStream, &chunk, false);
    assert_eq!(
        (cut.usage, cut.read, cut.has_input),
        (None, tokens(9, 0, 0, 0), true)
    );
    let ended = report(MediaType::EventStream, &chunk, true);
    assert_eq!(ended.usage, Some(tokens(9, 0, 0, 0)));
}

#[test]
fn an_array_of_chunks_is_a_stream() {
    let chunk = |text: &str, output: u64| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}],"usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":{output},"totalTokenCount":{}}}}}"#,
            9 + output
        )
    };
    let array = format!(
        "[{},\r\n{}]",
        chunk("Hello", 2),
        chunk(" world, how are you?", 7)
    );
    let found = report(MediaType::Json, &array, true);
    assert_eq!(found.usage, Some(tokens(9, 0, 0, 7)));
    let cut = report(MediaType::Json, &array[..array.len() - 1], false);
    assert_eq!((cut.usage, cut.has_input), (None, true));
    assert_eq!(cut.read, tokens(9, 0, 0, 7));
}

#[test]
fn only_text_of_the_model_is_counted() {
    let event = r#"{"id":"a long id that is no text","model":"a-model-with-a-name","choices":[{"index":0,"delta":{"role":"assistant","content":"12345678","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"logprobs":{"content":[{"token":"12345678","bytes":[49],"top_logprobs":[{"token":"other"}]}]},"finish_reason":"stop"}]}"#;
    // Eight, and seven of the arguments: escapes count as the characters that they are.
    let found = report(MediaType::EventStream, &data(event), false);
    assert_eq!((found.passed, found.read), (4, tokens(0, 0, 0, 4)));
    let whole = r#"{"content":[{"type":"text","text":"1234"},{"type":"tool_use","name":"f","input":{"city":"Bern","deep":["1234",{"x":"y"}]}}]}"#;
    let found = report(MediaType::Json, whole, false);
    // Names and strings of the input, and no other names.
    assert_eq!(
        found.passed,
        (4 + "citydeepBern1234xy".len() as u64).div_ceil(4)
    );
    let spelt = r#"{"choices":[{"delta":{"content":"\u00fc\u4e2d\ud83d\ude00\n\\"}}]}"#;
    let found = report(MediaType::EventStream, &data(spelt), false);
    assert_eq!(found.passed, "ü中😀\n\\".len().div_ceil(4) as u64);
    let texts = [("a", 1), ("abcd", 1), ("abcde", 2), ("", 0)];
    for (text, tokens) in texts {
        let event = data(&format!(r#"{{"type":"x","delta":"{text}"}}"#));
        let found = report(MediaType::EventStream, &event.repeat(3), false);
        let expected = if tokens == 2 { 4 } else { 3 * tokens };
        assert_eq!(
            found.passed, expected,
            "{text:?}: an event is a token at least"
        );
    }
}

/// A model writes what its client asks for, a line with the event of a report among it.
#[test]
fn words_as_they_are_report_nothing() {
    let words = ["data: Here you are:\n\n", "data: Goodbye.\n\n"];
    let fake = "data: {\"usage\":{\"input_tokens\":0,\"output_tokens\":0}}\n\n";
    for (kind, data) in [
        (MediaType::EventStream, "data: "),
        (MediaType::JsonLines, ""),
    ] {
        let streams = [
            [words[0], fake, ""],
            [words[0], words[1], fake],
            [fake, words[0], ""],
            [fake, words[1], fake],
        ];
        for stream in streams {
            let stream = stream.concat().replace("data: ", data).replace(
                "\n\n",
                match kind {
                    MediaType::JsonLines => "\n",
                    _ => "\n\n",
                },
            );
            for ended in [true, false] {
                let found = report(kind, &stream, ended);
                assert_eq!((found.usage, found.has_input), (None, false), "{stream}");
                assert!(
                    found.is_malformed && found.read.output > 1,
                    "{found:?} of {stream}"
                );
            }
        }
    }
}

/// The items of an array count as they end, but not if the array turns out to be no JSON.
#[test]
fn items_of_an_array_that_is_no_json_count_once() {
    let item =
        r#"{"delta":{"text":"0123456789abcdef"},"usage":{"input_tokens":7,"output_tokens":9}}"#;
    for (rest, is_malformed) in [("", false), (",", false), ("x", true), ("}", true)] {
        let stream = format!("data: [{item}{rest}");
        for end in ["", "\n", "\n\n"] {
            let found = report(MediaType::EventStream, &format!("{stream}{end}"), true);
            let is_malformed = is_malformed || end == "\n\n";
            assert_eq!(found.is_malformed, is_malformed, "{rest:?} {end:?}");
            let length = (1 + item.len() + rest.len()) as u64;
            let expected = match is_malformed {
                true => (0, length.div_ceil(4)),
                false => (7, 9),
            };
            assert_eq!(
                (found.read.input, found.read.output),
                expected,
                "{rest:?} {end:?}"
            );
        }
    }
}

#[test]
fn data_that_is_no_json_counts_with_its_bytes() {
    let found = report(
        MediaType::EventStream,
        "data: Hello there\n\ndata: [DONE]\n\n",
        true,
    );
    assert_eq!((found.passed, found.is_malformed), (3, true));
    let found = report(
        MediaType::EventStream,
        "data: {\"delta\":\"Hello\"}\n\ndata: [DONE]\n\n",
        true,
    );
    assert_eq!((found.passed, found.is_malformed), (2, false));
    for not_done in ["[DONE", "[DONE]x", "[DON]", "DONE", "[[DONE]]"] {
        let stream = format!("data: {not_done}\n\n");
        let found = report(MediaType::EventStream, &stream, true);
        assert!(found.is_malformed && found.passed > 0, "{not_done}");
    }
}

/// vLLM's `continuous_usage_stats` and llama.cpp's `timings_per_token`: the request asks for counts with each event, some
/// of which have no text. Whoever leaves after one of these has had no last word.
#[test]
fn counts_that_come_with_each_event_are_no_last_word_of_a_stream_that_is_cut() {
    let vllm = |text: &str, output: u64| {
        data(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"usage":{{"prompt_tokens":25,"completion_tokens":{output},"total_tokens":{}}}}}"#,
            25 + output
        ))
    };
    let llama = |text: &str, output: u64| {
        data(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"timings":{{"cache_n":0,"prompt_n":25,"predicted_n":{output}}}}}"#
        ))
    };
    let streams = [
        [vllm("", 0), vllm("some text", 2), vllm("", 3), vllm("", 9)],
        [
            llama("", 1),
            llama("some text", 2),
            llama("", 3),
            llama("", 9),
        ],
    ];
    for stream in streams {
        let mut scan = UsageScanner::new(MediaType::EventStream);
        for event in &stream {
            scan.read(event.as_bytes());
            assert_eq!(scan.report(false).usage, None, "cut after {event}");
        }
        assert_eq!(scan.report(true).usage, Some(tokens(25, 0, 0, 9)));
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// R23: whoever hangs up has received text, and pays for it.
    #[test]
    fn who_hangs_up_at_any_byte_pays_for_what_was_sent(
        texts in vec("[a-z ,.]{1,30}", 1..6),
        piece in 1..40_usize,
    ) {
        for dialect in streams() {
            let name = dialect.name;
            // Each event, with the part of it that is text.
            let mut events: Vec<(String, usize, usize)> = Vec::new();
            events.extend(dialect.first.iter().map(|event| (event.clone(), 0, 0)));
            for text in &texts {
                let event = (dialect.text)(text);
                let begin = event.rfind(&format!("{text}\"")).unwrap_or_else(|| event.find("data: ").expect("data") + 6);
                events.push((event, begin, text.len()));
            }
            let told_from: usize = events.iter().map(|(event, ..)| event.len()).sum();
            events.extend(dialect.last.iter().map(|event| (event.clone(), 0, 0)));
            let stream: String = events.iter().map(|(event, ..)| event.as_str()).collect();
            let first: usize = dialect.first.iter().map(String::len).sum();
            let mut scan = UsageScanner::new(dialect.kind);
            for cut in 0..stream.len() {
                let mut pieces = UsageScanner::new(dialect.kind);
                if cut % 7 == 0 {
                    stream.as_bytes()[..cut].chunks(piece).for_each(|piece| pieces.read(piece));
                    prop_assert_eq!(pieces.report(false), scan.report(false), "{}: in pieces", name);
                }
                // The bytes of text that were sent, and at least four an event.
                let (mut measure, mut at) = (0, 0);
                for (event, begin, length) in &events {
                    let sent = cut.saturating_sub(at + begin).min(*length);
                    measure += if sent == 0 { 0 } else { sent.max(4) as u64 };
                    at += event.len();
                }
                let found = scan.report(false);
                match found.usage {
                    // Only what comes at the end is a last word.
                    Some(usage) => {
                        prop_assert!(dialect.reports && cut > told_from, "{}: settled at {}", name, cut);
                        prop_assert_eq!(usage.total(), INPUT + OUTPUT, "{}: at {}", name, cut);
                    }
                    None => {
                        let output = found.read.output;
                        prop_assert!(4 * output >= measure, "{}: {} bytes for {:?} at {}", name, measure, found, cut);
                        let most = if dialect.has_counts_with_text { OUTPUT + measure } else { measure };
                        prop_assert!(output <= most.div_ceil(4) + 20 || cut > told_from, "{}: {} bytes for {:?} at {}", name, measure, found, cut);
                        if dialect.has_early_input && cut > first {
                            prop_assert!(found.has_input, "{}: at {}", name, cut);
                            let input = found.read.total() - output;
                            prop_assert_eq!(input, INPUT, "{}: at {}", name, cut);
                        }
                    }
                }
                scan.read(&stream.as_bytes()[cut..=cut]);
            }
            let found = scan.report(true).usage.map(|usage| usage.total());
            prop_assert_eq!(found, dialect.reports.then_some(INPUT + OUTPUT), "{}", name);
        }
    }

    /// The same for an answer in one text.
    #[test]
    fn who_hangs_up_in_one_text_pays_for_what_was_sent(text in "[a-z ,.]{0,200}") {
        let answers = [
            format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{text}"}}}}],"usage":{{"total_tokens":1025}}}}"#),
            format!(r#"{{"type":"message","content":[{{"type":"text","text":"{text}"}}],"usage":{{"input_tokens":25,"output_tokens":1000}}}}"#),
            format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}],"usageMetadata":{{"promptTokenCount":25,"candidatesTokenCount":1000}}}}"#),
            format!(r#"{{"output":[{{"type":"message","content":[{{"type":"output_text","text":"{text}"}}]}}],"usage":{{"input_tokens":25,"output_tokens":1000}}}}"#),
            format!(r#"{{"output":{{"message":{{"content":[{{"text":"{text}"}}]}}}},"usage":{{"inputTokens":25,"outputTokens":1000}}}}"#),
            format!(r#"{{"message":{{"content":"{text}"}},"done":true,"prompt_eval_count":25,"eval_count":1000}}"#),
            format!(r#"{{"response":"{text}","done":true,"prompt_eval_count":25,"eval_count":1000}}"#),
            format!(r#"{{"content":"{text}","tokens_predicted":1000,"tokens_evaluated":25}}"#),
            format!(r#"{{"text":"{text}","meta":{{"billed_units":{{"input_tokens":25,"output_tokens":1000}}}}}}"#),
        ];
        for answer in answers {
            let begin = answer.rfind(&format!("{text}\"")).expect("the text");
            let mut scan = UsageScanner::new(MediaType::Json);
            for cut in 0..answer.len() {
                let found = scan.report(false);
                prop_assert_eq!(found.usage, None, "{}", &answer[..cut]);
                let sent = cut.saturating_sub(begin).min(text.len());
                let passed = if sent == 0 { 0 } else { sent.div_ceil(4) as u64 };
                // The names of tools and other short strings.
                prop_assert!((passed..passed + 2).contains(&found.read.output), "{:?} for {}", found, &answer[..cut]);
                scan.read(&answer.as_bytes()[cut..=cut]);
            }
            let usage = scan.report(false).usage.map(|usage| usage.total());
            prop_assert_eq!(usage, Some(1_025), "{}", answer);
        }
    }
}
