//! Full-text search.

use auricle_core::UserId;

use super::{Ground, at, batch, opening, segment};
use crate::store::{Choice, Near, NewActionItem, NewMemory, OpenConversation, Record, SearchHit};

async fn find(ground: &Ground, user: &str, query: &str) -> Vec<SearchHit> {
    ground.store.search(&UserId::from(user), query, 10, 0).await.unwrap()
}

pub(super) async fn ids(ground: &Ground, query: &str) -> Vec<String> {
    let mut ids: Vec<_> =
        find(ground, "ann", query).await.iter().map(|hit| hit.conversation.id.as_str().to_owned()).collect();
    ids.sort();
    ids
}

pub(super) async fn fill(ground: &Ground) {
    ground.completed("c1", "we met the dentist on a rainy Tuesday", "Teeth").await;
    ground.completed("c2", "the green tea was hot", "Tea at Carla's").await;
    let owner = ground.live("c3").await;
    let words =
        [segment("a", 0.0, "the dentist called"), segment("b", 4.5, "again, about tea that is not green")];
    ground.store.append_segments(batch(&owner, 5, &words)).await.unwrap();
}

pub async fn words_are_anded_over_the_conversation(ground: Ground) {
    fill(&ground).await;
    assert_eq!(ids(&ground, "dentist").await, ["c1", "c3"]);
    assert_eq!(ids(&ground, "dentist tea ").await, ["c3"]);
    assert_eq!(ids(&ground, "teeth rainy ").await, ["c1"]);
    assert_eq!(ids(&ground, "dentist umbrella ").await, [""; 0]);
    // Stemmed.
    assert_eq!(ids(&ground, "dentists calling ").await, ["c3"]);
}

pub async fn phrases_stand_together(ground: Ground) {
    fill(&ground).await;
    assert_eq!(ids(&ground, "green tea ").await, ["c2", "c3"]);
    assert_eq!(ids(&ground, "\"green tea\"").await, ["c2"]);
    assert_eq!(ids(&ground, "den ").await, [""; 0]);
}

pub async fn any_text_is_a_query(ground: Ground) {
    fill(&ground).await;
    for query in [
        "",
        " ",
        "\"",
        "\"\"",
        "'",
        "*",
        "^",
        "-",
        "+",
        "(",
        ")",
        "()",
        "AND",
        "OR NOT",
        "NEAR(",
        "a:b",
        "scope:u1",
        "body : tea",
        "{scope body}:x",
        "tea\0",
        "\u{2}\u{3}",
        "%_\\",
        "; DROP TABLE segments --",
        "東京",
        "🧠",
        "ß",
        "\"tea",
        "te\"a",
        "\"\"\"tea\"\"\"",
        "tea*",
        "tea^2",
        "-tea",
    ] {
        find(&ground, "ann", query).await;
    }
    let long = "tea ".repeat(5_000);
    assert_eq!(ids(&ground, &long).await, ["c2", "c3"]);
    assert_eq!(ids(&ground, "tea*").await, ["c2", "c3"]);
}

pub async fn users_see_only_their_own(ground: Ground) {
    fill(&ground).await;
    let bob = OpenConversation { user: "bob".into(), ..opening(Choice::New, "b1") };
    let owner = ground.store.open_conversation(bob).await.unwrap().ownership;
    ground.store.append_segments(batch(&owner, 1, &[segment("a", 0.0, "bob's dentist")])).await.unwrap();
    let found = find(&ground, "bob", "dentist").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].conversation.id, "b1".into());
    assert_eq!(ids(&ground, "dentist").await, ["c1", "c3"]);
    assert!(find(&ground, "nobody", "dentist").await.is_empty());
    for query in ["x\" OR scope:\"u1", "u1", "u2", "scope:u1", "dentist) OR (scope:u1"] {
        let hits = find(&ground, "bob", query).await;
        assert!(hits.iter().all(|hit| hit.conversation.user == "bob".into()), "{query}");
    }
}

pub async fn matches_are_marked_and_placed(ground: Ground) {
    fill(&ground).await;
    let found = find(&ground, "ann", "green ").await;
    let hit = found.iter().find(|hit| hit.conversation.id == "c3".into()).unwrap();
    assert!(hit.conversation.segments.is_empty() && hit.score > 0.0);
    let snippet = &hit.snippets[0];
    assert!(snippet.text.contains("\u{2}green\u{3}"), "{:?}", snippet.text);
    assert_eq!((snippet.segment.clone(), snippet.start), (Some("b".into()), Some(4.5)));
    let found = find(&ground, "ann", "carla").await;
    assert_eq!((found[0].snippets[0].segment.clone(), found[0].snippets[0].start), (None, None));
}

