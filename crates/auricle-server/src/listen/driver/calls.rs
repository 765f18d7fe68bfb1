//! The driver's calls to the store: each a future polled beside the socket, whose answer is an input of the machine.

use std::sync::Arc;

use auricle_core::link;
use auricle_core::session::{Batch, CommitFailure, Ended, Input, OpenChoice, SpeakerAssignment};
use auricle_core::{ConversationId, FinaliseReason, JobId, Photo, PhotoId, Segment, Share, UnixMicros};
use auricle_store::{
    AppendSegments, Choice, Finalise, Finalised, InsertRecovered, OpenConversation, StoreError,
};

use super::{Done, Driver};

impl Driver {
    pub(super) fn open(&mut self, choice: OpenChoice) {
        let fresh = self.opening.get_or_insert_with(|| ConversationId::random(&mut self.entropy)).clone();
        let open = OpenConversation {
            user: self.spec.user.clone(),
            process: self.listen.process.clone(),
            source: self.spec.session.source,
            language: Some(self.spec.language.clone()),
            timeout: self.spec.session.timeout,
            choice: match choice {
                OpenChoice::Resume => Choice::Resume,
                OpenChoice::Named(id) => Choice::Named(id),
                OpenChoice::New => Choice::New,
            },
            fresh_id: fresh,
            call_id: self.spec.call_id.clone(),
            now: self.listen.clock.wall(),
        };
        let listen = Arc::clone(&self.listen);
        self.calls.push(Box::pin(async move {
            match listen.store.open_conversation(open).await {
                Ok(opened) => Done::Opened(opened),
                Err(error) => {
                    tracing::warn!(%error, "open a conversation");
                    Done::Input(Input::OpenFailed)
                }
            }
        }));
    }

    pub(super) fn append(&mut self, batch: Batch) {
        let Some(ownership) = self.ownership.clone() else {
            return self.answer(Input::CommitFailed(CommitFailure::Ended));
        };
        let append = AppendSegments {
            ownership,
            upsert: batch.upsert,
            delete: batch.delete,
            started_at: batch.started_at,
            now: self.listen.clock.wall(),
        };
        let listen = Arc::clone(&self.listen);
        // From the commit, not from what the client is shown: it may be gone already.
        let link = self.link.clone().filter(|_| !append.upsert.is_empty());
        let feed = self.feed.clone().filter(|feed| feed.wants_words() && !append.upsert.is_empty());
        let is_wanted = link.is_some() || feed.is_some();
        let words = is_wanted.then(|| (append.ownership.conversation.clone(), append.upsert.clone()));
        let translation = self.translation.clone().map(|handle| {
            (handle, append.ownership.conversation.clone(), append.upsert.clone(), append.delete.clone())
        });
        self.calls.push(Box::pin(async move {
            Done::Input(match listen.store.append_segments(append).await {
                Ok(()) => {
                    if let Some((handle, conversation, upsert, delete)) = translation {
                        handle.give(&conversation, &upsert, &delete);
                    }
                    // A session has one of the two.
                    match (link, feed, words) {
                        (Some(link), _, Some((conversation, segments))) => {
                            link.give(link::Input::Transcript { conversation, segments });
                        }
                        (None, Some(feed), Some((conversation, segments))) => {
                            feed.segments(conversation, segments);
                        }
                        _ => {}
                    }
                    Input::Committed
                }
                Err(error) => Input::CommitFailed(commit_failure(&error)),
            })
        }));
    }

    pub(super) fn append_elsewhere(&mut self, zero_at: UnixMicros, segments: Vec<Segment>) {
        let Some(ownership) = self.ownership.clone().or_else(|| self.last_ownership.clone()) else {
            let words = segments.len() as u64;
            metrics::counter!("auricle_segments_lost_total", "reason" => "no_conversation").increment(words);
            return tracing::error!(segments = words, "a session ended before its words had a conversation");
        };
        let insert = InsertRecovered {
            conversation: ownership.conversation,
            run: format!("session-{}-{}", self.run_owner.header.run, ownership.epoch),
            until_sample: segments.len() as u64,
            zero_at,
            segments,
            gap: None,
        };
        let listen = Arc::clone(&self.listen);
        self.calls.push(Box::pin(async move {
            if let Err(error) = listen.store.insert_recovered(insert).await {
                metrics::counter!("auricle_segments_lost_total", "reason" => "superseded").increment(1);
                tracing::error!(%error, "store the last words of a superseded session");
            }
            Done::Nothing
        }));
    }

