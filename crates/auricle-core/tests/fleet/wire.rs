//! The driver of a link and the faulty network behind it: breaker, connections, frames that arrive late, twice or never.

use auricle_core::breaker::{BreakerPermit, Outcome, Rejected};
use auricle_core::link::{Frame, Input, Output};
use auricle_core::session::Now;
use auricle_core::{PersonId, Segment};
use rand::RngExt;

use super::Mutation;
use super::client::RATE_HZ;
use super::listen::{Life, id_of, number_of};
use super::log::{Happening, Micros, SECOND, hash_of};
use super::plan::{CHAOS, LISTENS, MACHINES, Pushers, Trouble};
use super::world::World;

/// What a link's driver holds.
#[derive(Default)]
pub(crate) struct Wire {
    tries: u32,
    trying: Option<(u32, BreakerPermit)>,
    conn: Option<u32>,
    /// The permit of a connection that has not lasted yet.
    probation: Option<BreakerPermit>,
    timer_at: Option<Micros>,
    most_buffered: u64,
    conns: u32,
    pub(crate) over: bool,
}

/// One connection between a link and a pusher.
pub(crate) struct Conn {
    life: u32,
    listen: u32,
    pub(crate) pusher: usize,
    pub(crate) process: u32,
    /// For the pusher.
    pub(crate) open: bool,
    /// What the pusher takes audio for.
    pub(crate) announced: Option<u32>,
    /// Nothing arrives any more, either way, and nobody says so.
    dead: bool,
    /// Writing hangs.
    hangs: bool,
    sick: bool,
    /// When the last frame arrives: the next one does later.
    arrives_at: Micros,
}

impl World {
    pub(crate) fn link_input(&mut self, number: u32, input: Input) {
        let Some(machine) = self.lives.get(&number).map(|life| life.machine) else { return };
        let Now { mono, .. } = self.now(machine);
        if let Some(life) = self.lives.get_mut(&number) {
            life.link.handle(mono, input);
            self.after_link(number);
        }
    }

    pub(crate) fn after_link(&mut self, number: u32) {
        while let Some(output) = self.lives.get_mut(&number).and_then(|life| life.link.poll_output()) {
            match output {
                Output::Connect => self.connect(number),
                Output::Send(frame) => self.send(number, frame),
                Output::Ping => self.ping(number),
                Output::Disconnect => self.disconnect(number),
                Output::Dropped { what, amount } => {
                    self.log.say(Happening::Dropped { life: number, what, amount })
                }
            }
        }
        let Some(life) = self.lives.get_mut(&number) else { return };
        let bytes = life.link.buffered_bytes() as u64;
        if bytes > life.wire.most_buffered {
            life.wire.most_buffered = bytes;
            self.log.say(Happening::Buffered { life: number, bytes });
        }
        if life.link.is_over() {
            if !std::mem::replace(&mut life.wire.over, true) {
                self.log.say(Happening::LinkOver { life: number });
            }
            return self.bury(number);
        }
        self.arm_link(number);
    }

    fn arm_link(&mut self, number: u32) {
        let Some(life) = self.lives.get(&number) else { return };
        let (process, due) = (life.process, life.link.poll_timeout());
        let due = self.due(number, "link", due);
        let Some(life) = self.lives.get_mut(&number).filter(|life| life.wire.timer_at != due) else { return };
        life.wire.timer_at = due;
        let Some(due) = due else { return };
        let wait = due - self.log.at;
        self.after(wait, Some(process), move |world| {
            let armed = |life: &&mut Life| life.wire.timer_at == Some(due);
            if let Some(life) = world.lives.get_mut(&number).filter(armed) {
                life.wire.timer_at = None;
                world.link_input(number, Input::Tick);
            }
        });
    }

