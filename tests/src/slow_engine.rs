//! An engine as slow and as forgetful as engines may be: a proxy before its socket, which holds each answer back for a
//! different time, gives an answer of before instead of every third, and tells of every fourth event twice.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// The longest that an answer is held back.
const LONGEST: Duration = Duration::from_millis(150);

/// The proxy; a client gets no answer after it is dropped.
#[derive(Debug)]
pub struct SlowEngine {
    directory: tempfile::TempDir,
}

/// What requests have in common.
#[derive(Debug, Default)]
struct Before {
    count: AtomicU32,
    /// The newest answer to each request.
    answers: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl SlowEngine {
    /// Before this socket.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn before(engine: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("npd-slow-").tempdir()?;
        let slow = Self { directory };
        let listener = UnixListener::bind(slow.socket())?;
        let engine = engine.to_owned();
        let before = Arc::new(Before::default());
        // It ends with the test's process; until then it waits for no thread.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (engine, before) = (engine.clone(), Arc::clone(&before));
                thread::spawn(move || {
                    // Either side may go at any time.
                    let _ = serve(stream, &engine, &before);
                });
            }
        });
        Ok(slow)
    }

    /// Where it is asked.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }
}

fn serve(mut stream: UnixStream, engine: &Path, before: &Before) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let mut behind = UnixStream::connect(engine)?;
    let is_events = request.windows(8).any(|part| part == b"/events?");
    if is_events {
        behind.write_all(&request)?;
        return events(stream, behind);
    }
    // One connection a request, so that the answer has an end.
    let text = String::from_utf8_lossy(&request).into_owned();
    let closing = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    behind.write_all(closing.as_bytes())?;
    let mut answer = Vec::new();
    behind.read_to_end(&mut answer)?;
    let count = before.count.fetch_add(1, Ordering::Relaxed);
    let old = {
        let mut answers = before
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        answers.insert(request, answer.clone())
    };
    if let Some(old) = old.filter(|_| count.is_multiple_of(3)) {
        answer = old;
    }
    thread::sleep(LONGEST * (count * 7 % 10) / 10);
    stream.write_all(&answer)
}

/// Each chunk of the answer's body is an event.
fn events(mut stream: UnixStream, mut behind: UnixStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        behind.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(&head)?;
    for count in 0_u32.. {
        let mut chunk = Vec::new();
        while !chunk.ends_with(b"\r\n") {
            behind.read_exact(&mut byte)?;
            chunk.push(byte[0]);
        }
        let size = String::from_utf8_lossy(&chunk);
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let mut rest = vec![0; size + 2];
        behind.read_exact(&mut rest)?;
        chunk.extend(rest);
        stream.write_all(&chunk)?;
        if size == 0 {
            return Ok(());
        }
        if count.is_multiple_of(4) {
            stream.write_all(&chunk)?;
        }
    }
    Ok(())
}
