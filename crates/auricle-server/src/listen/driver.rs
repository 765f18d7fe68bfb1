//! Drives one session: turns each output of the machine into a call, and each answer into an input.
//!
//! Owns the socket, the ears and the outbox. Decides nothing. It never waits on a peer or on the store: calls are futures
//! polled beside the socket, and their answers come back as inputs.

mod calls;
mod people;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use auricle_core::link::Input as LinkInput;
use auricle_core::session::{Close, EarState, Ended, Input, OpenedConversation, Output, Session};
use auricle_core::{ConversationId, JobId, PhotoId, Share, UnixMicros};
use auricle_store::{Opened, Ownership};
use axum::extract::ws::{Message, WebSocket};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream as _};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, oneshot};

use super::ear::{Ear, Heard, MULTI_RATE_HZ, RunOwner};
use super::events;
use super::outbox::Outbox;
use super::{Listen, SessionSpec};
use crate::hub::{Command, Membership, Reassigned};
use crate::link::LinkHandle;
use crate::realtime::FeedHandle;
use crate::translation::{self, Translated, TranslationHandle};

/// How long a closed socket is read on.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// How long a turn of those whose client is gone lasts.
const TURN: std::time::Duration = std::time::Duration::from_millis(1);

/// Audio this much later than the audio before it ended is after a pause; less is the network's jitter.
const PAUSE_MICROS: i64 = 2_000_000;

/// A close frame without a code. Source: RFC 6455, 7.4.1.
const CLOSE_WITHOUT_CODE: u16 = 1005;

/// What a call to the store came back with.
enum Done {
    Input(Input),
    Opened(Opened),
    /// A record to send, then whatever waited behind it.
    Text(Option<String>),
    Nothing,
}

/// What woke the driver.
#[expect(clippy::large_enum_variant, reason = "made and taken apart at once, never stored")]
enum Woken {
    Timer,
    Done(Done),
    Command(Command),
    Heard(usize, Heard),
    Translated(Translated),
    Frame(Message),
    /// A message over the limit: nothing after it can be read.
    TooLarge,
    /// The client's connection is gone, with its close code if it sent one.
    Gone(Option<u16>),
}

/// One session's driver.
pub(super) struct Driver {
    listen: Arc<Listen>,
    spec: SessionSpec,
    session: Session,
    socket: Option<WebSocket>,
    /// Nothing is read any more; what waits is still written.
    deaf: bool,
    ears: Vec<Ear>,
    run_owner: RunOwner,
    member: Membership,
    commands: mpsc::Receiver<Command>,
    outbox: Outbox,
    /// To the pusher, where there is one.
    link: Option<LinkHandle>,
    /// To realtime triggers, where there is none.
    feed: Option<Arc<FeedHandle>>,
    /// To translations, where there are any for this session.
    translation: Option<TranslationHandle>,
    /// From them: stored already, and sent if the client keeps up.
    translated: Option<mpsc::Receiver<Translated>>,
    /// Time of the sample after the last one that was forwarded.
    forwarded_until: Option<UnixMicros>,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    ownership: Option<Ownership>,
    /// The conversation that a `Release`, `Finalise` or words of a superseded session still refer to.
    last_ownership: Option<Ownership>,
    /// Ids of an opening and of an ending until they are answered: whoever asks again asks for the same.
    opening: Option<ConversationId>,
    ending: Option<(ConversationId, JobId)>,
    /// Records being read for `memory_processing_started`; deliveries wait behind them, so that order is kept.
    records_loading: usize,
    finalise_answers: Vec<oneshot::Sender<Ended>>,
    photos_waiting: Vec<(PhotoId, String, Share)>,
    /// Pictures that are not whole yet.
    pictures: Share,
    entropy: StdRng,
    timer: Pin<Box<tokio::time::Sleep>>,
    timer_at: Option<Instant>,
    spool_flush_at: Option<Instant>,
    pcm: Vec<i16>,
    scratch: Vec<i16>,
}