    fn connect(&mut self, number: u32) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        let (machine, process) = (life.machine, life.process);
        let pusher = life.net.random_range(LISTENS..MACHINES);
        let quick = life.net.random_range(2_000..80_000);
        life.wire.tries += 1;
        let number_of_try = life.wire.tries;
        let now = self.now(machine).mono;
        let permit = match self.machines[machine].breaker.ask(now) {
            Ok(permit) => permit,
            Err(Rejected { retry_at }) => {
                self.log.say(Happening::Rejected { life: number });
                let input = Input::Rejected { retry_at };
                return self.after(0, Some(process), move |world| world.link_input(number, input));
            }
        };
        let at = self.log.at;
        let hangs = self.plan.is(Trouble::BlackHole(pusher), at)
            || self.pushers == Pushers::Dead
            || self.machines[pusher].draining;
        let slow = if self.plan.is(Trouble::Slow(pusher), at) { 40 } else { 1 };
        let wait = if hangs { self.limits.link_connect_max.as_micros() as Micros } else { quick * slow };
        let refused = hangs || self.plan.is(Trouble::Refuse(pusher), at) || !self.machines[pusher].up;
        if let Some(life) = self.lives.get_mut(&number) {
            life.wire.trying = Some((number_of_try, permit));
        }
        self.after(wait, Some(process), move |world| world.tried(number, number_of_try, pusher, refused));
    }

    fn tried(&mut self, number: u32, number_of_try: u32, pusher: usize, refused: bool) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        let Some((_, permit)) = life.wire.trying.take_if(|(trying, _)| *trying == number_of_try) else {
            return;
        };
        let failed = refused || !self.machines[pusher].up;
        if failed {
            self.settle(number, permit, Outcome::Failed);
            return self.link_input(number, Input::ConnectFailed);
        }
        let conn = self.conns.len() as u32;
        let Some(life) = self.lives.get_mut(&number) else { return };
        life.wire.conn = Some(conn);
        life.wire.probation = Some(permit);
        life.wire.conns += 1;
        let (listen, process) = (life.process, self.machines[pusher].process);
        let made = Conn {
            life: number,
            listen,
            pusher,
            process,
            open: true,
            announced: None,
            dead: false,
            hangs: false,
            sick: false,
            arrives_at: 0,
        };
        self.conns.insert(conn, made);
        self.log.say(Happening::ConnUp { conn, life: number });
        if self.is_frozen(pusher) {
            self.sicken(pusher, "frozen");
        }
        if self.plan.is(Trouble::Flap(pusher), self.log.at) {
            let wait = self.chaos.random_range(SECOND / 2..6 * SECOND);
            self.after(wait, None, move |world| world.reset(conn));
        }
        let lasts = self.limits.link_stable_after.as_micros() as Micros;
        self.after(lasts, Some(listen), move |world| {
            if world.lives.get(&number).is_some_and(|life| life.wire.conn == Some(conn)) {
                world.end_probation(number, Outcome::Ok);
            }
        });
        self.link_input(number, Input::Connected);
    }

    fn end_probation(&mut self, number: u32, outcome: Outcome) {
        if let Some(permit) = self.lives.get_mut(&number).and_then(|life| life.wire.probation.take()) {
            self.settle(number, permit, outcome);
        }
    }

    fn settle(&mut self, number: u32, permit: BreakerPermit, outcome: Outcome) {
        let Some(life) = self.lives.get(&number) else { return };
        let (machine, process) = (life.machine, life.process);
        let now = self.now(machine).mono;
        if self.machines[machine].breaker.settle(permit, outcome, now) {
            self.log.say(Happening::BreakerOpened { process });
        }
    }

    fn disconnect(&mut self, number: u32) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        let (conn, trying) = (life.wire.conn.take(), life.wire.trying.take());
        // A link that leaves says nothing of its pusher.
        let outcome = if life.link.is_over() { Outcome::Unknown } else { Outcome::Failed };
        if self.mutation != Some(Mutation::DropsPermits) {
            self.end_probation(number, outcome);
        }
        if let Some((_, permit)) = trying
            && self.mutation != Some(Mutation::DropsPermits)
        {
            // L28: what is given up says so.
            self.settle(number, permit, Outcome::Unknown);
        }
        let Some(conn) = conn else { return };
        self.log.say(Happening::ConnDown { conn });
        let dead = self.conns.get(&conn).is_none_or(|conn| conn.dead);
        // A pusher behind a dead connection notices much later, and reads what was under way until then.
        let wait = if dead { 20 * SECOND } else { 30_000 };
        self.after(wait, None, move |world| world.hang_up(conn));
    }

    fn hang_up(&mut self, conn: u32) {
        if let Some(found) = self.conns.get_mut(&conn) {
            found.open = false;
            let pusher = found.pusher;
            self.machines[pusher].waiting.retain(|(of, _, _)| *of != conn);
        }
    }

    /// Both sides lose the connection; the pusher later, with what was under way.
    fn reset(&mut self, conn: u32) {
        let wait = self.chaos.random_range(1_000..3 * SECOND);
        let Some(found) = self.conns.get_mut(&conn).filter(|found| !found.dead) else { return };
        found.hangs = true;
        let (life, listen) = (found.life, found.listen);
        self.after(2_000, Some(listen), move |world| {
            if let Some(of) = world.lives.get_mut(&life)
                && of.wire.conn.take_if(|present| *present == conn).is_some()
            {
                world.log.say(Happening::ConnDown { conn });
                world.end_probation(life, Outcome::Failed);
                world.link_input(life, Input::Closed);
            }
        });
        self.after(wait, None, move |world| world.hang_up(conn));
    }

    /// A process is gone: half of its peers hear of it, the others do not.
    pub(crate) fn lose_conns(&mut self, machine: usize) {
        let touched = |conn: &Conn| conn.pusher == machine || conn.listen as usize / 100 == machine;
        let conns: Vec<_> =
            self.conns.iter().filter(|(_, conn)| conn.open && touched(conn)).map(|(n, _)| *n).collect();
        for conn in conns {
            let told = self.chaos.random_bool(0.5);
            if machine >= LISTENS && told {
                self.reset(conn);
            }
            let wait = self.chaos.random_range(1..30) * SECOND;
            let Some(found) = self.conns.get_mut(&conn) else { continue };
            found.dead = true;
            if machine >= LISTENS {
                found.open = false;
            } else {
                self.log.say(Happening::ConnDown { conn });
                self.after(wait, None, move |world| world.hang_up(conn));
            }
        }
        self.sicken(machine, "its process died");
    }

    /// Notes that a machine's connections are not to be relied on.
    pub(crate) fn sicken(&mut self, machine: usize, how: &'static str) {
        for (number, conn) in &mut self.conns {
            if (conn.pusher == machine || conn.listen as usize / 100 == machine) && !conn.sick {
                conn.sick = true;
                self.log.say(Happening::ConnSick { conn: *number, how });
            }
        }
    }

    /// What the network does to a connection at the moment; it stays done.
    fn weather(&mut self, conn: u32) -> Micros {
        let at = self.log.at;
        let Some(found) = self.conns.get_mut(&conn) else { return 0 };
        let pusher = found.pusher;
        let how = if self.plan.is(Trouble::BlackHole(pusher), at) {
            found.hangs = true;
            found.dead = true;
            Some("hangs")
        } else if self.plan.is(Trouble::HalfOpen(pusher), at) {
            found.dead = true;
            Some("half-open")
        } else if self.plan.is(Trouble::Slow(pusher), at) {
            Some("slow")
        } else {
            None
        };
        if let Some(how) = how.filter(|_| !found.sick) {
            found.sick = true;
            self.log.say(Happening::ConnSick { conn, how });
        }
        let slow = if how == Some("slow") { 100 } else { 1 };
        self.chaos.random_range(1_000..8_000) * slow
    }

    fn ping(&mut self, number: u32) {
        let Some(conn) = self.lives.get(&number).and_then(|life| life.wire.conn) else { return };
        let latency = self.weather(conn);
        let Some(found) = self.conns.get(&conn).filter(|found| !found.dead) else { return };
        let (pusher, listen) = (found.process, found.listen);
        self.after(latency, Some(pusher), move |world| {
            world.after(latency, Some(listen), move |world| world.hears(conn, None));
        });
    }

    fn hears(&mut self, conn: u32, answer: Option<u32>) {
        let Some(number) = self.conns.get(&conn).filter(|found| !found.dead).map(|found| found.life) else {
            return;
        };
        if self.lives.get(&number).is_none_or(|life| life.wire.conn != Some(conn)) {
            return;
        }
        self.link_input(number, Input::Heard);
        if let Some(conversation) = answer {
            self.log.say(Happening::AnswerHeard { life: number, conversation });
            self.end_probation(number, Outcome::Ok);
            self.link_input(number, Input::Answered(id_of(conversation)));
        }
    }

    fn send(&mut self, number: u32, frame: Frame) {
        let Some(conn) = self.lives.get(&number).and_then(|life| life.wire.conn) else { return };
        let latency = self.weather(conn);
        let breaks = self.log.at < CHAOS && self.chaos.random_bool(0.004);
        let arrives_all_the_same = self.chaos.random_bool(0.5);
        let Some(found) = self.conns.get_mut(&conn) else { return };
        let (listen, process) = (found.listen, found.process);
        found.arrives_at = found.arrives_at.max(self.log.at + latency) + 1;
        let arrives_in = found.arrives_at - self.log.at;
        let (dead, hangs) = (found.dead, found.hangs);
        let frame = self.mutate(number, frame);
        if breaks {
            self.reset(conn);
        }
        if let Some(frame) = frame.clone()
            && !dead
            && (!breaks || arrives_all_the_same)
        {
            self.after(arrives_in, Some(process), move |world| world.pusher_reads(conn, frame));
        }
        if hangs || breaks {
            return;
        }
        let written = written(number, conn, frame.as_ref());
        self.after(latency / 2, Some(listen), move |world| {
            if world.lives.get(&number).is_some_and(|life| life.wire.conn == Some(conn)) {
                world.log.say(written);
                world.link_input(number, Input::Sent);
            }
        });
    }

    /// What a broken link would have sent instead, to see that it is noticed.
    fn mutate(&self, number: u32, frame: Frame) -> Option<Frame> {
        let life = self.lives.get(&number)?;
        match (self.mutation, frame) {
            (Some(Mutation::AnnouncesOnce), Frame::Conversation(_)) if life.wire.conns > 1 => None,
            (Some(Mutation::ForgetsRequests), Frame::Process(_)) if life.wire.conns > 1 => None,
            (Some(Mutation::LabelsAtFlush), Frame::Transcript { segments, conversation }) => {
                let conversation = life.owns.map_or(conversation, |own| id_of(own.conversation));
                Some(Frame::Transcript { segments, conversation })
            }
            (Some(Mutation::LabelsAtFlush), Frame::Conversation(id)) => {
                Some(Frame::Conversation(life.owns.map_or(id, |own| id_of(own.conversation))))
            }
            (_, frame) => Some(frame),
        }
    }

    /// Audio as the driver has it: labelled when it is captured.
    pub(crate) fn forward_audio(&mut self, number: u32) {
        let Some(life) = self.lives.get(&number) else { return };
        let (Some(own), frame) = (life.owns, life.ear.heard as i16) else { return };
        if life.leaving {
            return;
        }
        let at = self.now(life.machine).wall;
        let pcm = vec![frame; RATE_HZ as usize];
        let (conversation, bytes) = (own.conversation, pcm.len() as u64 * 2);
        self.log.say(Happening::Captured { life: number, frame, conversation, at: at.0, bytes });
        self.link_input(number, Input::Audio { conversation: id_of(conversation), at, pcm });
    }

    /// Words that were stored, and now and then a name for one of them.
    pub(crate) fn forward_words(&mut self, number: u32, segments: Vec<Segment>) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        let Some(own) = life.owns.filter(|_| !life.leaving) else { return };
        let conversation = own.conversation;
        let named =
            life.net.random_bool(0.2).then(|| segments.first().map(|segment| segment.id.clone())).flatten();
        let ids = segments.iter().map(segment_hash).collect();
        self.log.say(Happening::WordsGiven { life: number, conversation, segments: ids });
        self.link_input(number, Input::Transcript { conversation: id_of(conversation), segments });
        if let Some(segment) = named {
            self.log.say(Happening::SampleGiven { life: number, conversation });
            let (person, segments) = (PersonId::new("p"), vec![segment]);
            self.link_input(
                number,
                Input::SpeakerSample { person, conversation: id_of(conversation), segments },
            );
        }
    }

    /// One frame arrives at a pusher.
    fn pusher_reads(&mut self, conn: u32, frame: Frame) {
        let Some(found) = self.conns.get_mut(&conn).filter(|found| found.open) else { return };
        let (life, pusher) = (found.life, found.pusher);
        match frame {
            Frame::Heartbeat | Frame::SpeakerSample { .. } => {}
            Frame::Conversation(id) => {
                let conversation = number_of(&id);
                found.announced = Some(conversation);
                self.log.say(Happening::GotConversation { conn, conversation });
            }
            Frame::Audio { at, pcm } => {
                let announced = found.announced;
                let mut first = 0;
                for run in pcm.chunk_by(|a, b| a == b) {
                    let at = at.plus_secs_f64(first as f64 / f64::from(RATE_HZ)).0;
                    first += run.len();
                    self.log.say(Happening::GotAudio { conn, life, announced, frame: run[0], at });
                }
            }
            Frame::Transcript { conversation, segments } => {
                let conversation = number_of(&conversation);
                let segments = segments.iter().map(segment_hash).collect();
                self.log.say(Happening::GotWords { conn, conversation, segments });
            }
            Frame::Process(request) => {
                self.requests += 1;
                let (request, conversation) = (self.requests, number_of(&request.conversation));
                self.log.say(Happening::GotRequest { conn, request, conversation });
                self.machines[pusher].waiting.push((conn, request, conversation));
                self.wake_jobs(pusher);
            }
        }
    }

    /// The one 201 of a request.
    pub(crate) fn answer(&mut self, conn: u32, request: u32, conversation: u32) {
        self.log.say(Happening::Answered { conn, request });
        let latency = self.weather(conn);
        let Some(found) = self.conns.get(&conn) else { return };
        let lost = found.dead || self.plan.is(Trouble::NoAnswers(found.pusher), self.log.at);
        let listen = found.listen;
        if !lost {
            self.after(latency, Some(listen), move |world| world.hears(conn, Some(conversation)));
        }
    }
}

fn segment_hash(segment: &Segment) -> u64 {
    hash_of(&segment.id)
}

fn written(life: u32, conn: u32, frame: Option<&Frame>) -> Happening {
    let (what, bytes, segments) = match frame {
        Some(Frame::Audio { pcm, .. }) => ("audio", pcm.len() as u64 * 2, Vec::new()),
        Some(Frame::Transcript { segments, .. }) => {
            ("transcript", 0, segments.iter().map(segment_hash).collect())
        }
        Some(Frame::Process(request)) => ("request", 0, vec![u64::from(number_of(&request.conversation))]),
        Some(Frame::SpeakerSample { .. }) => ("speaker_sample", 0, Vec::new()),
        Some(Frame::Conversation(_) | Frame::Heartbeat) | None => ("other", 0, Vec::new()),
    };
    Happening::Written { life, conn, what, bytes, segments }
}
