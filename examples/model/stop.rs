//! Finds stop texts in text that comes in pieces.

/// Lets text through until a stop text is complete, and holds back what might be the start of one.
#[derive(Debug)]
pub(crate) struct StopText<'a> {
    stops: &'a [String],
    held: String,
    stopped: bool,
}

impl<'a> StopText<'a> {
    pub(crate) fn new(stops: &'a [String]) -> Self {
        Self {
            stops,
            held: String::new(),
            stopped: false,
        }
    }

    /// Takes a piece and gives back what may be sent.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop));
        if let Some(at) = found.min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let sure = (0..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| {
                self.stops
                    .iter()
                    .any(|stop| stop.starts_with(&self.held[at..]))
            })
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(sure);
        std::mem::replace(&mut self.held, rest)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Returns the text that was held back and turned out to be no stop text.
    pub(crate) fn into_rest(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_found_across_pieces() {
        // (stop texts, pieces, what comes out, stopped)
        let table: &[(&[&str], &[&str], &str, bool)] = &[
            (&[], &["a", "b"], "ab", false),
            (&["b"], &["a", "b", "c"], "a", true),
            (&["END"], &["the E", "N", "D of"], "the ", true),
            (&["END"], &["the E", "NVY"], "the ENVY", false),
            (&["END"], &["the EN"], "the EN", false),
            (&["cd", "b"], &["ab", "cd"], "a", true),
            (&["aab"], &["a", "a", "a", "b"], "a", true),
        ];
        for (stops, pieces, out, stopped) in table {
            let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
            let mut filter = StopText::new(&stops);
            let mut text = String::new();
            for piece in *pieces {
                text += &filter.push(piece);
                if filter.is_stopped() {
                    break;
                }
            }
            assert_eq!(filter.is_stopped(), *stopped, "{stops:?} {pieces:?}");
            text += &filter.into_rest();
            assert_eq!(text, *out, "{stops:?} {pieces:?}");
        }
    }
}
