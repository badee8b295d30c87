//! What every program here needs, and the companions too: settings, secrets, the object store, deadlines. Nothing of databases or
//! models.

pub mod deadline;
pub mod progress;
pub mod secrets;
pub mod settings;
pub mod store;
pub mod temporary;

/// The parts of an error's text: what failed and why; and, where its later lines say so, what to do.
#[must_use]
pub fn in_parts(text: &str) -> (String, Option<String>) {
    match text.split_once('\n') {
        None => (text.to_owned(), None),
        Some((what, remedy)) => (what.to_owned(), Some(remedy.replace('\n', ". "))),
    }
}
