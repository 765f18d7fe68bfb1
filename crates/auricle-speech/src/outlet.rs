//! Events on their way to a session that may be slow to take them.

use std::collections::VecDeque;

use tokio::sync::mpsc::error::TrySendError;

use crate::engine::{Event, EventSender};

/// Sends without blocking; what does not fit waits, in order. Bounded by its users: a stream has at most a few events for each
/// stretch of its bounded backlog, and coverage replaces older coverage.
pub(crate) struct Outlet {
    sender: EventSender,
    waiting: VecDeque<Event>,
}

impl Outlet {
    pub(crate) fn new(sender: EventSender) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, event: Event) {
        if let (Event::Covered { .. }, Some(last @ Event::Covered { .. })) = (&event, self.waiting.back_mut())
        {
            *last = event;
        } else {
            self.waiting.push_back(event);
        }
        self.flush();
    }

    /// Sends what fits. False while something waits.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return false;
                }
                Err(TrySendError::Closed(_)) => {
                    self.waiting.clear();
                    return true;
                }
            }
        }
        true
    }

    /// Events that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends what waits from a task of the current runtime, if there is one: for a stream that will not be called again.
    pub(crate) fn drain_later(self) {
        if self.waiting.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for event in self.waiting {
                if self.sender.send(event).await.is_err() {
                    return;
                }
            }
        });
    }
}
