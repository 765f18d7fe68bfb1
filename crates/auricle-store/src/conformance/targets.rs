//! Targets: told once of each record, held when paused, given up when they fail for long; and messages.

use auricle_core::target::Verdict;
use auricle_core::{DiscardReason, EffectState, EffectSubject, TargetKind, TargetState, Trigger, UserId};

use super::{Ground, LEASE, at, completion};
use crate::store::{
    DeliveryNote, Effect, EffectOutcome, NewMessage, NewTarget, Sensitive, StoreError, Target, TargetSettings,
};

const DAY: i64 = 86_400;

fn settings(host: &str, triggers: &[Trigger]) -> TargetSettings {
    TargetSettings {
        name: "mine".into(),
        triggers: triggers.to_vec(),
        url: Sensitive::new(format!("http://{host}/hook?key=1")),
        host: host.into(),
        audio_secs: 5,
    }
}

impl Ground {
    async fn target(&self, user: &str, id: &str, kind: TargetKind, trigger: Trigger) {
        self.target_at(user, id, kind, trigger, &format!("{id}:80")).await;
    }

    async fn target_at(&self, user: &str, id: &str, kind: TargetKind, trigger: Trigger, host: &str) {
        let new = NewTarget {
            id: id.into(),
            user: user.into(),
            kind,
            settings: settings(host, &[trigger]),
            secret: Sensitive::new("s3cret"),
            now: at(0),
        };
        self.store.add_target(new).await.unwrap();
    }

    async fn set(&self, id: &str, state: TargetState, secs: i64) {
        let settings = self.read(id).await.settings;
        self.store.change_target(&"ann".into(), &id.into(), settings, Some(state), at(secs)).await.unwrap();
    }

    async fn read(&self, id: &str) -> Target {
        self.other.target(&"ann".into(), &id.into()).await.unwrap().expect("it is there")
    }

    async fn told(&self, secs: i64, limit: usize) -> Vec<Effect> {
        self.store.claim_effects(&"p1".into(), at(secs), LEASE, limit, &["target"]).await.unwrap()
    }

    async fn names(&self, conversation: &str) -> Vec<String> {
        let effects = self.store.effects(&conversation.into()).await.unwrap();
        effects.into_iter().map(|effect| effect.key.name).collect()
    }
}

pub async fn targets_are_their_users_own(ground: Ground) {
    ground.announce().await;
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    let (ann, eve, id) = (UserId::from("ann"), UserId::from("eve"), "t1".into());
    ground.store.ensure_user(&eve, at(0)).await.unwrap();
    let target = ground.read("t1").await;
    assert_eq!(target.settings, settings("t1:80", &[Trigger::Conversation]));
    assert!(!format!("{target:?}").contains("key=1"), "an address may hold a secret");
    let recipient = ground.store.recipient(&ann, &id).await.unwrap().unwrap();
    assert_eq!(recipient.secret.expose(), "s3cret");
    assert!(!format!("{recipient:?}").contains("s3cret"));
    assert!(ground.store.targets(&eve).await.unwrap().is_empty());
    assert!(ground.store.target(&eve, &id).await.unwrap().is_none());
    assert!(ground.store.recipient(&eve, &id).await.unwrap().is_none());
    let hers = [
        ground.store.change_target(&eve, &id, target.settings.clone(), None, at(1)).await,
        ground.store.set_target_secret(&eve, &id, Sensitive::new("x")).await,
        ground.store.remove_target(&eve, &id).await,
        ground.store.replay(&eve, &id, None, at(1), 10).await.map(drop),
        ground.store.deliveries(&eve, &id, 10).await.map(drop),
    ];
    assert!(hers.iter().all(|refused| matches!(refused, Err(StoreError::NotFound(_)))), "{hers:?}");
    ground.store.set_target_secret(&ann, &id, Sensitive::new("new")).await.unwrap();
    assert_eq!(ground.store.recipient(&ann, &id).await.unwrap().unwrap().secret.expose(), "new");
    ground.store.remove_target(&ann, &id).await.unwrap();
    assert!(ground.store.targets(&ann).await.unwrap().is_empty());
}

