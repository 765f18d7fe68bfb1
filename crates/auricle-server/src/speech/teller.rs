//! What the caller of a stream is told of one channel, and when. Decides only: no socket, no clock.
//!
//! Final results follow each other without a gap: each begins where the last one ended. Engines here decide whole utterances, so a
//! final result with words always ends its speech. Interim ones begin there too, and move nothing.

use auricle_core::Word;
use auricle_wire::deepgram::{self, Alternative, Channel, Message, Results, ResultsMetadata};

/// Silence is told each time this much of it is decided, in seconds.
const SILENCE_TOLD_EVERY: f64 = 5.0;

/// How words are shown, and whose they are.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// Which channel, of how many.
    pub(super) channel: [u16; 2],
    /// Punctuation and capitals.
    pub(super) punctuate: bool,
    /// The voice of each word.
    pub(super) diarize: bool,
    /// Silence behind a word after which `UtteranceEnd` is told, in seconds.
    pub(super) utterance_end: Option<f64>,
    pub(super) metadata: ResultsMetadata,
}

/// One channel's state. Times are seconds from the stream's first sample.
#[derive(Debug)]
pub(super) struct Teller {
    manner: Manner,
    told_until: f64,
    covered: f64,
    /// The end of the last word, until `UtteranceEnd` is told of it.
    last_word_end: Option<f64>,
    /// What was heard when the caller asked for a decision.
    finalize_at: Option<f64>,
    /// The last thing told was words that may still change.
    changing: bool,
}

/// What kind of result it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    is_final: bool,
    speech_final: bool,
    from_finalize: bool,
}

const INTERIM: Kind = Kind { is_final: false, speech_final: false, from_finalize: false };
const SILENCE: Kind = Kind { is_final: true, ..INTERIM };
const SPEECH: Kind = Kind { speech_final: true, ..SILENCE };
const FINALIZED: Kind = Kind { from_finalize: true, ..SPEECH };

/// Milliseconds are as fine as anybody hears.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// A confidence to four places. One that no engine told is 0.0.
fn shown(confidence: f64) -> f64 {
    (confidence * 10_000.0).round() / 10_000.0
}

impl Teller {
    pub(super) fn new(manner: Manner) -> Self {
        Self {
            manner,
            told_until: 0.0,
            covered: 0.0,
            last_word_end: None,
            finalize_at: None,
            changing: false,
        }
    }

    /// An utterance is decided.
    pub(super) fn words(&mut self, words: &[Word], out: &mut Vec<Message>) {
        let Some(end) = words.iter().map(|word| word.end).max_by(f64::total_cmp) else { return };
        self.result(end, words.iter().map(|word| self.shown(word)).collect(), SPEECH, out);
        self.last_word_end = Some(end);
    }

    /// What is heard at the moment, behind what is decided.
    pub(super) fn interim(&mut self, words: &[Word], out: &mut Vec<Message>) {
        // What is decided meanwhile stays as it was decided.
        let open = |word: &&Word| (word.start + word.end) / 2.0 >= self.told_until;
        let words: Vec<_> = words.iter().filter(open).map(|word| self.shown(word)).collect();
        if words.is_empty() && !self.changing {
            return;
        }
        let end = words.iter().map(|word| word.end).fold(self.covered.max(self.told_until), f64::max);
        self.result(end, words, INTERIM, out);
    }

    fn shown(&self, word: &Word) -> deepgram::Word {
        deepgram::Word {
            word: deepgram::bare(&word.text),
            start: rounded(word.start),
            end: rounded(word.end),
            confidence: word.confidence.map_or(0.0, |sure| shown(f64::from(sure))),
            punctuated_word: self.manner.punctuate.then(|| word.text.clone()),
            speaker: self.manner.diarize.then_some(word.speaker),
        }
    }

    /// Everything before `until` is decided.
    pub(super) fn covered(&mut self, until: f64, out: &mut Vec<Message>) {
        self.covered = self.covered.max(until);
        if let (Some(last_word_end), Some(wait)) = (self.last_word_end, self.manner.utterance_end)
            && self.covered >= last_word_end + wait
        {
            self.last_word_end = None;
            out.push(Message::UtteranceEnd {
                channel: self.manner.channel,
                last_word_end: rounded(last_word_end),
            });
        }
        if self.finalize_at.is_some_and(|at| self.covered >= at) {
            self.finalize_at = None;
            let until = self.covered.max(self.told_until);
            self.result(until, Vec::new(), FINALIZED, out);
        } else if self.covered - self.told_until >= SILENCE_TOLD_EVERY {
            self.result(self.covered, Vec::new(), SILENCE, out);
        }
    }