pub async fn the_index_follows_every_write(ground: Ground) {
    fill(&ground).await;
    let ann = UserId::from("ann");
    let again = ground.store.open_conversation(opening(Choice::Resume, "c9")).await.unwrap();
    assert_eq!(again.ownership.conversation, "c3".into());
    let mut change = batch(&again.ownership, 6, &[segment("a", 0.0, "the plumber called")]);
    change.delete = vec!["b".into()];
    ground.store.append_segments(change).await.unwrap();
    assert_eq!(ids(&ground, "dentist").await, ["c1"]);
    assert_eq!(ids(&ground, "plumber").await, ["c3"]);
    assert_eq!(ids(&ground, "tea").await, ["c2"]);
    ground.store.rename(&ann, &"c1".into(), "Molars", at(9)).await.unwrap();
    assert_eq!(ids(&ground, "molars").await, ["c1"]);
    ground.store.rename(&ann, &"c1".into(), "Incisors", at(9)).await.unwrap();
    assert_eq!(ids(&ground, "molars").await, [""; 0]);
    ground.store.delete(&ann, &"c3".into()).await.unwrap();
    assert_eq!(ids(&ground, "plumber").await, [""; 0]);
}

pub async fn pages_do_not_overlap(ground: Ground) {
    for number in 0..7 {
        ground.completed(&format!("c{number}"), "common words", &format!("Title {number}")).await;
    }
    let mut seen = Vec::new();
    for offset in [0, 3, 6] {
        let page = ground.store.search(&"ann".into(), "common", 3, offset).await.unwrap();
        assert!(page.windows(2).all(|pair| pair[0].score >= pair[1].score));
        seen.extend(page.into_iter().map(|hit| hit.conversation.id));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 7);
}

pub async fn a_ranking_and_its_hits_are_the_search(ground: Ground) {
    fill(&ground).await;
    let (store, ann) = (&ground.store, UserId::from("ann"));
    let query = "dentist tea green ";
    let whole = store.search(&ann, "tea ", 10, 0).await.unwrap();
    let ranked = store.search_ranks(&ann, "tea ", 10, 0).await.unwrap();
    let hits = store.search_hits(&ann, "tea ", ranked.clone()).await.unwrap();
    let shown = |hits: &[SearchHit]| -> Vec<_> {
        hits.iter()
            .map(|hit| (hit.conversation.id.clone(), hit.score.to_bits(), format!("{:?}", hit.snippets)))
            .collect()
    };
    assert_eq!(shown(&hits), shown(&whole));
    assert_eq!(whole.len(), 2);
    let last = store.search_ranks(&ann, "tea ", 1, 1).await.unwrap();
    assert_eq!(last.iter().map(|found| &found.conversation).collect::<Vec<_>>(), [&ranked[1].conversation]);
    assert_eq!(store.search_ranks(&ann, query, 10, 0).await.unwrap().len(), 1);
    assert!(store.search_hits(&"bob".into(), "tea ", ranked.clone()).await.unwrap().is_empty());
    // What is gone since is left out.
    store.delete(&ann, &ranked[0].conversation).await.unwrap();
    assert_eq!(store.search_hits(&ann, "tea ", ranked).await.unwrap().len(), 1);
}

pub async fn rarer_words_more_lines_and_titles_weigh_more(ground: Ground) {
    ground.completed("c1", "common once", "One").await;
    ground.completed("c2", "common once, and a trombone", "Two").await;
    ground.completed("c3", "nothing of the kind", "Common").await;
    let owner = ground.live("c4").await;
    let words = [segment("a", 0.0, "common"), segment("b", 2.0, "common"), segment("c", 4.0, "common")];
    ground.store.append_segments(batch(&owner, 5, &words)).await.unwrap();
    let order: Vec<_> =
        find(&ground, "ann", "common ").await.into_iter().map(|hit| hit.conversation.id).collect();
    assert_eq!(order.len(), 4);
    // Two lines' worth in a title, three in a transcript three lines long, one in a transcript of one line.
    assert_eq!(order[0], "c3".into());
    let found = find(&ground, "ann", "common trombone ").await;
    assert_eq!(found.len(), 1);
    let score = |query: &'static str, id: &'static str| {
        let ground = &ground;
        async move {
            let found = find(ground, "ann", query).await;
            found.into_iter().find(|hit| hit.conversation.id == id.into()).unwrap().score
        }
    };
    assert!(score("trombone ", "c2").await > score("common ", "c2").await);
}

