//! What every backend of [`Store`] must do, as one suite.
//!
//! A backend's tests call [`store_conformance!`](crate::store_conformance) with an expression that makes a fresh
//! [`Ground`]; it becomes one `#[tokio::test]` for each function here. Names that begin with `l34_`, `d14_`, … pin the
//! scenario of that id in the processing reference's list of ways to lose or double a conversation.

#![allow(clippy::unwrap_used, reason = "a suite of tests: a panic is its verdict")]

pub mod accounts;
pub mod beginnings;
pub mod days;
pub mod effects;
pub mod ending;
pub mod erasing;
pub mod jobs;
pub mod live;
pub mod meaning;
pub mod people;
pub mod records;
pub mod recovery;
pub mod retranscriptions;
pub mod search;
pub mod targets;
pub mod translations;
pub mod uploads;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use auricle_core::{
    ActionItem, ConversationId, Epoch, FinaliseReason, ProcessId, Provenance, Segment, SegmentId, Source,
    Speaker, Structured, UnixMicros, UserId,
};

use crate::store::*;

/// Where a test stands: two doors to the same, empty data, as two processes have them.
pub struct Ground {
    /// The first process's.
    pub store: Arc<dyn Store>,
    /// The second process's; may be the same object where a backend has only one.
    pub other: Arc<dyn Store>,
    /// Whatever must live as long as the test, e.g. a temporary folder.
    pub keep: Box<dyn Any + Send>,
}

/// The timeout of the tests' conversations.
pub const TIMEOUT: Duration = Duration::from_secs(120);
/// The lease of the tests' claims.
pub const LEASE: Duration = Duration::from_secs(15);

/// A moment of the tests' clock, in seconds from its zero.
pub fn at(secs: i64) -> UnixMicros {
    UnixMicros(1_700_000_000_000_000 + secs * 1_000_000)
}

/// A segment whose id is `id`.
pub fn segment(id: &str, start: f64, text: &str) -> Segment {
    Segment {
        id: id.into(),
        text: text.into(),
        speaker: Some(Speaker::from_voice(1)),
        is_user: false,
        person_id: None,
        start,
        end: start + 1.0,
        translations: Vec::new(),
        speech_profile_processed: true,
        stt_provider: None,
    }
}

/// A stub's opening by `ann` on process `p1` at time 0; tests change what they are about.
pub fn opening(choice: Choice, fresh: &str) -> OpenConversation {
    OpenConversation {
        user: "ann".into(),
        process: "p1".into(),
        source: Source::Omi,
        language: Some("en".into()),
        timeout: TIMEOUT,
        choice,
        fresh_id: fresh.into(),
        call_id: None,
        now: at(0),
    }
}

/// Something to do.
pub fn action_item(description: &str) -> ActionItem {
    ActionItem {
        description: description.into(),
        completed: false,
        created_at: None,
        updated_at: None,
        due_at: None,
        completed_at: None,
    }
}

/// One batch of words.
pub fn batch(ownership: &Ownership, secs: i64, segments: &[Segment]) -> AppendSegments {
    AppendSegments {
        ownership: ownership.clone(),
        upsert: segments.to_vec(),
        delete: Vec::new(),
        started_at: None,
        now: at(secs),
    }
}

/// The end of `conversation` by whoever owns it.
pub fn ending(conversation: &ConversationId, owner: Option<&Ownership>, job: &str, secs: i64) -> Finalise {
    Finalise {
        conversation: conversation.clone(),
        owner: owner.cloned(),
        reason: FinaliseReason::Silence,
        job_id: job.into(),
        now: at(secs),
    }
}

/// A completion with this title.
pub fn completion(lease: &JobLease, title: &str, secs: i64) -> Completion {
    Completion {
        lease: lease.clone(),
        structured: Structured {
            title: title.into(),
            overview: format!("About {title}."),
            ..Structured::default()
        },
        provenance: Provenance { provider: "local".into(), version: "1".into() },
        discarded: None,
        memories: Vec::new(),
        effects: vec![NewEffect {
            id: format!("effect-{title}-{}", lease.epoch).into(),
            name: "notify:memory_created".into(),
            payload: "{}".into(),
        }],
        now: at(secs),
    }
}

