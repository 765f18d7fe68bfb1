//! Who speakers are: as the client said, as the conversation remembers, as they said themselves; and the suggestions that
//! follow.
//!
//! Equal labels are taken for the same voice, also across reconnects, as upstream does: no engine tells more.

use crate::ids::SegmentId;
use crate::introduction::introduced;
use crate::segment::{Assignee, Segment};

use super::{Event, Introduction, Output, PersonFound, Session, SpeakerAssignment, State, Voice};

/// At most this many speakers are remembered; recognisers number far fewer. Full: further ones are not suggested.
const SPEAKERS_MAX: usize = 64;
/// As clients name the owner.
const OWNER: &str = "user";

#[derive(Debug)]
struct Known {
    number: u32,
    /// As clients are told: an id, [`OWNER`], or empty if it is none of the user's people.
    person: String,
    name: String,
}

/// What is known of speakers on this connection. Source: listen-protocol 3.2 (B).
#[derive(Debug, Default)]
pub(super) struct Speakers {
    known: Vec<Known>,
    /// Of whom the store is asked.
    asked: Vec<u32>,
}

impl Speakers {
    fn find(&self, number: u32) -> Option<&Known> {
        self.known.iter().find(|known| known.number == number)
    }

    fn remember(&mut self, known: Known) {
        self.forget(known.number);
        if self.known.len() < SPEAKERS_MAX {
            self.known.push(known);
        }
    }

    fn forget(&mut self, number: u32) {
        self.known.retain(|known| known.number != number);
    }

    fn suggestion(known: &Known, segment: &SegmentId, with_person: bool) -> Event {
        Event::SpeakerSuggestion {
            speaker_number: known.number,
            person: if with_person { known.person.clone() } else { String::new() },
            name: known.name.clone(),
            segment: segment.clone(),
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
        let open = stored.iter().filter(|segment| is_open(segment) && is_new(&segment.id));
        open.filter_map(|segment| {
            let known = self.find(segment.speaker_number())?;
            Some(Self::suggestion(known, &segment.id, with_person))
        })
        .collect()
    }
}

impl From<&SpeakerAssignment> for Known {
    fn from(assignment: &SpeakerAssignment) -> Self {
        let person = assignment.person.as_ref().map_or(OWNER, |person| person.as_str());
        Self { number: assignment.speaker_number, person: person.to_owned(), name: assignment.name.clone() }
    }
}

fn is_open(segment: &Segment) -> bool {
    !segment.is_user && segment.person_id.is_none()
}

impl Session {
    pub(super) fn on_speaker_assigned(&mut self, assignment: SpeakerAssignment) {
        self.each_segment(|segment| assignment.apply(segment));
        self.speakers.remember(Known::from(&assignment));
        if !assignment.segments.is_empty() && matches!(self.state, State::Live(_) | State::Ending(..)) {
            self.outputs.push_back(Output::Assign(assignment));
        }
    }

    pub(super) fn on_reassigned(
        &mut self,
        segments: &[SegmentId],
        to: &Assignee,
        speaker: Option<(u32, String)>,
    ) {
        let (is_user, person) = to.parts();
        self.each_segment(|segment| {
            if segments.contains(&segment.id) {
                segment.is_user = is_user;
                segment.person_id = person.cloned();
            }
        });
        let Some((number, name)) = speaker else { return };
        match to {
            Assignee::Nobody => self.speakers.forget(number),
            Assignee::Owner => self.speakers.remember(Known { number, person: OWNER.to_owned(), name }),
            Assignee::Person(person) => {
                self.speakers.remember(Known { number, person: person.to_string(), name });
            }
        }
    }

    /// What the session holds of its transcript: later batches are made of it.
    pub(super) fn each_segment(&mut self, mut change: impl FnMut(&mut Segment)) {
        self.transcript.each(&mut change);
        if let State::Live(current) | State::Ending(current, _) = &mut self.state
            && let Some(tail) = current.tail.as_mut()
        {
            change(tail);
        }
    }

    /// What a resumed conversation knows. What was said on this connection counts for more.
    pub(super) fn recall_speakers(&mut self, assigned: &[SpeakerAssignment]) {
        // Elsewhere clients and channels say of each segment whether it is the owner's: it says nothing of a label.
        let labels_are_voices = !self.config.custom_stt
            && self.onboarding.is_none()
            && self.config.voices.iter().all(|voice| *voice == Voice::Recognised);
        for assignment in assigned {
            let tells = labels_are_voices || assignment.person.is_some();
            if tells && self.speakers.find(assignment.speaker_number).is_none() {
                self.speakers.remember(Known::from(assignment));
            }
        }
    }

    /// Asks who those are who have just said their names. `stored`: the segments that hold what was heard.
    pub(super) fn listen_for_names<'s>(
        &mut self,
        heard: impl Iterator<Item = &'s Segment>,
        stored: &[Segment],
    ) {
        if self.onboarding.is_some() {
            return;
        }
        for said in heard.filter(|segment| is_open(segment)) {
            let number = said.speaker_number();
            let room = self.speakers.known.len() + self.speakers.asked.len() < SPEAKERS_MAX;
            if !room || self.speakers.asked.contains(&number) || self.speakers.find(number).is_some() {
                continue;
            }
            let Some(name) = introduced(&said.text) else { continue };
            let whole = stored.iter().find(|segment| segment.id == said.id);
            let holds = |segment: &&Segment| segment.speaker == said.speaker && is_open(segment);
            let Some(segment) = whole.or_else(|| stored.iter().rev().find(holds)).filter(|s| is_open(s))
            else {
                continue;
            };
            self.speakers.asked.push(number);
            let introduction = Introduction { speaker_number: number, name, segment: segment.id.clone() };
            let create = self.config.create_speakers;
            self.outputs.push_back(Output::FindPerson { introduction, create });
        }
    }

    pub(super) fn on_person_found(&mut self, introduction: Introduction, found: PersonFound) {
        let Introduction { speaker_number: number, name, segment } = introduction;
        self.speakers.asked.retain(|asked| *asked != number);
        let known = match found {
            PersonFound::Known { person, name } => Known { number, person: person.to_string(), name },
            PersonFound::Nobody => Known { number, person: String::new(), name },
            PersonFound::Failed => return,
        };
        // Meanwhile the client may have said who it is.
        if self.speakers.find(number).is_none() {
            let suggestion = Speakers::suggestion(&known, &segment, self.config.speaker_auto_assign);
            self.speakers.remember(known);
            self.emit(suggestion);
        }
    }
}
