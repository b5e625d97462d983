//! HTTP/1 as a client of a Unix socket, and nothing of what the answers mean: `netpol` speaks it to netpold, and netpold to
//! engines that have Docker's API.
//!
//! One connection a request: the socket is local, and a request every now and then is not worth a pool. Each answer is
//! read within a number of bytes that the caller gives; how long it may take is the caller's to say.

use std::error::Error;
use std::io;
use std::path::Path;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum GetError {
    /// The socket can't be connected to.
    Connect(io::Error),
    /// The connection broke, or is not HTTP.
    Http(hyper::Error),
    /// The path is none.
    Path(hyper::http::Error),
}

/// Asks for a path, with this name in `Host`. The connection ends when the response's body is read, or dropped.
pub(crate) async fn get(
    socket: &Path,
    host: &str,
    path: &str,
) -> Result<Response<Incoming>, GetError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(GetError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(GetError::Http)?;
    // What breaks shows at the response.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(hyper::header::HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(GetError::Path)?;
    sender.send_request(request).await.map_err(GetError::Http)
}

/// The whole of a body that has at most so many bytes.
pub(crate) async fn whole(
    body: Incoming,
    most: usize,
) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    Ok(Limited::new(body, most).collect().await?.to_bytes())
}

/// A body that comes line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    /// What has come of the lines that were not taken yet.
    rest: Vec<u8>,
    /// Bytes of one line, at most.
    most: usize,
}

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// It has more bytes than it may have.
    TooLong,
    /// The connection broke.
    Broken(hyper::Error),
}

impl Lines {
    /// The lines of a body, of at most so many bytes each.
    pub(crate) const fn new(body: Incoming, most: usize) -> Self {
        Self {
            body,
            rest: Vec::new(),
            most,
        }
    }

    /// The next line, with its end; `None` where the body ends. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.drain(..=end).collect()));
            }
            if self.rest.len() > self.most {
                return Err(LineError::TooLong);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(LineError::Broken(error)),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// What one answer of a server becomes, and what the server was asked.
    async fn asked(answer: &'static str) -> (Result<Response<Incoming>, GetError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = vec![0; 4096];
            let length = stream.read(&mut question).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(question[..length].to_vec()).unwrap()
        });
        let response = get(&path, "engine", "/v1/x?y=z").await;
        (response, server.await.unwrap())
    }

    const FIVE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1\n22\n";

    #[tokio::test]
    async fn a_body_is_read_within_its_bounds() {
        let (response, question) = asked(FIVE).await;
        assert!(question.starts_with("GET /v1/x?y=z HTTP/1.1\r\nhost: engine\r\n"));
        let body = whole(response.unwrap().into_body(), 5).await.unwrap();
        assert_eq!(body, "1\n22\n");
        let response = asked(FIVE).await.0.unwrap();
        assert!(whole(response.into_body(), 4).await.is_err());
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_none_is_endless() {
        let response = asked(FIVE).await.0.unwrap();
        let mut lines = Lines::new(response.into_body(), 5);
        for line in ["1\n", "22\n"] {
            assert_eq!(lines.next().await.unwrap().unwrap(), line.as_bytes());
        }
        assert!(lines.next().await.unwrap().is_none());
        let response =
            asked("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n").await;
        let mut lines = Lines::new(response.0.unwrap().into_body(), 4);
        assert!(matches!(lines.next().await, Err(LineError::TooLong)));
    }

    #[tokio::test]
    async fn what_is_no_server_or_no_http_is_told_apart() {
        let nowhere = get(Path::new("/nonexistent/socket"), "engine", "/").await;
        let Err(GetError::Connect(error)) = nowhere else {
            panic!("nothing listens there");
        };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(matches!(
            asked("no HTTP\r\n\r\n").await.0,
            Err(GetError::Http(_))
        ));
        // Cut short: the body is said to have five bytes.
        let response = asked("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1\n")
            .await
            .0;
        assert!(whole(response.unwrap().into_body(), 5).await.is_err());
    }
}
