//! Feeds without a network: what is bounded, and what is dropped.

use auricle_store::SqliteStore;

use super::*;
use crate::clock::SystemClock;
use crate::outgoing::reach::Reach;

/// Keeps its store's folder.
struct Ground {
    triggers: Arc<Triggers>,
    _folder: tempfile::TempDir,
}

impl Ground {
    fn new(limits: Limits) -> Self {
        let config = WebhooksConfig {
            conversation: None,
            transcript: Some("http://127.0.0.1:9/words".into()),
            audio: Some("http://127.0.0.1:9/audio".into()),
            secret: None,
            allow_private: true,
        };
        let folder = tempfile::TempDir::new().unwrap();
        let store = SqliteStore::open(folder.path().join("auricle.db"), Default::default()).unwrap();
        let outgoing = Outgoing::new(Reach::new(true), &limits, Arc::new(SystemClock)).unwrap();
        let runtime = (Handle::current(), TaskTracker::new());
        let triggers =
            Triggers::new(&config, store, outgoing, Arc::new(SystemClock), Arc::new(limits), runtime);
        Self { triggers, _folder: folder }
    }

    /// A feed for the operator's two receivers.
    fn feed(&self, user: &str) -> Feed {
        let mut feed = Feed::new(Arc::clone(&self.triggers), user.into(), 16_000, Arc::default());
        feed.set_receivers(self.triggers.receivers(Vec::new()));
        feed
    }

    fn held(&self) -> usize {
        self.triggers.held.bytes()
    }
}

fn words(text: &str) -> Input {
    Input::Transcript(Transcript { segments: vec![serde_json::json!({ "text": text })], memory_id: None })
}

fn app_audio(feed: &mut Feed) {
    let turn = Arc::new(tokio::sync::Semaphore::new(1));
    let receiver = Receiver {
        url: "http://127.0.0.1:9/app".parse().unwrap(),
        author: Author::User,
        kind: TargetKind::App,
        secret: None,
        words: false,
        audio_secs: Some(1),
        turn,
        recipient: None,
    };
    feed.set_receivers(vec![receiver]);
}

#[tokio::test]
async fn p6_what_all_feeds_hold_is_bounded_and_a_feed_drops_its_own() {
    let limits =
        Limits { pusher_link_bytes_max: 600_000, pusher_total_bytes_max: 1_000_000, ..Limits::default() };
    let ground = Ground::new(limits);
    let (mut first, mut second) = (ground.feed("ann"), ground.feed("bob"));
    for number in 0..10 {
        first.take(Input::Audio { at: f64::from(number), pcm: vec![7; 100_000] });
    }
    assert!(first.held.bytes() <= 600_000 + 160_000, "its own bound, and a stretch that is not whole");
    let held = first.held.bytes();
    for number in 0..100 {
        second.take(words(&format!("{number} {}", "a".repeat(50_000))));
        assert!(ground.held() <= 1_000_000);
    }
    assert_eq!(first.held.bytes(), held, "another's is not touched");
    let newest = second.lanes[0].newest_words().unwrap();
    assert!(newest.contains(r#"{"text":"99 aaa"#), "the oldest goes, the newest stays");
    drop((first, second));
    assert_eq!(ground.held(), 0);
    // No room at all: what comes is dropped, a stretch that is not whole included.
    let ground = Ground::new(Limits { pusher_total_bytes_max: 1, ..Limits::default() });
    let mut third = ground.feed("bob");
    third.take(Input::Audio { at: 0.0, pcm: vec![7; 1_000] });
    third.take(words("b"));
    assert_eq!((third.held.bytes(), third.lanes.iter().map(Lane::bytes).sum::<usize>()), (0, 0));
}

#[tokio::test]
async fn p6_a_delivery_under_way_counts_until_it_is_done() {
    let ground = Ground::new(Limits::default());
    let mut feed = ground.feed("ann");
    feed.take(words("hello"));
    let held = ground.held();
    assert_eq!(held, r#"{"segments":[{"text":"hello"}],"session_id":"ann"}"#.len());
    let begun = std::future::poll_fn(|cx| Poll::Ready(feed.poll_deliver(cx).is_pending())).await;
    assert!(begun);
    assert_eq!((feed.lanes[0].waiting(), ground.held()), (0, held));
    std::future::poll_fn(|cx| feed.poll_deliver(cx)).await;
    assert_eq!(ground.held(), 0);
}

#[tokio::test]
async fn p6_what_is_given_faster_than_it_is_taken_is_dropped_and_whoever_gives_goes_on() {
    let ground = Ground::new(Limits { trigger_inputs_max: 10, ..Limits::default() });
    let handle = ground.triggers.open(&"ann".into(), 16_000);
    // The feed has had no chance to run yet.
    for _ in 0..100 {
        handle.audio(0.0, &[7; 1_000]);
    }
    assert_eq!(ground.held(), 10_000);
    drop(handle);
    ground.triggers.tail.close();
    ground.triggers.tail.wait().await;
    assert_eq!(ground.held(), 0);
}

#[tokio::test]
async fn of_an_apps_audio_the_latest_wins() {
    let ground = Ground::new(Limits::default());
    let mut feed = ground.feed("ann");
    app_audio(&mut feed);
    for second in 0..5_u8 {
        feed.take(Input::Audio { at: f64::from(second), pcm: vec![second; 32_000] });
    }
    assert_eq!((feed.lanes[0].waiting(), feed.lanes[0].bytes()), (1, 32_000));
    feed.take(Input::Audio { at: 100.0, pcm: vec![9; 10] });
    assert_eq!(feed.lanes[0].waiting(), 1, "what is not long enough waits for more");
}

#[tokio::test]
async fn a_sessions_audio_of_another_conversation_is_another_stretch() {
    let ground = Ground::new(Limits::default());
    let mut feed = ground.feed("ann");
    let samples = |conversation: &str, secs: i64| Input::Samples {
        conversation: conversation.into(),
        at: UnixMicros(secs * 1_000_000),
        pcm: vec![7; 16_000],
    };
    feed.take(samples("c1", 10));
    feed.take(samples("c1", 11));
    assert_eq!(feed.lanes[1].waiting(), 0);
    feed.take(samples("c2", 12));
    assert_eq!((feed.lanes[1].waiting(), feed.lanes[1].waiting_bytes()), (1, 64_000));
}

#[tokio::test]
async fn p2_nothing_is_handed_over_while_nobody_wants_it() {
    let ground = Ground::new(Limits::default());
    let mut feed = ground.feed("ann");
    assert_eq!(feed.wants.load(Ordering::Relaxed), WORDS | AUDIO);
    app_audio(&mut feed);
    assert_eq!(feed.wants.load(Ordering::Relaxed), AUDIO);
    feed.set_receivers(Vec::new());
    assert_eq!(feed.wants.load(Ordering::Relaxed), 0);
    feed.take(words("nobody hears this"));
    assert_eq!(ground.held(), 0);
}
