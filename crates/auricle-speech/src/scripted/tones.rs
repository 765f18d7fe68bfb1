//! A language of tones, and its recogniser: words that are in the audio itself, so that a test or a benchmark can tell whether
//! what was played twice, spooled, or heard by another engine is still there, once, and where.
//!
//! A word is a number: a lead of 40 ms, then four digits to base 8 of 40 ms each, each a frequency of its own, above most of what
//! speech holds, so that both can be mixed. Survives Opus at 16 kHz and G.711; needs 16 kHz.

use std::f64::consts::TAU;

use auricle_core::Word;

/// The rate it is spoken at.
pub const RATE_HZ: u32 = 16_000;
/// Numbers below this can be said.
pub const NUMBERS: u32 = 8 * 8 * 8 * 8;
/// A word's length in samples: 200 ms.
pub const WORD_SAMPLES: usize = 5 * TONE;
const TONE: usize = RATE_HZ as usize / 25;
/// How far the recogniser moves on, and how much it looks at: a tone holds at least two whole looks.
const HOP: usize = RATE_HZ as usize / 100;
const LEAD_HZ: f64 = 4_400.0;
const STEP_HZ: f64 = 300.0;
const AMPLITUDE: f64 = 2_500.0;
/// The strongest frequency counts if it has this much more than the next one …
const CLEAR: f64 = 2.5;
/// … and this much power at all.
const POWER_MIN: f64 = 250.0 * 250.0;

fn frequency(symbol: usize) -> f64 {
    LEAD_HZ + STEP_HZ * symbol as f64
}

/// Says `number` in `pcm` from sample `at` on, on top of what is there.
pub fn say(pcm: &mut [i16], at: usize, number: u32) {
    let digits = [number / 512, number / 64, number / 8, number].map(|digit| digit as usize % 8 + 1);
    for (place, symbol) in std::iter::once(0).chain(digits).enumerate() {
        for index in 0..TONE {
            let Some(sample) = pcm.get_mut(at + place * TONE + index) else { return };
            let time = index as f64 / f64::from(RATE_HZ);
            // Softened ends, so that a codec does not smear the change over its neighbours.
            let soft = (index.min(TONE - 1 - index) as f64 / 80.0).min(1.0);
            let tone = (time * frequency(symbol) * TAU).sin() * AMPLITUDE * soft;
            *sample = sample.saturating_add(tone as i16);
        }
    }
}

/// Power of one frequency in `pcm`. Source: Goertzel (1958).
fn power(pcm: &[i16], hz: f64) -> f64 {
    let turn = 2.0 * (TAU * hz / f64::from(RATE_HZ)).cos();
    let (mut a, mut b) = (0.0, 0.0);
    for sample in pcm {
        (a, b) = (f64::from(*sample) + turn * a - b, a);
    }
    (a * a + b * b - turn * a * b) * 4.0 / (pcm.len() * pcm.len()) as f64
}

/// Which symbol this look holds.
fn symbol(pcm: &[i16]) -> Option<usize> {
    let (mut best, mut first, mut second) = (0, 0.0, 0.0);
    for symbol in 0..9 {
        let power = power(pcm, frequency(symbol));
        if power > first {
            (best, second, first) = (symbol, first, power);
        } else if power > second {
            second = power;
        }
    }
    (first >= POWER_MIN && first >= CLEAR * second).then_some(best)
}

/// Hears numbers in a stream.
#[derive(Debug, Default)]
pub(super) struct Recogniser {
    pcm: Vec<i16>,
    /// Position of the first sample of `pcm`.
    at: u64,
    /// Position of the next look.
    next: u64,
    /// Where the lead of the word under way begins.
    lead: Option<u64>,
    /// The last look held the lead.
    leads: bool,
}

impl Recogniser {
    /// Takes in audio; appends the words that have ended. Times are seconds from the first sample.
    pub(super) fn push(&mut self, pcm: &[i16], words: &mut Vec<Word>) {
        self.pcm.extend_from_slice(pcm);
        loop {
            let begin = (self.lead.unwrap_or(self.next) - self.at) as usize;
            match self.lead {
                None => {
                    let Some(look) = self.pcm.get(begin..begin + 2 * HOP) else { break };
                    let is_lead = symbol(look) == Some(0);
                    // The first look that is one has some of what was before in it, the second hardly any.
                    if is_lead && std::mem::replace(&mut self.leads, is_lead) {
                        self.lead = Some(self.next);
                    }
                    self.leads = is_lead;
                    self.next += HOP as u64;
                }
                Some(lead) => {
                    if self.pcm.len() < begin + WORD_SAMPLES {
                        break;
                    }
                    if let Some(number) = self.number(begin) {
                        let rate = f64::from(RATE_HZ);
                        let end = (lead + WORD_SAMPLES as u64) as f64 / rate;
                        words.push(Word {
                            text: format!("w{number}."),
                            start: lead as f64 / rate,
                            end,
                            speaker: 0,
                            confidence: None,
                        });
                        self.next = lead + WORD_SAMPLES as u64;
                    }
                    (self.lead, self.leads) = (None, false);
                }
            }
        }
        let gone = (self.lead.unwrap_or(self.next) - self.at) as usize;
        self.pcm.drain(..gone.min(self.pcm.len()));
        self.at += gone as u64;
    }

    fn number(&self, begin: usize) -> Option<u32> {
        let mut number = 0;
        for place in 1..5 {
            // The middle of each tone.
            let from = begin + place * TONE + HOP;
            let digit = symbol(self.pcm.get(from..from + 2 * HOP)?)?.checked_sub(1)?;
            number = number * 8 + digit as u32;
        }
        Some(number)
    }