pub async fn a_user_has_so_many_targets(ground: Ground) {
    for number in 0..50 {
        ground.target("ann", &format!("t{number}"), TargetKind::App, Trigger::Audio).await;
    }
    // The same again is there already.
    ground.target("ann", "t0", TargetKind::App, Trigger::Audio).await;
    let new = NewTarget {
        id: "one-more".into(),
        user: "ann".into(),
        kind: TargetKind::App,
        settings: settings("a:80", &[Trigger::Audio]),
        secret: Sensitive::new("s"),
        now: at(0),
    };
    assert!(matches!(ground.store.add_target(new).await, Err(StoreError::Conflict(_))));
    assert_eq!(ground.store.targets(&"ann".into()).await.unwrap().len(), 50);
}

pub async fn d10_a_record_is_told_to_each_target_once_and_with_its_completion(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.target("ann", "t2", TargetKind::App, Trigger::Conversation).await;
    ground.target("ann", "t3", TargetKind::App, Trigger::Transcript).await;
    ground.target("ann", "t4", TargetKind::App, Trigger::Conversation).await;
    ground.target("eve", "t5", TargetKind::Developer, Trigger::Conversation).await;
    ground.set("t4", TargetState::Off, 0).await;
    ground.ended("c1", "hello").await;
    let claimed = ground.claim("p1", 3).await;
    for _ in 0..2 {
        ground.store.complete_job(completion(&claimed.lease, "Greeting", 4)).await.unwrap();
    }
    assert_eq!(ground.names("c1").await, ["notify:memory_created", "target:t1", "target:t2"]);
    let effect = ground.store.effects(&"c1".into()).await.unwrap().remove(1);
    assert_eq!(effect.key.idempotency_key(), "conversation:c1:finalization:1:target:t1");
    assert_eq!((effect.target, effect.created_at, effect.ended_at), (Some("t1".into()), at(4), None));
}

pub async fn d04_a_record_that_is_made_again_is_told_to_no_target(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.completed("c1", "hello", "Greeting").await;
    ground.store.reprocess(&"ann".into(), &"c1".into(), "again".into(), at(5)).await.unwrap();
    let claimed = ground.claim("p1", 6).await;
    ground.store.complete_job(completion(&claimed.lease, "Once more", 7)).await.unwrap();
    let told = ground.names("c1").await;
    assert_eq!(told.iter().filter(|name| *name == "target:t1").count(), 1, "{told:?}");
}

pub async fn a_first_record_after_a_failure_is_told(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.ended("c1", "hello").await;
    let claimed = ground.claim("p1", 3).await;
    let failed = crate::store::AttemptOutcome::Failed { error: "no".into() };
    ground.store.end_attempt(&claimed.lease, failed, at(4)).await.unwrap();
    ground.store.reprocess(&"ann".into(), &"c1".into(), "again".into(), at(5)).await.unwrap();
    let claimed = ground.claim("p1", 6).await;
    ground.store.complete_job(completion(&claimed.lease, "At last", 7)).await.unwrap();
    assert!(ground.names("c1").await.contains(&"target:t1".to_owned()));
}

pub async fn a_discarded_conversation_is_told_to_developers_only(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.target("ann", "t2", TargetKind::App, Trigger::Conversation).await;
    ground.ended("c1", "hm").await;
    let claimed = ground.claim("p1", 3).await;
    let mut done = completion(&claimed.lease, "", 4);
    done.discarded = Some(DiscardReason::Trivial);
    ground.store.complete_job(done).await.unwrap();
    assert_eq!(ground.names("c1").await, ["notify:memory_created", "target:t1"]);
}

