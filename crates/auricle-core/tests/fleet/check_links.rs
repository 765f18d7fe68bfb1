//! What links promise: audio and words under their own conversation (M1, M2, M6), announced on each connection (L20), no
//! request forgotten while there is one (L17), bounded buffers whose drops are counted (P6), one answer for each request, and
//! that all come back once they can (L28).

use std::collections::{HashMap, HashSet};

use super::check::{Verdict, ensure};
use super::log::{Happening, Micros, SECOND};
use super::world::LINK_AUDIO_MAX;

/// By then a healthy connection has carried all requests that wait.
const REQUESTS_WITHIN: Micros = 5 * SECOND;
/// Stretches this close count as one, so a sample's time may be off by as much.
const GAP_MICROS: i64 = 1_100;

#[derive(Default)]
struct Life {
    /// Bytes of audio: given, written, dropped.
    audio: [u64; 3],
    words_given: HashSet<u64>,
    words_written: HashSet<u64>,
    words_dropped: u64,
    samples: [u64; 3],
    requests: HashSet<u32>,
    conn: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Links {
    lives: HashMap<u32, Life>,
    captured: HashMap<(u32, i16), (u32, i64)>,
    segments: HashMap<u64, HashSet<u32>>,
    of_conn: HashMap<u32, u32>,
    /// Connections that are not to be relied on.
    sick: HashSet<u32>,
    /// (when, connection, conversation) of requests that a healthy connection has to carry.
    due: Vec<(Micros, u32, u32)>,
    answered: HashSet<u32>,
}

impl Links {
    pub(crate) fn see(&mut self, at: Micros, happening: &Happening) -> Verdict {
        let late = self.due.iter().find(|(by, ..)| *by < at);
        ensure(late.is_none(), || format!("L17: a request waits on a healthy connection: {late:?}"))?;
        match happening {
            Happening::ConnUp { conn, life } => self.connected(at, *conn, *life),
            Happening::ConnSick { conn, .. } | Happening::ConnDown { conn } => {
                self.sick.insert(*conn);
                self.due.retain(|(_, of, _)| of != conn);
            }
            Happening::Captured { life, frame, conversation, at, bytes } => {
                self.captured.insert((*life, *frame), (*conversation, *at));
                self.life(*life).audio[0] += bytes;
            }
            Happening::Stored { conversation, segment, .. } => {
                self.segments.entry(*segment).or_default().insert(*conversation);
            }
            Happening::WordsGiven { life, segments, .. } => self.life(*life).words_given.extend(segments),
            Happening::SampleGiven { life, .. } => self.life(*life).samples[0] += 1,
            Happening::RequestGiven { life, conversation } => {
                self.life(*life).requests.insert(*conversation);
                if let Some(conn) = self.life(*life).conn.filter(|conn| !self.sick.contains(conn)) {
                    self.due.push((at + REQUESTS_WITHIN, conn, *conversation));
                }
            }
            Happening::Written { life, what, bytes, segments, .. } => match *what {
                "audio" => self.life(*life).audio[1] += bytes,
                "transcript" => self.life(*life).words_written.extend(segments),
                "speaker_sample" => self.life(*life).samples[1] += 1,
                _ => {}
            },
            Happening::Buffered { life, bytes } => {
                ensure(*bytes <= LINK_AUDIO_MAX as u64, || {
                    format!("P6: {bytes} bytes of audio wait for the link of life {life}")
                })?;
            }
            Happening::Dropped { life, what, amount } => self.dropped(*life, what, *amount)?,
            Happening::LinkLeaves { life } => {
                let conn = self.life(*life).conn;
                self.due.retain(|(_, of, _)| Some(*of) != conn);
            }
            Happening::LinkOver { life } => self.over(*life)?,
            Happening::GotAudio { life, announced, frame, at, .. } => {
                self.got_audio(*life, *announced, *frame, *at)?;
            }
            Happening::GotWords { conversation, segments, .. } => {
                for segment in segments {
                    let known = self.segments.get(segment).is_some_and(|of| of.contains(conversation));
                    ensure(known, || {
                        format!("M1: words came as of {conversation}, which does not hold them")
                    })?;
                }
            }
            Happening::GotRequest { conn, conversation, .. } => {
                self.due.retain(|(_, on, of)| (on, of) != (conn, conversation));
            }
            Happening::Answered { request, .. } => {
                ensure(self.answered.insert(*request), || format!("request {request} was answered twice"))?;
            }
            Happening::AnswerHeard { life, conversation } => {
                self.life(*life).requests.remove(conversation);
                let conn = self.life(*life).conn;
                self.due.retain(|(_, on, of)| Some(*on) != conn || of != conversation);
            }
            Happening::FinalRequest { request, .. } => {
                return Err(format!("request {request} was never answered on a connection that stands"));
            }
            Happening::LinkRecovered { life, connected } => {
                ensure(*connected, || format!("L28: the link of life {life} never came back"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn life(&mut self, number: u32) -> &mut Life {
        self.lives.entry(number).or_default()
    }

    fn connected(&mut self, at: Micros, conn: u32, life: u32) {
        self.of_conn.insert(conn, life);
        let of = self.life(life);
        of.conn = Some(conn);
        let waiting: Vec<_> =
            of.requests.iter().map(|request| (at + REQUESTS_WITHIN, conn, *request)).collect();
        self.due.extend(waiting);
    }

    fn dropped(&mut self, life: u32, what: &str, amount: u64) -> Verdict {
        let of = self.life(life);
        match what {
            "audio" => of.audio[2] += amount,
            "transcript" => of.words_dropped += amount,
            "speaker_sample" => of.samples[2] += amount,
            // It does not say which: none of them is waited for any more.
            "request" => {
                of.requests.clear();
                let conn = of.conn;
                self.due.retain(|(_, on, _)| Some(*on) != conn);
            }
            other => return Err(format!("P6: life {life} dropped {other}, which nobody counts")),
        }
        Ok(())
    }

    /// Nothing went without a word.
    fn over(&mut self, number: u32) -> Verdict {
        let life = self.life(number);
        let [given, written, dropped] = life.audio;
        ensure(given == written + dropped, || {
            format!("P6: life {number}: {given} bytes of audio, {written} written and {dropped} dropped")
        })?;
        let unwritten = life.words_given.difference(&life.words_written).count() as u64;
        let counted = life.words_dropped;
        ensure(unwritten <= counted, || {
            format!("P6: life {number}: {unwritten} segments not written, {counted} dropped")
        })?;
        let [given, written, dropped] = life.samples;
        ensure(given == written + dropped, || {
            format!("P6: life {number}: {given} samples, {written} written and {dropped} dropped")
        })
    }

    fn got_audio(&self, life: u32, announced: Option<u32>, frame: i16, at: i64) -> Verdict {
        let Some(announced) = announced else {
            return Err(format!("L20: audio of life {life} came before its conversation was announced"));
        };
        let Some((conversation, captured)) = self.captured.get(&(life, frame)) else {
            return Err(format!("audio came that life {life} never captured"));
        };
        ensure(announced == *conversation, || {
            format!("M2/M6: audio of {conversation} came as of {announced}, life {life}, frame {frame}")
        })?;
        let since = at - captured;
        let within = (-GAP_MICROS..1_000_000 + GAP_MICROS).contains(&since);
        ensure(within, || {
            format!("M4: audio of life {life}, frame {frame} is dated {since} us after its capture")
        })
    }
}
