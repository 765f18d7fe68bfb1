//! Which language it is asked for. Source: its page on languages.

use super::NAME;
use crate::EngineError;

const LANGUAGES: [&str; 55] = [
    "ar", "ba", "be", "bg", "bn", "ca", "cmn", "cs", "cy", "da", "de", "el", "en", "eo", "es", "et", "eu",
    "fa", "fi", "fr", "ga", "gl", "he", "hi", "hr", "hu", "ia", "id", "it", "ja", "ko", "lt", "lv", "mn",
    "mr", "ms", "mt", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "sw", "ta", "th", "tr", "ug",
    "uk", "ur", "vi", "yue",
];
/// Packs of two languages that are heard together.
const PACKS: [&str; 4] = ["ar_en", "cmn_en", "en_ms", "en_ta"];
/// Ways of writing English that it knows.
const LOCALES: [&str; 3] = ["en-AU", "en-GB", "en-US"];

/// The language, and how it is to be written; `any` for a client that names none.
///
/// Errors: it does not hear `language`.
pub(super) fn choose<'a>(language: &'a str, any: &'a str) -> Result<(&'a str, Option<&'a str>), EngineError> {
    let language = if matches!(language, "multi" | "auto") { any } else { language };
    let locale = LOCALES.contains(&language).then_some(language);
    let base = match language.split('-').next().unwrap_or_default() {
        // Written as Omi's clients write it.
        "zh" if language == "zh-HK" => "yue",
        "zh" => "cmn",
        base => base,
    };
    if LANGUAGES.contains(&base) || PACKS.contains(&base) {
        return Ok((base, locale));
    }
    Err(EngineError::Refused(format!(
        "{NAME} does not hear `{language}`; choose another engine or send transcripts"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_asked_for_by_its_own_code() {
        for (language, asked) in [
            ("en", ("en", None)),
            ("en-GB", ("en", Some("en-GB"))),
            ("en-IN", ("en", None)),
            ("pt-BR", ("pt", None)),
            ("zh", ("cmn", None)),
            ("zh-TW", ("cmn", None)),
            ("zh-HK", ("yue", None)),
            ("cmn_en", ("cmn_en", None)),
            ("multi", ("de", None)),
            ("auto", ("de", None)),
        ] {
            assert_eq!(choose(language, "de").unwrap(), asked, "{language}");
        }
        let Err(EngineError::Refused(text)) = choose("tlh", "en") else { panic!("heard") };
        assert!(text.contains("`tlh`"), "{text}");
    }
}
