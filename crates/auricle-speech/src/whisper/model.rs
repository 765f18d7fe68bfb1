//! whisper.cpp, through `whisper-rs`. The model is loaded once and shared; each decoder has a state of its own.

#![expect(
    unsafe_code,
    reason = "the abort callback: the safe one of whisper-rs 0.16 calls a closure of the wrong type"
)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use whisper_rs::{FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperState};

use super::decode::{Ask, Decode, Load, Stop};
use super::file;
use super::words::{Part, Pass, Token};
use crate::engine::EngineError;

/// whisper.cpp hears nothing in less than a second.
const SAMPLES_MIN: usize = 16_000 * 11 / 10;
/// Encoder steps for a second of audio, and for the 30 s that the model was made for.
const STEPS_A_SEC: usize = 50;
const STEPS_MAX: usize = 1_500;

/// A model's file. Loaded when the first decoder is made, let go of with the last.
pub(super) struct Model {
    path: PathBuf,
    context: Mutex<Weak<WhisperContext>>,
}

impl Model {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, context: Mutex::new(Weak::new()) }
    }

    fn context(&self) -> Result<Arc<WhisperContext>, EngineError> {
        // Other decoders wait here while one loads.
        let mut kept = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = kept.upgrade() {
            return Ok(context);
        }
        file::header(&self.path)?;
        // What whisper.cpp prints about the file would go to standard error.
        whisper_rs::install_logging_hooks();
        let context = WhisperContext::new_with_params(&self.path, WhisperContextParameters::default());
        let context = Arc::new(context.map_err(|error| {
            EngineError::Unavailable(format!(
                "cannot load the Whisper model {} ({error}), it is damaged or does not fit into memory: {}",
                self.path.display(),
                file::mend(&self.path)
            ))
        })?);
        *kept = Arc::downgrade(&context);
        Ok(context)
    }
}

impl Load for Model {
    fn decoder(&self) -> Result<Box<dyn Decode>, EngineError> {
        let context = self.context()?;
        let state = context.create_state().map_err(|error| {
            EngineError::Broken(format!("cannot make a Whisper decoder ({error}): lower speech.decoders"))
        })?;
        Ok(Box::new(Decoder {
            end_of_text: context.token_eot(),
            state,
            pcm: Vec::new(),
            params: HashMap::new(),
            _context: context,
        }))
    }
}

struct Decoder {
    state: WhisperState,
    pcm: Vec<f32>,
    /// For each language, since whisper-rs copies its name and never frees the copy.
    params: HashMap<Option<String>, FullParams<'static, 'static>>,
    /// Tokens from this one on are no text.
    end_of_text: i32,
    _context: Arc<WhisperContext>,
}

/// What all passes have in common. No context of earlier text: a loop in it would go on.
fn plain_params(language: Option<&str>) -> FullParams<'static, 'static> {
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    // The name is copied at once; a static lifetime is all that the signature wants.
    params.set_language(Some(language.and_then(code).unwrap_or("auto")));
    params.set_translate(false);
    params.set_no_context(true);
    params.set_token_timestamps(true);
    params.set_suppress_blank(true);
    params.set_suppress_nst(true);
    // Two more tries with a higher temperature for what makes no sense, where the usual step of 0.2 makes five.
    params.set_temperature_inc(0.4);
    params.set_print_progress(false);
    params.set_print_realtime(false);
    params.set_print_timestamps(false);
    params.set_print_special(false);
    params
}

/// Whether to stop. `flag` points to an `AtomicBool`.
///
/// # Safety
/// `flag` must be what [`Decoder::pass`] gave, and that call must not have returned.
unsafe extern "C" fn asked_to_stop(flag: *mut c_void) -> bool {
    // SAFETY: the caller's promise; the flag is only read, and atomically.
    unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

impl Decode for Decoder {
    fn pass(&mut self, ask: Ask<'_>, stop: &Stop) -> Result<Pass, EngineError> {
        self.pcm.clear();
        self.pcm.extend(ask.pcm.iter().map(|sample| f32::from(*sample) / 32_768.0));
        self.pcm.resize(self.pcm.len().max(SAMPLES_MIN), 0.0);
        let params = self.params.entry(ask.language.map(str::to_owned));
        let mut params = params.or_insert_with(|| plain_params(ask.language)).clone();
        params.set_n_threads(i32::try_from(ask.threads).unwrap_or(1));
        if ask.partial {
            // No second try with another temperature, and an encoder that is as long as the window.
            params.set_temperature_inc(0.0);
            let steps = (self.pcm.len() * STEPS_A_SEC / 16_000 + 64).next_multiple_of(64).min(STEPS_MAX);
            params.set_audio_ctx(i32::try_from(steps).unwrap_or(0));
        }
        // SAFETY: the flag lives in `stop`, which outlives the call below; the callback only reads it, and whisper.cpp calls it
        // during that call alone.
        unsafe {
            params.set_abort_callback(Some(asked_to_stop));
            params.set_abort_callback_user_data(std::ptr::from_ref(stop.flag()).cast_mut().cast::<c_void>());
        }
        let done = self.state.full(params, &self.pcm);
        if stop.is_set() {
            return Ok(Pass::default());
        }
        done.map_err(|error| EngineError::Broken(format!("Whisper failed: {error}")))?;
        Ok(self.heard(ask.pcm.len()))
    }
}

impl Decoder {
    fn heard(&self, samples: usize) -> Pass {
        let long = samples as f64 / 16_000.0;
        let secs = |hundredths: i64| (hundredths as f64 / 100.0).clamp(0.0, long);
        let parts = self.state.as_iter().map(|segment| {
            let tokens = (0..segment.n_tokens()).filter_map(|at| {
                let token = segment.get_token(at)?;
                let about = token.token_data();
                (about.id < self.end_of_text).then(|| Token {
                    bytes: token.to_bytes().unwrap_or_default().to_vec(),
                    start: secs(about.t0),
                    end: secs(about.t1),
                    probability: about.p,
                })
            });
            Part { tokens: tokens.collect(), no_speech: segment.no_speech_probability() }
        });
        let parts = parts.collect();
        let language = whisper_rs::get_lang_str(self.state.full_lang_id_from_state()).map(str::to_owned);
        Pass { parts, language }
    }
}

/// The code that the model has for a language, e.g. `en` for `en-US`.
pub(super) fn code(language: &str) -> Option<&'static str> {
    let plain = language.split(['-', '_']).next().unwrap_or_default();
    // Anything else would panic there, or be printed.
    if !(2..=3).contains(&plain.len()) || !plain.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    whisper_rs::install_logging_hooks();
    let known = |name: &str| whisper_rs::get_lang_id(name).and_then(whisper_rs::get_lang_str);
    known(&plain.to_lowercase())
}