impl Driver {
    pub(super) fn new(
        listen: Arc<Listen>,
        spec: SessionSpec,
        socket: WebSocket,
        ears: Vec<Ear>,
        run_owner: RunOwner,
        member: Membership,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let rate_hz = if spec.channels.is_some() { MULTI_RATE_HZ } else { spec.session.sample_rate_hz };
        let link = listen.links.as_ref().map(|links| links.open(&spec.user, rate_hz));
        let feed = listen.triggers.as_ref().map(|triggers| Arc::new(triggers.open(&spec.user, rate_hz)));
        let translations = listen.translations.as_ref();
        // The questions of an onboarding are Omi's, in one language, and so are its answers. Source: listen-protocol 3.5.
        let translations = translations.filter(|_| !spec.session.onboarding);
        let opened = translations.and_then(|all| all.open(&spec.user, &spec.language));
        let (translation, translated) = opened.unzip();
        let mut entropy = StdRng::from_rng(&mut rand::rng());
        let mut seed = [0; 32];
        rand::Rng::fill_bytes(&mut entropy, &mut seed);
        let session =
            Session::new(spec.session.clone(), Arc::clone(&listen.limits), seed, listen.clock.now());
        Self {
            outbox: Outbox::new(listen.limits.client_outbox_bytes_max, listen.hub.account().share()),
            pictures: listen.hub.account().share(),
            timer: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())),
            listen,
            spec,
            session,
            socket: Some(socket),
            deaf: false,
            ears,
            run_owner,
            member,
            commands,
            link,
            feed,
            translation,
            translated,
            forwarded_until: None,
            calls: FuturesUnordered::new(),
            ownership: None,
            last_ownership: None,
            opening: None,
            ending: None,
            records_loading: 0,
            finalise_answers: Vec::new(),
            photos_waiting: Vec::new(),
            entropy,
            timer_at: None,
            spool_flush_at: None,
            pcm: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Runs the session to its end. By reference: a future that owned the driver would hold it twice.
    pub(super) async fn run(&mut self) {
        loop {
            while let Some(output) = self.session.poll_output() {
                self.perform(output);
            }
            if self.session.is_over()
                && self.calls.is_empty()
                && (self.outbox.is_empty() || self.socket.is_none())
            {
                break;
            }
            self.set_timer();
            let woken = std::future::poll_fn(|cx| self.poll_woken(cx)).await;
            if let Woken::Gone(_) = woken {
                self.part(woken).await;
            } else {
                self.on_woken(woken);
            }
        }
        if let Some(socket) = self.socket.take().filter(|_| !self.deaf) {
            linger(socket).await;
        }
        // Whoever still asks is answered: there is nothing here any more.
        for answer in self.finalise_answers.drain(..) {
            let _ = answer.send(Ended::Already);
        }
    }

    /// Takes the session apart when it is its turn.
    async fn part(&mut self, gone: Woken) {
        let listen = Arc::clone(&self.listen);
        let _turn = listen.partings.acquire().await;
        self.on_woken(gone);
        while let Some(output) = self.session.poll_output() {
            self.perform(output);
        }
        tokio::time::sleep(TURN).await;
    }

    fn on_woken(&mut self, woken: Woken) {
        let input = match woken {
            Woken::Timer => {
                let now = self.listen.clock.mono();
                if self.spool_flush_at.is_some_and(|at| at <= now) {
                    self.spool_flush_at = self.ears.iter_mut().filter_map(|ear| ear.flush_run(now)).min();
                }
                Input::Tick
            }
            Woken::Done(done) => match self.on_done(done) {
                Some(input) => input,
                None => return,
            },
            Woken::Command(command) => match self.on_command(command) {
                Some(input) => input,
                None => return,
            },
            Woken::Heard(channel, heard) => self.on_heard(channel, heard),
            Woken::Translated(translated) => self.on_translated(translated),
            Woken::Frame(Message::Binary(frame)) => return self.on_binary(&frame),
            Woken::Frame(Message::Text(text)) => self.on_text(text.as_str()),
            Woken::Frame(_) => Input::Keepalive,
            Woken::TooLarge => Input::Refused(Close::TooLarge),
            Woken::Gone(code) => {
                if let Some(socket) = self.socket.take().filter(|_| code.is_some()) {
                    // Its close is answered on the side: what follows concerns the store alone.
                    tokio::spawn(linger(socket));
                }
                self.member.leaves();
                Input::ClientClosed { code }
            }
        };
        let pictures_may_change = matches!(input, Input::Text(_) | Input::Tick);
        self.session.handle(self.listen.clock.now(), input);
        if pictures_may_change {
            self.pictures.set(self.session.picture_bytes());
        }
    }

    fn on_text(&mut self, text: &str) -> Input {
        use events::Read;
        match events::read(text, &self.listen.limits) {
            Read::Text(text) => Input::Text(text),
            Read::Nothing => Input::Keepalive,
            Read::InvalidImage => Input::Refused(Close::InvalidImage),
        }
    }

