//! GitHub on this machine, for the demo and the tests: a model of an organization that changes, and the part of the REST API that
//! shows it.
//!
//! The clock of the model stands still until it is moved, so that an answer depends on the model alone. Only the budgets of requests
//! follow the real clock, because clients compare their resets with it.
//!
//! A method that is given an id or a number that the model does not have panics.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use blackwater_local::http::{Body, Server, streamed, whole};
use hyper::Response;
use tokio::io::{AsyncRead, ReadBuf};

mod answers;
mod changes;
mod model;
mod objects;
mod populate;
mod search;

pub use model::{
    AccountKind, Budget, Gone, Instead, Issue, Item, Label, Logged, Milestone, Model, Person, PullRequest, Reactions,
    Repository,
};

/// The token that GitHub accepts at first.
pub const TOKEN: &str = "github-token";

/// A running GitHub. It stops when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct GitHub {
    server: Arc<Server>,
    model: Arc<Mutex<Model>>,
}

impl GitHub {
    /// Starts GitHub with an organization that has no people and no repositories, on a free port of loopback.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(organization: &str) -> io::Result<Self> {
        let model = Arc::new(Mutex::new(Model::new(organization)));
        let served = Arc::clone(&model);
        let server = Server::streaming(move |_, request| {
            let answer = response(lock(&served).answer(&request));
            async move { answer }
        })
        .await?;
        lock(&model).origin = server.origin();
        Ok(Self { server: Arc::new(server), model })
    }

    /// The address of its API, as `http://127.0.0.1:80`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// The model. Requests wait until the guard is dropped.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

fn response(answer: answers::Answer) -> Response<Body> {
    if answer.status == 0 {
        return Response::new(streamed(Broken));
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let response = response.body(whole(answer.body.into()));
    response.unwrap_or_else(|error| Response::new(whole(error.to_string().into())))
}

/// A body that breaks the connection.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

#[cfg(test)]
mod tests;
