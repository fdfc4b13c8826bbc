//! The settings of models, as users write them.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{head::RequestHead, limit::limits::Limits};

/// The settings of models: how the model of a request is found, and the limits of each.
///
/// ```
/// use tower_throttle::{Limits, Models, Rate, Rules};
///
/// let rules = Rules::new().default_route(Rate::per_second(10).burst(20)).models(
///     Models::by_header("x-model")
///         .model("llama-70b", Limits::new().in_flight(4).tokens(Rate::per_minute(90_000)))
///         .model("gpt-4o*", Limits::new().tokens(Rate::per_minute(200_000)))
///         .otherwise(Rate::per_minute(60)),
/// );
/// # let _ = rules;
/// ```
///
/// A request is charged on the limits of its model beside those of its route, its client and the total, on all of them
/// or on none. Limits of each client on a model are part of a [`Plan`](crate::Plan::model).
///
/// # Names
///
/// A name is that of one model, or, with `*` at its end, the beginning of several. The longest that matches wins, and a
/// name without `*` wins over all others. Names are compared byte by byte, as model servers do: `GPT-4o` is not
/// `gpt-4o`.
///
/// A request for a model that no name matches, or for none, has the limits of [`otherwise`](Self::otherwise). Its
/// sender chooses that name, so set limits there, unless the server refuses models that it does not know.
///
/// # Models that were not read
///
/// A request whose model could not be read is charged on the limits of **every** model, unless
/// [`unread`](Self::unread) sets others: nobody gains by hiding a name.
#[derive(Clone)]
#[must_use]
pub struct Models {
    pub(crate) source: ModelSource,
    /// The parameter of route keys that names the model, where a key has it.
    pub(crate) in_path: Option<Cow<'static, str>>,
    /// The keys of routes whose requests have models. Empty: all routes.
    pub(crate) routes: Vec<Box<str>>,
    pub(crate) models: Vec<(Cow<'static, str>, Limits)>,
    pub(crate) otherwise: Option<Limits>,
    pub(crate) unread: Option<Limits>,
}

/// A part of the request that names its model.
#[derive(Clone)]
pub(crate) enum ModelSource {
    /// The member `model` of the body, which a layer outside has read.
    Body,
    Header(Cow<'static, str>),
    /// A parameter of route keys.
    /// The parameter alone that is set beside it.
    Path,
    Closure(NameModel),
    /// None: code will name models.
    #[cfg(feature = "config")]
    Code,
}

pub(crate) type NameModel = Arc<dyn for<'a> Fn(RequestHead<'a>) -> Option<&'a str> + Send + Sync>;

impl Models {
    fn of(source: ModelSource) -> Self {
        Self {
            source,
            in_path: None,
            routes: Vec::new(),
            models: Vec::new(),
            otherwise: None,
            unread: None,
        }
    }

    /// Finds the model in the member `model` of the request's body, a JSON object, as OpenAI, Anthropic and Ollama have
    /// it.
    ///
    /// [`ThrottleLayer::peek_layer`](crate::ThrottleLayer::peek_layer) reads the body, and goes outside of the
    /// throttle. Without that layer no model is read, and all requests are charged on the limits of every model.
    ///
    /// A request without a body names no model, and falls under [`otherwise`](Self::otherwise). An upload in several
    /// parts is not read. If the server has such routes, name those that have models with [`on`](Self::on).
    pub fn from_body() -> Self {
        Self::of(ModelSource::Body)
    }

    /// Finds the model in a header field, without surrounding white space. Empty lines of the field
    /// do not count. A value that is not UTF-8 is not read, and neither are lines that differ.
    ///
    /// A client can send any value: use a field that a gateway outside sets from the body. An invalid name is an error
    /// of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn by_header(name: impl AsRef<str>) -> Self {
        Self::of(ModelSource::Header(name.as_ref().to_owned().into()))
    }

    /// Finds the model in a parameter of the [route key](crate::RouteKey) that takes the request, as Gemini, Bedrock and
    /// Azure have it.
    ///
    /// ```
    /// use tower_throttle::{Limits, Models, Rate, Rules};
    ///
    /// let rules = Rules::new()
    ///     .route("POST /v1beta/models/{model}:generateContent", Limits::new())
    ///     .route("POST /model/{model}/converse", Limits::new())
    ///     .route("POST /openai/deployments/{model}/chat/completions", Limits::new())
    ///     .models(Models::by_path_param("model").model("gpt-4o", Rate::per_minute(60)));
    /// # let _ = rules;
    /// ```
    ///
    /// The keys of all routes whose requests have models give the parameter this name. Requests of other routes have no
    /// model and no limits by model: those of keys without such a parameter, and those that no key takes, though axum
    /// may have a template for them. A name that is no parameter of a key is an error of
    /// [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    ///
    /// Escapes in the value are decoded once: `gpt%2D4o` is `gpt-4o`, and `%2F` a slash in the name. A greedy parameter
    /// has all slashes of the rest of the path. A value that is not UTF-8 is not read, nor one in a path that the server
    /// may read in several ways with different models.
    pub fn by_path_param(name: impl AsRef<str>) -> Self {
        Self {
            in_path: Some(name.as_ref().to_owned().into()),
            ..Self::of(ModelSource::Path)
        }
    }

