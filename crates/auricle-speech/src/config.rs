//! Choosing an engine by its name.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use auricle_core::Account;

use crate::chain::{Chain, ChainNumbers};
use crate::cloud::{CloudConfig, CloudEngine};
use crate::gate::{self, GateConfig};
use crate::none::NoEngine;
use crate::pocketsphinx::PocketSphinx;
use crate::scripted::{Scripted, Trouble};
use crate::whisper::{Whisper, WhisperConfig};
use crate::{DeepgramConfig, Engine, EngineError, SonioxConfig, SpeechmaticsConfig};

/// Which engine, and the settings of each.
#[derive(Clone, Debug)]
pub struct SpeechConfig {
    /// `pocketsphinx`, `whisper`, `deepgram`, `soniox`, `speechmatics`, `scripted`, `scripted_spare` or `none`.
    pub engine: String,
    /// Used if it is chosen.
    pub pocketsphinx: PocketSphinxConfig,
    /// Used if it is chosen.
    pub whisper: WhisperConfig,
    /// Used if it is chosen.
    pub scripted: ScriptedConfig,
    /// Used if it is chosen.
    pub deepgram: DeepgramConfig,
    /// Used if it is chosen.
    pub soniox: SonioxConfig,
    /// Used if it is chosen.
    pub speechmatics: SpeechmaticsConfig,
    /// What the last three have in common.
    pub cloud: CloudConfig,
    /// Whether silence is kept from the engine.
    pub gate: GateConfig,
    /// Where audio that waits for the engine is counted.
    pub account: Account,
    /// The bounds of a chain.
    pub chain: ChainNumbers,
}

impl Default for SpeechConfig {
    fn default() -> Self {
        Self {
            engine: "pocketsphinx".to_owned(),
            pocketsphinx: PocketSphinxConfig::default(),
            whisper: WhisperConfig::default(),
            scripted: ScriptedConfig::default(),
            deepgram: DeepgramConfig::default(),
            soniox: SonioxConfig::default(),
            speechmatics: SpeechmaticsConfig::default(),
            cloud: CloudConfig::default(),
            gate: GateConfig::default(),
            account: Account::default(),
            chain: ChainNumbers::default(),
        }
    }
}

/// Settings of PocketSphinx.
#[derive(Clone, Debug)]
pub struct PocketSphinxConfig {
    /// Decoder threads, each with a recogniser of 93 MB once it has been needed. Unset: one for each core.
    pub decoders: Option<NonZeroUsize>,
    /// The library's path or file name. Unset: the usual names are tried.
    pub library: Option<PathBuf>,
    /// The folder that holds `en-us/`, `en-us.lm.bin` and `cmudict-en-us.dict`. Unset: the usual folders are tried.
    pub model_dir: Option<PathBuf>,
    /// Speech of one stream that waits for a decoder, in seconds (`limits.engine_backlog_secs_max`). Full: what comes
    /// is skipped and told.
    pub backlog_secs_max: u32,
}

impl Default for PocketSphinxConfig {
    fn default() -> Self {
        Self { decoders: None, library: None, model_dir: None, backlog_secs_max: 60 }
    }
}

/// Settings of the scripted engine.
#[derive(Clone, Debug, Default)]
pub struct ScriptedConfig {
    /// A JSON file: see [`crate::scripted`]. Unset: a built-in exchange of ten sentences that repeats.
    pub script: Option<PathBuf>,
    /// What goes wrong, for tests.
    pub trouble: Trouble,
}

