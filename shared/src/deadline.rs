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

    /// The middle of what is left.
    #[must_use]
    pub fn halfway(self) -> Self {
        Self(self.left().map(|left| Instant::now() + left / 2))
    }
}
