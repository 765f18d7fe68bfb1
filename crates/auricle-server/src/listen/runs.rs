//! One channel's audio on its way to the spool: in runs, so that what the engine hears and what it could not take are kept
//! apart and no word is transcribed twice.
//!
//! Positions are samples of the connection. A run that the engine hears is forgotten as words cover it, however long after its
//! end; a run that a living stream could not take is left to repair as soon as it ends, whatever is covered behind it.
//!
//! While no engine hears, the failed stream's run goes on: an outage is one run, or adjoining ones, if streams were opened in it
//! and failed. They are left to repair together, once a stream has decided something: a stream that never does may hand its
//! audio to repair too, and repair is to hear all of it as one.

use std::collections::VecDeque;
use std::time::Instant;

use auricle_core::{Account, ConversationId, Share, UnixMicros};
use auricle_store::spool::{RunHeader, RunWriter, Spool};

/// Bytes of frames kept in memory while a conversation is being opened. Full: they are counted as not spooled; the engine
/// hears them all the same.
const EARLY_BYTES_MAX: usize = 256 * 1024;

/// For whom runs are written.
#[derive(Clone)]
struct Owner {
    spool: Spool,
    /// Of the next run, apart from its name and its first sample's time.
    header: RunHeader,
    /// Wall-clock time of the connection's first sample.
    zero_at: UnixMicros,
}

/// What an engine's stream made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It hears it.
    Taken,
    /// It hears others, and has no room for this one.
    Refused,
    /// There is none.
    Unheard,
}

struct Run {
    writer: RunWriter,
    /// Position of its first sample.
    zero: u64,
    /// Position behind its last, once it has ended.
    end: Option<u64>,
    /// Position up to which it is forgotten.
    forgotten: u64,
    /// What became of its frames.
    fate: Fate,
    /// Its stream failed, if it had one: what is not forgotten is repair's.
    lost: bool,
    /// Every word that its stream decided is stored: nothing of it is forgotten any more.
    settled: bool,
}

impl Run {
    /// Whether the next frame may be this run's too.
    fn goes_on_with(&self, fate: Fate) -> bool {
        self.end.is_none() && if self.lost { fate == Fate::Unheard } else { fate == self.fate }
    }

    fn is_forgetful(&self) -> bool {
        self.fate == Fate::Taken && !self.settled
    }
}

/// The runs of one channel, oldest first; only the last takes frames.
pub(super) struct Runs {
    owner: Option<Owner>,
    runs: VecDeque<Run>,
    /// Frames received while no conversation was there to spool them for: (frame, samples, its fate).
    early: Vec<(Box<[u8]>, u32, Fate)>,
    early_bytes: Share,
    /// Position of the first of them.
    early_from: u64,
    /// Position behind the last frame.
    heard: u64,
    /// The first position that the stream opened last heard first.
    opened_at: u64,
    /// From where on words are that stream's, once it has decided that and while an outage's runs do not know it.
    yields_from: Option<u64>,
    rate_hz: f64,
}

impl Runs {
    pub(super) fn new(rate_hz: u32, account: &Account) -> Self {
        Self {
            owner: None,
            runs: VecDeque::new(),
            early: Vec::new(),
            early_bytes: account.share(),
            early_from: 0,
            heard: 0,
            opened_at: 0,
            yields_from: None,
            rate_hz: f64::from(rate_hz.max(1)),
        }
    }

    /// Whether there is a conversation to write for.
    pub(super) fn has_owner(&self) -> bool {
        self.owner.is_some()
    }

    /// From now on runs belong to `conversation`; what was heard since the last owner's end is its first.
    pub(super) fn begin(
        &mut self,
        spool: &Spool,
        header: &RunHeader,
        conversation: &ConversationId,
        zero_at: UnixMicros,
    ) {
        let mut header = header.clone();
        header.conversation = conversation.clone();
        self.owner = Some(Owner { spool: spool.clone(), header, zero_at });
        let early = std::mem::take(&mut self.early);
        self.early_bytes.set(0);
        if early.is_empty() {
            return;
        }
        let heard = std::mem::replace(&mut self.heard, self.early_from);
        for (frame, samples, fate) in early {
            self.write(&frame, samples, fate);
        }
        // Of what did not fit there is nothing: the next frame begins a run.
        if self.heard < heard {
            if let Some(last) = self.runs.back_mut() {
                last.end = Some(self.heard);
            }
            self.heard = heard;
        }
        self.mark();
    }

