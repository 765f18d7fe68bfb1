//! The codecs that devices send. Source: listen-protocol 2.1.

/// How one message of audio is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Unsigned 8-bit PCM, any number of samples.
    Pcm8,
    /// Signed 16-bit little-endian PCM, any number of bytes.
    Pcm16,
    /// One Opus packet; devices send 10 ms.
    Opus,
    /// One Opus packet; devices send 20 ms.
    OpusFs320,
    /// AAC-LC frames with ADTS headers.
    Aac,
    /// LC3 frames of 10 ms, 30 bytes nominal.
    Lc3Fs1030,
}

/// A codec's name that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("codec `{0}` is unknown; it is one of pcm8, pcm16, opus, opus_fs320, aac, lc3_fs1030")]
pub struct UnknownCodec(pub String);

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 6] =
        [Self::Pcm8, Self::Pcm16, Self::Opus, Self::OpusFs320, Self::Aac, Self::Lc3Fs1030];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pcm8 => "pcm8",
            Self::Pcm16 => "pcm16",
            Self::Opus => "opus",
            Self::OpusFs320 => "opus_fs320",
            Self::Aac => "aac",
            Self::Lc3Fs1030 => "lc3_fs1030",
        }
    }

    /// Milliseconds of one frame as devices send it. AAC frames are 1,024 samples instead.
    pub fn frame_ms(self) -> u32 {
        match self {
            Self::Opus | Self::Lc3Fs1030 => 10,
            Self::Pcm8 | Self::Pcm16 | Self::OpusFs320 | Self::Aac => 20,
        }
    }
}

impl std::str::FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.as_str() == name)
            .ok_or_else(|| UnknownCodec(name.to_owned()))
    }
}
