//! Translations, and the language that a user reads.

use auricle_core::{Translation, UserId};

use super::{Ground, batch, segment};
use crate::store::StoreError;

fn into(lang: &str, text: &str) -> Translation {
    Translation { lang: lang.into(), text: text.into() }
}

pub async fn a_translation_stands_beside_the_text_that_it_is_of(ground: Ground) {
    let (store, ann) = (&ground.store, UserId::from("ann"));
    let owner = ground.live("c1").await;
    let words = [segment("a", 0.0, "hello"), segment("b", 2.0, "how are you")];
    store.append_segments(batch(&owner, 5, &words)).await.unwrap();
    let put = async |of: &[(&str, &str, Translation)]| {
        let of = of.iter().map(|(id, text, to)| ((*id).into(), (*text).to_owned(), to.clone()));
        store.translate_segments(&ann, &"c1".into(), of.collect()).await
    };
    let stored = put(&[
        ("a", "hello", into("es", "hola")),
        ("b", "how are", into("es", "cómo estás")),
        ("none", "hello", into("es", "hola")),
    ])
    .await
    .unwrap();
    assert_eq!(stored.len(), 1, "of the text that it is of, and no other");
    assert_eq!((stored[0].text.as_str(), &stored[0].translations[..]), ("hello", &[into("es", "hola")][..]));
    put(&[("a", "hello", into("de", "hallo"))]).await.unwrap();
    let stored = put(&[("a", "hello", into("es", "¡hola!"))]).await.unwrap();
    assert_eq!(stored[0].translations, [into("de", "hallo"), into("es", "¡hola!")]);
    let read = ground.other.conversation(&ann, &"c1".into()).await.unwrap().unwrap();
    assert_eq!(read.segments[0].translations, stored[0].translations);
    assert!(read.segments[1].translations.is_empty());
    // Who stores it again does not know of them yet.
    store.append_segments(batch(&owner, 6, &[segment("a", 0.0, "hello"), words[1].clone()])).await.unwrap();
    let again = ground.other.conversation(&ann, &"c1".into()).await.unwrap().unwrap();
    assert_eq!(again.segments, read.segments);
    // A text that grows has lost its translation.
    store.append_segments(batch(&owner, 6, &[segment("a", 0.0, "hello there")])).await.unwrap();
    assert!(put(&[("a", "hello", into("es", "hola"))]).await.unwrap().is_empty());
    let grown = ground.other.conversation(&ann, &"c1".into()).await.unwrap().unwrap();
    assert!(grown.segments[0].translations.is_empty());
    let bobs = store.translate_segments(&"bob".into(), &"c1".into(), Vec::new()).await;
    assert!(matches!(bobs, Err(StoreError::NotFound(_))));
}

pub async fn a_language_is_kept_by_user(ground: Ground) {
    let (store, ann) = (&ground.store, UserId::from("ann"));
    assert!(matches!(store.set_language(&ann, Some("es")).await, Err(StoreError::NotFound(_))));
    ground.live("c1").await;
    assert_eq!(store.language(&ann).await.unwrap(), None);
    store.set_language(&ann, Some("pt-BR")).await.unwrap();
    assert_eq!(ground.other.language(&ann).await.unwrap().as_deref(), Some("pt-BR"));
    store.set_language(&ann, None).await.unwrap();
    assert_eq!(store.language(&ann).await.unwrap(), None);
}
