//! Understanding by a language model: any server that speaks OpenAI's chat completions.
//!
//! Owns: the calls, their bounds and what their failures mean. Leaves to others: what is asked (`prompt`), what an answer is
//! worth (`answer`), when to try again (the worker). Invariants: one call for a conversation that the model's window holds, and
//! a second only if the first answer makes no sense; what is longer is read in parts, each a recorded step (`long`); no error
//! holds transcript text, the key or more of an answer than a short code; while the breaker is open nobody calls; a model that
//! is away costs no attempt, whether that was known before or found by calling; advice for operators is logged, and in no
//! reason; whatever a model answers is checked and bounded, since a transcript may have told it what to say.

mod answer;
mod budget;
mod clean;
mod client;
mod day;
mod failure;
mod long;
mod prompt;
mod tokens;
mod translate;

use std::sync::Arc;

use async_trait::async_trait;
use auricle_core::breaker::BreakerState;
use auricle_core::{Conversation, DiscardReason, Limits, Provenance, Structured};

use self::answer::Answer;
use self::client::{Client, Model};
pub use self::prompt::Output;
use crate::understanding::{KEEP_WORDS, PLAIN_EMOJI};
use crate::{Clock, Request, Understand, UnderstandError, Understanding};

/// Which server, and which of its models.
#[derive(Clone)]
pub struct OpenAiConfig {
    /// Its address, with or without `/v1`.
    pub url: String,
    /// The model that writes records.
    pub model: String,
    /// The model that takes notes on parts of what is too long for one call; `None`: the same.
    pub model_long: Option<String>,
    /// The model that translates; `None`: the same.
    pub model_translation: Option<String>,
    /// What lets us in.
    pub key: Option<String>,
    /// The header that the key goes into: as a bearer token in `authorization`, by itself in any other.
    pub key_header: String,
    /// How the form of an answer is asked for; `None`: whatever the server takes, found by asking.
    pub output: Option<Output>,
    /// Tokens that the models hold, prompt and answer together.
    pub window_tokens: usize,
    /// For a million tokens of prompts, in whatever currency.
    pub price_input: f64,
    /// For a million tokens of answers.
    pub price_output: f64,
}

impl OpenAiConfig {
    /// Of `model` at `url`; the rest as by default.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            model_long: None,
            model_translation: None,
            key: None,
            key_header: "authorization".into(),
            output: None,
            window_tokens: 128_000,
            price_input: 0.0,
            price_output: 0.0,
        }
    }
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiError {
    /// The address is none.
    #[error("`llm.url` is not an address such as http://127.0.0.1:11434")]
    Url,
    /// The key cannot be sent.
    #[error("`llm.key` has characters that no header can hold")]
    Key,
    /// No such header can be.
    #[error("`llm.key_header` is not the name of a header such as authorization or api-key")]
    KeyHeader,
    /// The system lacks something.
    #[error("cannot set up the language model's client: {0}")]
    Client(String),
}

/// Understanding by a language model.
pub struct OpenAi {
    client: Client,
    model: Model,
    /// For parts of what is too long.
    long: Model,
    /// For translations of what is said.
    translate: Model,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
}

impl OpenAi {
    /// Connects to nothing yet.
    pub fn new(
        config: &OpenAiConfig,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenAiError> {
        let client = Client::new(config, Arc::clone(&limits), Arc::clone(&clock))?;
        let model = Model::new(&config.model, config.output);
        let long = Model::new(config.model_long.as_deref().unwrap_or(&config.model), config.output);
        let translate =
            Model::new(config.model_translation.as_deref().unwrap_or(&config.model), config.output);
        Ok(Self { client, model, long, translate, limits, clock })
    }

    /// What a person would ask of it: who is asked, and whether calls get through. Waits for no lock: a probe may ask.
    pub fn describe(&self) -> (String, BreakerState) {
        (format!("{} at {}", self.model.name, self.client.host), self.client.breaker())
    }

    fn provenance(&self) -> Provenance {
        let version = format!("{}/prompt-{}", self.model.name, prompt::EDITION);
        Provenance { provider: self.name().into(), version }
    }

    fn set_aside(&self, reason: DiscardReason) -> Understanding {
        let structured = Structured { emoji: PLAIN_EMOJI.into(), ..Structured::default() };
        Understanding {
            structured,
            provenance: self.provenance(),
            discarded: Some(reason),
            memories: Vec::new(),
        }
    }
}

#[async_trait]
impl Understand for OpenAi {
    fn name(&self) -> &'static str {
        "llm"
    }

    fn is_away(&self) -> bool {
        self.client.breaker() != BreakerState::Closed
    }

    fn has_answered(&self) -> bool {
        self.client.has_answered()
    }

    async fn understand(&self, request: Request<'_>) -> Result<Understanding, UnderstandError> {
        let worth = worth(request.conversation);
        if worth == Worth::Nothing {
            return Ok(self.set_aside(DiscardReason::Empty));
        }
        let may_discard = worth == Worth::Unclear;
        let conversation = request.conversation;
        let id = format!("conversation:{}:understand:{}", conversation.id, conversation.revision.0);
        let window = self.client.window;
        let lines = prompt::lines(conversation, self.limits.llm_transcript_chars_max);
        let ask = |lines, notes| prompt::record(&request, lines, notes, may_discard, window);
        let call = match long::tokens(&lines) > ask(&[], false).room(window) {
            true => {
                let room = ask(&[], true).room(window);
                ask(&self.summarised(&request, lines, room, &id).await?, true)
            }
            false => ask(&lines, false),
        };
        let read = |content: &str| answer::record(content, &request, may_discard);
        match self.client.ask(&self.model, &call, &id, read).await.map_err(UnderstandError::from)? {
            Answer::Discard => Ok(self.set_aside(DiscardReason::Trivial)),
            Answer::Keep { structured, memories } => {
                Ok(Understanding { structured, provenance: self.provenance(), discarded: None, memories })
            }
        }
    }
}

/// Whether a conversation is kept. Source: pusher-and-processing 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// No words and no described photos: set aside without asking.
    Nothing,
    /// The model says.
    Unclear,
    /// Long enough to be kept without asking.
    Kept,
}

fn worth(conversation: &Conversation) -> Worth {
    let words: usize =
        conversation.segments.iter().map(|segment| segment.text.split_whitespace().count()).sum();
    match words {
        0 if prompt::descriptions(conversation).next().is_none() => Worth::Nothing,
        words if words > KEEP_WORDS => Worth::Kept,
        _ => Worth::Unclear,
    }
}

#[cfg(test)]
mod tests;
