//! A network that misbehaves on demand: a TCP proxy in front of a server.
//!
//! Owns one listening port and the connections through it. What it does to them can be changed while they run; a change
//! reaches connections that exist already.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes carried at once.
const PIECE_BYTES: usize = 16 * 1024;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Carries everything.
    None,
    /// Resets every connection, old and new.
    Refuse,
    /// Takes connections and carries nothing either way; nobody is told.
    BlackHole,
    /// Takes what the client sends, which never arrives, and carries nothing back: the other end is gone without a word.
    HalfOpen,
    /// Carries each piece this much later.
    Delay(Duration),
    /// Carries what goes to the server no faster than this: its reader is slow.
    Slow {
        /// Bytes a second.
        bytes_a_second: usize,
    },
    /// Resets each connection after this many more bytes towards the server, in the middle of whatever they are part of.
    ResetAfter(usize),
    /// Up for this long, then resets everything and refuses for this long, again and again.
    Flap {
        /// How long it works.
        up: Duration,
        /// How long it does not.
        down: Duration,
    },
}

/// A running proxy. Stops, with all its connections, when dropped.
pub struct FaultyProxy {
    address: SocketAddr,
    faults: watch::Sender<Fault>,
    connections: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl FaultyProxy {
    /// In front of the server at `target`. Errors: no port, or not within a runtime.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (faults, asked) = watch::channel(Fault::None);
        let (in_force, force) = watch::channel(Fault::None);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let tasks = vec![
            tokio::spawn(weather(asked, in_force)),
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(carry(client, target, force.clone()));
                }
            }),
        ];
        Ok(Self { address, faults, connections, tasks })
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, also for connections that exist.
    pub fn set(&self, fault: Fault) {
        self.faults.send_replace(fault);
    }

    /// Connections taken so far, those that were reset at once included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Turns what was asked for into what is in force at the moment.
async fn weather(mut asked: watch::Receiver<Fault>, in_force: watch::Sender<Fault>) {
    loop {
        let fault = *asked.borrow_and_update();
        let Fault::Flap { up, down } = fault else {
            in_force.send_replace(fault);
            if asked.changed().await.is_err() {
                return;
            }
            continue;
        };
        for (now, time) in [(Fault::None, up), (Fault::Refuse, down)] {
            in_force.send_replace(now);
            match tokio::time::timeout(time, asked.changed()).await {
                Err(_in_time) => {}
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
            }
        }
    }
}

/// The connection ends in a reset.
struct Reset;

async fn carry(mut client: TcpStream, target: SocketAddr, mut force: watch::Receiver<Fault>) {
    // A black hole takes the connection and says nothing.
    let carries = |fault: &Fault| !matches!(fault, Fault::BlackHole | Fault::HalfOpen);
    if force.wait_for(carries).await.is_err() {
        return;
    }
    let server = if *force.borrow() == Fault::Refuse { None } else { TcpStream::connect(target).await.ok() };
    let Some(mut server) = server else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (server.set_nodelay(true), client.set_nodelay(true));
    let ended = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let there = pump(from_client, to_server, force.clone(), true);
        let back = pump(from_server, to_client, force.clone(), false);
        tokio::select! {
            ended = async { tokio::try_join!(there, back) } => ended.map(|_| ()),
            reset = refused(force) => Err(reset),
        }
    };
    if let Err(Reset) = ended {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn refused(mut force: watch::Receiver<Fault>) -> Reset {
    if force.wait_for(|fault| *fault == Fault::Refuse).await.is_err() {
        std::future::pending::<()>().await;
    }
    Reset
}

/// Carries one direction until its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut force: watch::Receiver<Fault>,
    towards_server: bool,
) -> Result<(), Reset> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut carried = 0;
    loop {
        let fault = *force.borrow_and_update();
        let stands = fault == Fault::BlackHole || (fault == Fault::HalfOpen && !towards_server);
        let most = match fault {
            Fault::Slow { bytes_a_second } if towards_server => (bytes_a_second / 10).clamp(1, PIECE_BYTES),
            _ => PIECE_BYTES,
        };
        let read = tokio::select! {
            changed = force.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                carried = 0;
                continue;
            }
            read = from.read(&mut piece[..most]), if !stands => read,
        };
        let Ok(read @ 1..) = read else {
            let _ = to.shutdown().await;
            return Ok(());
        };
        carried += read;
        match fault {
            Fault::HalfOpen => continue,
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Slow { .. } if towards_server => tokio::time::sleep(Duration::from_millis(100)).await,
            Fault::ResetAfter(bytes) if towards_server && carried >= bytes => {
                let _ = to.write_all(&piece[..read - (carried - bytes)]).await;
                return Err(Reset);
            }
            _ => {}
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return Ok(());
        }
    }
}