    /// The caller asks for a decision on all that was heard, which ends at `heard`. Its answer is the result that says
    /// `from_finalize`, behind the words that were still to be decided.
    pub(super) fn finalize(&mut self, heard: f64, out: &mut Vec<Message>) {
        self.finalize_at = Some(heard);
        self.covered(self.covered, out);
    }

    /// Speech begins, as far as a detector of voices knows.
    pub(super) fn speech_started(&self, at: f64, out: &mut Vec<Message>) {
        out.push(Message::SpeechStarted { channel: self.manner.channel, timestamp: rounded(at) });
    }

    /// Everything is decided; the stream was `total` long.
    pub(super) fn finished(&mut self, total: f64, out: &mut Vec<Message>) {
        self.covered(total, out);
        if rounded(total) > rounded(self.told_until) {
            self.result(total, Vec::new(), SPEECH, out);
        }
    }

    fn result(&mut self, until: f64, words: Vec<deepgram::Word>, kind: Kind, out: &mut Vec<Message>) {
        let start = words.first().map_or(self.told_until, |word| self.told_until.min(word.start));
        let transcript: Vec<&str> = words
            .iter()
            .map(|word| word.punctuated_word.as_deref().unwrap_or(&word.word))
            .filter(|text| !text.is_empty())
            .collect();
        let transcript = transcript.join(" ");
        let Kind { is_final, speech_final, from_finalize } = kind;
        // Of no words it is 0.0, as Deepgram has it.
        let confidence = words.iter().map(|word| word.confidence).sum::<f64>() / words.len().max(1) as f64;
        let confidence = shown(confidence);
        self.changing = !is_final && !words.is_empty();
        out.push(Message::Results(Results {
            channel_index: self.manner.channel,
            duration: rounded((until - start).max(0.0)),
            start: rounded(start),
            is_final,
            speech_final,
            from_finalize,
            channel: Channel { alternatives: vec![Alternative { transcript, confidence, words }] },
            metadata: self.manner.metadata.clone(),
        }));
        if is_final {
            self.told_until = self.told_until.max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use auricle_wire::deepgram::ModelInfo;

    use super::*;

    fn teller(change: impl FnOnce(&mut Manner)) -> Teller {
        let model_info = ModelInfo { name: "x".into(), version: "1".into(), arch: "x".into() };
        let mut manner = Manner {
            channel: [0, 1],
            punctuate: false,
            diarize: false,
            utterance_end: None,
            metadata: ResultsMetadata { request_id: "r".into(), model_info, model_uuid: "m".into() },
        };
        change(&mut manner);
        Teller::new(manner)
    }

    fn said(start: f64, texts: &[&str]) -> Vec<Word> {
        let word = |(index, text): (usize, &&str)| Word {
            text: (*text).to_owned(),
            start: start + index as f64,
            end: start + index as f64 + 0.5,
            speaker: 1,
            confidence: None,
        };
        texts.iter().enumerate().map(word).collect()
    }

    /// Start, duration, text, `speech_final` and `from_finalize` of each result.
    fn results(out: &[Message]) -> Vec<(f64, f64, &str, bool, bool)> {
        let mut found = Vec::new();
        for message in out {
            if let Message::Results(result) = message {
                let text = result.channel.alternatives[0].transcript.as_str();
                found.push((result.start, result.duration, text, result.speech_final, result.from_finalize));
            }
        }
        found
    }

    #[test]
    fn results_follow_each_other_without_a_gap() {
        let (mut teller, mut out) = (teller(|_| {}), Vec::new());
        teller.words(&said(1.0, &["Hello,", "there!"]), &mut out);
        teller.covered(3.0, &mut out);
        teller.covered(8.0, &mut out);
        teller.words(&said(9.0, &["Again."]), &mut out);
        teller.finished(10.0, &mut out);
        assert_eq!(
            results(&out),
            [
                (0.0, 2.5, "hello there", true, false),
                (2.5, 5.5, "", false, false),
                (8.0, 1.5, "again", true, false),
                (9.5, 0.5, "", true, false),
            ]
        );
    }

    #[test]
    fn what_may_still_change_begins_where_the_last_result_ended_and_moves_nothing() {
        let (mut teller, mut out) = (teller(|manner| manner.utterance_end = Some(1.0)), Vec::new());
        teller.interim(&said(1.0, &["Hell"]), &mut out);
        teller.interim(&said(1.0, &["Hello", "their"]), &mut out);
        teller.words(&said(1.0, &["Hello,", "there!"]), &mut out);
        // Late: it is decided.
        teller.interim(&said(1.0, &["Hello", "their"]), &mut out);
        teller.covered(3.0, &mut out);
        teller.interim(&said(4.0, &["Hm"]), &mut out);
        // Nothing was there after all, and that is told once.
        teller.interim(&[], &mut out);
        teller.interim(&[], &mut out);
        teller.covered(4.0, &mut out);
        let told = |message: &Message| match message {
            Message::Results(result) => {
                let text = result.channel.alternatives[0].transcript.clone();
                (result.start, result.duration, text, result.is_final, result.speech_final)
            }
            Message::UtteranceEnd { last_word_end, .. } => (*last_word_end, 0.0, "end".into(), true, true),
            other => panic!("{other:?}"),
        };
        let told: Vec<_> = out.iter().map(told).collect();
        let wanted = [
            (0.0, 1.5, "hell", false, false),
            (0.0, 2.5, "hello their", false, false),
            (0.0, 2.5, "hello there", true, true),
            (2.5, 2.0, "hm", false, false),
            (2.5, 0.5, "", false, false),
            (2.5, 0.0, "end", true, true),
        ];
        assert_eq!(
            told,
            wanted.map(|(start, secs, text, last, ends)| (start, secs, text.to_owned(), last, ends))
        );
    }

    #[test]
    fn words_are_shown_as_they_were_asked_for() {
        let mut out = Vec::new();
        teller(|manner| (manner.punctuate, manner.diarize) = (true, true))
            .words(&said(0.0, &["Hi."]), &mut out);
        let Message::Results(result) = &out[0] else { panic!("{out:?}") };
        let reading = &result.channel.alternatives[0];
        assert_eq!((reading.transcript.as_str(), reading.words[0].word.as_str()), ("Hi.", "hi"));
        assert_eq!(
            (reading.words[0].punctuated_word.as_deref(), reading.words[0].speaker),
            (Some("Hi."), Some(1))
        );
    }

    #[test]
    fn confidence_is_what_the_engine_tells_and_of_a_transcript_the_mean() {
        let (mut teller, mut out) = (teller(|_| {}), Vec::new());
        let mut words = said(0.0, &["a", "b", "c"]);
        teller.words(&words, &mut out);
        (words[0].confidence, words[1].confidence, words[2].confidence) = (Some(0.99), Some(0.5), Some(0.7));
        teller.words(&words, &mut out);
        let told = |message: &Message| {
            let Message::Results(result) = message else { panic!("{message:?}") };
            let reading = &result.channel.alternatives[0];
            (reading.confidence, reading.words.iter().map(|word| word.confidence).collect::<Vec<_>>())
        };
        assert_eq!(told(&out[0]), (0.0, vec![0.0; 3]));
        assert_eq!(told(&out[1]), (0.73, vec![0.99, 0.5, 0.7]));
    }

    #[test]
    fn an_utterance_ends_once_its_silence_is_decided() {
        let (mut teller, mut out) = (teller(|manner| manner.utterance_end = Some(1.0)), Vec::new());
        teller.words(&said(0.0, &["hi"]), &mut out);
        teller.covered(1.4, &mut out);
        assert_eq!(out.len(), 1);
        teller.covered(1.5, &mut out);
        teller.covered(2.5, &mut out);
        assert_eq!(out.len(), 2);
        assert!(matches!(out[1], Message::UtteranceEnd { last_word_end: 0.5, .. }), "{out:?}");
    }

    #[test]
    fn a_finalize_is_answered_once_behind_the_words_it_asked_for() {
        let (mut teller, mut out) = (teller(|_| {}), Vec::new());
        teller.finalize(2.0, &mut out);
        assert!(out.is_empty());
        teller.words(&said(0.5, &["hi"]), &mut out);
        teller.covered(2.0, &mut out);
        teller.covered(2.1, &mut out);
        assert_eq!(results(&out), [(0.0, 1.0, "hi", true, false), (1.0, 1.0, "", true, true)]);
        out.clear();
        // Nothing is left to decide: answered at once.
        teller.finalize(2.0, &mut out);
        assert_eq!(out.len(), 1);
    }
}