    fn on_binary(&mut self, frame: &[u8]) {
        let now = self.listen.clock.now();
        // Source: listen-protocol 2.2 rule 1; a multi-channel frame has a channel byte before that.
        if frame.len() <= 2 {
            return self.session.handle(now, Input::Keepalive);
        }
        let (channel, payload) = match &self.spec.channels {
            None => (0, frame),
            Some(channels) => match channels.split(frame) {
                Some(split) => split,
                None => {
                    metrics::counter!("auricle_frames_dropped_total", "reason" => "unknown_channel")
                        .increment(1);
                    return self.session.handle(now, Input::Keepalive);
                }
            },
        };
        let mut pcm = std::mem::take(&mut self.pcm);
        let forwards = self.forwards_audio();
        let samples = self.ears[channel].receive(payload, forwards, &mut pcm);
        self.session.handle(now, Input::Audio { channel, samples });
        if forwards {
            self.forward_audio(now.wall, &pcm);
        }
        if samples > 0 && self.spec.session.engine {
            self.begin_run(channel);
            if self.ears[channel].hear(payload, samples, &mut pcm, &mut self.scratch) {
                self.left_to_repair();
            }
            self.spool_flush_at.get_or_insert(now.mono + self.listen.limits.spool_flush_every);
        }
        // Kept between frames only while small: a session at rest holds no buffer.
        if pcm.capacity() <= 2_048 {
            self.pcm = pcm;
        }
    }

    /// Whether audio goes to the pusher or to realtime triggers. Several channels would have to be mixed first: they do not.
    fn forwards_audio(&self) -> bool {
        self.ears.len() == 1
            && (self.link.as_ref().is_some_and(LinkHandle::wants_audio)
                || self.feed.as_ref().is_some_and(|feed| feed.wants_audio()))
    }

    /// To the pusher or to realtime triggers, labelled here and now.
    ///
    /// A frame follows the one before, unless it comes so late that there was a pause (M4).
    fn forward_audio(&mut self, now: UnixMicros, pcm: &[i16]) {
        let link = self.link.as_ref().filter(|link| link.wants_audio());
        let feed = self.feed.as_ref().filter(|feed| feed.wants_audio());
        let Some(ownership) = self.ownership.as_ref().filter(|_| !pcm.is_empty()) else { return };
        let secs = pcm.len() as f64 / f64::from(self.spec.session.sample_rate_hz);
        let heard_at = now.plus_secs_f64(-secs);
        let follows = self.forwarded_until.filter(|end| heard_at.0 - end.0 < PAUSE_MICROS);
        let at = follows.unwrap_or(heard_at);
        self.forwarded_until = Some(at.plus_secs_f64(secs));
        let conversation = ownership.conversation.clone();
        if let Some(feed) = feed {
            feed.samples(conversation.clone(), at, pcm);
        }
        if let Some(link) = link {
            link.give(LinkInput::Audio { conversation, at, pcm: pcm.to_vec() });
        }
    }

    /// Begins spooling for the conversation, once there are both audio and a conversation.
    fn begin_run(&mut self, channel: usize) {
        let (Some(ownership), Some(zero_at)) = (&self.ownership, self.session.zero_at()) else { return };
        let ear = &mut self.ears[channel];
        if ear.has_run() {
            return;
        }
        let mut owner = self.run_owner.clone();
        owner.header.run = format!("{}-{channel}", owner.header.run);
        if let Some(channels) = &self.spec.channels {
            owner.header.role = Some(channels.roles()[channel].name.to_owned());
        }
        ear.begin_run(&self.listen.spool, &owner, &ownership.conversation, zero_at);
    }

    fn on_heard(&mut self, channel: usize, heard: Heard) -> Input {
        match heard {
            Heard::Words(words) => Input::Words { channel, words },
            Heard::Covered(until_sample) => Input::Covered { channel, until_sample },
            Heard::State(state) => Input::Ear { channel, state },
        }
    }

    /// Sent only to who is there and reads: it is in the record all the same.
    fn on_translated(&mut self, Translated { text, segments }: Translated) -> Input {
        let sent = self.socket.is_some() && self.outbox.has_room_to_spare() && self.outbox.text(text);
        if !sent {
            translation::dropped("unsent", segments.len());
        }
        Input::Translated(segments)
    }

