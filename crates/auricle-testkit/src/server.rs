//! A server for clients under test: it plays a script, one for each connection, and keeps what it heard.
//!
//! It also answers REST requests with bodies given by path, since a client of the protocol ends its conversation there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Longest head of a request; a client under test sends a few hundred bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// One step of a script.
#[derive(Clone, Debug)]
pub enum Act {
    /// Wait for this many more binary messages.
    Hear(usize),
    /// Wait for a binary message that begins with this.
    HearUntil(Vec<u8>),
    /// Send a text message.
    Say(String),
    /// Send a binary message.
    SayBinary(Vec<u8>),
    /// Close with this code and reason, and end the connection.
    Close(u16, &'static str),
    /// End the connection without a close frame.
    Vanish,
    /// Hear whatever comes until the client leaves.
    Stay,
}

/// What one connection brought.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Request line and headers.
    pub head: String,
    /// Binary messages in order.
    pub binary: Vec<Vec<u8>>,
    /// Text messages in order.
    pub text: Vec<String>,
}

#[derive(Default)]
struct State {
    scripts: std::collections::VecDeque<Vec<Act>>,
    sessions: Vec<Heard>,
    requests: Vec<String>,
}

/// A running server. Stops when dropped.
pub struct ScriptedServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl ScriptedServer {
    /// Listens on a free port of loopback. The n-th session plays the n-th script, later ones are refused by hanging up.
    /// `answers` maps `METHOD /path` to the JSON body of a 200; anything else is 404.
    pub async fn start(
        scripts: Vec<Vec<Act>>,
        answers: HashMap<&'static str, Value>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { scripts: scripts.into(), ..State::default() }));
        let (shared, answers) = (Arc::clone(&state), Arc::new(answers));
        let task = tokio::spawn(async move {
            // Bounded by the client under test; dropped with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared), Arc::clone(&answers)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, state, task })
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What each session has brought so far.
    pub fn sessions(&self) -> Vec<Heard> {
        lock(&self.state).sessions.clone()
    }

    /// Request lines of REST calls so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).requests.clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>, answers: Arc<HashMap<&'static str, Value>>) {
    let Some(head) = peek_head(&stream).await else { return };
    if !head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n") {
        return answer(&mut stream, &head, &state, &answers).await;
    }
    let (script, place) = {
        let mut state = lock(&state);
        let Some(script) = state.scripts.pop_front() else { return };
        state.sessions.push(Heard { head, ..Heard::default() });
        (script, state.sessions.len() - 1)
    };
    if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
        play(socket, script, &state, place).await;
    }
}

/// Reads up to the empty line without taking it, so that the WebSocket handshake can read it again.
async fn peek_head(stream: &TcpStream) -> Option<String> {
    let mut bytes = vec![0; HEAD_BYTES_MAX];
    loop {
        let read = stream.peek(&mut bytes).await.ok().filter(|read| *read > 0)?;
        if let Some(end) = bytes[..read].windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&bytes[..end + 4]).into_owned());
        }
        tokio::task::yield_now().await;
    }
}

async fn answer(
    stream: &mut TcpStream,
    head: &str,
    state: &Mutex<State>,
    answers: &HashMap<&'static str, Value>,
) {
    let mut taken = vec![0; head.len()];
    if stream.read_exact(&mut taken).await.is_err() {
        return;
    }
    let line = head.lines().next().unwrap_or_default();
    let asked = line.rsplit_once(' ').map_or(line, |(asked, _version)| asked);
    lock(state).requests.push(asked.to_owned());
    let (status, body) = match answers.get(asked) {
        Some(body) => ("200 OK", body.to_string()),
        None => ("404 Not Found", r#"{"detail":"not in the script"}"#.to_owned()),
    };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn play(mut socket: WebSocketStream<TcpStream>, script: Vec<Act>, state: &Mutex<State>, place: usize) {
    for act in script {
        match act {
            Act::Hear(count) => {
                for _ in 0..count {
                    if !hear_binary(&mut socket, state, place).await {
                        return;
                    }
                }
            }
            Act::HearUntil(beginning) => loop {
                if !hear_binary(&mut socket, state, place).await {
                    return;
                }
                let heard = lock(state).sessions[place].binary.last().cloned();
                if heard.is_some_and(|message| message.starts_with(&beginning)) {
                    break;
                }
            },
            Act::Say(text) => {
                if socket.send(Message::Text(text.into())).await.is_err() {
                    return;
                }
            }
            Act::SayBinary(bytes) => {
                if socket.send(Message::Binary(bytes.into())).await.is_err() {
                    return;
                }
            }
            Act::Close(code, reason) => {
                let _ = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await;
                // Until the client has answered, lest its unread frames turn the close into a reset.
                while hear_binary(&mut socket, state, place).await {}
                return;
            }
            Act::Vanish => return,
            Act::Stay => while hear_binary(&mut socket, state, place).await {},
        }
    }
}

/// Hears up to the next binary message. False when the client has left.
async fn hear_binary(socket: &mut WebSocketStream<TcpStream>, state: &Mutex<State>, place: usize) -> bool {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                lock(state).sessions[place].binary.push(bytes.to_vec());
                return true;
            }
            Some(Ok(Message::Text(text))) => lock(state).sessions[place].text.push(text.as_str().to_owned()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
}
