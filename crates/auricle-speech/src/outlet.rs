//! Events on their way to a session that may be slow to take them.

use std::collections::VecDeque;

use tokio::sync::mpsc::error::TrySendError;

use crate::engine::{Event, EventSender};

/// Puts an event behind those that wait. Coverage replaces older coverage, and what may still change is replaced by whatever says
/// more, so that neither gathers while nobody takes anything.
pub(crate) fn queue(waiting: &mut VecDeque<Event>, event: Event) {
    if let Event::Interim(_) | Event::Words(_) = event
        && let Some(at) = waiting.iter().position(|event| matches!(event, Event::Interim(_)))
    {
        waiting.remove(at);
        let is_coverage = |event: Option<&Event>| matches!(event, Some(Event::Covered { .. }));
        if at > 0 && is_coverage(waiting.get(at - 1)) && is_coverage(waiting.get(at)) {
            waiting.remove(at - 1);
        }
    }
    match (&event, waiting.back_mut()) {
        (Event::Covered { .. }, Some(last @ Event::Covered { .. })) => *last = event,
        _ => waiting.push_back(event),
    }
}

/// Sends without blocking; what does not fit waits, in order. Bounded by its users: a stream has at most a few events for each
/// stretch of its bounded backlog, and what [`queue`] replaces.
pub(crate) struct Outlet {
    sender: EventSender,
    waiting: VecDeque<Event>,
}

impl Outlet {
    pub(crate) fn new(sender: EventSender) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, event: Event) {
        queue(&mut self.waiting, event);
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

#[cfg(test)]
mod tests {
    use auricle_core::Word;
    use tokio::sync::mpsc;

    use super::*;

    fn interim(text: &str) -> Event {
        Event::Interim(vec![Word {
            text: text.to_owned(),
            start: 0.0,
            end: 1.0,
            speaker: 0,
            confidence: None,
        }])
    }

    #[test]
    fn what_nobody_takes_is_replaced_by_what_says_more() {
        let (sender, mut events) = mpsc::channel(1);
        let mut outlet = Outlet::new(sender);
        outlet.send(Event::Resumed);
        for until_sample in 1..=1_000 {
            outlet.send(interim("so"));
            outlet.send(Event::Covered { until_sample });
        }
        assert!(outlet.waiting() <= 3, "{} wait", outlet.waiting());
        outlet.send(interim("so far"));
        let Event::Interim(words) = interim("So far.") else { unreachable!() };
        outlet.send(Event::Words(words.clone()));
        let mut taken = Vec::new();
        while let Ok(event) = events.try_recv() {
            taken.push(event);
            outlet.flush();
        }
        assert_eq!(taken, [Event::Resumed, Event::Covered { until_sample: 1_000 }, Event::Words(words)]);
    }
}
