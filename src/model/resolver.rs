//! The class of a request among the models of the rules.

use std::{fmt, str};

use http::HeaderName;

use super::{
    Models,
    models::{ModelSource, NameModel},
    patterns::{NamePatternError, NamePatterns},
};
use crate::{
    facts::{BodyFacts, UnreadReason},
    head::{self, RequestHead},
    limit::{model_class::ModelClass, token_class::TokenClass},
};

/// A fault in the settings of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelResolverError {
    /// Models of a document that leaves it to code to name them.
    #[cfg(feature = "config")]
    NoSource,
    Header(String),
    Names(NamePatternError),
}

/// The classes of a request: among the models of the rules, and among those whose tokens have settings of their own. Both
/// come from one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestClasses {
    pub(crate) model: ModelClass,
    pub(crate) token_class: TokenClass,
}

impl RequestClasses {
    /// The request has no model.
    pub(crate) const NONE: Self = Self {
        model: ModelClass::NONE,
        token_class: TokenClass::OTHERWISE,
    };
    /// The model was not read.
    pub(crate) const UNREAD: Self = Self {
        model: ModelClass::UNREAD,
        token_class: TokenClass::UNREAD,
    };
}

/// Finds the classes of a request.
pub(crate) struct ModelResolver {
    source: NameSource,
    /// The parameter of route keys that names the model, where a key has it. The route of a request has to be found for
    /// it.
    in_path: Option<Box<str>>,
    patterns: NamePatterns,
    /// The names of models that have prices or estimates of their own.
    token_names: Option<NamePatterns>,
}

/// A source of names, checked.
enum NameSource {
    Body,
    Header(HeaderName),
    /// The parameter alone.
    Path,
    Closure(NameModel),
}

impl ModelResolver {
    /// `token_names` are the names of models that have prices or estimates of their own, if the rules have prices or such
    /// estimates.
    pub(crate) fn new(
        models: &Models,
        token_names: Option<NamePatterns>,
    ) -> Result<Self, ModelResolverError> {
        let source = match &models.source {
            ModelSource::Body => NameSource::Body,
            ModelSource::Header(name) => {
                let fault = |_| ModelResolverError::Header(name.to_string());
                NameSource::Header(name.parse().map_err(fault)?)
            }
            ModelSource::Path => NameSource::Path,
            ModelSource::Closure(closure) => NameSource::Closure(closure.clone()),
            #[cfg(feature = "config")]
            ModelSource::Code => return Err(ModelResolverError::NoSource),
        };
        let patterns = NamePatterns::new(models.models.iter().map(|(name, _)| &**name))
            .map_err(ModelResolverError::Names)?;
        Ok(Self {
            source,
            in_path: models.in_path.as_ref().map(|name| name.as_ref().into()),
            patterns,
            token_names,
        })
    }

    /// Returns whether names are read from the body of a request.
    pub(crate) fn reads_body(&self) -> bool {
        matches!(self.source, NameSource::Body)
    }

    /// Returns the parameter of route keys that names are read from, if they are.
    pub(crate) fn path_param(&self) -> Option<&str> {
        self.in_path.as_deref()
    }

    /// Returns whether names are read from such a parameter alone.
    pub(crate) fn is_in_path_alone(&self) -> bool {
        matches!(self.source, NameSource::Path)
    }

    /// Returns whether the price of a request may depend on its body.
    pub(crate) fn reads_price(&self) -> bool {
        self.reads_body() && self.token_names.is_some()
    }

    /// Returns the classes of a request. Runs the user's closure, if the source is one. Where names are read from a
    /// parameter of route keys alone, there are none without its [value](Self::classes_in_path).
    #[inline]
    pub(crate) fn classes(&self, request: RequestHead<'_>) -> RequestClasses {
        if self.is_in_path_alone() {
            return RequestClasses::NONE;
        }
        match self.name(request) {
            Ok(name) => self.classes_of(name),
            Err(_) => RequestClasses::UNREAD,
        }
    }

    /// Returns the classes of a request by the value of a parameter of its route key. `None`: there is no value.
    pub(crate) fn classes_in_path(&self, value: Option<&[u8]>) -> RequestClasses {
        match value.map(str::from_utf8) {
            Some(Ok(name)) => self.classes_of(Some(name)),
            Some(Err(_)) | None => RequestClasses::UNREAD,
        }
    }

    /// Returns the reason for which the model of a request was not read. `is_in_path`: its route has the parameter,
    /// whose value cannot be read.
    pub(crate) fn unread(
        &self,
        request: RequestHead<'_>,
        is_in_path: bool,
    ) -> Option<UnreadReason> {
        match self.source {
            _ if is_in_path => Some(UnreadReason::Malformed),
            NameSource::Body | NameSource::Header(_) => self.name(request).err(),
            NameSource::Path | NameSource::Closure(_) => None,
        }
    }

