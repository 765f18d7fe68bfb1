//! The driver of one client's session, as `auricle-server` has it: what the machine puts out is done, what comes of it goes
//! back in. The link hears of what the session did; nothing of the link goes back.

use std::sync::Arc;
use std::time::Instant;

use auricle_core::link::{Input as LinkInput, Link, LinkConfig, LinkState, Request};
use auricle_core::session::{
    Batch, CommitFailure, Ended, Event, Input, OpenChoice, OpenedConversation, Output, Session,
    SessionConfig, Voice,
};
use auricle_core::{ConversationId, Revision, Source};
use rand::RngExt;
use rand::rngs::StdRng;

use super::Mutation;
use super::client::{Ear, RATE_HZ};
use super::log::{Happening, Micros, SECOND, hash_of};
use super::plan;
use super::store::{Finalised, Open, Ownership, Refusal, piece};
use super::wire::Wire;
use super::world::{Passage, World};

/// Timers that are due at once, one after the other at one moment, that are still no spinning.
const SPINS_MAX: u32 = 50;

/// One client connection: its session and its link.
pub(crate) struct Life {
    pub(crate) number: u32,
    pub(crate) client: usize,
    pub(crate) user: u32,
    source: u32,
    pub(crate) machine: usize,
    pub(crate) process: u32,
    pub(crate) joined: Micros,
    session: Session,
    pub(crate) link: Link,
    pub(crate) wire: Wire,
    pub(crate) ear: Ear,
    /// Of the session and its calls to the store.
    pub(crate) chance: StdRng,
    /// Of the link.
    pub(crate) net: StdRng,
    pub(crate) owns: Option<Ownership>,
    last_owned: Option<Ownership>,
    /// A call that will say what it owns is under way.
    pub(crate) opening: bool,
    config: SessionConfig,
    timer_at: Option<Micros>,
    /// How often a timer was due at once at this moment.
    spins: (Micros, u32),
    /// The session is over and the link sends what waits.
    pub(crate) leaving: bool,
}

pub(crate) fn id_of(conversation: u32) -> ConversationId {
    ConversationId::new(format!("c{conversation}"))
}

pub(crate) fn number_of(id: &ConversationId) -> u32 {
    id.as_str()[1..].parse().expect("the simulation's own ids")
}

impl World {
    pub(crate) fn start_life(&mut self, client: usize, number: u32, machine: usize) {
        let now = self.now(machine);
        let of = &self.clients[client];
        let config = SessionConfig {
            source: Source::Omi,
            sample_rate_hz: RATE_HZ,
            voices: vec![Voice::Recognised],
            engine: true,
            custom_stt: false,
            timeout: of.timeout,
            choice: OpenChoice::Resume,
            finalise_on_close: of.finalise_on_close,
            speaker_auto_assign: false,
            create_speakers: true,
            onboarding: false,
        };
        let link = LinkConfig { sample_rate_hz: RATE_HZ, audio: true, resend: true };
        let mut net = plan::chance(self.seed, "link", number);
        let mut chance = plan::chance(self.seed, "life", number);
        let (process, user) = (self.machines[machine].process, of.user);
        let life = Life {
            number,
            client,
            user,
            source: of.source,
            machine,
            process,
            joined: self.log.at,
            session: Session::new(config.clone(), Arc::clone(&self.limits), chance.random(), now),
            link: Link::new(link, Arc::clone(&self.limits), net.random(), now.mono),
            wire: Wire::default(),
            ear: Ear::default(),
            chance,
            net,
            owns: None,
            last_owned: None,
            opening: false,
            config,
            timer_at: None,
            spins: (0, 0),
            leaving: false,
        };
        self.log.say(Happening::Joined { process, life: number, user });
        self.lives.insert(number, life);
        self.after_session(number);
        self.after_link(number);
    }

    pub(crate) fn session_input(&mut self, number: u32, input: Input) {
        // A session that is over is told no more, but for the conversation that it had asked for.
        let listens = |life: &&Life| !life.leaving || matches!(input, Input::Opened(_));
        let Some(machine) = self.lives.get(&number).filter(listens).map(|life| life.machine) else { return };
        let now = self.now(machine);
        if let Some(life) = self.lives.get_mut(&number) {
            life.session.handle(now, input);
            self.after_session(number);
        }
    }

    fn after_session(&mut self, number: u32) {
        while let Some(output) = self.lives.get_mut(&number).and_then(|life| life.session.poll_output()) {
            if self.listens_in {
                let output = hash_of(&format!("{output:?}"));
                self.log.say(Happening::Heard { life: number, output });
            }
            self.perform(number, output);
        }
        let Some(life) = self.lives.get_mut(&number) else { return };
        if life.session.is_over() && !life.leaving {
            life.leaving = true;
            self.log.say(Happening::SessionOver { life: number });
            self.log.say(Happening::LinkLeaves { life: number });
            let client = self.lives[&number].client;
            self.lost(client, number, 5 * SECOND);
            return self.link_input(number, LinkInput::Leave);
        }
        self.arm_session(number);
    }

