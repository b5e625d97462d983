//! The router: reads the latest snapshot, never the world itself.
//!
//! Every answer that is not 200 is `{"error": …}`. Nothing here writes anything.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query, State as Extract};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::stream;
use netpol_engine::evaluate::EndpointSpec;
use netpol_engine::explain::explain;
use netpol_engine::matrix;
use netpol_engine::policy::Protocol;
use tokio::sync::{broadcast, oneshot};

use super::listener::Socket;
use super::published::{ReadyRequest, State, SyncRequest};
use super::wire::{Failure, Listing, Waited};
use crate::flows::filter::Filter;
use crate::flows::flow::{Flow, Line};
use crate::flows::recorder::KEPT;
use crate::health;

/// The longest that `/v1/wait` waits; a client that wants more asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Serves until `stop` is done; open streams end with it.
///
/// # Errors
/// When the socket breaks.
pub async fn serve(
    mut socket: Socket,
    state: State,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let Some(listener) = socket.listener.take() else {
        return Ok(());
    };
    tokio::select! {
        served = axum::serve(listener, router(state)).into_future() => served,
        () = stop => Ok(()),
    }
}

/// All paths.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/world", get(world))
        .route("/v1/verdict", get(verdict))
        .route("/v1/matrix", get(reachability))
        .route("/v1/wait", get(wait))
        .route("/v1/ready", get(ready))
        .route("/v1/observe", get(observe))
        .fallback(unknown_path)
        .method_not_allowed_fallback(read_only)
        .with_state(state)
}

/// An answer that is not 200.
struct Refusal(StatusCode, String);

impl Refusal {
    fn asked_wrongly(what: impl std::fmt::Display) -> Self {
        Self(StatusCode::BAD_REQUEST, what.to_string())
    }

    fn failed(why: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, why.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(Failure { error: self.1 })).into_response()
    }
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        format!(
            "no `{}` here: there are /v1/status, /v1/world, /v1/verdict, /v1/matrix, /v1/wait, /v1/ready and /v1/observe",
            uri.path()
        ),
    )
}

async fn read_only() -> Refusal {
    Refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "this API is read-only: policy comes from the manifests directory alone".to_owned(),
    )
}

async fn status(Extract(state): Extract<State>) -> Response {
    let mut status = state.published.borrow().status.clone();
    status.gate.dropped = state.gate.read();
    health::complete(&mut status, health::seconds_since_1970());
    Json(status).into_response()
}

async fn world(Extract(state): Extract<State>) -> Response {
    let published = Arc::clone(&state.published.borrow());
    Json(Listing {
        world: published.world.as_ref().clone(),
        origins: published.origins.clone(),
    })
    .into_response()
}

/// The query string, each key named in `known` and none else.
struct Asked(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Refusal> {
        Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map(|Query(pairs)| Self(pairs))
            .map_err(Refusal::asked_wrongly)
    }
}

impl Asked {
    fn known(&self, keys: &[&str]) -> Result<(), Refusal> {
        match self.0.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            Some((key, _)) => Err(Refusal::asked_wrongly(format!(
                "unknown parameter `{key}`: it is one of {}",
                keys.join(", ")
            ))),
            None => Ok(()),
        }
    }

    fn all<T>(&self, key: &str) -> Result<Vec<T>, Refusal>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| {
                value
                    .parse()
                    .map_err(|error| Refusal::asked_wrongly(format!("{key}: {error}")))
            })
            .collect()
    }

    fn one<T>(&self, key: &str) -> Result<Option<T>, Refusal>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let mut values = self.all(key)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Refusal::asked_wrongly(format!("{key}: given twice"))),
        }
    }

    fn required<T>(&self, key: &str) -> Result<T, Refusal>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.one(key)?
            .ok_or_else(|| Refusal::asked_wrongly(format!("{key}: missing")))
    }
}

async fn verdict(Extract(state): Extract<State>, asked: Asked) -> Result<Response, Refusal> {
    asked.known(&["from", "to", "port", "protocol"])?;
    let from: EndpointSpec = asked.required("from")?;
    let to: EndpointSpec = asked.required("to")?;
    let port: u16 = asked.required("port")?;
    let protocol = asked.one("protocol")?.unwrap_or(Protocol::Tcp);
    let world = Arc::clone(&state.published.borrow().world);
    let explanation = explain(&world, &from, &to, protocol, port)
        .map_err(|error| Refusal(StatusCode::NOT_FOUND, error.to_string()))?;
    Ok(Json(explanation).into_response())
}

