//! SIGTERM and SIGINT as messages.

use std::sync::mpsc::{Receiver, sync_channel};

use tokio::signal::unix::{SignalKind, signal};

/// Signals that nobody has looked at. Full: more of them say nothing new.
const WAITING_MAX: usize = 2;

/// One message for each SIGTERM or SIGINT from here on; none of them ends the process by itself any more.
pub(crate) fn watch() -> std::io::Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (sender, receiver) = sync_channel(WAITING_MAX);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let _ = sender.try_send(());
            }
        });
    })?;
    Ok(receiver)
}
