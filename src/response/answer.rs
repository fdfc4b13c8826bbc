//! The answer of a throttle on its way out.

use bytes::Bytes;
use http::{Response, response::Parts};

/// The answer to a refused request, from the decision until its body is sent.
///
/// Kept in a box, which goes from the decision through the future to the body of the response. So neither futures nor
/// bodies of admitted requests are as large as an answer, and its data is moved once.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Taken when there is a response.
    head: Option<Parts>,
    data: Bytes,
}

impl Answer {
    #[inline]
    pub(crate) fn new(response: Response<Bytes>) -> Box<Self> {
        let (head, data) = response.into_parts();
        Box::new(Self {
            head: Some(head),
            data,
        })
    }

    /// Returns the response, with a body that is made of the rest: of the data.
    ///
    /// # Panics
    ///
    /// If it has responded before.
    #[inline]
    pub(crate) fn respond<B>(
        mut self: Box<Self>,
        body: impl FnOnce(Box<Self>) -> B,
    ) -> Response<B> {
        let head = self.head.take().expect("an answer responds once");
        Response::from_parts(head, body(self))
    }

    /// The data of the body.
    pub(crate) fn data(&self) -> &Bytes {
        &self.data
    }

    /// The data of the body, which ends with it.
    pub(crate) fn into_data(self) -> Bytes {
        self.data
    }
}
