//! The invariants, read from the log: whether a run kept its promises. Sessions stand here; jobs and links in their own files.

use std::collections::{HashMap, HashSet};

use super::check_jobs::Jobs;
use super::check_links::Links;
use super::log::{Happening, Log, Micros};

/// What was broken, and by which line.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: String,
    pub(crate) index: usize,
}

/// `Err` with the promise that does not hold.
pub(crate) type Verdict = Result<(), String>;

pub(crate) fn check(log: &Log) -> Result<(), Broken> {
    let (mut sessions, mut jobs, mut links) = (Sessions::default(), Jobs::default(), Links::default());
    for (index, (at, happening)) in log.entries.iter().enumerate() {
        sessions
            .see(*at, happening)
            .and_then(|()| jobs.see(happening))
            .and_then(|()| links.see(*at, happening))
            .map_err(|invariant| Broken { invariant, index })?;
    }
    let index = log.entries.len().saturating_sub(1);
    sessions.end().and_then(|()| jobs.end()).map_err(|invariant| Broken { invariant, index })
}

/// Fails with `promise` unless `holds`.
pub(crate) fn ensure(holds: bool, promise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(promise()) }
}

/// What is known of sessions: P1, P2, P5, and of P4 that a replaced session writes nothing.
#[derive(Default)]
struct Sessions {
    /// Joined at this instant, and has not yet asked for its conversation.
    just_joined: Option<(Micros, u32)>,
    /// Lives that have reason to end.
    may_end: HashSet<u32>,
    drained: HashSet<u32>,
    living: HashMap<u32, u32>,
    stored: HashSet<u64>,
    made: HashSet<u32>,
    queued: HashSet<u32>,
    epochs: HashMap<u32, u64>,
}

impl Sessions {
    fn see(&mut self, at: Micros, happening: &Happening) -> Verdict {
        if let Some((joined, life)) = self.just_joined {
            ensure(at == joined, || format!("P1: life {life} did not ask for its conversation at once"))?;
        }
        match happening {
            Happening::Joined { process, life, .. } => {
                self.just_joined = Some((at, *life));
                self.living.insert(*life, *process);
            }
            Happening::OpenAsked { life } => {
                self.just_joined.take_if(|(_, joined)| joined == life);
            }
            Happening::Spun { life, who } => {
                return Err(format!(
                    "P1: the {who} of life {life} asks for a timer that is over: its driver spins"
                ));
            }
            Happening::ClientLeft { life } => drop(self.may_end.insert(*life)),
            Happening::Drained { life } => {
                self.drained.insert(*life);
                self.may_end.insert(*life);
            }
            Happening::Closed { life, why } => {
                let asked = *why == "restarting" && self.drained.contains(life);
                ensure(asked, || format!("P2: life {life} was closed: {why}"))?;
            }
            Happening::SessionOver { life } => {
                self.living.remove(life);
                ensure(self.may_end.contains(life), || format!("P2: life {life} ended by itself"))?;
            }
            Happening::Killed { process } => self.living.retain(|_, of| of != process),
            Happening::Made { conversation, .. } => drop(self.made.insert(*conversation)),
            Happening::Queued { conversation, .. } => drop(self.queued.insert(*conversation)),
            Happening::Owned { conversation, epoch } => drop(self.epochs.insert(*conversation, *epoch)),
            Happening::Stored { conversation, epoch, piece, .. } => {
                self.stored.insert(*piece);
                ensure(self.epochs.get(conversation) == Some(epoch), || {
                    format!(
                        "P4: words of epoch {epoch} were stored in {conversation} after another session took it"
                    )
                })?;
            }
            Happening::Shown { life, piece } => {
                ensure(self.stored.contains(piece), || {
                    format!("P5: life {life} was shown what is not stored")
                })?;
            }
            Happening::ShownConversation { life, conversation } => {
                ensure(self.made.contains(conversation), || {
                    format!("P5: life {life} heard of {conversation} before it was made")
                })?;
            }
            Happening::ShownProcessing { life, conversation } => {
                ensure(self.queued.contains(conversation), || {
                    format!(
                        "P5: life {life} heard that {conversation} is processed before its job was stored"
                    )
                })?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&self) -> Verdict {
        ensure(self.living.is_empty(), || format!("liveness: sessions that never ended: {:?}", self.living))
    }
}
