//! Who the client said a speaker is, and the suggestions that follow from it.

use crate::ids::SegmentId;
use crate::segment::Segment;

use super::{Event, SpeakerAssignment};

/// At most this many speakers are remembered; recognisers number far fewer. Full: further ones are not suggested.
const SPEAKERS_MAX: usize = 64;

/// What the client said of speakers on this connection. Source: listen-protocol 3.2 (B).
#[derive(Debug, Default)]
pub(super) struct Speakers {
    known: Vec<SpeakerAssignment>,
}

impl Speakers {
    pub(super) fn remember(&mut self, assignment: &SpeakerAssignment) {
        let known = SpeakerAssignment { segments: Vec::new(), ..assignment.clone() };
        match self.known.iter().position(|known| known.speaker_number == assignment.speaker_number) {
            Some(at) => self.known[at] = known,
            None if self.known.len() < SPEAKERS_MAX => self.known.push(known),
            None => {}
        }
    }

    /// A suggestion for each stored segment that is new, not assigned, and of a known speaker.
    pub(super) fn suggest(
        &self,
        stored: &[Segment],
        is_new: impl Fn(&SegmentId) -> bool,
        with_person: bool,
    ) -> Vec<Event> {
        if self.known.is_empty() {
            return Vec::new();
        }
        let open = stored.iter().filter(|s| !s.is_user && s.person_id.is_none() && is_new(&s.id));
        open.filter_map(|segment| {
            let number = segment.speaker_number();
            let known = self.known.iter().find(|known| known.speaker_number == number)?;
            let person = known.person.as_ref().map_or("user", |person| person.as_str());
            Some(Event::SpeakerSuggestion {
                speaker_number: number,
                person: if with_person { person.to_owned() } else { String::new() },
                name: known.name.clone(),
                segment: segment.id.clone(),
            })
        })
        .collect()
    }
}
