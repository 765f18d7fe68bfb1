//! The live transcript above a progress bar; plain lines where nobody looks.

use std::cell::Cell;

use auricle_wire::conversation::Segment;
use indicatif::{ProgressBar, ProgressStyle};

use super::audio::Recording;
use crate::output;

/// Colours by speaker.
const COLOURS: [u8; 5] = [36, 33, 35, 32, 34];

pub(super) struct Screen {
    bar: Option<ProgressBar>,
    quiet: bool,
    /// Segments that are printed and will not be printed again.
    printed: Cell<usize>,
}

impl Screen {
    pub(super) fn new(recording: &Recording, quiet: bool) -> Self {
        let bar = (output::is_terminal() && !quiet).then(|| {
            let bar = ProgressBar::new((recording.secs * 1_000.0) as u64);
            let style = ProgressStyle::with_template(
                "{wide_msg}\n{bar:40.cyan/black} {percent:>3}%  {elapsed_precise}",
            );
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar
        });
        Self { bar, quiet, printed: Cell::new(0) }
    }

    pub(super) fn position(&self, secs: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position((secs * 1_000.0) as u64);
        }
    }

    /// A segment is printed once another follows it, since it may still grow; the last one stands above the bar.
    pub(super) fn transcript(&self, segments: &[Segment]) {
        let settled = segments.len().saturating_sub(1);
        self.print(segments, settled);
        if let (Some(bar), Some(last)) = (&self.bar, segments.last()) {
            bar.set_message(written(last, true).replace('\n', " "));
        }
    }

    fn print(&self, segments: &[Segment], until: usize) {
        for segment in segments.iter().take(until).skip(self.printed.get()) {
            let text = written(segment, self.bar.is_some());
            match &self.bar {
                Some(bar) => bar.println(text),
                None if self.quiet => {}
                None => output::line(&text),
            }
        }
        self.printed.set(self.printed.get().max(until));
    }

    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("\u{1b}[2m· {text}\u{1b}[0m")),
            None if self.quiet => {}
            None => output::note(&format!("· {text}")),
        }
    }

    pub(super) fn done(&self, segments: &[Segment]) {
        self.print(segments, segments.len());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn written(segment: &Segment, coloured: bool) -> String {
    let who = output::speaker(segment.speaker.as_deref(), segment.is_user);
    let time = output::clock(segment.start);
    let text = output::wrapped(&segment.text, 58).replace('\n', "\n                    ");
    if coloured {
        let colour = COLOURS[segment.speaker_id as usize % COLOURS.len()];
        format!("\u{1b}[2m{time}\u{1b}[0m  \u{1b}[{colour}m{who:<11}\u{1b}[0m  {text}")
    } else {
        format!("{time}  {who:<11}  {text}")
    }
}