pub async fn a_row_that_is_given_again_is_whose_it_is_now(ground: Ground) {
    let (store, ann) = (&ground.store, UserId::from("ann"));
    ground.completed("c1", "a trombone", "First").await;
    let owner = ground.live("c2").await;
    store.append_segments(batch(&owner, 5, &[segment("a", 0.0, "a violin")])).await.unwrap();
    assert_eq!(ids(&ground, "violin ").await, ["c2"]);
    // The newest row goes, and the next one may get its key: in another conversation of the same user.
    let mut change = batch(&owner, 6, &[]);
    change.delete = vec!["a".into()];
    store.append_segments(change).await.unwrap();
    assert_eq!(ids(&ground, "violin ").await, [""; 0]);
    let other = OpenConversation { source: auricle_core::Source::Phone, ..opening(Choice::New, "c3") };
    let other = store.open_conversation(other).await.unwrap().ownership;
    store.append_segments(batch(&other, 7, &[segment("a", 0.0, "a cello")])).await.unwrap();
    assert_eq!(ids(&ground, "cello ").await, ["c3"]);
    store.delete(&ann, &"c3".into()).await.unwrap();
    ground.completed("c4", "a cello and a viola", "Fourth").await;
    assert_eq!(ids(&ground, "cello ").await, ["c4"]);
    assert_eq!(ids(&ground, "trombone ").await, ["c1"]);
}

pub async fn records_are_found_by_their_words(ground: Ground) {
    let (ann, bob) = (UserId::from("ann"), UserId::from("bob"));
    let item = |id: &str, text: &str| NewActionItem {
        id: id.into(),
        description: text.into(),
        due_at: None,
        conversation: None,
        now: at(1),
    };
    let store = &ground.store;
    store.add_action_item(&ann, item("i1", "call the green plumber")).await.unwrap();
    store.add_action_item(&ann, item("i2", "paint it green")).await.unwrap();
    store.add_action_item(&bob, item("i3", "green too")).await.unwrap();
    let memory =
        NewMemory { id: "m1".into(), text: "likes green tea".into(), conversation: None, now: at(1) };
    store.add_memory(&ann, memory).await.unwrap();
    let find = |user: UserId, query: &'static str, limit| async move {
        let found = store.search_records(&user, query, limit).await.unwrap();
        let mut ids: Vec<_> = found
            .into_iter()
            .map(|(record, text)| match record {
                Record::ActionItem(item) => (item.id.to_string(), text),
                Record::Memory(memory) => (memory.id.to_string(), text),
            })
            .collect();
        ids.sort();
        ids
    };
    let ids = |found: &[(String, String)]| found.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    let green = find(ann.clone(), "green ", 10).await;
    assert_eq!(ids(&green), ["i1", "i2", "m1"]);
    assert_eq!(green[1].1, "paint it \u{2}green\u{3}");
    assert_eq!(ids(&find(ann.clone(), "plumbers green ", 10).await), ["i1"]);
    assert_eq!(find(ann.clone(), "green ", 1).await.len(), 1);
    assert_eq!(ids(&find(bob, "green OR \"scope:u1", 10).await), [""; 0]);
    for query in ["", "\"", "?!", "nothing "] {
        assert!(find(ann.clone(), query, 10).await.is_empty(), "{query:?}");
    }
}

pub async fn near_hits_begin_where_they_are_near(ground: Ground) {
    let id = ground.completed("c1", "the first of many words", "Title").await;
    let near = |id: &str, segments: Option<(&str, &str)>| Near {
        conversation: id.into(),
        similarity: 0.5,
        segments: segments.map(|(first, last)| (first.into(), last.into())),
    };
    let ask = vec![
        near("c1", Some(("s1", "s1"))),
        near("none", None),
        near("c1", None),
        near("c1", Some(("gone", "s1"))),
    ];
    let hits = ground.store.near_hits(&"ann".into(), ask).await.unwrap();
    assert_eq!(hits.len(), 3);
    assert!(hits.iter().all(|hit| hit.conversation.id == id && hit.score == 0.5));
    let snippet = &hits[0].snippets[0];
    assert_eq!((snippet.text.as_str(), snippet.start), ("the first of many words", Some(0.0)));
    assert_eq!(snippet.segment, Some("s1".into()));
    assert_eq!(hits[1].snippets[0].text, "About Title.");
    assert!(hits[2].snippets.is_empty(), "its words changed since");
    let theirs = ground.store.near_hits(&"bob".into(), vec![near("c1", None)]).await.unwrap();
    assert!(theirs.is_empty());
}
