//! A fleet in one thread: listening processes with sessions, links and a breaker each, pushers, workers, outboxes and
//! sweepers, over a network, a store and clocks that fail. Everything follows from one seed, and time is virtual.
//!
//! Sessions, links and breakers are the real machines. Store, network and processes are models, kept small: they state the
//! contract that `auricle-store`'s conformance suite checks of the real stores, and each of their rules can be broken by a
//! [`Mutation`] to see that the invariants notice.
//!
//! `AURICLE_SEEDS=n` plays n seeds, `AURICLE_SEED=n` plays one.

#![allow(clippy::unwrap_used, reason = "what a test stands on must hold")]

#[path = "fleet/check.rs"]
mod check;
#[path = "fleet/check_jobs.rs"]
mod check_jobs;
#[path = "fleet/check_links.rs"]
mod check_links;
#[path = "fleet/client.rs"]
mod client;
#[path = "fleet/jobs.rs"]
mod jobs;
#[path = "fleet/listen.rs"]
mod listen;
#[path = "fleet/log.rs"]
mod log;
#[path = "fleet/plan.rs"]
mod plan;
#[path = "fleet/store.rs"]
mod store;
#[path = "fleet/wire.rs"]
mod wire;
#[path = "fleet/work.rs"]
mod work;
#[path = "fleet/world.rs"]
mod world;

use std::collections::BTreeSet;

use self::check::{Broken, check};
use self::log::{Happening, Log, Micros};
use self::plan::Pushers;
use self::world::World;

/// A rule of the models, or of the machines' drivers, that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The store takes a worker's write whatever its epoch.
    JobsWithoutEpochs,
    /// The store takes a session's words whatever its epoch.
    SessionsWithoutEpochs,
    /// A claim takes a job whose lease holds.
    ClaimsIgnoreLeases,
    /// A claim does not look at whose jobs its process has.
    ManyForOneUser,
    /// A worker begins whatever it can claim.
    NoBulkhead,
    /// An attempt goes on beside the one that took over in the same process, until a renewal is refused.
    OutlivesItsLease,
    /// Ending a conversation writes no job: only the message says so.
    IntentInMemory,
    /// A job fails and its conversation does not.
    FailsHalf,
    /// A recorded step is not there for the next attempt.
    StepsAreForgotten,
    /// Effects are written after the completion, in a transaction of their own.
    EffectsApart,
    /// Each delivery has a key of its own.
    KeysOfAttempts,
    /// A conversation with next to nothing in it counts as empty.
    EmptyIsAGuess,
    /// Conversations of clients that vanished are left to their return.
    NobodySweeps,
    /// A process keeps a conversation whose release or opening was lost, for as long as it lives.
    ForgetsWhatItOwns,
    /// Words are shown when they are handed to the store.
    ShowsBeforeCommit,
    /// A connect that is given up leaves its permit unsettled.
    DropsPermits,
    /// A conversation is announced on a link's first connection only.
    AnnouncesOnce,
    /// Frames are labelled with the conversation of the moment they are sent in.
    LabelsAtFlush,
    /// Requests are sent on a link's first connection only.
    ForgetsRequests,
    /// A pusher answers each request twice.
    AnswersTwice,
    /// A session's conversation is opened once its link is there.
    WaitsForTheLink,
}

/// How many seeds the default run plays: what fits into a few seconds of a debug build.
const SEEDS: u64 = 120;

fn number_from(key: &str) -> Option<u64> {
    std::env::var(key).ok().and_then(|text| text.parse().ok())
}

fn seeds() -> std::ops::Range<u64> {
    match number_from("AURICLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("AURICLE_SEEDS").unwrap_or(SEEDS),
    }
}

fn play(seed: u64, mutation: Option<Mutation>) -> Log {
    World::new(seed, mutation, Pushers::AsPlanned).run()
}

/// What the default seeds must meet, or the promises hold of too little.
const MET: &str = "\
a connection is sick: frozen
a connection is sick: half-open
a connection is sick: hangs
a connection is sick: its process died
a connection is sick: slow
a conversation changes hands
a conversation fails
a link drops audio
a link drops request
a link drops speaker_sample
a link drops transcript
a link hears an answer
a process is killed
a process stands still
a session is drained
a stale effect is fenced
a stale job is fenced
an attempt ends: complete
an attempt ends: completed
an attempt ends: gather
an attempt ends: late
an attempt ends: lost
an attempt ends: permanent
an attempt ends: record
an attempt ends: released
an attempt ends: transient
an attempt, fallback false
an attempt, fallback true
an empty conversation is deleted
the breaker opens
the breaker rejects";

/// What a run came across, of what the seeds are for.
fn met(happening: &Happening) -> Option<String> {
    let met = match happening {
        Happening::Killed { .. } => "a process is killed",
        Happening::Frozen { .. } => "a process stands still",
        Happening::Drained { .. } => "a session is drained",
        Happening::Owned { epoch: 2.., .. } => "a conversation changes hands",
        Happening::Fenced { what, .. } => return Some(format!("a stale {what} is fenced")),
        Happening::Failed { .. } => "a conversation fails",
        Happening::Deleted { .. } => "an empty conversation is deleted",
        Happening::AttemptBegan { fallback, .. } => return Some(format!("an attempt, fallback {fallback}")),
        Happening::AttemptEnded { why, .. } => return Some(format!("an attempt ends: {why}")),
        Happening::BreakerOpened { .. } => "the breaker opens",
        Happening::Rejected { .. } => "the breaker rejects",
        Happening::ConnSick { how, .. } => return Some(format!("a connection is sick: {how}")),
        Happening::Dropped { what, .. } => return Some(format!("a link drops {what}")),
        Happening::AnswerHeard { .. } => "a link hears an answer",
        _ => return None,
    };
    Some(met.into())
}

