//! The beginning of a WAV file of 16-bit PCM, whose length is known before its samples are.

/// Bytes of samples that a WAV file can hold: its sizes are 32 bits, and count what stands before the samples too.
pub const DATA_BYTES_MAX: u64 = u32::MAX as u64 - 128;

/// What stands before the samples, which follow interleaved, little-endian. `None` if it would be more than [`DATA_BYTES_MAX`].
///
/// Three and more channels are described as `WAVE_FORMAT_EXTENSIBLE`, without loudspeakers.
pub fn header(rate_hz: u32, channels: u16, samples_each: u64) -> Option<Vec<u8>> {
    const PCM: u16 = 1;
    const EXTENSIBLE: u16 = 0xfffe;
    // The sub-format's GUID behind its first two bytes, which are the format.
    const GUID: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
    let frame = channels.checked_mul(2)?;
    let data = samples_each.checked_mul(u64::from(frame)).filter(|bytes| *bytes <= DATA_BYTES_MAX)?;
    let data = u32::try_from(data).ok()?;
    let is_plain = channels <= 2;
    let format_bytes: u32 = if is_plain { 16 } else { 40 };
    let mut bytes = Vec::with_capacity(68);
    bytes.extend(b"RIFF");
    bytes.extend((4 + 8 + format_bytes + 8 + data).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(format_bytes.to_le_bytes());
    bytes.extend(if is_plain { PCM } else { EXTENSIBLE }.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate_hz.to_le_bytes());
    bytes.extend(rate_hz.checked_mul(u32::from(frame))?.to_le_bytes());
    bytes.extend(frame.to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    if !is_plain {
        bytes.extend(22_u16.to_le_bytes());
        bytes.extend(16_u16.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(PCM.to_le_bytes());
        bytes.extend(GUID);
    }
    bytes.extend(b"data");
    bytes.extend(data.to_le_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_reader_finds_rate_channels_and_samples() {
        for channels in [1, 2, 3, 8] {
            let samples: Vec<i16> = (0..i16::try_from(channels).unwrap() * 5).collect();
            let mut bytes = header(16_000, channels, 5).unwrap();
            bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
            let mut reader = hound::WavReader::new(Cursor::new(bytes)).unwrap();
            let spec = reader.spec();
            assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (channels, 16_000, 16));
            assert_eq!(reader.samples::<i16>().collect::<Result<Vec<_>, _>>().unwrap(), samples);
        }
    }

    #[test]
    fn what_no_wav_can_hold_has_no_header() {
        let most = DATA_BYTES_MAX / 4;
        assert!(header(16_000, 2, most).is_some());
        assert_eq!(header(16_000, 2, most + 1), None);
        assert_eq!(header(16_000, 2, u64::MAX), None);
    }
}
