//! Clients: people who speak and pause, go away without a word, and come back; and the scripted engine that hears them.

use std::time::Duration;

use auricle_core::session::{EarState, FinaliseOnClose, Input};
use auricle_core::{FinaliseReason, Word};
use rand::RngExt;
use rand::rngs::StdRng;

use super::log::{Happening, Log, Micros, SECOND};
use super::plan::{self, CHAOS, LISTENS, Trouble};
use super::store::Store;
use super::world::{LEAVE_AT, Passage, World};

/// Of the decoded audio. Low, so that a minute of it is cheap to carry.
pub(crate) const RATE_HZ: u32 = 100;

const CLIENTS: usize = 5;

/// A person with a device.
pub(crate) struct Client {
    pub(crate) user: u32,
    pub(crate) source: u32,
    pub(crate) chance: StdRng,
    pub(crate) timeout: Duration,
    pub(crate) finalise_on_close: FinaliseOnClose,
    pub(crate) life: Option<u32>,
    joins: u32,
    speaks: bool,
    phase_ends: Micros,
    leaves_at: Micros,
}

/// One engine's stream.
#[derive(Default)]
pub(crate) struct Ear {
    /// Seconds of audio received, one for each frame.
    pub(crate) heard: u32,
    /// Seconds in which something was said and that are not decided.
    said: Vec<u32>,
    /// Where the stream begins, if one is open.
    open: Option<u32>,
}

impl World {
    pub(crate) fn start_clients(&mut self) {
        for number in 0..CLIENTS {
            let mut chance = plan::chance(self.seed, "client", number as u32);
            let finalise_on_close =
                [FinaliseOnClose::Never, FinaliseOnClose::Normal, FinaliseOnClose::Always]
                    [chance.random_range(0..3)];
            self.clients.push(Client {
                // The first two are two devices that count as one; the third is another device of the same person.
                user: number.saturating_sub(2) as u32,
                source: u32::from(number == 2),
                timeout: Duration::from_secs(chance.random_range(10..40)),
                finalise_on_close,
                life: None,
                joins: 0,
                speaks: true,
                phase_ends: 0,
                leaves_at: 0,
                chance,
            });
            let first = self.clients[number].chance.random_range(1..20 * SECOND);
            self.after(first, None, move |world| world.join(number));
        }
        self.after(LEAVE_AT, None, |world| {
            for client in 0..CLIENTS {
                world.leave(client);
            }
        });
    }

    fn join(&mut self, number: usize) {
        if self.log.at >= LEAVE_AT || self.clients[number].life.is_some() {
            return;
        }
        let open: Vec<_> = (0..LISTENS)
            .filter(|machine| self.machines[*machine].up && !self.machines[*machine].draining)
            .collect();
        let client = &mut self.clients[number];
        if open.is_empty() {
            let wait = client.chance.random_range(SECOND..3 * SECOND);
            return self.after(wait, None, move |world| world.join(number));
        }
        let machine = open[client.chance.random_range(0..open.len())];
        client.joins += 1;
        let life = number as u32 * 1_000 + client.joins;
        client.life = Some(life);
        client.leaves_at = self.log.at + client.chance.random_range(5..180) * SECOND;
        if self.log.at > CHAOS {
            client.leaves_at = LEAVE_AT;
        }
        self.start_life(number, life, machine);
        self.after(SECOND / 2, None, move |world| world.frame(number, life));
    }

    /// The client's connection is gone, whoever ended it. It comes back after a while.
    pub(crate) fn lost(&mut self, number: usize, life: u32, longest: Micros) {
        let client = &mut self.clients[number];
        if client.life != Some(life) {
            return;
        }
        client.life = None;
        let wait = client.chance.random_range(SECOND / 10..longest);
        self.after(wait, None, move |world| world.join(number));
    }

    fn leave(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(life) = client.life else { return };
        let code = [Some(1000), Some(1006), None][client.chance.random_range(0..3)];
        self.log.say(Happening::ClientLeft { life });
        if let Some(process) = self.lives.get(&life).map(|life| life.process) {
            let closed = Input::ClientClosed { code };
            self.after(1_000, Some(process), move |world| world.session_input(life, closed));
        }
        self.lost(number, life, 70 * SECOND);
    }

