//! What goes wrong when: drawn from the seed before the fleet starts, so that it depends on nothing that happens.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::log::{Micros, SECOND, hash_of};

/// How many listening processes and pushers there are. Listening ones come first.
pub(crate) const LISTENS: usize = 2;
pub(crate) const PUSHERS: usize = 2;
pub(crate) const MACHINES: usize = LISTENS + PUSHERS;

/// Faults begin no later than this.
pub(crate) const CHAOS: Micros = 150 * SECOND;

/// A generator of its own for each part of the world, so that one part's draws do not move another's.
pub(crate) fn chance(seed: u64, part: &str, number: u32) -> StdRng {
    StdRng::seed_from_u64(hash_of(&(seed, part, number)))
}

/// What is wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// This pusher refuses connections.
    Refuse(usize),
    /// Connections to this pusher hang, being made or made.
    BlackHole(usize),
    /// What is sent to this pusher is taken and arrives nowhere, and nothing comes back.
    HalfOpen(usize),
    /// Connections to this pusher are reset after a few seconds, in the middle of a frame.
    Flap(usize),
    /// Everything to and from this pusher is slow.
    Slow(usize),
    /// Answers of this pusher are lost.
    NoAnswers(usize),
    /// The store refuses writes, or takes them and does not say so.
    StoreBusy,
    /// The language model hangs, fails or refuses.
    Understanding,
    /// Receivers of effects fail, or take them and do not say so.
    Receivers,
    /// Speech engines break.
    Engines,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) trouble: Trouble,
    pub(crate) from: Micros,
    pub(crate) until: Micros,
}

/// What befalls a machine at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// `kill -9`; it starts again after this long.
    Kill(Micros),
    /// It does nothing for this long, then goes on where it was.
    Freeze(Micros),
    /// Its wall clock jumps to this many microseconds off.
    Jump(i64),
    /// It is asked to stop, and starts again.
    Drain,
}

/// Whether pushers exist as far as links can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushers {
    AsPlanned,
    Dead,
}

/// The plan of one seed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) windows: Vec<Window>,
    pub(crate) blows: Vec<(Micros, usize, Blow)>,
    pub(crate) skew: [i64; MACHINES],
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut chance = chance(seed, "plan", 0);
        // Some seeds are calm in most respects, so that a fault is also seen alone.
        let windows = match chance.random_range(0..4) {
            0 => 2,
            1 => 5,
            _ => 12,
        };
        let mut drawn: Vec<_> = (0..windows).map(|_| window(&mut chance)).collect();
        // Every third seed or so has the outage that Auricle is there for: no pusher at all, for long.
        if chance.random_bool(0.3) {
            let (from, until) = (chance.random_range(0..60) * SECOND, CHAOS);
            for pusher in LISTENS..MACHINES {
                let trouble =
                    [Trouble::Refuse(pusher), Trouble::BlackHole(pusher), Trouble::BlackHole(pusher)]
                        [chance.random_range(0..3)];
                drawn.push(Window { trouble, from, until });
            }
        }
        let blows = chance.random_range(0..10);
        let blows = (0..blows).map(|_| blow(&mut chance)).collect();
        let skew = std::array::from_fn(|_| chance.random_range(-3_000_000..3_000_000));
        Self { windows: drawn, blows, skew }
    }

    pub(crate) fn is(&self, trouble: Trouble, at: Micros) -> bool {
        self.windows
            .iter()
            .any(|window| window.trouble == trouble && (window.from..window.until).contains(&at))
    }
}

fn window(chance: &mut StdRng) -> Window {
    let pusher = chance.random_range(LISTENS..MACHINES);
    let trouble = match chance.random_range(0..13) {
        0 => Trouble::Refuse(pusher),
        1 | 2 => Trouble::BlackHole(pusher),
        3 | 4 => Trouble::HalfOpen(pusher),
        5 => Trouble::Flap(pusher),
        6 => Trouble::Slow(pusher),
        7 => Trouble::NoAnswers(pusher),
        8 | 9 => Trouble::StoreBusy,
        10 => Trouble::Understanding,
        11 => Trouble::Receivers,
        _ => Trouble::Engines,
    };
    let from = chance.random_range(0..CHAOS);
    let longest = if trouble == Trouble::StoreBusy { 25 } else { 90 };
    let until = (from + chance.random_range(SECOND..longest * SECOND)).min(CHAOS);
    Window { trouble, from, until }
}

fn blow(chance: &mut StdRng) -> (Micros, usize, Blow) {
    let machine = chance.random_range(0..MACHINES);
    let blow = match chance.random_range(0..8) {
        0..=2 => Blow::Kill(chance.random_range(SECOND / 2..15 * SECOND)),
        3 | 4 => Blow::Freeze(chance.random_range(SECOND..40 * SECOND)),
        5 | 6 => Blow::Jump(chance.random_range(-4_000_000..4_000_000)),
        _ => Blow::Drain,
    };
    (chance.random_range(SECOND..CHAOS), machine, blow)
}