    fn arm_session(&mut self, number: u32) {
        let Some(life) = self.lives.get(&number) else { return };
        let (process, due) = (life.process, life.session.poll_timeout());
        let due = self.due(number, "session", due.map(|(at, _)| at));
        let Some(life) = self.lives.get_mut(&number).filter(|life| life.timer_at != due) else { return };
        life.timer_at = due;
        let Some(due) = due else { return };
        let wait = due - self.log.at;
        self.after(wait, Some(process), move |world| {
            if let Some(life) = world.lives.get_mut(&number).filter(|life| life.timer_at == Some(due)) {
                life.timer_at = None;
                world.session_input(number, Input::Tick);
            }
        });
    }

    /// When a machine's timer is told. One that is due at once, again and again, makes its driver spin.
    pub(crate) fn due(&mut self, number: u32, who: &'static str, at: Option<Instant>) -> Option<Micros> {
        let due = self.micros_of(at?);
        let present = self.log.at;
        let life = self.lives.get_mut(&number)?;
        if due > present {
            return Some(due);
        }
        if life.spins.0 != present {
            life.spins = (present, 0);
        }
        life.spins.1 += 1;
        if life.spins.1 < SPINS_MAX {
            return Some(present);
        }
        self.log.say(Happening::Spun { life: number, who });
        Some(present + SECOND)
    }

