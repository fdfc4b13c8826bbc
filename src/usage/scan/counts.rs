//! The counts of one report, by the names that vendors give them.

use crate::limit::token_usage::TokenUsage;

/// A count of tokens. Names with one meaning are one count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenCount {
    Total,
    /// The input, with the tokens of a cache.
    Prompt,
    Completion,
    /// The input: with the tokens of a cache if these are [`Cached`](Self::Cached), or else without.
    Input,
    Output,
    /// Tokens of a cache, inside the input.
    Cached,
    /// Tokens of a cache, beside the input of this name.
    CacheRead,
    CacheWrite,
    /// Reasoning, beside the completion.
    Thoughts,
    /// Results of tools, beside the prompt.
    ToolPrompt,
}

impl TokenCount {
    const ALL: usize = Self::ToolPrompt as usize + 1;

    /// In an object of usage.
    pub(super) fn in_usage(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"total_tokens" | b"totalTokens" | b"totalTokenCount" => Self::Total,
            b"prompt_tokens" | b"promptTokenCount" => Self::Prompt,
            b"completion_tokens" | b"candidatesTokenCount" => Self::Completion,
            b"input_tokens" | b"inputTokens" => Self::Input,
            b"output_tokens" | b"outputTokens" => Self::Output,
            b"prompt_cache_hit_tokens" | b"cachedContentTokenCount" => Self::Cached,
            b"cache_read_input_tokens" | b"cacheReadInputTokens" => Self::CacheRead,
            b"cache_creation_input_tokens" | b"cacheWriteInputTokens" => Self::CacheWrite,
            b"thoughtsTokenCount" => Self::Thoughts,
            b"toolUsePromptTokenCount" => Self::ToolPrompt,
            _ => return None,
        })
    }

    /// In the details of a count of the input.
    pub(super) fn in_details(name: &[u8]) -> Option<Self> {
        (name == b"cached_tokens").then_some(Self::Cached)
    }

    /// In the answer itself, as Ollama and llama.cpp have it.
    pub(super) fn in_answer(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"prompt_eval_count" | b"tokens_evaluated" => Self::Prompt,
            b"eval_count" | b"tokens_predicted" => Self::Completion,
            _ => return None,
        })
    }

    /// In llama.cpp's timings.
    pub(super) fn in_timings(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"prompt_n" => Self::Input,
            b"predicted_n" => Self::Output,
            b"cache_n" => Self::CacheRead,
            _ => return None,
        })
    }
}

/// The counts that were reported so far.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenCounts {
    values: [u64; TokenCount::ALL],
    /// A bit for each count: set if it was reported.
    given: u16,
}

/// The meaning of counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KnownUsage {
    pub(super) usage: TokenUsage,
    pub(super) has_input: bool,
    pub(super) has_output: bool,
}

impl TokenCounts {
    pub(super) fn set(&mut self, count: TokenCount, value: Option<u64>) {
        let bit = 1 << count as u16;
        match value {
            Some(value) => {
                self.values[count as usize] = value;
                self.given |= bit;
            }
            None => self.given &= !bit,
        }
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.given = 0;
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.given == 0
    }

    fn get(&self, count: TokenCount) -> Option<u64> {
        (self.given >> count as u16 & 1 == 1).then(|| self.values[count as usize])
    }

    /// Raises each count to that of a later report. Counts in a stream are cumulative.
    pub(super) fn raise(&mut self, later: &Self) {
        for (at, (value, later_value)) in self.values.iter_mut().zip(later.values).enumerate() {
            let bit = 1 << at;
            if later.given & bit != 0 {
                *value = match self.given & bit {
                    0 => later_value,
                    _ => later_value.max(*value),
                };
            }
        }
        self.given |= later.given;
    }

    /// Returns whether something is said of the output.
    pub(super) fn tell_output(&self) -> bool {
        let told = |count: TokenCount| 1 << count as u16;
        let output = told(TokenCount::Total)
            | told(TokenCount::Completion)
            | told(TokenCount::Output)
            | told(TokenCount::Thoughts);
        self.given & output != 0
    }

    /// Returns whether the output has a count of its own, or there is only a total.
    pub(super) fn tell_output_apart(&self) -> bool {
        let completion = self.get(TokenCount::Completion);
        completion
            .or_else(|| self.get(TokenCount::Output))
            .is_some()
            || self.input().is_none()
    }

    /// Forgets the output.
    pub(super) fn without_output(mut self) -> Self {
        for count in [
            TokenCount::Total,
            TokenCount::Completion,
            TokenCount::Output,
            TokenCount::Thoughts,
        ] {
            self.set(count, None);
        }
        self
    }

    /// Returns what the counts say.
    pub(super) fn known(&self) -> KnownUsage {
        let input = self.input();
        let total = self.get(TokenCount::Total);
        let completion = self.get(TokenCount::Completion);
        let completion = completion.or_else(|| self.get(TokenCount::Output));
        let thoughts = self.get(TokenCount::Thoughts);
        let output = match (completion, thoughts) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        let known = |usage| KnownUsage {
            usage,
            has_input: true,
            has_output: true,
        };
        match (input, output, total) {
            // A total beyond its parts is of output that has no count of its own.
            (Some(input), _, Some(total)) => {
                let rest = total.saturating_sub(input.total());
                known(input.output(rest.max(output.unwrap_or(0))))
            }
            (Some(input), Some(output), None) => known(input.output(output)),
            (None, Some(output), Some(total)) => {
                let input = total.saturating_sub(output);
                known(TokenUsage::new().input(input).output(output))
            }
            (None, None, Some(total)) => known(TokenUsage::undivided(total)),
            (input, output, None) => KnownUsage {
                usage: input.unwrap_or_default().output(output.unwrap_or(0)),
                has_input: input.is_some(),
                has_output: output.is_some(),
            },
        }
    }

    /// Returns the kinds of the input, which do not overlap.
    fn input(&self) -> Option<TokenUsage> {
        let count = |count| self.get(count).unwrap_or(0);
        let (read, write) = (count(TokenCount::CacheRead), count(TokenCount::CacheWrite));
        let cached = self.get(TokenCount::Cached);
        let inside = |all: u64, cached: u64, write: u64| {
            let cached = cached.min(all);
            let write = write.min(all - cached);
            TokenUsage::new()
                .input(all - cached - write)
                .cached_input(cached)
                .cache_write(write)
        };
        if let Some(prompt) = self.get(TokenCount::Prompt) {
            let all = prompt.saturating_add(count(TokenCount::ToolPrompt));
            return Some(inside(all, cached.unwrap_or(0).max(read), write));
        }
        let input = self.get(TokenCount::Input)?;
        Some(match cached {
            Some(cached) => inside(input, cached, 0),
            None => TokenUsage::new()
                .input(input)
                .cached_input(read)
                .cache_write(write),
        })
    }
}
