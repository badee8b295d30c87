//! How far long work is, for whoever shows it.

/// The target of the events that tell it. Their fields: `what` is under way, how many rows are `done`, and `of` how
/// many, 0 if nobody knows.
pub const TARGET: &str = "blackwater::progress";

/// Tells how far something is.
pub fn progress(what: &str, done: u64, of: u64) {
    tracing::trace!(target: TARGET, what, done, of);
}