#[test]
fn every_promise_holds_in_every_seed_and_the_seeds_meet_what_they_are_for() {
    let mut all_met = BTreeSet::new();
    for seed in seeds() {
        let log = play(seed, None);
        if let Err(Broken { invariant, index }) = check(&log) {
            panic!("seed {seed}: {invariant}\n{}", log.lines_to(index, 60));
        }
        all_met.extend(log.entries.iter().filter_map(|(_, happening)| met(happening)));
    }
    if seeds() == (0..SEEDS) {
        let missed: Vec<_> = MET.lines().filter(|wanted| !all_met.contains(*wanted)).collect();
        assert!(missed.is_empty(), "the seeds are too tame: {missed:?}");
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..4 {
        let (once, again) = (play(seed, None), play(seed, None));
        assert_eq!(once.hash(), again.hash(), "seed {seed}");
    }
    assert_ne!(play(0, None).hash(), play(1, None).hash());
}

/// All that sessions do and their clients see, with the times.
fn lives(seed: u64, mutation: Option<Mutation>, pushers: Pushers) -> Vec<(Micros, Happening)> {
    let mut world = World::new(seed, mutation, pushers);
    world.listens_in = true;
    let mut entries = world.run().entries;
    entries.retain(|(_, happening)| {
        matches!(
            happening,
            Happening::Joined { .. }
                | Happening::OpenAsked { .. }
                | Happening::Opened { .. }
                | Happening::Heard { .. }
                | Happening::Closed { .. }
                | Happening::ClientLeft { .. }
                | Happening::SessionOver { .. }
        )
    });
    entries
}

/// Whether all lives of a seed are the same, to the microsecond, whatever pushers do.
fn do_not_feel_pushers(seed: u64, mutation: Option<Mutation>) -> bool {
    lives(seed, mutation, Pushers::AsPlanned) == lives(seed, mutation, Pushers::Dead)
}

#[test]
fn p1_p2_l29_each_session_lives_the_same_life_with_pushers_and_without() {
    for seed in 0..30 {
        assert!(do_not_feel_pushers(seed, None), "seed {seed}");
    }
}

#[test]
fn l29_a_session_that_waits_for_its_link_is_caught() {
    assert!((0..30).any(|seed| !do_not_feel_pushers(seed, Some(Mutation::WaitsForTheLink))));
}

/// The seeds of the default run notice what is broken, and say so in the name of `promise`.
fn is_caught(mutation: Mutation, promise: &str) {
    let caught = (0..SEEDS).find_map(|seed| check(&play(seed, Some(mutation))).err());
    let invariant = caught.unwrap_or_else(|| panic!("{mutation:?} is not noticed")).invariant;
    assert!(invariant.starts_with(promise), "{mutation:?}: {invariant}");
}

macro_rules! caught {
    ($($name:ident: $mutation:ident breaks $promise:literal;)+) => {
        $(#[test]
        fn $name() {
            is_caught(Mutation::$mutation, $promise);
        })+
    };
}

caught! {
    d14_a_store_that_compares_no_epochs_of_jobs_is_caught: JobsWithoutEpochs breaks "P4";
    a_store_that_compares_no_epochs_of_sessions_is_caught: SessionsWithoutEpochs breaks "P4";
    d01_d03_a_claim_that_ignores_leases_is_caught: ClaimsIgnoreLeases breaks "P4";
    a_claim_that_takes_two_jobs_of_one_user_is_caught: ManyForOneUser breaks "P3";
    a_worker_without_a_bulkhead_is_caught: NoBulkhead breaks "P3";
    d07_an_attempt_that_outlives_its_lease_beside_its_successor_is_caught: OutlivesItsLease breaks "P3";
    l05_l10_l38_a_job_that_is_only_a_message_is_caught: IntentInMemory breaks "P4";
    s04_a_job_that_fails_without_its_conversation_is_caught: FailsHalf breaks "P4";
    a_store_that_forgets_steps_is_caught: StepsAreForgotten breaks "P4";
    l16_d16_effects_outside_the_completing_transaction_are_caught: EffectsApart breaks "P4";
    d09_a_key_for_each_delivery_is_caught: KeysOfAttempts breaks "P4";
    l33_l34_a_guess_that_a_conversation_is_empty_is_caught: EmptyIsAGuess breaks "P4";
    l07_l08_a_fleet_without_a_sweeper_is_caught: NobodySweeps breaks "P4";
    a_process_that_keeps_what_no_session_of_it_has_is_caught: ForgetsWhatItOwns breaks "P4";
    a_session_that_shows_before_the_commit_is_caught: ShowsBeforeCommit breaks "P5";
    l28_a_permit_that_is_dropped_unsettled_is_caught: DropsPermits breaks "L28";
    l20_a_conversation_that_is_announced_once_for_all_connections_is_caught: AnnouncesOnce breaks "L20";
    m01_m02_m06_labels_of_the_moment_of_sending_are_caught: LabelsAtFlush breaks "M";
    l02_l17_a_request_that_goes_with_its_connection_is_caught: ForgetsRequests breaks "L17";
    a_pusher_that_answers_twice_is_caught: AnswersTwice breaks "request";
}
