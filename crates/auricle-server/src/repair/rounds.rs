//! When repair looks at the spool, and which stretch it hears next.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use auricle_core::ConversationId;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::Repair;
use super::joined::{self, Part, Stretch};
use crate::clock::monotonic;
use crate::vitals::Pulse;

/// Between two looks, at least; and four times as long as the last one took, since each reads something of every run.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// How often it is seen whether an engine works again, while runs wait for that.
const ENGINE_EVERY: Duration = Duration::from_millis(250);

/// What waits to be heard.
#[derive(Default)]
struct Queue {
    waiting: Vec<Stretch>,
    /// Stretches that were heard of each user who has more.
    served: HashMap<String, usize>,
}

impl Queue {
    /// Joins what came with what it adjoins.
    fn add(&mut self, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter().flat_map(|stretch| stretch.parts);
        self.waiting = joined::stretches(waiting.chain(parts).collect());
    }

    /// The oldest, but one of each user before the second of any.
    fn next(&mut self) -> Option<Stretch> {
        let turn = |stretch: &Stretch| {
            let served = self.served.get(stretch.header().user.as_str()).copied().unwrap_or(0);
            (served, stretch.zero_at())
        };
        let (at, _) = self.waiting.iter().enumerate().min_by_key(|(_, stretch)| turn(stretch))?;
        let next = self.waiting.swap_remove(at);
        *self.served.entry(next.header().user.to_string()).or_default() += 1;
        let users: HashSet<&str> =
            self.waiting.iter().map(|stretch| stretch.header().user.as_str()).collect();
        self.served.retain(|user, _| users.contains(user.as_str()));
        Some(next)
    }
}

/// What a look has found.
struct Found {
    number: u64,
    parts: Vec<Part>,
    /// Runs that were tried a moment ago, and are left alone.
    resting: Vec<String>,
    /// Their conversations, and those of runs that are still on their way to disk.
    others: HashSet<ConversationId>,
}

enum Done {
    /// `None`: the folder could not be read.
    Looked(Option<Found>),
    Heard {
        runs: Vec<String>,
        /// There was no engine to hear them.
        away: bool,
    },
}

/// When to look.
struct Looks {
    /// At least this often.
    every: Duration,
    under_way: bool,
    /// Something has changed since the last one began.
    wanted: bool,
    began: Instant,
    not_before: Instant,
}

impl Looks {
    fn new(every: Duration, now: Instant) -> Self {
        Self { every, under_way: false, wanted: true, began: now, not_before: now }
    }

    fn due(&self) -> Instant {
        if self.wanted { self.not_before } else { self.not_before.max(self.began + self.every) }
    }

    fn begin(&mut self, now: Instant) {
        (self.under_way, self.wanted, self.began) = (true, false, now);
    }

    fn end(&mut self, now: Instant) {
        self.under_way = false;
        self.not_before = now + LOOK_GAP.max(4 * now.saturating_duration_since(self.began));
    }
}

impl Repair {
    /// Runs for ever; may be dropped at any await.
    pub(crate) async fn run(self: Arc<Self>, pulse: Arc<Pulse>) {
        let look_every = self.limits.spool_repair_every;
        let mut queue = Queue::default();
        let mut looks = Looks::new(look_every, monotonic());
        let mut tasks: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        // Runs that are being heard, with their conversation.
        let mut in_hand: HashMap<String, ConversationId> = HashMap::new();
        // Runs that were tried, until when they are left alone, and whether only an engine was missing.
        let mut rests: HashMap<String, (Instant, bool)> = HashMap::new();
        let (mut hearing, mut tried_at) = (0_u32, monotonic());
        loop {
            let now = monotonic();
            pulse.beat(now);
            // Not what failed for another reason: its attempts are counted.
            if rests.values().any(|(_, away)| *away) && self.engine.has_worked_since(tried_at) {
                rests.retain(|_, (_, away)| !*away);
                looks.wanted = true;
            }
            if !looks.under_way && now >= looks.due() {
                looks.begin(now);
                rests.retain(|_, (until, _)| *until > now);
                let (repair, resting) = (Arc::clone(&self), rests.keys().cloned().collect());
                tasks.push(Box::pin(async move { Done::Looked(repair.look(resting).await) }));
            }
            while (hearing as usize) < self.at_once
                && let Some(stretch) = queue.next()
            {
                hearing += 1;
                let runs: Vec<_> = stretch.headers().map(|header| header.run.clone()).collect();
                let conversation = &stretch.header().conversation;
                in_hand.extend(runs.iter().map(|run| (run.clone(), conversation.clone())));
                let (repair, pulse) = (Arc::clone(&self), Arc::clone(&pulse));
                tasks.push(Box::pin(async move {
                    let away = repair.repair(stretch, &pulse).await;
                    Done::Heard { runs, away }
                }));
            }
            metrics::gauge!("auricle_spool_repairs_running").set(f64::from(hearing));
            let every = if rests.is_empty() { look_every } else { ENGINE_EVERY };
            let wait = match looks.under_way {
                true => every,
                false => every.min(looks.due().saturating_duration_since(now)),
            };
            tokio::select! {
                Some(done) = tasks.next() => match done {
                    Done::Looked(found) => {
                        looks.end(monotonic());
                        if let Some(found) = found {
                            self.publish(&found, &queue, &in_hand);
                            queue.add(found.parts);
                        }
                    }
                    Done::Heard { runs, away } => {
                        hearing -= 1;
                        tried_at = monotonic();
                        for run in runs {
                            in_hand.remove(&run);
                            rests.insert(run, (tried_at + look_every, away));
                        }
                        // What was not repaired still holds its conversation, what was does no more.
                        looks.wanted = true;
                    }
                },
                () = self.wake.notified() => looks.wanted = true,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The runs that nobody writes any more and nobody has taken before.
    async fn look(&self, resting: HashSet<String>) -> Option<Found> {
        let (number, spool) = (self.held.looks(), self.spool.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut others = spool.on_their_way();
            let (resting, mut fresh): (Vec<_>, Vec<_>) =
                spool.leftovers()?.into_iter().partition(|left| resting.contains(&left.header().run));
            others.extend(resting.iter().map(|left| left.header().conversation.clone()));
            let resting = resting.into_iter().map(|left| left.header().run.clone()).collect();
            fresh.iter_mut().for_each(auricle_store::spool::Leftover::claim);
            let parts = fresh.into_iter().filter_map(Part::of).collect();
            Ok(Found { number, parts, resting, others })
        });
        match found.await.map_err(std::io::Error::other).and_then(|found| found) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(%error, "look for left-over audio");
                None
            }
        }
    }

