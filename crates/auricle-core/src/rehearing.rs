//! What a transcript becomes when its audio is heard again.
//!
//! Audio may have been kept of a part of a conversation only: what was said elsewhere stays as it was. Whom segments were assigned
//! to is a user's word, and follows the time it was about.

use crate::ids::SegmentId;
use crate::segment::Segment;

/// A stretch that was heard again, in seconds of the conversation: from, until.
pub type Stretch = (f64, f64);

/// A segment that was heard again.
#[derive(Clone, Debug, PartialEq)]
pub struct New {
    /// As the engine heard it.
    pub segment: Segment,
    /// Its speaker is a channel of the session, not a voice that an engine told apart.
    pub is_channel: bool,
}

/// What changes in a transcript.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reheard {
    /// Segments that are replaced.
    pub removed: Vec<SegmentId>,
    /// What was heard in their place, with whom it is assigned to.
    pub added: Vec<Segment>,
}

/// Puts `new`, heard in `stretches`, in the place of what `old` has there: the segments whose middle lies in one of them. A new
/// segment takes over whom those were assigned to that it mostly falls upon; one of a channel only from that channel, since people
/// talk at the same time.
pub fn replace(old: &[Segment], stretches: &[Stretch], new: Vec<New>) -> Reheard {
    let gone: Vec<&Segment> = old.iter().filter(|segment| is_within(middle(segment), stretches)).collect();
    let removed = gone.iter().map(|segment| segment.id.clone()).collect();
    let added = new
        .into_iter()
        .map(|New { mut segment, is_channel }| {
            let of_channel = |old: &&&Segment| !is_channel || old.speaker == segment.speaker;
            let gone: Vec<&Segment> = gone.iter().filter(of_channel).copied().collect();
            if !segment.is_user
                && let Some(like) = assigned_like(&segment, &gone)
            {
                segment.is_user = like.is_user;
                segment.person_id.clone_from(&like.person_id);
            }
            segment
        })
        .collect();
    Reheard { removed, added }
}

/// Whether a moment lies in one of the stretches.
pub fn is_within(at: f64, stretches: &[Stretch]) -> bool {
    stretches.iter().any(|(from, until)| (*from..*until).contains(&at))
}

fn middle(segment: &Segment) -> f64 {
    f64::midpoint(segment.start, segment.end)
}

fn shared_secs(one: &Segment, other: &Segment) -> f64 {
    (one.end.min(other.end) - one.start.max(other.start)).max(0.0)
}

fn is_assigned(segment: &Segment) -> bool {
    segment.is_user || segment.person_id.is_some()
}

/// One of the assigned segments of whoever said at least half of what `segment` covers.
fn assigned_like<'a>(segment: &Segment, gone: &[&'a Segment]) -> Option<&'a Segment> {
    let same =
        |one: &Segment, other: &Segment| (one.is_user, &one.person_id) == (other.is_user, &other.person_id);
    let most = gone
        .iter()
        .copied()
        .filter(|old| is_assigned(old))
        .map(|old| {
            let of = gone.iter().filter(|other| same(old, other));
            (of.map(|other| shared_secs(segment, other)).sum::<f64>(), old)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    let (secs, old) = most;
    (secs > 0.0 && secs * 2.0 >= segment.end - segment.start).then_some(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Speaker;

    fn segment(id: &str, start: f64, end: f64) -> Segment {
        Segment {
            id: id.into(),
            text: id.to_owned(),
            speaker: Some(Speaker::from_voice(0)),
            is_user: false,
            person_id: None,
            start,
            end,
            translations: Vec::new(),
            speech_profile_processed: true,
            stt_provider: None,
        }
    }

    fn new(segment: Segment) -> New {
        New { segment, is_channel: false }
    }

    #[test]
    fn only_what_was_heard_again_is_replaced() {
        let old = [segment("a", 0.0, 2.0), segment("b", 9.0, 12.0), segment("c", 20.0, 22.0)];
        let made = replace(&old, &[(0.0, 5.0), (19.0, 30.0)], vec![new(segment("n", 0.5, 1.5))]);
        assert_eq!(made.removed, ["a".into(), "c".into()]);
        assert_eq!(made.added.len(), 1);
        // One that reaches into a stretch belongs to where its middle is.
        assert!(replace(&old, &[(11.0, 12.0)], Vec::new()).removed.is_empty());
        assert_eq!(replace(&old, &[(10.0, 11.0)], Vec::new()).removed, ["b".into()]);
    }

    #[test]
    fn whom_a_segment_was_assigned_to_follows_its_time() {
        let mut old = [segment("a", 0.0, 2.0), segment("b", 2.0, 4.0), segment("c", 4.0, 10.0)];
        old[0].person_id = Some("bea".into());
        old[1].person_id = Some("bea".into());
        old[2].is_user = true;
        let new = vec![
            new(segment("n1", 0.0, 4.2)),
            new(segment("n2", 4.0, 9.0)),
            new(segment("n3", 9.5, 12.0)),
            new(segment("n4", 30.0, 31.0)),
        ];
        let made = replace(&old, &[(0.0, 40.0)], new);
        let whose: Vec<_> = made
            .added
            .iter()
            .map(|each| (each.is_user, each.person_id.as_ref().map(|id| id.as_str())))
            .collect();
        assert_eq!(whose, [(false, Some("bea")), (true, None), (false, None), (false, None)]);
    }

    #[test]
    fn a_microphones_own_word_is_not_overruled() {
        let mut old = [segment("a", 0.0, 2.0)];
        old[0].person_id = Some("bea".into());
        let mut mine = segment("n", 0.0, 2.0);
        mine.is_user = true;
        let made = replace(&old, &[(0.0, 3.0)], vec![new(mine)]);
        assert_eq!((made.added[0].is_user, &made.added[0].person_id), (true, &None));
    }

    #[test]
    fn what_is_said_at_the_same_time_on_another_channel_is_no_assignment() {
        let voice = |id: &str, voice: u32| {
            let mut segment = segment(id, 0.0, 2.0);
            segment.speaker = Some(Speaker::from_voice(voice));
            segment
        };
        let (mut mine, mut hers) = (voice("mine", 0), voice("hers", 1));
        mine.is_user = true;
        let again = || vec![New { segment: voice("n", 1), is_channel: true }];
        let made = replace(&[mine.clone(), hers.clone()], &[(0.0, 3.0)], again());
        assert_eq!((made.added[0].is_user, &made.added[0].person_id), (false, &None));
        hers.person_id = Some("bea".into());
        let made = replace(&[mine, hers], &[(0.0, 3.0)], again());
        assert_eq!((made.added[0].is_user, &made.added[0].person_id), (false, &Some("bea".into())));
    }
}
