//! The number of model tokens that a request is expected to cost.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{HeaderName, header::CONTENT_LENGTH};

use super::{body_estimate::BodyEstimate, body_weights::WeightTable};
use crate::{
    facts::BodyFacts,
    head::{self, RequestHead},
    limit::{token_class::TokenClass, token_demand::TokenDemand},
};

/// The number of model tokens that are reserved for a request before its cost is known.
///
/// ```
/// use tower_throttle::{Limits, Rate, Rules, usage::Estimate};
///
/// let rules = Rules::new()
///     .route("POST /v1/chat/completions", Limits::new().tokens(Rate::per_minute(90_000)))
///     .estimate(Estimate::by_content_length(4).or(500));
/// # let _ = rules;
/// ```
///
/// By default the number is one token for every four bytes of the body, by its `Content-Length`, which is typical of
/// English text. It covers the prompt and not the answer. If answers are long, set a larger estimate: a shortfall
/// becomes debt, so that no tokens are lost, but more requests are admitted than the rate allows, and later ones wait
/// for that debt.
///
/// # Kinds
///
/// Limits may count the tokens of requests and of answers apart
/// ([`input_tokens`](crate::Limits::input_tokens), [`output_tokens`](crate::Limits::output_tokens)). An estimate
/// [by content length](Self::by_content_length) is one of the input, and one [from the body](Self::from_body) has both.
/// All others, and [`or`](Self::or), are undivided: limits of either kind reserve all of it.
///
/// # Zero and the maximum
///
/// At least one token is reserved, whatever the estimate, so that an empty bucket admits no request. An estimate of any
/// size is admitted, since it is a guess: each limit reserves no more than a part of its burst, and settling charges
/// the rest; see [`Limits::tokens`](crate::Limits::tokens).
/// [`Limits::max_tokens_per_request`](crate::Limits::max_tokens_per_request) refuses large requests, and
/// [`exact`](Self::exact) numbers above the burst are refused. A number above 2⁶⁴ − 1 counts as 2⁶⁴ − 1.
#[derive(Clone)]
#[must_use]
pub struct Estimate {
    source: EstimateSource,
    pub(crate) models: Vec<(Cow<'static, str>, BodyEstimate)>,
    otherwise: Option<u64>,
    is_exact: bool,
}

#[derive(Clone)]
pub(crate) enum EstimateSource {
    Nothing,
    Header(Cow<'static, str>),
    ContentLength { bytes_per_token: u64 },
    Body(BodyEstimate),
    Closure(EstimateFn),
}

pub(crate) type EstimateFn = Arc<dyn Fn(RequestHead<'_>) -> Option<u64> + Send + Sync>;

impl Estimate {
    fn of(source: EstimateSource) -> Self {
        Self {
            source,
            models: Vec::new(),
            otherwise: None,
            is_exact: false,
        }
    }

    /// Creates an estimate that is the same for each request.
    pub fn fixed(tokens: u64) -> Self {
        Self::of(EstimateSource::Nothing).or(tokens)
    }

    /// Creates an estimate that is read from a header field, in decimal digits.
    ///
    /// A client can send any number, so an outer layer should set the field. An invalid name is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn by_header(name: impl AsRef<str>) -> Self {
        Self::of(EstimateSource::Header(name.as_ref().to_owned().into()))
    }

    /// Creates an estimate of one token for every `bytes_per_token` bytes of the body, rounded up, by its
    /// `Content-Length`. Zero `bytes_per_token` count as one.
    pub fn by_content_length(bytes_per_token: u64) -> Self {
        Self::of(EstimateSource::ContentLength { bytes_per_token })
    }

    /// Creates an estimate from the facts of the request's body: its text, and the output that it asks for.
    ///
    /// [`ThrottleLayer::peek_layer`](crate::ThrottleLayer::peek_layer) reads the body, and goes outside of the
    /// throttle. A request whose body was not read has [`or`](Self::or) tokens. A client decides whether its body is
    /// read, so set a number above that of most requests; without one,
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) returns an error. If
    /// [`max_tokens_per_request`](crate::Limits::max_tokens_per_request) is to hold for such requests, set a number
    /// above it: all of them are refused then.
    pub fn from_body(estimate: BodyEstimate) -> Self {
        Self::of(EstimateSource::Body(estimate))
    }