/// The engine that `config` names. Does not load models; what is missing is told by [`Engine::open`] and
/// [`Engine::check`], so that a server starts all the same.
///
/// Errors: an unknown name, or a script that cannot be read.
pub fn build(config: &SpeechConfig) -> Result<Arc<dyn Engine>, EngineError> {
    let (cloud, account) = (|| config.cloud.clone(), || config.account.clone());
    let engine: Arc<dyn Engine> = match config.engine.as_str() {
        "pocketsphinx" => {
            Arc::new(PocketSphinx::new(&config.pocketsphinx).counted_in(config.account.clone()))
        }
        "whisper" => Arc::new(Whisper::new(&config.whisper).counted_in(config.account.clone())),
        "scripted" => {
            Arc::new(Scripted::open(config.scripted.script.as_deref(), config.scripted.trouble.clone())?)
        }
        "deepgram" => Arc::new(CloudEngine::new(config.deepgram.clone(), cloud(), account())),
        "soniox" => Arc::new(CloudEngine::new(config.soniox.clone(), cloud(), account())),
        "speechmatics" => Arc::new(CloudEngine::new(config.speechmatics.clone(), cloud(), account())),
        // The same words without the trouble: what a chain falls back to in tests and benchmarks.
        "scripted_spare" => Arc::new(Scripted::spare(config.scripted.script.as_deref())?),
        "none" => Arc::new(NoEngine),
        other => {
            return Err(EngineError::Unavailable(format!(
                "there is no speech engine `{other}`: choose `pocketsphinx`, `whisper`, `deepgram`, `soniox`, \
                 `speechmatics`, `scripted` or `none`"
            )));
        }
    };
    Ok(gate::around(engine, &config.gate))
}

/// The engines that `names` name as one, the preferred one first; `config.engine` does not count.
///
/// Errors: as [`build`]'s; no name at all.
pub fn build_chain(config: &SpeechConfig, names: &[String]) -> Result<Arc<Chain>, EngineError> {
    if names.is_empty() {
        return Err(EngineError::Unavailable("no speech engine is named in speech.engines".to_owned()));
    }
    let engine = |name: &String| build(&SpeechConfig { engine: name.clone(), ..config.clone() });
    let engines = names.iter().map(engine).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Chain::new(engines, config.chain.clone(), config.account.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamSpec;

    #[test]
    fn a_chain_has_its_engines_in_order_and_refuses_an_unknown_one() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chain = build_chain(&SpeechConfig::default(), &names(&["scripted", "pocketsphinx"])).unwrap();
        let engines: Vec<_> = chain.status().iter().map(|status| status.engine).collect();
        assert_eq!((engines, chain.name()), (vec!["scripted", "pocketsphinx"], "scripted"));
        let Err(error) = build_chain(&SpeechConfig::default(), &names(&["scripted", "whisker"])) else {
            panic!("built")
        };
        assert!(error.to_string().contains("`whisker`"), "{error}");
        assert!(build_chain(&SpeechConfig::default(), &[]).is_err());
    }

    #[test]
    fn engines_are_built_by_name_and_an_unknown_name_is_refused_with_the_known_ones() {
        for name in ["pocketsphinx", "whisper", "deepgram", "soniox", "speechmatics", "scripted", "none"] {
            let config = SpeechConfig { engine: name.to_owned(), ..SpeechConfig::default() };
            assert_eq!(build(&config).unwrap().name(), name);
        }
        let config = SpeechConfig { engine: "whisker".to_owned(), ..SpeechConfig::default() };
        let Err(EngineError::Unavailable(text)) = build(&config) else { panic!("built") };
        assert!(text.contains("`whisker`") && text.contains("`pocketsphinx`"), "{text}");
    }

    #[test]
    fn no_engine_opens_nothing_and_says_what_to_do() {
        let config = SpeechConfig { engine: "none".to_owned(), ..SpeechConfig::default() };
        let spec = StreamSpec {
            sample_rate_hz: 16_000,
            language: "en".to_owned(),
            label: String::new(),
            key_terms: Vec::new(),
            interim: false,
        };
        let (events, _) = tokio::sync::mpsc::channel(1);
        let Err(EngineError::Unavailable(text)) = build(&config).unwrap().open(spec, events) else {
            panic!("opened")
        };
        assert!(text.contains("custom_stt"), "{text}");
    }
}
