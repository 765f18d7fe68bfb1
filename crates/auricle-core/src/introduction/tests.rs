use proptest::prelude::{any, prop, proptest};

use super::introduced;

#[test]
fn people_who_introduce_themselves_are_heard() {
    for (text, name) in [
        ("My name is Ana.", "Ana"),
        ("Good morning, my name's Ana García and I run sales.", "Ana"),
        ("my name is, uh, Ana", "Ana"),
        ("Well. My name is Jean-Luc, nice to meet you.", "Jean-Luc"),
        ("My name is O'Brien.", "O'Brien"),
        ("I'm Ana", "Ana"),
        ("I’m Ana.", "Ana"),
        ("I am Ana, from accounting.", "Ana"),
        ("Hi, I'm Ana.", "Ana"),
        ("Hello everyone, I'm Ana García.", "Ana"),
        ("I'm Ana from accounting.", "Ana"),
        ("I'm Ahmed and this is my team.", "Ahmed"),
        ("I'm Brian.", "Brian"),
        ("This is Ana speaking.", "Ana"),
        ("Hello, this is Ana calling from the bank.", "Ana"),
        ("Me llamo Ana.", "Ana"),
        ("Hola, soy Ana.", "Ana"),
        ("Mi nombre es Íñigo", "Íñigo"),
        ("Bonjour, je m'appelle Chloé.", "Chloé"),
        ("Ich heiße Jürgen.", "Jürgen"),
        ("Mein Name ist Lena.", "Lena"),
        ("Mi chiamo Luca.", "Luca"),
        ("Olá, meu nome é João.", "João"),
        ("Mijn naam is Sanne.", "Sanne"),
        ("Меня зовут Анна.", "Анна"),
        // Without capitals, as PocketSphinx writes, or all in capitals.
        ("my name is ana", "Ana"),
        ("hello my name is ana and i work here", "Ana"),
        ("MY NAME IS ANA", "Ana"),
        ("this is ana speaking", "Ana"),
        ("me llamo ana", "Ana"),
        ("hi I my name is ana I work here", "Ana"),
    ] {
        assert_eq!(introduced(text).as_deref(), Some(name), "{text}");
    }
}

#[test]
fn whoever_says_something_else_is_not_named() {
    for text in [
        "",
        "I'm",
        "my name is",
        "I'm tired",
        "I'm Tired",
        "I'M TIRED",
        "I'm sorry.",
        "I'm Sorry.",
        "i'm in",
        "I'm In",
        "I am Fine, thanks.",
        "I'm Going home.",
        "I'm Excited and ready.",
        "I'm Hopeful.",
        "I'm Google certified.",
        "I'm Team Lead.",
        "I'm HR.",
        "I'm French.",
        "I'm Doctor Smith.",
        "I'm Ana's sister.",
        "I'm ana",
        "hi i'm ana",
        "I AM ANA",
        "I'm Tired Of Waiting",
        "She said I'm Ana.",
        "He thinks my name is Ana.",
        "If my name is Ana, then what?",
        "My name is Ana?",
        "My name is not Ana.",
        "My name isn't Ana.",
        "Her name is Ana.",
        "Is my name Ana?",
        "My name is on the list.",
        "My name is important to me.",
        "my name is important to me",
        "my name is written there",
        "my name is mud to everybody",
        "My name is. Ana left.",
        "My name is Doctor Smith.",
        "This is Ana.",
        "This is Ana, speaking of whom",
        "this is me speaking",
        "This is English speaking territory.",
        "this is your captain speaking",
        "I like soy Milk.",
        "soy Ana",
        "Mein Name ist Programm.",
        "me llamo la atención",
        "My name is 7.",
        "My name is X.",
    ] {
        assert_eq!(introduced(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_looked_at_and_a_name_is_of_it(text in any::<String>()) {
        if let Some(name) = introduced(&text) {
            assert!(text.to_lowercase().contains(&name.to_lowercase()), "{name:?} of {text:?}");
        }
    }

    #[test]
    fn any_words_around_a_phrase_do_no_harm(
        words in prop::collection::vec("(I'm|i'm|my|name|is|this|speaking|Hi,|[A-Za-zß’'-]{0,50}|[.?!—,]{1,3})", 0..12),
    ) {
        let text = words.join(" ");
        if let Some(name) = introduced(&text) {
            assert!((2..=40).contains(&name.chars().count()), "{name:?} of {text:?}");
        }
    }
}