    /// Sets the weights of a model, or, with `*` at the end of the name, of several models, for an estimate
    /// [from the body](Self::from_body). A part that they do not set is that for all models.
    ///
    /// ```
    /// use tower_throttle::{
    ///     Models, Rules, ThrottleLayer,
    ///     usage::{BodyEstimate, Estimate},
    /// };
    ///
    /// let estimate = Estimate::from_body(BodyEstimate::new().output(1_000))
    ///     .model("llama-70b", BodyEstimate::new().output(4_096).bytes_per_token(3))
    ///     .model("gpt-4o-mini*", BodyEstimate::new().output(300))
    ///     .or(16_000);
    /// let rules = Rules::new().models(Models::from_body()).estimate(estimate);
    /// let throttle = ThrottleLayer::new(rules)?;
    /// # Ok::<(), tower_throttle::RulesError>(())
    /// ```
    ///
    /// - The longest name wins, as among [`Models`](crate::Models), which also tell how the name is found. The names of
    ///   both need not be the same.
    /// - A request for another model or for none has the weights for all, and so has one on a route whose requests have
    ///   no models. If the server has a default model, the weights for all have to be those of that model.
    /// - A request whose model was not read has the dearest of all weights: the fewest bytes of a token, and the most
    ///   tokens of an item and of an answer.
    /// - A request whose body was not read has no fewer tokens than an answer without a stated maximum, by the weights
    ///   of its model, even if [`or`](Self::or) has fewer.
    ///
    /// # Errors
    ///
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new) refuses a name as [`Models::model`](crate::Models::model) does,
    /// names of models in rules without `Models`, and weights of models for numbers that are not from the body.
    pub fn model(mut self, name: impl Into<Cow<'static, str>>, estimate: BodyEstimate) -> Self {
        self.models.push((name.into(), estimate));
        self
    }

    /// Creates an estimate from a closure over the request's head. `None` means that the number is not known.
    ///
    /// ```
    /// use tower_throttle::usage::Estimate;
    ///
    /// // Inserted by an outer layer that knows the largest answer of the model.
    /// #[derive(Clone)]
    /// struct MaxTokens(u64);
    ///
    /// let estimate = Estimate::by(|head| head.extensions().get().map(|MaxTokens(most)| *most)).or(1_000);
    /// # let _ = estimate;
    /// ```
    pub fn by(closure: impl Fn(RequestHead<'_>) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self::of(EstimateSource::Closure(Arc::new(closure)))
    }

    /// Sets the tokens that are reserved if the source has no number, as for a body without a `Content-Length`.
    /// Default: 1.
    pub fn or(mut self, tokens: u64) -> Self {
        self.otherwise = Some(tokens);
        self
    }

    /// Treats the numbers as exact costs, for example if an outer layer has counted tokens. They are reserved in full,
    /// and a request above a limit's burst is refused at once, without a wait to retry after. By default the numbers
    /// are estimates.
    ///
    /// ```
    /// use tower_throttle::usage::Estimate;
    ///
    /// // An outer layer has counted, and has removed any such field that the client sent.
    /// let cost = Estimate::by_header("x-counted-tokens").or(1_000).exact();
    /// # let _ = cost;
    /// ```
    pub fn exact(mut self) -> Self {
        self.is_exact = true;
        self
    }

    /// The source, the number without one, and whether the numbers are exact.
    pub(crate) fn parts(&self) -> (&EstimateSource, u64, bool) {
        (&self.source, self.otherwise.unwrap_or(1), self.is_exact)
    }
}

impl Default for Estimate {
    /// One token for each four bytes of the body.
    fn default() -> Self {
        Self::by_content_length(4)
    }
}

impl fmt::Debug for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Estimate");
        match &self.source {
            EstimateSource::Nothing => &mut debug,
            EstimateSource::Header(name) => debug.field("by_header", name),
            EstimateSource::ContentLength { bytes_per_token } => {
                debug.field("by_content_length", bytes_per_token)
            }
            EstimateSource::Body(body) => debug.field("from_body", body),
            EstimateSource::Closure(_) => debug.field("by", &format_args!("<fn>")),
        };
        if !self.models.is_empty() {
            debug.field("models", &self.models);
        }
        debug
            .field("or", &self.otherwise.unwrap_or(1))
            .field("exact", &self.is_exact)
            .finish()
    }
}

/// A fault in an estimate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EstimateError {
    /// A text that is no name of a header field.
    Header(String),
    /// An estimate from bodies, without a number for those that are not read.
    NoUnread,
    /// Weights of this model for numbers that are not from bodies.
    NoBody(String),
}

/// An [`Estimate`] that can be asked.
pub(crate) struct Estimator {
    field: Option<HeaderName>,
    /// Used where numbers are from bodies.
    weights: WeightTable,
    estimate: Estimate,
}

impl Estimator {
    /// `named` are the classes of requests whose tokens have settings of their own, each with the number of its weights
    /// among those of models.
    pub(crate) fn new(
        estimate: Estimate,
        named: impl Iterator<Item = Option<usize>> + Clone,
    ) -> Result<Self, EstimateError> {
        let is_from_body = matches!(estimate.source, EstimateSource::Body(_));
        if let Some((name, _)) = estimate.models.first().filter(|_| !is_from_body) {
            return Err(EstimateError::NoBody(name.to_string()));
        }
        let field = match &estimate.source {
            EstimateSource::Header(name) => {
                let fault = |_| EstimateError::Header(name.to_string());
                Some(name.parse().map_err(fault)?)
            }
            EstimateSource::Body(_) if estimate.otherwise.is_none() => {
                return Err(EstimateError::NoUnread);
            }
            _ => None,
        };
        let of_model = |number: Option<usize>| Some(&estimate.models.get(number?)?.1);
        let weights = match &estimate.source {
            EstimateSource::Body(for_all) => WeightTable::new(for_all, named.map(of_model)),
            _ => WeightTable::new(&BodyEstimate::new(), std::iter::empty()),
        };
        Ok(Self {
            field,
            weights,
            estimate,
        })
    }