    /// Says whose audio waits.
    fn publish(&self, found: &Found, queue: &Queue, in_hand: &HashMap<String, ConversationId>) {
        let waiting = || queue.waiting.iter().flat_map(Stretch::headers);
        let runs: HashSet<&str> = (found.parts.iter().map(|part| part.header().run.as_str()))
            .chain(found.resting.iter().map(String::as_str))
            .chain(waiting().map(|header| header.run.as_str()))
            .chain(in_hand.keys().map(String::as_str))
            .collect();
        metrics::gauge!("auricle_spool_leftover_runs").set(runs.len() as f64);
        self.tried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|run, _| runs.contains(run.as_str()));
        let conversations = (found.parts.iter().map(|part| &part.header().conversation))
            .chain(&found.others)
            .chain(waiting().map(|header| &header.conversation))
            .chain(in_hand.values());
        self.held.found(found.number, conversations.cloned().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::super::joined::rig::Rig;
    use super::*;

    #[test]
    fn the_oldest_comes_first_but_one_of_each_user_before_the_second_of_any() {
        let rig = Rig::new();
        let mut queue = Queue::default();
        queue.add(vec![
            rig.part("a1", "ann", "c1", 10.0),
            rig.part("a2", "ann", "c2", 20.0),
            rig.part("a3", "ann", "c3", 30.0),
            rig.part("b1", "bob", "c4", 40.0),
        ]);
        let next = |queue: &mut Queue| queue.next().map(|stretch| stretch.header().run.clone());
        assert_eq!([next(&mut queue), next(&mut queue)], [Some("a1".into()), Some("b1".into())]);
        assert_eq!(next(&mut queue), Some("a2".into()));
        // Who comes late has had less than those who wait long.
        queue.add(vec![rig.part("c1", "cid", "c5", 50.0)]);
        assert_eq!([next(&mut queue), next(&mut queue)], [Some("c1".into()), Some("a3".into())]);
        assert_eq!((next(&mut queue), queue.served.len()), (None, 0), "nobody is remembered for ever");
    }

    #[test]
    fn what_comes_later_is_joined_with_what_waits() {
        let rig = Rig::new();
        let mut queue = Queue::default();
        queue.add(vec![rig.part("one", "ann", "c", 10.0)]);
        queue.add(vec![rig.part("two", "ann", "c", 11.0)]);
        let stretch = queue.next().unwrap();
        assert_eq!(stretch.headers().map(|header| header.run.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_look_that_is_wanted_while_one_is_under_way_follows_it_and_looks_keep_their_distance() {
        let begun = monotonic();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut looks = Looks::new(Duration::from_secs(5), begun);
        assert_eq!(looks.due(), begun);
        looks.begin(begun);
        looks.end(at(10));
        assert_eq!(looks.due(), at(5_000));
        looks.wanted = true;
        assert_eq!(looks.due(), at(110));
        looks.begin(at(200));
        looks.wanted = true;
        looks.end(at(1_200));
        assert_eq!(looks.due(), at(5_200), "four times as long as it took");
    }
}
