//! A model of the store: conversations and who owns them. It states the contract that `auricle-store`'s conformance suite
//! checks of the real ones, and nothing more: each call is one transaction, time is the caller's wall clock.

use std::collections::BTreeMap;
use std::time::Duration;

use auricle_core::session::Batch;
use auricle_core::{ConversationStatus, Segment, UnixMicros};

use super::Mutation;
use super::jobs::{Effect, Job};
use super::log::{Happening, Log, Piece, hash_of};

/// Why the store did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It did not answer; it is unknown whether it did it.
    Busy,
    /// Somebody else owns this now.
    Fenced,
    /// The conversation has ended or is gone.
    Ended,
    /// It is being heard, or may still be resumed.
    Conflict,
}

pub(crate) type Answer<T> = Result<T, Refusal>;

/// A session's right to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) conversation: u32,
    pub(crate) epoch: u64,
}

pub(crate) struct Conversation {
    pub(crate) user: u32,
    /// The user's device: what resumes a conversation is the same user and source.
    source: u32,
    pub(crate) status: ConversationStatus,
    pub(crate) revision: u32,
    pub(crate) owner: Option<u32>,
    pub(crate) epoch: u64,
    started_at: UnixMicros,
    finished_at: UnixMicros,
    timeout: Duration,
    pub(crate) segments: BTreeMap<Box<str>, Segment>,
}

/// Which conversation a session wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) user: u32,
    pub(crate) source: u32,
    pub(crate) process: u32,
    pub(crate) resume: bool,
    pub(crate) timeout: Duration,
}

/// What it got.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) ownership: Ownership,
    pub(crate) resumed: bool,
    pub(crate) taken_over: bool,
    pub(crate) started_at: UnixMicros,
    pub(crate) finished_at: UnixMicros,
    pub(crate) tail: Option<Segment>,
    pub(crate) has_content: bool,
}

/// What ending a conversation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finalised {
    Deleted,
    Queued { job: u32, revision: u32 },
    Already,
}

pub(crate) struct Store {
    pub(crate) mutation: Option<Mutation>,
    pub(crate) conversations: BTreeMap<u32, Conversation>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) effects: Vec<Effect>,
    /// Until when each process is announced.
    processes: BTreeMap<u32, UnixMicros>,
    made: u32,
}

