//! From the model's thread to the connection: a bounded channel.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Finish, Generate, Model, Usage};

/// The number of events by which the model may run ahead of a client that reads slowly.
const AHEAD: usize = 16;

/// One step of a generation: texts, then `Finished`, then `Usage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Text(String),
    Finished(Finish),
    Usage(Usage),
}

/// A whole generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) text: String,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

impl Completion {
    /// Puts the events together; `None` if they break off before the end.
    pub(crate) fn from_events(events: impl IntoIterator<Item = Event>) -> Option<Self> {
        let mut text = String::new();
        let mut finish = None;
        for event in events {
            match event {
                Event::Text(piece) => text += &piece,
                Event::Finished(reason) => finish = Some(reason),
                Event::Usage(usage) => {
                    let finish = finish?;
                    return Some(Self {
                        text,
                        finish,
                        usage,
                    });
                }
            }
        }
        None
    }
}

/// Generates on a thread for blocking work.
///
/// The model waits while the channel is full, and stops when the receiver is dropped, so a client
/// that goes away costs nothing more.
pub(crate) fn stream(model: Arc<Model>, request: Generate) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        model.run(&request, |event| sender.blocking_send(event).is_ok());
    });
    receiver
}

/// Waits for the whole generation; `None` if the model broke down.
pub(crate) async fn collect(mut receiver: mpsc::Receiver<Event>) -> Option<Completion> {
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    Completion::from_events(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Prompt;

    fn request() -> Generate {
        Generate {
            prompt: Prompt::Answer("the harbour".into()),
            max_tokens: 200,
            temperature: 1.0,
            seed: 3,
            stop: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_stream_gives_what_a_run_gives_and_ends_with_its_reader() {
        let model = Arc::new(Model::train());
        let mut events = Vec::new();
        model.run(&request(), |event| {
            events.push(event);
            true
        });
        assert!(events.len() > AHEAD, "the model has to wait for its reader");
        let streamed = collect(stream(model.clone(), request())).await;
        assert!(streamed.is_some(), "the stream was whole");
        assert_eq!(streamed, Completion::from_events(events));

        // A model that waits for a reader who has gone must not wait for ever.
        let mut receiver = stream(model.clone(), request());
        assert!(matches!(receiver.recv().await, Some(Event::Text(_))));
        drop(receiver);
        while Arc::strong_count(&model) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