    fn perform(&mut self, number: u32, output: Output) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        match output {
            Output::Open(choice) => self.open(number, choice),
            Output::Append(batch) => self.append(number, batch),
            Output::Finalise(_) => self.finalise(number),
            Output::Disown => {
                if let Some(owned) = life.owns.take() {
                    life.last_owned = Some(owned);
                }
            }
            Output::Release => {
                if let Some(ownership) = life.owns.take().or_else(|| life.last_owned.take()) {
                    let machine = life.machine;
                    let passage = self.session_passage(number);
                    let release = move |store: &mut super::store::Store, _: &mut super::log::Log, _| {
                        store.release(ownership);
                        Ok(())
                    };
                    self.call(machine, passage, release, |_, _| {});
                }
            }
            Output::OpenEngine { .. } => self.open_engine(number),
            Output::FlushEngine => {
                let process = life.process;
                self.after(5_000, Some(process), move |world| world.decide(number));
            }
            Output::FinishEngine => self.finish_engine(number),
            Output::Emit(event) => self.emit(number, event),
            Output::Close(close) => {
                let client = life.client;
                self.log.say(Happening::Closed { life: number, why: close.as_str() });
                self.lost(client, number, 5 * SECOND);
            }
            // Spool, photos and names are the session simulation's.
            Output::AppendElsewhere { .. }
            | Output::AppendPhoto { .. }
            | Output::Assign(_)
            | Output::FindPerson { .. }
            | Output::NoteReason(_)
            | Output::FinaliseAnswer(_)
            | Output::EndRun { .. }
            | Output::LeaveRun { .. }
            | Output::Forget { .. } => {}
        }
    }

    fn session_passage(&mut self, number: u32) -> Passage {
        let life = self.lives.get_mut(&number).expect("its own output");
        Passage::draw(&self.plan, self.log.at, &mut life.chance)
    }

    fn open(&mut self, number: u32, choice: OpenChoice) {
        self.log.say(Happening::OpenAsked { life: number });
        let mut passage = self.session_passage(number);
        let Some(life) = self.lives.get_mut(&number) else { return };
        life.opening = true;
        if self.mutation == Some(Mutation::WaitsForTheLink) && life.link.state() != LinkState::Connected {
            passage = passage.later(SECOND);
        }
        let open = Open {
            user: life.user,
            source: life.source,
            process: life.process,
            resume: choice == OpenChoice::Resume,
            timeout: life.config.timeout,
        };
        let machine = life.machine;
        self.call(
            machine,
            passage,
            move |store, log, now| Ok(store.open(log, open, now)),
            move |world, opened| {
                let Some(life) = world.lives.get_mut(&number) else { return };
                life.opening = false;
                let Ok(opened) = opened else {
                    world.session_input(number, Input::OpenFailed);
                    return world.bury(number);
                };
                let Ownership { conversation, epoch } = opened.ownership;
                life.owns = Some(opened.ownership);
                life.last_owned = None;
                let process = life.process;
                world.log.say(Happening::Opened { life: number, conversation, epoch });
                if opened.taken_over {
                    world.supersede(process, number, conversation);
                }
                let opened = OpenedConversation {
                    conversation: id_of(conversation),
                    resumed: opened.resumed,
                    started_at: opened.started_at,
                    finished_at: opened.finished_at,
                    tail: opened.tail,
                    has_content: opened.has_content,
                    last_completed: None,
                    speakers: Vec::new(),
                };
                world.session_input(number, Input::Opened(opened));
                world.bury(number);
            },
        );
    }

    /// Its driver ends when session and link are over and no call is under way whose answer the session wants.
    pub(crate) fn bury(&mut self, number: u32) {
        if self.lives.get(&number).is_some_and(|life| life.wire.over && !life.opening) {
            self.lives.remove(&number);
        }
    }

    /// The notice within one process; across processes only the epoch tells.
    fn supersede(&mut self, process: u32, by: u32, conversation: u32) {
        let owns = |life: &Life| life.owns.is_some_and(|own| own.conversation == conversation);
        let others =
            self.lives.values().filter(|life| life.process == process && life.number != by && owns(life));
        let others: Vec<_> = others.map(|life| life.number).collect();
        for other in others {
            self.after(500, Some(process), move |world| {
                let owned = world.lives.get(&other).and_then(|life| life.owns);
                if owned.is_some_and(|own| own.conversation == conversation) {
                    world.session_input(other, Input::Superseded);
                }
            });
        }
    }

    fn append(&mut self, number: u32, batch: Batch) {
        let passage = self.session_passage(number);
        let Some(life) = self.lives.get(&number) else { return };
        let (machine, process) = (life.machine, life.process);
        let Some(ownership) = life.owns else {
            let ended = Input::CommitFailed(CommitFailure::Ended);
            return self.after(0, Some(process), move |world| world.session_input(number, ended));
        };
        if self.mutation == Some(Mutation::ShowsBeforeCommit) {
            self.emit(number, Event::Segments(batch.upsert.clone()));
        }
        let append = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
            store.append(log, ownership, &batch, now)
        };
        self.call(machine, passage, append, move |world, answer| {
            world.session_input(
                number,
                match answer {
                    Ok(()) => Input::Committed,
                    Err(Refusal::Fenced) => Input::CommitFailed(CommitFailure::Superseded),
                    Err(Refusal::Ended | Refusal::Conflict) => Input::CommitFailed(CommitFailure::Ended),
                    Err(Refusal::Busy) => Input::CommitFailed(CommitFailure::Retry),
                },
            );
        });
    }

    fn finalise(&mut self, number: u32) {
        let passage = self.session_passage(number);
        let Some(life) = self.lives.get(&number) else { return };
        let (machine, process) = (life.machine, life.process);
        let Some(own) = life.owns else {
            return self.after(0, Some(process), move |world| {
                world.session_input(number, Input::Finalised(Ended::Already))
            });
        };
        let finalise = move |store: &mut super::store::Store, log: &mut super::log::Log, now| {
            store.finalise(log, own.conversation, Some(own), now)
        };
        self.call(machine, passage, finalise, move |world, answer| {
            let conversation = id_of(own.conversation);
            let ended = match answer {
                Ok(Finalised::Deleted) => Ended::DeletedEmpty,
                Ok(Finalised::Queued { job, revision }) => {
                    world.wake_jobs(machine);
                    let request = Request {
                        conversation: conversation.clone(),
                        language: "en".into(),
                        job: Some(format!("j{job}").into()),
                        revision: Revision(revision),
                    };
                    world.log.say(Happening::RequestGiven { life: number, conversation: own.conversation });
                    world.link_input(number, LinkInput::Process(request));
                    Ended::Queued { conversation, revision: Revision(revision) }
                }
                Ok(Finalised::Already) | Err(Refusal::Fenced | Refusal::Ended | Refusal::Conflict) => {
                    Ended::Already
                }
                Err(Refusal::Busy) => return world.session_input(number, Input::FinaliseFailed),
            };
            world.session_input(number, Input::Finalised(ended));
        });
    }

    fn emit(&mut self, number: u32, event: Event) {
        match event {
            Event::Segments(segments) => {
                for segment in &segments {
                    self.log.say(Happening::Shown { life: number, piece: piece(segment) });
                }
                self.forward_words(number, segments);
            }
            Event::ConversationSession(id) => {
                let conversation = number_of(&id);
                self.log.say(Happening::ShownConversation { life: number, conversation });
            }
            Event::ProcessingStarted { conversation } => {
                let conversation = number_of(&conversation);
                self.log.say(Happening::ShownProcessing { life: number, conversation });
            }
            _ => {}
        }
    }

    /// The process is gone, and what it had in memory; its clients notice after a while.
    pub(crate) fn lose_lives(&mut self, machine: usize) {
        let gone: Vec<_> =
            self.lives.values().filter(|life| life.machine == machine).map(|life| life.number).collect();
        for number in gone {
            if let Some(life) = self.lives.remove(&number) {
                self.lost(life.client, number, 8 * SECOND);
            }
        }
    }
}
