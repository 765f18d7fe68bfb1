use proptest::prelude::*;

use super::*;

const QUIET: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(6);

#[expect(clippy::disallowed_methods, reason = "any instant will do to begin with")]
fn batcher() -> (Batcher, Instant) {
    let limits = Limits {
        translation_quiet: QUIET,
        translation_wait_max: WAIT,
        translation_batch_segments_max: 3,
        translation_batch_chars_max: 20,
        translation_waiting_max: 5,
        ..Limits::default()
    };
    (Batcher::new(&limits), Instant::now())
}

fn item(segment: &str, text: &str) -> Item {
    Item { conversation: "c1".into(), segment: segment.into(), text: text.into() }
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

#[test]
fn a_segment_waits_until_it_is_quiet_but_not_for_ever() {
    let (mut batcher, zero) = batcher();
    batcher.heard(zero, item("a", "one"));
    assert_eq!(batcher.timeout(), Some(zero + QUIET));
    batcher.heard(zero + secs(1.5), item("a", "one two"));
    assert_eq!(batcher.poll(zero + QUIET), None);
    assert_eq!(batcher.poll(zero + secs(3.5)), Some(vec![item("a", "one two")]));
    assert_eq!((batcher.timeout(), batcher.take_dropped()), (None, vec![(Dropped::Superseded, 1)]));
    assert_eq!(batcher.answered(), [item("a", "one two")]);
    assert!(batcher.is_idle());
    // Somebody who never pauses.
    for tenth in 0..60 {
        batcher.heard(zero + secs(10.0 + f64::from(tenth) / 10.0), item("b", &format!("{tenth}")));
    }
    assert_eq!(batcher.timeout(), Some(zero + secs(10.0) + WAIT));
    assert_eq!(batcher.poll(zero + secs(10.0) + WAIT), Some(vec![item("b", "59")]));
}

#[test]
fn what_is_said_meanwhile_gathers_and_what_changed_meanwhile_is_not_shown() {
    let (mut batcher, zero) = batcher();
    batcher.heard(zero, item("a", "one"));
    batcher.heard(zero, item("b", "two"));
    assert_eq!(batcher.poll(zero + QUIET).unwrap().len(), 2);
    batcher.heard(zero + secs(3.0), item("b", "two"));
    batcher.heard(zero + secs(3.0), item("a", "one more"));
    assert_eq!(batcher.poll(zero + secs(60.0)), None, "one batch at a time");
    assert_eq!(batcher.answered(), [item("b", "two")]);
    assert_eq!(batcher.take_dropped(), [(Dropped::Superseded, 1)]);
    assert_eq!(batcher.poll(zero + secs(60.0)), Some(vec![item("a", "one more")]));
}

#[test]
fn what_came_back_is_not_asked_for_again_while_it_says_the_same() {
    let (mut batcher, zero) = batcher();
    batcher.heard(zero, item("a", "one"));
    batcher.poll(zero + QUIET).unwrap();
    batcher.answered();
    // The next segment, and with it the one before.
    batcher.heard(zero + secs(3.0), item("a", "one"));
    batcher.heard(zero + secs(3.0), item("b", "two"));
    assert_eq!(batcher.poll(zero + secs(6.0)), Some(vec![item("b", "two")]));
    batcher.answered();
    batcher.heard(zero + secs(7.0), item("b", "two and three"));
    assert_eq!(batcher.poll(zero + secs(9.0)), Some(vec![item("b", "two and three")]));
    assert_eq!(batcher.take_dropped(), []);
}

#[test]
fn batches_and_what_waits_are_bounded() {
    let (mut batcher, zero) = batcher();
    for number in 0..7 {
        batcher.heard(zero, item(&format!("s{number}"), "1234567"));
    }
    batcher.heard(zero, item("long", &"x".repeat(21)));
    assert_eq!(batcher.take_dropped(), [(Dropped::Full, 1), (Dropped::Full, 1), (Dropped::TooLong, 1)]);
    let batch = batcher.poll(zero + WAIT).unwrap();
    assert_eq!(batch.iter().map(|item| item.segment.as_str()).collect::<Vec<_>>(), ["s2", "s3"]);
}

#[test]
fn a_failure_costs_its_batch_and_a_pause_and_the_end_waits_for_nobody_quiet() {
    let (mut batcher, zero) = batcher();
    batcher.heard(zero, item("a", "one"));
    batcher.poll(zero + QUIET).unwrap();
    batcher.failed(Dropped::Failed, zero + secs(30.0));
    assert_eq!(batcher.take_dropped(), [(Dropped::Failed, 1)]);
    batcher.heard(zero + secs(3.0), item("b", "two"));
    assert_eq!((batcher.poll(zero + secs(29.0)), batcher.timeout()), (None, Some(zero + secs(30.0))));
    batcher.heard(zero + secs(30.0), item("c", "three"));
    batcher.end();
    assert_eq!(batcher.poll(zero + secs(30.0)).unwrap().len(), 2);
    batcher.give_up();
    assert_eq!(batcher.take_dropped(), [(Dropped::Ended, 2)]);
    assert!(batcher.is_idle());
}

#[test]
fn a_deleted_segment_is_forgotten() {
    let (mut batcher, zero) = batcher();
    batcher.heard(zero, item("a", "one"));
    batcher.deleted(&"a".into());
    batcher.deleted(&"none".into());
    assert!(batcher.is_idle());
    assert_eq!(batcher.take_dropped(), [(Dropped::Deleted, 1)]);
    batcher.heard(zero, item("a", " "));
    assert!(batcher.is_idle());
}

proptest! {
    #[test]
    fn every_text_comes_out_once_or_is_counted(
        steps in prop::collection::vec((0_u8..5, 0_u8..6, 0_u16..3_000), 1..200),
    ) {
        let (mut batcher, mut now) = batcher();
        let (mut put, mut out) = (0, 0);
        let mut last: std::collections::HashMap<String, String> = std::collections::HashMap::new();
        for (number, (what, segment, millis)) in steps.into_iter().enumerate() {
            now += Duration::from_millis(u64::from(millis));
            match what {
                0..=2 => {
                    let (id, text) = (format!("s{segment}"), format!("t{number}"));
                    put += 1;
                    last.insert(id.clone(), text.clone());
                    batcher.heard(now, item(&id, &text));
                }
                3 => out += batcher.answered().len(),
                _ => batcher.failed(Dropped::Failed, now),
            }
            if let Some(batch) = batcher.poll(now) {
                prop_assert!(batch.len() <= 3 && !batch.is_empty());
                for item in &batch {
                    prop_assert_eq!(&last[item.segment.as_str()], &item.text, "the latest text");
                }
            }
            prop_assert!(batcher.waiting.len() <= 5);
        }
        batcher.give_up();
        let dropped: usize = batcher.take_dropped().iter().map(|(_, number)| number).sum();
        prop_assert_eq!(put, out + dropped);
    }
}
