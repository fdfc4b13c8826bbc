//! Configured strings, looked up by what clients send.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Strings with a value each: compared one by one while they are few, hashed once they are many.
///
/// The strings are configured; what a client sends is only looked up, so that there is no flooding to
/// defend against.
#[derive(Debug)]
pub(super) enum Strings<T> {
    Few(Vec<(Box<str>, T)>),
    Many(HashMap<Box<str>, T, FixedState>),
}

impl<T> Strings<T> {
    /// Up to here comparing is faster than hashing: most strings differ in their length already.
    const FEW: usize = 8;

    #[inline]
    pub(super) fn get(&self, text: &str) -> Option<&T> {
        match self {
            Self::Few(few) => {
                let found = few.iter().find(|(known, _)| **known == *text);
                found.map(|(_, value)| value)
            }
            Self::Many(many) => many.get(text),
        }
    }

    /// The value of a string, made if it is new.
    pub(super) fn entry(&mut self, text: &str, make: impl FnOnce() -> T) -> &mut T {
        if let Self::Few(few) = self {
            let known = few.iter().any(|(known, _)| **known == *text);
            if !known && few.len() == Self::FEW {
                *self = Self::Many(few.drain(..).collect());
            }
        }
        match self {
            Self::Few(few) => {
                let known = few.iter().position(|(known, _)| **known == *text);
                let index = known.unwrap_or_else(|| {
                    few.push((text.into(), make()));
                    few.len() - 1
                });
                &mut few[index].1
            }
            Self::Many(many) => many.entry(text.into()).or_insert_with(make),
        }
    }
}

impl<T> Default for Strings<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_string_keeps_its_value_however_many_there_are() {
        let mut strings = Strings::default();
        for count in 0..40usize {
            assert_eq!(strings.get(&format!("/{count}")), None);
            assert_eq!(*strings.entry(&format!("/{count}"), || count), count);
            for known in 0..=count {
                assert_eq!(strings.get(&format!("/{known}")), Some(&known));
                let entry = strings.entry(&format!("/{known}"), || unreachable!("known"));
                assert_eq!(*entry, known);
            }
            let are_few = matches!(strings, Strings::Few(_));
            assert_eq!(are_few, count < Strings::<usize>::FEW);
        }
    }
}