impl Ground {
    /// Both processes are announced for a long time, and `ann` has a stub of this id, owned by `p1`.
    pub async fn live(&self, id: &str) -> Ownership {
        self.announce().await;
        self.store.open_conversation(opening(Choice::New, id)).await.unwrap().ownership
    }

    /// Announces both processes for a long time.
    pub async fn announce(&self) {
        for process in ["p1", "p2"] {
            self.store.process_alive(&ProcessId::from(process), at(100_000)).await.unwrap();
        }
    }

    /// A conversation with one segment that has ended; its job is `job-{id}`.
    pub async fn ended(&self, id: &str, text: &str) -> ConversationId {
        let owner = self.live(id).await;
        self.store.append_segments(batch(&owner, 1, &[segment("s1", 0.0, text)])).await.unwrap();
        let done =
            self.store.finalise(ending(&owner.conversation, Some(&owner), &format!("job-{id}"), 2)).await;
        assert!(matches!(done.unwrap(), Finalised::Queued { .. }));
        owner.conversation
    }

    /// Claims the one due job for `process`.
    pub async fn claim(&self, process: &str, secs: i64) -> ClaimedJob {
        self.store
            .claim_job(&process.into(), at(secs), LEASE, ClaimRule::default())
            .await
            .unwrap()
            .expect("a job is due")
    }

    /// A conversation that was processed under this title.
    pub async fn completed(&self, id: &str, text: &str, title: &str) -> ConversationId {
        let conversation = self.ended(id, text).await;
        let claimed = self.claim("p1", 3).await;
        self.store.complete_job(completion(&claimed.lease, title, 4)).await.unwrap();
        conversation
    }

    /// The ids of a conversation's segments, in their order.
    pub async fn segment_ids(&self, user: &str, id: &str) -> Vec<SegmentId> {
        let found = self.store.conversation(&UserId::from(user), &id.into()).await.unwrap().unwrap();
        found.segments.into_iter().map(|segment| segment.id).collect()
    }
}

/// The same ownership with another epoch.
pub fn with_epoch(ownership: &Ownership, epoch: u64) -> Ownership {
    Ownership { epoch: Epoch(epoch), ..ownership.clone() }
}