async fn reachability(Extract(state): Extract<State>, asked: Asked) -> Result<Response, Refusal> {
    asked.known(&["port", "protocol"])?;
    let port: u16 = asked.required("port")?;
    let protocol = asked.one("protocol")?.unwrap_or(Protocol::Tcp);
    let world = Arc::clone(&state.published.borrow().world);
    // Every pair of a large world: not on the thread that feeds the others.
    let written = move || -> Result<Vec<u8>, Refusal> {
        let matrix = matrix::matrix(&world, protocol, port).map_err(Refusal::failed)?;
        serde_json::to_vec(&matrix).map_err(Refusal::failed)
    };
    let text = tokio::task::spawn_blocking(written)
        .await
        .map_err(Refusal::failed)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn wait(Extract(state): Extract<State>, asked: Asked) -> Result<Response, Refusal> {
    asked.known(&["timeout_ms"])?;
    let timeout = asked
        .one("timeout_ms")?
        .map_or(LONGEST_WAIT, Duration::from_millis)
        .min(LONGEST_WAIT);
    let (reply, answer) = oneshot::channel();
    let ask = async {
        state.sync.send(SyncRequest { reply }).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Some(synced)) => Ok(Json(Waited::Synced(synced)).into_response()),
        Ok(None) => Err(Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "netpold is stopping".to_owned(),
        )),
        Err(_) => Ok(Json(Waited::TimedOut).into_response()),
    }
}

/// Waits until all is in force for a network namespace, as long as it may; then says how things are.
async fn ready(Extract(state): Extract<State>, asked: Asked) -> Result<Response, Refusal> {
    asked.known(&["netns", "timeout_ms"])?;
    let netns = namespace::open(asked.required("netns")?)
        .await
        .map(Arc::new)?;
    let timeout = asked
        .one("timeout_ms")?
        .map_or(Duration::ZERO, Duration::from_millis)
        .min(LONGEST_WAIT);
    let ask = async |wait: bool| {
        let (reply, answer) = oneshot::channel();
        let request = ReadyRequest {
            netns: Arc::clone(&netns),
            wait,
            reply,
        };
        state.ready.send(request).await.ok()?;
        answer.await.ok()
    };
    let answer = match tokio::time::timeout(timeout, ask(true)).await {
        Ok(answer) => answer,
        Err(_) => ask(false).await,
    };
    match answer {
        Some(Ok(readiness)) => Ok(Json(readiness).into_response()),
        Some(Err(why)) => Err(Refusal(StatusCode::NOT_FOUND, why)),
        None => Err(Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "netpold is stopping".to_owned(),
        )),
    }
}

async fn observe(Extract(state): Extract<State>, asked: Asked) -> Result<Response, Refusal> {
    asked.known(&["follow", "last", "verdict", "from", "to"])?;
    let follow = asked.one("follow")?.unwrap_or(false);
    let last: usize = asked.one("last")?.unwrap_or(KEPT);
    let filter = Filter {
        verdicts: asked.all("verdict")?,
        from: asked.all("from")?,
        to: asked.all("to")?,
    };
    let (mut recent, news) = state.flows.subscribe();
    recent.retain(|flow| filter.matches(flow));
    recent.drain(..recent.len().saturating_sub(last));
    let reader = Reader {
        recent: recent.into(),
        news: follow.then_some(news),
        filter,
    };
    let lines = stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((Ok::<_, Infallible>(line), reader))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response())
}

/// One reader of the flows.
struct Reader {
    recent: VecDeque<Arc<Flow>>,
    /// `None`: the recent ones are all that was asked for.
    news: Option<broadcast::Receiver<Arc<Flow>>>,
    filter: Filter,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(flow) = self.recent.pop_front() {
            return line(&Line::Flow(Box::new(flow.as_ref().clone())));
        }
        loop {
            match self.news.as_mut()?.recv().await {
                Ok(flow) if self.filter.matches(&flow) => {
                    return line(&Line::Flow(Box::new(flow.as_ref().clone())));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(num_events_lost)) => {
                    return line(&Line::LostEvents { num_events_lost });
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn line(line: &Line) -> Option<Bytes> {
    // Flows are plain texts and numbers: this can't fail; if it did, the stream ends.
    let mut text = serde_json::to_vec(line).ok()?;
    text.push(b'\n');
    Some(text.into())
}

mod namespace;
#[cfg(test)]
mod tests;