pub async fn a_day_is_told_once(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::DaySummary).await;
    ground.target("ann", "t2", TargetKind::Developer, Trigger::Conversation).await;
    let record = |user: &'static str| {
        let store = &ground.store;
        async move { store.record_day_effects(&user.into(), "2026-11-25", r#"{"summary":"x"}"#, at(1)).await }
    };
    assert_eq!(record("ann").await.unwrap(), 1);
    assert_eq!(record("ann").await.unwrap(), 0);
    assert_eq!(record("nobody").await.unwrap(), 0);
    ground.target("eve", "t3", TargetKind::Developer, Trigger::DaySummary).await;
    assert_eq!(record("eve").await.unwrap(), 1, "another user's day");
    let told = ground.told(2, 10).await;
    assert_eq!(told[0].key.subject, EffectSubject::Other("day:2026-11-25".into()));
    assert_eq!(told[0].key.idempotency_key(), "day:2026-11-25:target:t1");
    assert_eq!((told.len(), told[0].payload.as_str()), (2, r#"{"summary":"x"}"#));
}

pub async fn what_a_paused_target_hears_of_waits_until_it_is_resumed(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.completed("c1", "hello", "One").await;
    ground.set("t1", TargetState::Paused, 5).await;
    ground.completed("c2", "hello", "Two").await;
    assert!(ground.told(9_999, 10).await.is_empty(), "what was there, and what comes");
    assert_eq!(ground.read("t1").await.waiting, 2);
    ground.set("t1", TargetState::On, 10_000).await;
    let mut due = ground.told(10_000, 10).await;
    assert_eq!(due.len(), 2);
    // Paused while it is being delivered: it is tried again only once it is on.
    ground.set("t1", TargetState::Paused, 10_001).await;
    let held = due.remove(0);
    let retry = EffectOutcome::Retry { at: at(10_002), error: "503".into() };
    ground.store.end_effect(&held.id, held.epoch, retry, at(10_001)).await.unwrap();
    assert!(ground.told(20_000, 10).await.is_empty());
    ground.set("t1", TargetState::On, 20_001).await;
    assert_eq!(ground.told(20_001, 10).await.len(), 2, "with the one whose deliverer is gone");
}

pub async fn what_waits_for_a_target_that_is_off_fails_and_a_replay_brings_it_back(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.completed("c1", "hello", "One").await;
    ground.completed("c2", "hello", "Two").await;
    let held = ground.told(5, 1).await.remove(0);
    ground.set("t1", TargetState::Off, 6).await;
    let retry = EffectOutcome::Retry { at: at(7), error: "503".into() };
    ground.store.end_effect(&held.id, held.epoch, retry, at(6)).await.unwrap();
    assert!(ground.told(8, 10).await.is_empty());
    let (ann, id) = (UserId::from("ann"), "t1".into());
    let all = ground.store.deliveries(&ann, &id, 10).await.unwrap();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|effect| effect.state == EffectState::Failed && effect.ended_at.is_some()));
    assert!(matches!(ground.store.replay(&ann, &id, None, at(9), 10).await, Err(StoreError::Conflict(_))));
    assert_eq!(ground.store.retry_failed_effects(None, at(9), 10).await.unwrap(), 0);
    ground.set("t1", TargetState::On, 9).await;
    assert_eq!(ground.store.replay(&ann, &id, None, at(9), 10).await.unwrap(), 2);
    let again = ground.told(9, 10).await;
    assert_eq!(again.iter().map(|effect| effect.attempts).collect::<Vec<_>>(), [1, 1]);
    let one = &again[0];
    assert!(matches!(
        ground.store.replay(&ann, &id, Some(&one.id), at(9), 10).await,
        Err(StoreError::Conflict(_))
    ));
    ground.store.end_effect(&one.id, one.epoch, EffectOutcome::Delivered, at(10)).await.unwrap();
    assert_eq!(ground.store.replay(&ann, &id, Some(&one.id), at(11), 10).await.unwrap(), 1);
    assert_eq!(ground.told(11, 10).await[0].key, one.key, "under its key");
    let none = ground.store.replay(&ann, &id, Some(&"none".into()), at(11), 10).await;
    assert!(matches!(none, Err(StoreError::NotFound(_))));
}

pub async fn one_host_holds_so_many_and_the_others_go_on(ground: Ground) {
    for number in 0..7 {
        ground
            .target_at("ann", &format!("hung{number}"), TargetKind::App, Trigger::Conversation, "hung:80")
            .await;
    }
    ground.target("ann", "well", TargetKind::App, Trigger::Conversation).await;
    ground.completed("c1", "hello", "One").await;
    let (p1, p2) = ("p1".into(), "p2".into());
    let first = ground.store.claim_effects(&p1, at(5), LEASE, 64, &["target"]).await.unwrap();
    let second = ground.other.claim_effects(&p2, at(5), LEASE, 64, &["target"]).await.unwrap();
    let held = |effects: &[Effect], name: &str| {
        effects.iter().filter(|effect| effect.key.name.starts_with(name)).count()
    };
    assert_eq!((held(&first, "target:hung"), held(&first, "target:well")), (4, 1));
    assert_eq!(second.len(), 0, "of all processes together");
    ground.store.end_effect(&first[0].id, first[0].epoch, EffectOutcome::Delivered, at(6)).await.unwrap();
    assert_eq!(ground.told(6, 64).await.len(), 1);
    assert_eq!(held(&ground.told(30, 64).await, "target:hung"), 4, "their deliverer is gone");
}