    /// `held`: the photo's bytes, until it is stored or lost.
    pub(super) fn append_photo(&mut self, id: PhotoId, base64: String, held: Share) {
        let Some(ownership) = self.ownership.clone() else {
            // The conversation is being opened: the photo follows once it is there. Bounded as uploads are.
            if self.photos_waiting.len() < self.listen.limits.image_uploads_max {
                return self.photos_waiting.push((id, base64, held));
            }
            metrics::counter!("auricle_photos_lost_total").increment(1);
            return self.answer(Input::PhotoCommitted { stored: false });
        };
        let photo =
            Photo { id, base64, description: None, created_at: self.listen.clock.wall(), discarded: false };
        let listen = Arc::clone(&self.listen);
        self.calls.push(Box::pin(async move {
            let _held = held;
            let mut tries = 0;
            loop {
                match listen.store.append_photo(&ownership, photo.clone()).await {
                    Ok(()) => return Done::Input(Input::PhotoCommitted { stored: true }),
                    Err(error) if error.is_retryable() && tries < listen.limits.photo_attempts_max => {
                        tries += 1;
                        tokio::time::sleep(listen.limits.store_retry_every).await;
                    }
                    Err(error) => {
                        metrics::counter!("auricle_photos_lost_total").increment(1);
                        tracing::warn!(%error, "store a photo");
                        return Done::Input(Input::PhotoCommitted { stored: false });
                    }
                }
            }
        }));
    }

    pub(super) fn assign(&mut self, assignment: SpeakerAssignment) {
        let Some(ownership) = self.ownership.clone() else { return };
        if let (Some(link), Some(person)) = (&self.link, &assignment.person) {
            link.give(link::Input::SpeakerSample {
                person: person.clone(),
                conversation: ownership.conversation.clone(),
                segments: assignment.segments.clone(),
            });
        }
        let listen = Arc::clone(&self.listen);
        self.calls.push(Box::pin(async move {
            let person = assignment.person.as_ref().map(|person| person.as_str());
            let is_user = person.is_none();
            let assigned = listen
                .store
                .assign_segments(
                    &ownership.user,
                    &ownership.conversation,
                    &assignment.segments,
                    is_user,
                    person,
                )
                .await;
            if let Err(error) = assigned {
                tracing::warn!(%error, conversation.id = %ownership.conversation, "assign a speaker");
            }
            Done::Nothing
        }));
    }

    pub(super) fn note_reason(&mut self, reason: FinaliseReason) {
        let Some(ownership) = self.ownership.clone() else { return };
        let listen = Arc::clone(&self.listen);
        self.calls.push(Box::pin(async move {
            if let Err(error) = listen.store.note_finalise_reason(&ownership, reason).await {
                tracing::debug!(%error, "note why a recording ended");
            }
            Done::Nothing
        }));
    }

    pub(super) fn finalise(&mut self, reason: FinaliseReason) {
        let Some(ownership) = self.ownership.clone() else {
            return self.answer(Input::Finalised(Ended::Already));
        };
        let asked = self.ending.take().filter(|(asked, _)| *asked == ownership.conversation);
        let (_, job) =
            asked.unwrap_or_else(|| (ownership.conversation.clone(), JobId::random(&mut self.entropy)));
        self.ending = Some((ownership.conversation.clone(), job.clone()));
        let finalise = Finalise {
            conversation: ownership.conversation.clone(),
            owner: Some(ownership),
            reason,
            job_id: job,
            now: self.listen.clock.wall(),
        };
        let listen = Arc::clone(&self.listen);
        let (link, language) = (self.link.clone(), self.spec.language.clone());
        self.calls.push(Box::pin(async move {
            let conversation = finalise.conversation.clone();
            Done::Input(match listen.store.finalise(finalise).await {
                Ok(Finalised::Queued { revision, job }) => {
                    listen.wake_jobs();
                    if let Some(link) = link {
                        let conversation = conversation.clone();
                        let request = link::Request { conversation, language, job: Some(job), revision };
                        link.give(link::Input::Process(request));
                    }
                    Input::Finalised(Ended::Queued { conversation, revision })
                }
                Ok(Finalised::DeletedEmpty) => Input::Finalised(Ended::DeletedEmpty),
                Ok(Finalised::AlreadyEnded { .. }) => Input::Finalised(Ended::Already),
                Err(error) if error.is_retryable() => Input::FinaliseFailed,
                Err(error) => {
                    tracing::debug!(%error, %conversation, "finalise a conversation");
                    Input::Finalised(Ended::Already)
                }
            })
        }));
    }

    pub(super) fn release(&mut self) {
        let Some(ownership) = self.ownership.take().or_else(|| self.last_ownership.take()) else { return };
        let (listen, now) = (Arc::clone(&self.listen), self.listen.clock.wall());
        self.calls.push(Box::pin(async move {
            // Refused or lost: the sweeper gives it up later.
            if let Err(error) = listen.store.release(&ownership, now).await {
                tracing::debug!(%error, conversation.id = %ownership.conversation, "release a conversation");
            }
            Done::Nothing
        }));
    }
}

fn commit_failure(error: &StoreError) -> CommitFailure {
    match error {
        StoreError::Fenced(_) => CommitFailure::Superseded,
        StoreError::Ended(_) | StoreError::Conflict(_) | StoreError::NotFound(_) => CommitFailure::Ended,
        _ => CommitFailure::Retry,
    }
}