    /// Returns the name of the model. `None`: the request names none.
    fn name<'a>(&self, request: RequestHead<'a>) -> Result<Option<&'a str>, UnreadReason> {
        match &self.source {
            NameSource::Body => match request.extensions().get::<BodyFacts>() {
                None => Err(UnreadReason::Absent),
                Some(body) => match (body.facts(), body.unread()) {
                    (Some(facts), _) => Ok(facts.model()),
                    (None, reason) => Err(reason.unwrap_or(UnreadReason::Absent)),
                },
            },
            NameSource::Header(name) => {
                let lines = request.headers().iter().filter(|(other, _)| *other == name);
                let mut values = lines.map(|(_, value)| head::trim_ows_bytes(value.as_bytes()));
                let first = values.find(|value| !value.is_empty());
                // Servers disagree on which of several lines counts.
                let is_one = values.all(|value| value.is_empty() || Some(value) == first);
                let name = first.map(str::from_utf8).transpose();
                name.ok().filter(|_| is_one).ok_or(UnreadReason::Malformed)
            }
            NameSource::Path => Ok(None),
            NameSource::Closure(closure) => Ok(closure(request)),
        }
    }

    fn classes_of(&self, name: Option<&str>) -> RequestClasses {
        let number = name.and_then(|name| self.patterns.find(name));
        let token_class = self.token_names.as_ref().zip(name);
        let token_class = token_class.and_then(|(names, name)| names.find(name));
        RequestClasses {
            model: number.map_or(ModelClass::OTHER, ModelClass::named),
            token_class: token_class.map_or(TokenClass::OTHERWISE, TokenClass::named),
        }
    }
}

impl fmt::Debug for ModelResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelResolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{Limits, Rate, facts::FactsScanner};

    fn resolver(models: &Models) -> ModelResolver {
        ModelResolver::new(models, None).expect("models that hold together")
    }

    #[test]
    fn the_longest_name_wins_and_a_whole_one_over_all() {
        let names = ["gpt-4*", "gpt-4o", "gpt-4o*", "gpt-4o-mini", "llama", "g*"];
        let models = names
            .iter()
            .fold(Models::by_header("x-model"), |models, name| {
                models.model(*name, Limits::new())
            });
        let resolver = resolver(&models);
        let table = [
            ("gpt-4", Some("gpt-4*")),
            ("gpt-4o", Some("gpt-4o")),
            ("gpt-4o-", Some("gpt-4o*")),
            ("gpt-4o-mini", Some("gpt-4o-mini")),
            ("gpt-4o-mini-2", Some("gpt-4o*")),
            ("gpt-5", Some("g*")),
            ("g", Some("g*")),
            ("llama", Some("llama")),
            ("llama-2", None),
            ("GPT-4o", None),
        ];
        for (name, expected) in table {
            let number = names.iter().position(|it| Some(*it) == expected);
            let expected = number.map_or(ModelClass::OTHER, ModelClass::named);
            let request = Request::builder().header("x-model", format!(" {name}\t"));
            let request = request.body(()).expect("a request");
            let head = RequestHead::of(&request);
            assert_eq!(
                (resolver.classes(head).model, resolver.unread(head, false)),
                (expected, None),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_not_read_has_a_class_of_its_own() {
        let by_header = resolver(&Models::by_header("x-model").model("a", Limits::new()));
        let by_body = resolver(&Models::from_body().model("a", Limits::new()));
        let class = |resolver: &ModelResolver, value: Option<&[u8]>, body: Option<BodyFacts>| {
            let mut request = Request::new(());
            if let Some(value) = value {
                let value = http::HeaderValue::from_bytes(value).expect("a value");
                request.headers_mut().insert("x-model", value);
            }
            if let Some(body) = body {
                request.extensions_mut().insert(body);
            }
            let head = RequestHead::of(&request);
            (resolver.classes(head).model, resolver.unread(head, false))
        };
        let unread = |reason| (ModelClass::UNREAD, Some(reason));
        let malformed = unread(UnreadReason::Malformed);
        assert_eq!(class(&by_header, None, None), (ModelClass::OTHER, None));
        assert_eq!(class(&by_header, Some(b"a\xff"), None), malformed);
        assert_eq!(
            class(&by_body, Some(b"a"), None),
            unread(UnreadReason::Absent)
        );
        let large = BodyFacts::new(Err(UnreadReason::TooLarge));
        assert_eq!(
            class(&by_body, None, Some(large)),
            unread(UnreadReason::TooLarge)
        );
        let read = |body: &str| {
            let mut scanner = FactsScanner::new();
            scanner.feed(body.as_bytes());
            Some(BodyFacts::new(scanner.finish()))
        };
        assert_eq!(class(&by_body, None, read("{}")), (ModelClass::OTHER, None));
        assert_eq!(
            class(&by_body, None, read("{\"model\":\"a\"}")),
            (ModelClass::named(0), None)
        );
    }

    #[test]
    fn names_that_cannot_match_are_errors() {
        let long = "a".repeat(NamePatterns::LONGEST + 1);
        for name in ["", "a*b", "**", "otherwise", "unread", &*long] {
            let models = Models::from_body().model(name.to_owned(), Rate::per_second(1));
            let error = ModelResolver::new(&models, None).expect_err(name);
            let fault = NamePatternError::Name(name.to_owned());
            assert_eq!(error, ModelResolverError::Names(fault));
        }
        for name in ["a", "a*", "*"] {
            let models = Models::from_body().model(name, Limits::new());
            let error = ModelResolver::new(&models.model(name, Limits::new()), None);
            let fault = NamePatternError::SameName(name.into());
            assert_eq!(error.err(), Some(ModelResolverError::Names(fault)));
        }
        let error = ModelResolver::new(&Models::by_header("x model"), None);
        assert_eq!(
            error.err(),
            Some(ModelResolverError::Header("x model".into()))
        );
    }
}
