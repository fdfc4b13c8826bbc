use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    reference::{Kinds, Report},
    *,
};
use crate::cases::cases;

fn scan<'a>(kind: MediaType, pieces: impl IntoIterator<Item = &'a [u8]>) -> UsageScanner {
    let mut scan = UsageScanner::new(kind);
    for piece in pieces {
        scan.read(piece);
    }
    scan
}

fn total(scan: &UsageScanner) -> Option<u64> {
    scan.report(true).usage.map(|usage| usage.total())
}

fn kinds(usage: TokenUsage) -> Kinds {
    let TokenUsage {
        input,
        cached_input,
        cache_write,
        output,
        undivided,
    } = usage;
    [input, cached_input, cache_write, output, undivided]
}

/// Returns where the scan of an answer, so far, differs from the reference. Where the answer is no text, or the
/// reference cannot say, there is nothing to compare.
fn difference(kind: MediaType, scan: &UsageScanner, so_far: &[u8]) -> Option<String> {
    for ended in [true, false] {
        let found = scan.report(ended);
        let found = Report {
            usage: found.usage.map(kinds),
            read: kinds(found.read),
            has_input: found.has_input,
            is_malformed: found.is_malformed,
        };
        let expected = match kind {
            MediaType::Json => match reference::is_json(so_far) {
                Ok(false) if found.usage.is_none() && (found.is_malformed || !ended) => continue,
                Ok(false) => return Some(format!("no JSON, but {found:?}")),
                _ => reference::json(so_far),
            },
            MediaType::JsonLines => reference::json_lines(so_far, ended),
            MediaType::EventStream => reference::event_stream(so_far, ended),
        };
        if expected.as_ref().is_ok_and(|expected| *expected != found) {
            return Some(format!("{found:?}, and not {expected:?}, ended: {ended}"));
        }
    }
    None
}

/// Tells the same however the answer is cut in two or into bytes, and at each byte what the reference does.
fn assert_tells(kind: MediaType, answer: &[u8], told: Option<u64>, what: &str) {
    let show = || String::from_utf8_lossy(answer);
    let whole = scan(kind, [answer]);
    for cut in 0..=answer.len() {
        let (one, other) = answer.split_at(cut);
        let scan = scan(kind, [one, other]);
        for ended in [true, false] {
            let (found, whole) = (scan.report(ended), whole.report(ended));
            assert_eq!(found, whole, "{what}, cut at {cut}: {}", show());
        }
    }
    let mut scan = UsageScanner::new(kind);
    for (at, byte) in answer.chunks(1).enumerate() {
        scan.read(byte);
        let difference = difference(kind, &scan, &answer[..=at]);
        assert_eq!(difference, None, "{what}, after {at}: {}", show());
    }
    assert_eq!(total(&scan), told, "{what}, byte by byte: {}", show());
    assert_eq!(total(&whole), told, "{what}: {}", show());
}

#[test]
fn a_content_type_tells_the_kind() {
    let table = [
        ("application/json", Some(MediaType::Json)),
        ("Application/JSON; charset=utf-8", Some(MediaType::Json)),
        (
            "application/json ;x=\"text/event-stream\"",
            Some(MediaType::Json),
        ),
        ("text/event-stream", Some(MediaType::EventStream)),
        (
            "  TEXT/Event-Stream;charset=UTF-8",
            Some(MediaType::EventStream),
        ),
        ("application/x-ndjson", Some(MediaType::JsonLines)),
        (
            "application/jsonl; charset=utf-8",
            Some(MediaType::JsonLines),
        ),
        ("application/stream+json", Some(MediaType::JsonLines)),
        ("application/problem+json", None),
        ("application/vnd.amazon.eventstream", None),
        ("text/plain; x=application/json", None),
        ("audio/mpeg", None),
        (";", None),
        ("", None),
    ];
    for (content_type, kind) in table {
        assert_eq!(MediaType::of(content_type), kind, "{content_type:?}");
    }
}

const CHAT: &str = r#"{
  "id": "chatcmpl-1f", "object": "chat.completion", "created": 1760000000, "model": "m-large",
  "choices": [{"index": 0, "logprobs": null, "finish_reason": "stop", "message": {"role": "assistant",
    "content": "Grüße \"{\"usage\":{\"total_tokens\":99}}\" \\", "refusal": null,
    "tool_calls": [{"id": "call_1", "type": "function", "function":
      {"name": "count", "arguments": "{\"usage\":{\"total_tokens\":98}}"}}]}}],
  "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "total_tokens": 97},
    "completion_tokens_details": {"reasoning_tokens": 4}},
  "system_fingerprint": "fp_\u00e9\ud83d\ude00"
}
"#;

