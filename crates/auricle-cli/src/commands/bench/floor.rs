//! The floor: an axum WebSocket server, tuned as ours is, that reads each frame, decodes it, and forgets it.

use std::process::ExitCode;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::any;

use crate::output;

const RATE_HZ: u32 = 16_000;

pub(super) fn serve() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        output::line(&listener.local_addr()?.to_string());
        let router = Router::new().route("/", any(upgrade));
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn upgrade(upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.read_buffer_size(4_096).write_buffer_size(0).on_upgrade(read)
}

async fn read(mut socket: WebSocket) {
    let Ok(mut decoder) = opus::Decoder::new(RATE_HZ, opus::Channels::Mono) else { return };
    let mut pcm = vec![0_i16; RATE_HZ as usize / 50];
    while let Some(Ok(message)) = socket.recv().await {
        if let Message::Binary(frame) = message {
            let _ = decoder.decode(&frame, &mut pcm, false);
        }
    }
}
