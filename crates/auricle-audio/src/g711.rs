//! G.711: telephone audio, one byte a sample. Source: ITU-T G.711.

/// A µ-law byte's sample.
pub(crate) fn mulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte & 0x70) >> 4);
    (if byte & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }) as i16
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
}