pub async fn a_long_queue_of_one_host_hides_nobody(ground: Ground) {
    for number in 0..20 {
        ground
            .target_at("ann", &format!("hung{number}"), TargetKind::App, Trigger::Conversation, "hung:80")
            .await;
    }
    for number in 0..30 {
        ground.completed(&format!("c{number}"), "hello", &format!("Title {number}")).await;
    }
    ground.target("ann", "well", TargetKind::App, Trigger::Conversation).await;
    ground.completed("last", "hello", "Last").await;
    let claimed = ground.told(50, 64).await;
    let names: Vec<_> = claimed.iter().map(|effect| effect.key.name.as_str()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains(&"target:well"), "behind 600 others: {names:?}");
}

pub async fn a_target_that_fails_for_days_is_warned_of_and_switched_off(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    ground.completed("c1", "hello", "One").await;
    let id = "t1".into();
    let fail =
        || DeliveryNote { failed: 1, error: Some("a:80 answered HTTP 500".into()), ..Default::default() };
    let mut verdicts = Vec::new();
    for hour in 0..=80 {
        let noted = ground.store.note_deliveries(&id, fail(), at(hour * 3_600)).await.unwrap();
        verdicts.extend(noted.map(|verdict| (hour, verdict)));
    }
    assert_eq!(verdicts, [(24, Verdict::Warn), (72, Verdict::Off)]);
    let target = ground.read("t1").await;
    assert_eq!((target.state, target.off_at), (TargetState::Off, Some(at(72 * 3_600))));
    // Who had read it while it was on, and changes its name, does not switch it on.
    let read_before = TargetSettings { name: "renamed".into(), ..target.settings };
    let (ann, id) = ("ann".into(), target.id.clone());
    ground.store.change_target(&ann, &id, read_before, None, at(72 * 3_600 + 1)).await.unwrap();
    let target = ground.read(id.as_str()).await;
    assert_eq!((target.settings.name.as_str(), target.state), ("renamed", TargetState::Off));
    assert_eq!((target.failed, target.waiting), (81, 0));
    assert_eq!(ground.store.deliveries(&"ann".into(), &id, 9).await.unwrap()[0].state, EffectState::Failed);
    let told = ground.store.messages(&"ann".into(), 10, 0).await.unwrap();
    assert_eq!(told.len(), 2);
    assert!(told[0].text.contains("switched off") && told[1].text.contains("HTTP 500"), "{told:?}");
    ground.set("t1", TargetState::On, 80 * 3_600).await;
    let target = ground.read("t1").await;
    assert_eq!((target.off_at, target.health.failures), (None, 0), "it begins anew");
}

pub async fn a_success_ends_a_targets_failures(ground: Ground) {
    ground.target("ann", "t1", TargetKind::Developer, Trigger::Conversation).await;
    let id = "t1".into();
    for day in 0..10 {
        let fail = DeliveryNote { failed: 5, error: Some("500".into()), ..Default::default() };
        assert_eq!(ground.store.note_deliveries(&id, fail, at(day * DAY)).await.unwrap(), None);
        let works = DeliveryNote { delivered: 2, ..Default::default() };
        assert_eq!(ground.store.note_deliveries(&id, works, at(day * DAY + 60)).await.unwrap(), None);
    }
    let target = ground.read("t1").await;
    assert_eq!((target.delivered, target.failed, target.health.failing_since), (20, 50, None));
    assert_eq!(target.last_delivery_at, Some(at(9 * DAY + 60)));
    assert!(ground.store.messages(&"ann".into(), 10, 0).await.unwrap().is_empty());
    let gone = ground.store.note_deliveries(&"gone".into(), DeliveryNote::default(), at(1)).await;
    assert_eq!(gone.unwrap(), None);
}