    /// Keeps a frame. True if audio that the engine could not take has just been left to repair.
    pub(super) fn append(&mut self, frame: &[u8], samples: u32, fate: Fate) -> bool {
        if self.owner.is_some() {
            return self.write(frame, samples, fate);
        }
        if self.early.is_empty() {
            self.early_from = self.heard;
        }
        self.heard += u64::from(samples);
        let bytes = self.early_bytes.bytes() + frame.len();
        if bytes <= EARLY_BYTES_MAX {
            self.early_bytes.set(bytes);
            self.early.push((frame.into(), samples, fate));
        } else {
            metrics::counter!("auricle_spool_dropped_bytes_total", "reason" => "no_conversation")
                .increment(frame.len() as u64);
        }
        false
    }

    fn write(&mut self, frame: &[u8], samples: u32, fate: Fate) -> bool {
        let mut left = false;
        if self.runs.back().is_none_or(|run| !run.goes_on_with(fate)) {
            left = self.turn(fate);
        }
        self.heard += u64::from(samples);
        if let Some(run) = self.runs.back_mut() {
            run.writer.append(frame, samples);
        }
        left
    }

    /// Ends the run under way and begins the next. True if the former is left to repair at once.
    fn turn(&mut self, fate: Fate) -> bool {
        let Some(owner) = &self.owner else { return false };
        let mut left = false;
        if let Some(mut last) = self.runs.pop_back() {
            last.end.get_or_insert(self.heard);
            if last.fate == Fate::Refused && !last.lost {
                last.writer.abandon();
                left = true;
            } else {
                self.runs.push_back(last);
            }
        }
        let lost = fate == Fate::Unheard;
        let mut header = owner.header.clone();
        header.run = format!("{}-{}{}", header.run, self.heard, if fate == Fate::Taken { "" } else { "s" });
        header.first_audio_at = owner.zero_at.plus_secs_f64(self.heard as f64 / self.rate_hz);
        let (zero, writer) = (self.heard, owner.spool.begin(header));
        self.runs.push_back(Run { writer, zero, end: None, forgotten: zero, fate, lost, settled: lost });
        left
    }

    /// The stream failed: its run is repair's, and goes on until another stream hears.
    pub(super) fn lose(&mut self) {
        let Some(last) = self.runs.back_mut().filter(|last| last.end.is_none()) else { return };
        last.lost = true;
        // It may have refused a frame because it had failed: what is before that is part of the outage too.
        if last.fate == Fate::Refused {
            last.settled = true;
            let zero = last.zero;
            self.runs.iter_mut().filter(|run| run.end == Some(zero)).for_each(|run| run.lost = true);
        }
    }

    /// A stream was opened for what comes next. It has heard some of what was before, too, and words whose middle is at `from` or
    /// later may be its own. Returns where that is: not before the outage.
    pub(super) fn take_over(&mut self, from: u64) -> u64 {
        (self.opened_at, self.yields_from) = (self.heard, None);
        let mut begun = self.runs.back().map_or(self.early_from, |run| run.zero);
        for run in self.runs.iter().rev() {
            if run.lost && run.end == Some(begun) {
                begun = run.zero;
            }
        }
        from.max(begun).min(self.heard)
    }

    /// That stream has decided where it takes over: words whose middle is at `from` or later are its own. What was left of the
    /// outage when it was opened says so to repair.
    pub(super) fn yields(&mut self, from: u64) {
        self.yields_from = Some(from);
        self.mark();
    }

    fn mark(&mut self) {
        let Some(from) = self.yields_from.filter(|_| self.owner.is_some()) else { return };
        self.yields_from = None;
        let (opened_at, heard, mut end) = (self.opened_at, self.heard, self.opened_at);
        let ends = |run: &Run| run.end.unwrap_or(heard);
        for run in self.runs.iter_mut().rev().skip_while(|run| ends(run) > opened_at) {
            if !run.lost || ends(run) != end || from >= end {
                break;
            }
            run.writer.yields_from(from.saturating_sub(run.zero));
            end = run.zero;
        }
    }