#[test]
fn json_answers() {
    let table = [
        ("chat completions", CHAT, Some(29)),
        (
            "completions",
            r#"{"id":"cmpl-2","object":"text_completion","created":1,"model":"m","choices":[{"text":" usage","index":0,"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#,
            Some(12),
        ),
        (
            "embeddings",
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[-0.0069,2.5e-05,1E+2,0,-1]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            Some(8),
        ),
        (
            "responses",
            r#"{"id":"resp_3","object":"response","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"hi","annotations":[]}]}],"temperature":1.0,"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123},"metadata":{}}"#,
            Some(123),
        ),
        (
            "an error",
            r#"{"error":{"message":"no such model","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
            None,
        ),
        (
            "transcriptions by duration",
            r#"{"text":"hi","usage":{"type":"duration","seconds":9}}"#,
            None,
        ),
        (
            "prompt and completion",
            r#"{"usage":{"completion_tokens":7,"prompt_tokens":5}}"#,
            Some(12),
        ),
        (
            "input and output",
            r#"{"usage":{"input_tokens":5,"output_tokens":0}}"#,
            Some(5),
        ),
        (
            "the first pair of two",
            r#"{"usage":{"input_tokens":5,"output_tokens":6,"prompt_tokens":1,"completion_tokens":2}}"#,
            Some(3),
        ),
        (
            "an input alone",
            r#"{"usage":{"prompt_tokens":5}}"#,
            Some(5),
        ),
        (
            "an output alone",
            r#"{"usage":{"completion_tokens":5}}"#,
            None,
        ),
        (
            "halves of two pairs",
            r#"{"usage":{"prompt_tokens":5,"output_tokens":6}}"#,
            Some(11),
        ),
        (
            "a pair that overflows",
            r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1}}"#,
            Some(u64::MAX),
        ),
        (
            "no readable total, but a pair",
            r#"{"usage":{"total_tokens":null,"prompt_tokens":5,"completion_tokens":6}}"#,
            Some(11),
        ),
        ("null", r#"{"usage":null}"#, None),
        ("empty", r#"{"usage":{}}"#, None),
        ("a list", r#"{"usage":[{"total_tokens":5}]}"#, None),
        ("a number", r#"{"usage":5}"#, None),
        ("text", r#"{"usage":"{\"total_tokens\":5}"}"#, None),
        ("zero", r#"{"usage":{"total_tokens":0}}"#, Some(0)),
        (
            "the largest",
            r#"{"usage":{"total_tokens":18446744073709551615}}"#,
            Some(u64::MAX),
        ),
        (
            "one more",
            r#"{"usage":{"total_tokens":18446744073709551616}}"#,
            None,
        ),
        (
            "many digits",
            r#"{"usage":{"total_tokens":184467440737095516150}}"#,
            None,
        ),
        ("a fraction", r#"{"usage":{"total_tokens":12.0}}"#, None),
        ("an exponent", r#"{"usage":{"total_tokens":1e3}}"#, None),
        ("negative", r#"{"usage":{"total_tokens":-1}}"#, None),
        ("negative zero", r#"{"usage":{"total_tokens":-0}}"#, None),
        ("in quotes", r#"{"usage":{"total_tokens":"5"}}"#, None),
        ("in a list", r#"{"usage":{"total_tokens":[5]}}"#, None),
        (
            "deeper",
            r#"{"usage":{"total_tokens":{"total_tokens":5}}}"#,
            None,
        ),
        (
            "deeper still",
            r#"{"usage":{"usage":{"total_tokens":5}}}"#,
            None,
        ),
        (
            "beside numbers that are none",
            r#"{"usage":{"a":0.5e-7,"total_tokens":5,"b":[6,7.5],"c":{"total_tokens":8},"d":9}}"#,
            Some(5),
        ),
        (
            "the response's",
            r#"{"response":{"usage":{"total_tokens":5}}}"#,
            Some(5),
        ),
        (
            "the response's beside its own",
            r#"{"usage":{"total_tokens":6},"response":{"usage":{"total_tokens":5}}}"#,
            Some(6),
        ),
        (
            "the response's beside none",
            r#"{"response":{"usage":{"total_tokens":5}},"usage":null}"#,
            Some(5),
        ),
        (
            "a response in a response",
            r#"{"response":{"response":{"usage":{"total_tokens":5}}}}"#,
            None,
        ),
        (
            "a response in a list",
            r#"{"response":[{"usage":{"total_tokens":5}}]}"#,
            None,
        ),
        (
            "the total beside the usage",
            r#"{"total_tokens":5,"response":{"total_tokens":6}}"#,
            None,
        ),
        (
            "a choice's",
            r#"{"choices":[{"usage":{"total_tokens":5}}]}"#,
            None,
        ),
        ("in a list", r#"[{"usage":{"total_tokens":5}}]"#, Some(5)),
        (
            "in a list of lists",
            r#"[[{"usage":{"total_tokens":5}}]]"#,
            None,
        ),
        (
            "behind braces in a string",
            r#"{"a":"}}}{\"","usage":{"total_tokens":5}}"#,
            Some(5),
        ),
        (
            "escapes in names",
            r#"{"us\u0061ge":{"tot\u0061l\u005Ftokens":5}}"#,
            Some(5),
        ),
        (
            "other escapes in names",
            r#"{"usage\n":{"total_tokens":5},"\u0075sage\u0000":{"total_tokens":6},"us\u0161age":{"total_tokens":7}}"#,
            None,
        ),
        (
            "longer names",
            r#"{"usages":{"total_tokens":5},"usage":{"total_tokens_and_what_not":6,"completion_tokens_":7,"prompt_tokens":8}}"#,
            Some(8),
        ),
        (
            "shorter names",
            r#"{"usag":{"total_tokens":5},"":6,"usage":{"total_token":6,"":7}}"#,
            None,
        ),
        (
            "names that end in one",
            r#"{"\nusage":{"total_tokens":5},"as long a name as any usage":{"total_tokens":6},"\u00fcusage":{"total_tokens":7}}"#,
            None,
        ),
        ("other case", r#"{"Usage":{"total_tokens":5}}"#, None),
        (
            "twice a total",
            r#"{"usage":{"total_tokens":5,"total_tokens":6}}"#,
            Some(6),
        ),
        (
            "twice a total, then none",
            r#"{"usage":{"total_tokens":5,"total_tokens":"6"}}"#,
            None,
        ),
        (
            "twice a usage",
            r#"{"usage":{"total_tokens":5},"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            Some(3),
        ),
        (
            "twice a usage, then none",
            r#"{"usage":{"total_tokens":5},"usage":null}"#,
            None,
        ),
        (
            "twice a response",
            r#"{"response":{"usage":{"total_tokens":5}},"response":{}}"#,
            None,
        ),
        (
            "twice a response's usage",
            r#"{"response":{"usage":{"total_tokens":5},"usage":[]}}"#,
            None,
        ),
        (
            "white space",
            " \t\r\n{ \"usage\"\t:\r{\n\"total_tokens\" : 5 , \"a\" : [ ] , \"b\" : { } } } \n",
            Some(5),
        ),
    ];
    for (what, answer, told) in table {
        assert_tells(MediaType::Json, answer.as_bytes(), told, what);
    }
}

/// Each would tell 5 if this one thing were not wrong with it.
#[test]
fn what_is_no_json_tells_nothing() {
    let wrong = [
        "",
        "tru",
        "truee",
        "nul",
        "True",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1.e1",
        "1e",
        "1e+",
        "--1",
        "0x1",
        "1_0",
        "NaN",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "]",
        "[}",
        "[1}",
        "{\"a\":1]",
        "-01",
        "nulx",
        "{]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":1}",
        "\"\\x\"",
        "\"\\u12G4\"",
        "\"\\u12\"",
        "\"\t\"",
        "\"\n\"",
        "\"",
        "'a'",
        "1//",
        "\u{a0}1",
    ];
    for wrong in wrong {
        for answer in [
            format!("{{\"usage\":{{\"total_tokens\":5}},\"a\":{wrong}}}"),
            format!("{{\"usage\":{{\"a\":{wrong},\"total_tokens\":5}}}}"),
        ] {
            assert_tells(MediaType::Json, answer.as_bytes(), None, "wrong");
        }
    }
    let right = r#"{"usage":{"total_tokens":5}}"#;
    let another = format!(",{right}");
    for (before, after) in [
        ("", another.as_str()),
        ("", ","),
        ("", "}"),
        ("", "x"),
        ("", right),
        ("x", ""),
        ("[", ""),
        (",", ""),
    ] {
        let answer = format!("{before}{right}{after}");
        assert_tells(MediaType::Json, answer.as_bytes(), None, "around");
    }
    assert_tells(MediaType::Json, right.as_bytes(), Some(5), "right");
}

#[test]
fn event_streams() {
    let chunk = |content: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":null}}],\
             \"usage\":null}}\n\n"
        )
    };
    let last = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\
                \"completion_tokens\":12,\"total_tokens\":21}}\n\n";
    let five = "{\"usage\":{\"total_tokens\":5}}";
    let done = "data: [DONE]\n\n";
    let table = [
        ("without usage", format!("{}{}{done}", chunk("He"), chunk("llo")), None),
        ("chat completions", format!("{}{}{last}{done}", chunk("He"), chunk("llo")), Some(21)),
        ("a fake in the content", format!("{}{done}", chunk("data: {\\\"usage\\\":{\\\"total_tokens\\\":5}}\\n\\n")), None),
        ("usage in each", format!("data: {five}\n\n{last}{}{done}", chunk("")), Some(21)),
        ("usage, and then more text", format!("{last}{}{done}", chunk("!")), None),
        (
            "responses",
            "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"usage\":null}}\n\n\
             event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"usage\"}\n\n\
             event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"output\":[{\"usage\":{\"total_tokens\":1}}],\"usage\":{\"input_tokens\":37,\"output_tokens\":11,\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":48},\"user\":null}}\n\n"
                .to_owned(),
            Some(48),
        ),
        ("no space", format!("data:{five}\n\n"), Some(5)),
        ("two spaces", format!("data:  {five}\n\n"), Some(5)),
        ("a space before the colon", format!("data : {five}\n\n"), None),
        ("indented", format!(" data: {five}\n\n"), None),
        ("upper case", format!("DATA: {five}\n\n"), None),
        ("longer field", format!("data2: {five}\n\ndatadata: {five}\n\n"), None),
        ("shorter field", format!("dat: {five}\n\n"), None),
        ("other fields", format!(": {five}\nid: 7\nretry: 10\nevent: data\ndata: {five}\nid\n: data: x\n\n"), Some(5)),
        ("comments alone", format!(": {five}\n\n:\n\n: ping\n\n"), None),
        ("two lines", "data: {\"usage\":{\ndata: \"total_tokens\":\ndata:5}}\n\n".to_owned(), Some(5)),
        ("empty lines of data", format!("data\ndata:\ndata: {five}\ndata\ndata: \n\n"), Some(5)),
        ("a line ends in a string", "data: {\"usage\":{\"total_tokens\":5,\"a\":\"\ndata: \"}}\n\n".to_owned(), None),
        ("a line ends in a number", "data: {\"usage\":{\"total_tokens\":5\ndata:5}}\n\n".to_owned(), None),
        ("a line ends in a name", "data: {\"usage\":{\"total_\ndata:tokens\":5}}\n\n".to_owned(), None),
        ("two texts", format!("data: {five}\ndata: {five}\n\n"), None),
        ("after half a text", format!("data: {{\n\n{last}{done}"), None),
        ("before more than a text", format!("{last}data: {five}}}\n\n{done}"), None),
        ("words as they are", format!("data: Hello\n\n{last}{done}"), None),
        ("a line end within them", format!("data: Hello\ndata: {five}\n\n{done}"), None),
        ("smaller counts later", format!("{last}{}{done}", last.replace("12,", "2,").replace("21}", "11}")), Some(21)),
        ("no end", format!("{last}data: {five}"), Some(21)),
        ("one line end", format!("{last}data: {five}\n"), Some(21)),
        ("a byte order mark", format!("\u{feff}data: {five}\n\n"), Some(5)),
        ("a byte order mark and a line end", format!("\u{feff}\ndata: {five}\n\n"), Some(5)),
        ("two byte order marks", format!("\u{feff}\u{feff}data: {five}\n\n"), None),
        ("a mark later", format!("{last}\u{feff}data: {five}\n\n"), Some(21)),
        ("half a byte order mark", format!("\u{feee}data: {five}\n\n"), None),
        ("empty lines", format!("\n\n\ndata: {five}\n\n\n\n"), Some(5)),
        ("half a number at the end of a line", format!("{last}data: -\n"), Some(21)),
        ("half a fraction at the end of a line", format!("{last}data: 12.\n"), Some(21)),
        ("a number at the end of a line", format!("{last}data: 1\n"), Some(21)),
        ("half a number alone", format!("{last}data: -\n\n"), None),
        ("plain JSON", format!("{five}\n\n"), None),
        ("nothing", String::new(), None),
    ];
    for (what, stream, told) in table {
        for line_end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', line_end);
            let what = format!("{what}, {line_end:?}");
            assert_tells(MediaType::EventStream, stream.as_bytes(), told, &what);
        }
    }
    // These lines belong to one event, which is no text.
    let one_event = format!("data: {{}}\r\ndata:{five}\n\r\n\rdata: {five}\r\r\n");
    assert_tells(MediaType::EventStream, one_event.as_bytes(), None, "mixed");
    let mixed = [
        format!("data: {five}\n\r\n\rdata: {five}\r\r\n"),
        format!(": x\rdata:{five}\n\n"),
        format!("data:{five}\r\n\r"),
        format!("data:{five}\n\r"),
        format!("data:{five}\n\r\ndata: {{}}\r\r"),
    ];
    for stream in mixed {
        assert_tells(MediaType::EventStream, stream.as_bytes(), Some(5), "mixed");
    }
}

#[test]
fn text_that_cannot_be_decoded_is_passed_over() {
    for text in [
        &b"\xFF\xC3"[..],
        b"\\ud800",
        b"\xED\xA0\x80",
        b"\xF0\x9F\x98",
    ] {
        let answer = [
            b"{\"a\":\"",
            text,
            b"\",\"",
            text,
            b"\":1,\"usage\":{\"total_tokens\":5}}",
        ]
        .concat();
        assert_tells(MediaType::Json, &answer, Some(5), "text");
        let event = [b"data: ", &answer[..], b"\n\n"].concat();
        assert_tells(MediaType::EventStream, &event, Some(5), "text in an event");
    }
}

#[test]
fn a_half_byte_order_mark_is_no_field() {
    let stream = b"\xEF\xBBdata: {\"usage\":{\"total_tokens\":5}}\n\n";
    assert_tells(MediaType::EventStream, stream, None, "half a mark");
    let stream = b"\xEF\xBB\ndata: {\"usage\":{\"total_tokens\":5}}\n\n";
    assert_tells(
        MediaType::EventStream,
        stream,
        Some(5),
        "half a mark on its own line",
    );
}

#[test]
fn as_deep_as_serde_json_and_no_deeper() {
    for (open, close) in [("[", "]"), ("{\"usage\":", "}"), ("[{\"a\":", "}]")] {
        for depth in 1..300 {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            let answer = format!("{{\"usage\":{{\"total_tokens\":5}},\"a\":{open}1{close}}}");
            let scan = scan(MediaType::Json, [answer.as_bytes()]);
            let difference = difference(MediaType::Json, &scan, answer.as_bytes());
            assert_eq!(difference, None, "{depth} × {open}");
            let levels = open.matches(['[', '{']).count();
            assert_eq!(total(&scan).is_some(), levels <= 126, "{depth} × {open}");
        }
    }
}

/// Whatever floods it, a scan stays as it is, and finds what comes after.
#[test]
fn floods() {
    assert!(
        size_of::<UsageScanner>() <= 512,
        "{}",
        size_of::<UsageScanner>()
    );
    let tail = b"\n\ndata: {\"usage\":{\"total_tokens\":5}}\n\n";
    let heads: [(&[u8], &[u8]); 12] = [
        (b"data: ", b"["),
        (b"data: ", b"{\"usage\":"),
        (b"data: {\"usage\":{\"total_tokens\":", b"9"),
        (b"data: {\"usage\":{\"", b"total_tokens"),
        (b"data: {\"", b"\\u0061"),
        (b"data: \"", b"\\\""),
        (b"", b"data:"),
        (b"", b"data:\n"),
        (b"", b"data: {\"usage\":{\"total_tokens\":1}}\n\n"),
        (b":", b"x"),
        (b"", b"\r\n"),
        (b"data: ", b" "),
    ];
    for (head, flood) in heads {
        let mut scan = UsageScanner::new(MediaType::EventStream);
        scan.read(head);
        let flood = flood.repeat(1 << 12);
        for _ in 0..64 {
            scan.read(&flood);
        }
        scan.read(tail);
        let head = head.escape_ascii();
        let report = scan.report(true);
        assert_eq!(report.read.undivided, 5, "after {head}…");
        assert_eq!(report.usage.is_none(), report.is_malformed, "after {head}…");
    }
    let mut scan = UsageScanner::new(MediaType::Json);
    scan.read(b"{\"choices\":[\"");
    for _ in 0..64 {
        scan.read(&[b'x'; 1 << 16]);
    }
    scan.read(b"\"],\"usage\":{\"total_tokens\":5}}");
    assert_eq!(total(&scan), Some(5));
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

const NAMES: &[&str] = &[
    "usage",
    "response",
    "choices",
    "total_tokens",
    "",
    "usage_",
    "ide",
];
const COUNTS: &[&str] = &[
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens_",
    "usage",
];

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..40u64).prop_map(|number| number.to_string()),
        4 => select(vec![
            "18446744073709551615", "18446744073709551616", "-1", "-0", "1e3", "12.0", "1E+2", "0.5e-7", "null",
            "true", "false", "\"\"", "\"5\"", "\"\\\"\\\\\"", "\"{\\\"usage\\\":{\\\"total_tokens\\\":5}}\"",
            "\"\\ud83d\\ude00 ü\"", "\"data: x\"",
        ])
        .prop_map(str::to_owned),
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

/// Any JSON text, and often one that is nearly an answer.
fn answer() -> impl Strategy<Value = String> {
    let any = leaf().prop_recursive(4, 24, 4, |value| {
        prop_oneof![array(value.clone()), object(NAMES, value)]
    });
    let any = any.boxed();
    let usage = object(COUNTS, prop_oneof![6 => leaf(), 1 => any.clone()].boxed());
    let usage = prop_oneof![6 => usage, 1 => any.clone()].boxed();
    let response = prop_oneof![
        3 => usage.clone(),
        2 => object(NAMES, usage),
        1 => any.clone(),
    ];
    prop_oneof![12 => object(NAMES, response.boxed()), 1 => any]
}

/// A place and a byte that is put there, is put in its place, or makes a hole there.
fn damage() -> impl Strategy<Value = Option<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![select(&b"{}[]\":,\\0-.eu \n\rd"[..]), any::<u8>()];
    prop::option::weighted(0.5, (any::<prop::sample::Index>(), byte, 0..3u8))
}

fn damaged(mut answer: Vec<u8>, damage: Option<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    if let Some((at, byte, how)) = damage.filter(|_| !answer.is_empty()) {
        let at = at.index(answer.len());
        match how {
            0 => answer.insert(at, byte),
            1 => answer[at] = byte,
            _ => drop(answer.remove(at)),
        }
    }
    answer
}

fn assert_agrees(
    kind: MediaType,
    answer: &[u8],
    cuts: &[prop::sample::Index],
) -> Result<(), TestCaseError> {
    let mut scan = UsageScanner::new(kind);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(answer.len() + 1)).collect();
    cuts.push(answer.len());
    cuts.sort_unstable();
    let mut read = 0;
    for cut in cuts {
        scan.read(&answer[read..cut]);
        read = cut;
        let difference = difference(kind, &scan, &answer[..read]);
        let so_far = answer[..read].escape_ascii();
        prop_assert_eq!(difference, None, "{}", so_far);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn json_as_serde_json_reads_it(
        answer in answer(),
        damage in damage(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        assert_agrees(MediaType::Json, &damaged(answer.into_bytes(), damage), &cuts)?;
    }

    #[test]
    fn events_as_serde_json_reads_them(
        events in vec((answer(), select(&["data:", "data: "][..]), select(&["", ":\n", "id: 1\n", "data\n"][..])), 0..4),
        line_ends in vec(select(&["\n", "\r", "\r\n"][..]), 1..4),
        damage in damage(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut stream = String::new();
        for (answer, field, other) in events {
            stream.push_str(other);
            // Its own line ends are white space.
            for line in answer.replace("\r\n", "\n").split(['\r', '\n']) {
                stream.push_str(&format!("{field}{line}\n"));
            }
            stream.push('\n');
        }
        let ended = stream.split_terminator('\n').zip(line_ends.iter().cycle());
        let stream = ended.flat_map(|(line, end)| [line, end]).collect::<String>().into_bytes();
        assert_agrees(MediaType::EventStream, &damaged(stream, damage), &cuts)?;
    }

    #[test]
    fn any_bytes(
        bytes in vec(any::<u8>(), 0..60),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        assert_agrees(MediaType::Json, &bytes, &cuts)?;
        assert_agrees(MediaType::EventStream, &bytes, &cuts)?;
    }
}
