//! The reasons for which an answer tells no usage.

/// The reason why the usage of a request was not read from its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingReason {
    /// The answer is compressed, or of a media type that is not read.
    Encoding,
    /// The answer was cut short before its report: the client went away, or the body failed.
    Cut,
    /// The answer came to its end without a report.
    Absent,
    /// The answer is not what its media type promises.
    Malformed,
    /// The report cannot be true.
    Implausible,
}

impl MissingReason {
    pub(crate) const ALL: usize = Self::Implausible as usize + 1;

    /// Returns the reason as a label of a metric.
    #[cfg_attr(
        not(any(feature = "metrics", feature = "tracing")),
        expect(dead_code, reason = "nobody is told")
    )]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Cut => "cut",
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::Implausible => "implausible",
        }
    }
}
