//! The exit codes of `netpol`: one list, so that scripts can rely on it.

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// As asked.
    Done = 0,
    /// The answer is 'no': denied, invalid, falls short.
    No = 1,
    /// It could not be done: usage, no daemon, no right, nothing to answer from.
    Failed = 2,
}

impl Exit {
    /// `Done` if so, else `No`.
    #[must_use]
    pub const fn answer(yes: bool) -> Self {
        if yes { Self::Done } else { Self::No }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