    /// A second of audio; later in the calm only a sign of life.
    fn frame(&mut self, number: usize, life: u32) {
        let at = self.log.at;
        let client = &mut self.clients[number];
        if client.life != Some(life) {
            return;
        }
        if at >= client.leaves_at {
            return self.leave(number);
        }
        let Some(process) = self.lives.get(&life).map(|life| life.process) else { return };
        if at >= CHAOS + 40 * SECOND {
            self.after(1_000, Some(process), move |world| world.session_input(life, Input::Keepalive));
            return self.after(5 * SECOND, None, move |world| world.frame(number, life));
        }
        if at >= client.phase_ends {
            client.speaks = !client.speaks;
            let longest = if client.speaks { 40 } else { 50 };
            client.phase_ends = at + client.chance.random_range(2..longest) * SECOND;
        }
        let says = client.speaks && client.chance.random_bool(0.5);
        let asks = client.chance.random_bool(0.005);
        let asks_again = client.chance.random_bool(0.005);
        let wait = client.chance.random_range(1_000..30_000);
        let (passage, client_user) = (Passage::draw(&self.plan, at, &mut client.chance), client.user);
        self.after(wait, Some(process), move |world| world.hear(life, says));
        if asks {
            let ask = Input::FinaliseNow(FinaliseReason::Requested);
            self.after(wait, Some(process), move |world| world.session_input(life, ask));
        }
        if asks_again {
            let (machine, user) = (process as usize / 100, client_user);
            let again = move |store: &mut Store, log: &mut Log, now| {
                store.reprocess(log, user, now);
                Ok(())
            };
            self.call(machine, passage, again, move |world, _| world.wake_jobs(machine));
        }
        self.after(SECOND, None, move |world| world.frame(number, life));
    }

    /// One frame arrives: for the session, the engine and the link.
    fn hear(&mut self, number: u32, says: bool) {
        self.session_input(number, Input::Audio { channel: 0, samples: RATE_HZ });
        let fails = self.plan.is(Trouble::Engines, self.log.at);
        let Some(life) = self.lives.get_mut(&number) else { return };
        if says {
            life.ear.said.push(life.ear.heard);
        }
        life.ear.heard += 1;
        let process = life.process;
        let lag = life.chance.random_range(50_000..SECOND * 2);
        if fails && life.chance.random_bool(0.1) && life.ear.open.take().is_some() {
            let state = EarState::Failed("broke".into());
            self.after(1_000, Some(process), move |world| {
                world.session_input(number, Input::Ear { channel: 0, state })
            });
        }
        if says || self.lives.get(&number).is_some_and(|life| life.ear.heard % 4 == 0) {
            self.after(lag, Some(process), move |world| world.decide(number));
        }
        self.forward_audio(number);
    }

    pub(crate) fn open_engine(&mut self, number: u32) {
        let fails = self.plan.is(Trouble::Engines, self.log.at);
        let Some(life) = self.lives.get_mut(&number) else { return };
        let state = if fails && life.chance.random_bool(0.5) {
            EarState::Failed("refused".into())
        } else {
            life.ear.open = Some(life.ear.heard);
            EarState::Listening
        };
        let process = life.process;
        self.after(0, Some(process), move |world| {
            world.session_input(number, Input::Ear { channel: 0, state })
        });
    }

    /// The engine decides all that it has heard.
    pub(crate) fn decide(&mut self, number: u32) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        let Some(zero) = life.ear.open else { return life.ear.said.clear() };
        let said = std::mem::take(&mut life.ear.said);
        let until_sample = u64::from(life.ear.heard * RATE_HZ);
        let words: Vec<_> = said
            .into_iter()
            .filter(|second| *second >= zero)
            .map(|second| {
                let start = f64::from(second) + 0.1;
                // Voices alternate, so that there are segments to count and not one that grows.
                Word {
                    text: format!("w{second}"),
                    start,
                    end: start + 0.8,
                    speaker: second / 3 % 4,
                    confidence: None,
                }
            })
            .collect();
        if !words.is_empty() {
            self.session_input(number, Input::Words { channel: 0, words });
        }
        self.session_input(number, Input::Covered { channel: 0, until_sample });
    }

    pub(crate) fn finish_engine(&mut self, number: u32) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        let (process, wait) = (life.process, life.chance.random_range(10_000..SECOND));
        self.after(wait, Some(process), move |world| {
            world.decide(number);
            let state = EarState::Finished;
            world.session_input(number, Input::Ear { channel: 0, state });
        });
    }
}
