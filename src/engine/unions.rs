//! The rules of requests that may mean several routes.

use std::sync::OnceLock;

use super::route_limits::{Found, Prepared};
use crate::route::undeclared::{Sealed, Undeclared};

/// The rules of requests that may mean several routes, each made once, as long as there is room.
///
/// Unions of declared routes alone, which are as many as rules allow, stand apart from those with undeclared ones, of
/// which clients invent as many as they like.
#[derive(Debug, Default)]
pub(super) struct Unions {
    declared: OnceLock<Set>,
    others: OnceLock<Set>,
}

/// `None`: there is no room.
type Set = Undeclared<Option<Box<Prepared>>>;

impl Unions {
    /// The union of some rules of one state, which are told apart by where they lie. It goes by the name of the first.
    pub(super) fn get<'a>(&'a self, rules: &[&'a Prepared], is_declared: bool) -> Found<'a> {
        let (first, second, others) = match rules {
            [] => unreachable!("a request has at least one reading"),
            [only] => return Found::Kept(only),
            [first, second, others @ ..] => (first, second, others),
        };
        let set = match is_declared {
            true => &self.declared,
            false => &self.others,
        };
        let set = set.get_or_init(|| Undeclared::new(None));
        let place = |rule: &&Prepared| std::ptr::from_ref::<Prepared>(rule).addr();
        let places: Vec<usize> = rules.iter().map(place).collect();
        let make = || {
            let both = first.rule.and(&second.rule);
            let others = others.iter();
            first.under(others.fold(both, |union, other| union.and(&other.rule)))
        };
        match set.get(set.hash(&places), || Some(Box::new(make()))) {
            Ok(Some(kept)) => Found::Kept(kept),
            Ok(None) | Err(Sealed) => Found::Made(Box::new(make())),
        }
    }

    /// Counts what was admitted under each of them.
    pub(super) fn settle(&self) {
        let sets = [self.declared.get(), self.others.get()];
        let kept = sets.into_iter().flatten().flat_map(Undeclared::iter);
        for prepared in kept.filter_map(|(_, kept)| kept.as_ref()) {
            prepared.settle();
        }
    }
}
