//! Snapshots for other programs.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{LimitSnapshot, MissingUsage, RouteSnapshot, Snapshot};
use crate::limit::{LimitSettings, Scope};

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            limits,
            routes,
            overflowed,
            without_address,
            unknown_plans,
            unread_models,
        } = self;
        let mut fields = serializer.serialize_struct("Snapshot", 6)?;
        fields.serialize_field("limits", limits)?;
        fields.serialize_field("routes", routes)?;
        fields.serialize_field("overflowed", overflowed)?;
        fields.serialize_field("without_address", without_address)?;
        fields.serialize_field("unknown_plans", unknown_plans)?;
        fields.serialize_field("unread_models", unread_models)?;
        fields.end()
    }
}

/// `kind` is `rate`, `quota`, `tokens` or `in_flight`; `settings` are shown as [`LimitSettings`] are.
impl Serialize for LimitSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let scope = match self.scope {
            Scope::Total => "total",
            Scope::Route => "route",
            Scope::Model => "model",
            Scope::Client => "client",
            Scope::ClientOnModel => "client_on_model",
            Scope::ClientOnRoute => "client_on_route",
        };
        let kind = match &self.settings {
            LimitSettings::Rate(_) => "rate",
            LimitSettings::Quota(_) => "quota",
            LimitSettings::Tokens(_) => "tokens",
            LimitSettings::InputTokens(_) => "input_tokens",
            LimitSettings::OutputTokens(_) => "output_tokens",
            LimitSettings::Spend(_) => "spend",
            LimitSettings::InFlight(_) => "in_flight",
        };
        let mut fields = serializer.serialize_struct("LimitSnapshot", 17)?;
        fields.serialize_field("name", &*self.name)?;
        fields.serialize_field("scope", scope)?;
        fields.serialize_field("route", &self.route)?;
        fields.serialize_field("plan", &self.plan.as_deref())?;
        fields.serialize_field("model", &self.model.as_deref())?;
        fields.serialize_field("kind", kind)?;
        fields.serialize_field("settings", &self.settings.to_string())?;
        fields.serialize_field("shadow", &self.settings.is_shadow())?;
        fields.serialize_field("burst", &self.burst)?;
        fields.serialize_field("remaining", &self.remaining)?;
        fields.serialize_field("owed", &self.owed)?;
        fields.serialize_field("in_flight", &self.in_flight)?;
        fields.serialize_field("waiting", &self.waiting)?;
        fields.serialize_field("admitted", &self.admitted)?;
        fields.serialize_field("refused", &self.refused)?;
        fields.serialize_field("would_refuse", &self.would_refuse)?;
        fields.serialize_field("waited", &self.waited)?;
        fields.end()
    }
}

impl Serialize for RouteSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            route,
            admitted,
            exempt,
            degraded,
            refused,
            would_refuse,
            expired,
            refunded,
            missing_usage,
        } = self;
        let mut fields = serializer.serialize_struct("RouteSnapshot", 9)?;
        fields.serialize_field("route", route)?;
        fields.serialize_field("admitted", admitted)?;
        fields.serialize_field("exempt", exempt)?;
        fields.serialize_field("degraded", degraded)?;
        fields.serialize_field("refused", refused)?;
        fields.serialize_field("would_refuse", would_refuse)?;
        fields.serialize_field("expired", expired)?;
        fields.serialize_field("refunded", refunded)?;
        fields.serialize_field("missing_usage", missing_usage)?;
        fields.end()
    }
}

impl Serialize for MissingUsage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            encoding,
            cut,
            absent,
            malformed,
            implausible,
        } = self;
        let mut fields = serializer.serialize_struct("MissingUsage", 5)?;
        fields.serialize_field("encoding", encoding)?;
        fields.serialize_field("cut", cut)?;
        fields.serialize_field("absent", absent)?;
        fields.serialize_field("malformed", malformed)?;
        fields.serialize_field("implausible", implausible)?;
        fields.end()
    }
}
