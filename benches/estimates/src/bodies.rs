//! The bodies, by shape.

use serde_json::{Value, json};
use tiktoken_rs::CoreBPE;

use crate::texts::{CODE, DATA, EASTERN, GUIDES, OTHERS, WESTERN};

/// The tokens that a chat costs for each message beside its text, and once for the answer's beginning, as OpenAI states
/// them.
const MESSAGE: usize = 3;
const BEGINNING: usize = 3;

/// The tokens of a square image of 1,024 pixels, as GPT-4o counts it.
const IMAGE: u64 = 765;

/// A body, and what its tokens are counted of.
pub(crate) struct Body {
    pub(crate) json: Value,
    /// The texts that the model reads.
    texts: Vec<String>,
    /// Tokens besides: of messages, images and numbers.
    besides: u64,
}

impl Body {
    /// Counts the input as the model server would.
    pub(crate) fn tokens(&self, tokenizer: &CoreBPE) -> u64 {
        let texts = self.texts.iter();
        let counts = texts.map(|text| tokenizer.encode_ordinary(text).len() as u64);
        counts.sum::<u64>() + self.besides
    }

    /// A chat of messages, and members besides.
    fn chat(messages: Vec<String>, besides: Value) -> Self {
        let roles = ["user", "assistant"];
        let written = messages.iter().enumerate();
        let written = written.map(|(at, text)| json!({ "role": roles[at % 2], "content": text }));
        let mut json = json!({ "messages": written.collect::<Vec<_>>() });
        let members = json.as_object_mut().expect("an object");
        members.extend(besides.as_object().expect("an object").clone());
        members.insert("model".to_owned(), json!("gpt-4o"));
        Self {
            json,
            besides: (messages.len() * MESSAGE + BEGINNING) as u64,
            texts: messages,
        }
    }
}

/// A shape of bodies: its name, and the one of a number.
type Shape = (&'static str, fn(usize) -> Body);

pub(crate) const SHAPES: [Shape; 10] = [
    ("short questions in English", short),
    ("chats of 10 to 48 messages", long),
    ("questions on a document", document),
    ("code", code),
    ("JSON in a message", data),
    ("German, French, Spanish", western),
    ("Chinese, Japanese, Korean", eastern),
    ("Russian, Arabic, Hindi and others", others),
    ("tools", tools),
    ("images and embeddings", items),
];

/// Returns about so many bytes of a text, whole lines of it.
fn excerpt(text: &str, from: usize, bytes: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let mut found = String::new();
    for line in lines.iter().cycle().skip(from * 17 % lines.len()) {
        if found.len() >= bytes {
            break;
        }
        found.push_str(line.strip_prefix("//! ").unwrap_or(line));
        found.push('\n');
    }
    found
}

/// Returns so many sentences, one after the other.
fn sentences(of: &[&str], from: usize, count: usize) -> String {
    let chosen = of.iter().cycle().skip(from).take(count);
    chosen.copied().collect::<Vec<_>>().join(" ")
}

fn short(number: usize) -> Body {
    let text = excerpt(GUIDES[number % 4], number, 40 + 20 * number);
    Body::chat(vec![text], json!({ "temperature": 0.2, "stream": true }))
}

fn long(number: usize) -> Body {
    let count = 10 + 2 * number;
    let messages = (0..count).map(|at| excerpt(GUIDES[at % 4], number + at, 60 + at % 7 * 90));
    let besides = json!({ "stream": true, "stream_options": { "include_usage": true } });
    Body::chat(messages.collect(), besides)
}

fn document(number: usize) -> Body {
    let document = excerpt(GUIDES[number % 4], number, 4_000 * (number + 1));
    let question = "Answer from the document above alone. What does it say of limits?";
    Body::chat(
        vec![format!("{document}\n\n{question}")],
        json!({ "max_tokens": 500 }),
    )
}

fn code(number: usize) -> Body {
    let code = excerpt(CODE[number % 4], number, 1_500 * (number + 1));
    let text = format!("Find the fault in this code:\n```rust\n{code}```");
    Body::chat(vec![text], json!({ "max_completion_tokens": 2_000 }))
}

fn data(number: usize) -> Body {
    let data = excerpt(DATA, number, 800 * (number + 1));
    Body::chat(vec![format!("Describe this schema: {data}")], json!({}))
}

fn western(number: usize) -> Body {
    Body::chat(vec![sentences(&WESTERN, number, 2 + number)], json!({}))
}

fn eastern(number: usize) -> Body {
    Body::chat(vec![sentences(&EASTERN, number, 2 + number)], json!({}))
}

fn others(number: usize) -> Body {
    Body::chat(vec![sentences(&OTHERS, number, 2 + number)], json!({}))
}

fn tools(number: usize) -> Body {
    let tools = (0..=number).map(|at| {
        json!({
            "type": "function",
            "function": {
                "name": format!("search_orders_{at}"),
                "description": excerpt(GUIDES[at % 4], at, 120),
                "parameters": {
                    "type": "object",
                    "properties": {
                        "customer": { "type": "string", "description": "The number of the customer." },
                        "since": { "type": "string", "description": "The first day, as year, month and day." },
                        "limit": { "type": "integer", "description": "The most orders that are returned." },
                    },
                    "required": ["customer"],
                },
            },
        })
    });
    let tools = json!(tools.collect::<Vec<_>>());
    let question = excerpt(GUIDES[number % 4], number, 200);
    let mut body = Body::chat(vec![question], json!({ "tools": tools }));
    // The server writes them into the prompt, about as they stand here.
    body.texts.push(tools.to_string());
    body
}

fn items(number: usize) -> Body {
    let text = excerpt(GUIDES[number % 4], number, 300);
    match number % 4 {
        0 | 1 => {
            let images = 1 + number / 5;
            let data = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAYAAAB".repeat(600 + 300 * number);
            let url = format!("data:image/png;base64,{data}");
            let image = json!({ "type": "image_url", "image_url": { "url": url } });
            let mut content = vec![json!({ "type": "text", "text": text })];
            content.extend(std::iter::repeat_n(image, images));
            let message = json!({ "role": "user", "content": content });
            Body {
                json: json!({ "messages": [message], "model": "gpt-4o", "max_tokens": 300 }),
                texts: vec![text],
                besides: (MESSAGE + BEGINNING) as u64 + IMAGE * images as u64,
            }
        }
        2 => {
            let inputs = (0..=number).map(|at| excerpt(GUIDES[at % 4], at, 400));
            let inputs: Vec<_> = inputs.collect();
            Body {
                json: json!({ "input": inputs, "model": "text-embedding-3-small" }),
                texts: inputs,
                besides: 0,
            }
        }
        _ => {
            let ids: Vec<u32> = (0..100 * (number as u32 + 1))
                .map(|at| at * 7_919 % 199_000)
                .collect();
            Body {
                besides: ids.len() as u64,
                json: json!({ "input": ids, "model": "text-embedding-3-small" }),
                texts: Vec::new(),
            }
        }
    }
}
