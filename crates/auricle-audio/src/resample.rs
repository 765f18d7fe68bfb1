//! Changing the sample rate.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

/// Output sample `i` is input sample `floor(i / ratio)`: crude, and what upstream does for multi-channel streams.
/// Appends to `out`. Source: listen-protocol 2.3.
pub fn repeat_decimate(pcm: &[i16], from_hz: u32, to_hz: u32, out: &mut Vec<i16>) {
    let (from, to) = (u64::from(from_hz.max(1)), u64::from(to_hz));
    let count = pcm.len() as u64 * to / from;
    out.extend((0..count).map(|i| pcm[((i * from / to.max(1)) as usize).min(pcm.len() - 1)]));
}

/// Sums two streams over the shorter one's length, clamping. Source: listen-protocol 2.4.
pub fn mix(a: &[i16], b: &[i16], out: &mut Vec<i16>) {
    out.extend(a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)));
}

/// Band-limited resampling of a stream of mono PCM, about 10 ms of delay.
pub struct Resampler {
    inner: Option<Inner>,
}

struct Inner {
    fft: Fft<f32>,
    waiting: Vec<f32>,
    made: Vec<f32>,
}

impl Resampler {
    /// The same rate passes through untouched; so do rates that the filter cannot be built for.
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        if from_hz == to_hz {
            return Self { inner: None };
        }
        let chunk = (from_hz / 100).max(16) as usize;
        let fft = Fft::new(from_hz as usize, to_hz as usize, chunk, 1, FixedSync::Both).ok();
        let inner =
            fft.map(|fft| Inner { made: vec![0.0; fft.output_frames_max()], waiting: Vec::new(), fft });
        Self { inner }
    }

    /// Takes in `pcm` and appends what can be given out.
    pub fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        let Some(Inner { fft, waiting, made }) = &mut self.inner else {
            return out.extend_from_slice(pcm);
        };
        waiting.extend(pcm.iter().map(|sample| f32::from(*sample) / 32_768.0));
        let mut used = 0;
        while waiting.len() - used >= fft.input_frames_next() {
            let take = fft.input_frames_next();
            let room = made.len();
            let Ok(input) = InterleavedSlice::new(&waiting[used..used + take], 1, take) else { break };
            let Ok(mut output) = InterleavedSlice::new_mut(made, 1, room) else { break };
            let Ok((read, written)) = fft.process_into_buffer(&input, &mut output, None) else { break };
            out.extend(
                made[..written].iter().map(|sample| (sample * 32_768.0).clamp(-32_768.0, 32_767.0) as i16),
            );
            used += read.max(1);
        }
        waiting.drain(..used.min(waiting.len()));
    }
}

/// A whole recording at another rate.
pub fn whole(pcm: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    let mut resampler = Resampler::new(from_hz, to_hz);
    let mut out =
        Vec::with_capacity((pcm.len() as u64 * u64::from(to_hz) / u64::from(from_hz.max(1))) as usize + 512);
    resampler.push(pcm, &mut out);
    if from_hz != to_hz {
        resampler.push(&vec![0; from_hz as usize / 25], &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_and_decimation_follow_the_rule() {
        let mut out = Vec::new();
        repeat_decimate(&[1, 2, 3], 8_000, 16_000, &mut out);
        assert_eq!(out, [1, 1, 2, 2, 3, 3]);
        out.clear();
        repeat_decimate(&[1, 2, 3, 4, 5, 6], 48_000, 16_000, &mut out);
        assert_eq!(out, [1, 4]);
        out.clear();
        repeat_decimate(&[], 48_000, 16_000, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_tone_keeps_its_length_and_level() {
        let tone: Vec<i16> = (0..8_000)
            .map(|i| (10_000.0 * (f64::from(i) * 440.0 * std::f64::consts::TAU / 8_000.0).sin()) as i16)
            .collect();
        let out = whole(&tone, 8_000, 16_000);
        assert!((15_800..=16_800).contains(&out.len()), "{}", out.len());
        let loudest = out[4_000..12_000].iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        assert!((9_500..=10_500).contains(&loudest), "{loudest}");
    }

    #[test]
    fn mixing_clamps_over_the_shorter_length() {
        let mut out = Vec::new();
        mix(&[30_000, 5], &[30_000, -7, 9], &mut out);
        assert_eq!(out, [32_767, -2]);
    }
}