    /// Returns whether the numbers are what requests cost.
    pub(crate) fn is_exact(&self) -> bool {
        self.estimate.is_exact
    }

    /// Returns whether the numbers are read from bodies.
    pub(crate) fn reads_body(&self) -> bool {
        matches!(self.estimate.source, EstimateSource::Body(_))
    }

    /// Returns the tokens of a request of some class: at least one, of some kind.
    pub(crate) fn tokens(&self, head: RequestHead<'_>, class: TokenClass) -> TokenDemand {
        let number = |name| head::number(head.headers(), name);
        let known = match &self.estimate.source {
            EstimateSource::Nothing => None,
            EstimateSource::Header(_) => {
                let known = self.field.as_ref().and_then(number);
                known.map(TokenDemand::undivided)
            }
            EstimateSource::ContentLength { bytes_per_token } => {
                let tokens = |bytes: u64| bytes.div_ceil((*bytes_per_token).max(1));
                let known = number(&CONTENT_LENGTH).map(tokens);
                known.map(|tokens| TokenDemand::input(tokens.max(1)))
            }
            EstimateSource::Body(_) => {
                let body = head.extensions().get::<BodyFacts>();
                body.and_then(BodyFacts::facts)
                    .map(|facts| self.weights.of(class).tokens(facts))
            }
            EstimateSource::Closure(closure) => closure(head).map(TokenDemand::undivided),
        };
        let otherwise = || {
            let fewest = self.weights.fewest_unread(class);
            TokenDemand::undivided(self.estimate.otherwise.unwrap_or(1).max(fewest))
        };
        let tokens = known.unwrap_or_else(otherwise);
        match tokens.total() {
            0 => TokenDemand::undivided(1),
            _ => tokens,
        }
    }
}

impl fmt::Debug for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.estimate.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn estimates_are_read_from_where_they_stand() {
        let by_host = || Estimate::by(|head| u64::try_from(head.uri().host()?.len()).ok());
        let table = [
            (Estimate::default(), None, 1),
            (Estimate::default(), Some(("content-length", "400")), 100),
            (Estimate::default(), Some(("content-length", "401")), 101),
            (Estimate::default(), Some(("content-length", "0")), 1),
            (Estimate::default(), Some(("content-length", "-1")), 1),
            (Estimate::default().or(9), Some(("content-length", "x")), 9),
            (Estimate::default().or(9), Some(("content-length", "+4")), 9),
            (
                Estimate::by_content_length(0),
                Some(("content-length", "7")),
                7,
            ),
            (
                Estimate::by_content_length(1),
                Some(("content-length", "18446744073709551615")),
                u64::MAX,
            ),
            (
                Estimate::by_header("x-tokens"),
                Some(("x-tokens", "12")),
                12,
            ),
            (Estimate::by_header("x-tokens"), Some(("x-tokens", "0")), 1),
            (Estimate::by_header("x-tokens").or(5), None, 5),
            (Estimate::fixed(50), Some(("content-length", "400")), 50),
            (Estimate::fixed(0), None, 1),
            (by_host(), None, 4),
        ];
        for (estimate, field, expected) in table {
            let mut request = Request::get("http://host/").body(()).expect("a request");
            if let Some((name, value)) = field {
                request
                    .headers_mut()
                    .insert(name, value.parse().expect("a value"));
            }
            let told = format!("{estimate:?} with {field:?}");
            let estimator = Estimator::new(estimate, std::iter::empty()).expect("proper");
            assert_eq!(
                estimator
                    .tokens(RequestHead::of(&request), TokenClass::OTHERWISE)
                    .total(),
                expected,
                "{told}"
            );
        }
        let fault = |estimate| Estimator::new(estimate, std::iter::empty()).err();
        let header = EstimateError::Header("x tokens".into());
        assert_eq!(fault(Estimate::by_header("x tokens")), Some(header));
        let from_body = || Estimate::from_body(BodyEstimate::new());
        assert_eq!(fault(from_body()), Some(EstimateError::NoUnread));
        assert_eq!(fault(from_body().or(1)), None);
        let own = || BodyEstimate::new().output(9);
        let of_model = Estimate::by_header("x").model("m", own()).model("n", own());
        assert_eq!(fault(of_model), Some(EstimateError::NoBody("m".into())));
        assert_eq!(fault(from_body().model("m", own()).or(1)), None);
    }
}