    /// Everything before this holds no word that is still to come.
    pub(super) fn decided(&self) -> u64 {
        // A lead may begin with the look before the next one.
        self.lead.unwrap_or(self.next).saturating_sub(3 * HOP as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pcm: &[i16], chunk: usize) -> Vec<(String, f64)> {
        let (mut recogniser, mut words) = (Recogniser::default(), Vec::new());
        pcm.chunks(chunk).for_each(|chunk| recogniser.push(chunk, &mut words));
        words.into_iter().map(|word| (word.text, word.start)).collect()
    }

    /// One word every half second, on noise.
    fn spoken(count: u32, shift: usize) -> Vec<i16> {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 48) as i16) / 64
        };
        let mut pcm: Vec<i16> = (0..(count as usize + 1) * 8_000 + shift).map(|_| noise()).collect();
        (0..count).for_each(|n| say(&mut pcm, shift + n as usize * 8_000, (n * 37) % NUMBERS));
        pcm
    }

    fn are_right(heard: &[(String, f64)], count: u32, shift: usize) {
        assert_eq!(heard.len(), count as usize, "{heard:?}");
        for (n, (text, start)) in heard.iter().enumerate() {
            assert_eq!(*text, format!("w{}.", (n as u32 * 37) % NUMBERS));
            let said = (shift + n * 8_000) as f64 / 16_000.0;
            assert!((start - said).abs() < 0.02, "{text} said at {said}, heard at {start}");
        }
    }

    #[test]
    fn what_is_said_is_heard_where_it_was_said() {
        for shift in [0, 1, 77, 160, 333, 1_000] {
            for chunk in [320, 160, 4_000, 123] {
                are_right(&heard(&spoken(30, shift), chunk), 30, shift);
            }
        }
    }

    #[test]
    fn it_survives_opus() {
        use auricle_audio::{Codec, Decoder, Encoder};
        let pcm = spoken(60, 0);
        let packets = Encoder::new(Codec::OpusFs320, RATE_HZ).unwrap().encode_all(&pcm).unwrap();
        let mut decoder = Decoder::new(Codec::OpusFs320, RATE_HZ, 1).unwrap();
        let mut decoded = Vec::new();
        packets.iter().for_each(|packet| decoder.decode(packet, &mut decoded).unwrap());
        let heard = heard(&decoded, 320);
        let texts: Vec<_> = heard.iter().map(|(text, _)| text.clone()).collect();
        let said: Vec<_> = (0..60).map(|n| format!("w{}.", (n * 37) % NUMBERS)).collect();
        assert_eq!(texts, said);
    }

    #[test]
    fn half_a_word_is_none() {
        let mut pcm = vec![0; 16_000];
        say(&mut pcm, 4_000, 1_234);
        assert_eq!(heard(&pcm[4_000 + TONE..], 320), []);
        assert_eq!(heard(&pcm[..4_000 + 4 * TONE], 320), []);
    }
}

/// `secs` of something that a voice detector takes for speech, below the tones: a buzzing throat, two wandering formants,
/// syllables, and a hiss between two of them. A voice without any would be one that no codec's decoder that comes late ever gets
/// right: it predicts each pitch period from the one before.
pub fn voice(secs: f64) -> Vec<i16> {
    let rate = f64::from(RATE_HZ);
    let (mut phase, mut state) = (0.0, 1_u64);
    let round: Vec<i16> = (0..(secs.min(VOICE_SECS) * rate) as usize)
        .map(|index| {
            let time = index as f64 / rate;
            let pitch = 125.0 + 18.0 * (time * 2.3).sin() + 9.0 * (time * 5.1).sin();
            phase += TAU * pitch / rate;
            let (first, second) = (520.0 + 220.0 * (time * 7.0).sin(), 1_500.0 + 500.0 * (time * 4.3).cos());
            let harmonics = (1..=24).map(|n| {
                let hz = pitch * f64::from(n);
                let near = |formant: f64, width: f64| (-((hz - formant) / width).powi(2)).exp();
                (near(first, 130.0) + 0.5 * near(second, 180.0) + 0.02) * (phase * f64::from(n)).sin()
            });
            let hiss = (time * 6.2).fract() < 0.3;
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if hiss {
                return ((state >> 48) as i16) / 32;
            }
            let syllable = (time * TAU * 3.1).sin().abs().sqrt();
            (harmonics.sum::<f64>() * syllable * 3_000.0) as i16
        })
        .collect();
    round.iter().cycle().take((secs * rate) as usize).copied().collect()
}

/// After this much the voice says the same again.
const VOICE_SECS: f64 = 4.0;

#[cfg(test)]
mod voice_tests {
    use auricle_audio::vad::{Endpointer, EndpointerConfig};

    use super::*;

    #[test]
    fn a_voice_detector_takes_it_for_speech_with_tones_and_without() {
        for tones in [false, true] {
            let mut pcm = voice(10.0);
            if tones {
                (0..20).for_each(|n| say(&mut pcm, n * 8_000, n as u32));
            }
            let (mut endpointer, mut events) = (Endpointer::new(EndpointerConfig::default()), Vec::new());
            let (mut spoken, mut frames) = (0, 0);
            for frame in pcm.chunks(320) {
                endpointer.push(frame, &mut events);
                spoken += usize::from(endpointer.in_speech());
                frames += 1;
            }
            println!("tones {tones}: {spoken} of {frames}");
            assert!(spoken * 10 > frames * 6, "tones {tones}: {spoken} of {frames}");
        }
    }
}
