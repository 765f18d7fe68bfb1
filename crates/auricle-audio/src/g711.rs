//! G.711: telephone audio, one byte a sample. Source: ITU-T G.711.

/// A µ-law byte's sample.
pub(crate) fn mulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte & 0x70) >> 4);
    (if byte & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }) as i16
}

/// The µ-law byte nearest to a sample.
pub(crate) fn to_mulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32_635) + 0x84;
    // The highest bit of a biased magnitude is one of 7 to 14.
    let exponent = (31 - magnitude.leading_zeros() as i32) - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | (exponent << 4) | mantissa) as u8
}

/// An A-law byte's sample.
pub(crate) fn alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte & 0x70) >> 4, i32::from(byte & 0x0f) << 4);
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    (if byte & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_middle_of_both_laws() {
        assert_eq!((mulaw(0xff), mulaw(0x7f), mulaw(0x80), mulaw(0x00)), (0, 0, 32_124, -32_124));
        assert_eq!((alaw(0xd5), alaw(0x55), alaw(0xaa), alaw(0x2a)), (8, -8, 32_256, -32_256));
    }

    #[test]
    fn sound_survives_mulaw_to_within_a_thirtieth_of_itself() {
        for sample in i16::MIN..=i16::MAX {
            let error = (i32::from(mulaw(to_mulaw(sample))) - i32::from(sample)).abs();
            assert!(error <= 8 + i32::from(sample).abs() / 30, "{sample}: off by {error}");
        }
        assert_eq!(mulaw(to_mulaw(0)), 0);
    }
}
