//! What it sends.

use serde::Deserialize;

use super::NAME;
use crate::EngineError;
use crate::cloud::{Said, broken, unreadable, word};

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type", default)]
    kind: String,
    /// Of an `Error`: its name.
    variant: Option<String>,
}

/// `Results`: what was heard between `start` and `start + duration`.
#[derive(Deserialize)]
struct Results {
    start: f64,
    duration: f64,
    /// Absent from servers that send nothing else.
    #[serde(default = "yes")]
    is_final: bool,
    #[serde(default)]
    from_finalize: bool,
    channel: Channel,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    #[serde(default)]
    words: Vec<Heard>,
}

#[derive(Deserialize)]
struct Heard {
    word: String,
    punctuated_word: Option<String>,
    start: f64,
    end: f64,
    /// From 0; absent without diarization.
    speaker: Option<u32>,
    confidence: Option<f64>,
}

fn yes() -> bool {
    true
}

/// Unknown kinds mean nothing, so that a newer server is understood as far as it can be. `interim`: words that may still change
/// were asked for.
pub(super) fn read(text: &str, interim: bool, said: &mut Vec<Said>) -> Result<(), EngineError> {
    let kind: Kind = serde_json::from_str(text).map_err(|error| unreadable(NAME, &error))?;
    match kind.kind.as_str() {
        "Results" => {
            let results: Results = serde_json::from_str(text).map_err(|error| unreadable(NAME, &error))?;
            results.tell(interim, said);
        }
        // The last thing that it says after CloseStream; the machine ignores one that comes before.
        "Metadata" => said.push(Said::Finished),
        "Error" => {
            let variant = kind.variant.filter(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            let what = variant.map_or_else(String::new, |variant| format!(" ({variant})"));
            return Err(broken(NAME, &format!("said that it cannot go on{what}")));
        }
        _ => {}
    }
    Ok(())
}

impl Results {
    fn tell(self, interim: bool, said: &mut Vec<Said>) {
        if !self.is_final && !interim {
            return;
        }
        let heard = self.channel.alternatives.into_iter().next().map_or_else(Vec::new, |best| best.words);
        let words: Vec<_> = heard
            .iter()
            .filter_map(|heard| {
                let text = heard.punctuated_word.as_deref().unwrap_or(&heard.word);
                word(text, heard.start, heard.end, heard.speaker.unwrap_or(0), heard.confidence)
            })
            .collect();
        if !self.is_final {
            return said.push(Said::Interim(words));
        }
        if !words.is_empty() {
            said.push(Said::Words(words));
        } else if interim {
            // Nothing was there after all.
            said.push(Said::Interim(words));
        }
        said.push(Said::Covered(self.start + self.duration));
        if self.from_finalize {
            said.push(Said::Flushed);
        }
    }
}
