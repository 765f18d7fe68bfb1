//! Which model hears which language. Source: listen-protocol 2.6.

/// What is asked for a language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// As the service names it.
    pub model: String,
    /// `multi`, or one language.
    pub language: String,
    /// The parameter that takes a vocabulary.
    pub terms: &'static str,
}

struct Family {
    /// As it is configured.
    entry: &'static str,
    /// As the service names it.
    model: &'static str,
    /// Languages that are heard together, as `multi`.
    multi: &'static [&'static str],
    /// Languages that are heard one by one.
    single: &'static [&'static str],
    terms: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { entry: "nova-3", model: "nova-3", multi: NOVA_3_MULTI, single: NOVA_3_SINGLE, terms: "keyterm" },
    Family {
        entry: "nova-2",
        model: "nova-2-general",
        multi: NOVA_2_MULTI,
        single: NOVA_2_SINGLE,
        terms: "keywords",
    },
];

const NOVA_3_MULTI: &[&str] = &[
    "multi", "en", "en-US", "en-AU", "en-GB", "en-IN", "en-NZ", "es", "es-419", "fr", "fr-CA", "de", "hi",
    "ru", "pt", "pt-BR", "pt-PT", "ja", "it", "nl",
];
const NOVA_3_SINGLE: &[&str] = &[
    "bg", "ca", "cs", "da", "da-DK", "nl", "en", "en-US", "en-AU", "en-GB", "en-IN", "en-NZ", "et", "fi",
    "nl-BE", "fr", "fr-CA", "de", "de-CH", "el", "hi", "hu", "id", "it", "ja", "ko", "ko-KR", "lv", "lt",
    "ms", "no", "pl", "pt", "pt-BR", "pt-PT", "ro", "ru", "sk", "es", "es-419", "sv", "sv-SE", "tr", "uk",
    "vi",
];
const NOVA_2_MULTI: &[&str] = &["multi", "en", "en-US", "en-AU", "en-GB", "en-IN", "en-NZ", "es", "es-419"];
const NOVA_2_SINGLE: &[&str] = &["zh", "zh-CN", "zh-Hans", "zh-TW", "zh-Hant", "zh-HK", "th", "th-TH"];

/// The first of `models` that hears `language`; English by the newest if none does.
///
/// A model that is none of the known two is taken to hear whatever it is asked for: it is somebody's own.
pub fn choose(models: &[String], language: &str, may_be_multi: bool) -> Choice {
    let language = if language == "auto" { "multi" } else { language };
    for model in models {
        let Some(family) = FAMILIES.iter().find(|family| family.entry == model || family.model == model)
        else {
            return Choice { model: model.clone(), language: language.to_owned(), terms: own_terms(model) };
        };
        let of = |language: &str| Choice {
            model: family.model.to_owned(),
            language: language.to_owned(),
            terms: family.terms,
        };
        if may_be_multi && family.multi.contains(&language) {
            return of("multi");
        }
        if family.single.contains(&language) {
            return of(language);
        }
    }
    Choice { model: "nova-3".to_owned(), language: "en".to_owned(), terms: "keyterm" }
}

/// Variants of a generation (`nova-3-medical`) take terms as it does.
fn own_terms(model: &str) -> &'static str {
    FAMILIES.iter().find(|family| model.starts_with(family.entry)).map_or("keywords", |family| family.terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(models: &[&str], language: &str, may_be_multi: bool) -> (String, String) {
        let models: Vec<String> = models.iter().map(|model| (*model).to_owned()).collect();
        let choice = choose(&models, language, may_be_multi);
        (choice.model, choice.language)
    }

    #[track_caller]
    fn assert_chosen(models: &[&str], language: &str, may_be_multi: bool, model: &str, heard: &str) {
        let wanted = (model.to_owned(), heard.to_owned());
        assert_eq!(chosen(models, language, may_be_multi), wanted, "{models:?} {language}");
    }

    #[test]
    fn english_normally_becomes_multi() {
        for language in ["en", "en-GB", "auto", "multi", "es-419", "nl"] {
            assert_chosen(&["nova-3"], language, true, "nova-3", "multi");
        }
    }

    #[test]
    fn a_single_language_is_heard_alone() {
        assert_chosen(&["nova-3"], "en-GB", false, "nova-3", "en-GB");
        assert_chosen(&["nova-3"], "ko", true, "nova-3", "ko");
        assert_chosen(&["nova-3"], "multi", false, "nova-3", "en");
    }

    #[test]
    fn with_the_default_models_chinese_and_thai_fall_through_to_english() {
        for language in ["zh", "zh-CN", "th", "th-TH"] {
            assert_chosen(&["nova-3"], language, true, "nova-3", "en");
        }
    }

    #[test]
    fn the_older_model_hears_chinese_and_thai_if_it_is_configured() {
        for language in ["zh", "zh-HK", "th"] {
            assert_chosen(&["nova-3", "nova-2"], language, true, "nova-2-general", language);
        }
        assert_chosen(&["nova-2", "nova-3"], "es", true, "nova-2-general", "multi");
        assert_chosen(&["nova-2", "nova-3"], "fr", true, "nova-3", "multi");
        assert_chosen(&["nova-2", "nova-3"], "en", false, "nova-3", "en");
    }

    #[test]
    fn no_language_is_refused() {
        for language in ["xx", "", "sw", "klingon"] {
            assert_chosen(&["nova-3", "nova-2"], language, true, "nova-3", "en");
        }
        assert_chosen(&[], "de", true, "nova-3", "en");
    }

    #[test]
    fn somebodys_own_model_hears_what_it_is_asked_for() {
        assert_chosen(&["nova-3-medical"], "sw", true, "nova-3-medical", "sw");
        assert_eq!(choose(&["nova-3-medical".to_owned()], "en", true).terms, "keyterm");
        assert_eq!(choose(&["whisper-large".to_owned()], "en", true).terms, "keywords");
    }
}
