//! The `local` understanding: English, by rules, on this machine. Extractive: it takes words from the transcript and never
//! invents. Works on punctuated transcripts and on rough ones with one sentence a segment.
//!
//! Start at [`Local`]; each file below holds one idea.

mod actions;
mod category;
mod dates;
mod discard;
mod events;
mod overview;
mod text;
mod title;

use async_trait::async_trait;
use auricle_core::{Provenance, Structured};

use crate::understanding::PLAIN_EMOJI;
use crate::{Request, Understand, UnderstandError, Understanding};

/// Changes when the rules do, so that a record says which made it.
const VERSION: &str = "1";

/// Understanding without a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

#[async_trait]
impl Understand for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn understand(&self, request: Request<'_>) -> Result<Understanding, UnderstandError> {
        Ok(understand(&request))
    }
}

fn understand(request: &Request<'_>) -> Understanding {
    let provenance = Provenance { provider: "local".into(), version: VERSION.into() };
    let sentences = text::sentences(&request.conversation.segments);
    if let Some(reason) = discard::reason(request.conversation, &sentences) {
        let structured = Structured { emoji: PLAIN_EMOJI.into(), ..Structured::default() };
        return Understanding { structured, provenance, discarded: Some(reason), memories: Vec::new() };
    }
    let clock = dates::Clock::new(request);
    let (category, emoji) = category::of(&sentences);
    let ranked = overview::rank(&sentences);
    let structured = Structured {
        title: title::of(&sentences, &ranked),
        overview: overview::of(&sentences, &ranked),
        emoji: emoji.unwrap_or(PLAIN_EMOJI).into(),
        category,
        action_items: actions::of(&sentences, &clock, request.now),
        events: events::of(&sentences, &clock),
        sections: Vec::new(),
    };
    Understanding { structured, provenance, discarded: None, memories: Vec::new() }
}

#[cfg(test)]
mod tests;
