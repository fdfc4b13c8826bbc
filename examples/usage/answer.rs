//! An answer of any API, and the ways in which it may go.

use std::io;

use axum::{
    Json,
    body::Body,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde_json::Value;
use tokio::task::yield_now;

/// The text of one event: 16 bytes, which count as four tokens where no usage is reported.
pub(crate) const CHUNK: &str = "the river flows ";

/// The number of events with text.
pub(crate) const CHUNKS: usize = 20;

/// The whole text.
pub(crate) fn text() -> String {
    CHUNK.repeat(CHUNKS)
}

/// The way in which an answer goes, as the name of a model asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Complete,
    WithoutUsage,
    BreaksOff,
    Hangs,
    FailsMidway,
    Error(StatusCode),
}

impl Course {
    /// Returns the course of a model, or status 404 for a model that is not served.
    pub(crate) fn of(model: &str) -> Self {
        match model {
            "complete" => Self::Complete,
            "no-usage" => Self::WithoutUsage,
            "breaks-off" => Self::BreaksOff,
            "hangs" => Self::Hangs,
            "fails-midway" => Self::FailsMidway,
            "error-500" => Self::Error(StatusCode::INTERNAL_SERVER_ERROR),
            "error-429" => Self::Error(StatusCode::TOO_MANY_REQUESTS),
            _ => Self::Error(StatusCode::NOT_FOUND),
        }
    }
}

/// One event of a stream.
#[derive(Debug)]
pub(crate) struct Event {
    /// The name before the data, for APIs that have one.
    pub(crate) name: Option<&'static str>,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn new(data: Value) -> Self {
        Self { name: None, data }
    }

    pub(crate) fn named(name: &'static str, data: Value) -> Self {
        Self {
            name: Some(name),
            data,
        }
    }

    fn into_frame(self) -> String {
        let Self { name, data } = self;
        match name {
            Some(name) => format!("event: {name}\ndata: {data}\n\n"),
            None => format!("data: {data}\n\n"),
        }
    }
}

/// An answer in the format of one API.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The answer as one JSON text.
    pub(crate) whole: Value,
    /// The events of a stream before its text.
    pub(crate) opening: Vec<Event>,
    /// The events with text, [`CHUNKS`] of them.
    pub(crate) chunks: Vec<Event>,
    /// The events after the text.
    pub(crate) closing: Vec<Event>,
    /// The end of the stream, which is no event with JSON.
    pub(crate) mark: Option<&'static str>,
    /// The event of a failure after the stream has begun.
    pub(crate) failure: Event,
    /// Makes the body of an error.
    pub(crate) error: fn(StatusCode) -> Value,
}

/// The end of a body.
#[derive(Debug, Clone, Copy)]
enum End {
    Ended,
    Broken,
    Never,
}

impl Answer {
    pub(crate) fn respond(mut self, course: Course, is_stream: bool) -> Response {
        let error = self.error;
        let failed = |status| (status, Json(error(status))).into_response();
        match course {
            Course::Error(status) => return failed(status),
            Course::FailsMidway if !is_stream => return failed(StatusCode::INTERNAL_SERVER_ERROR),
            Course::WithoutUsage => self.remove_usage(),
            _ => {}
        }
        let end = match course {
            Course::BreaksOff => End::Broken,
            Course::Hangs => End::Never,
            _ => End::Ended,
        };
        let (media_type, frames) = match is_stream {
            true => ("text/event-stream", self.into_frames(course)),
            false => ("application/json", self.into_parts(course)),
        };
        let body = Body::from_stream(stream::iter(frames).map(Ok).chain(ending(end)));
        ([(CONTENT_TYPE, media_type)], body).into_response()
    }

    /// The frames of a stream.
    fn into_frames(mut self, course: Course) -> Vec<String> {
        let is_whole = matches!(course, Course::Complete | Course::WithoutUsage);
        if !is_whole {
            self.chunks.truncate(CHUNKS / 2);
            self.closing.clear();
            self.mark = None;
        }
        if course == Course::FailsMidway {
            self.closing.push(self.failure);
        }
        let events = self.opening.into_iter().chain(self.chunks);
        let frames = events.chain(self.closing).map(Event::into_frame);
        let mark = self.mark.map(|mark| format!("data: {mark}\n\n"));
        frames.chain(mark).collect()
    }

    /// The frames of an answer as a whole, without the usage at its end if it does not get there.
    fn into_parts(self, course: Course) -> Vec<String> {
        let mut text = self.whole.to_string();
        if !matches!(course, Course::Complete | Course::WithoutUsage) {
            let end = text.rfind("usage").unwrap_or(text.len());
            text.truncate(end);
        }
        vec![text]
    }

    /// Removes the members for usage, wherever an API has them.
    fn remove_usage(&mut self) {
        let events = self.opening.iter_mut().chain(&mut self.chunks);
        let data = events.chain(&mut self.closing).map(|event| &mut event.data);
        for answer in data.chain([&mut self.whole]) {
            for place in ["", "/message", "/response"] {
                if let Some(Value::Object(members)) = answer.pointer_mut(place) {
                    members.remove("usage");
                    members.remove("usageMetadata");
                }
            }
        }
    }
}

/// The end of a body, after all that has come before it was sent.
fn ending(end: End) -> impl Stream<Item = io::Result<String>> + Send {
    let end = match end {
        End::Ended => stream::empty().boxed(),
        End::Broken => {
            stream::once(async { Err(io::Error::other("the model breaks off")) }).boxed()
        }
        End::Never => stream::pending().boxed(),
    };
    stream::once(yield_now())
        .filter_map(|()| async { None })
        .chain(end)
}