pub async fn m07_a_change_of_a_users_targets_is_seen_by_all_and_a_delivery_is_none(ground: Ground) {
    let changed = async |since| ground.other.targets_changed(since, 10).await.unwrap();
    assert_eq!(changed(0).await, (Vec::new(), 0));
    ground.target("ann", "t1", TargetKind::App, Trigger::Transcript).await;
    ground.target("eve", "t2", TargetKind::App, Trigger::Conversation).await;
    let (users, version) = changed(0).await;
    assert_eq!(users, ["ann".into(), "eve".into()]);
    let works = DeliveryNote { delivered: 1, ..Default::default() };
    ground.store.note_deliveries(&"t1".into(), works, at(1)).await.unwrap();
    assert_eq!(changed(version).await, (Vec::new(), version));
    assert_eq!(ground.store.realtime_recipients(&"ann".into()).await.unwrap().len(), 1);
    assert!(ground.store.realtime_recipients(&"eve".into()).await.unwrap().is_empty());
    ground.set("t1", TargetState::Paused, 2).await;
    assert!(ground.store.realtime_recipients(&"ann".into()).await.unwrap().is_empty());
    let (users, later) = changed(version).await;
    assert_eq!(users, ["ann".into()]);
    ground.store.remove_target(&"ann".into(), &"t1".into()).await.unwrap();
    assert_eq!(changed(later).await.0, ["ann".into()]);
}

fn message(key: &str, text: &str) -> NewMessage {
    NewMessage {
        user: "ann".into(),
        target: "t1".into(),
        conversation: Some("c1".into()),
        key: key.into(),
        text: text.into(),
        now: at(5),
    }
}

pub async fn d09_an_answer_that_comes_twice_is_one_message(ground: Ground) {
    ground.target("ann", "t1", TargetKind::App, Trigger::Conversation).await;
    ground.completed("c1", "hello", "One").await;
    assert!(ground.store.add_message(message("k1", "Well said")).await.unwrap());
    assert!(!ground.store.add_message(message("k1", "Well said again")).await.unwrap());
    let told = ground.other.messages(&"ann".into(), 10, 0).await.unwrap();
    assert_eq!((told.len(), told[0].text.as_str(), told[0].sender.as_str()), (1, "Well said", "mine"));
    assert_eq!((&told[0].conversation, told[0].delivered_at), (&Some("c1".into()), None));
    let notify = ground.store.claim_effects(&"p1".into(), at(6), LEASE, 10, &["notify"]).await.unwrap();
    let notify: Vec<_> = notify.iter().filter(|effect| effect.key.name == "notify:message").collect();
    assert_eq!(notify.len(), 1);
    assert!(notify[0].payload.contains(told[0].id.as_str()));
    for secs in [7, 8] {
        ground.store.message_delivered(&"ann".into(), &told[0].id, at(secs)).await.unwrap();
    }
    let read = ground.store.message(&"ann".into(), &told[0].id).await.unwrap().unwrap();
    assert_eq!(read.delivered_at, Some(at(7)));
}

pub async fn messages_are_their_users_own_and_bounded(ground: Ground) {
    ground.target("ann", "t1", TargetKind::App, Trigger::Conversation).await;
    ground.target("eve", "t2", TargetKind::App, Trigger::Conversation).await;
    let long = "ä".repeat(10_000);
    assert!(ground.store.add_message(message("k", &long)).await.unwrap());
    let told = ground.store.messages(&"ann".into(), 10, 0).await.unwrap().remove(0);
    assert_eq!((told.text.chars().count(), told.conversation), (4_000, None), "cut, and of no conversation");
    assert!(ground.store.messages(&"eve".into(), 10, 0).await.unwrap().is_empty());
    assert!(ground.store.message(&"eve".into(), &told.id).await.unwrap().is_none());
    let not_hers = NewMessage { user: "eve".into(), ..message("k", "x") };
    assert!(!ground.store.add_message(not_hers).await.unwrap());
    // All at once, so that they share transactions.
    let added: Vec<_> = (0..1_005)
        .map(|number| {
            let (store, message) =
                (std::sync::Arc::clone(&ground.store), message(&format!("k{number}"), "x"));
            tokio::spawn(async move { store.add_message(message).await })
        })
        .collect();
    for each in added {
        assert!(each.await.unwrap().unwrap());
    }
    assert_eq!(ground.store.messages(&"ann".into(), 2_000, 0).await.unwrap().len(), 1_000);
    ground.store.remove_target(&"ann".into(), &"t1".into()).await.unwrap();
    let kept = ground.store.messages(&"ann".into(), 1, 0).await.unwrap().remove(0);
    assert_eq!((kept.target, kept.sender.as_str()), (None, "mine"));
}