impl Store {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        Self {
            mutation,
            conversations: BTreeMap::new(),
            jobs: Vec::new(),
            effects: Vec::new(),
            processes: BTreeMap::new(),
            made: 0,
        }
    }

    pub(crate) fn process_alive(&mut self, process: u32, until: UnixMicros) {
        self.processes.insert(process, until);
    }

    /// Everything it owned or leased is free.
    pub(crate) fn process_gone(&mut self, log: &mut Log, process: u32, now: UnixMicros) {
        log.say(Happening::Gone { process });
        self.processes.remove(&process);
        for job in &mut self.jobs {
            job.expire_of(process, now);
        }
    }

    fn is_owned_live(&self, conversation: &Conversation, now: UnixMicros) -> bool {
        let until = conversation.owner.and_then(|owner| self.processes.get(&owner));
        until.is_some_and(|until| *until > now)
    }

    pub(crate) fn open(&mut self, log: &mut Log, open: Open, now: UnixMicros) -> Opened {
        let since = now - open.timeout;
        let newest = self.conversations.iter().filter(|(_, found)| {
            let same = found.user == open.user && found.source == open.source;
            let open_still = found.status == ConversationStatus::InProgress && found.finished_at > since;
            open.resume && same && open_still
        });
        let found =
            newest.max_by_key(|(number, found)| (found.finished_at, **number)).map(|(number, _)| *number);
        let number = found.unwrap_or_else(|| self.make(log, open, now));
        let taken_over = found.is_some_and(|number| self.is_owned_live(&self.conversations[&number], now));
        let conversation = self.conversations.get_mut(&number).expect("found or made");
        conversation.epoch += 1;
        conversation.owner = Some(open.process);
        conversation.timeout = open.timeout;
        log.say(Happening::Owned { conversation: number, epoch: conversation.epoch });
        let tail = conversation.segments.values().max_by(|a, b| a.start.total_cmp(&b.start)).cloned();
        Opened {
            ownership: Ownership { conversation: number, epoch: conversation.epoch },
            resumed: found.is_some(),
            taken_over,
            started_at: conversation.started_at,
            finished_at: conversation.finished_at,
            has_content: tail.is_some(),
            tail,
        }
    }

    fn make(&mut self, log: &mut Log, open: Open, now: UnixMicros) -> u32 {
        self.made += 1;
        let conversation = Conversation {
            user: open.user,
            source: open.source,
            status: ConversationStatus::InProgress,
            revision: 0,
            owner: None,
            epoch: 0,
            started_at: now,
            finished_at: now,
            timeout: open.timeout,
            segments: BTreeMap::new(),
        };
        self.conversations.insert(self.made, conversation);
        log.say(Happening::Made { conversation: self.made, user: open.user });
        self.made
    }

    /// For its present owner only.
    fn owned(&mut self, ownership: Ownership) -> Answer<&mut Conversation> {
        let fences = self.mutation != Some(Mutation::SessionsWithoutEpochs);
        let found = self.conversations.get_mut(&ownership.conversation).ok_or(Refusal::Ended)?;
        if fences && found.epoch != ownership.epoch {
            return Err(Refusal::Fenced);
        }
        if found.status != ConversationStatus::InProgress {
            return Err(Refusal::Ended);
        }
        if fences && found.owner.is_none() {
            return Err(Refusal::Fenced);
        }
        Ok(found)
    }

    pub(crate) fn append(
        &mut self,
        log: &mut Log,
        ownership: Ownership,
        batch: &Batch,
        now: UnixMicros,
    ) -> Answer<()> {
        let found = self.owned(ownership)?;
        if let Some(started_at) = batch.started_at {
            found.started_at = started_at;
        }
        for id in &batch.delete {
            found.segments.remove(id.as_str());
        }
        for segment in &batch.upsert {
            found.segments.insert(segment.id.as_str().into(), segment.clone());
        }
        found.finished_at = found.finished_at.max(now);
        for segment in &batch.upsert {
            let Ownership { conversation, epoch } = ownership;
            let (id, piece) = (hash_of(&segment.id), piece(segment));
            log.say(Happening::Stored { conversation, epoch, segment: id, piece });
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, ownership: Ownership) {
        if let Some(found) = self.conversations.get_mut(&ownership.conversation)
            && found.epoch == ownership.epoch
        {
            found.owner = None;
        }
    }

    /// With `owner`, only if that is still the owner; without, only what nobody live owns and whose time is over.
    pub(crate) fn finalise(
        &mut self,
        log: &mut Log,
        number: u32,
        owner: Option<Ownership>,
        now: UnixMicros,
    ) -> Answer<Finalised> {
        let Some(found) = self.conversations.get(&number) else { return Err(Refusal::Ended) };
        if found.status != ConversationStatus::InProgress {
            return Ok(Finalised::Already);
        }
        match owner {
            Some(ownership) => drop(self.owned(ownership)?),
            None if self.is_owned_live(found, now) || found.finished_at + found.timeout > now => {
                return Err(Refusal::Conflict);
            }
            None => {}
        }
        let mutation = self.mutation;
        let found = self.conversations.get_mut(&number).ok_or(Refusal::Ended)?;
        let segments = found.segments.len();
        if segments == 0 || mutation == Some(Mutation::EmptyIsAGuess) && segments < 2 {
            self.conversations.remove(&number);
            log.say(Happening::Deleted { conversation: number, segments });
            return Ok(Finalised::Deleted);
        }
        found.status = ConversationStatus::Processing;
        found.revision += 1;
        found.owner = None;
        let (user, revision) = (found.user, found.revision);
        let job = self.queue(number, user, revision, now);
        log.say(Happening::Queued { conversation: number, revision, job });
        Ok(Finalised::Queued { job, revision })
    }

    /// Starts a new revision of the newest ended conversation of a user, if there is one.
    pub(crate) fn reprocess(&mut self, log: &mut Log, user: u32, now: UnixMicros) {
        let ended = [ConversationStatus::Completed, ConversationStatus::Failed];
        let mut newest = self.conversations.iter_mut().rev();
        let found = newest.find(|(_, found)| found.user == user && ended.contains(&found.status));
        let Some((number, found)) = found else { return };
        found.status = ConversationStatus::Processing;
        found.revision += 1;
        let (conversation, revision) = (*number, found.revision);
        let job = self.queue(conversation, user, revision, now);
        log.say(Happening::Queued { conversation, revision, job });
    }

    pub(crate) fn orphans(&self, now: UnixMicros, most: usize) -> Vec<u32> {
        let orphans = self.conversations.iter().filter(|(_, found)| {
            found.status == ConversationStatus::InProgress
                && found.finished_at + found.timeout <= now
                && !self.is_owned_live(found, now)
        });
        orphans.map(|(number, _)| *number).take(most).collect()
    }

    /// What a process owns.
    pub(crate) fn owned_by(&self, process: u32) -> Vec<Ownership> {
        let owned = self.conversations.iter().filter(|(_, found)| {
            found.owner == Some(process) && found.status == ConversationStatus::InProgress
        });
        owned.map(|(number, found)| Ownership { conversation: *number, epoch: found.epoch }).collect()
    }
}

/// What is stored and shown of a segment.
pub(crate) fn piece(segment: &Segment) -> Piece {
    hash_of(&(segment.id.as_str(), segment.text.as_str()))
}
