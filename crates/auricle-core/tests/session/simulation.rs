//! A world of chance around one session: an engine that fails, a store that is slow, full or taken over, people who end
//! conversations elsewhere. Whatever happens, every word said to the session is stored once, by it or by repair.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use auricle_core::session::{
    Batch, Close, CommitFailure, EarState, Ended, Event, FinaliseOnClose, Input, OpenChoice, Output,
    SessionConfig, Voice,
};
use auricle_core::{ConversationId, FinaliseReason, Limits, Revision, Segment, SegmentId, Speaker};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::channel::{Channel, FRAME, FRAME_MS, Said, samples};
use crate::rig::{Rig, config, opened};

/// What the store would hold.
#[derive(Default)]
struct Conversation {
    segments: BTreeMap<String, Segment>,
    ended: bool,
    /// Whether the session is still its owner.
    ours: bool,
    finalised_by_session: u32,
}

/// What is under way to the session.
#[derive(Clone, Debug)]
enum Coming {
    Input(Input),
    Open(OpenChoice),
    Append(String, Batch),
    Finalise(String),
    Frame(usize),
    Trouble,
    Leave,
}

struct World {
    rig: Rig,
    chance: StdRng,
    seed: u64,
    /// Milliseconds since the beginning.
    at: u64,
    /// (time, order) of what comes; the largest first, so both are negated.
    queue: BinaryHeap<(i64, i64)>,
    coming: HashMap<i64, Coming>,
    /// Of calls to the store, in thousandths.
    store_fails: u32,
    order: i64,
    channels: Vec<Channel>,
    conversations: HashMap<String, Conversation>,
    current: Option<String>,
    repaired: Vec<String>,
    elsewhere: Vec<String>,
    suggested: Vec<String>,
    finalise_asked: bool,
    left: bool,
    /// The client transcribes; there is no engine.
    custom: bool,
    heard_until: Vec<u64>,
    log: Vec<String>,
    /// Milliseconds: the latest time at which an answer of each kind arrives, so that each kind stays in order.
    store_free_at: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let channels = if chance.random_bool(0.3) { 2 } else { 1 };
        let custom = channels == 1 && chance.random_bool(0.15);
        let voices = match channels {
            1 => vec![Voice::Recognised],
            _ => (0..channels)
                .map(|n| Voice::Fixed { speaker: Speaker::from_voice(n as u32), is_user: n == 0 })
                .collect(),
        };
        let finalise_on_close = [FinaliseOnClose::Never, FinaliseOnClose::Normal, FinaliseOnClose::Always]
            [chance.random_range(0..3)];
        let config = SessionConfig {
            voices,
            engine: !custom,
            custom_stt: custom,
            finalise_on_close,
            timeout: Duration::from_secs(chance.random_range(6..40)),
            onboarding: chance.random_bool(0.1),
            ..config()
        };
        let store_fails = [20, 150, 900][chance.random_range(0..12_usize).saturating_sub(9)];
        let limits = Limits::default();
        let mut world = Self {
            rig: Rig::new(config, limits, chance.random()),
            chance,
            seed,
            at: 0,
            queue: BinaryHeap::new(),
            coming: HashMap::new(),
            store_fails,
            order: 0,
            channels: (0..channels).map(|_| Channel::default()).collect(),
            conversations: HashMap::new(),
            current: None,
            repaired: Vec::new(),
            elsewhere: Vec::new(),
            suggested: Vec::new(),
            finalise_asked: false,
            left: false,
            custom,
            heard_until: vec![0; channels],
            log: Vec::new(),
            store_free_at: 0,
        };
        let length = world.chance.random_range(5..90) * 1_000;
        for index in 0..channels {
            world.write_script(index, length);
            world.after(world.at + 50, Coming::Frame(index));
        }
        world.after(world.at + 700, Coming::Trouble);
        world.after(length, Coming::Leave);
        world
    }

    /// Words with pauses; the pauses are sometimes longer than the conversation's timeout.
    fn write_script(&mut self, channel: usize, length_ms: u64) {
        let mut at = self.chance.random_range(0.0..3.0);
        let mut number = 0;
        while at < length_ms as f64 / 1e3 {
            let end = at + self.chance.random_range(0.12..0.6);
            let text = format!("c{channel}w{number}");
            self.channels[channel].script.push(Said { text, start: at, end });
            number += 1;
            at = end + self.chance.random_range(0.02..0.3);
            if self.chance.random_bool(0.06) {
                at += self.chance.random_range(1.0..50.0);
            }
        }
    }

    /// Queues `coming` for `at` milliseconds.
    fn after(&mut self, at: u64, coming: Coming) {
        let at = at.max(self.at);
        self.order += 1;
        self.queue.push((-(at as i64), -self.order));
        self.coming.insert(-self.order, coming);
    }

    fn soon(&mut self, most_ms: u64, coming: Coming) {
        let at = self.at + self.chance.random_range(0..most_ms);
        self.after(at, coming);
    }

    /// The store answers one session in order.
    fn store_answers(&mut self, coming: Coming) {
        let slow = [60, 9_000, 90_000][self.chance.random_range(0..100_usize).saturating_sub(95) / 2];
        let at = self.store_free_at.max(self.at + self.chance.random_range(0..slow));
        self.store_free_at = at;
        self.after(at, coming);
    }

    fn give(&mut self, input: Input) {
        if self.seed_is_watched() {
            self.log.push(format!("{:>7} <- {input:?}", self.at));
        }
        // As the driver does: a frame is spooled before anything that it leads to.
        let spooled = match input {
            Input::Audio { channel, .. } if !self.custom => Some(channel),
            _ => None,
        };
        self.rig.handle(input);
        if let Some(channel) = spooled {
            self.channels[channel].hear();
        }
        for output in self.rig.outputs() {
            if self.seed_is_watched() {
                self.log.push(format!("{:>7} -> {output:?}", self.at));
            }
            self.perform(output);
        }
    }

    /// `AURICLE_SEED=n` plays one seed and writes what happened to `auricle-seed-n` in the folder for temporary files.
    fn seed_is_watched(&self) -> bool {
        std::env::var("AURICLE_SEED").is_ok_and(|seed| seed == self.seed.to_string())
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Open(choice) => self.store_answers(Coming::Open(choice)),
            Output::Append(batch) => match &self.current {
                Some(current) => self.store_answers(Coming::Append(current.clone(), batch)),
                None => self.after(self.at, Coming::Input(Input::CommitFailed(CommitFailure::Ended))),
            },
            Output::AppendElsewhere { segments, .. } => {
                for segment in segments {
                    self.elsewhere.extend(words_of(&segment));
                }
            }
            Output::Finalise(_) => match &self.current {
                Some(current) => self.store_answers(Coming::Finalise(current.clone())),
                None => self.after(self.at, Coming::Input(Input::Finalised(Ended::Already))),
            },
            Output::FinaliseAnswer(_) => {
                assert!(std::mem::take(&mut self.finalise_asked), "an answer to nobody");
            }
            Output::Disown | Output::Release => self.current = None,
            Output::OpenEngine { channel } => {
                if self.chance.random_bool(0.2) {
                    return self.give_ear(channel, EarState::Failed("refused".into()));
                }
                let heard = self.channels[channel].heard;
                self.channels[channel].stream = Some((heard, heard));
                self.give_ear(channel, EarState::Listening);
            }
            Output::FlushEngine if self.chance.random_bool(0.3) => {}
            Output::FlushEngine => {
                (0..self.channels.len()).for_each(|channel| self.engine_decides(channel, 0, false))
            }
            Output::FinishEngine => {
                for channel in 0..self.channels.len() {
                    self.engine_decides(channel, 0, true);
                    let hung = self.at < self.channels[channel].hangs_until;
                    if !(self.channels[channel].stream.is_some() && hung) {
                        let state = EarState::Finished;
                        self.soon(900, Coming::Input(Input::Ear { channel, state }));
                    }
                    self.channels[channel].stream = None;
                }
            }
            Output::EndRun { channel } => self.channels[channel].end_run(),
            Output::LeaveRun { channel, until_sample } => {
                let words = self.channels[channel].leave(until_sample);
                self.repaired.extend(words);
            }
            Output::Forget { channel, until_sample } => self.channels[channel].forget(until_sample),
            Output::Emit(Event::Segments(segments)) => self.are_stored(&segments),
            Output::Close(close) => {
                assert_ne!(close, Close::TooSlow);
                self.soon(200, Coming::Leave);
            }
            Output::Emit(_)
            | Output::AppendPhoto { .. }
            | Output::Assign(_)
            | Output::FindPerson { .. }
            | Output::NoteReason(_) => {}
        }
    }

    fn give_ear(&mut self, channel: usize, state: EarState) {
        self.after(self.at, Coming::Input(Input::Ear { channel, state }));
    }

    /// What a client is shown is what the store has, or had before the conversation was taken away.
    fn are_stored(&self, segments: &[Segment]) {
        for segment in segments {
            let stored = self.conversations.values().any(|conversation| {
                conversation
                    .segments
                    .get(segment.id.as_str())
                    .is_some_and(|stored| stored.text == segment.text)
            });
            assert!(stored, "seed {}: shown, not stored: {}", self.seed, segment.text);
        }
    }

    fn engine_decides(&mut self, channel: usize, lag_frames: u64, last: bool) {
        if self.at < self.channels[channel].hangs_until {
            return;
        }
        let until = self.channels[channel].heard.saturating_sub(lag_frames * u64::from(FRAME));
        let Some((words, until_sample)) = self.channels[channel].decide(until, last) else { return };
        if !words.is_empty() {
            self.after(self.at, Coming::Input(Input::Words { channel, words }));
        }
        self.after(self.at, Coming::Input(Input::Covered { channel, until_sample }));
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Input(Input::Ear { channel, state: EarState::Failed(reason) }) => {
                // Words that came before stay in their order: the failure is the stream's last event.
                self.channels[channel].stream = None;
                self.give(Input::Ear { channel, state: EarState::Failed(reason) });
            }
            Coming::Input(input) => self.give(input),
            Coming::Open(choice) => self.on_open(choice),
            Coming::Append(conversation, batch) => self.on_append(&conversation, batch),
            Coming::Finalise(conversation) => self.on_finalise(&conversation),
            Coming::Frame(channel) => self.on_frame(channel),
            Coming::Trouble => self.on_trouble(),
            Coming::Leave => {
                if !std::mem::replace(&mut self.left, true) {
                    self.heard_until = self.channels.iter().map(|channel| channel.heard).collect();
                    let code = [Some(1000), Some(1006), None][self.chance.random_range(0..3)];
                    let input = if self.chance.random_bool(0.2) {
                        Input::Drain
                    } else {
                        Input::ClientClosed { code }
                    };
                    self.give(input);
                }
            }
        }
    }

    fn on_open(&mut self, _choice: OpenChoice) {
        if self.store_fails() {
            return self.give(Input::OpenFailed);
        }
        let id = format!("conversation-{}", self.conversations.len());
        self.conversations.insert(id.clone(), Conversation { ours: true, ..Default::default() });
        self.current = Some(id.clone());
        for channel in &mut self.channels {
            channel.end_run();
        }
        let opened = opened(&id, self.rig.now);
        self.give(Input::Opened(opened));
    }

    fn on_append(&mut self, conversation: &str, batch: Batch) {
        let fails = self.store_fails();
        let stored = self.conversations.get_mut(conversation).unwrap();
        let answer = if stored.ended {
            Input::CommitFailed(CommitFailure::Ended)
        } else if !stored.ours {
            Input::CommitFailed(CommitFailure::Superseded)
        } else if fails {
            Input::CommitFailed(CommitFailure::Retry)
        } else {
            for id in &batch.delete {
                assert!(stored.segments.remove(id.as_str()).is_some(), "deletes what is there");
            }
            for segment in batch.upsert {
                stored.segments.insert(segment.id.as_str().to_owned(), segment);
            }
            Input::Committed
        };
        // The answer is on its way for a while, and other news may overtake it.
        self.soon(40, Coming::Input(answer));
    }

    fn store_fails(&mut self) -> bool {
        self.chance.random_range(0..1_000) < self.store_fails
    }

    fn on_finalise(&mut self, id: &str) {
        let fails = self.store_fails();
        let stored = self.conversations.get_mut(id).unwrap();
        let answer = if fails {
            Input::FinaliseFailed
        } else if stored.ended || !stored.ours {
            Input::Finalised(Ended::Already)
        } else {
            stored.ended = true;
            stored.finalised_by_session += 1;
            Input::Finalised(match stored.segments.is_empty() {
                true => Ended::DeletedEmpty,
                false => Ended::Queued { conversation: ConversationId::new(id), revision: Revision(1) },
            })
        };
        self.give(answer);
    }

    fn on_frame(&mut self, channel: usize) {
        if self.left {
            return;
        }
        self.give(Input::Audio { channel, samples: FRAME });
        if self.rig.session.is_over() {
            return;
        }
        if self.channels[channel].heard.is_multiple_of(samples(0.5)) {
            let lag = self.chance.random_range(0..30);
            self.engine_decides(channel, lag, false);
        }
        self.after(self.at + FRAME_MS, Coming::Frame(channel));
    }

    fn on_trouble(&mut self) {
        if self.left {
            return;
        }
        let channel = self.chance.random_range(0..self.channels.len());
        match self.chance.random_range(0..8) {
            0 | 1 if self.channels[channel].stream.is_some() => {
                self.channels[channel].stream = None;
                self.give_ear(channel, EarState::Failed("broke".into()));
            }
            // Another connection resumes the conversation; the notice is late or never comes.
            2 => {
                if let Some(conversation) =
                    self.current.clone().and_then(|id| self.conversations.get_mut(&id))
                {
                    conversation.ours = false;
                    if self.chance.random_bool(0.7) {
                        // A notice about a conversation that is not the session's any more is not passed on.
                        let current = self.current.clone();
                        if current.is_some() {
                            self.give(Input::Superseded);
                        }
                    }
                }
            }
            // The sweeper, or somebody else, ends it.
            3 => {
                if let Some(conversation) =
                    self.current.clone().and_then(|id| self.conversations.get_mut(&id))
                {
                    conversation.ended = true;
                }
            }
            4 if !self.finalise_asked => {
                self.finalise_asked = true;
                self.give(Input::FinaliseNow(FinaliseReason::Requested));
            }
            5 => self.suggest(),
            6 => self.channels[channel].hangs_until = self.at + self.chance.random_range(0..40_000),
            _ => {}
        }
        let pause = self.chance.random_range(500..15_000);
        self.after(self.at + pause, Coming::Trouble);
    }

    /// The client's own transcript. Sessions that are not asked for it must not keep it.
    fn suggest(&mut self) {
        let text = format!("s{}", self.suggested.len());
        let start = self.at as f64 / 1e3;
        let segment = Segment {
            id: SegmentId::new(""),
            text: text.clone(),
            speaker: None,
            is_user: false,
            person_id: None,
            start,
            end: start + 0.5,
            translations: Vec::new(),
            speech_profile_processed: true,
            stt_provider: None,
        };
        self.suggested.push(text);
        let text = auricle_core::session::ClientText::Suggested { provider: None, segments: vec![segment] };
        self.give(Input::Text(text));
    }

    fn run(mut self) {
        let outputs = self.rig.outputs();
        outputs.into_iter().for_each(|output| self.perform(output));
        let mut steps = 0;
        while !self.rig.session.is_over() {
            steps += 1;
            assert!(steps < 200_000, "seed {}: no end", self.seed);
            let timeout = self.rig.session.poll_timeout().map(|(at, _)| {
                self.at + at.saturating_duration_since(self.rig.now.mono).as_millis() as u64 + 1
            });
            let next = self.queue.peek().map(|(at, _)| (-at) as u64);
            match (timeout, next) {
                (Some(timeout), next) if next.is_none_or(|next| timeout < next) => {
                    self.go_to(timeout);
                    self.give(Input::Tick);
                }
                (_, Some(next)) => {
                    self.go_to(next);
                    let (_, key) = self.queue.pop().unwrap();
                    let coming = self.coming.remove(&key).unwrap();
                    self.happen(coming);
                }
                (_, None) => panic!("seed {}: the session waits for nothing", self.seed),
            }
        }
        self.check();
    }

    fn go_to(&mut self, at: u64) {
        let at = at.max(self.at);
        self.rig.pass(Duration::from_millis(at - self.at));
        self.at = at;
    }

    fn check(self) {
        if self.seed_is_watched() {
            std::fs::write(
                std::env::temp_dir().join(format!("auricle-seed-{}", self.seed)),
                self.log.join("\n"),
            )
            .unwrap();
        }
        let seed = self.seed;
        assert!(!self.finalise_asked, "seed {seed}: somebody who asked to finalise has no answer");
        let mut found: HashMap<String, u32> = HashMap::new();
        let stored = self.conversations.values().flat_map(|conversation| conversation.segments.values());
        let texts =
            stored.flat_map(words_of).chain(self.repaired.iter().cloned()).chain(self.elsewhere.clone());
        texts.for_each(|text| *found.entry(text).or_default() += 1);
        if self.custom {
            for word in &self.suggested {
                assert!(found.get(word).copied().unwrap_or(0) <= 1, "seed {seed}: {word} twice");
            }
        } else {
            for (channel, heard) in self.channels.iter().zip(&self.heard_until) {
                for said in channel.script.iter().filter(|said| samples(said.start) < *heard) {
                    let times = found.get(&said.text).copied().unwrap_or(0);
                    assert_eq!(times, 1, "seed {seed}: {} at {:.2} s", said.text, said.start);
                }
            }
            let uninvited: HashSet<_> =
                self.suggested.iter().filter(|word| found.contains_key(*word)).collect();
            assert!(uninvited.is_empty(), "seed {seed}: {uninvited:?}");
        }
        for (id, conversation) in &self.conversations {
            assert!(conversation.finalised_by_session <= 1, "seed {seed}: {id}");
            // The merging rule moves words between the voices of two channels, which hear independently.
            if self.channels.len() > 1 {
                continue;
            }
            let mut segments: Vec<_> = conversation.segments.values().collect();
            segments.sort_by(|a, b| a.start.total_cmp(&b.start));
            let words = segments.into_iter().flat_map(words_of);
            let numbers: Vec<u32> = words.filter_map(|word| word.strip_prefix("c0w")?.parse().ok()).collect();
            assert!(numbers.is_sorted(), "seed {seed}: {id}: {numbers:?}");
        }
    }
}

fn words_of(segment: &Segment) -> Vec<String> {
    segment.text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn p4_p5_whatever_happens_each_word_is_stored_once_and_shown_only_then() {
    let only: Option<u64> = std::env::var("AURICLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..3_000, |seed| seed..seed + 1);
    for seed in seeds {
        World::new(seed).run();
    }
}