    /// Audio before `until` that the engine heard is not needed any more. True if that shows that an engine hears again, and
    /// an outage's audio has been left to repair.
    pub(super) fn forget(&mut self, until: u64) -> bool {
        let hears_from =
            self.runs.iter().filter(|run| !run.lost && until > run.zero).map(|run| run.zero).max();
        let mut left = Vec::new();
        let (runs, mut kept) = (std::mem::take(&mut self.runs), VecDeque::new());
        for mut run in runs {
            let reach = run.end.map_or(until, |end| until.min(end));
            if run.is_forgetful() && reach > run.forgotten {
                run.forgotten = reach;
                run.writer.covered(reach - run.zero);
            }
            if run.is_forgetful() && run.end.is_some_and(|end| run.forgotten >= end) {
                run.writer.finish();
            } else if run.settled && run.end.is_some_and(|end| hears_from.is_some_and(|from| from >= end)) {
                left.push(run.writer);
            } else {
                kept.push_back(run);
            }
        }
        self.runs = kept;
        leave_together(left)
    }

    /// The next frame begins a run. True if audio that the engine could not take has just been left to repair: no frame may
    /// ever follow.
    pub(super) fn split(&mut self) -> bool {
        let Some(mut last) = self.runs.pop_back() else { return false };
        last.end.get_or_insert(self.heard);
        if last.fate != Fate::Refused || last.lost {
            self.runs.push_back(last);
            return false;
        }
        last.writer.abandon();
        true
    }

    /// The next frame begins a run for whoever [`Runs::begin`] names next.
    pub(super) fn disown(&mut self) -> bool {
        self.owner = None;
        self.release()
    }

    /// The next frame begins a run, and an outage's audio waits for no stream any more. True if anything is left to repair.
    pub(super) fn release(&mut self) -> bool {
        let split = self.split();
        // No stream of this conversation comes any more that could fail too.
        let mut left = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            if run.lost && run.settled {
                left.push(run.writer);
            } else {
                self.runs.push_back(run);
            }
        }
        leave_together(left) || split
    }

    /// Leaves to repair what is not forgotten of the ended runs that begin before `until` and that the engine heard.
    /// `u64::MAX`: of all ended runs. True if anything is left.
    pub(super) fn leave(&mut self, until: u64) -> bool {
        let (mut left, mut kept) = (Vec::new(), VecDeque::new());
        if let (u64::MAX, Some(last)) = (until, self.runs.back_mut()) {
            last.end.get_or_insert(self.heard);
        }
        for run in self.runs.drain(..) {
            match run.end {
                Some(end) if run.is_forgetful() && run.forgotten >= end => run.writer.finish(),
                Some(_) if until == u64::MAX || (run.is_forgetful() && !run.lost && run.zero < until) => {
                    left.push(run.writer);
                }
                // Its conversation is over: nothing adjoins it that is to be waited for.
                Some(_) if run.lost && run.zero < until && self.owner.is_none() => left.push(run.writer),
                _ if run.lost && run.zero < until => kept.push_back(Run { settled: true, ..run }),
                _ => kept.push_back(run),
            }
        }
        self.runs = kept;
        leave_together(left)
    }

    /// Writes out what has waited long enough; says when to call again at the latest.
    pub(super) fn flush(&mut self, now: Instant) -> Option<Instant> {
        self.runs.iter_mut().filter_map(|run| run.writer.poll_flush(now)).min()
    }
}

/// Leaves runs to repair, which is to find all of them at once. True if there are any.
fn leave_together(writers: Vec<RunWriter>) -> bool {
    let left = !writers.is_empty();
    RunWriter::abandon_together(writers);
    left
}

#[cfg(test)]
mod tests {
    use auricle_core::Limits;
    use auricle_store::spool::SpoolOptions;

    use super::*;

    const FRAME: u32 = 320;

    struct Rig {
        _dir: tempfile::TempDir,
        spool: Spool,
        header: RunHeader,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::TempDir::new().unwrap();
            let spool = Spool::open(dir.path(), SpoolOptions::from(&Limits::default())).unwrap();
            let header = RunHeader {
                run: "session".into(),
                user: "u".into(),
                conversation: "".into(),
                process: "p".into(),
                codec: "pcm16".into(),
                sample_rate_hz: 16_000,
                channels: 1,
                language: None,
                source: auricle_core::Source::Omi,
                role: None,
                first_audio_at: UnixMicros(0),
            };
            Self { _dir: dir, spool, header }
        }

