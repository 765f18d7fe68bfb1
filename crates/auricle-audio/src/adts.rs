//! Splitting AAC with ADTS headers into frames.

/// Sampling rates by index. Source: ISO/IEC 14496-3, table 1.18.
const RATES_HZ: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// With its header, as sent on the wire.
    pub whole: &'a [u8],
    /// Without.
    pub payload: &'a [u8],
    /// Of the coded audio.
    pub rate_hz: u32,
    /// 1 or 2; others are not split out.
    pub channels: u8,
}

/// The frames of `bytes`, as far as they are whole and well-formed.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let frame = first(rest)?;
        rest = &rest[frame.whole.len()..];
        Some(frame)
    })
}

fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let header = bytes.first_chunk::<7>()?;
    if header[0] != 0xFF || header[1] & 0xF6 != 0xF0 {
        return None;
    }
    let head_bytes = if header[1] & 1 == 1 { 7 } else { 9 };
    let rate_hz = *RATES_HZ.get(usize::from(header[2] >> 2 & 0xF))?;
    let channels = (header[2] & 1) << 2 | header[3] >> 6;
    let length = usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5);
    // More than one raw block in a frame does not occur with devices, and the decoder takes one.
    let single = header[6] & 3 == 0;
    if !single || !(1..=2).contains(&channels) || length <= head_bytes {
        return None;
    }
    let whole = bytes.get(..length)?;
    Some(Frame { whole, payload: &whole[head_bytes..], rate_hz, channels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_split_and_a_torn_one_is_left() {
        // 16 kHz, mono, no checksum, 9 bytes: header and two bytes.
        let frame = [0xFF, 0xF1, 0x60, 0x40, 0x01, 0x3F, 0xFC, 0xAA, 0xBB];
        let mut bytes = frame.to_vec();
        bytes.extend(frame);
        bytes.extend(&frame[..8]);
        let split: Vec<_> = frames(&bytes).collect();
        assert_eq!(split.len(), 2);
        assert_eq!((split[0].rate_hz, split[0].channels, split[0].payload), (16_000, 1, &[0xAA, 0xBB][..]));
        assert_eq!(frames(b"RIFF....").count(), 0);
    }
}
