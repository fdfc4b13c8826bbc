//! A small language model, trained on `corpus.txt` when the server starts.
//!
//! A real model in miniature: byte-pair tokens, a back-off n-gram over them, sampling with a temperature and a seed. It
//! needs no download and no graphics card, and it has the two properties that matter to a server. It is CPU-bound, so
//! it runs off the async threads, and it produces its answer a token at a time, so it streams.
//!
//! The three examples share it: `inference` (axum), `tonic_inference` and `hyper_inference`.

#![allow(
    clippy::float_arithmetic,
    dead_code,
    unused_imports,
    reason = "probabilities are floats, and no example uses every part of the model"
)]

mod device;
mod embedding;
mod ngram;
mod random;
mod stop;
mod stream;
mod tokenizer;

pub(crate) use self::device::Device;
pub(crate) use self::embedding::{DIMENSIONS, embed};
pub(crate) use self::random::fresh_seed;
pub(crate) use self::stream::{Completion, Event, collect, stream};

use std::collections::HashSet;

use self::ngram::Ngrams;
use self::random::Random;
use self::stop::StopText;
use self::tokenizer::{END, Token, Tokenizer};

/// The most tokens that one answer may have.
pub(crate) const MAX_TOKENS: usize = 4096;

/// The factor by which a word becomes likelier when the question has it too.
const TOPIC_WEIGHT: f64 = 6.0;

/// A request to the model: what to generate, and how.
#[derive(Clone, Debug)]
pub(crate) struct Generate {
    pub(crate) prompt: Prompt,
    pub(crate) max_tokens: usize,
    /// 0 always takes the likeliest token, 1 samples as the corpus does.
    pub(crate) temperature: f64,
    /// The same seed gives the same answer.
    pub(crate) seed: u64,
    /// The answer ends before the first of these.
    pub(crate) stop: Vec<String>,
}

/// The text a generation starts from.
#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    /// Writes on where the text ends.
    Continue(String),
    /// Begins a paragraph of its own that leans towards the words of the text.
    Answer(String),
}

/// The reason why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model came to the end of a paragraph, or to a stop text.
    Stop,
    /// `max_tokens` were written.
    Length,
}

impl Finish {
    /// The word OpenAI's API has for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The numbers of tokens that went in and came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
}

impl Usage {
    pub(crate) fn total(self) -> u64 {
        (self.prompt_tokens + self.completion_tokens) as u64
    }
}

/// A tokenizer and the n-grams counted over its tokens.
#[derive(Debug)]
pub(crate) struct Model {
    tokenizer: Tokenizer,
    ngrams: Ngrams,
    /// `None`: as fast as the processor can.
    device: Option<Device>,
}

impl Model {
    /// Learns everything it will ever know; well under a second in a release build.
    pub(crate) fn train() -> Self {
        Self::of_context(4)
    }

    /// Learns less: what follows one token.
    pub(crate) fn train_small() -> Self {
        Self::of_context(1)
    }

    /// Chooses a token by so many before it.
    fn of_context(context: usize) -> Self {
        let corpus = include_str!("corpus.txt");
        let tokenizer = Tokenizer::train(corpus);
        let mut ngrams = Ngrams::new(context);
        for paragraph in corpus.split("\n\n") {
            ngrams.learn(&tokenizer.encode(paragraph.trim()));
        }
        Self {
            tokenizer,
            ngrams,
            device: None,
        }
    }

