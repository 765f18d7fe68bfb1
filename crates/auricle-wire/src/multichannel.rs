//! Channel framing: `[channel: u8][payload]`. Source: listen-protocol 2.4.

/// Who is on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelRole {
    /// Upstream's name.
    pub name: &'static str,
    /// Whether it is the device's owner.
    pub is_user: bool,
    /// The label of what is said on it.
    pub speaker: &'static str,
}

/// The two channels of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelMap {
    roles: [ChannelRole; 2],
}

impl ChannelMap {
    /// `desktop` hears the system's sound on its second channel, everything else a remote caller.
    pub fn for_source(source: &str) -> Self {
        let other = if source == "desktop" { "system_audio" } else { "remote" };
        Self {
            roles: [
                ChannelRole { name: "mic", is_user: true, speaker: "SPEAKER_00" },
                ChannelRole { name: other, is_user: false, speaker: "SPEAKER_01" },
            ],
        }
    }

    /// The channels in the order of their bytes, 1 and 2.
    pub fn roles(&self) -> &[ChannelRole; 2] {
        &self.roles
    }

    /// Splits a message into the channel's index (0 or 1) and its audio. `None`: drop the frame.
    pub fn split<'a>(&self, message: &'a [u8]) -> Option<(usize, &'a [u8])> {
        match message {
            [1, audio @ ..] => Some((0, audio)),
            [2, audio @ ..] => Some((1, audio)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_split_and_unknown_ones_dropped() {
        let map = ChannelMap::for_source("desktop");
        assert_eq!(map.split(&[1, 7, 8]), Some((0, &[7, 8][..])));
        assert_eq!(map.split(&[2]), Some((1, &[][..])));
        assert_eq!(map.split(&[0, 7]), None);
        assert_eq!(map.split(&[]), None);
        assert_eq!(map.roles()[1].name, "system_audio");
        assert_eq!(ChannelMap::for_source("phone_call").roles()[1].name, "remote");
    }
}