        fn begin(&self, runs: &mut Runs) {
            runs.begin(&self.spool, &self.header, &"c".into(), UnixMicros(0));
        }

        /// (wall-clock seconds of its first frame, first bytes of its frames) of each run that is left to repair.
        fn left(&self) -> Vec<(f64, Vec<u8>)> {
            self.spool.settle();
            let mut left: Vec<_> = self
                .spool
                .leftovers()
                .unwrap()
                .iter_mut()
                .map(|run| {
                    let begun = run.header().first_audio_at.0 as f64 / 1e6;
                    let frames: Vec<_> = run.frames().filter(|frame| frame.samples > 0).collect();
                    let at = begun + frames[0].position as f64 / 16_000.0;
                    (at, frames.iter().map(|frame| frame.bytes[0]).collect())
                })
                .collect();
            left.sort_by(|a, b| a.0.total_cmp(&b.0));
            left
        }

        /// From where on each of these runs is another stream's, if it says so.
        fn marks(&self) -> Vec<u64> {
            let left = self.spool.leftovers().unwrap();
            let marks = left.iter().flat_map(|run| run.frames().filter(|frame| frame.samples == 0));
            marks.map(|frame| frame.position).collect()
        }
    }

    fn leave_all(runs: &mut Runs) -> bool {
        runs.split();
        runs.leave(u64::MAX)
    }

    #[test]
    fn what_words_cover_is_forgotten_and_the_rest_is_left() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        rig.begin(&mut runs);
        for name in 0..10 {
            assert!(!runs.append(&[name; 8], FRAME, Fate::Taken));
        }
        runs.forget(6 * u64::from(FRAME));
        assert!(leave_all(&mut runs));
        assert_eq!(rig.left(), [(0.12, vec![6, 7, 8, 9])]);
    }

    #[test]
    fn what_the_engine_could_not_take_is_left_alone_and_what_it_took_around_it_is_not() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        rig.begin(&mut runs);
        let mut left = Vec::new();
        for name in 0..12_u8 {
            if runs.append(
                &[name; 8],
                FRAME,
                if (4..7).contains(&name) { Fate::Refused } else { Fate::Taken },
            ) {
                left.push(name);
            }
        }
        assert_eq!(left, [7], "repair is told as soon as the engine takes audio again");
        // The engine has covered all that it heard, and what it could not take with it.
        runs.forget(12 * u64::from(FRAME));
        assert!(!leave_all(&mut runs));
        assert_eq!(rig.left(), [(0.08, vec![4, 5, 6])]);
    }

    #[test]
    fn what_did_not_fit_in_memory_before_the_conversation_was_known_shifts_nothing() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        for name in 0..6_u8 {
            runs.append(&vec![name; EARLY_BYTES_MAX / 4], FRAME, Fate::Taken);
        }
        rig.begin(&mut runs);
        runs.append(&[6; 8], FRAME, Fate::Taken);
        assert!(leave_all(&mut runs));
        assert_eq!(rig.left(), [(0.0, vec![0, 1, 2, 3]), (0.12, vec![6])]);
    }

    #[test]
    fn frames_from_before_the_conversation_was_known_are_its_first() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        for name in 0..3_u8 {
            runs.append(&[name; 8], FRAME, Fate::Taken);
        }
        rig.begin(&mut runs);
        runs.append(&[3; 8], FRAME, Fate::Taken);
        runs.forget(u64::from(FRAME));
        assert!(leave_all(&mut runs));
        assert_eq!(rig.left(), [(0.02, vec![1, 2, 3])]);
    }

    #[test]
    fn an_ended_run_waits_for_its_words_and_only_what_is_left_goes_to_repair() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        rig.begin(&mut runs);
        let play = |runs: &mut Runs, names: std::ops::Range<u8>| {
            names.for_each(|name| _ = runs.append(&[name; 8], FRAME, Fate::Taken));
        };
        play(&mut runs, 0..4);
        runs.split();
        play(&mut runs, 4..8);
        runs.disown();
        rig.begin(&mut runs);
        play(&mut runs, 8..12);
        runs.forget(3 * u64::from(FRAME));
        assert_eq!(rig.left(), [], "nothing is left before it is said");
        assert!(runs.leave(4 * u64::from(FRAME)));
        assert_eq!(rig.left(), [(0.06, vec![3])]);
        runs.forget(10 * u64::from(FRAME));
        assert!(leave_all(&mut runs));
        assert_eq!(rig.left(), [(0.06, vec![3]), (0.2, vec![10, 11])]);
    }

    fn play(runs: &mut Runs, names: std::ops::Range<u8>, fate: Fate) {
        names.for_each(|name| assert!(!runs.append(&[name; 8], FRAME, fate)));
    }

    #[test]
    fn an_outage_is_left_once_a_stream_has_decided_something_and_streams_that_never_do_adjoin_it() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        rig.begin(&mut runs);
        play(&mut runs, 0..4, Fate::Taken);
        runs.forget(2 * u64::from(FRAME));
        runs.lose();
        play(&mut runs, 4..6, Fate::Unheard);
        assert!(!runs.leave(4 * u64::from(FRAME)));
        // Asked and refused: no run of its own.
        runs.lose();
        play(&mut runs, 6..8, Fate::Unheard);
        assert_eq!(runs.take_over(6 * u64::from(FRAME)), 6 * u64::from(FRAME));
        play(&mut runs, 8..10, Fate::Taken);
        runs.lose();
        assert!(!runs.leave(10 * u64::from(FRAME)));
        assert_eq!(runs.take_over(9 * u64::from(FRAME)), 9 * u64::from(FRAME));
        play(&mut runs, 10..14, Fate::Taken);
        runs.yields(9 * u64::from(FRAME) - 100);
        assert_eq!(rig.left(), [], "nothing has been decided yet");
        assert!(!runs.forget(10 * u64::from(FRAME)));
        assert!(runs.forget(11 * u64::from(FRAME)));
        assert_eq!(rig.left(), [(0.04, vec![2, 3, 4, 5, 6, 7]), (0.16, vec![8, 9])]);
        assert_eq!(
            rig.marks(),
            [u64::from(FRAME) - 100],
            "who failed before it decided anything took nothing over"
        );
        assert!(leave_all(&mut runs));
        assert_eq!(rig.left().len(), 3);
    }

    #[test]
    fn a_stream_may_take_over_before_the_run_in_which_it_was_opened() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        let frames = u64::from(FRAME);
        rig.begin(&mut runs);
        play(&mut runs, 0..4, Fate::Taken);
        runs.forget(4 * frames);
        runs.split();
        play(&mut runs, 4..8, Fate::Taken);
        runs.lose();
        play(&mut runs, 8..10, Fate::Unheard);
        runs.take_over(8 * frames);
        play(&mut runs, 10..11, Fate::Taken);
        runs.lose();
        assert!(!runs.leave(11 * frames));
        assert_eq!(runs.take_over(2 * frames), 4 * frames, "not before the outage");
        play(&mut runs, 11..14, Fate::Taken);
        runs.yields(9 * frames);
        assert!(runs.forget(12 * frames));
        assert_eq!(rig.left().len(), 2);
        assert_eq!(rig.marks(), [5 * frames, 0]);
    }

    #[test]
    fn a_conversation_that_ends_in_an_outage_leaves_its_audio_at_once() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        rig.begin(&mut runs);
        play(&mut runs, 0..4, Fate::Unheard);
        assert!(runs.disown());
        assert_eq!(rig.left(), [(0.0, vec![0, 1, 2, 3])]);
    }

    #[test]
    fn a_frame_that_a_stream_refused_because_it_had_failed_is_part_of_the_outage() {
        let rig = Rig::new();
        let mut runs = Runs::new(16_000, &Account::default());
        rig.begin(&mut runs);
        play(&mut runs, 0..4, Fate::Taken);
        play(&mut runs, 4..5, Fate::Refused);
        runs.lose();
        play(&mut runs, 5..7, Fate::Unheard);
        assert!(!runs.leave(5 * u64::from(FRAME)));
        runs.take_over(6 * u64::from(FRAME));
        play(&mut runs, 7..9, Fate::Taken);
        assert_eq!(rig.left(), [], "nothing has been decided yet");
        assert!(runs.forget(8 * u64::from(FRAME)));
        assert_eq!(rig.left(), [(0.0, vec![0, 1, 2, 3]), (0.08, vec![4, 5, 6])]);
    }
}