    /// Runs the model on a device, as slow as a model that is some thousand times its size.
    pub(crate) fn on(self, device: Device) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    /// Returns the number of tokens of a text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.tokenizer.encode(text).len()
    }

    /// Generates on the calling thread and hands over each event as it comes: texts, then
    /// `Finished`, then `Usage`. Gives up as soon as `emit` answers `false`.
    pub(crate) fn run(&self, request: &Generate, mut emit: impl FnMut(Event) -> bool) {
        let (Prompt::Continue(text) | Prompt::Answer(text)) = &request.prompt;
        let prompt = self.tokenizer.encode(text);
        let mut usage = Usage {
            prompt_tokens: prompt.len(),
            completion_tokens: 0,
        };

        let mut context = vec![END];
        let mut topic = HashSet::new();
        match request.prompt {
            Prompt::Continue(_) => context.extend(prompt),
            Prompt::Answer(_) => topic = self.topic(text),
        }

        let mut random = Random::new(request.seed);
        let mut stop = StopText::new(&request.stop);
        let mut finish = Finish::Length;
        let mut running = self.device.as_ref().map(Device::start);
        while usage.completion_tokens < request.max_tokens {
            let token = self.next_token(&context, &topic, request.temperature, &mut random);
            if token == END {
                finish = Finish::Stop;
                break;
            }
            context.push(token);
            usage.completion_tokens += 1;
            if let Some(running) = &mut running {
                running.token();
            }

            let text = stop.push(&self.tokenizer.decode(token));
            if !text.is_empty() && !emit(Event::Text(text)) {
                return;
            }
            if stop.is_stopped() {
                finish = Finish::Stop;
                break;
            }
        }

        let rest = stop.into_rest();
        let _ = (rest.is_empty() || emit(Event::Text(rest)))
            && emit(Event::Finished(finish))
            && emit(Event::Usage(usage));
    }

    fn next_token(
        &self,
        context: &[Token],
        topic: &HashSet<Token>,
        temperature: f64,
        random: &mut Random,
    ) -> Token {
        let mut candidates = self.ngrams.candidates(context);
        for (token, score) in &mut candidates {
            if topic.contains(token) {
                *score *= TOPIC_WEIGHT;
            }
        }
        random.sample(&candidates, temperature).unwrap_or(END)
    }

    /// The tokens that are words of the text, in the plural or in the singular.
    fn topic(&self, text: &str) -> HashSet<Token> {
        let text = text.to_lowercase();
        let words: HashSet<&str> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.len() > 3)
            .flat_map(|word| [word, word.strip_suffix('s').unwrap_or(word)])
            .collect();
        self.tokenizer
            .vocabulary()
            .filter(|(_, piece)| words.contains(piece.trim().to_lowercase().as_str()))
            .map(|(token, _)| token)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// Trained once for all tests.
    fn model() -> &'static Model {
        static MODEL: LazyLock<Model> = LazyLock::new(Model::train);
        &MODEL
    }

    fn request(prompt: Prompt) -> Generate {
        Generate {
            prompt,
            max_tokens: 64,
            temperature: 0.8,
            seed: 7,
            stop: Vec::new(),
        }
    }

    fn run(model: &Model, request: &Generate) -> Completion {
        let mut events = Vec::new();
        model.run(request, |event| {
            events.push(event);
            true
        });
        Completion::from_events(events).expect("a whole run ends with its usage")
    }

    #[test]
    fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
        let model = model();
        let mut ask = request(Prompt::Answer("Tell me about the river.".into()));
        let first = run(model, &ask);
        assert_eq!(run(&Model::train(), &ask), first, "trained and run again");
        ask.seed = 8;
        assert_ne!(run(model, &ask).text, first.text, "another seed");
    }

    #[test]
    fn a_small_model_writes_otherwise() {
        let mut ask = request(Prompt::Answer("Tell me about the river.".into()));
        ask.max_tokens = 200;
        let small = Model::train_small();
        assert!(small.ngrams.size() * 3 < model().ngrams.size());
        assert_ne!(run(&small, &ask).text, run(model(), &ask).text);
        assert_eq!(small.count("The baker"), model().count("The baker"));
    }

    #[test]
    fn the_counts_are_those_of_the_tokenizer() {
        let model = model();
        for max_tokens in [1, 5, 64, MAX_TOKENS] {
            let mut ask = request(Prompt::Continue("The baker".into()));
            ask.max_tokens = max_tokens;
            let mut pieces = 0;
            model.run(&ask, |event| {
                pieces += usize::from(matches!(event, Event::Text(_)));
                true
            });
            let done = run(model, &ask);
            assert_eq!(done.usage.prompt_tokens, model.count("The baker"));
            assert_eq!(done.usage.completion_tokens, pieces, "one text per token");
            match done.finish {
                Finish::Length => assert_eq!(done.usage.completion_tokens, max_tokens),
                Finish::Stop => assert!(done.usage.completion_tokens <= max_tokens),
            }
        }
    }

    #[test]
    fn without_temperature_the_seed_does_not_matter() {
        let model = model();
        let mut ask = request(Prompt::Continue("The river".into()));
        ask.temperature = 0.0;
        let first = run(model, &ask);
        ask.seed = 99;
        assert_eq!(run(model, &ask), first);
    }

    #[test]
    fn an_answer_ends_before_its_stop_text() {
        let model = model();
        let mut ask = request(Prompt::Answer("bread".into()));
        ask.max_tokens = 400;
        let whole = run(model, &ask).text;
        let at = whole.find(". ").expect("several sentences");
        ask.stop = vec![". ".into()];
        let cut = run(model, &ask);
        assert_eq!(cut.text, whole[..at]);
        assert_eq!(cut.finish, Finish::Stop);
    }

    #[test]
    fn a_listener_that_goes_away_ends_the_run() {
        let model = model();
        let mut heard = 0;
        model.run(&request(Prompt::Answer("tides".into())), |_| {
            heard += 1;
            heard < 3
        });
        assert_eq!(heard, 3);
    }
}
