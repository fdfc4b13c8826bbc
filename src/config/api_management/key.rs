//! The keys of the counters that policies have.

use std::fmt;

use http::HeaderName;

/// The key of a counter that a policy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CounterKey {
    /// A constant: all requests together.
    Everybody,
    Client(ClientSource),
}

/// The part of a request that tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientSource {
    Address,
    Header(HeaderName),
}

impl ClientSource {
    /// Returns the header field that has a subscription's key in API Management.
    pub(super) fn subscription() -> Self {
        Self::Header(HeaderName::from_static("ocp-apim-subscription-key"))
    }
}

impl fmt::Display for ClientSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the address"),
            subscription if *subscription == Self::subscription() => {
                f.write_str("the subscription")
            }
            Self::Header(name) => write!(f, "the header `{name}`"),
        }
    }
}

impl CounterKey {
    /// The key that an expression makes, if it is one that can be made here.
    pub(super) fn of_expression(expression: &str) -> Option<Self> {
        let inner = expression.strip_prefix("@(")?.strip_suffix(')')?;
        let mut words = Words(inner);
        let key = if words.literal().is_some() {
            Self::Everybody
        } else {
            words.eat("context")?;
            Self::Client(words.identity()?)
        };
        // `?? "nobody"`: those without one share the limits of one client, as they do here.
        if words.eat("??").is_some() {
            words.literal()?;
        }
        words.is_empty().then_some(key)
    }
}

/// The rest of an expression, which has not been read yet.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn identity(&mut self) -> Option<ClientSource> {
        if self.member("Subscription").is_some() {
            return self
                .member("Id")
                .or_else(|| self.member("Key"))
                .map(|()| ClientSource::subscription());
        }
        self.member("Request")?;
        if self.member("IpAddress").is_some() {
            return Some(ClientSource::Address);
        }
        self.member("Headers")?;
        self.member("GetValueOrDefault")?;
        self.eat("(")?;
        let name = self.literal()?.parse().ok()?;
        if self.eat(",").is_some() {
            let empty = |words: &mut Self| {
                words
                    .eat("string")
                    .or_else(|| words.eat("String"))
                    .and_then(|()| words.member("Empty"))
            };
            self.literal().map(drop).or_else(|| empty(self))?;
        }
        self.eat(")")?;
        Some(ClientSource::Header(name))
    }

    fn member(&mut self, name: &str) -> Option<()> {
        let mut ahead = Words(self.0);
        let _ = ahead.eat("?");
        ahead.eat(".")?;
        ahead.eat(name)?;
        *self = ahead;
        Some(())
    }

    fn eat(&mut self, word: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(word)?;
        Some(())
    }

    /// A text without escapes.
    fn literal(&mut self) -> Option<&'a str> {
        let (text, rest) = self.0.trim_start().strip_prefix('"')?.split_once('"')?;
        self.0 = rest;
        (!text.contains('\\')).then_some(text)
    }

    fn is_empty(&self) -> bool {
        self.0.trim_start().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str) -> Option<CounterKey> {
        let name = HeaderName::from_static(name);
        Some(CounterKey::Client(ClientSource::Header(name)))
    }

    #[test]
    fn keys_that_can_be_made_here_are_told_from_those_that_cannot() {
        let address = || Some(CounterKey::Client(ClientSource::Address));
        let subscription = || Some(CounterKey::Client(ClientSource::subscription()));
        let table = [
            ("@(context.Request.IpAddress)", address()),
            ("@( context . Request ?. IpAddress )", address()),
            ("@(context.Subscription.Id)", subscription()),
            ("@(context.Subscription.Key)", subscription()),
            ("@(context.Subscription?.Id)", subscription()),
            (
                r#"@(context.Subscription?.Key ?? "anonymous")"#,
                subscription(),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("Ocp-Apim-Subscription-Key", ""))"#,
                subscription(),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("X-Api-Key"))"#,
                header("x-api-key"),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("x-api-key", string.Empty))"#,
                header("x-api-key"),
            ),
            (r#"@("all")"#, Some(CounterKey::Everybody)),
            ("@()", None),
            ("@(context)", None),
            ("@(context.Request.IpAddress + \"x\")", None),
            ("@(context.Request.IpAddresses)", None),
            ("@(context.Subscription.Name)", None),
            ("@(context.User.Id)", None),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("x y"))"#,
                None,
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("x","").AsJwt()?.Subject)"#,
                None,
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("x\"","y"))"#,
                None,
            ),
            (r#"@("all" + context.Api.Id)"#, None),
            ("@{ return context.Request.IpAddress; }", None),
            ("context.Request.IpAddress", None),
        ];
        for (expression, expected) in table {
            assert_eq!(
                CounterKey::of_expression(expression),
                expected,
                "{expression}"
            );
        }
    }
}
