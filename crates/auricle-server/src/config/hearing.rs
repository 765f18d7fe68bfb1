//! Settings of the voice activity gate and of Whisper, and how they are written.

use std::path::PathBuf;
use std::time::Duration;

use auricle_speech::GateMode;
use auricle_speech::whisper::catalog;

use super::value::{self, Value, parse_duration, show_duration};

/// A time between two bounds, in milliseconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> Value for Span<MIN, MAX> {
    fn form(&self) -> String {
        let show = |ms| show_duration(Duration::from_millis(ms));
        format!("a time from {} to {}, e.g. 1500ms or 2s", show(MIN), show(MAX))
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let bounds = Duration::from_millis(MIN)..=Duration::from_millis(MAX);
        self.0 = parse_duration(text).filter(|time| bounds.contains(time))?;
        Some(())
    }
    fn show(&self) -> String {
        show_duration(self.0)
    }
}

/// How long something is kept; none: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub Option<Duration>);

impl Keep {
    const MIN: Duration = Duration::from_secs(3_600);
    const MAX: Duration = Duration::from_secs(3_650 * 86_400);
}

impl Value for Keep {
    fn form(&self) -> String {
        "`off` or a time from 1h to 3650d, e.g. 30d".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        *self = match text {
            "off" => Self(None),
            text => {
                let time = parse_duration(text).filter(|time| (Self::MIN..=Self::MAX).contains(time));
                Self(Some(time?))
            }
        };
        Some(())
    }
    fn show(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), show_duration)
    }
}

/// Between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score(pub f32);

impl Value for Score {
    fn form(&self) -> String {
        "a number from 0.05 to 0.99, e.g. 0.6".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        self.0 = text.parse().ok().filter(|score| plain && (0.05..=0.99).contains(score))?;
        Some(())
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// An address that file names are put behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(pub String);

impl Value for BaseUrl {
    fn form(&self) -> String {
        "a URL that begins with http:// or https://, without query, user or password".to_owned()
    }
    fn take(&mut self, text: &str) -> Option<()> {
        let url = reqwest::Url::parse(text).ok()?;
        let web = url.has_host() && ["http", "https"].contains(&url.scheme());
        let bare = url.query().is_none() && url.fragment().is_none();
        let open = url.username().is_empty() && url.password().is_none();
        (web && bare && open).then(|| self.0 = text.trim_end_matches('/').to_owned())
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Before which engines silence is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Those that are paid for.
    Auto,
    /// All.
    On,
    /// None.
    Off,
}

value::words!(Gate { Auto = "auto", On = "on", Off = "off" });

/// The voice activity gate.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// Before which engines.
    pub mode: Gate,
    /// Audio sent from before the first voiced frame.
    pub pre_roll: Span<0, 5_000>,
    /// Silence that ends a stretch of speech.
    pub hang_over: Span<100, 10_000>,
    /// Score from which a frame is voice.
    pub threshold: Score,
}

impl Default for GateConfig {
    fn default() -> Self {
        let ours = auricle_speech::GateConfig::default();
        Self {
            mode: Gate::Auto,
            pre_roll: Span(ours.pre_roll),
            hang_over: Span(ours.hang_over),
            threshold: Score(ours.threshold),
        }
    }
}

impl From<&GateConfig> for auricle_speech::GateConfig {
    fn from(config: &GateConfig) -> Self {
        Self {
            mode: match config.mode {
                Gate::Auto => GateMode::Auto,
                Gate::On => GateMode::On,
                Gate::Off => GateMode::Off,
            },
            pre_roll: config.pre_roll.0,
            hang_over: config.hang_over.0,
            threshold: config.threshold.0,
        }
    }
}

/// Whisper on this machine.
#[derive(Clone, Debug)]
pub struct WhisperConfig {
    /// A file, or the name of a model that was pulled; `None`: the default model.
    pub model: Option<PathBuf>,
    /// Speech between two passes while somebody speaks.
    pub step: Span<500, 20_000>,
    /// Longest time of one pass.
    pub pass_max: Span<1_000, 3_600_000>,
    /// Where models are pulled from.
    pub models_url: BaseUrl,
}

impl Default for WhisperConfig {
    fn default() -> Self {
        let ours = auricle_speech::WhisperConfig::default();
        Self {
            model: None,
            step: Span(ours.step),
            pass_max: Span(ours.pass_max),
            models_url: BaseUrl(catalog::PUBLISHED_AT.to_owned()),
        }
    }
}