    fn on_command(&mut self, command: Command) -> Option<Input> {
        match command {
            Command::Finalise { reason, answer } => {
                self.finalise_answers.push(answer);
                Some(Input::FinaliseNow(reason))
            }
            Command::Superseded { conversation } => {
                let owned = self.ownership.as_ref().is_some_and(|own| own.conversation == conversation);
                owned.then_some(Input::Superseded)
            }
            Command::Reassigned(reassigned) => {
                let Reassigned { conversation, segments, to, speaker } = *reassigned;
                let owned = self.ownership.as_ref().is_some_and(|own| own.conversation == conversation);
                owned.then_some(Input::Reassigned { segments, to, speaker })
            }
            Command::Dismiss => Some(Input::Refused(Close::UserDeleted)),
            Command::Drain => Some(Input::Drain),
            Command::Deliver { text, taken } => {
                self.socket.as_ref()?;
                if !self.outbox.text(text) {
                    return Some(Input::Overflowed);
                }
                let _ = taken.send(());
                None
            }
        }
    }

    fn on_done(&mut self, done: Done) -> Option<Input> {
        match done {
            Done::Input(input) => Some(input),
            Done::Opened(opened) => {
                let (conversation, epoch) = (&opened.ownership.conversation, opened.ownership.epoch);
                if opened.taken_over {
                    self.listen.hub.supersede(&self.member, conversation, epoch);
                }
                self.member.owns(conversation.clone(), epoch);
                self.ownership = Some(opened.ownership.clone());
                self.last_ownership = None;
                self.opening = None;
                // Until now audio was spooled for the conversation before: nothing is without one.
                for ear in &mut self.ears {
                    if ear.disown_run() {
                        self.listen.repair.notify_one();
                    }
                }
                for (id, base64, held) in std::mem::take(&mut self.photos_waiting) {
                    self.append_photo(id, base64, held);
                }
                let has_content = opened.segment_count > 0 || opened.photo_count > 0;
                let opened = OpenedConversation {
                    conversation: opened.ownership.conversation,
                    resumed: opened.resumed,
                    started_at: opened.started_at,
                    finished_at: opened.finished_at,
                    tail: opened.tail,
                    has_content,
                    last_completed: opened.last_completed,
                    speakers: opened.speakers,
                };
                Some(Input::Opened(opened))
            }
            Done::Text(text) => {
                self.records_loading -= 1;
                let fits = text.is_none_or(|text| self.outbox.text(text));
                (!fits).then_some(Input::Overflowed)
            }
            Done::Nothing => None,
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Open(choice) => self.open(choice),
            Output::Append(batch) => self.append(batch),
            Output::AppendElsewhere { zero_at, segments } => self.append_elsewhere(zero_at, segments),
            Output::AppendPhoto { id, base64 } => {
                let held = self.listen.hub.account().holding(base64.len());
                self.append_photo(id, base64, held);
            }
            Output::Assign(assignment) => self.assign(assignment),
            Output::FindPerson { introduction, create } => self.find_person(introduction, create),
            Output::NoteReason(reason) => self.note_reason(reason),
            Output::Finalise(reason) => self.finalise(reason),
            Output::FinaliseAnswer(ended) => {
                for answer in self.finalise_answers.drain(..) {
                    let _ = answer.send(ended.clone());
                }
            }
            Output::Release => self.release(),
            Output::OpenEngine { channel } => self.open_engine(channel),
            Output::FlushEngine => self.ears.iter_mut().for_each(Ear::flush),
            Output::FinishEngine => {
                for channel in 0..self.ears.len() {
                    if !self.ears[channel].finish() {
                        let state = Input::Ear { channel, state: EarState::Finished };
                        self.calls.push(Box::pin(std::future::ready(Done::Input(state))));
                    }
                }
            }
            Output::Disown => {
                let left = self.ears.iter_mut().fold(false, |left, ear| ear.release_run() | left);
                if left {
                    self.left_to_repair();
                }
                if let Some(ownership) = self.ownership.take() {
                    self.last_ownership = Some(ownership);
                    self.member.disowns();
                }
            }
            Output::EndRun { channel } => {
                if self.ears[channel].split_run() {
                    self.left_to_repair();
                }
            }
            Output::LeaveRun { channel, until_sample } => {
                if self.ears[channel].leave_run(until_sample) {
                    self.left_to_repair();
                }
            }
            Output::Forget { channel, until_sample } => {
                if self.ears[channel].forget(until_sample) {
                    self.left_to_repair();
                }
            }
            Output::Emit(event) => self.emit(event),
            Output::Close(close) => {
                let (code, reason) = events::close_code(close);
                metrics::counter!("auricle_sessions_closed_by_server_total", "reason" => close.as_str())
                    .increment(1);
                self.outbox.close(code, reason);
                self.member.leaves();
            }
        }
    }