    /// Finds the model of some routes in a [parameter](Self::by_path_param) of their keys, and of all others by the
    /// source that was set before: for servers with several APIs.
    ///
    /// ```
    /// use tower_throttle::{Limits, Models, Rate, Rules};
    ///
    /// let rules = Rules::new()
    ///     .route("POST /v1/chat/completions", Limits::new())
    ///     .route("POST /v1beta/models/{model}:generateContent", Limits::new())
    ///     .models(Models::from_body().or_by_path_param("model").model("large", Rate::per_minute(60)));
    /// # let _ = rules;
    /// ```
    ///
    /// The body of a request to such a route is not read for its model, and a `model` in it does not count. A name that
    /// is no parameter of a key is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn or_by_path_param(mut self, name: impl AsRef<str>) -> Self {
        self.in_path = Some(name.as_ref().to_owned().into());
        self
    }

    /// Finds the model by a closure over the request's head. `None` means that the request is for none of the
    /// [named](Self::model) ones.
    ///
    /// ```
    /// use tower_throttle::{Models, Rate};
    ///
    /// /// Inserted by an outer layer that routes requests to models.
    /// #[derive(Clone)]
    /// struct Model(String);
    ///
    /// let models = Models::by(|head| head.extensions().get().map(|Model(name)| name.as_str()))
    ///     .model("small", Rate::per_second(20));
    /// # let _ = models;
    /// ```
    pub fn by<F>(name: F) -> Self
    where
        F: for<'a> Fn(RequestHead<'a>) -> Option<&'a str> + Send + Sync + 'static,
    {
        Self::of(ModelSource::Closure(Arc::new(name)))
    }

    /// Models that code will [name](Self::named_by): the settings of a file alone.
    #[cfg(feature = "config")]
    pub(crate) fn by_code() -> Self {
        Self::of(ModelSource::Code)
    }

    /// Finds the model by a closure in place of any other source, for models that were read from a document, which
    /// cannot hold one.
    ///
    /// ```
    /// use tower_throttle::{Models, Rate, Rules};
    ///
    /// # let rules = Rules::new().models(Models::from_body().model("small", Rate::per_second(20)));
    /// // `rules` come from a file whose models have `by = "code"`.
    /// let rules = rules.map_models(|models| models.named_by(|head| head.field("x-model")));
    /// # let _ = rules;
    /// ```
    pub fn named_by<F>(mut self, name: F) -> Self
    where
        F: for<'a> Fn(RequestHead<'a>) -> Option<&'a str> + Send + Sync + 'static,
    {
        self.source = ModelSource::Closure(Arc::new(name));
        self
    }

    /// Restricts models to the requests of one route, given by its [`RouteKey`](crate::RouteKey). Without a call, the
    /// requests of all routes have models, but for [exempt](Limits::exempt) ones.
    ///
    /// Each call adds a route. Other routes have no limits by model, and no model is read from their bodies. A key that
    /// the rules do not declare is an error of [`ThrottleLayer::new`](crate::ThrottleLayer::new).
    pub fn on(mut self, key: impl AsRef<str>) -> Self {
        self.routes.push(key.as_ref().into());
        self
    }

    /// Sets the limits of a model, or, with `*` at the end of the name, of several models together. All clients share
    /// them.
    ///
    /// Errors of [`ThrottleLayer::new`](crate::ThrottleLayer::new) are an empty name, one of more than 256 bytes, one
    /// with `*` elsewhere than at its end, the names `otherwise` and `unread`, and a name that is given twice.
    pub fn model(mut self, name: impl Into<Cow<'static, str>>, limits: impl Into<Limits>) -> Self {
        self.models.push((name.into(), limits.into()));
        self
    }

    /// Sets the limits of all requests for other models or for none, together. Without a call they have no limits by
    /// model.
    pub fn otherwise(mut self, limits: impl Into<Limits>) -> Self {
        self.otherwise = Some(limits.into());
        self
    }

    /// Sets the limits of all requests whose model was not read, in place of those of every model.
    ///
    /// A client chooses whether its model is read, for example by compressing the body. Limits that are wider than
    /// those of one of the models are a way around that model's, and so is a smaller [cost](Limits::cost): unless it is
    /// set here, it is that of the dearest model. Limits of each client on a model
    /// ([`Plan::model`](crate::Plan::model)) hold for these requests in either case.
    pub fn unread(mut self, limits: impl Into<Limits>) -> Self {
        self.unread = Some(limits.into());
        self
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            in_path,
            routes,
            models,
            otherwise,
            unread,
        } = self;
        f.debug_struct("Models")
            .field("source", source)
            .field("in_path", in_path)
            .field("routes", routes)
            .field("models", models)
            .field("otherwise", otherwise)
            .field("unread", unread)
            .finish()
    }
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("Body"),
            Self::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Self::Path => f.write_str("Path"),
            Self::Closure(_) => f.write_str("<fn>"),
            #[cfg(feature = "config")]
            Self::Code => f.write_str("Code"),
        }
    }
}
