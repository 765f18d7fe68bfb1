//! Trouble that can be switched on and off while streams live: by a test, or by a file that a benchmark writes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::{EngineError, Event, EventSender, Stream};
use crate::outlet::Outlet;

/// How often the file is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Audio after which a stream that was let in is thrown out, in tenths of a second.
const LET_IN_TENTHS: u64 = 5;

/// What is wrong now. Streams that live when it is switched to anything but `none` and `slow` end or hang, and stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Nothing.
    None,
    /// Connections are refused.
    Refuse,
    /// Over its quota (429).
    Limit,
    /// Lets streams in and throws them out after half a second of audio.
    AcceptThenRefuse,
    /// Says nothing, not even that it has finished.
    Hang,
    /// Connections are lost once; new ones hold.
    Drop,
    /// Words of new streams come 5 s late.
    Slow,
}

/// Every mode and its word in the file.
const MODES: [(&str, Mode); 7] = [
    ("none", Mode::None),
    ("refuse", Mode::Refuse),
    ("limit", Mode::Limit),
    ("accept_then_refuse", Mode::AcceptThenRefuse),
    ("hang", Mode::Hang),
    ("drop", Mode::Drop),
    ("slow", Mode::Slow),
];

/// The switch. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<AtomicU32>);

impl Switch {
    /// From now on.
    pub fn set(&self, mode: Mode) {
        set(&self.0, mode);
    }

    /// The mode, and a number that changes whenever it was set.
    fn get(&self) -> (Mode, u32) {
        let value = self.0.load(Ordering::Relaxed);
        let mode = MODES.get((value & 0xFF) as usize).map_or(Mode::None, |(_, mode)| *mode);
        (mode, value >> 8)
    }

    /// Follows a file that holds the word of a mode; none, or another text, is `none`. On a thread of its own, which ends with the
    /// last clone.
    pub(super) fn follow(&self, file: PathBuf) -> std::io::Result<()> {
        let switch: Weak<AtomicU32> = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("scripted-trouble".to_owned()).spawn(move || {
            let mut last = Mode::None;
            while let Some(value) = switch.upgrade() {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                let mode =
                    MODES.iter().find(|(word, _)| *word == text.trim()).map_or(Mode::None, |(_, mode)| *mode);
                if mode != std::mem::replace(&mut last, mode) {
                    set(&value, mode);
                }
                drop(value);
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(())
    }
}

fn set(value: &AtomicU32, mode: Mode) {
    let next = |now: u32| Some(((now >> 8) + 1) << 8 | mode as u32);
    let _ = value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}

/// A stream under a switch.
pub(super) struct Switched {
    stream: Option<Box<dyn Stream>>,
    switch: Switch,
    opened: (Mode, u32),
    /// Kept while it hears or hangs: a stream that has finished ends its channel.
    events: Option<EventSender>,
    outlet: Option<Outlet>,
    left: u64,
}

impl Switched {
    pub(super) fn new(switch: Switch, rate_hz: u32, events: EventSender, stream: Box<dyn Stream>) -> Self {
        let opened = switch.get();
        let left = u64::from(rate_hz) * LET_IN_TENTHS / 10;
        let events = Some(events);
        let mut switched = Self { stream: Some(stream), switch, opened, events, outlet: None, left };
        match opened.0 {
            Mode::Refuse => switched.fail(EngineError::Broken("connection refused".to_owned())),
            Mode::Limit => {
                let text = "429 Too Many Requests".to_owned();
                switched.fail(EngineError::Limited { text, retry_after: None });
            }
            Mode::Hang => switched.stream = None,
            Mode::None | Mode::AcceptThenRefuse | Mode::Drop | Mode::Slow => {}
        }
        switched
    }

    /// Whether new streams are slow at the moment.
    pub(super) fn is_slow(switch: &Switch) -> bool {
        switch.get().0 == Mode::Slow
    }

    fn fail(&mut self, error: EngineError) {
        self.stream = None;
        let Some(events) = self.events.take() else { return };
        let mut outlet = Outlet::new(events);
        outlet.send(Event::Failed(error));
        self.outlet = Some(outlet);
    }

    /// Looks at the switch; what still hears.
    fn heard(&mut self) -> Option<&mut Box<dyn Stream>> {
        if let Some(outlet) = &mut self.outlet {
            outlet.flush();
        }
        let now = self.switch.get();
        if self.stream.is_some() && now.1 != self.opened.1 {
            match now.0 {
                Mode::None | Mode::Slow => {}
                Mode::Hang => self.stream = None,
                Mode::Refuse | Mode::Limit | Mode::AcceptThenRefuse | Mode::Drop => {
                    self.fail(EngineError::Broken("the connection was lost".to_owned()));
                }
            }
        }
        self.stream.as_mut()
    }
}

impl Stream for Switched {
    fn push(&mut self, pcm: &[i16]) -> bool {
        if self.opened.0 == Mode::AcceptThenRefuse && self.stream.is_some() {
            self.left = self.left.saturating_sub(pcm.len() as u64);
            if self.left == 0 {
                self.fail(EngineError::Broken("thrown out after it was let in".to_owned()));
            }
        }
        self.heard().is_none_or(|stream| stream.push(pcm))
    }

    fn finish(&mut self) {
        if let Some(stream) = self.heard() {
            stream.finish();
            self.events = None;
        }
    }

    fn flush(&mut self) {
        if let Some(stream) = self.heard() {
            stream.flush();
        }
    }
}
