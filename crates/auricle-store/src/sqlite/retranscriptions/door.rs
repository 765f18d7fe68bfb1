//! The part of the trait that hears again, for the SQLite backend.

use std::time::Duration;

use async_trait::async_trait;
use auricle_core::{ConversationId, JobId, ProcessId, Revision, UnixMicros, UploadId, UserId};

use super::super::live::Head;
use super::super::{SqliteStore, jobs, revisions, uploads};
use super::{
    ask, by_id, claim, complete, end, known_conversations, list, of_conversation, record, renew, retry,
    step_name,
};
use crate::retranscriptions::*;
use crate::store::{AttemptOutcome, Result, StepRecord};
use crate::uploads::{Upload, UploadState};

#[async_trait]
impl Retranscriptions for SqliteStore {
    async fn ask_retranscription(&self, new: NewRetranscription) -> Result<Retranscription> {
        self.writer.write(move |db| ask(db, &new)).await
    }

    async fn retranscription(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<Retranscription>> {
        let (user, conversation) = (user.clone(), conversation.clone());
        self.readers
            .read(move |db| {
                let head = Head::find(db, &conversation)?.filter(|head| head.user_id == user.as_str());
                head.map_or(Ok(None), |head| of_conversation(db, head.rid))
            })
            .await
    }

    async fn retranscriptions(
        &self,
        user: &UserId,
        state: Option<UploadState>,
        limit: usize,
    ) -> Result<Vec<Retranscription>> {
        let user = user.clone();
        self.readers.read(move |db| list(db, &user, state, limit)).await
    }

    async fn retranscription_by_id(&self, user: &UserId, id: &JobId) -> Result<Option<Retranscription>> {
        let (user, id) = (user.clone(), id.clone());
        self.readers.read(move |db| by_id(db, &user, &id)).await
    }

    async fn retry_retranscription(&self, user: &UserId, id: &JobId, now: UnixMicros) -> Result<()> {
        let (user, id) = (user.clone(), id.clone());
        self.writer.write(move |db| retry(db, &user, &id, now)).await
    }

    async fn claim_retranscription(
        &self,
        process: &ProcessId,
        now: UnixMicros,
        lease: Duration,
    ) -> Result<Option<(RetranscriptionLease, Retranscription)>> {
        let (process, max) = (process.clone(), self.options.retranscription_attempts_max);
        self.writer.write(move |db| claim(db, &process, now, lease, max)).await
    }

    async fn renew_retranscription(
        &self,
        lease: &RetranscriptionLease,
        until: UnixMicros,
        heard_secs: f64,
    ) -> Result<()> {
        let lease = lease.clone();
        self.writer.write(move |db| renew(db, &lease, until, heard_secs)).await
    }

    async fn record_hearing(
        &self,
        lease: &RetranscriptionLease,
        step: &str,
        result: &str,
        now: UnixMicros,
    ) -> Result<()> {
        let (lease, step, result) = (lease.clone(), step.to_owned(), result.to_owned());
        self.writer.write(move |db| record(db, &lease, &step, &result, now)).await
    }

    async fn hearings(&self, lease: &RetranscriptionLease) -> Result<Vec<StepRecord>> {
        let prefix = step_name(&lease.id, "");
        let conversation = lease.conversation.clone();
        let steps = self.readers.read(move |db| jobs::steps(db, &conversation, Revision(0))).await?;
        let own = steps.into_iter().filter_map(|step| {
            let name = step.step.strip_prefix(&prefix)?.to_owned();
            Some(StepRecord { step: name, ..step })
        });
        Ok(own.collect())
    }

    async fn complete_retranscription(&self, reheard: Reheard) -> Result<Revision> {
        let (jobs, revisions) = (self.options.job_attempts_max, self.options.revisions_kept_max);
        self.writer.write(move |db| complete(db, &reheard, jobs, revisions)).await
    }

    async fn end_retranscription(
        &self,
        lease: &RetranscriptionLease,
        outcome: AttemptOutcome,
        now: UnixMicros,
    ) -> Result<()> {
        let (lease, max) = (lease.clone(), self.options.retranscription_attempts_max);
        self.writer.write(move |db| end(db, &lease, &outcome, max, now)).await
    }

    async fn revisions(&self, user: &UserId, conversation: &ConversationId) -> Result<Vec<RevisionSummary>> {
        let (user, conversation) = (user.clone(), conversation.clone());
        self.readers.read(move |db| revisions::list(db, &Head::of_user(db, &user, &conversation)?)).await
    }

    async fn old_revision(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        revision: Revision,
    ) -> Result<Option<OldRevision>> {
        let (user, conversation) = (user.clone(), conversation.clone());
        self.readers
            .read(move |db| {
                let head = Head::find(db, &conversation)?.filter(|head| head.user_id == user.as_str());
                head.map_or(Ok(None), |head| revisions::one(db, &head, revision))
            })
            .await
    }

    async fn uploads_of(&self, user: &UserId, conversation: &ConversationId) -> Result<Vec<Upload>> {
        let (user, conversation) = (user.clone(), conversation.clone());
        self.readers.read(move |db| uploads::of_conversation(db, &user, &conversation)).await
    }

    async fn upload_fates(&self, ids: Vec<UploadId>) -> Result<Vec<UploadFate>> {
        self.readers.read(move |db| uploads::fates(db, &ids)).await
    }

    async fn known_conversations(&self, ids: Vec<ConversationId>) -> Result<Vec<ConversationId>> {
        self.readers.read(move |db| known_conversations(db, &ids)).await
    }
}
