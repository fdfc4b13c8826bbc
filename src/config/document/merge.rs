//! One tree over another.

use std::collections::HashMap;

use super::{Node, Value};

impl Node {
    /// With what it leaves out taken from another: tables entry by entry, lists after those of the other. Else it
    /// stays what it is.
    pub(in crate::config) fn over(&self, other: &Self) -> Self {
        let value = match (&self.value, &other.value) {
            (Value::Map(own), Value::Map(others)) => {
                let mut left: HashMap<_, _> =
                    own.iter().map(|(key, node)| (&key.name, node)).collect();
                let below = others
                    .iter()
                    .map(|(key, node)| match left.remove(&key.name) {
                        Some(own) => (key.clone(), own.over(node)),
                        None => (key.clone(), node.clone()),
                    });
                let mut entries: Vec<_> = below.collect();
                let above = own.iter().filter(|(key, _)| left.contains_key(&key.name));
                entries.extend(above.cloned());
                Value::Map(entries)
            }
            (Value::List(own), Value::List(others)) => {
                Value::List(others.iter().chain(own).cloned().collect())
            }
            (own, _) => own.clone(),
        };
        Self { value, at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::document::parse_yaml;

    #[test]
    fn what_is_left_out_comes_from_below() {
        let table = [
            (
                "{ a: 1, b: { c: 2 } }",
                "{ a: 3, b: { d: 4 }, e: 5 }",
                "{ a: 1, b: { d: 4, c: 2 }, e: 5 }",
            ),
            ("[a]", "[b]", "[b, a]"),
            ("{ a: 1 }", "[b]", "{ a: 1 }"),
            ("{ a: ~ }", "{ a: 1 }", "{ a: ~ }"),
        ];
        for (own, other, expected) in table {
            let [own, other, expected] =
                [own, other, expected].map(|text| parse_yaml(text).expect(text));
            assert_eq!(shown(&own.over(&other)), shown(&expected));
        }
    }

    /// Without places.
    fn shown(node: &super::Node) -> String {
        match &node.value {
            super::Value::List(nodes) => {
                format!("{:?}", nodes.iter().map(shown).collect::<Vec<_>>())
            }
            super::Value::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| (&key.name, shown(node)));
                format!("{:?}", entries.collect::<Vec<_>>())
            }
            value => format!("{value:?}"),
        }
    }
}