    fn emit(&mut self, event: auricle_core::session::Event) {
        if let auricle_core::session::Event::ProcessingStarted { conversation } = event {
            self.member.awaits(conversation.clone());
            self.listen.wake_jobs();
            self.records_loading += 1;
            let (listen, user, recording) =
                (Arc::clone(&self.listen), self.spec.user.clone(), self.spec.recording_session_id.clone());
            self.calls.push(Box::pin(async move {
                match listen.store.conversation(&user, &conversation).await {
                    Ok(Some(record)) => {
                        // A record with pictures has megabytes: its text is made elsewhere.
                        let text = move || events::processing_started(&record, recording.as_deref());
                        Done::Text(tokio::task::spawn_blocking(text).await.ok())
                    }
                    Ok(None) => Done::Text(None),
                    Err(error) => {
                        tracing::warn!(%error, conversation.id = %conversation, "read an ended conversation");
                        Done::Text(None)
                    }
                }
            }));
            return;
        }
        let text = events::write(&event, &self.spec);
        if self.socket.is_some() && !self.outbox.text(text) {
            self.session.handle(self.listen.clock.now(), Input::Overflowed);
        }
    }

    fn open_engine(&mut self, channel: usize) {
        let state =
            self.ears[channel].listen(&*self.listen.engine, &self.spec.language, &self.run_owner.header.run);
        if let EarState::Failed(reason) = &state {
            tracing::debug!(%reason, engine = self.listen.engine.name(), "open a speech stream");
        }
        self.session.handle(self.listen.clock.now(), Input::Ear { channel, state });
    }

    /// Nobody ends the conversation before what was left of it is heard.
    fn left_to_repair(&self) {
        if let Some(ownership) = self.ownership.as_ref().or(self.last_ownership.as_ref()) {
            self.listen.held.hold(&ownership.conversation);
        }
        self.listen.repair.notify_one();
    }

    fn answer(&mut self, input: Input) {
        self.calls.push(Box::pin(std::future::ready(Done::Input(input))));
    }

    fn set_timer(&mut self) {
        let session = self.session.poll_timeout().map(|(at, _)| at);
        let wanted = match (session, self.spool_flush_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        // One that fires too early costs a look; setting it back with each frame, which moves most timeouts, costs more.
        if let Some(at) = wanted
            && self.timer_at.is_none_or(|armed| at < armed)
        {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(at.into());
        }
    }

    /// Timers before frames: a flood of audio must not starve a timeout. Answers before frames: words go out first.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        if self.timer_at.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.timer_at = None;
            return Poll::Ready(Woken::Timer);
        }
        if let Poll::Ready(Some(done)) = Pin::new(&mut self.calls).poll_next(cx) {
            return Poll::Ready(Woken::Done(done));
        }
        if self.records_loading == 0
            && let Poll::Ready(Some(command)) = self.commands.poll_recv(cx)
        {
            return Poll::Ready(Woken::Command(command));
        }
        if !self.session.is_congested() {
            for (channel, ear) in self.ears.iter_mut().enumerate() {
                if let Poll::Ready(heard) = ear.poll_event(cx) {
                    return Poll::Ready(Woken::Heard(channel, heard));
                }
            }
        }
        if let Some(translated) = &mut self.translated {
            match translated.poll_recv(cx) {
                Poll::Ready(Some(text)) => return Poll::Ready(Woken::Translated(text)),
                // The process ends.
                Poll::Ready(None) => self.translated = None,
                Poll::Pending => {}
            }
        }
        self.poll_socket(cx)
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        let Some(socket) = &mut self.socket else { return Poll::Pending };
        if !self.outbox.is_empty() {
            match self.outbox.poll_write(socket, cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Woken::Gone(None)),
                // That was what the session's end waited for, and nothing else may ever come.
                Poll::Ready(Ok(())) if self.session.is_over() => {
                    return Poll::Ready(Woken::Done(Done::Nothing));
                }
                _ => {}
            }
        }
        if self.deaf {
            return Poll::Pending;
        }
        match std::task::ready!(Pin::new(socket).poll_next(cx)) {
            Some(Ok(Message::Close(frame))) => {
                Poll::Ready(Woken::Gone(Some(frame.map_or(CLOSE_WITHOUT_CODE, |frame| frame.code))))
            }
            Some(Ok(message)) => Poll::Ready(Woken::Frame(message)),
            Some(Err(error)) if events::is_too_large(&error) => {
                self.deaf = true;
                Poll::Ready(Woken::TooLarge)
            }
            Some(Err(_)) => Poll::Ready(Woken::Gone(None)),
            None => Poll::Ready(Woken::Gone(None)),
        }
    }
}

/// Reads on for a moment after our close frame: a connection closed with unread data loses what was sent last.
async fn linger(mut socket: WebSocket) {
    let until_closed = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}