/// One `#[tokio::test]` for each function of the suite; `$ground` is an expression that makes a [`Ground`].
#[macro_export]
macro_rules! store_conformance {
    ($ground:expr) => {
        $crate::store_conformance!(whole_words: $ground);
        $crate::store_conformance!(@each $ground; beginnings: the_last_word_matches_by_its_beginning,
                the_last_word_of_a_record_matches_by_its_beginning;);
    };
    // A store whose search knows whole words only, as under a key.
    (whole_words: $ground:expr) => {
        $crate::store_conformance!(@each $ground;
            accounts: users_are_made_once, time_zone_is_kept_by_user, keys_name_their_user_until_removed,
                speaker_samples_are_kept_by_person_and_conversation;
            live: a_stub_is_made_and_owned, a_status_is_read_by_its_user_and_at_each_stage, resume_takes_the_newest_of_user_and_source, resume_is_by_source_and_user,
                resume_ends_with_the_timeout, a_client_named_conversation_is_not_resumed_by_others,
                named_resumes_makes_or_gives_a_stub, named_of_another_user_gives_a_stub, new_is_always_a_stub,
                opening_again_with_the_same_id_is_the_same_conversation, words_come_back_as_stored_in_order_of_start,
                changed_segments_replace_and_absorbed_ones_go, repeating_a_batch_changes_nothing,
                a_batch_is_stored_whole_or_not_at_all, m05_the_older_session_is_fenced,
                fencing_holds_between_processes, a_dead_process_owns_nothing, process_gone_frees_at_once,
                release_leaves_it_to_the_next, the_first_photo_names_the_source, photos_are_described,
                l35_speakers_are_assigned_once, the_tail_is_the_last_segment_by_start, many_appends_at_once_all_arrive,
                what_a_process_owns_is_known_until_it_is_given_up_or_ends;
            ending: l34_empty_is_checked_in_the_deleting_transaction, l34_a_late_segment_is_fenced_not_lost,
                a_photo_is_content, ending_queues_the_job_in_the_same_transaction, d13_ending_twice_makes_one_job,
                the_clients_reason_is_kept, a_live_conversation_is_ended_only_by_its_owner,
                l07_orphans_are_unowned_and_overdue, l08_a_resumed_conversation_is_no_longer_an_orphan,
                orphans_of_a_dead_process_are_seen_by_another, deletion_takes_everything_and_fences,
                other_users_cannot_touch_it, reprocess_starts_a_revision, stand_ins_are_found_until_they_are_made_anew, listing_filters_and_pages,
                ids_are_listed_whatever_they_name,
                the_users_title_and_place_are_kept;
            uploads: a_file_is_kept_once_for_each_user, an_upload_is_claimed_by_one_at_a_time,
                words_and_end_are_one_and_conversations_wait_for_their_neighbours, far_stretches_are_conversations_of_their_own,
                a_worker_that_wakes_late_changes_no_upload, spent_uploads_fail_and_come_back_when_asked,
                a_failed_neighbour_lets_the_conversation_end, nobody_speaks_and_nothing_is_made,
                uploads_go_with_their_user, what_is_made_of_uploads_is_nobodys_to_sweep_or_resume;
            retranscriptions: only_an_ended_conversation_of_the_users_own_is_heard_again,
                what_was_heard_again_replaces_and_the_old_is_readable,
                works_are_listed_found_and_revived_for_their_user_alone, d04_a_conversation_heard_again_is_told_to_no_target,
                d14_whoever_wakes_late_changes_no_transcript, a_retranscription_that_fails_leaves_the_transcript,
                a_conversation_that_is_processed_meanwhile_is_not_overtaken,
                an_earlier_word_moves_the_clock_and_closes_the_gap,
                revisions_are_bounded_and_go_with_their_conversation, what_became_of_uploads_is_known;
            erasing: a_marked_user_begins_nothing_and_has_no_key, erasing_takes_one_user_in_steps_and_is_repeated_safely;
            recovery: recovered_words_are_put_in_by_time, a_run_is_put_in_once, recovery_into_an_empty_one_sets_the_clock,
                l32_a_marked_gap_is_content, l36_words_arrive_after_the_end, recovery_of_a_deleted_one_is_not_found;
            jobs: a_job_is_claimed_once, d01_two_processes_never_hold_one_job, claims_take_the_most_overdue,
                s03_an_expired_lease_is_claimed_by_another, d14_a_worker_that_wakes_late_changes_nothing,
                renewing_keeps_the_lease, steps_are_recorded_once_and_resumed, d04_completing_twice_is_one_completion,
                l35_completion_keeps_late_segments_and_the_users_title, l35_completion_never_makes_a_row,
                a_retry_waits_for_its_time, a_released_attempt_is_not_counted,
                a_postponed_attempt_waits_and_is_not_counted, s04_failure_is_of_job_and_conversation_together,
                s01_spent_attempts_fail_visibly, a_failed_job_is_revived, all_failed_jobs_are_revived_at_once, l14_a_discarded_record_keeps_its_transcript,
                d15_an_older_revisions_worker_changes_nothing, jobs_are_listed_by_user_and_state, counts_tell_the_truth,
                s03_process_gone_frees_its_leases, a_claim_may_leave_the_first_chance_to_others,
                a_claim_may_be_for_one_of_each_user;
            effects: effects_are_recorded_with_the_completion, d09_an_effect_is_held_by_one_deliverer,
                d16_an_effect_is_delivered_again_after_a_crash, d10_a_key_is_recorded_once, retries_wait_for_their_time,
                ended_effects_stay_ended, attempts_end_some_time, effects_are_claimed_by_kind,
                a_postponed_delivery_waits_and_is_not_counted, failed_effects_are_revived_under_their_keys;
            records: a_completion_makes_its_records, the_same_revision_twice_doubles_nothing,
                a_new_revision_replaces_what_nobody_touched, what_the_user_touched_survives_every_revision,
                what_the_user_deleted_does_not_come_back, a_conversation_shows_what_the_records_say,
                records_made_by_hand_are_not_made_again, what_the_user_worded_outlives_its_conversation,
                a_conversation_of_the_same_id_makes_records_again, action_items_are_filtered_and_paged,
                every_user_has_only_their_own_records, records_are_made_for_ones_own_conversations_only;
            meaning: a_completion_leaves_work_and_a_discarded_one_does_not,
                the_nearest_come_first_by_their_nearest_text, searches_follow_every_change, nobody_finds_what_is_anothers,
                another_models_vectors_are_not_compared_and_are_made_again,
                a_claim_runs_out_and_its_holder_changes_nothing, a_process_that_goes_gives_its_claims_back,
                attempts_wait_for_their_time_and_end_some_time,
                words_that_come_late_and_another_title_are_embedded_again, the_latest_is_embedded_first;
            people: people_are_found_by_name_and_are_their_users_own, voices_are_kept_by_model_and_go_with_their_person,
                a_deleted_person_is_taken_from_all_segments_of_their_user,
                l35_segments_are_assigned_anew_at_any_stage_and_keep_the_rest,
                a_resumed_conversation_knows_whom_its_speakers_were_assigned_to,
                a_deleted_users_people_and_voices_go;
            targets: targets_are_their_users_own, a_user_has_so_many_targets,
                d10_a_record_is_told_to_each_target_once_and_with_its_completion,
                d04_a_record_that_is_made_again_is_told_to_no_target, a_first_record_after_a_failure_is_told,
                a_discarded_conversation_is_told_to_developers_only, a_day_is_told_once,
                what_a_paused_target_hears_of_waits_until_it_is_resumed,
                what_waits_for_a_target_that_is_off_fails_and_a_replay_brings_it_back,
                one_host_holds_so_many_and_the_others_go_on, a_long_queue_of_one_host_hides_nobody,
                a_target_that_fails_for_days_is_warned_of_and_switched_off, a_success_ends_a_targets_failures,
                m07_a_change_of_a_users_targets_is_seen_by_all_and_a_delivery_is_none,
                d09_an_answer_that_comes_twice_is_one_message, messages_are_their_users_own_and_bounded;
            translations: a_translation_stands_beside_the_text_that_it_is_of, a_language_is_kept_by_user;
            days: a_day_with_records_is_queued_once_and_made_once, a_day_waits_for_records_to_come_but_not_for_ever,
                a_day_of_no_records_is_none, a_lost_claim_writes_nothing_and_a_recorded_step_is_found,
                attempts_are_counted_and_absences_are_not, a_day_that_is_made_again_keeps_its_old_summary_until_then,
                users_who_were_heard_of_late_are_listed_with_their_zones;
            search: words_are_anded_over_the_conversation, phrases_stand_together, any_text_is_a_query,
                a_ranking_and_its_hits_are_the_search, rarer_words_more_lines_and_titles_weigh_more,
                a_row_that_is_given_again_is_whose_it_is_now,
                users_see_only_their_own, matches_are_marked_and_placed, the_index_follows_every_write,
                pages_do_not_overlap, records_are_found_by_their_words, near_hits_begin_where_they_are_near;
        );
    };
    (@each $ground:expr; $($module:ident: $($name:ident),+;)+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let ground: $crate::conformance::Ground = $ground;
                $crate::conformance::$module::$name(ground).await;
            })+
        })+
    };
}
