//! The time by which a run must have ended.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The time by which a run must have ended, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// None: the run may take as long as it does.
    pub const NONE: Self = Self(None);

    /// At this time.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        let left = time.duration_since(SystemTime::now()).unwrap_or_default();
        Self(Some(Instant::now() + left))
    }

    /// What is left; `None` if there is no deadline.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether something may begin that lately took so long: it may take twice the time now.
    #[must_use]
    pub fn allows(self, lately: Duration) -> bool {
        self.left().is_none_or(|left| left > lately * 2)
    }

    /// So much earlier.
    #[must_use]
    pub fn earlier(self, by: Duration) -> Self {
        Self(self.0.map(|at| at.checked_sub(by).unwrap_or(at)))
    }

    /// The middle of what is left.
    #[must_use]
    pub fn halfway(self) -> Self {
        Self(self.left().map(|left| Instant::now() + left / 2))
    }
}

/// Pieces of work, one after another, of which none begins in the second half of the time, or when it would not end in
/// the first half if it took twice as long as the longest so far.
#[derive(Debug)]
pub struct Pace {
    half: Deadline,
    longest: Duration,
    began: Option<Instant>,
}

impl Pace {
    /// Towards this deadline.
    #[must_use]
    pub fn towards(deadline: Deadline) -> Self {
        Self { half: deadline.halfway(), longest: Duration::ZERO, began: None }
    }

    /// Whether there is time for the next piece, which begins now.
    pub fn begins(&mut self) -> bool {
        let last = self.began.replace(Instant::now());
        self.longest = last.map_or(self.longest, |began| self.longest.max(began.elapsed()));
        self.half.allows(self.longest)
    }
}
